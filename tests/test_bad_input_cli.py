"""Whatever is wrong with what one gives it, the command says so in one line, exits with 2, and writes nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from models.building import Net
from ozgraph.cli import run as command_line


def mlp() -> onnx.ModelProto:
    net = Net("mlp")
    x = net.op("Relu", net.linear(net.input("x", ("batch", 6)), 6, 12, name="fc1"))
    return net.build(net.linear(x, 12, 5, name="fc2"))


def snapshot(folder: Path) -> dict[str, bytes | str]:
    """Everything in a folder: contents of files, targets of links, and the folders themselves."""
    found: dict[str, bytes | str] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = f"-> {os.readlink(path)}"
        else:
            found[name] = path.read_bytes() if path.is_file() else "folder"
    return found


@dataclass
class Shell:
    """Runs commands in a folder and checks how they fail."""

    folder: Path
    capsys: pytest.CaptureFixture[str]

    def refused(self, *arguments: str, status: int = 2) -> str:
        """The one line on standard error of a command that fails and leaves everything as it was."""
        before = snapshot(self.folder)
        assert command_line(list(arguments)) == status
        captured = self.capsys.readouterr()
        assert captured.out == ""
        assert captured.err.startswith("ozgraph: ") and captured.err.endswith("\n")
        assert captured.err.count("\n") == 1, captured.err
        assert "Traceback" not in captured.err and "internal error" not in captured.err
        assert snapshot(self.folder) == before, "nothing is written"
        return captured.err

    def done(self, *arguments: str) -> str:
        """The output of a command that succeeds."""
        status = command_line(list(arguments))
        captured = self.capsys.readouterr()
        assert status == 0, captured.err
        return captured.out


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    """A folder with a good model, in which everything happens; temporary files would be seen there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OZGRAPH_TRACEBACK", raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    onnx.save(mlp(), "good.onnx")
    return Shell(tmp_path, capsys)


HALF = ("-o", "small.onnx", "--target-params", "0.5")

COMMANDS = {
    "analyze": lambda model: ("analyze", model),
    "prune": lambda model: ("prune", model, *HALF),
    "eliminate": lambda model: ("eliminate", model, "-o", "small.onnx"),
    "verify": lambda model: ("verify", model, "good.onnx"),
    "verify the second": lambda model: ("verify", "good.onnx", model),
    "bench": lambda model: ("bench", model, "good.onnx", "--rounds", "2"),
}


def edited(change: Callable[[onnx.ModelProto], object]) -> Callable[[], None]:
    def write() -> None:
        model = mlp()
        change(model)
        Path("bad.onnx").write_bytes(model.SerializeToString())

    return write


def content(data: bytes) -> Callable[[], None]:
    def write() -> None:
        Path("bad.onnx").write_bytes(data)

    return write


def external(location: str, size: int | None = 48, before: Callable[[], None] = lambda: None) -> Callable[[], None]:
    """A model whose weight of 48 bytes is at ``location``, beside a file ``weights.bin`` of ``size`` bytes."""

    def write() -> None:
        node = helper.make_node("MatMul", ["x", "w"], ["y"])
        graph = helper.make_graph(
            [node], "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 4])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 3])],
            [numpy_helper.from_array(np.ones((4, 3), np.float32), "w")],
        )  # fmt: skip
        tensor = graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=location)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
        Path("bad.onnx").write_bytes(model.SerializeToString())
        if size is not None:
            Path("weights.bin").write_bytes(bytes(size))
        before()

    return write


def linked() -> None:
    outside = Path("..").resolve() / f"{Path.cwd().name}-secret.bin"
    outside.write_bytes(bytes(48))
    Path("link.bin").symlink_to(outside)


def cyclic(model: onnx.ModelProto) -> None:
    model.graph.node[0].input[0] = model.graph.node[1].output[0]


def bomb(model: onnx.ModelProto) -> None:
    """A few bytes that announce 4 PiB."""
    model.graph.initializer.append(numpy_helper.from_array(np.array([1 << 25, 1 << 25]), "huge"))
    fill = helper.make_node("ConstantOfShape", ["huge"], ["ones"], "fill")
    total = helper.make_node("ReduceSum", ["ones"], ["total"], keepdims=0)
    more = helper.make_node("Add", ["x", "total"], ["more"])
    model.graph.node[0].input[0] = "more"
    for node in (more, total, fill):
        model.graph.node.insert(0, node)


BAD_MODELS: dict[str, tuple[Callable[[], None], str]] = {
    "not a file": (lambda: None, "cannot be opened"),
    "a folder": (lambda: Path("bad.onnx").mkdir(), "is a folder"),
    "an empty file": (content(b""), "is empty"),
    "a pickle": (content(b"\x80\x02}q\x00."), "bad.onnx"),
    "a zip archive": (content(b"PK\x03\x04 zip"), "bad.onnx"),
    "text": (content(b"hello, world\n"), "bad.onnx"),
    "truncated": (content(mlp().SerializeToString()[:-300]), "bad.onnx"),
    "an unreadable type": (edited(lambda m: setattr(m.graph.initializer[0], "data_type", 99)), "element type 99"),
    "types that do not fit": (
        edited(lambda m: m.graph.initializer[0].CopyFrom(
            numpy_helper.from_array(np.ones((12, 6), np.float64), m.graph.initializer[0].name))),
        "tensor(double)); export the model again",
    ),
    "an input of the wrong type": (
        edited(lambda m: setattr(m.graph.input[0].type.tensor_type, "elem_type", TensorProto.INT64)),
        "export the model again",
    ),
    "an output of the wrong type": (
        edited(lambda m: setattr(m.graph.output[0].type.tensor_type, "elem_type", TensorProto.INT64)),
        "export the model again",
    ),
    "shapes that do not fit": (
        edited(lambda m: m.graph.initializer[0].CopyFrom(
            numpy_helper.from_array(np.ones((12, 7), np.float32), m.graph.initializer[0].name))),
        "",
    ),
    "a cycle": (edited(cyclic), "cycle"),
    "a dangling name": (edited(lambda m: m.graph.node[0].input.__setitem__(1, "nowhere")), "nowhere"),
    "a duplicate name": (edited(lambda m: m.graph.node.append(m.graph.node[0])), "fc1_out"),
    "a duplicate initializer": (edited(lambda m: m.graph.initializer.append(m.graph.initializer[0])), "fc1.weight"),
    "an opset from the future": (edited(lambda m: setattr(m.opset_import[0], "version", 999)), "opset 999"),
    "an opset from the past": (edited(lambda m: setattr(m.opset_import[0], "version", 5)), "opset 5"),
    "no opset": (edited(lambda m: m.ClearField("opset_import")), "operator set"),
    "external data missing": (external("nowhere.bin"), "missing"),
    "external data too short": (external("weights.bin", 40), "40"),
    "external data at an absolute path": (external("/etc/hostname"), "absolute"),
    "external data above the folder": (external("../weights.bin"), "outside"),
    "external data through a link": (external("link.bin", before=linked), "link"),
    "absurd sizes in a few bytes": (edited(bomb), "fill"),
    "an absurd weight": (edited(lambda m: m.graph.initializer[0].dims.extend([1 << 40, 1 << 40])), "fc1.weight"),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD_MODELS)
def test_a_bad_model_is_refused_by_every_command(what: str, shell: Shell) -> None:
    make, words = BAD_MODELS[what]
    make()
    for arguments in COMMANDS.values():
        message = shell.refused(*arguments("bad.onnx"))
        assert "bad.onnx" in message, "says which file"
        assert words in message


def test_a_real_process_fails_the_same_way(shell: Shell) -> None:
    Path("bad.onnx").write_bytes(mlp().SerializeToString()[:-300])
    before = snapshot(shell.folder)
    done = subprocess.run(
        [sys.executable, "-m", "ozgraph", *COMMANDS["prune"]("bad.onnx")], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith("ozgraph: ") and "bad.onnx" in done.stderr
    assert snapshot(shell.folder) == before


OUTPUTS: dict[str, tuple[Callable[[], object], str, str]] = {
    "the input": (lambda: None, "good.onnx", "overwrite"),
    "the input by another name": (lambda: None, "../{folder}/./good.onnx", "overwrite"),
    "the input through a link": (lambda: Path("link.onnx").symlink_to("good.onnx"), "link.onnx", "overwrite"),
    "the input through a linked folder": (
        lambda: Path("here").symlink_to(Path.cwd(), target_is_directory=True), "here/good.onnx", "overwrite",
    ),
    "a hard link to the input": (lambda: os.link("good.onnx", "hard.onnx"), "hard.onnx", "overwrite"),
    "a folder": (lambda: Path("out").mkdir(), "out", "folder"),
    "a folder that is not there": (lambda: None, "out/small.onnx", "does not exist"),
    "a file as a folder": (lambda: None, "good.onnx/small.onnx", "good.onnx"),
    "a device": (lambda: Path("null").symlink_to(os.devnull), "null", ""),
}  # fmt: skip


@pytest.mark.parametrize("what", OUTPUTS)
def test_an_output_that_cannot_be_is_refused_before_any_work(
    what: str, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare, output, words = OUTPUTS[what]
    prepare()

    def work(*_: object, **__: object) -> None:
        raise AssertionError("work was done first")

    monkeypatch.setattr("ozgraph.passes.infer_dims.InferDims.run", work)
    output = output.format(folder=shell.folder.name)
    assert words in shell.refused("prune", "good.onnx", "-o", output, "--target-params", "0.5")
    assert words in shell.refused("eliminate", "good.onnx", "-o", output)


def with_external_data(link: str | None = None) -> None:
    onnx.save(mlp(), "split.onnx", save_as_external_data=True, location="split.onnx.data", size_threshold=0)
    if link is not None:
        Path(link).symlink_to("split.onnx.data")


@pytest.mark.parametrize(
    ("output", "link"), [("split.onnx.data", None), ("alias.bin", "alias.bin"), ("new.onnx", "new.onnx.data")]
)
def test_the_external_data_of_the_input_is_never_written_to(
    output: str, link: str | None, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_external_data(link)

    def work(*_: object, **__: object) -> None:
        raise AssertionError("work was done first")

    monkeypatch.setattr("ozgraph.passes.infer_dims.InferDims.run", work)
    assert "overwrite" in shell.refused("prune", "split.onnx", "-o", output, "--target-params", "0.5")


def test_a_folder_that_cannot_be_written_to_is_refused(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("locked").mkdir()
    Path("locked").chmod(0o500)
    if os.access("locked", os.W_OK):  # whoever may write anywhere is told so by the system alone
        real = os.access
        monkeypatch.setattr("os.access", lambda path, mode: "locked" not in os.fspath(path) and real(path, mode))
    assert "cannot be written" in shell.refused("prune", "good.onnx", "-o", "locked/small.onnx", "--target-macs", "0.5")
    Path("locked").chmod(0o700)


def test_a_full_disk_leaves_nothing(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ozgraph.backends.files.stream", full)
    assert "No space left" in shell.refused(*COMMANDS["prune"]("good.onnx"))


BAD_ARGUMENTS: dict[str, tuple[tuple[str, ...], str]] = {
    "an unknown shape name": (("--shape", "image=1x6", *HALF), "image"),
    "a shape of another rank": (("--shape", "x=1x6x1", *HALF), "2 axes"),
    "a shape against a fixed size": (("--shape", "x=1x7", *HALF), "6"),
    "a shape of size zero": (("--shape", "x=0x6", *HALF), "1"),
    "a target of all": (("-o", "small.onnx", "--target-params", "1.0"), "--target-params"),
    "a negative target": (("-o", "small.onnx", "--target-macs", "-0.1"), "--target-macs"),
    "a target that is no number": (("-o", "small.onnx", "--target-macs", "nan"), "from 0 up to"),
    "a target out of reach": (("-o", "small.onnx", "--target-params", "0.999"), "cannot be met"),
    "a target out of reach for what is included": (
        ("-o", "small.onnx", "--target-params", "0.5", "--min-kept", "11"), "cannot be met",
    ),
    "two targets": ((*HALF, "--target-macs", "0.5"), "exactly one"),
    "no target": (("-o", "small.onnx"), "--target-macs"),
    "a glob that matches nothing": (("--exclude", "encoder.*", *HALF), "encoder.*"),
    "rounding to nothing": (("--round-to", "0", *HALF), "round"),
    "keeping nothing": (("--min-kept", "0", *HALF), "min"),
    "inputs that are not there": (("--inputs", "inputs.npz", *HALF), "inputs.npz"),
    "inputs that are no archive": (("--inputs", "good.onnx", *HALF), "good.onnx"),
    "a pass that is not there": (("--pass", "nowhere:Pass", *HALF), "nowhere"),
    "a pass that is no pass": (("--pass", "pathlib:Path", *HALF), "not a pass"),
    "a drift below zero": (("-o", "small.onnx", "--max-drift", "-1"), "drift"),
    "a drift that is no number": (("-o", "small.onnx", "--max-drift", "nan"), "drift"),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD_ARGUMENTS)
def test_arguments_that_make_no_sense_for_the_model_are_refused(what: str, shell: Shell) -> None:
    arguments, words = BAD_ARGUMENTS[what]
    assert words in shell.refused("prune", "good.onnx", *arguments)


@pytest.mark.parametrize(
    ("name", "array", "words"),
    [
        ("y", np.zeros((2, 6), np.float32), "x"),
        ("x", np.zeros((2, 7), np.float32), "7"),
        ("x", np.zeros((2, 6), np.complex64), "complex64"),
        ("x", np.array([["a"] * 6]), "x"),
        ("x", np.array([None]), ""),
    ],
)
def test_inputs_that_do_not_fit_are_refused(name: str, array: np.ndarray, words: str, shell: Shell) -> None:
    np.savez("inputs.npz", **{name: array})
    for command in ("prune", "eliminate", "verify", "bench"):
        assert words in shell.refused(*COMMANDS[command]("good.onnx"), "--inputs", "inputs.npz")


def test_models_with_other_names_or_types_are_no_twins(shell: Shell) -> None:
    other = mlp()
    other.graph.output[0].name = other.graph.node[-1].output[0] = "another"
    onnx.save(other, "other.onnx")
    assert "another" in shell.refused("verify", "good.onnx", "other.onnx")


def test_models_that_differ_exit_with_1(shell: Shell) -> None:
    other = mlp()
    weight = numpy_helper.to_array(other.graph.initializer[0]) * np.float32(1.1)
    other.graph.initializer[0].CopyFrom(numpy_helper.from_array(weight, other.graph.initializer[0].name))
    onnx.save(other, "other.onnx")
    assert command_line(["verify", "good.onnx", "other.onnx"]) == 1
    captured = shell.capsys.readouterr()
    assert "differs" in captured.out and captured.err == ""


def test_a_model_in_which_nothing_varies_is_not_verified_and_exits_with_1(shell: Shell) -> None:
    net = Net("vacuous")
    x = net.op("Mul", net.input("x", (4, 6)), net.const(np.zeros(6, np.float32), "zero"))
    onnx.save(net.build(net.linear(net.op("Relu", net.linear(x, 6, 12)), 12, 5)), "vacuous.onnx")
    assert "--inputs" in shell.refused("prune", "vacuous.onnx", *HALF, status=1)
    assert "--inputs" in shell.refused("eliminate", "vacuous.onnx", "-o", "small.onnx", status=1)


def test_a_good_run_writes_its_output_and_nothing_else(shell: Shell) -> None:
    before = snapshot(shell.folder)
    shell.done("prune", "good.onnx", *HALF)
    after = snapshot(shell.folder)
    assert set(after) == {*before, "small.onnx"}
    assert after["good.onnx"] == before["good.onnx"]
    shell.done("prune", "good.onnx", *HALF)
    assert set(snapshot(shell.folder)) == set(after), "an older output is replaced"

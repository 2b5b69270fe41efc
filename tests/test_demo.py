"""The demo, and the commands on the model that it brings along."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest

import ozgraph
from ozgraph import cli, demo
from ozgraph.cli import passes as passes_command
from ozgraph.cli import progress as progress_module

DIGITS = str(Path(demo.__file__).with_name("digits.onnx"))


def ozgraph_command(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ozgraph", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)


def test_the_demo_removes_half_of_the_arithmetic_and_keeps_the_accuracy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["demo", "--json", "--keep", str(tmp_path / "kept")]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["prune"]["macs_after"] <= 0.5 * document["prune"]["macs_before"]
    assert document["prune"]["max_relative_error"] <= document["prune"]["limit"]
    assert document["prune"]["frozen_by_verification"] == []
    assert document["accuracy_before"] >= 0.97
    assert document["accuracy_after"] >= document["accuracy_before"] - 0.02
    assert document["bench"]["ratio"] > 0
    small = tmp_path / "kept" / "digits-small.onnx"
    assert document["prune"]["output"] == str(small)
    assert small.stat().st_size < 0.7 * Path(DIGITS).stat().st_size


def test_the_demo_reads_as_a_session_of_commands(tmp_path: Path) -> None:
    done = ozgraph_command("demo", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", "no progress in a pipe"
    places = [done.stdout.index(f"$ ozgraph {command}") for command in ("analyze", "prune", "bench")]
    assert places == sorted(places)
    assert places[-1] < done.stdout.index("accuracy")
    assert list(tmp_path.iterdir()) == []


def test_the_demo_says_where_it_cannot_keep_its_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert cli.run(["demo", "--keep", str(tmp_path / "file")]) == 2
    assert str(tmp_path / "file") in capsys.readouterr().err


def test_the_bundled_model_holds_its_weights_and_says_nothing_of_where_it_was_made() -> None:
    model = onnx.load(DIGITS, load_external_data=False)
    onnx.checker.check_model(model, full_check=True)
    assert not any(tensor.external_data for tensor in model.graph.initializer)
    assert not model.metadata_props
    assert not any(node.metadata_props or node.doc_string for node in model.graph.node)
    (batch, *_) = model.graph.input[0].type.tensor_type.shape.dim
    assert batch.dim_param, "the batch axis is dynamic"
    operators = {node.op_type for node in model.graph.node}
    assert {"Conv", "BatchNormalization", "Concat", "Sigmoid", "Add", "Gemm"} <= operators
    groups = {attribute.i for node in model.graph.node for attribute in node.attribute if attribute.name == "group"}
    assert {4, 96} <= groups, "a grouped and a depthwise convolution"


def test_the_bundled_data_are_plain_arrays() -> None:
    with np.load(Path(DIGITS).with_name("digits.npz"), allow_pickle=False) as data:
        assert data["images"].shape == (450, 8, 8)
        assert data["images"].max() == 16
        assert set(data["labels"]) == set(range(10))


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["analyze", DIGITS], 0),
        (["prune", DIGITS, "-o", "small.onnx", "--target-groups", "0.25", "--criterion", "random", "--seed", "1"], 0),
        (["eliminate", DIGITS, "-o", "same.onnx"], 0),
        (["verify", DIGITS, DIGITS], 0),
        (["bench", DIGITS, DIGITS, "--rounds", "3", "--shape", "image=8x1x8x8"], 0),
        (["passes"], 0),
        (["prune", DIGITS, "-o", DIGITS, "--target-macs", "0.5"], 2),
        (["prune", DIGITS, "-o", "small.onnx", "--target-macs", "0.5", "--exclude", "no_such_tensor"], 2),
        (["prune", DIGITS, "-o", "small.onnx", "--target-macs", "0.5", "--round-to", "0"], 2),
        (["prune", DIGITS, "-o", "no/such/folder/small.onnx", "--target-macs", "0.5"], 2),
        (["prune", DIGITS, "-o", "small.onnx", "--target-macs", "0.9999"], 2),
        (["analyze", DIGITS, "--shape", "picture=1x1x8x8"], 2),
        (["analyze", DIGITS, "--shape", "image=1x8x8"], 2),
        (["analyze", DIGITS, "--print-after", "no_such_pass"], 2),
        (["analyze", DIGITS, "--pass", "no_such_module:Pass"], 2),
        (["analyze", "missing.onnx"], 2),
        (["verify", DIGITS, "missing.onnx"], 2),
    ],
    ids=lambda item: " ".join(item).replace(DIGITS, "digits.onnx") if isinstance(item, list) else str(item),
)
def test_the_commands_leave_with_their_status(arguments: list[str], status: int, tmp_path: Path) -> None:
    done = ozgraph_command(*arguments, cwd=tmp_path)
    assert done.returncode == status, done.stderr
    if status:
        assert done.stderr.startswith("ozgraph: ")
        assert done.stderr.count("\n") == 1
        assert list(tmp_path.iterdir()) == [], "nothing is written"
    else:
        assert done.stderr == ""


def test_a_pruned_model_differs_from_its_original_and_verify_says_so(tmp_path: Path) -> None:
    assert ozgraph_command("prune", DIGITS, "-o", "s.onnx", "--target-macs", "0.7", cwd=tmp_path).returncode == 0
    done = ozgraph_command("verify", DIGITS, "s.onnx", cwd=tmp_path)
    assert done.returncode == 1
    assert "not equal" in done.stdout


def test_a_pass_from_the_current_folder_runs_without_being_installed(tmp_path: Path) -> None:
    (tmp_path / "mypasses.py").write_text(
        "from dataclasses import dataclass\n"
        "from typing import ClassVar\n"
        "from ozgraph.passes.manager import Pass\n"
        "@dataclass(frozen=True)\n"
        "class KeepStem(Pass):\n"
        "    name: ClassVar[str] = 'keep_stem'\n"
        "    requires: ClassVar[frozenset[str]] = frozenset({'families'})\n"
        "    def run(self, state):\n"
        "        for family in state.families:\n"
        "            if any(member.value.name == 'stem.weight' for member in family.members):\n"
        "                family.held = 'it reaches the stem'\n"
        "        return True\n"
    )
    arguments = ["prune", DIGITS, "-o", "small.onnx", "--target-macs", "0.2", "--json", "--pass", "mypasses:KeepStem"]
    done = ozgraph_command(*arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert all(row["kept"] == row["size"] for row in document["widths"] if row["dim"] == "stem.weight")
    assert any("it reaches the stem" in entry for entry in document["excluded"])


def test_passes_of_other_packages_are_listed_even_when_they_are_broken(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken() -> object:
        raise ImportError("no module named colour")

    entry = SimpleNamespace(name="paint", dist=SimpleNamespace(name="painters"), load=broken)
    monkeypatch.setattr(passes_command, "entry_points", lambda group: [entry])
    assert cli.run(["passes", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)["passes"]
    assert [row["name"] for row in listed[:3]] == ["normalize", "infer_dims", "freeze"]
    assert listed[-1]["origin"] == "painters"
    assert "colour" in listed[-1]["summary"]


def test_progress_is_told_on_a_terminal_and_nowhere_else(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with progress_module.progress_line(quiet=False) as progress:
        assert progress is None, "standard error is no terminal here"
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with progress_module.progress_line(quiet=True) as progress:
        assert progress is None
    with progress_module.progress_line(quiet=False) as progress:
        assert progress is not None
        progress("verify", None, None)
    assert capsys.readouterr().err == "", "what is over at once needs no line"
    monkeypatch.setattr(progress_module, "PATIENCE", 0.0)
    with progress_module.progress_line(quiet=False) as progress:
        assert progress is not None
        progress("write", 1, 2)


@pytest.mark.skipif(os.name != "posix", reason="needs a pseudo terminal")
def test_a_terminal_sees_progress_on_standard_error_only(tmp_path: Path) -> None:
    import pty

    leader, follower = pty.openpty()
    arguments = ["prune", DIGITS, "-o", "s.onnx", "--target-macs", "0.3", "--json"]
    script = f"from ozgraph.cli import main, progress; progress.PATIENCE = 0.0; main({arguments!r})"
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=follower) as process:
        os.close(follower)
        seen = bytearray()
        while True:
            try:
                part = os.read(leader, 65536)
            except OSError:  # Linux reports the closed terminal so.
                break
            if not part:
                break
            seen += part
        assert process.stdout is not None
        document = json.loads(process.stdout.read())
    os.close(leader)
    assert document["output"] == "s.onnx"
    assert b"verify" in seen


def test_python_and_the_command_line_agree(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = ozgraph.prune(DIGITS, tmp_path / "a.onnx", target=ozgraph.Target(parameters=0.4))
    assert cli.run(["prune", DIGITS, "-o", str(tmp_path / "b.onnx"), "--target-params", "0.4", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["parameters_after"] == result.report.parameters_after
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()

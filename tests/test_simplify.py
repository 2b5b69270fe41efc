"""onnxsim is optional: it runs in a process of its own, and where it is absent or fails that is said in one line."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import warnings
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import pytest

import ozgraph
from models.building import Net
from models.feeding import feeds, run
from models.halving import NOTHING, HalfOfEveryFamily
from models.rows import ROWS
from ozgraph.errors import ModelError, UsageError
from ozgraph.frontends import simplify as simplifier
from ozgraph.frontends.simplify import simplified


@pytest.fixture
def roundabout() -> onnx.ModelProto:
    """An MLP with a detour that a simplifier takes out."""
    net = Net("roundabout")
    x = net.op("Identity", net.op("Relu", net.linear(net.input("x", (4, 6)), 6, 12, name="fc1")))
    return net.build(net.linear(x, 12, 5, name="fc2"))


def install(body: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a stand-in for onnxsim, and one for torch that tells where it was imported, on the import path."""
    (folder / "onnxsim.py").write_text("import torch\n" + textwrap.dedent(body))
    (folder / "torch.py").write_text(
        f"import os\nwith open({str(folder / 'imported')!r}, 'a') as file:\n    print(os.getpid(), file=file)\n"
    )
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("PYTHONPATH", str(folder))


WITHOUT_DETOURS = """
    def simplify(model):
        renamed = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "Identity"}
        kept = [node for node in model.graph.node if node.op_type != "Identity"]
        for node in kept:
            for index, name in enumerate(node.input):
                node.input[index] = renamed.get(name, name)
        del model.graph.node[:]
        model.graph.node.extend(kept)
        return model, True
"""


def test_without_onnxsim_one_clear_line_says_how_to_get_it(
    roundabout: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(simplifier, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"onnxsim is not installed; .*pip install") as caught:
        ozgraph.load(roundabout, simplify=True)
    assert "\n" not in str(caught.value)
    assert ozgraph.load(roundabout).ops, "nobody needs it who does not ask for it"


@pytest.mark.parametrize("form", ["path", "bytes", "proto", "ir"])
def test_what_the_child_process_simplifies_is_what_is_read(
    form: str, roundabout: onnx.ModelProto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnx_ir

    install(WITHOUT_DETOURS, tmp_path, monkeypatch)
    path = tmp_path / "model.onnx"
    onnx.save(roundabout, path)
    content = path.read_bytes()
    sources = {"path": path, "bytes": content, "proto": roundabout, "ir": onnx_ir.from_proto(roundabout)}
    graph = ozgraph.load(sources[form], simplify=True)
    assert [op.type for op in graph.ops] == ["Gemm", "Relu", "Gemm"]
    assert path.read_bytes() == content


def test_onnxsim_and_the_torch_that_it_imports_stay_out_of_this_process(
    roundabout: onnx.ModelProto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(WITHOUT_DETOURS, tmp_path, monkeypatch)
    onnx.save(roundabout, tmp_path / "model.onnx")
    script = (
        "import os, sys, ozgraph\n"
        "assert len(ozgraph.load('model.onnx', simplify=True).ops) == 3\n"
        "assert not {'torch', 'onnxsim'} & set(sys.modules)\n"
        "print(os.getpid())"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    imported = (tmp_path / "imported").read_text().split()
    assert len(imported) == 1 and imported != done.stdout.split()


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("def simplify(model):\n    raise RuntimeError('no schema for Frobnicate')", "no schema for Frobnicate"),
        ("def simplify(model):\n    return model, False", "its own check failed"),
        ("def simplify(model):\n    import os\n    os._exit(3)", "ended with 3"),
        ("def simplify(model):\n    import os\n    os.abort()", "onnxsim"),
        ("def simplify(model):\n    import sys\n    sys.exit(0)", "onnxsim ended with 0"),
        ("raise ImportError('libtorch.so is missing')", "libtorch.so is missing"),
    ],
)
def test_where_onnxsim_fails_a_warning_says_why_and_the_model_is_read_as_it_is(
    body: str, why: str, roundabout: onnx.ModelProto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(body, tmp_path, monkeypatch)
    with pytest.warns(UserWarning, match="did not simplify") as caught:
        graph = ozgraph.load(roundabout, simplify=True)
    (warning,) = caught
    assert why in str(warning.message) and "\n" not in str(warning.message)
    assert [op.type for op in graph.ops] == ["Gemm", "Relu", "Identity", "Gemm"]


def test_one_that_takes_forever_is_stopped(
    roundabout: onnx.ModelProto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("def simplify(model):\n    import time\n    time.sleep(60)", tmp_path, monkeypatch)
    monkeypatch.setattr(simplifier, "SECONDS", 0.5)
    with pytest.warns(UserWarning, match="took longer"):
        ozgraph.load(roundabout, simplify=True)


def test_a_large_model_is_not_given_to_it(
    roundabout: onnx.ModelProto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("raise SystemExit('must not run')", tmp_path, monkeypatch)
    monkeypatch.setattr(simplifier, "LARGEST", 100)
    onnx.save(roundabout, tmp_path / "model.onnx")
    for source in (tmp_path / "model.onnx", roundabout):
        with pytest.warns(UserWarning, match="larger than"):
            ozgraph.load(source, simplify=True)


def test_all_external_data_counts_whatever_its_files_are_called(
    roundabout: onnx.ModelProto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("raise SystemExit('must not run')", tmp_path, monkeypatch)
    path = tmp_path / "model.onnx"
    onnx.save(roundabout, path, save_as_external_data=True, all_tensors_to_one_file=False, size_threshold=0)
    files = [file for file in tmp_path.iterdir() if file.is_file() and file != path]
    assert len(files) > 1
    monkeypatch.setattr(simplifier, "LARGEST", path.stat().st_size + max(file.stat().st_size for file in files))
    with pytest.warns(UserWarning, match="larger than"):
        ozgraph.load(path, simplify=True)


def test_a_result_that_computes_something_else_is_not_taken(
    roundabout: onnx.ModelProto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(
        """
        def simplify(model):
            model.graph.node[1].op_type = "Abs"
            return model, True
    """,
        tmp_path,
        monkeypatch,
    )
    with pytest.warns(UserWarning, match="differs by"):
        graph = ozgraph.load(roundabout, simplify=True)
    assert graph.ops[1].type == "Relu"


def test_a_bad_file_is_refused_before_onnxsim_sees_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install("raise SystemExit('must not run')", tmp_path, monkeypatch)
    (tmp_path / "bad.onnx").write_bytes(b"\x80\x02}q\x00.")
    for path in (tmp_path / "bad.onnx", tmp_path / "missing.onnx"):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(ModelError, match=path.name):
                ozgraph.load(path, simplify=True)


def test_the_external_data_of_the_original_is_no_output_either(
    roundabout: onnx.ModelProto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(WITHOUT_DETOURS, tmp_path, monkeypatch)
    path, weights = tmp_path / "model.onnx", tmp_path / "weights.bin"
    onnx.save(roundabout, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    content = weights.read_bytes()
    with pytest.raises(UsageError, match="overwrite"):
        ozgraph.prune(path, weights, target=NOTHING, simplify=True)
    assert weights.read_bytes() == content


def test_nothing_of_it_stays_behind(
    roundabout: onnx.ModelProto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(WITHOUT_DETOURS, tmp_path, monkeypatch)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    ozgraph.load(roundabout, simplify=True)
    assert list(scratch.iterdir()) == []


@pytest.mark.skipif(find_spec("onnxsim") is None, reason="onnxsim is not installed")
@pytest.mark.parametrize("name", ["residual_add", "dynamic_sequence", "attention_grouped_query"])
def test_a_model_that_onnxsim_simplified_is_pruned_and_computes_the_same(name: str, tmp_path: Path) -> None:
    model = ROWS[name]()
    before = set(sys.modules)  # other tests of the same process may have imported torch
    content = simplified(model)
    assert isinstance(content, bytes), "it was not read as it is"
    again = onnx.load_from_string(content)
    for wanted, found in zip(run(model, feeds(model)), run(again, feeds(model)), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)
    result = ozgraph.prune(model, tmp_path / "small.onnx", target=NOTHING, passes=[HalfOfEveryFamily()], simplify=True)
    assert result.report.removed_slots > 0 and not result.report.frozen_by_verification
    assert not {"torch", "onnxsim"} & (set(sys.modules) - before)

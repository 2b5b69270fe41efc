"""Saved torch.export programs are analyzed; a file that would run code is refused before torch reads it."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from training.loops import net  # noqa: E402
from training.nets import images  # noqa: E402

import ozgraph  # noqa: E402
from ozgraph.cli import main  # noqa: E402

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("saved") / "plain.pt2"
    batch = torch.export.Dim("batch", min=2, max=64)
    program = torch.export.export(net(0).eval(), (images()[0],), dynamic_shapes=({0: batch},))
    torch.export.save(program, path)
    return path


def test_it_has_the_families_of_the_module(saved: Path) -> None:
    module = net(0)
    batch = torch.export.Dim("batch", min=2, max=64)
    captured = ozgraph.capture(module, (images()[0],), dynamic_shapes=({0: batch},))
    wanted, found = ozgraph.analyze(captured).report, ozgraph.analyze(saved).report
    assert found.families == wanted.families and found.families
    assert (found.parameters, found.macs) == (wanted.parameters, wanted.macs)


def test_the_command_line_takes_it(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        main(["analyze", str(saved), "--json"])
    assert not done.value.code
    assert json.loads(capsys.readouterr().out)["families"]


def rewritten(source: Path, target: Path, change: Callable[[str, bytes], bytes], **added: bytes) -> Path:
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as new:
        for entry in old.infolist():
            new.writestr(entry.filename, change(entry.filename, old.read(entry)))
        for name, content in added.items():
            new.writestr(name, content)
    return target


class Touch:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> object:
        return Path.touch, (self.path,)


def test_nothing_in_a_file_runs(saved: Path, tmp_path: Path) -> None:
    trap = tmp_path / "ran"
    bad = pickle.dumps(Touch(trap))

    def inputs(name: str, content: bytes) -> bytes:
        return bad if "sample_inputs" in name else content

    def weights(name: str, content: bytes) -> bytes:
        if name.endswith("weights_config.json"):
            return content.replace(b'"use_pickle": false', b'"use_pickle": true')
        return bad if "/weights/weight_" in name else content

    def graph(before: bytes, after: bytes) -> Callable[[str, bytes], bytes]:
        def change(name: str, content: bytes) -> bytes:
            if "/models/" not in name:
                return content
            assert before in content
            return content.replace(before, after)

        return change

    call = f"__import__('pathlib').Path('{trap}').touch()".encode()
    changes = {
        "sample inputs": inputs,
        "pickled object": weights,
        "expr_str": graph(b'"expr_str": "Symbol(', b'"expr_str": "' + call + b" or Symbol("),
        "target": graph(b"torch.ops.aten.relu.default", b"torch.serialization.load"),
        "name": graph(b'"name": "relu"', b'"name": "relu=' + call + b'"'),
    }
    for what, change in changes.items():
        path = rewritten(saved, tmp_path / "bad.pt2", change)
        with pytest.raises(ozgraph.OzgraphError, match=f"{what}.*may run code"):
            ozgraph.analyze(path)
        assert not trap.exists()
    path = rewritten(saved, tmp_path / "bad.pt2", lambda _, content: content, **{"plain/data/weights/model.pt": bad})
    with pytest.raises(ozgraph.OzgraphError, match="pickled object"):
        ozgraph.analyze(path)
    assert not trap.exists()


def test_what_is_no_program_is_told(tmp_path: Path) -> None:
    text = tmp_path / "text.pt2"
    text.write_text("no zip")
    with pytest.raises(ozgraph.OzgraphError, match=r"no saved torch\.export program"):
        ozgraph.analyze(text)
    with zipfile.ZipFile(tmp_path / "empty.pt2", "w") as archive:
        archive.writestr("empty/byteorder", "little")
    with pytest.raises(ozgraph.OzgraphError, match="0 programs"):
        ozgraph.analyze(tmp_path / "empty.pt2")
    with pytest.raises(ozgraph.OzgraphError, match="cannot be read"):
        ozgraph.analyze(tmp_path / "missing.pt2")


def test_shapes_and_files_are_for_onnx(saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ozgraph.OzgraphError, match="for ONNX"):
        ozgraph.analyze(saved, shapes={"x": (1, 3, 8, 8)})
    with pytest.raises(SystemExit) as done:
        main(["eliminate", str(saved), "-o", str(tmp_path / "small.onnx")])
    assert done.value.code == 2
    assert "to_module" in capsys.readouterr().err


def test_without_torch_one_line_says_so(saved: Path, tmp_path: Path) -> None:
    code = "import sys; sys.modules['torch'] = None; from ozgraph.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "analyze", str(saved)], check=False, capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 2
    assert "pip install 'ozgraph[torch]'" in done.stderr and len(done.stderr.strip().splitlines()) == 1

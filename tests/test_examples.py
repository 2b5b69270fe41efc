"""The training examples run as written and end with a verified file."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

EXAMPLES = Path(__file__).parents[1] / "examples"
DONE = re.compile(r"([\d,]+) of ([\d,]+) parameters, ([\d,]+) of ([\d,]+) MACs; differs .* by (\S+) on held-out")


def told(folder: Path, script: str, *arguments: str, through: tuple[str, ...] = ()) -> str:
    command = [sys.executable, *through, str(EXAMPLES / script), "--output", str(folder / "small.onnx"), *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def check(said: str, output: Path, kept: float) -> None:
    found = DONE.search(said)
    assert found, said
    parameters, whole, macs, all_macs = (int(number.replace(",", "")) for number in found.groups()[:4])
    assert parameters < whole and macs <= kept * all_macs and float(found.group(5)) < 1e-4
    onnx.checker.check_model(output)


@pytest.mark.slow
def test_the_language_model_is_written_small(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("the cat sees a bird.\n" * 200, encoding="utf-8")
    said = told(tmp_path, "hesso_transformer.py", "--text", str(text), "--steps", "40", "--batch", "4")
    check(said, tmp_path / "small.onnx", 0.5)


@pytest.mark.slow
def test_a_cifar_network_is_trained_in_pieces_and_written_small(tmp_path: Path) -> None:
    arguments = ("--smoke", "--model", "resnet20", "--target", "0.6", "--checkpoint", "run.pt")
    assert "stopped after step 1 of 32" in told(tmp_path, "hesso_cifar10.py", *arguments, "--minutes", "0")
    assert not (tmp_path / "small.onnx").exists()
    said = told(tmp_path, "hesso_cifar10.py", *arguments)
    assert "going on from step 1 of 32" in said
    check(said, tmp_path / "small.onnx", 0.4)


@pytest.mark.slow
def test_a_network_that_is_cut_on_the_way_is_written_small(tmp_path: Path) -> None:
    said = told(tmp_path, "one_cycle.py", "--smoke", "--model", "resnet8", "--history", "looks.json")
    assert re.search(r"cut after step \d+ \(\w+\), outputs differ by \S+e-", said)
    looks = json.loads((tmp_path / "looks.json").read_text())
    assert looks[-1]["stability"] is not None and looks[-1]["kept"].keys() == looks[-1]["families"].keys()
    assert DONE.search(said)
    onnx.checker.check_model(tmp_path / "small.onnx")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="torch was built without gloo")
def test_two_processes_with_a_part_of_every_parameter_write_one_file(tmp_path: Path) -> None:
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    said = told(tmp_path, "hesso_ddp.py", "--smoke", "--sharded", "--checkpoint", "saved", through=launcher)
    assert "2 processes, sharded" in said and (tmp_path / "saved" / "step-24" / ".metadata").exists()
    check(said, tmp_path / "small.onnx", 0.5)


@pytest.mark.slow
def test_adapters_of_a_llama_are_trained_by_a_trainer(tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    pytest.importorskip("training.language")  # transformers, and what it needs of torchvision
    pytest.importorskip("peft")
    prepared = "from training import language; import runpy, sys; runpy.run_path(sys.argv[0], run_name='__main__')"
    tests = str(Path(__file__).parent)
    through = ("-c", f"import sys; sys.path[:0] = [{tests!r}, {str(EXAMPLES)!r}]; del sys.argv[0]; {prepared}")
    said = told(tmp_path, "hesso_trainer.py", "--lora", "--steps", "20", through=through)
    check(said, tmp_path / "small.onnx", 0.6)


@pytest.mark.slow
def test_the_network_of_the_demo_is_written_with_its_test_data(tmp_path: Path) -> None:
    folder = tmp_path / "small.onnx"  # its --output is a folder
    told(tmp_path, "train_demo.py", "--smoke")
    onnx.checker.check_model(folder / "digits.onnx")
    with np.load(folder / "digits.npz", allow_pickle=False) as data:
        assert data["images"].shape == (32, 8, 8) and data["labels"].shape == (32,)


def test_every_script_is_run_here() -> None:
    scripts = {path.name for path in EXAMPLES.glob("*.py") if "__main__" in path.read_text(encoding="utf-8")}
    assert scripts == set(re.findall(r'"(\w+\.py)"', Path(__file__).read_text(encoding="utf-8")))


def test_data_is_asked_for(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "hesso_cifar10.py")], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2 and "--data is needed" in done.stderr

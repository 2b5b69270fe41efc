"""A file of 100 MB: seconds, weights mapped rather than loaded, and nothing half-written when someone interrupts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import ozgraph
from ozgraph.api import Target

pytestmark = pytest.mark.slow

WIDTH, LAYERS = 2048, 6
MEGABYTES = WIDTH * WIDTH * 4 * LAYERS / 1e6

SECONDS = 60.0
"""Generous: it takes about five on two cores."""


@pytest.fixture(scope="module", params=["inline", "external"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An MLP of 100 MB in a folder of its own."""
    folder = tmp_path_factory.mktemp(request.param)
    rng = np.random.default_rng(0)
    nodes, weights, x = [], [], "x"
    for index in range(LAYERS):
        array = rng.standard_normal((WIDTH, WIDTH), dtype=np.float32) * np.float32((2 / WIDTH) ** 0.5)
        weights.append(numpy_helper.from_array(array, f"fc{index}.weight"))
        nodes.append(helper.make_node("Gemm", [x, f"fc{index}.weight"], [f"y{index}"], f"fc{index}", transB=1))
        nodes.append(helper.make_node("Relu", [f"y{index}"], [f"z{index}"], f"relu{index}"))
        x = f"z{index}"
    sizes = ["batch", WIDTH]
    graph = helper.make_graph(
        nodes[:-1],
        "large",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, sizes)],
        [helper.make_tensor_value_info(f"y{LAYERS - 1}", TensorProto.FLOAT, sizes)],
        weights,
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    path = folder / "large.onnx"
    onnx.save(proto, path, save_as_external_data=request.param == "external", location="weights.bin")
    yield path
    for file in folder.iterdir():
        file.unlink()


@pytest.fixture
def output(tmp_path: Path) -> Iterator[Path]:
    """Where the result goes; removed afterwards, for it is large."""
    yield tmp_path / "small.onnx"
    for file in tmp_path.glob("small*"):
        file.unlink()


def stamps(folder: Path) -> dict[str, tuple[int, int]]:
    return {file.name: (file.stat().st_size, file.stat().st_mtime_ns) for file in folder.iterdir()}


def is_external(model: Path) -> bool:
    return (model.parent / "weights.bin").exists()


def test_the_file_of_these_tests_is_large(model: Path) -> None:
    assert sum(size for size, _ in stamps(model.parent).values()) > 100e6


def test_the_round_trip_takes_seconds_tells_of_its_progress_and_leaves_the_original_alone(
    model: Path, output: Path
) -> None:
    before = stamps(model.parent)
    told: list[tuple[str, int | None, int | None]] = []
    started = time.perf_counter()
    analysis = ozgraph.analyze(model)
    assert time.perf_counter() - started < SECONDS / 10
    assert len(analysis.families) == LAYERS - 1
    report = ozgraph.prune(
        model, output, target=Target(parameters=0.5), progress=lambda *news: told.append(news)
    ).report
    assert time.perf_counter() - started < SECONDS
    assert report.parameters_after <= 0.5 * report.parameters_before
    assert report.max_relative_error <= report.limit
    assert stamps(model.parent) == before
    written = [output, *([output.with_name("small.onnx.data")] if is_external(model) else [])]
    assert sorted(output.parent.iterdir()) == sorted(written), "external data stays external; nothing else is left"
    assert 0.4 < sum(file.stat().st_size for file in written) / (MEGABYTES * 1e6) < 0.52
    messages = [message for message, _, _ in told]
    assert messages[0] == "load" and {"infer_dims", "select", "eliminate", "verify"} <= set(messages)
    assert all(done is None or total is None or 0 <= done <= total for _, done, total in told)


MEASURE = """
import json, sys, threading
def anonymous():
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1e3
import ozgraph, ozgraph.api, onnxruntime
from ozgraph.frontends import onnx
from ozgraph.backends import onnx
from ozgraph.numerics import compare
peak, done = anonymous(), threading.Event()
start = peak
def watch():
    global peak
    while not done.wait(0.002):
        peak = max(peak, anonymous())
thread = threading.Thread(target=watch)
thread.start()
if len(sys.argv) > 2:
    ozgraph.prune(sys.argv[1], sys.argv[2], target=ozgraph.api.Target(parameters=0.5))
else:
    ozgraph.analyze(sys.argv[1])
done.set()
thread.join()
print(json.dumps({"start": start, "peak": max(peak, anonymous()), "torch": "torch" in sys.modules}))
"""


def anonymous_megabytes(*arguments: Path) -> float:
    """How much anonymous memory a process takes, at its peak, beyond what its imports do."""
    if not Path("/proc/self/status").exists():
        pytest.skip("anonymous memory is read from /proc")
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, *map(os.fspath, arguments)],
        cwd=arguments[0].parent,  # not the checkout, whose own folders are not the installed package
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout)
    assert not found["torch"]
    return float(found["peak"] - found["start"])


@pytest.mark.parametrize("model", ["external"], indirect=True)
def test_external_weights_are_mapped_not_loaded(model: Path, output: Path) -> None:
    assert anonymous_megabytes(model) < 0.25 * MEGABYTES, "analysis reads no weight"
    assert anonymous_megabytes(model, output) < 3 * MEGABYTES, "onnxruntime packs the weights of one session a time"


@pytest.mark.parametrize("moment", ["select", "verify"])
@pytest.mark.parametrize("existing", [False, True])
def test_an_interruption_leaves_what_was_there_and_nothing_else(
    model: Path, output: Path, moment: str, existing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = output.parent / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    if existing:
        output.write_bytes(b"from yesterday")
    before = stamps(model.parent)

    def interrupt(message: str, done: int | None, total: int | None) -> None:
        if message == moment and (moment != "verify" or done):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ozgraph.prune(model, output, target=Target(parameters=0.5), progress=interrupt)
    check_nothing_is_left(output, scratch, existing)
    assert stamps(model.parent) == before


def test_an_interruption_while_the_file_itself_is_verified_leaves_nothing(
    model: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = output.parent / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    seen: list[list[str]] = []

    def interrupt(*_: object, **__: object) -> None:
        seen.append([file.name for file in output.parent.iterdir() if file != scratch])
        raise KeyboardInterrupt

    monkeypatch.setattr("ozgraph.passes.verify.HALVES", 0)
    monkeypatch.setattr("ozgraph.numerics.compare.compare", interrupt)
    with pytest.raises(KeyboardInterrupt):
        ozgraph.prune(model, output, target=Target(parameters=0.5))
    assert seen and seen[0], "the file was there, under a name that nobody reads"
    assert all(name.startswith(".") for name in seen[0])
    check_nothing_is_left(output, scratch, existing=False)


def check_nothing_is_left(output: Path, scratch: Path, existing: bool) -> None:
    assert list(scratch.iterdir()) == []
    assert [file for file in output.parent.iterdir() if file != scratch] == ([output] if existing else [])
    if existing:
        assert output.read_bytes() == b"from yesterday"

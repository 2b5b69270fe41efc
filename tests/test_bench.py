"""Latency of two models, side by side."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import numpy_helper

from ozgraph.errors import ModelError, OzgraphError, UsageError
from ozgraph.numerics.bench import bench


def stack(path: Path, width: int, layers: int) -> Path:
    steps = "  ".join(f"h{i + 1} = MatMul(h{i}, w)" for i in range(layers))
    model = onnx.parser.parse_model(
        f'<ir_version: 9, opset_import: ["" : 18]> agraph (float[N,{width}] h0) => (float[N,{width}] h{layers})'
        f" {{ {steps} }}"
    )
    model.graph.initializer.append(numpy_helper.from_array(np.eye(width, dtype=np.float32), "w"))
    onnx.save(model, path)
    return path


@pytest.fixture
def slow(tmp_path: Path) -> Path:
    return stack(tmp_path / "slow.onnx", 128, 24)


@pytest.fixture
def fast(tmp_path: Path) -> Path:
    return stack(tmp_path / "fast.onnx", 128, 3)


def test_the_ratio_says_how_much_faster_the_second_model_is(slow: Path, fast: Path) -> None:
    report = bench(slow, fast, rounds=7, seconds=2, shapes={"h0": (32, 128)})
    assert report.ratio > 2
    assert report.ratio_low <= report.ratio <= report.ratio_high
    assert report.first_ms > report.second_ms > 0
    assert 5 <= report.rounds <= 7
    assert report.threads == 1
    assert (report.first, report.second) == (str(slow), str(fast))


def test_a_model_is_as_fast_as_itself(slow: Path) -> None:
    report = bench(slow, slow, seconds=2, shapes={"h0": (8, 128)})
    assert 0.7 < report.ratio < 1.4


def test_the_time_is_bounded(slow: Path) -> None:
    start = time.perf_counter()
    report = bench(slow, slow, rounds=100_000, seconds=0.3, shapes={"h0": (8, 128)})
    assert time.perf_counter() - start < 5
    assert 5 <= report.rounds < 100_000


def test_inputs_come_from_arrays_or_a_file(slow: Path, fast: Path, tmp_path: Path) -> None:
    feeds = {"h0": np.ones((4, 128))}
    np.savez(tmp_path / "in.npz", h0=feeds["h0"])
    assert bench(slow, fast, rounds=5, seconds=0.1, inputs=feeds).rounds == 5
    assert bench(slow, fast, rounds=5, seconds=0.1, inputs=tmp_path / "in.npz").rounds == 5
    with pytest.raises(OzgraphError):
        bench(slow, fast, rounds=5, seconds=0.1, inputs={"h0": np.ones((4, 127))})


def test_senseless_requests_are_refused(slow: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        bench(slow, slow, rounds=0)
    with pytest.raises(UsageError):
        bench(slow, slow, threads=0)
    with pytest.raises(ModelError):
        bench(slow, tmp_path / "missing.onnx", inputs={"h0": np.ones((4, 128))})

"""Sizes that go through floating point: a pad is half of something, rounded, and what makes it may be constant."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import parser

import ozgraph
from models.halving import NOTHING, HalfOfEveryFamily
from ozgraph.frontends.onnx import load

RNG = np.random.default_rng(0)


def model(body: str, signature: str = "(float[1, 3, 8, 8] x) => (float y)") -> onnx.ModelProto:
    """Two convolutions around ``body``, which makes ``p`` of ``h``; its constants are scalars."""
    text = f"""
    <ir_version: 9, opset_import: ["" : 18]> g {signature} {{
        h = Conv<pads = [1, 1, 1, 1]>(x, first)
        {body}
        y = Conv(p, last)
    }}
    """
    made = parser.parse_model(text)
    weights = {"first": RNG.normal(size=(8, 3, 3, 3)), "last": RNG.normal(size=(4, 8, 3, 3))}
    numbers = {"one": 1.0, "two": 2.0, "zero": 0.0, "four": 4.0, "seven": 7.5}
    for name, array in {**weights, **numbers}.items():
        made.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array, np.float32), name))
    axes = onnx.numpy_helper.from_array(np.array([0], np.int64), "axes")
    none = onnx.numpy_helper.from_array(np.array([0, 0], np.int64), "none")
    made.graph.initializer.extend((axes, none))
    return made


def halved(made: onnx.ModelProto, folder: Path) -> tuple[int, int]:
    path = folder / "model.onnx"
    onnx.save(made, path)
    result = ozgraph.prune(path, folder / "small.onnx", target=NOTHING, passes=[HalfOfEveryFamily()])
    small = onnx.load(folder / "small.onnx")
    sizes = {tensor.name: tuple(tensor.dims) for tensor in small.graph.initializer}
    assert result.report.frozen_by_verification == ()
    return sizes["first"][0], sizes["last"][1]


def test_pads_that_constants_make_in_floating_point_are_known(tmp_path: Path) -> None:
    pads = """
    steps = Ceil(seven)
    more = Sub(steps, two)
    half = Div(more, two)
    floor = Cast<to = 7>(half)
    left = Cast<to = 1>(floor)
    right = Sub(more, left)
    left_1 = Unsqueeze(left, axes)
    right_1 = Unsqueeze(right, axes)
    sides = Concat<axis = 0>(left_1, left_1, right_1, right_1)
    whole = Cast<to = 7>(sides)
    before = Slice(whole, zero_1, two_1)
    after = Slice(whole, two_1, four_1)
    all = Concat<axis = 0>(none, before, none, after)
    p = Pad(h, all)
    """
    made = model(pads)
    for name, number in (("zero_1", 0), ("two_1", 2), ("four_1", 4)):
        made.graph.initializer.append(onnx.numpy_helper.from_array(np.array([number], np.int64), name))
    graph = load(made)
    padded = next(op.outputs[0] for op in graph.ops if op.operator == "Pad")
    assert padded is not None and padded.shape == (1, 8, 14, 14)
    assert halved(made, tmp_path) == (4, 4)


def test_scales_of_floats_that_constants_make_are_known(tmp_path: Path) -> None:
    made = model(
        """
    twice = Mul(one, two)
    one_1 = Unsqueeze(one, axes)
    two_1 = Unsqueeze(twice, axes)
    scales = Concat<axis = 0>(one_1, one_1, two_1, two_1)
    p = Resize<mode = "nearest">(h, , scales)
    """
    )
    graph = load(made)
    resized = next(op.outputs[0] for op in graph.ops if op.operator == "Resize")
    assert resized is not None and resized.shape == (1, 8, 16, 16)
    assert halved(made, tmp_path) == (4, 4)


@pytest.mark.parametrize("batch", ['"n"', "1"])
def test_arithmetic_on_scalars_that_scale_data_stays_arithmetic(batch: str, tmp_path: Path) -> None:
    body = "scale = Div(one, seven) root = Sqrt(scale) p = Mul(h, root)"
    made = model(body, f"(float[{batch}, 3, 8, 8] x) => (float y)")
    assert halved(made, tmp_path) == (4, 4)

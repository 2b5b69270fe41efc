"""What a model quantises may differ by one quantum, and by no more; where it varies by few, all must be equal."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import ozgraph
from models.building import Net
from ozgraph.frontends.onnx import load
from ozgraph.numerics.quanta import quanta

SCALE = 0.05


def quantised(factor: float = 1.0, scale: float = SCALE, soft: bool = False) -> onnx.ModelProto:
    """A layer whose result, times a factor, is rounded to steps of ``scale``."""
    net = Net("quantised", opset=17)
    y = net.op("Mul", net.dense(net.input("x", (4, 6)), 6, 8, name="fc"), net.number(factor))
    operands = (net.number(scale), net.const(np.array(0, np.int8), "zero_point"))
    y = net.op("DequantizeLinear", net.op("QuantizeLinear", y, *operands), *operands)
    return net.build(net.op("Softmax", y, axis=1) if soft else net.op("Relu", y))


def written(model: onnx.ModelProto, path: Path) -> Path:
    onnx.save(model, path)
    return path


def test_a_quantum_follows_what_never_makes_differences_larger() -> None:
    assert list((quanta(load(quantised())) or {}).values()) == [np.float32(SCALE)] * 2
    assert list((quanta(load(quantised(soft=True))) or {}).values()) == [np.float32(SCALE)]


def test_a_model_with_quantised_weights_alone_has_no_quanta() -> None:
    net = Net("weights", opset=17)
    weight = net.op("DequantizeLinear", net.const(np.ones((6, 8), np.int8), "weight"), net.number(SCALE))
    assert quanta(load(net.build(net.op("MatMul", net.input("x", (4, 6)), weight)))) is None


@pytest.mark.parametrize(("factor", "equal"), [(1.0, True), (1.002, True), (1.2, False)])
def test_one_quantum_is_no_difference_and_several_are(factor: float, equal: bool, tmp_path: Path) -> None:
    first, second = written(quantised(), tmp_path / "a.onnx"), written(quantised(factor), tmp_path / "b.onnx")
    assert ozgraph.verify(first, second).equal == equal


def test_a_result_of_few_quanta_must_be_the_same(tmp_path: Path) -> None:
    first, second = (written(quantised(factor, 2.0), tmp_path / f"{factor}.onnx") for factor in (1.0, 1.4))
    assert ozgraph.verify(first, first).equal
    assert not ozgraph.verify(first, second).equal

"""Layer norms written out by exporters: recognised exactly, left alone where anything deviates."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import shape_inference
from onnx_ir import serde

import ozgraph
from models.building import Net
from models.zeroing import pruned, same_function
from ozgraph.frontends.onnx import load

WIDTH = 8
EPSILON = 0.05


def written_out(
    *,
    opset: int = 20,
    power: bool = False,
    twice: bool = False,
    reciprocal: bool = False,
    affine: bool = True,
    bias: bool = True,
    axes: tuple[int, ...] = (-1,),
    keepdims: int = 1,
    epsilon: float | None = EPSILON,
    read: str = "",
    gamma: tuple[int, ...] = (WIDTH,),
    dtype: type = np.float32,
) -> onnx.ModelProto:
    """Two linear layers with a layer norm between them, spelt in one way or another."""
    net = Net("written_out", opset=opset, dtype=dtype)
    weight = net.const(net.normal(6, WIDTH), "fc1.weight")
    x = net.op(
        "Add", net.op("MatMul", net.input("x", (4, 5, 6)), weight), net.const(net.normal(WIDTH, offset=3.0), "fc1.bias")
    )
    mean = net.mean(x, *axes, keepdims=1)
    difference = net.op("Sub", x, mean)
    other = net.op("Sub", x, mean) if twice else difference
    square = net.op("Pow", other, net.number(2.0)) if power else net.op("Mul", other, other)
    variance = net.mean(square, *axes, keepdims=keepdims)
    if not keepdims:
        variance = net.unsqueeze(variance, -1)
    added = net.op("Add", variance, net.number(epsilon)) if epsilon is not None else variance
    deviation = net.op("Sqrt", added)
    y = (
        net.op("Mul", net.op("Reciprocal", deviation), difference)
        if reciprocal
        else net.op("Div", difference, deviation)
    )
    if affine:
        y = net.op("Mul", y, net.const(net.positive(*gamma), "gamma"))
        if bias:
            y = net.op("Add", net.bias(WIDTH, "beta"), y)
    y = net.dense(y, WIDTH, 3, name="fc2")
    inner = {"mean": mean, "deviation": deviation, "difference": difference}
    return net.build(net.op("Add", y, net.reduce("ReduceSum", inner[read], -1)) if read else y)


def multiplied_out(
    *, gamma: tuple[int, ...] = (1, 1, WIDTH), other_slope: bool = False, pool: bool = False
) -> onnx.ModelProto:
    """As TensorFlow spells it: ``x * s + (beta - mean * s)``, the scale in s."""
    net = Net("multiplied_out", opset=18)
    x = net.op("Add", net.op("MatMul", net.input("x", (4, 5, 6)), net.weight(6, WIDTH, fan=6, hint="fc1.weight")),
               net.const(net.normal(WIDTH), "fc1.bias"))  # fmt: skip
    average: Callable[[str], str] = lambda y: net.op("GlobalAveragePool", y) if pool else net.mean(y, -1, keepdims=1)  # noqa: E731
    mean = average(x)
    difference = net.op("Sub", x, mean)
    added = net.op("Add", average(net.op("Mul", difference, difference)), net.number(EPSILON))
    inverse = net.op("Reciprocal", net.op("Sqrt", added))
    slope = net.op("Mul", inverse, net.const(net.positive(*gamma), "gamma"))
    moved = net.op("Mul", net.op("Neg", mean), net.op("Neg", slope) if other_slope else slope)
    beta = net.const(net.normal(*gamma), "beta")
    y = net.op("Add", net.op("Mul", x, slope), net.op("Add", beta, moved))
    return shape_inference.infer_shapes(net.build(net.dense(y, WIDTH, 3, name="fc2")))


def by_moments(*, clamp: float | None = 0.0, other: bool = False) -> onnx.ModelProto:
    """As JAX spells it: the mean of squares less the square of the mean."""
    net = Net("by_moments", opset=20)
    x = net.op("Add", net.op("MatMul", net.input("x", (4, 5, 6)), net.weight(6, WIDTH, fan=6, hint="fc1.weight")),
               net.const(net.normal(WIDTH), "fc1.bias"))  # fmt: skip
    mean = net.mean(x, -1, keepdims=1)
    moment = net.mean(net.op("Mul", x, x), -1, keepdims=1)
    variance = net.op("Sub", moment, net.op("Mul", mean, moment if other else mean))
    if clamp is not None:
        variance = net.op("Max", variance, net.number(clamp))
    deviation = net.op("Sqrt", net.op("Add", variance, net.number(EPSILON)))
    y = net.op("Mul", net.op("Div", net.op("Sub", x, mean), deviation), net.const(net.positive(WIDTH), "gamma"))
    return net.build(net.dense(net.op("Add", y, net.bias(WIDTH, "beta")), WIDTH, 3, name="fc2"))


def operators(model: onnx.ModelProto) -> list[str]:
    return [op.type for op in load(model).ops]


SPELT: dict[str, Callable[[], onnx.ModelProto]] = {
    "products": written_out,
    "a power": lambda: written_out(power=True),
    "two differences": lambda: written_out(twice=True, power=True),
    "a reciprocal": lambda: written_out(reciprocal=True),
    "no bias": lambda: written_out(bias=False),
    "the oldest opset": lambda: written_out(opset=17),
    "multiplied out": multiplied_out,
    "multiplied out, a scale of its axis": lambda: multiplied_out(gamma=(WIDTH,)),
    "multiplied out, means by pooling": lambda: multiplied_out(pool=True),
    "moments": by_moments,
    "moments, not clamped": lambda: by_moments(clamp=None),
    "a positive axis, the rank inferred": lambda: written_out(axes=(2,)),
    "a positive axis, the rank declared": lambda: shape_inference.infer_shapes(written_out(axes=(2,))),
}

DEVIATES: dict[str, Callable[[], onnx.ModelProto]] = {
    "an opset without the operator": lambda: written_out(opset=16),
    "no scale": lambda: shape_inference.infer_shapes(written_out(affine=False)),
    "no epsilon": lambda: written_out(epsilon=None),
    "another axis": lambda: shape_inference.infer_shapes(written_out(axes=(1,))),
    "axes that drop and come back": lambda: written_out(keepdims=0),
    "a mean that someone reads": lambda: written_out(read="mean"),
    "a deviation that someone reads": lambda: written_out(read="deviation"),
    "a difference that someone reads": lambda: written_out(read="difference"),
    "one number for a scale": lambda: written_out(gamma=(1,)),
    "a scale of one more axis": lambda: written_out(gamma=(1, WIDTH)),
    "another slope for the mean": lambda: multiplied_out(other_slope=True),
    "a variance of at least one half": lambda: by_moments(clamp=0.5),
    "another product than the square": lambda: by_moments(other=True),
    "double precision": lambda: written_out(dtype=np.float64),
}


@pytest.mark.parametrize("name", SPELT)
def test_a_layer_norm_in_pieces_is_one_operator_and_prunes_as_it(name: str) -> None:
    model = SPELT[name]()
    found = operators(model)
    assert found.count("LayerNormalization") == 1 and not {"ReduceMean", "Sqrt", "Sub"} & set(found)
    state = pruned(model, ("fc1.weight", WIDTH, "rescaled"))
    (norm,) = (op for op in state.graph.ops if op.type == "LayerNormalization")
    assert norm.attributes["epsilon"] == np.float32(EPSILON)


@pytest.mark.parametrize("name", SPELT)
def test_the_operator_computes_the_same(name: str) -> None:
    model = SPELT[name]()
    same_function(model, serde.serialize_model(ozgraph.eliminate(model).model))


@pytest.mark.parametrize("name", DEVIATES)
def test_what_deviates_stays_in_pieces(name: str) -> None:
    assert "LayerNormalization" not in operators(DEVIATES[name]())


def test_a_layer_norm_of_a_weight_stays_in_pieces() -> None:
    net = Net("standardised")
    v = net.weight(5, WIDTH, fan=WIDTH, hint="v")
    difference = net.op("Sub", v, net.mean(v, -1))
    deviation = net.op("Sqrt", net.op("Add", net.mean(net.op("Mul", difference, difference), -1), net.number(EPSILON)))
    weight = net.op("Mul", net.op("Div", difference, deviation), net.const(net.positive(WIDTH), "gamma"))
    assert "LayerNormalization" not in operators(
        net.build(net.op("Gemm", net.input("x", (4, WIDTH)), weight, transB=1))
    )


def test_the_given_model_is_not_changed() -> None:
    model = written_out()
    before = model.SerializeToString()
    load(model)
    assert model.SerializeToString() == before

"""Layers that work element by element, with one tensor or several, and reductions that gate."""

from __future__ import annotations

from fuzz.recipes import Draws
from fuzz.workshop import Tensor, Workshop, channels, constant, layer, projected, require, some_axis


@layer(weight=8)
def activation(w: Workshop, x: Tensor, draws: Draws) -> None:
    kind = draws.pick(
        ("Relu", "Sigmoid", "Tanh", "LeakyRelu", "HardSwish", "Gelu", "Elu", "Softplus", "Abs", "Neg", "Silu", "Clip",
         "Cos", "PRelu", "HardSigmoid", "Erf", "Square", "Exp")
    )  # fmt: skip
    if kind == "Silu":
        y = w.net.silu(x.name)
    elif kind == "Clip":
        y = w.net.op("Clip", x.name, w.net.number(-0.5), w.net.number(1.5))
    elif kind == "PRelu":
        y = w.net.op("PRelu", x.name, constant(w, x, draws))
    elif kind == "Square":
        y = w.net.op("Mul", x.name, x.name)
    elif kind == "Exp":  # of nothing above zero, or values would run away
        y = w.net.op("Exp", w.net.op("Neg", w.net.op("Abs", x.name)))
    else:
        require(kind != "Gelu" or w.net.opset >= 20)
        y = w.net.op(kind, x.name)
    w.like(y, x)


@layer(weight=6)
def with_constant(w: Workshop, x: Tensor, draws: Draws) -> None:
    kind, other = draws.pick(("Mul", "Add", "Sub", "Div", "Max", "Min")), constant(w, x, draws)
    if kind in ("Sub", "Add", "Mul") and draws.chance(2):
        w.like(w.net.op(kind, other, x.name), x)
    else:
        w.like(w.net.op(kind, x.name, other), x)


@layer(weight=12)
def binary(w: Workshop, x: Tensor, draws: Draws) -> None:
    """A residual: with a tensor of the same shape, or one that a projection gives that shape."""
    kind = draws.pick(("Add", "Add", "Add", "Mul", "Sub", "Max", "Min", "Sum", "Where"))
    axis = channels(x)
    others = [
        other for other in w.pool
        if other.rank == x.rank and other.name != x.name
        and all(a == b for i, (a, b) in enumerate(zip(other.shape, x.shape, strict=True)) if i != axis)
    ]  # fmt: skip
    require(bool(others))
    same = [other for other in others if other.shape == x.shape]
    other = draws.pick(same or others)
    w.used.add(other.name)
    if other.shape != x.shape:
        other = projected(w, other, x.shape[axis])
    if kind == "Where":
        y = w.net.op("Where", w.net.op("Greater", other.name, x.name), x.name, w.net.op("Neg", other.name))
    else:
        pair = [x.name, other.name]
        y = w.net.op(kind, *(pair[::-1] if draws.chance(2) else pair))
    w.like(y, x)


@layer(weight=2)
def gated_by_reduction(w: Workshop, x: Tensor, draws: Draws) -> None:
    """A tensor beside its own mean, maximum, sum or length over one axis."""
    axis = some_axis(x, draws)
    kind = draws.pick(("ReduceMean", "ReduceSum", "ReduceMax", "ReduceL2", "ReduceMin", "ReduceL1"))
    y = w.net._axes_op(kind, x.name, [axis], 13 if kind == "ReduceSum" else 18, keepdims=1)
    w.like(w.net.op(draws.pick(("Sub", "Add", "Max")), x.name, y), x)


@layer(weight=2)
def softmax(w: Workshop, x: Tensor, draws: Draws) -> None:
    y = w.net.op("Softmax", x.name, axis=some_axis(x, draws))
    w.like(w.net.op("Mul", x.name, y) if draws.chance(2) else y, x)

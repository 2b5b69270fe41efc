"""Maxima and minima over slots: prunable where the sign of all numbers is proved, else not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from onnx import TensorProto

from models.building import Net
from models.zeroing import pruned, refused
from ozgraph.frontends.onnx import load
from ozgraph.rules.signs import signs

Function = Callable[[Net, str], str]


def squared(net: Net, x: str) -> str:
    return net.op("Mul", x, x)


def relu(net: Net, x: str) -> str:
    return net.op("Relu", x)


def spread(net: Net, x: str) -> str:
    return net.const(net.normal(8), "scale")


NO_NEGATIVE: dict[str, Function] = {
    "a rectifier": relu,
    "a square": squared,
    "a power of two": lambda net, x: net.op("Pow", x, net.number(2.0)),
    "a sum of both": lambda net, x: net.op("Add", squared(net, x), net.op("Abs", x)),
    "a product of both": lambda net, x: net.op("Mul", relu(net, x), net.op("Sigmoid", net.op("Mul", x, x))),
    "a negative number negated": lambda net, x: net.op("Neg", net.op("Min", x, net.number(0.0))),
    "a product of negative numbers": lambda net, x: net.op(
        "Mul", net.op("Min", x, net.number(0.0)), net.op("Neg", relu(net, x))
    ),
    "a difference": lambda net, x: net.op("Sub", relu(net, x), net.op("Neg", squared(net, x))),
    "a clip from below": lambda net, x: net.op("Clip", x, net.number(0.0), net.number(6.0)),
    "a clip from above": lambda net, x: net.op("Clip", relu(net, x), "", net.number(6.0)),
    "a maximum with zero": lambda net, x: net.op("Max", x, net.number(0.0)),
    "a positive scale": lambda net, x: net.op("Mul", relu(net, x), net.const(net.positive(8), "scale")),
    "movement": lambda net, x: net.reshape(net.transpose(net.unsqueeze(relu(net, x), 0), 1, 0, 2), 4, 8),
    "a root": lambda net, x: net.op("Sqrt", squared(net, x)),
    "a choice": lambda net, x: net.op("Where", net.op("Greater", x, net.number(0.3)), squared(net, x), relu(net, x)),
    "a cast": lambda net, x: net.op("Cast", net.op("Cast", relu(net, x), to=TensorProto.DOUBLE), to=TensorProto.FLOAT),
}

ANY_SIGN: dict[str, Function] = {
    "nothing at all": lambda net, x: net.op("Identity", x),
    "a scale of any sign": lambda net, x: net.op("Mul", relu(net, x), spread(net, x)),
    "a shift": lambda net, x: net.op("Sub", relu(net, x), net.number(0.1)),
    "an odd power": lambda net, x: net.op("Pow", x, net.number(3.0)),
    "a clip below zero": lambda net, x: net.op("Clip", x, net.number(-1.0)),
    "a clip to negative numbers": lambda net, x: net.op("Clip", relu(net, x), net.number(-2.0), net.number(-1.0)),
    "a leaky rectifier": lambda net, x: net.op("LeakyRelu", x, alpha=0.1),
    "a minimum with one": lambda net, x: net.op("Min", x, net.number(1.0)),
    "a product with itself shifted": lambda net, x: net.op("Mul", x, net.op("Add", x, net.number(1.0))),
}


def gated(function: Function, reduction: str = "ReduceMax", flipped: bool = False) -> Net:
    net = Net("gated")
    x = net.linear(net.input("x", (4, 6)), 6, 8, bias=False, name="fc1")
    y = function(net, x)
    gate = net.reduce(reduction, net.op("Neg", y) if flipped else y, 1)
    net.output = net.linear(net.op("Mul", x, gate), 8, 3, name="fc2")  # type: ignore[attr-defined]
    return net


@pytest.mark.parametrize("name", NO_NEGATIVE)
@pytest.mark.parametrize("least", [False, True])
def test_an_extreme_among_numbers_of_one_sign_does_not_notice_zeros(name: str, least: bool) -> None:
    net = gated(NO_NEGATIVE[name], "ReduceMin" if least else "ReduceMax", flipped=least)
    pruned(net.build(net.output), ("fc1.weight", 8, "exact"))  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ANY_SIGN)
def test_a_maximum_among_numbers_of_any_sign_keeps_its_slots(name: str) -> None:
    net = gated(ANY_SIGN[name])
    refused(net.build(net.output), "fc1.weight", 0, "nothing says that no number is negative")  # type: ignore[attr-defined]


def test_a_maximum_over_channels_and_pixels_prunes_after_pooling() -> None:
    net = Net("pooled")
    x = net.op("Relu", net.conv(net.input("x", (2, 3, 6, 6)), 3, 8, name="conv1"))
    pooled = net.op("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    gate = net.reduce("ReduceMax", net.op("AveragePool", pooled, kernel_shape=[3, 3]), 1)
    pruned(net.build(net.conv(net.op("Mul", x, gate), 8, 3, name="conv2")), ("conv1.weight", 8, "exact"))


def test_a_slot_that_is_not_zero_where_the_maximum_sees_it_takes_its_bias_along_or_stays() -> None:
    net = Net("sigmoid")
    x = net.linear(net.input("x", (4, 6)), 6, 8, name="fc1")
    gate = net.reduce("ReduceMax", net.op("Sigmoid", x), 1)
    model = net.build(net.linear(net.op("Mul", x, gate), 8, 3, name="fc2"))
    refused(model, "fc1.weight", 0, "a maximum or minimum over it still sees a zeroed slot")


def test_half_precision_prunes_too_since_nothing_is_rescaled() -> None:
    net = Net("half", dtype=np.float16)
    x = net.op("Relu", net.linear(net.input("x", (4, 6)), 6, 8, name="fc1"))
    import ozgraph

    state = ozgraph.analyze(net.build(net.linear(net.op("Mul", x, net.reduce("ReduceMax", x, 1)), 8, 3))).state
    assert [(family.dim, family.exactness) for family in state.families] == [("fc1.weight", "exact")]


def test_a_maximum_over_a_long_chain_is_settled_without_recursion() -> None:
    net = Net("chain")
    x = net.op("Relu", net.input("x", (4, 6)))
    for _ in range(3000):
        x = net.op("Add", x, x)
    graph = load(net.build(net.reduce("ReduceMax", x, 1)))
    assert signs(graph.ops[-1].inputs[0]).no_negative

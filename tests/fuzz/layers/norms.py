"""Layers that normalise."""

from __future__ import annotations

from math import prod

from fuzz.recipes import Draws
from fuzz.workshop import Tensor, Workshop, divisors, layer, require


@layer(2, 4, 3, weight=4)
def batch_norm(w: Workshop, x: Tensor, draws: Draws) -> None:
    y = w.net.batch_norm(x.name, x.shape[1])
    w.like(w.net.op("Relu", y) if draws.chance(2) else y, x)


@layer(3, 4, 2, weight=4)
def layer_norm(w: Workshop, x: Tensor, draws: Draws) -> None:
    net, size = w.net, x.shape[-1]
    require(size >= 3)
    how = draws.below(5)
    if how == 0:
        y = net.layer_norm(x.name, size)
    elif how == 1:
        y = net.rms_norm(x.name, size)
    elif how == 2:
        y = net.op("LayerNormalization", x.name, net.const(net.positive(size), "norm.weight"), axis=-1, epsilon=1e-5)
    elif how == 3:
        require(net.opset >= 23)
        y = net.op("RMSNormalization", x.name, net.const(net.positive(size), "norm.weight"), axis=-1, epsilon=1e-5)
    else:
        centred = net.op("Sub", x.name, net.mean(x.name, -1))
        variance = net.op("Add", net.mean(net.op("Mul", centred, centred), -1), net.number(1e-5))
        normed = net.op("Div", centred, net.op("Sqrt", variance))
        y = net.op("Mul", normed, net.const(net.positive(size), "norm.weight"))
    w.like(y, x)


@layer(4, weight=3)
def group_norm(w: Workshop, x: Tensor, draws: Draws) -> None:
    net, c = w.net, x.shape[1]
    require(prod(x.shape[2:]) >= 4)
    groups = draws.pick(divisors(c))
    weight, bias = net.const(net.positive(c), "gn.weight"), net.bias(c, "gn.bias")
    if draws.chance(3):
        y = net.op("InstanceNormalization", x.name, weight, bias)
    else:
        require(net.opset >= 21)
        y = net.stated(net.op("GroupNormalization", x.name, weight, bias, num_groups=groups), *x.shape)
    w.like(y, x)

"""Layers with weights: convolutions, products, lookups and small blocks of them."""

from __future__ import annotations

from fuzz.recipes import Draws
from fuzz.workshop import Tensor, Workshop, divisors, layer, require


@layer(4, weight=10)
def conv(w: Workshop, x: Tensor, draws: Draws) -> None:
    n, c, h, width = x.shape
    c_out = draws.pick((4, 6, 8, 12, 3, 5, 16, 2, 9))
    k, stride = draws.pick(((1, 1), (3, 1), (3, 2), (1, 2)))
    pad = k // 2 * (0 if draws.chance(4) else 1)
    group = draws.pick([1, *divisors(c, c_out)])
    bottom, right = ((size + 2 * pad - k) // stride + 1 for size in (h, width))
    require(min(bottom, right) >= 1 and min(h, width) + 2 * pad >= k)
    y = w.net.conv(x.name, c, c_out, k, pad=pad, bias=not draws.chance(3), group=group, stride=stride)
    w.add(y, n, c_out, bottom, right)


@layer(4, weight=4)
def depthwise(w: Workshop, x: Tensor, draws: Draws) -> None:
    n, c, h, width = x.shape
    multiplier = draws.pick((1, 1, 2))
    y = w.net.conv(x.name, c, c * multiplier, 3, group=c, bias=not draws.chance(3))
    w.add(y, n, c * multiplier, h, width)


@layer(4, weight=1)
def conv_transpose(w: Workshop, x: Tensor, draws: Draws) -> None:
    n, c, h, width = x.shape
    c_out = draws.pick((4, 6, 8))
    group = draws.pick(divisors(c, c_out))
    weight = w.net.weight(c, c_out // group, 2, 2, fan=c // group, hint="up.weight")
    operands = [weight, w.net.bias(c_out, "up.bias")][: 1 if draws.chance(3) else 2]
    y = w.net.op("ConvTranspose", x.name, *operands, kernel_shape=[2, 2], strides=[2, 2], group=group)
    w.add(y, n, c_out, 2 * h, 2 * width)


@layer(3, weight=1)
def conv_1d(w: Workshop, x: Tensor, draws: Draws) -> None:
    n, c, length = x.shape
    c_out = draws.pick((4, 6, 8))
    group = draws.pick(divisors(c, c_out))
    weight = w.net.weight(c_out, c // group, 3, fan=3 * c // group, hint="conv1d.weight")
    y = w.net.op("Conv", x.name, weight, w.net.bias(c_out), kernel_shape=[3], pads=[1, 1], group=group)
    w.add(y, n, c_out, length)


@layer(2, weight=10)
def linear(w: Workshop, x: Tensor, draws: Draws) -> None:
    n, size = x.shape
    width = draws.pick((6, 8, 12, 4, 10, 24, 5))
    how = draws.below(4)
    if how == 3:
        y = w.net.op("Gemm", x.name, w.net.weight(size, width, fan=size), w.net.bias(width), alpha=0.5, beta=2.0)
    else:
        y = (w.net.linear, w.net.linear, w.net.dense)[how](x.name, size, width, bias=not draws.chance(3))
    w.add(y, n, width)


@layer(3, 4, weight=8)
def dense(w: Workshop, x: Tensor, draws: Draws) -> None:
    size, width = x.shape[-1], draws.pick((8, 12, 6, 16, 4, 10))
    w.add(w.net.dense(x.name, size, width, bias=not draws.chance(3)), *x.shape[:-1], width)


@layer(2, 3, weight=2)
def swiglu(w: Workshop, x: Tensor, draws: Draws) -> None:
    size, hidden = x.shape[-1], draws.pick((8, 12, 5))
    gate = w.net.dense(x.name, size, hidden, bias=draws.chance(2), name="gate")
    y = w.net.op("Mul", w.net.silu(gate), w.net.dense(x.name, size, hidden, bias=draws.chance(2), name="up"))
    w.add(w.net.dense(y, hidden, size, bias=False, name="down"), *x.shape)


@layer(4, weight=3)
def squeeze_excite(w: Workshop, x: Tensor, draws: Draws) -> None:
    c, narrow = x.shape[1], draws.pick((2, 3, 4))
    y = w.net.op("GlobalAveragePool", x.name)
    y = w.net.op(draws.pick(("Relu", "Sigmoid")), w.net.conv(y, c, narrow, 1))
    y = w.net.op(draws.pick(("Sigmoid", "HardSigmoid")), w.net.conv(y, narrow, c, 1))
    w.like(w.net.op("Mul", *([x.name, y] if draws.chance(2) else [y, x.name])), x)


@layer(weight=3)
def lookup(w: Workshop, x: Tensor, draws: Draws) -> None:
    """An embedding of positions added to a tensor, or its rows taken from a constant table by constant numbers."""
    width = x.shape[-1]
    table = w.net.const(w.net.normal(7, width, scale=0.5), "table")
    rows = w.net.const(w.net.rng.integers(0, 7, x.shape[-2] if x.rank > 2 else ()), "rows")
    w.like(w.net.op(draws.pick(("Add", "Mul", "Sub")), x.name, w.net.op("Gather", table, rows)), x)

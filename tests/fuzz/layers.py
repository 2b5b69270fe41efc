"""Layers of random models. Each takes a tensor of the pool and adds what it makes, or says that it does not fit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod

import numpy as np

from fuzz.recipes import Draws
from models.building import Net

WIDEST = 24
LARGEST = 3000
"""The widest axis that a layer makes on purpose, and the most elements of a tensor."""


@dataclass(frozen=True)
class Tensor:
    """A value of the model under construction; axis 0 is the batch and never mixed with others."""

    name: str
    shape: tuple[int, ...]

    @property
    def rank(self) -> int:
        return len(self.shape)


class DoesNotFitError(Exception):
    """This layer cannot follow here; the step is skipped."""


@dataclass
class Workshop:
    """The model under construction.

    Attributes:
        pool: tensors to go on from.
        used: names of those that something reads.
        fixed_batch: whether sizes may be written as numbers, batch included.
        tables: constants by shape, shared by all that read one of that shape.
    """

    net: Net
    pool: list[Tensor]
    used: set[str]
    fixed_batch: bool = True
    tables: dict[tuple[int, ...], str] = field(default_factory=dict)

    def choose(self, draws: Draws, *ranks: int) -> Tensor:
        """A tensor of one of the ranks, more often a recent one."""
        fitting = [tensor for tensor in self.pool if not ranks or tensor.rank in ranks]
        if not fitting:
            raise DoesNotFitError
        back = draws.below(256)
        return fitting[-1 - (0 if back < 150 else back % len(fitting))]

    def add(self, name: str, *shape: int) -> Tensor:
        """Put a tensor into the pool."""
        require(prod(shape) <= LARGEST and min(shape) >= 1 and max(shape) <= 4 * WIDEST)
        made = Tensor(name, tuple(shape))
        self.pool.append(made)
        return made

    def like(self, name: str, tensor: Tensor) -> Tensor:
        """The same with the shape of another."""
        return self.add(name, *tensor.shape)


Layer = Callable[[Workshop, Tensor, Draws], None]
LAYERS: dict[str, tuple[tuple[int, ...], int, Layer]] = {}
"""Name: the ranks it takes (none: any), its weight in the lottery, and the layer."""


def layer(*ranks: int, weight: int = 2) -> Callable[[Layer], Layer]:
    def enter(build: Layer) -> Layer:
        LAYERS[build.__name__] = (ranks, weight, build)
        return build

    return enter


def require(fits: bool) -> None:
    if not fits:
        raise DoesNotFitError


def divisors(*sizes: int) -> list[int]:
    """Common divisors, 1 first."""
    return [d for d in range(1, min(sizes) + 1) if all(size % d == 0 for size in sizes)]


def channels(tensor: Tensor) -> int:
    """The axis that layers of weights run over."""
    return 1 if tensor.rank == 4 else tensor.rank - 1


def some_axis(tensor: Tensor, draws: Draws) -> int:
    """Mostly the channels."""
    return draws.pick([channels(tensor)] * 3 + list(range(1, tensor.rank)))


def resized(tensor: Tensor, axis: int, size: int) -> tuple[int, ...]:
    return (*tensor.shape[:axis], size, *tensor.shape[axis + 1 :])


def constant(w: Workshop, tensor: Tensor, draws: Draws) -> str:
    """A positive constant that broadcasts to a tensor: a number, one element a channel, or the whole of it."""
    axis = channels(tensor)
    line = [1] * (tensor.rank - 1)
    line[axis - 1] = tensor.shape[axis]
    shape = draws.pick([line, [], [*tensor.shape[1:]], [1] * (tensor.rank - 1), line[axis - 1 :]])
    return w.net.const(w.net.positive(*shape), "const")


def table(w: Workshop, *shape: int) -> str:
    """The positive constant of this shape that the whole model shares."""
    if shape not in w.tables:
        w.tables[shape] = w.net.const(w.net.positive(*shape), "table")
    return w.tables[shape]


def projected(w: Workshop, tensor: Tensor, width: int) -> Tensor:
    """A tensor with another number of channels, by the layer that its rank calls for."""
    net, size = w.net, tensor.shape[channels(tensor)]
    shape = resized(tensor, channels(tensor), width)
    if tensor.rank == 4:
        return Tensor(net.conv(tensor.name, size, width, 1), shape)
    made = net.linear(tensor.name, size, width) if tensor.rank == 2 else net.dense(tensor.name, size, width)
    return Tensor(made, shape)


# -- weights ---------------------------------------------------------------------------------------------------------


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


# -- norms -----------------------------------------------------------------------------------------------------------


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


# -- attention -------------------------------------------------------------------------------------------------------


def _heads(w: Workshop, x: str, length: int, count: int, width: int) -> str:
    return w.net.transpose(w.net.reshape(x, 0, length, count, width), 0, 2, 1, 3)


def _attend(w: Workshop, q: str, k: str, v: str, x: Tensor, heads: int, width: int, draws: Draws) -> None:
    net, length = w.net, x.shape[1]
    scores = net.op("Mul", net.op("MatMul", q, net.transpose(k, 0, 1, 3, 2)), net.number(width**-0.5))
    if draws.chance(3):
        scores = net.op("Add", scores, net.const(np.triu(np.full((length, length), -1e4, net.dtype), 1), "mask"))
    elif draws.chance(4):
        scores = net.op("Add", scores, table(w, heads, length, length))
    y = net.transpose(net.op("MatMul", net.op("Softmax", scores, axis=-1), v), 0, 2, 1, 3)
    y = net.dense(net.reshape(y, 0, length, heads * width), heads * width, x.shape[2], bias=draws.chance(2))
    w.like(net.op("Add", x.name, y) if draws.chance(2) else y, x)


@layer(3, weight=10)
def attention_separate(w: Workshop, x: Tensor, draws: Draws) -> None:
    _, length, d = x.shape
    heads, width = draws.pick((2, 3, 4, 1)), draws.pick((3, 4, 2))
    q, k, v = (
        _heads(w, w.net.dense(x.name, d, heads * width, bias=draws.chance(2), name=name), length, heads, width)
        for name in "qkv"
    )
    _attend(w, q, k, v, x, heads, width, draws)


@layer(3, weight=8)
def attention_fused(w: Workshop, x: Tensor, draws: Draws) -> None:
    net, (_, length, d) = w.net, x.shape
    heads, width = draws.pick((2, 3, 4, 1)), draws.pick((3, 4, 2))
    rows = net.dense(x.name, d, 3 * heads * width, bias=draws.chance(2), name="qkv")
    if draws.chance(2):
        q, k, v = (_heads(w, y, length, heads, width) for y in net.split(rows, [heads * width] * 3, 2))
    else:
        grid = net.transpose(net.reshape(rows, 0, length, 3, heads, width), 2, 0, 3, 1, 4)
        q, k, v = (net.op("Gather", grid, net.integer(index, "index"), axis=0) for index in range(3))
    _attend(w, q, k, v, x, heads, width, draws)


@layer(3, weight=8)
def attention_grouped_query(w: Workshop, x: Tensor, draws: Draws) -> None:
    net, (_, length, d) = w.net, x.shape
    kv, repeats, width = draws.pick((2, 3, 1)), draws.pick((2, 3)), draws.pick((4, 2))
    heads = kv * repeats
    q = _heads(w, net.dense(x.name, d, heads * width, name="q"), length, heads, width)

    def repeated(name: str) -> str:
        part = _heads(w, net.dense(x.name, d, kv * width, name=name), length, kv, width)
        grown = net.op("Expand", net.unsqueeze(part, 2), net.ints(1, 1, repeats, 1, 1, hint="shape"))
        return net.reshape(grown, 0, heads, length, width)

    _attend(w, q, repeated("k"), repeated("v"), x, heads, width, draws)


@layer(3, 4, weight=8)
def with_table(w: Workshop, x: Tensor, draws: Draws) -> None:
    """Two projections that a shared table scales, shifts or, as in a rotary embedding, mixes."""
    width = draws.pick((6, 4))
    for _ in range(2):
        y = projected(w, x, width)
        shared = table(w, *y.shape[1:])
        if draws.chance(3):
            shared = w.net.op("Cos", shared)
        kind = draws.pick(("Mul", "Rotate", "Mul", "Div", "Add"))
        w.like(_rotated(w, y, shared) if kind == "Rotate" else w.net.op(kind, y.name, shared), y)


def _rotated(w: Workshop, y: Tensor, shared: str) -> str:
    net, axis, width = w.net, channels(y), y.shape[channels(y)]
    low, high = net.slice(y.name, 0, width // 2, axis), net.slice(y.name, width // 2, width, axis)
    turned = net.op("Concat", net.op("Neg", high), low, axis=axis)
    return net.op("Add", net.op("Mul", y.name, shared), net.op("Mul", turned, shared))


# -- pointwise -------------------------------------------------------------------------------------------------------


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


# -- data movement ---------------------------------------------------------------------------------------------------


@layer(weight=7)
def concat(w: Workshop, x: Tensor, draws: Draws) -> None:
    axis = some_axis(x, draws)
    others = [
        other for other in w.pool
        if other.rank == x.rank
        and all(a == b for i, (a, b) in enumerate(zip(other.shape, x.shape, strict=True)) if i != axis)
    ]  # fmt: skip
    chosen = [x, draws.pick(others[::-1])]
    if draws.chance(3):
        chosen.append(draws.pick(others))
    if draws.chance(2):
        chosen.reverse()
    w.used.update(other.name for other in chosen)
    total = sum(other.shape[axis] for other in chosen)
    require(total <= 2 * WIDEST)
    w.add(w.net.op("Concat", *(other.name for other in chosen), axis=axis), *resized(x, axis, total))


@layer(weight=6)
def split(w: Workshop, x: Tensor, draws: Draws) -> None:
    axis = some_axis(x, draws)
    size = x.shape[axis]
    require(size >= 3)
    if draws.chance(2):
        count = draws.pick([d for d in divisors(size) if d > 1][:3])
        sizes = [size // count] * count
    else:
        first = 1 + draws.below(size - 1)
        sizes = [first, size - first]
    for y, length in zip(w.net.split(x.name, sizes, axis), sizes, strict=True):
        w.add(y, *resized(x, axis, length))
    if draws.chance(2) and len(sizes) == 2 and sizes[0] == sizes[1]:
        gate = w.net.op("Sigmoid", w.pool[-1].name)
        w.used.update(tensor.name for tensor in w.pool[-2:])
        w.add(w.net.op("Mul", w.pool[-2].name, gate), *w.pool[-1].shape)


@layer(weight=6)
def slice_(w: Workshop, x: Tensor, draws: Draws) -> None:
    axis = some_axis(x, draws)
    size = x.shape[axis]
    require(size >= 3)
    first = draws.below(size - 1)
    start, end, step = draws.pick(
        (
            (first, first + 1 + draws.below(size - first), 1),
            (first % 2, 1 << 30, 2),
            (-1, -(1 << 30), -1),
            (-(size // 2), size, 1),
        )
    )
    length = len(range(size)[start:end:step])
    y = w.net.slice(x.name, start, end, axis, step)
    w.add(y, *resized(x, axis, length))


@layer(weight=4)
def gather(w: Workshop, x: Tensor, draws: Draws) -> None:
    axis = some_axis(x, draws)
    size = x.shape[axis]
    require(size >= 2)
    how = draws.below(4)
    if how == 3:
        require(x.rank > 2)
        y = w.net.op("Gather", x.name, w.net.integer(draws.below(size)), axis=axis)
        w.add(y, *x.shape[:axis], *x.shape[axis + 1 :])
        return
    rng = w.net.rng
    half = np.sort(rng.choice(size, (size + 1) // 2, replace=False))
    numbers = (rng.permutation(size), half, rng.integers(0, size, size))[how]
    y = w.net.op("Gather", x.name, w.net.const(numbers.astype(np.int64), "indices"), axis=axis)
    w.add(y, *resized(x, axis, len(numbers)))


@layer(weight=2)
def roll(w: Workshop, x: Tensor, draws: Draws) -> None:
    axis = some_axis(x, draws)
    size = x.shape[axis]
    require(size >= 3)
    cut = 1 + draws.below(size - 1)
    y = w.net.op("Concat", w.net.slice(x.name, cut, size, axis), w.net.slice(x.name, 0, cut, axis), axis=axis)
    w.like(w.net.op("Add", x.name, y) if draws.chance(3) else y, x)


@layer(4, 3, weight=4)
def channel_shuffle(w: Workshop, x: Tensor, draws: Draws) -> None:
    axis = channels(x)
    size = x.shape[axis]
    choices = divisors(size)[1:-1]
    require(bool(choices))
    groups = draws.pick(choices)
    before, after = x.shape[1:axis], x.shape[axis + 1 :]
    y = w.net.reshape(x.name, 0, *before, groups, size // groups, *after)
    perm = list(range(x.rank + 1))
    perm[axis], perm[axis + 1] = axis + 1, axis
    w.like(w.net.reshape(w.net.transpose(y, *perm), 0, *before, size, *after), x)


@layer(weight=5)
def reshape(w: Workshop, x: Tensor, draws: Draws) -> None:
    """Merge all axes but the batch, or two neighbours, or split one."""
    sizes = list(x.shape[1:])
    how = draws.below(3)
    if how == 0:
        require(len(sizes) > 1)
        at = draws.below(len(sizes) - 1)
        sizes[at : at + 2] = [sizes[at] * sizes[at + 1]]
    elif how == 1:
        at = some_axis(x, draws) - 1
        factors = divisors(sizes[at])[1:-1]
        require(bool(factors) and len(sizes) < 4)
        factor = draws.pick(factors)
        sizes[at : at + 1] = [factor, sizes[at] // factor]
    else:
        require(len(sizes) > 1)
        if draws.chance(2):
            w.add(w.net.op("Flatten", x.name, axis=1), x.shape[0], prod(sizes))
            return
        sizes = [prod(sizes)]
    written = [*sizes]
    if draws.chance(3):
        written[draws.below(len(written))] = -1
    w.add(w.net.reshape(x.name, 0, *written), x.shape[0], *sizes)


@layer(weight=1)
def regroup(w: Workshop, x: Tensor, draws: Draws) -> None:
    """Through another grid and back."""
    axis = x.rank - 1
    factors = divisors(x.shape[axis])[1:-1]
    require(bool(factors))
    factor = draws.pick(factors)
    y = w.net.reshape(x.name, 0, *x.shape[1:-1], factor, x.shape[axis] // factor)
    if draws.chance(2):
        y = w.net.op("Mul", y, w.net.const(w.net.positive(x.shape[axis] // factor), "grid"))
    w.like(w.net.reshape(y, 0, *x.shape[1:]), x)


@layer(3, 4, 5, weight=5)
def transpose(w: Workshop, x: Tensor, draws: Draws) -> None:
    axes = list(range(1, x.rank))
    turn = 1 + draws.below(len(axes) - 1)
    axes = axes[turn:] + axes[:turn]
    if draws.chance(3):
        axes[0], axes[1] = axes[1], axes[0]
    w.add(w.net.transpose(x.name, 0, *axes), *(x.shape[axis] for axis in (0, *axes)))


@layer(4, weight=4)
def to_tokens(w: Workshop, x: Tensor, draws: Draws) -> None:
    n, c, h, width = x.shape
    y = w.net.transpose(w.net.reshape(x.name, 0, c, h * width), 0, 2, 1)
    w.add(y, n, h * width, c)


@layer(3, weight=3)
def to_image(w: Workshop, x: Tensor, draws: Draws) -> None:
    n, length, d = x.shape
    h = draws.pick(divisors(length))
    w.add(w.net.reshape(w.net.transpose(x.name, 0, 2, 1), 0, d, h, length // h), n, d, h, length // h)


@layer(2, weight=3)
def unflatten(w: Workshop, x: Tensor, draws: Draws) -> None:
    n, size = x.shape
    c = draws.pick(divisors(size)[1:] or [1])
    if draws.chance(2):
        w.add(w.net.reshape(x.name, 0, c, size // c), n, c, size // c)
        return
    h = draws.pick(divisors(size // c))
    w.add(w.net.reshape(x.name, 0, c, h, size // c // h), n, c, h, size // c // h)


@layer(4, weight=4)
def pool(w: Workshop, x: Tensor, draws: Draws) -> None:
    n, c, h, width = x.shape
    kind = draws.pick(("MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "ReduceMean", "LpPool"))
    if kind == "ReduceMean":
        w.add(w.net.mean(x.name, 2, 3, keepdims=0), n, c)
    elif kind.startswith("Global"):
        w.add(w.net.op(kind, x.name), n, c, 1, 1)
    elif draws.chance(2):
        pads = {"kernel_shape": [3, 3], "pads": [1] * 4}
        w.add(w.net.op(kind, x.name, **pads, **({"count_include_pad": 1} if kind == "AveragePool" else {})), *x.shape)
    else:
        require(min(h, width) >= 2)
        y = w.net.op(kind, x.name, kernel_shape=[2, 2], strides=[2, 2])
        w.add(y, n, c, h // 2, width // 2)


@layer(3, weight=2)
def over_positions(w: Workshop, x: Tensor, draws: Draws) -> None:
    axis = draws.pick((1, 1, 2))
    kind = draws.pick(("ReduceMean", "ReduceMax", "ReduceSum"))
    y = w.net._axes_op(kind, x.name, [axis], 13 if kind == "ReduceSum" else 18, keepdims=0)
    w.add(y, x.shape[0], x.shape[3 - axis])


@layer(weight=3)
def pad(w: Workshop, x: Tensor, draws: Draws) -> None:
    axis = some_axis(x, draws)
    mode = draws.pick(("constant", "reflect", "edge"))
    first, last = draws.below(3), draws.below(3)
    require(max(first, last) < x.shape[axis])
    pads = [0] * (2 * x.rank)
    pads[axis], pads[axis + x.rank] = first, last
    operands = [w.net.ints(*pads, hint="pads")]
    if mode == "constant" and draws.chance(2):
        operands.append(w.net.number(0.5))
    y = w.net.op("Pad", x.name, *operands, mode=mode)
    w.add(y, *resized(x, axis, x.shape[axis] + first + last))


@layer(4, weight=3)
def upsample(w: Workshop, x: Tensor, draws: Draws) -> None:
    n, c, h, width = x.shape
    mode = draws.pick(("nearest", "linear"))
    if draws.chance(2):
        operands = ["", "", w.net.ints(n, c, 2 * h, 2 * width, hint="sizes")]
        require(w.fixed_batch)
    else:
        operands = ["", w.net.const(np.array([1, 1, 2, 2], np.float32), "scales")]
    w.add(w.net.op("Resize", x.name, *operands, mode=mode), n, c, 2 * h, 2 * width)


@layer(4, weight=2)
def depth_and_space(w: Workshop, x: Tensor, draws: Draws) -> None:
    n, c, h, width = x.shape
    if draws.chance(2):
        require(h % 2 == 0 and width % 2 == 0)
        w.add(w.net.op("SpaceToDepth", x.name, blocksize=2), n, 4 * c, h // 2, width // 2)
    else:
        require(c % 4 == 0)
        y = w.net.op("DepthToSpace", x.name, blocksize=2, mode=draws.pick(("DCR", "CRD")))
        w.add(y, n, c // 4, 2 * h, 2 * width)


@layer(weight=2)
def tile(w: Workshop, x: Tensor, draws: Draws) -> None:
    axis = some_axis(x, draws)
    repeats = [1] * x.rank
    repeats[axis] = 2
    require(x.shape[axis] <= WIDEST)
    y = w.net.op("Tile", x.name, w.net.ints(*repeats, hint="repeats"))
    w.add(y, *resized(x, axis, 2 * x.shape[axis]))


@layer(weight=1)
def ones_axes(w: Workshop, x: Tensor, draws: Draws) -> None:
    """Unsqueeze and Squeeze around something small."""
    axis = 1 + draws.below(x.rank)
    y = w.net.op("Tanh", w.net.unsqueeze(x.name, axis))
    w.like(w.net.squeeze(y, axis), x)


@layer(3, weight=1)
def gram(w: Workshop, x: Tensor, draws: Draws) -> None:
    n, length, d = x.shape
    turned = w.net.transpose(x.name, 0, 2, 1)
    if draws.chance(2):
        w.add(w.net.op("MatMul", x.name, turned), n, length, length)
    else:
        w.add(w.net.op("MatMul", turned, x.name), n, d, d)


@layer(2, 3, weight=1)
def einsum(w: Workshop, x: Tensor, draws: Draws) -> None:
    size, width = x.shape[-1], draws.pick((6, 8, 4))
    weight = w.net.weight(size, width, fan=size, hint="einsum.weight")
    w.add(w.net.op("Einsum", x.name, weight, equation="...i,ij->...j"), *x.shape[:-1], width)

"""Layers that move, join, part and resample, and those that combine what others moved."""

from __future__ import annotations

from math import prod

import numpy as np

from fuzz.recipes import Draws
from fuzz.workshop import WIDEST, Tensor, Workshop, channels, divisors, layer, require, resized, some_axis


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

"""Random systems of 12 to 24 slots: the ones that networks give rise to, and wild ones.

Generators ask a :class:`Chooser` for every decision, so one generator serves a seeded campaign and hypothesis, which
shrinks what it finds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

import numpy as np
from hypothesis import assume
from hypothesis import strategies as st

from property.systems import (
    Add,
    Concat,
    Hold,
    Operation,
    Permute,
    Reshape,
    Shape,
    Slice,
    Source,
    System,
    Transpose,
    result_shape,
)

LEAST, MOST = 12, 24
"""How many slots a system has."""

Item = TypeVar("Item")


class Chooser(Protocol):
    """Where decisions come from."""

    def below(self, count: int) -> int:
        """A number from 0 to ``count - 1``; 0 is the simplest."""


class Seeded:
    """Decisions by a seeded generator."""

    def __init__(self, seed: int | Sequence[int]) -> None:
        self._rng = np.random.default_rng(seed)

    def below(self, count: int) -> int:
        return int(self._rng.integers(count))


class Drawn:
    """Decisions by hypothesis."""

    def __init__(self, draw: st.DrawFn) -> None:
        self._draw = draw

    def below(self, count: int) -> int:
        return self._draw(st.integers(0, count - 1))


class Build:
    """A system in the making; methods add an operation and return the tensor it makes."""

    def __init__(self, chooser: Chooser) -> None:
        self.chooser = chooser
        self.operations: list[Operation] = []
        self.shapes: list[Shape] = []

    def add(self, operation: Operation) -> int:
        self.shapes.append(result_shape(operation, self.shapes))
        self.operations.append(operation)
        return len(self.operations) - 1

    def source(self, *shape: int) -> int:
        return self.add(Source(shape))

    def reshape(self, x: int, *shape: int) -> int:
        return self.add(Reshape(x, shape))

    def split(self, x: int, axis: int, sizes: Sequence[int]) -> list[int]:
        starts = [sum(sizes[:k]) for k in range(len(sizes))]
        return [self.add(Slice(x, axis, start, size)) for start, size in zip(starts, sizes, strict=True)]

    def concat(self, *xs: int, axis: int = 0) -> int:
        return self.add(Concat(xs, axis))

    def transpose(self, x: int, *perm: int) -> int:
        return self.add(Transpose(x, perm))

    def sum(self, x: int, *others: int) -> int:
        for other in others:
            x = self.add(Add(x, other))
        return x

    def hold(self, x: int, axis: int) -> int:
        return self.add(Hold(x, axis, tuple(range(self.shapes[x][axis]))))

    # -- decisions ---------------------------------------------------------------------------------------------------

    def maybe(self, one_in: int = 2) -> bool:
        return self.chooser.below(one_in) == one_in - 1

    def between(self, low: int, high: int) -> int:
        return low + self.chooser.below(high - low + 1)

    def pick(self, items: Sequence[Item]) -> Item:
        return items[self.chooser.below(len(items))]

    def order(self, count: int) -> tuple[int, ...]:
        """A permutation of the kinds that occur: roll, flip, swap of halves, interleaving, any."""
        positions = list(range(count))
        kind = self.chooser.below(5)
        if kind == 0:
            shift = self.between(1, max(count - 1, 1))
            return tuple(positions[shift:] + positions[:shift])
        if kind == 1:
            return tuple(reversed(positions))
        if kind == 2 and count % 2 == 0:
            return tuple(positions[count // 2 :] + positions[: count // 2])
        if kind == 3:
            return tuple(positions[::2] + positions[1::2])
        shuffled = []
        while positions:
            shuffled.append(positions.pop(self.chooser.below(len(positions))))
        return tuple(shuffled)

    def parts(self, total: int, count: int) -> list[int]:
        """``count`` positive sizes that add up to ``total``."""
        sizes: list[int] = []
        for left in range(count - 1, 0, -1):
            sizes.append(self.between(1, total - sum(sizes) - left))
        return [*sizes, total - sum(sizes)]


# -- systems that networks give rise to ------------------------------------------------------------------------------


def residual(b: Build) -> None:
    """A stream, blocks that add to it, a second stream beside it."""
    width = b.between(3, 6)
    x = b.source(width)
    for _ in range(b.between(1, 2)):
        x = b.sum(x, b.source(width))
    other = b.source(b.between(3, 6))
    if b.maybe():
        b.concat(x, other)


def dense(b: Build) -> None:
    """Concatenations of concatenations, each read by a batch norm; slices of the whole."""
    features = [b.source(b.between(2, 4))]
    for _ in range(b.between(1, 2)):
        joined = b.concat(*features) if len(features) > 1 else features[0]
        if b.maybe(3) and b.shapes[joined][0] <= 6:
            joined = b.sum(joined, b.source(*b.shapes[joined]))
        features.append(b.source(b.between(2, 4)))
    whole = b.concat(*features)
    if b.maybe():
        size = b.shapes[whole][0]
        low, high = b.split(whole, 0, b.parts(size, 2))
        if b.maybe() and b.shapes[high][0] <= 6:
            b.sum(high, b.source(*b.shapes[high]))
        if b.maybe():
            b.concat(high, low)


def flatten(b: Build) -> None:
    """Channels and a small image flattened into the columns of a linear layer; the image may be held."""
    c, s = b.pick([(3, 2), (4, 2), (5, 2), (2, 4), (4, 3), (3, 3), (2, 2)])
    last = b.maybe(3)
    x = b.source(*((s, c) if last else (c, s)))
    if b.maybe():
        x = b.hold(x, 0 if last else 1)
    flat = b.reshape(x, c * s)
    if c * s <= 10 and b.maybe():
        flat = b.sum(flat, b.source(c * s))
    if b.maybe():
        b.concat(flat, b.source(b.between(2, 4)))


def shuffle(b: Build) -> None:
    """ShuffleNet: grid, transposed, flat again; split in halves of which one is added to."""
    g, c = b.pick([(2, 3), (2, 4), (3, 2), (2, 6), (3, 4), (4, 2), (4, 3), (2, 5)])
    halves = [b.source(g * c // 2), b.source(g * c // 2)] if (g * c) % 2 == 0 and b.maybe() else [b.source(g * c)]
    x = b.concat(*halves) if len(halves) > 1 else halves[0]
    for _ in range(b.between(1, 2)):
        x = b.reshape(b.transpose(b.reshape(x, g, c), 1, 0), g * c)
        if (g * c) % 2 == 0:
            left, right = b.split(x, 0, [g * c // 2] * 2)
            if b.maybe() and g * c <= 8:
                right = b.sum(right, b.source(g * c // 2))
            x = b.concat(left, right) if b.maybe() else b.concat(right, left)
    if b.maybe(3) and g * c <= 8:
        b.sum(x, halves[0] if len(halves) == 1 else b.source(g * c))


def attention(b: Build) -> None:
    """Rows of q, k, v: fused or apart, heads and widths, the product tying q with k; rotary at times."""
    heads, width = b.pick([(2, 2), (2, 3), (3, 2), (2, 4), (4, 2)])
    n = heads * width
    if 3 * n <= MOST and b.maybe():
        fused = b.reshape(b.source(3 * n), 3, heads, width)
        parts = [b.reshape(part, heads, width) for part in b.split(b.hold(fused, 0), 0, [1, 1, 1])]
    elif 3 * n <= MOST:
        parts = [b.reshape(b.source(n), heads, width) for _ in range(3)]
    else:
        parts = [b.reshape(b.source(n), heads, width) for _ in range(2)]
    if width % 2 == 0 and b.maybe():
        for k in (0, 1):
            a, c = b.split(parts[k], 1, [width // 2] * 2)
            parts[k] = b.sum(parts[k], b.concat(c, a, axis=1))
    scores = b.sum(parts[0], parts[1])
    if len(parts) == 3:
        # Values share the heads and nothing else: a broadcast along the width.
        one = b.add(Slice(parts[2], 1, 0, 1))
        b.sum(scores, one)
        b.reshape(parts[2], n)


def grouped_query(b: Build) -> None:
    """Query heads [kv, repeats]; keys broadcast over the repeats."""
    kv, repeats, width = b.pick([(2, 2, 2), (2, 3, 2), (3, 2, 2), (2, 2, 3)])
    q = b.reshape(b.source(kv * repeats * width), kv, repeats, width)
    k = b.reshape(b.source(kv * width), kv, 1, width)
    scores = b.sum(q, k)
    b.reshape(scores, kv * repeats, width)


def groups(b: Build) -> None:
    """Grouped convolutions: in = Prod(G, I), out = Prod(G, O); a residual around, or another grouping after."""
    g = b.pick([2, 3, 4])
    i, o = b.between(1, 3), b.between(1, 3)
    x = b.source(g * i)
    weight = b.source(g, o) if g * o <= 8 else b.source(g * o)
    rows = weight if len(b.shapes[weight]) == 2 else b.reshape(weight, g, o)
    grid = b.reshape(x, g, i)
    # The group axis of both is one: they meet in a broadcast.
    b.sum(b.reshape(grid, g, i, 1), b.reshape(rows, g, 1, o))
    out = b.reshape(rows, g * o)
    if i == o and b.maybe():
        b.sum(x, out)
    if b.maybe():
        h = b.pick([d for d in range(1, g * o + 1) if g * o % d == 0])
        b.reshape(out, h, g * o // h)
        if g * o <= 8:
            b.sum(b.reshape(out, h, g * o // h), b.source(h, g * o // h))


def gates(b: Build) -> None:
    """Halves of one layer multiplied, both signs concatenated, a layer concatenated with itself."""
    n = b.between(3, 6)
    kind = b.chooser.below(3)
    if kind == 0:
        left, right = b.split(b.source(2 * n), 0, [n, n])
        x = b.sum(left, right)
    elif kind == 1:
        x = b.source(n)
        x = b.concat(x, x)
        if b.maybe() and n <= 4:
            x = b.sum(x, b.source(2 * n))
    else:
        gate_rows = b.reshape(b.source(4 * n), 4, n)
        x = b.sum(*(b.reshape(part, n) for part in b.split(gate_rows, 0, [1] * 4)))
    if b.shapes[x][0] <= 8:
        b.concat(x, b.source(b.between(2, 4)))


def permuted(b: Build) -> None:
    """Flips, rolls and shuffled channels, added to where they came from or to something new."""
    n = b.between(4, 9)
    x = b.source(n)
    if b.maybe():
        x = b.concat(x, b.source(b.between(2, 4)))
    size = b.shapes[x][0]
    y = b.add(Permute(x, 0, b.order(size)))
    if b.maybe(3):
        y = b.sum(x, y)
    elif size <= 10:
        y = b.sum(y, b.source(size))
    if b.maybe() and size % 2 == 0:
        even, odd = b.add(Slice(y, 0, 0, size // 2, 2)), b.add(Slice(y, 0, 1, size // 2, 2))
        b.sum(even, odd) if b.maybe() else b.concat(odd, even)


def regrouped(b: Build) -> None:
    """One axis read in two grids, [4, 6] and [6, 4] or [4, 2, 3]; each grid tied to something or only read."""
    total = b.pick([12, 12, 16, 18, 8])
    grids: list[Shape] = [(m, total // m) for m in range(2, total) if total % m == 0]
    grids += [(p, q, total // p // q) for p in (2, 3) for q in (2, 3) if total % (p * q) == 0 and total // p // q > 1]
    x = b.source(total)
    for _ in range(b.between(1, 2)):
        grid = b.reshape(x, *b.pick(grids))
        if b.maybe(3):
            rank = len(b.shapes[grid])
            grid = b.transpose(grid, *reversed(range(rank)))
        if sum(b.shapes[grid]) <= 8 and b.maybe():
            grid = b.sum(grid, b.source(*b.shapes[grid]))
        x = b.reshape(grid, total)


def windows(b: Build) -> None:
    """A roll, windows by reshape and transpose over two held axes, and channels that must not care."""
    side, channels = 4, b.between(2, 6)
    x = b.source(side, channels)
    if b.maybe():
        x = b.hold(x, 0)
    x = b.add(Permute(x, 0, (1, 2, 3, 0))) if b.maybe() else x
    x = b.reshape(x, 2, 2, channels)
    x = b.reshape(b.transpose(x, 1, 0, 2), side, channels)
    if channels % 2 == 0 and b.maybe():
        x = b.reshape(x, side, 2, channels // 2)
        b.sum(x, b.source(1, 2, channels // 2))
    else:
        b.sum(x, b.source(1, channels))


NETWORKS: dict[str, Callable[[Build], None]] = {
    build.__name__: build
    for build in (
        residual, dense, flatten, shuffle, attention, grouped_query, groups, gates, permuted, regrouped, windows,
    )
}  # fmt: skip


# -- wild systems ----------------------------------------------------------------------------------------------------


def wild(b: Build) -> None:
    """Anything that fits: three to nine random operations on a few random sources."""
    for _ in range(b.between(1, 3)):
        rank = b.pick([1, 1, 2, 2, 3])
        b.source(*(b.pick([2, 2, 3, 4, 5, 6, 1] if rank > 1 else [4, 6, 8, 12, 5, 9]) for _ in range(rank)))
    for _ in range(b.between(3, 9)):
        _wild_step(b)


def _wild_step(b: Build) -> None:
    x = b.chooser.below(len(b.shapes))
    shape = b.shapes[x]
    axis = b.chooser.below(len(shape))
    size = shape[axis]
    kind = b.pick(["reshape", "reshape", "add", "add", "split", "concat", "transpose", "permute", "slice", "hold"])
    if kind == "reshape" and math.prod(shape) > 1:
        b.reshape(x, *_wild_shape(b, math.prod(shape)))
    elif kind == "add":
        same = [y for y, other in enumerate(b.shapes) if y != x and other == shape]
        elements = [y for y, other in enumerate(b.shapes) if y != x and math.prod(other) == math.prod(shape)]
        if same and b.maybe():
            b.sum(x, b.pick(same))
        elif elements and b.maybe():
            b.sum(x, b.reshape(b.pick(elements), *shape))
        elif sum(shape) <= 10:
            b.sum(x, b.source(*shape))
    elif kind == "split" and size > 1:
        b.split(x, axis, b.parts(size, 2))
    elif kind == "slice" and size > 2:
        step = b.pick([1, 2, -1])
        count = b.between(1, size // abs(step))
        span = (count - 1) * abs(step)
        low = b.between(0, size - 1 - span)
        b.add(Slice(x, axis, low + span if step < 0 else low, count, step))
    elif kind == "concat":
        fits = [
            y
            for y, other in enumerate(b.shapes)
            if len(other) == len(shape)
            for pairs in [zip(shape, other, strict=True)]
            if all(m == n for a, (m, n) in enumerate(pairs) if a != axis)
        ]
        y = b.pick(fits)
        if size + b.shapes[y][axis] <= 16:
            b.concat(x, y, axis=axis)
    elif kind == "transpose" and len(shape) > 1:
        perm = list(range(len(shape)))
        b.transpose(x, *(perm.pop(b.chooser.below(len(perm))) for _ in range(len(shape))))
    elif kind == "permute" and size > 1:
        b.add(Permute(x, axis, b.order(size)))
    elif kind == "hold" and b.maybe(3):
        b.add(Hold(x, axis, (b.chooser.below(size),)))


def _wild_shape(b: Build, total: int) -> Shape:
    """Up to three factors of ``total``, in any order; now and then a one."""
    factors = []
    for _ in range(b.between(0, 2)):
        options = [d for d in range(2, total + 1) if total % d == 0]
        if not options:
            break
        factors.append(b.pick(options))
        total //= factors[-1]
    if total > 1 or not factors:
        factors.insert(b.chooser.below(len(factors) + 1), total)
    if b.maybe(6):
        factors.insert(b.chooser.below(len(factors) + 1), 1)
    return tuple(factors)


# -- the two ways to get one -----------------------------------------------------------------------------------------

_ELEMENTS = 64


def _fits(b: Build) -> bool:
    sources = (operation for operation in b.operations if isinstance(operation, Source))
    count = sum(size for source in sources for size in source.shape if size > 1)
    return LEAST <= count <= MOST and all(math.prod(shape) <= _ELEMENTS for shape in b.shapes)


def random_system(seed: int | Sequence[int], kind: str | None = None) -> System:
    """A system by a seeded generator; every fourth is wild unless ``kind`` says which."""
    chooser = Seeded(seed)
    while True:
        name = kind or ("wild" if chooser.below(4) == 0 else list(NETWORKS)[chooser.below(len(NETWORKS))])
        for _ in range(200):
            b = Build(chooser)
            (NETWORKS.get(name) or wild)(b)
            if not _fits(b) and name != "wild":
                # A network with slots to spare: an unrelated layer beside it.
                b.source(b.between(2, 8))
            if _fits(b):
                return System(name, tuple(b.operations))


@st.composite
def systems(draw: st.DrawFn, kind: str | None = None) -> System:
    """A system by hypothesis."""
    name = kind or draw(st.sampled_from(["wild", *NETWORKS, *["wild"] * 5]))
    b = Build(Drawn(draw))
    (NETWORKS.get(name) or wild)(b)
    assume(_fits(b))
    return System(name, tuple(b.operations))


def with_tables(system: System, rng: np.random.Generator) -> tuple[System, tuple[int, ...]]:
    """A system some of whose tensors are scaled by tables, several by one and the same; and which sources those are.

    What a table holds may be moved before it is used. A few of the system's own sources are tables, too.
    """
    operations, shapes = list(system.operations), list(system.shapes)
    tables = [source for source in system.sources if rng.random() < 0.2]

    def put(operation: Operation) -> int:
        operations.append(operation)
        shapes.append(result_shape(operation, shapes))
        return len(operations) - 1

    grids = [shape for shape in dict.fromkeys(shapes) if sum(size > 1 for size in shape) > 1]
    for shape in [grids[number] for number in rng.permutation(len(grids))[:3]]:
        alike = [number for number, other in enumerate(shapes) if other == shape]
        table = put(Source(shape))
        tables.append(table)
        for tensor in rng.permutation(alike)[: int(rng.integers(2, 5))]:
            axis = int(rng.integers(len(shape)))
            moved = rng.random() < 0.4
            order = tuple(int(place) for place in rng.permutation(shape[axis]))
            put(Add(int(tensor), put(Permute(table, axis, order)) if moved else table))
    return System(system.kind, tuple(operations)), tuple(tables)

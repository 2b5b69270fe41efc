"""Systems of data movements, and what a removal of positions does to them.

A system is a list of operations; operation ``i`` makes tensor ``i``. A *removal* gives each axis of each source a kept
set of positions. The operations carry it on:

* a transpose moves axes; a slice, a permutation and a concatenation move positions along one axis;
* a sum keeps what both operands keep, and they must keep the same, position by position (an axis of size one that
  meets a longer one is a broadcast and says nothing);
* a reshape reads the same elements in another grid: the elements that are kept must be a full grid on both sides.

A removal is *valid* when every sum and reshape agrees, every held position is kept, and every axis of every tensor
keeps at least one position.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Source:
    """A tensor with axes of its own."""

    shape: Shape


@dataclass(frozen=True)
class Reshape:
    """The elements of ``x``, row-major, in another shape."""

    x: int
    shape: Shape


@dataclass(frozen=True)
class Slice:
    """Positions start, start + step, ... of an axis, ``count`` of them."""

    x: int
    axis: int
    start: int
    count: int
    step: int = 1


@dataclass(frozen=True)
class Concat:
    """Tensors joined along an axis; their other axes are the same."""

    xs: tuple[int, ...]
    axis: int


@dataclass(frozen=True)
class Transpose:
    """Axis ``a`` of the result is axis ``perm[a]`` of ``x``."""

    x: int
    perm: tuple[int, ...]


@dataclass(frozen=True)
class Permute:
    """Position ``p`` of an axis of the result is position ``order[p]`` of ``x``."""

    x: int
    axis: int
    order: tuple[int, ...]


@dataclass(frozen=True)
class Add:
    """An elementwise sum of tensors of one rank; axes of size one broadcast."""

    x: int
    y: int


@dataclass(frozen=True)
class Hold:
    """``x`` itself; some positions of one axis must stay."""

    x: int
    axis: int
    positions: tuple[int, ...]


Operation = Source | Reshape | Slice | Concat | Transpose | Permute | Add | Hold

Slot = tuple[int, int, int]
"""A position of an axis of a source: (tensor, axis, position)."""


@dataclass(frozen=True)
class System:
    """Operations in order.

    Attributes:
        kind: what the system is modelled on; reports are split by it.
    """

    kind: str
    operations: tuple[Operation, ...]

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """The shape of every tensor."""
        made: list[Shape] = []
        for operation in self.operations:
            made.append(result_shape(operation, made))
        return tuple(made)

    @property
    def sources(self) -> tuple[int, ...]:
        """The tensors that operations are about."""
        return tuple(i for i, operation in enumerate(self.operations) if isinstance(operation, Source))

    @property
    def slots(self) -> tuple[Slot, ...]:
        """Every position of every source axis that is longer than one."""
        shapes = self.shapes
        return tuple(
            (tensor, axis, position)
            for tensor in self.sources
            for axis, size in enumerate(shapes[tensor])
            if size > 1
            for position in range(size)
        )

    def __str__(self) -> str:
        lines = [f"{self.kind}:"]
        for i, (operation, shape) in enumerate(zip(self.operations, self.shapes, strict=True)):
            lines.append(f"  t{i} {list(shape)} = {operation}")
        return "\n".join(lines)


def result_shape(operation: Operation, shapes: Sequence[Shape]) -> Shape:
    """The shape that an operation makes of the shapes before it.

    Raises:
        ValueError: the operation does not fit.
    """
    match operation:
        case Source(shape):
            return shape
        case Reshape(x, shape):
            if math.prod(shape) != math.prod(shapes[x]):
                raise ValueError(f"{shapes[x]} cannot be reshaped to {shape}")
            return shape
        case Slice(x, axis, start, count, step):
            last = start + (count - 1) * step
            if count < 1 or not 0 <= start < shapes[x][axis] or not 0 <= last < shapes[x][axis]:
                raise ValueError(f"{operation} leaves the axis")
            return (*shapes[x][:axis], count, *shapes[x][axis + 1 :])
        case Concat(xs, axis):
            rests = {(*shapes[x][:axis], *shapes[x][axis + 1 :]) for x in xs}
            if len(rests) != 1:
                raise ValueError("the other axes of a concatenation differ")
            return (*shapes[xs[0]][:axis], sum(shapes[x][axis] for x in xs), *shapes[xs[0]][axis + 1 :])
        case Transpose(x, perm):
            if sorted(perm) != list(range(len(shapes[x]))):
                raise ValueError(f"{perm} is no order of the axes of {shapes[x]}")
            return tuple(shapes[x][axis] for axis in perm)
        case Permute(x, axis, order):
            if sorted(order) != list(range(shapes[x][axis])):
                raise ValueError("a permutation must name every position once")
            return shapes[x]
        case Add(x, y):
            same_rank = len(shapes[x]) == len(shapes[y])
            if not same_rank or any(m != n and 1 not in (m, n) for m, n in zip(shapes[x], shapes[y], strict=True)):
                raise ValueError(f"{shapes[x]} and {shapes[y]} cannot be added")
            return tuple(max(m, n) for m, n in zip(shapes[x], shapes[y], strict=True))
        case Hold(x, _, _):
            return shapes[x]


Kept = tuple[Mask, ...]
"""One mask an axis."""


Use = tuple[int, int]
"""(operation, which of the tensors that it reads)."""


def read_by(operation: Operation) -> tuple[int, ...]:
    """The tensors that an operation reads."""
    match operation:
        case Source():
            return ()
        case Concat(xs, _):
            return xs
        case Add(x, y):
            return x, y
        case _:
            return (operation.x,)


def carried(system: System, kept: Mapping[int, Kept], taken: Mapping[Use, Kept] | None = None) -> list[Kept] | None:
    """What every tensor keeps when the sources keep ``kept``; None when the removal is not valid.

    Args:
        taken: uses that take parts of their own, of tensors that stay whole, with what they take.
    """
    shapes = system.shapes
    tensors: list[Kept] = []
    for i, operation in enumerate(system.operations):
        operands = [(taken or {}).get((i, number), tensors[x]) for number, x in enumerate(read_by(operation))]
        made = kept[i] if isinstance(operation, Source) else _carry(operation, operands, shapes[i])
        if made is None or not all(mask.any() for mask in made):
            return None
        tensors.append(made)
    return tensors


def _carry(operation: Operation, operands: Sequence[Kept], shape: Shape) -> Kept | None:
    first = operands[0]
    match operation:
        case Reshape():
            elements = _grid(first).reshape(shape)
            axes = range(len(shape))
            found = tuple(
                np.asarray(elements.any(axis=tuple(other for other in axes if other != axis))) for axis in axes
            )
            return found if np.array_equal(_grid(found), elements) else None
        case Slice(_, axis, start, count, step):
            return _changed(first, axis, first[axis][start + step * np.arange(count)])
        case Concat(_, axis):
            for other in operands[1:]:
                if any(a != axis and not np.array_equal(m, other[a]) for a, m in enumerate(first)):
                    return None
            return _changed(first, axis, np.concatenate([operand[axis] for operand in operands]))
        case Transpose(_, perm):
            return tuple(first[axis] for axis in perm)
        case Permute(_, axis, order):
            return _changed(first, axis, first[axis][list(order)])
        case Add():
            made = []
            for left, right in zip(*operands, strict=True):
                if len(left) == len(right) and not np.array_equal(left, right):
                    return None
                made.append(left if len(left) >= len(right) else right)
            return tuple(made)
        case Hold(_, axis, positions):
            return first if first[axis][list(positions)].all() else None
        case Source():
            raise AssertionError("sources are given")


def _grid(masks: Kept) -> Mask:
    """The elements kept: those whose position is kept on every axis."""
    grid = np.ones((), dtype=bool)
    for mask in masks:
        grid = np.logical_and.outer(grid, mask)
    return grid


def _changed(masks: Kept, axis: int, mask: Mask) -> Kept:
    return (*masks[:axis], mask, *masks[axis + 1 :])


def without(system: System, removed: set[Slot]) -> dict[int, Kept]:
    """The kept sets of the sources when ``removed`` goes and nothing else."""
    shapes = system.shapes
    return {
        tensor: tuple(
            np.array([(tensor, axis, position) not in removed for position in range(size)])
            for axis, size in enumerate(shapes[tensor])
        )
        for tensor in system.sources
    }

"""Operators that only move elements: what is left of their result follows from where each element comes from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, combinations, product

import numpy as np
import numpy.typing as npt
import onnx

from minimal.machine import Machine, UnsupportedError
from models.building import Array

Mask = npt.NDArray[np.bool_]
Box = tuple[Mask, ...]
"""Which positions of every axis are left."""

MOVES = frozenset(
    {
        "Concat", "DepthToSpace", "Dropout", "Expand", "Flatten", "Gather", "Identity", "Pad", "Reshape", "Slice",
        "SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze",
    }
)  # fmt: skip
"""Operators whose first operand, or all of them for Concat, are data; the others say how to move it."""

REPEATS = frozenset({"Expand", "Tile"})
_NOWHERE = 0
"""The number of an element that comes from none; padding is zero where nothing else is said."""
_MANY = 6


def whole(shape: Sequence[int]) -> Box:
    """Everything is left."""
    return tuple(np.ones(size, dtype=bool) for size in shape)


def inside(box: Box) -> Mask:
    """Which elements are left."""
    shape = tuple(mask.size for mask in box)
    found = np.ones(shape, dtype=bool)
    for axis, mask in enumerate(box):
        found &= mask.reshape([-1 if number == axis else 1 for number in range(len(shape))])
    return found


def moved(
    machine: Machine, node: onnx.NodeProto, operands: Sequence[Array | None], boxes: Sequence[Box | None]
) -> Iterator[list[Box]]:
    """The boxes that may be left of the results: every element that has a place keeps it, in order.

    Positions that the operator makes itself (an expanded axis, padding) may be as many as one likes.
    """
    data = len(operands) if node.op_type == "Concat" else 1
    numbers: list[Array | None] = list(operands)
    left: list[Mask] = []
    first = _NOWHERE + 1
    for place in range(data):
        array, box = operands[place], boxes[place]
        if array is None or box is None:
            raise UnsupportedError("an operand is left out")
        numbers[place] = np.arange(first, first + array.size, dtype=np.float32).reshape(array.shape)
        first += array.size
        left.append(inside(box).ravel())
    if node.op_type == "Pad" and len(numbers) > 2 and numbers[2] is not None:
        numbers[2] = np.array(_NOWHERE, dtype=np.float32)
    results = machine.run(node, numbers)
    if results is None:
        raise UnsupportedError(f"{node.op_type} does not move plain numbers")
    kept = np.concatenate([np.ones(1, dtype=bool), *left])
    source = operands[0]
    assert source is not None
    options: list[list[Box]] = []
    for result in results:
        places = result.astype(np.int64)
        box = _box(kept[places], places != _NOWHERE)
        if box is None:
            return
        options.append(list(_shorter(box, _made(node.op_type, source.shape, places))))
    for chosen in product(*options):
        yield list(chosen)


def _box(kept: Mask, real: Mask) -> Box | None:
    """The axes' positions that are left, if what is left is a box."""
    box = []
    for axis in range(kept.ndim):
        others = tuple(number for number in range(kept.ndim) if number != axis)
        box.append((kept & real).any(axis=others) | ~real.any(axis=others))
    fits = (inside(tuple(box)) == kept) | ~real
    return tuple(box) if fits.all() else None


def _made(
    operator: str, before: Sequence[int], places: npt.NDArray[np.int64]
) -> list[tuple[int, list[npt.NDArray[np.int64]]]]:
    """(axis, what the operator makes there itself and may make less of: sets of positions)."""
    found = []
    padded = (1,) * (places.ndim - len(before)) + tuple(before)
    for axis, size in enumerate(places.shape):
        if operator in REPEATS and size != padded[axis]:
            found.append((axis, np.split(np.arange(size), size // padded[axis])))
        others = tuple(number for number in range(places.ndim) if number != axis)
        padding = np.flatnonzero((places == _NOWHERE).all(axis=others))
        if operator == "Pad" and padding.size:
            found.append((axis, np.split(padding, padding.size)))
    return found


def _shorter(box: Box, made: Sequence[tuple[int, list[npt.NDArray[np.int64]]]]) -> Iterator[Box]:
    yield box
    for axis, parts in made:
        most = len(parts) if len(parts) <= _MANY else 1
        for gone in chain.from_iterable(combinations(parts, count) for count in range(1, most + 1)):
            mask = box[axis].copy()
            mask[np.concatenate(gone)] = False
            if mask.any() and mask.sum() < box[axis].sum():
                yield (*box[:axis], mask, *box[axis + 1 :])

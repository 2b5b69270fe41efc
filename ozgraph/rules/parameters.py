"""Which constants are parameters: floating ones, and integers that stand for numbers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ozgraph.blocks import Tile, part_of, uniform
from ozgraph.graph import Array, Op, Value


@dataclass(frozen=True, slots=True)
class Encoding:
    """How the stored integers of a parameter stand for numbers: ``(stored - zero) * scale``.

    Attributes:
        zero, scale: shaped to broadcast against the parameter, but for the axis of ``block``.
        block: (axis, how many positions of it share an element of ``zero`` and ``scale``). They are repeated only for
            the part of the parameter that is looked at: as large as it, they would take more memory than it does.
        packed: how many numbers a stored element holds. Such parameters are never zeroed themselves: their scales are.
    """

    zero: Array
    scale: Array
    block: tuple[int, int] | None = None
    packed: int = 1

    @property
    def plain(self) -> bool:
        """Whether the elements are the numbers themselves."""
        return self is _PLAIN

    def numbers(self, stored: Array, tile: Tile) -> Array:
        """The numbers that ``stored``, the elements of the parameter in ``tile``, stand for, float32."""
        if self.plain:
            return stored.astype(np.float32, copy=False)
        zero, scale = self.zeros(tile), self._part(self.scale, tile)
        return (stored.astype(np.float32) - zero.astype(np.float32)) * scale.astype(np.float32)

    def zeros(self, tile: Tile) -> Array:
        """The integers that stand for zero in a tile of the parameter, broadcasting against it."""
        return self._part(self.zero, tile)

    def zero_by_position(self, axis: int, extent: int) -> npt.NDArray[np.float64]:
        """The integer that stands for zero all along every position of an axis; NaN where there are several."""
        if self.zero.size == 1:
            return np.full(extent, float(self.zero.reshape(())))
        found = uniform(self.zero, axis)
        if self.block is not None and axis == self.block[0]:
            return found.repeat(self.block[1])[:extent]
        return np.broadcast_to(found, extent)

    def _part(self, array: Array, tile: Tile) -> Array:
        if self.block is None or array.size == 1:
            return part_of(array, tile)
        axis, size = self.block
        start, stop = tile[axis].start, tile[axis].stop
        shared = slice(start // size, -(-stop // size))
        found = part_of(array, (*tile[:axis], shared, *tile[axis + 1 :])).repeat(size, axis=axis)
        first = start - shared.start * size
        cut: Array = found[(*(slice(None),) * axis, slice(first, first + stop - start))]
        return cut


_PLAIN = Encoding(np.zeros((), np.float32), np.ones((), np.float32))

# (operator, operand) -> operands that hold its scale and zero point, and the axis that has one of them for each slot.
_STORED: dict[tuple[str, int], tuple[int | None, int, int]] = {
    ("QLinearConv", 3): (4, 5, 0),
    ("ConvInteger", 1): (None, 3, 0),
    ("QLinearMatMul", 0): (1, 2, -2),
    ("QLinearMatMul", 3): (4, 5, -1),
    ("MatMulInteger", 0): (None, 2, -2),
    ("MatMulInteger", 1): (None, 3, -1),
}
# Operands that hold codes of a few bits, whose scales are weights of their own.
_CODES = frozenset({("com.microsoft.MatMulNBits", 1), ("com.microsoft.GatherBlockQuantized", 0)})
# Operators that only move the elements of their first operand.
_MOVES = frozenset(
    [
        "Concat",
        "Expand",
        "Flatten",
        "Gather",
        "GatherElements",
        "GatherND",
        "Identity",
        "Reshape",
        "Slice",
        "Split",
        "Squeeze",
        "Tile",
        "Transpose",
        "Unsqueeze",
    ]
)


def encoding(constant: Value) -> Encoding | None:
    """How a constant is a parameter; None for indexes, masks and whatever else the model does not calculate with.

    A floating constant is one as it stands, at eight bits with the scale of a DequantizeLinear that reads it. A
    constant of integers is one when it reaches a DequantizeLinear, a product of integers or, being of at most eight
    bits, a Cast to a floating type: at once or through data movement.
    """
    if constant.is_float and constant.dtype is not None and constant.dtype.itemsize > 1:
        return _PLAIN
    if constant.dtype is None or constant.dtype.kind in "bOSUc":
        return None
    found: Encoding | None = None
    for here in _uses(constant):
        if here is None or (found is not None and not (found.block == here.block and _same(found.zero, here.zero))):
            return None  # no single integer stands for zero
        found = here
    return _PLAIN if found is None and constant.is_float else found


def _same(a: Array, b: Array) -> bool:
    return a.shape == b.shape and bool((a == b).all())


def _uses(constant: Value) -> Iterator[Encoding | None]:
    """The encoding at every operator that calculates with a constant; None where it cannot be told."""
    queue, seen = [constant], {constant}
    for value in queue:
        for op, position in value.uses:
            if op.type in _MOVES and (position == 0 or op.type == "Concat") and op.domain in ("", "ai.onnx"):
                following = [result for result in op.outputs if result is not None and result not in seen]
                seen.update(following)
                queue.extend(following)
                continue
            here = _encoding_at(op, position, value)
            if here is not _ELSEWHERE:
                # Behind data movement, axes are no longer the constant's own.
                yield here if value is constant else _uniform(here)


_ELSEWHERE = Encoding(np.zeros(()), np.zeros(()))


def _uniform(found: Encoding | None) -> Encoding | None:
    """An encoding with one zero point for all, where that is so."""
    if found is None or not (found.zero == found.zero.reshape(-1)[0]).all():
        return None
    return Encoding(found.zero.reshape(-1)[0], np.asarray(np.abs(found.scale).mean()))


def _encoding_at(op: Op, position: int, value: Value) -> Encoding | None:
    if op.operator == "Cast" and op.outputs[0] is not None and value.dtype is not None:
        return _PLAIN if op.outputs[0].is_float and value.dtype.itemsize == 1 else _ELSEWHERE
    if op.operator == "QLinearConv" and position == 8:
        return _PLAIN
    if op.operator == "DequantizeLinear" and position == 0:
        scale, zero, axis = 1, 2, int(op.attributes.get("axis", 1))
        scales = _shaped(op, scale, axis, value)
        zeros = _shaped(op, zero, axis, value)
        if scales is None or zeros is None:
            return None
        size = int(op.attributes.get("block_size", 0))
        blocked = size and max(scales.size, zeros.size) > 1
        extents = value.shape or ()
        return Encoding(zeros, scales, (axis % len(extents), min(size, extents[axis])) if blocked else None)
    if (op.operator, position) in _CODES:
        narrow = value.dtype is not None and value.dtype.name == "uint8"
        return Encoding(np.zeros(()), np.ones(()), packed=max(8 // _bits(op), 1) if narrow else 1)
    if (op.operator, position) in _STORED:
        beside, zero, axis = _STORED[op.operator, position]
        scales = np.ones(()) if beside is None else _shaped(op, beside, axis, value)
        zeros = _shaped(op, zero, axis, value)
        return None if scales is None or zeros is None else Encoding(zeros, scales)
    return _ELSEWHERE


def _bits(op: Op) -> int:
    return max(int(op.attributes.get("bits", 4)), 1)


def _shaped(op: Op, position: int, axis: int, value: Value) -> Array | None:
    """A scale or zero point, shaped to broadcast against the parameter; None where it is computed or does not fit."""
    given = op.input(position)
    if given is None:
        return np.zeros(())
    if given.constant is None or value.shape is None:
        return None
    array, shape = given.constant.numpy(), value.shape
    if array.size == 1:
        return array.reshape(())
    if not -len(shape) <= axis < len(shape):
        return None
    block = int(op.attributes.get("block_size", 0))
    if block:
        shared = -(-shape[axis] // block) if block > 0 else 0
        fits = array.shape == tuple(shared if at == axis % len(shape) else size for at, size in enumerate(shape))
    else:
        fits = array.shape == (shape[axis],)
        array = array.reshape([-1 if at == axis % len(shape) else 1 for at in range(len(shape))])
    return array if fits else None

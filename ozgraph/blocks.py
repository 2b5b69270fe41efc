"""Reading large arrays a block at a time: what is measured of them takes no memory of their size.

A weight may be a memory map of gigabytes. Whatever looks at one goes through here, so that no mask, no copy and no
wider type of a whole array is ever made, and every block is still in the cache when it is looked at twice.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from ozgraph.graph import Array

BLOCK = 1 << 18
"""Elements of a block: about 1 MB of float32, which caches hold."""

Tile = tuple[slice, ...]
Numbers = npt.NDArray[np.float64]

_PROBE = 64
"""So many elements of every position are looked at first: most positions that are not uniform show it there."""

_DENSE = 0.5
"""With more of the positions than this undecided, blocks are read whole, which is faster than picking."""

_UNSIGNED = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}


def tiles(shape: Sequence[int], most: int = BLOCK) -> Iterator[Tile]:
    """Slices that cut an array of ``shape`` into blocks of at most ``most`` elements, in the order of a C array.

    >>> [tile[0] for tile in tiles((5, 4), most=8)]
    [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    if math.prod(shape) == 0:
        return
    inner = math.prod(shape)
    depth = 0
    while depth < len(shape) and inner > most:
        inner //= shape[depth]
        depth += 1
    whole = tuple(slice(0, extent) for extent in shape)
    if depth == 0:
        yield whole
        return
    cut = depth - 1  # the axis that is cut; those before it are walked
    step = max(1, most // inner)
    for outer in np.ndindex(*shape[:cut]):
        leading = tuple(slice(index, index + 1) for index in outer)
        for start in range(0, shape[cut], step):
            yield (*leading, slice(start, min(start + step, shape[cut])), *whole[depth:])


def sums(array: Array, axis: int, measure: Callable[[Array, Tile], Array]) -> Numbers:
    """For every position of an axis, the sum over all others of ``measure(block, tile)``, which keeps the shape."""
    totals = np.zeros(array.shape[axis])
    others = tuple(number for number in range(array.ndim) if number != axis)
    for tile in tiles(array.shape):
        # A block is summed in the type that is measured in, blocks are added in float64.
        totals[tile[axis]] += measure(array[tile], tile).sum(axis=others)
    return totals


def not_finite(array: Array, axis: int) -> npt.NDArray[np.bool_]:
    """Which positions of an axis hold an infinity or NaN anywhere."""
    found = np.zeros(array.shape[axis], dtype=bool)
    others = tuple(number for number in range(array.ndim) if number != axis)
    for tile in tiles(array.shape):
        finite = np.isfinite(array[tile])
        if not finite.all():
            found[tile[axis]] |= ~finite.all(axis=others)
    return found


def within(positions: Array, part: slice) -> Array:
    """Of sorted positions of an axis, those inside a slice of it, counted from where the slice starts."""
    first, last = np.searchsorted(positions, (part.start, part.stop))
    inside: Array = positions[first:last] - part.start
    return inside


def part_of(array: Array, tile: Tile) -> Array:
    """What ``array``, which broadcasts against a tensor, holds for a tile of it."""
    inner = tile[len(tile) - array.ndim :]
    return array[tuple(slice(None) if size == 1 else part for size, part in zip(array.shape, inner, strict=True))]


def uniform(
    array: Array,
    axis: int,
    keep: Mapping[int, npt.NDArray[np.bool_]] | None = None,
    known: Numbers | None = None,
) -> Numbers:
    """The element that every position of an axis consists of, as a float64; NaN where there is no single finite one.

    Args:
        array: numbers or booleans; read a block at a time, and only as far as it takes to tell.
        keep: other axis -> which of its positions count (default: all). With none left, positions consist of zeros.
        known: the answer where more positions count: what is uniform there is not read again.
    """
    extent = array.shape[axis]
    cuts = {number: np.flatnonzero(mask) for number, mask in (keep or {}).items() if not mask.all()}
    if array.size == 0 or any(not len(kept) for kept in cuts.values()):
        return np.zeros(extent)
    if known is not None and not np.isnan(known).any():
        return known
    scan = _Scan(array, axis, cuts, np.ones(extent, dtype=bool) if known is None else np.isnan(known))
    scan.probe()
    scan.read()
    found = scan.found()
    return found if known is None else np.where(np.isnan(known), found, known)


class _Scan:
    """Which positions of an axis consist of one bit pattern; those found not to are not read any further.

    Bit patterns of equal elements are equal, but for the two zeros of floating types, which are told apart last.
    """

    def __init__(self, array: Array, axis: int, cuts: Mapping[int, Array], asked: npt.NDArray[np.bool_]) -> None:
        self._array, self._axis, self._cuts, self._asked = array, axis, cuts, asked
        self._bits = array.view(_UNSIGNED[array.dtype.itemsize])
        self._others = tuple(number for number in range(array.ndim) if number != axis)
        extent = array.shape[axis]
        self._low = np.full(extent, np.iinfo(self._bits.dtype).max, self._bits.dtype)
        self._high = np.zeros(extent, self._bits.dtype)
        signed = array.dtype.kind == "f" or "float" in array.dtype.name
        self._minus = self._bits.dtype.type(1 << (8 * array.dtype.itemsize - 1)) if signed else None

    def probe(self) -> None:
        """Look at the first few elements of every position."""
        shape = self._array.shape
        each = math.ceil(_PROBE ** (1 / max(1, len(self._others))))
        index: list[Array | slice] = [slice(None)] * len(shape)
        for number in self._others:
            kept = self._cuts.get(number)
            index[number] = slice(0, each) if kept is None else kept[:each]
        step = max(1, BLOCK // _PROBE)
        for start in range(0, shape[self._axis], step):
            here = slice(start, start + step)
            index[self._axis] = here
            self._note(here, _picked(self._bits, index))

    def read(self) -> None:
        """Read the rest, until every position is decided."""
        shape = self._array.shape
        for tile in tiles(shape):
            here = tile[self._axis]
            open_here = self._open(here)
            count = int(np.count_nonzero(open_here))
            if not count:
                continue
            index: list[Array | slice] = list(tile)
            for number, kept in self._cuts.items():
                index[number] = within(kept, tile[number]) + tile[number].start
            if any(isinstance(part, np.ndarray) and not len(part) for part in index):
                continue
            target: Array | slice = here
            if count <= _DENSE * len(open_here):
                target = index[self._axis] = here.start + np.flatnonzero(open_here)
            self._note(target, _picked(self._bits, index))

    def _open(self, here: slice) -> npt.NDArray[np.bool_]:
        """Positions that may still be uniform."""
        low, high = self._low[here], self._high[here]
        undecided: npt.NDArray[np.bool_] = low >= high
        if self._minus is not None:
            undecided |= (low == 0) & (high == self._minus)
        return undecided & self._asked[here]

    def _note(self, target: Array | slice, bits: Array) -> None:
        self._low[target] = np.minimum(self._low[target], bits.min(axis=self._others))
        self._high[target] = np.maximum(self._high[target], bits.max(axis=self._others))

    def found(self) -> Numbers:
        """The common elements."""
        values = self._low.view(self._array.dtype).astype(np.float64)
        values[(self._low != self._high) | ~np.isfinite(values)] = np.nan
        if self._minus is not None:
            for position in np.flatnonzero((self._low == 0) & (self._high == self._minus) & self._asked):
                values[position] = 0.0 if self._zeros(int(position)) else np.nan
        return values

    def _zeros(self, position: int) -> bool:
        """Whether a position between the patterns of 0.0 and -0.0 has nothing but these two."""
        index: list[Array | slice] = [slice(None)] * self._array.ndim
        index[self._axis] = slice(position, position + 1)
        part = _picked(self._array, index)
        for tile in tiles(part.shape):
            inside: list[Array | slice] = [slice(None)] * part.ndim
            for number, kept in self._cuts.items():
                inside[number] = within(kept, tile[number])
            if np.any(_picked(part[tile], inside).astype(np.float64)):
                return False
        return True


def _picked(array: Array, index: Sequence[Array | slice]) -> Array:
    """``array`` at slices and positions, axis by axis."""
    array = array[tuple(part if isinstance(part, slice) else slice(None) for part in index)]
    for axis, part in enumerate(index):
        if not isinstance(part, slice):
            array = array.take(part, axis=axis)
    return array

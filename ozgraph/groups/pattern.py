"""Where the slots of a family sit along an axis: strided patterns where there is one, an index vector where not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

Positions = npt.NDArray[np.int64]

ABSENT = -1
"""The slot of a position that belongs to none."""

MOST_PATTERNS = 16
"""From this many strided pieces on, one index vector says the same with less work."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """Slots ``first .. first + count`` at regular positions of an axis.

    Slot ``first + k`` sits at ``offset + k * stride + sum(i * step)``, with one ``i`` from 0 up to ``size`` for each
    ``(size, step)`` of ``repeats``: so a tensor can be read as a view with one axis a level.

    >>> heads = Pattern(offset=0, first=0, count=4, stride=16, repeats=((16, 1),))
    >>> heads.positions()[1, :3].tolist()
    [16, 17, 18]
    """

    offset: int
    first: int
    count: int
    stride: int
    repeats: tuple[tuple[int, int], ...] = ()

    def positions(self) -> Positions:
        """The positions of every slot: [count, repeats]."""
        places = np.array([self.offset], dtype=np.int64)
        for size, step in self.repeats:
            places = (places[:, None] + np.arange(size, dtype=np.int64) * step).ravel()
        found: Positions = np.arange(self.count, dtype=np.int64)[:, None] * self.stride + places[None, :]
        return found

    @property
    def width(self) -> int:
        """Positions of each slot."""
        width = 1
        for size, _ in self.repeats:
            width *= size
        return width

    def as_json(self) -> dict[str, Any]:
        """Plain data; see :meth:`from_json`."""
        return {
            "offset": self.offset,
            "first": self.first,
            "count": self.count,
            "stride": self.stride,
            "repeats": [list(level) for level in self.repeats],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Pattern:
        """The pattern that :meth:`as_json` wrote."""
        levels = tuple((int(size), int(step)) for size, step in data["repeats"])
        return cls(int(data["offset"]), int(data["first"]), int(data["count"]), int(data["stride"]), levels)


def patterns_of(slots: Positions) -> tuple[Pattern, ...] | None:
    """Strided patterns that say which slot every position of an axis belongs to.

    Args:
        slots: [positions] slot numbers, :data:`ABSENT` where a position belongs to none.

    Returns:
        The patterns, together exactly ``slots``; None where that takes more than :data:`MOST_PATTERNS`.

    >>> patterns_of(np.array([0, 1, 2, 0, 1, 2]))
    (Pattern(offset=0, first=0, count=3, stride=1, repeats=((2, 3),)),)
    """
    places = np.flatnonzero(slots >= 0)
    if not places.size:
        return ()
    order = places[np.argsort(slots[places], kind="stable")]
    present, starts, counts = np.unique(slots[order], return_index=True, return_counts=True)
    found: list[Pattern] = []
    for begin, end in _runs(present, counts):
        width = int(counts[begin])
        start = int(starts[begin])
        table = order[start : start + (end - begin) * width].reshape(end - begin, width)
        pieces = _columns(table, int(present[begin]))
        if pieces is None or len(found) + len(pieces) > MOST_PATTERNS:
            return None
        found.extend(pieces)
    return tuple(found)


def _runs(present: Positions, counts: Positions) -> Iterator[tuple[int, int]]:
    """Stretches of slots without a gap that have equally many positions."""
    breaks = np.flatnonzero((np.diff(present) != 1) | (np.diff(counts) != 0)) + 1
    edges = [0, *breaks.tolist(), len(present)]
    yield from pairwise(edges)


def _columns(table: Positions, first: int) -> list[Pattern] | None:
    """Patterns for [slots, width] positions; None where a column is not a straight line."""
    count = len(table)
    steps = np.diff(table, axis=0)
    if count > 1 and not (steps == steps[0]).all():
        return None
    strides = steps[0] if count > 1 else np.ones(table.shape[1], dtype=np.int64)
    found: list[Pattern] = []
    for stride in np.unique(strides).tolist():
        found.extend(
            Pattern(offset, first, count, int(stride), levels)
            for offset, levels in _levels(table[0, strides == stride])
        )
        if len(found) > MOST_PATTERNS:
            return None
    return found


def _levels(line: Positions) -> list[tuple[int, tuple[tuple[int, int], ...]]]:
    """Ascending positions as nested arithmetic progressions: (offset, levels), outermost level first."""
    if len(line) == 1:
        return [(int(line[0]), ())]
    gaps = np.diff(line)
    changes = np.flatnonzero(gaps != gaps[0])
    run = int(changes[0]) + 1 if changes.size else len(line)
    if len(line) % run == 0:
        rows = line.reshape(-1, run)
        if (rows - rows[:, :1] == rows[0] - rows[0, 0]).all():
            return [(offset, (*outer, (run, int(gaps[0])))) for offset, outer in _levels(rows[:, 0])]
    # The progressions do not nest: the first one stands for itself.
    return [*_levels(line[:run]), *_levels(line[run:])]

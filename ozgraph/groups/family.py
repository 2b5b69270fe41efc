"""One family of groups as a training runtime needs it: which elements of which parameters each slot owns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ozgraph.groups.pattern import ABSENT, Pattern, Positions

PRODUCER = "producer"
"""Makes the slots."""
CONSUMER = "consumer"
"""Reads the slots."""
SLICE = "slice"
"""Shrinks with the slots and is neither: batch norm statistics, tables."""


@dataclass(frozen=True)
class Occurrence:
    """A family along one axis of one tensor.

    Exactly one of ``patterns`` and ``index`` is given.

    Attributes:
        tensor: the parameter's or buffer's name.
        axis: which of its axes.
        role: :data:`PRODUCER`, :data:`CONSUMER` or :data:`SLICE`.
        zeroed: whether its slices must be zero for the group to be removed.
        length: positions of the axis.
        patterns: where the slots sit.
        index: [length] slot of every position, -1 where there is none.
    """

    tensor: str
    axis: int
    role: str
    zeroed: bool
    length: int
    patterns: tuple[Pattern, ...] | None = None
    index: Positions | None = None

    def slots(self) -> Positions:
        """The slot of every position, -1 where there is none: [length]."""
        if self.index is not None:
            return self.index
        found = np.full(self.length, ABSENT, dtype=np.int64)
        for pattern in self.patterns or ():
            places = pattern.positions()
            found[places] = np.arange(pattern.first, pattern.first + pattern.count, dtype=np.int64)[:, None]
        return found

    def as_json(self) -> dict[str, Any]:
        """Plain data; see :meth:`from_json`."""
        return {
            "tensor": self.tensor,
            "axis": self.axis,
            "role": self.role,
            "zeroed": self.zeroed,
            "length": self.length,
            "patterns": None if self.patterns is None else [pattern.as_json() for pattern in self.patterns],
            "index": None if self.index is None else self.index.tolist(),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Occurrence:
        """What :meth:`as_json` wrote."""
        patterns, index = data["patterns"], data["index"]
        return cls(
            str(data["tensor"]),
            int(data["axis"]),
            str(data["role"]),
            bool(data["zeroed"]),
            int(data["length"]),
            None if patterns is None else tuple(map(Pattern.from_json, patterns)),
            None if index is None else np.asarray(index, dtype=np.int64),
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Occurrence) and self.as_json() == other.as_json()

    __hash__ = None  # type: ignore[assignment]  # it may hold an array


@dataclass(frozen=True, eq=True)
class FamilyGroups:
    """All the groups of one dim.

    Attributes:
        id: stable from run to run, such as ``f12``.
        dim: the tensor that the dim is best known by, such as ``layer1.0.conv1.weight``.
        size: number of slots.
        held: numbers of the slots that may not go.
        exactness: ``exact``, ``folded``, ``consumers`` or ``rescaled``.
        active: whether a run prunes it unless told otherwise.
        inactive: why not, where it does not.
        overlaps: ids of the families that share a tensor axis with it.
        occurrences: every weight axis with its slots, zeroed or not.
        keep_one: sets of slots of which one must stay, because some axis has no others.
    """

    id: str
    dim: str
    size: int
    held: tuple[int, ...]
    exactness: str
    active: bool
    inactive: str | None
    overlaps: tuple[str, ...]
    occurrences: tuple[Occurrence, ...]
    keep_one: tuple[tuple[int, ...], ...] = ()

    @property
    def free(self) -> npt.NDArray[np.bool_]:
        """Which slots may go."""
        mask = np.ones(self.size, dtype=bool)
        mask[list(self.held)] = False
        return mask

    @property
    def zeroed(self) -> tuple[Occurrence, ...]:
        """The occurrences that make up a group."""
        return tuple(occurrence for occurrence in self.occurrences if occurrence.zeroed)

    def as_json(self) -> dict[str, Any]:
        """Plain data; see :meth:`from_json`."""
        return {
            "id": self.id,
            "dim": self.dim,
            "size": self.size,
            "held": list(self.held),
            "exactness": self.exactness,
            "active": self.active,
            "inactive": self.inactive,
            "overlaps": list(self.overlaps),
            "occurrences": [occurrence.as_json() for occurrence in self.occurrences],
            "keep_one": [list(slots) for slots in self.keep_one],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> FamilyGroups:
        """What :meth:`as_json` wrote."""
        return cls(
            str(data["id"]),
            str(data["dim"]),
            int(data["size"]),
            tuple(int(slot) for slot in data["held"]),
            str(data["exactness"]),
            bool(data["active"]),
            None if data["inactive"] is None else str(data["inactive"]),
            tuple(str(other) for other in data["overlaps"]),
            tuple(map(Occurrence.from_json, data["occurrences"])),
            tuple(tuple(int(slot) for slot in slots) for slots in data["keep_one"]),
        )

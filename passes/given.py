"""Remove slots that somebody else has chosen: a run that trains on, which wants these gone and no others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from ozgraph.graph import Value
from ozgraph.passes.families import Family
from ozgraph.passes.manager import Pass
from ozgraph.passes.state import Mask, Removal, State

Places = Mapping[str, Mapping[int, npt.NDArray[np.int64]]]
"""Tensor -> axis -> positions of that axis."""


@dataclass(frozen=True)
class TakeGiven(Pass):
    """Choose the slots all of whose positions are among those given."""

    name: ClassVar[str] = "take_given"
    requires: ClassVar[frozenset[str]] = frozenset({"families"})
    ensures: ClassVar[frozenset[str]] = frozenset({"selection"})

    gone: Places

    def run(self, state: State) -> bool:
        """Fill ``state.chosen`` anew; families that were given back stay."""
        names = _names(state)
        state.chosen = Removal(state.dims.total)
        for family in state.families:
            if family.held is None:
                mask = self._whole(state, family, names) & state.dims.free_slots(family.atom)
                state.chosen.add(family.atom, mask)
        return bool(state.chosen)

    def _whole(self, state: State, family: Family, names: Mapping[Value, tuple[str, ...]]) -> Mask:
        """Slots with a position among those given, and none that is not."""
        base, size = family.atom.base, family.atom.size
        seen, spared = np.zeros(size, dtype=bool), np.zeros(size, dtype=bool)
        for value, axis in family.slices:
            axes = next((self.gone[name] for name in names[value] if name in self.gone), {})
            table = state.dims.ids(state.axes[value][axis], frozen=True)
            going = np.zeros(len(table), dtype=bool)
            going[axes.get(axis, [])] = True
            for column in table.T:
                here = (column >= base) & (column < base + size)
                seen[column[here & going] - base] = True
                spared[column[here & ~going] - base] = True
        return seen & ~spared


@dataclass(frozen=True)
class OnlyGiven(Pass):
    """Leave what else is dead, because training may bring it to life: a scale that starts at zero, for one.

    Slots that carry a constant stay, too: folded into a bias, it would no longer train with its weights.
    """

    name: ClassVar[str] = "only_given"
    requires: ClassVar[frozenset[str]] = frozenset({"dead"})

    def run(self, state: State) -> bool:
        """Take the rest out of ``state.removed``."""
        before = state.removed.total
        state.removed = _both(state, state.removed, state.chosen).without(state.folded)
        state.folded = Removal(state.dims.total)
        return state.removed.total < before


def _both(state: State, first: Removal, second: Removal) -> Removal:
    found = Removal(state.dims.total)
    for family in state.families:
        found.add(family.atom, first.mask(family.atom) & second.mask(family.atom))
    return found


def _names(state: State) -> dict[Value, tuple[str, ...]]:
    """All names of every weight."""
    weights = getattr(state.graph.origin, "weights", {})
    return {value: weights[value].names if value in weights else (value.name,) for value in state.parameters}

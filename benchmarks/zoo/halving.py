"""A random half of all free slots of every active family."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ozgraph.passes.manager import Pass
from ozgraph.passes.select import Select
from ozgraph.passes.state import Removal, State


@dataclass(frozen=True)
class RandomHalf(Pass):
    """Choose them, as far as every axis keeps a position."""

    name: ClassVar[str] = "random_half"
    requires: ClassVar[frozenset[str]] = frozenset({"families", "cost"})
    ensures: ClassVar[frozenset[str]] = frozenset({"selection"})

    seed: int = 0

    def run(self, state: State) -> bool:
        """Fill ``state.chosen``."""
        left = {family: int(state.dims.free_slots(family.atom).sum()) // 2 for family in state.families}
        state.chosen = Removal(state.dims.total)
        for family, mask in Select(criterion="random", seed=self.seed, round_to=1).rank(state).blocks:
            if left[family]:
                left[family] -= 1
                state.chosen.add(family.atom, mask)
        return bool(state.chosen)

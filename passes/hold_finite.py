"""Hold back slots whose zero would meet a number that is not finite: zero times infinity is not zero."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ozgraph.blocks import not_finite
from ozgraph.dims import Reason
from ozgraph.graph import Value
from ozgraph.passes.bound import Bound
from ozgraph.passes.manager import Pass
from ozgraph.passes.state import Mask, State
from ozgraph.rules.rule import Reduction


@dataclass(frozen=True)
class HoldFinite(Pass):
    """Freeze the slots of contractions in which a weight holds infinity or NaN, unless their group has that weight.

    Analysis reads no weights, so that this comes after it and before anything is chosen.
    """

    name: ClassVar[str] = "hold_finite"
    requires: ClassVar[frozenset[str]] = frozenset({"certified"})
    ensures: ClassVar[frozenset[str]] = frozenset()

    def run(self, state: State) -> bool:
        """Freeze slots in ``state.dims``."""
        zeroed = {(member.value, member.axis) for family in state.families for member in family.members}
        seen: dict[tuple[Value, int], Mask] = {}
        before = len(state.dims.reasons)
        for bound in state.bound.values():
            for value, axis in _factors(bound):
                if (value, axis) in zeroed or not state.atoms(value, axis):
                    continue
                if (value, axis) not in seen:
                    assert value.constant is not None
                    seen[value, axis] = not_finite(value.constant.numpy(), axis)
                if seen[value, axis].any():
                    ids = state.dims.ids(state.axes[value][axis])[seen[value, axis]]
                    why = "its zero would meet a weight that is not finite"
                    state.dims.freeze_slots(np.unique(ids), Reason(why, bound.op.operator, bound.op.name))
        if len(state.dims.reasons) == before:
            return False
        state.forget_atoms()
        return True


def _factors(bound: Bound) -> list[tuple[Value, int]]:
    """The axes of weights that an operator multiplies with something else and adds up."""
    found = []
    for combination in bound.program.combinations:
        if combination.reduction is Reduction.SUM and len({operand for operand, _ in combination.operands}) > 1:
            for operand, axis in combination.operands:
                value = bound.op.inputs[operand]
                if value is not None and value.constant is not None and value.readable and value.is_float:
                    found.append((value, axis))
    return found

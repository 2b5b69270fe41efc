"""Hold back what must keep its size, then certify the solution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ozgraph.dims import ONE, Atom, Dim, Prod, Reason, Take, children, resolve
from ozgraph.errors import PassError
from ozgraph.passes.infer_dims import dynamic_reason
from ozgraph.passes.manager import Pass
from ozgraph.passes.state import State


@dataclass(frozen=True)
class Freeze(Pass):
    """Freeze slots, each with one reason in plain words.

    1. The axes of graph inputs and outputs: the signature stays.
    2. Axes whose size varies at run time.
    3. Slots that all positions of some axis need: nothing would be left of it.
    4. The certificate: every recorded equation must demand the same free slots on both sides, position by position;
       the slots of a violated one freeze until none is violated.
    """

    name: ClassVar[str] = "freeze"
    requires: ClassVar[frozenset[str]] = frozenset({"dims"})
    ensures: ClassVar[frozenset[str]] = frozenset({"certified"})

    def run(self, state: State) -> bool:
        """Freeze slots in ``state.dims``."""
        dims = state.dims
        for values, why in (
            (state.graph.inputs, Reason("it is an input of the model")),
            (state.graph.outputs, Reason("it is an output of the model")),
        ):
            for value in values:
                for dim in state.axes.get(value, ()):
                    dims.freeze(dim, why)
        varying = dynamic_reason()
        for value, axes in state.axes.items():
            if any(value.dynamic):
                for dim, dynamic in zip(axes, value.dynamic, strict=True):
                    if dynamic:
                        dims.freeze(dim, varying)
        self._keep_one(state)
        dims.certify()
        state.forget_atoms()
        return True

    def check(self, state: State) -> None:
        """The certificate holds as it stands."""
        if state.dims.certify():
            raise PassError("the certificate of the dims does not hold after the freeze pass")

    def _keep_one(self, state: State) -> None:
        """A slot that every position of an axis needs cannot go."""
        why = Reason("an axis would be left without positions")
        composed = {
            top: None
            for axes in state.axes.values()
            for dim in axes
            if dim is not ONE and not isinstance(top := resolve(dim), Atom)
        }
        for dim in composed:
            if not _may_stand_everywhere(dim):
                continue
            table = state.dims.ids(dim)
            slots, counts = np.unique(table[table >= 0], return_counts=True)
            # A slot may stand twice in a row (a Gram matrix flattened), so count rows only where it could matter.
            for slot in slots[counts >= len(table)]:
                if (table == slot).any(axis=1).all():
                    state.dims.freeze_slots(np.array([slot]), why)


def _may_stand_everywhere(dim: Dim) -> bool:
    """Whether a slot may stand at all positions: a take repeats slots, a product a factor with one slot."""
    product = single = False
    stack = [dim]
    while stack:
        here = resolve(stack.pop())
        if isinstance(here, Take):
            return True
        product = product or isinstance(here, Prod)
        single = single or (isinstance(here, Atom) and here.size == 1)
        stack.extend(children(here))
    return product and single

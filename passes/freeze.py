"""Hold back what must keep its size, then certify the solution."""

from __future__ import annotations

from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import ClassVar

import numpy as np

from ozgraph.dims import ONE, Atom, Dim, Prod, Reason, Sum, Take, children, resolve
from ozgraph.errors import PassError, UsageError
from ozgraph.graph import Value
from ozgraph.passes.infer_dims import dynamic_reason
from ozgraph.passes.manager import Pass
from ozgraph.passes.state import State
from ozgraph.suggestions import hint


@dataclass(frozen=True)
class Freeze(Pass):
    """Freeze slots, each with one reason in plain words.

    1. Axes whose size varies at run time.
    2. The axes of graph inputs and outputs: the signature stays, but for those that ``allow_io`` names.
    3. Slots that all positions of some axis need: nothing would be left of it.
    4. The certificate: every recorded equation must demand the same free slots on both sides, position by position;
       the slots of a violated one freeze until none is violated.
    """

    name: ClassVar[str] = "freeze"
    requires: ClassVar[frozenset[str]] = frozenset({"dims"})
    ensures: ClassVar[frozenset[str]] = frozenset({"certified"})

    allow_io: tuple[str, ...] = field(
        default=(),
        metadata={
            "help": "let inputs and outputs of the model shrink: all, or those that this name or glob matches",
            "metavar": "[NAME]",
            "bare": "*",
            "complete": "signature",
        },
    )

    def run(self, state: State) -> bool:
        """Freeze slots in ``state.dims``; note in ``state.shrinkable`` which inputs and outputs may shrink.

        Raises:
            UsageError: ``allow_io`` names what is no input or output.
        """
        dims = state.dims
        state.shrinkable = self._shrinkable(state)
        # What varies never shrinks, and says so rather than that --allow-io would help.
        varying = dynamic_reason()
        for value, axes in state.axes.items():
            if any(value.dynamic):
                for dim, dynamic in zip(axes, value.dynamic, strict=True):
                    if dynamic:
                        dims.freeze(dim, varying)
        for values, why in (
            (state.graph.inputs, Reason("it is an input of the model (--allow-io lets it shrink)")),
            (state.graph.outputs, Reason("it is an output of the model (--allow-io lets it shrink)")),
        ):
            for value in values:
                if value not in state.shrinkable:
                    for dim in state.axes.get(value, ()):
                        dims.freeze(dim, why)
        self._keep_one(state)
        dims.certify()
        state.forget_atoms()
        return True

    def check(self, state: State) -> None:
        """The certificate holds as it stands."""
        if state.dims.certify():
            raise PassError("the certificate of the dims does not hold after the freeze pass")

    def _shrinkable(self, state: State) -> frozenset[Value]:
        """The inputs and outputs that ``allow_io`` names."""
        signature = {value.name: value for value in (*state.graph.inputs, *state.graph.outputs)}
        found: set[Value] = set()
        for name in self.allow_io:
            # Names may hold brackets, which globs read otherwise: the very name comes first.
            matching = [name] if name in signature else [other for other in signature if fnmatchcase(other, name)]
            if not matching and name != "*":
                raise UsageError(f"--allow-io: the model has no input or output {name!r}; {hint(name, signature)}")
            found.update(signature[other] for other in matching)
        return frozenset(found)

    def _keep_one(self, state: State) -> None:
        """A slot that every position of an axis needs cannot go."""
        why = Reason("an axis would be left without positions")
        composed = {
            top: None
            for axes in (*state.axes.values(), *state.takes.values())
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
    """Whether a slot may stand at all positions: a take repeats slots, a product or a sum a part with one slot."""
    made = single = False
    stack = [dim]
    while stack:
        here = resolve(stack.pop())
        if isinstance(here, Take):
            return True
        made = made or isinstance(here, (Prod, Sum))
        single = single or (isinstance(here, Atom) and here.size == 1)
        stack.extend(children(here))
    return made and single

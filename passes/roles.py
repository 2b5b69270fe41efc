"""What a weight axis is to the slots that run through it: does it make them, or read them?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ozgraph.dims import Atom
from ozgraph.graph import Value
from ozgraph.groups import CONSUMER, PRODUCER, SLICE
from ozgraph.passes.bound import Bound, Site

if TYPE_CHECKING:
    from ozgraph.passes.state import State


class Roles:
    """Which weight axes produce the slots of data and which consume them, through arithmetic on weights alone."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._sources: dict[tuple[Value, int], tuple[tuple[Value, int], ...]] = {}
        self._produces: set[tuple[Value, int]] = set()
        only_weights: set[Value] = set()
        for op in state.graph.ops:
            bound = state.bound.get(op)
            if bound is None:
                continue
            weights = others = False
            for value in op.inputs:
                if value is not None:
                    if value.constant is not None or value in only_weights:
                        weights = True
                    elif value.integers is None:
                        others = True
            # What a body receives is constant before its first run only.
            if others or op.later is not None:
                if weights:
                    self._note(bound)
            elif any(value is not None for value in op.inputs):
                only_weights.update(value for value in op.outputs if value is not None)
                self._pass_on(bound)

    def sources(self, value: Value, axis: int) -> tuple[tuple[Value, int], ...]:
        """The weight axes that an axis of a value computed from weights alone comes from."""
        if value.constant is not None:
            return ((value, axis),) if value in self._state.parameters else ()
        return self._sources.get((value, axis), ())

    def _pass_on(self, bound: Bound) -> None:
        for result, axes in zip(bound.op.outputs, bound.flows, strict=True):
            for axis, flows in enumerate(axes):
                found: dict[tuple[Value, int], None] = {}
                for operand, number in flows:
                    value = bound.op.inputs[operand]
                    if value is not None and operand not in bound.rule.statistics:
                        found.update(dict.fromkeys(self.sources(value, number)))
                if result is not None:
                    self._sources[result, axis] = tuple(found)

    def _note(self, bound: Bound) -> None:
        for operand, axis in bound.program.carried:
            value = bound.op.inputs[operand]
            if value is not None and operand not in bound.rule.statistics:
                self._produces.update(self.sources(value, axis))

    def of(self, value: Value, axis: int) -> str:
        """What a weight axis is to the slots that it carries."""
        if (value, axis) in self._produces:
            return PRODUCER
        bound = [(self._state.bound.get(op), operand) for op, operand in value.uses]
        if all(application is not None and operand in application.rule.statistics for application, operand in bound):
            return SLICE
        return CONSUMER

    def producers(self, atom: Atom) -> list[tuple[Value, int]]:
        """The weight axes whose slices make the atom's slots."""
        return [place for place in self._state.weight_atoms[atom] if place in self._produces]

    def consumers(self, site: Site, atom: Atom) -> list[tuple[Value, int]]:
        """The weight axes that a site contracts with the atom's slots."""
        found: dict[tuple[Value, int], None] = {}
        for value, axis in site.occurrences:
            for source in self.sources(value, axis):
                if self.of(*source) != SLICE and atom in self._state.atoms(*source):
                    found[source] = None
        return list(found)

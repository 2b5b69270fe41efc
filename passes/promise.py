"""What inputs and outputs that may shrink mean to the caller.

Of an input, the caller promises that the slots that are no longer passed were zero. That is asked for only where
weights make the same slots, as they make those of a cache (past in, present out): with the group at zero the model
writes zeros there, so that a cache which starts empty, or at zero, holds nothing else. Where no weight makes a slot,
such as a channel of an image, nothing is promised: its consumers must be zero.

An output is seen by the caller, so its slots go only when they were chosen, or are always zero.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ozgraph.dims import Atom
from ozgraph.graph import Value
from ozgraph.passes.state import Mask, Removal, State
from ozgraph.plan import Indices
from ozgraph.rules.lattice import Slots

Known = Callable[[Value, int, Atom], Slots]
"""(constant, axis, atom) -> the state of the atom's slots there."""


def may_promise(state: State, value: Value, atom: Atom) -> bool:
    """Whether the slots of an input may count as zero: it may shrink, holds numbers, and weights make the slots."""
    return value in state.shrinkable and value.is_float and bool(state.producers.get(atom))


def promised(state: State, value: Value, atom: Atom, known: Known) -> Mask:
    """The slots of an input that count as zero.

    Chosen ones, and those whose weights are all zero as they are, if the model hands the slots out as well: then it has
    only ever made zeros of them. Of features that merely meet such a weight, nobody promised anything.
    """
    from ozgraph.passes.prover import zero_state

    if not may_promise(state, value, atom):
        return np.zeros(atom.size, dtype=bool)
    silent: Mask = np.full(atom.size, bool(shown(state, atom)))
    for weight, axis in state.producers[atom]:
        silent &= known(weight, axis, atom) == zero_state(state, weight, axis, atom)
    return silent | state.chosen.mask(atom)


def shown(state: State, atom: Atom) -> list[tuple[Value, int]]:
    """The outputs that may shrink and their axes on which the caller sees the slots of an atom."""
    outputs = dict.fromkeys(state.graph.outputs) if state.shrinkable else ()
    return [
        (value, axis)
        for value in outputs
        if value in state.shrinkable
        for axis in range(len(state.axes.get(value, ())))
        if atom in state.atoms(value, axis)
    ]


def silenced(state: State) -> dict[str, tuple[Indices, ...]]:
    """By input, the positions of each axis that the smaller model no longer takes and that must have been zero."""
    from ozgraph.passes.prove_dead import Scan

    found: dict[str, tuple[Indices, ...]] = {}
    known = Scan(state, state.removed, state.folded)
    for value in state.graph.inputs:
        if value not in state.shrinkable:
            continue
        axes = []
        for number, dim in enumerate(state.axes.get(value, ())):
            gone = Removal(state.dims.total)
            for atom in state.atoms(value, number):
                gone.add(atom, state.removed.mask(atom) & promised(state, value, atom, known))
            axes.append(np.flatnonzero(~gone.keep(state.dims.ids(dim))))
        if any(positions.size for positions in axes):
            found[value.name] = tuple(axes)
    return found

"""Dims and families in a few words, for graphs that are drawn or shown elsewhere."""

from __future__ import annotations

from ozgraph.graph import Value
from ozgraph.passes.roles import Roles
from ozgraph.passes.state import State


def spelled_dims(state: State) -> dict[Value, str]:
    """The axes of every value that is followed: sizes, and the families that they run through.

    An axis of 64 channels of family f3 is ``64:f3``; one of heads times widths is ``64:f1*f2``.
    """
    ids = {family.atom: family.id for family in state.families}
    found = {}
    for value, dims in state.axes.items():
        axes = []
        for dim in dims:
            named = [ids[atom] for atom in state.atoms_of(dim) if atom in ids]
            axes.append(f"{dim.size}:{'*'.join(named)}" if named else str(dim.size))
        found[value] = " x ".join(axes)
    return found


def families_of(state: State) -> dict[Value, int]:
    """For every value with slots of a family, the number of the first such family."""
    numbers = {family.atom: number for number, family in enumerate(state.families)}
    found = {}
    for value, axes in state.live.items():
        known = [numbers[atom] for _, atoms in axes for atom in atoms if atom in numbers]
        if known:
            found[value] = known[0]
    return found


def places_of(state: State) -> dict[Value, dict[int, list[tuple[str, str]]]]:
    """Weight -> axis -> the families that it shrinks with, and what it is to each: producer, consumer or slice."""
    roles = Roles(state)
    found: dict[Value, dict[int, list[tuple[str, str]]]] = {}
    for family in state.families:
        for value, axis in family.slices:
            found.setdefault(value, {}).setdefault(axis, []).append((family.id, roles.of(value, axis)))
    return found

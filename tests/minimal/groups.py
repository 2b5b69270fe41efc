"""The groups that ozgraph reports, as sets of weight slices, and the verdict of the search on each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx

import ozgraph
from minimal.machine import Machine, UnsupportedError
from minimal.search import Search, Slice
from models.building import Array
from ozgraph.passes.families import Family
from ozgraph.passes.state import State

SMALLEST = "smallest"
COARSE = "coarse"
UNSURE = "unsure"
"""The search does not see that the whole group can go, so that what it says of parts means nothing."""


@dataclass(frozen=True)
class Group:
    """One slot of a family.

    Attributes:
        slices: what goes.
        members: what is zeroed.
    """

    family: str
    slot: int
    slices: frozenset[Slice]
    members: frozenset[Slice]


@dataclass(frozen=True)
class Verdict:
    """What the search says of a group.

    Attributes:
        part: the smallest part that can go by itself, where there is one.
        states: how many states the search went through.
    """

    group: Group
    outcome: str
    part: frozenset[Slice] = frozenset()
    states: int = 0


def analysed(model: onnx.ModelProto) -> State:
    """All families, those that norms would slow down included."""
    return ozgraph.analyze(model, rescale=True).state


def groups(state: State, slots: int) -> Iterator[Group]:
    """The groups of every family: its first, its last and some between, ``slots`` at most."""
    for family in state.families:
        free = np.flatnonzero(state.dims.free_slots(family.atom))
        for number in dict.fromkeys(np.linspace(0, len(free) - 1, min(slots, len(free))).astype(int).tolist()):
            yield group(state, family, int(free[number]))


def group(state: State, family: Family, slot: int) -> Group:
    """One slot of a family: its slices of weights, and of constants that are no weights."""
    members = {(member.value.name, member.axis) for member in family.members}
    slices = [
        (value.name, axis, int(position))
        for value in state.graph.constants
        for axis, dim in enumerate(state.axes.get(value, ()))
        for position in np.flatnonzero((state.dims.ids(state.axes[value][axis]) == family.atom.base + slot).any(axis=1))
    ]
    return Group(
        f"{family.dim} ({family.atom.size}, {family.exactness})",
        slot,
        frozenset(slices),
        frozenset(one for one in slices if one[:2] in members),
    )


def judged(machine: Machine, inputs: Mapping[str, Array], one: Group) -> Verdict:
    """Whether some part of a group can go without the rest.

    The original's members are zero, or everything that goes where that is not enough (a constant that folds).

    Raises:
        UnsupportedError: the model cannot be followed.
    """
    for name, _, _ in one.slices:
        array = machine.constants.get(name)
        if array is None or (array.dtype != np.float32 and name in {member[0] for member in one.members}):
            raise UnsupportedError("weights that are not plain numbers")
    states = 0
    for zeroed in (one.members, one.slices):
        search = Search(machine, inputs, one.slices, zeroed)
        found = search.removable()
        states += search.states
        if one.slices in found:
            parts = sorted(found - {frozenset(), one.slices}, key=lambda part: (len(part), sorted(part)))
            return Verdict(one, COARSE if parts else SMALLEST, parts[0] if parts else frozenset(), states)
    return Verdict(one, UNSURE, states=states)

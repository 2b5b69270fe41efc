"""Which weight slices go together, in a form that two analyses of the same network can be compared in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ozgraph.passes.state import State

Place = tuple[str, int, int]
"""(weight, axis, position)."""


def partition(state: State, names: Mapping[str, str]) -> set[frozenset[Place]]:
    """For every free slot, all the places in weights that need it.

    Two analyses agree exactly where these sets are equal: the same slices belong together, the others are frozen.

    Args:
        names: weight -> what to call it (one name for all that a shared one has); others are left aside.
    """
    places: list[Place] = []
    slots: list[np.ndarray] = []
    for value in sorted(state.parameters, key=lambda value: value.name):
        if value not in state.axes or value.name not in names:
            continue
        name = names[value.name]
        for axis, dim in enumerate(state.axes[value]):
            table = state.dims.ids(dim)
            for column in range(table.shape[1]):
                slots.append(table[:, column])
                places += [(name, axis, position) for position in range(len(table))]
    if not slots:
        return set()
    owners = np.concatenate(slots)
    order = np.argsort(owners, kind="stable")
    order = order[owners[order] >= 0]
    bounds = np.flatnonzero(np.diff(owners[order])) + 1
    return {frozenset(places[place] for place in group.tolist()) for group in np.split(order, bounds) if len(group)}


def names_of(module: Any) -> dict[str, str]:
    """Every name of every parameter and buffer of a module -> the first name of the same tensor.

    What a file computes from a weight is cut where that weight would be.
    """
    first: dict[int, str] = {}
    named = (*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False))
    names = {name: first.setdefault(id(tensor), name) for name, tensor in named}
    return names | {f"{name}.computed": called for name, called in names.items()}


def difference(left: set[frozenset[Place]], right: set[frozenset[Place]]) -> str:
    """What only one of two partitions has, for people; empty where they are equal."""
    lines = []
    for title, only in (("only in the first", left - right), ("only in the second", right - left)):
        for group in sorted(only, key=sorted)[:4]:
            shown = ", ".join(f"{name}[{axis}]:{position}" for name, axis, position in sorted(group)[:8])
            lines.append(f"{title}: {shown}{' ...' if len(group) > 8 else ''}")
    return "\n".join(lines)

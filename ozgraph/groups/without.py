"""Groups of a module whose tensors have become smaller: positions go, the numbers of slots stay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from ozgraph.groups.family import Occurrence
from ozgraph.groups.groups import Groups
from ozgraph.groups.pattern import Positions, patterns_of
from ozgraph.groups.polynomial import Kept

Places = Mapping[str, Mapping[int, Positions]]
"""Tensor -> axis -> positions of that axis, ascending."""


def places_of(groups: Groups, kept: Kept) -> dict[str, dict[int, Positions]]:
    """Every position of every tensor that goes when these slots of every family are kept.

    A position goes when any of its slots does.
    """
    found: dict[str, dict[int, npt.NDArray[np.bool_]]] = {}
    for family, mask in zip(groups.families, kept, strict=True):
        if mask.all():
            continue
        gone = np.append(~mask, False)  # the last is for positions without a slot, whose number is -1
        for occurrence in family.occurrences:
            axes = found.setdefault(occurrence.tensor, {})
            flags = gone[occurrence.slots()]
            axes[occurrence.axis] = axes[occurrence.axis] | flags if occurrence.axis in axes else flags
    return {
        name: there
        for name, axes in found.items()
        if (there := {axis: np.flatnonzero(flags) for axis, flags in axes.items() if flags.any()})
    }


def cut(groups: Groups, kept: Places) -> Groups:
    """The groups after tensors were sliced; families keep their sizes, and slots that are gone occur nowhere.

    So costs, targets and sets of slots mean what they meant before.

    Args:
        kept: the positions that stayed, of the axes that were sliced; for every name of a tensor.
    """

    def sliced(occurrence: Occurrence) -> Occurrence | None:
        positions = kept.get(occurrence.tensor, {}).get(occurrence.axis)
        if positions is None:
            return occurrence
        slots = occurrence.slots()[positions]
        if not (slots >= 0).any():
            return None
        patterns = patterns_of(slots)
        index = slots if patterns is None else None
        return replace(occurrence, length=len(slots), patterns=patterns, index=index)

    families = tuple(
        replace(family, occurrences=tuple(made for each in family.occurrences if (made := sliced(each)) is not None))
        for family in groups.families
    )
    tensors = {
        name: replace(tensor, shape=_shape(tensor.shape, kept.get(name, {}))) for name, tensor in groups.tensors.items()
    }
    return Groups(groups.model, families, tensors, groups.cost)


def _shape(shape: Sequence[int], axes: Mapping[int, Positions]) -> tuple[int, ...]:
    return tuple(len(axes[axis]) if axis in axes else size for axis, size in enumerate(shape))

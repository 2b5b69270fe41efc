"""Groups written by hand on a module of loose parameters, to test the runtime's parts without any analysis."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from ozgraph.groups import PRODUCER, Cost, Count, FamilyGroups, Groups, Occurrence, Polynomial, Tensor, patterns_of


class Loose(nn.Module):
    """Parameters by name."""

    def __init__(self, **tensors: torch.Tensor) -> None:
        super().__init__()
        for name, tensor in tensors.items():
            self.register_parameter(name, nn.Parameter(tensor))


def occurrence(tensor: str, axis: int, slots: list[int], *, zeroed: bool = True, index: bool = False) -> Occurrence:
    """Slots of a family along an axis, as patterns or as an index vector."""
    numbers = np.asarray(slots)
    patterns = None if index else patterns_of(numbers)
    return Occurrence(tensor, axis, PRODUCER, zeroed, len(slots), patterns, numbers if patterns is None else None)


def family(number: int, size: int, *occurrences: Occurrence, **more: Any) -> FamilyGroups:
    """A family that is active and exact unless told otherwise."""
    said: dict[str, object] = {
        "held": (),
        "exactness": "exact",
        "active": True,
        "inactive": None,
        "overlaps": (),
    } | more
    return FamilyGroups(id=f"f{number}", dim=occurrences[0].tensor, size=size, occurrences=occurrences, **said)  # type: ignore[arg-type]


def groups(module: nn.Module, *families: FamilyGroups) -> Groups:
    """Bound groups whose costs are ten parameters and a hundred MACs a slot, and as much again for every pair."""
    total = Polynomial()
    for number in range(len(families)):
        total = total + Polynomial.count(number)
    cost = Cost(tuple(Count(number) for number in range(len(families))), total * 10, total * total * 100)
    names = {o.tensor for f in families for o in f.occurrences}
    shapes = {name: Tensor(tuple(tensor.shape)) for name, tensor in module.named_parameters() if name in names}
    return Groups("by hand", families, shapes, cost).bind(module)

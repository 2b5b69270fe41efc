"""Half of every free slot chosen at random, and the same zeros made without ozgraph's own backend."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx
from onnx import numpy_helper
from onnx_ir import serde

from ozgraph.passes.families import Family
from ozgraph.passes.manager import Pass
from ozgraph.passes.select import Select
from ozgraph.passes.state import Removal, State
from ozgraph.target import Target

NOTHING = Target(groups=0.0)
"""The target of a run in which :class:`HalfOfEveryFamily` chooses."""


@dataclass(frozen=True)
class HalfOfEveryFamily(Pass):
    """A user pass that replaces what selection chose.

    Attributes:
        everything: choose from families that overlap and from those with a slow norm too.
    """

    name: ClassVar[str] = "half_of_every_family"
    requires: ClassVar[frozenset[str]] = frozenset({"selection"})

    everything: bool = False
    seed: int = 0

    def run(self, state: State) -> bool:
        """Take half of the free slots of every family, as far as each axis keeps a position."""
        for family in state.families:
            family.active = family.active or self.everything
        left = {family: int(state.dims.free_slots(family.atom).sum()) // 2 for family in state.families}
        state.chosen = Removal(state.dims.total)
        ranking = Select(target=NOTHING, criterion="random", seed=self.seed, round_to=1).rank(state)
        for family, mask in ranking.blocks:
            if left[family]:
                left[family] -= 1
                state.chosen.add(family.atom, mask)
        return bool(state.chosen)


def graphs_of(model: onnx.ModelProto) -> list[onnx.GraphProto]:
    """The graph of a model and the bodies of its control flow."""
    found = [model.graph]
    for graph in found:
        for node in graph.node:
            for attribute in node.attribute:
                found += [attribute.g] * attribute.HasField("g")
                found += attribute.graphs
    return found


def zeroed_by_hand(model: onnx.ModelProto, state: State) -> onnx.ModelProto | None:
    """A copy of the model with the chosen members at zero; None where a member is no plain floating initializer.

    Constants of one number that several nodes read are parted as ozgraph reads them: no name in the file tells their
    uses apart.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(serde.serialize_model(state.graph.origin.model) if state.graph.origin.parted else model)
    weights = {tensor.name: tensor for graph in graphs_of(copy) for tensor in graph.initializer}
    for family in state.families:
        gone = set((family.atom.base + np.flatnonzero(state.chosen.mask(family.atom))).tolist())
        for member in family.members if gone else ():
            tensor = weights.get(member.value.name)
            if tensor is None or numpy_helper.to_array(tensor).dtype.kind != "f":
                return None
            array = numpy_helper.to_array(tensor).copy()
            table = state.dims.ids(state.axes[member.value][member.axis])
            positions = [row for row, ids in enumerate(table.tolist()) if gone.intersection(ids)]
            np.moveaxis(array, member.axis, 0)[positions] = 0
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    return copy


def families_by_dim(state: State) -> dict[str, list[Family]]:
    """Families by the names of all weights that they produce: ``{"conv.weight": [family], ...}``."""
    found: dict[str, list[Family]] = {}
    for family in state.families:
        for member in family.members:
            if member.role == "producer" and family not in found.setdefault(member.value.name, []):
                found[member.value.name].append(family)
    return found

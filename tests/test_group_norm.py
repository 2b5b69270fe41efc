"""Inside the groups of a GroupNormalization: channels go on request, and the norm keeps its statistics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx

import ozgraph
from models.building import Net
from ozgraph.passes.manager import Pass
from ozgraph.passes.state import State


@dataclass(frozen=True)
class InsideGroups(Pass):
    """Prune channels inside groups instead of whole groups."""

    name: ClassVar[str] = "inside_groups"
    requires: ClassVar[frozenset[str]] = frozenset({"families"})

    def run(self, state: State) -> bool:
        for family in state.families:
            if family.overlaps:
                family.active = family.slow
        return True


def normed() -> onnx.ModelProto:
    net = Net("normed", opset=21)
    x = net.conv(net.input("x", (2, 3, 8, 8)), 3, 12, name="conv1")
    operands = net.const(net.positive(12), "norm.weight"), net.bias(12, "norm.bias")
    y = net.stated(net.op("GroupNormalization", x, *operands, num_groups=3), 2, 12, 8, 8)
    return net.build(net.conv(net.op("Relu", y), 12, 5, name="conv2"))


def test_channels_inside_a_group_go_exactly_when_asked_for() -> None:
    result = ozgraph.prune(
        normed(), target=ozgraph.Target(groups=0.5), round_to=1, rescale=True, exact=True, passes=[InsideGroups]
    )
    assert result.report.frozen_by_verification == ()
    assert [(row.dim, row.size, row.kept) for row in result.report.widths] == [("conv1.weight", 4, 2)]
    weights = {tensor.name: tensor.shape for tensor in result.model.graph.initializers.values()}
    assert tuple(weights["conv1.weight"]) == (6, 3, 3, 3)
    assert "GroupNormalization" not in {node.op_type for node in result.model.graph}


def test_whole_groups_go_by_default_and_the_operator_stays() -> None:
    result = ozgraph.prune(normed(), target=ozgraph.Target(groups=0.5), round_to=1)
    (row,) = result.report.widths
    assert (row.size, row.kept) == (3, 1)
    (norm,) = [node for node in result.model.graph if node.op_type == "GroupNormalization"]
    assert norm.attributes["num_groups"].as_int() == 1

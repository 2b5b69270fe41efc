"""Zero-invariant groups: who produces, who consumes, how exactly a group may go, and which families overlap."""

from __future__ import annotations

from collections.abc import Callable

import networkx as nx
import numpy as np
import onnx
import pytest

import ozgraph
from models.building import Net
from models.rows import ROWS
from ozgraph.groups import CONSUMER, PRODUCER
from ozgraph.passes.families import Family, group_graph

Places = set[tuple[str, int]]


def families(model: onnx.ModelProto) -> dict[str, Family]:
    """The families of a model by the tensor that they are best known by and its number of slots."""
    found = ozgraph.analyze(model).families
    by_name = {f"{family.dim}:{family.atom.size}": family for family in found}
    assert len(by_name) == len(found)
    return by_name


def members(family: Family, role: str) -> Places:
    return {(member.value.name, member.axis) for member in family.members if member.role == role}


def mlp(wrap: Callable[[Net, str], str], *, stored: Callable[[Net], str]) -> onnx.ModelProto:
    """Two linear layers; the first weight is ``wrap`` of what ``stored`` makes."""
    net = Net("mlp")
    x = net.op("MatMul", net.input("x", (4, 6)), wrap(net, stored(net)))
    x = net.op("Relu", net.op("Add", x, net.bias(10, "fc1.bias")))
    return net.build(net.dense(x, 10, 3, name="fc2"))


# -- roles -----------------------------------------------------------------------------------------------------------


def test_rows_of_the_layer_before_and_its_bias_produce_a_slot_and_columns_behind_are_only_sliced() -> None:
    net = Net("two_layers")
    x = net.op("Relu", net.linear(net.input("x", (4, 6)), 6, 10, name="fc1"))
    (family,) = families(net.build(net.linear(x, 10, 3, name="fc2"))).values()
    assert members(family, PRODUCER) == {("fc1.weight", 0), ("fc1.bias", 0)}
    assert members(family, CONSUMER) == set()
    assert {(value.name, axis) for value, axis in family.slices} == {
        ("fc1.weight", 0),
        ("fc1.bias", 0),
        ("fc2.weight", 1),
    }


def through_transpose(net: Net, weight: str) -> str:
    return net.transpose(weight, 1, 0)


def through_cast(net: Net, weight: str) -> str:
    return net.op("Cast", net.op("Cast", weight, to=onnx.TensorProto.DOUBLE), to=onnx.TensorProto.FLOAT)


def through_reshape(net: Net, weight: str) -> str:
    return net.reshape(net.reshape(weight, 2, 3, 10), 6, 10)


def through_all(net: Net, weight: str) -> str:
    half = net.op("Cast", net.transpose(net.reshape(weight, 5, 2, 6), 2, 0, 1), to=onnx.TensorProto.DOUBLE)
    return net.reshape(net.op("Identity", net.op("Cast", half, to=onnx.TensorProto.FLOAT)), 6, 10)


@pytest.mark.parametrize(
    ("wrap", "shape", "axis"),
    [
        (through_transpose, (10, 6), 0),
        (through_cast, (6, 10), 1),
        (through_reshape, (6, 10), 1),
        (through_all, (10, 6), 0),
    ],
)
def test_a_weight_produces_through_chains_of_movement(
    wrap: Callable[[Net, str], str], shape: tuple[int, int], axis: int
) -> None:
    model = mlp(wrap, stored=lambda net: net.weight(*shape, fan=6, hint="fc1.weight"))
    found = [family for family in families(model).values() if ("fc1.weight", axis) in members(family, PRODUCER)]
    assert found
    # Where the chain splits the ten slots into five by two, both factors are families of their own.
    assert np.prod([family.atom.size for family in found]) == 10
    assert all(("fc1.bias", 0) in members(family, PRODUCER) for family in found)


def test_a_weight_consumes_through_a_transpose() -> None:
    # A mean over the consumed axis of the second weight makes the group hold its consumers.
    net = Net("weight_norm")
    x = net.op("Relu", net.linear(net.input("x", (4, 6)), 6, 10, name="fc1"))
    v = net.const(net.normal(10, 3), "fc2.v")
    turned = net.transpose(v, 1, 0)
    weight = net.op("Div", turned, net.reduce("ReduceL2", turned, 1))
    found = families(net.build(net.op("Gemm", x, weight, transB=1)))
    family = found["fc1.weight:10"]
    assert members(family, CONSUMER) == {("fc2.v", 0)}
    assert family.exactness == "consumers"


def test_statistics_of_a_batch_norm_are_sliced_but_never_zeroed() -> None:
    net = Net("norm")
    x = net.conv_bn_relu(net.input("x", (2, 3, 4, 4)), 3, 8, name="conv1")
    model = net.build(net.op("GlobalAveragePool", net.conv(x, 8, 2, 1, name="conv2")))
    (family,) = families(model).values()
    assert members(family, PRODUCER) == {("conv1.weight", 0), ("bn.weight", 0), ("bn.bias", 0)}
    assert {("bn.running_mean", 0), ("bn.running_var", 0)} <= {(value.name, axis) for value, axis in family.slices}


def test_a_residual_stream_joins_all_that_write_to_it() -> None:
    net = Net("residual")
    x = net.linear(net.input("x", (4, 6)), 6, 8, name="stem")
    y = net.op("Add", x, net.linear(net.op("Relu", x), 8, 8, name="block"))
    found = families(net.build(net.linear(y, 8, 3, name="head")))
    stream = found["stem.weight:8"]
    assert members(stream, PRODUCER) == {("stem.weight", 0), ("stem.bias", 0), ("block.weight", 0), ("block.bias", 0)}


def test_a_tied_weight_is_producer_on_one_axis_and_sliced_on_the_other() -> None:
    (family,) = (f for f in families(ROWS["tied_weight"]()).values() if f.atom.size == 10)
    assert ("shared.weight", 0) in members(family, PRODUCER)
    assert ("shared.weight", 1) in {(value.name, axis) for value, axis in family.slices}


# -- exactness -------------------------------------------------------------------------------------------------------


def activation(type_: str, *, pad: int = 0, kernel: int = 1) -> onnx.ModelProto:
    net = Net("activation")
    x = net.op(type_, net.conv(net.input("x", (2, 3, 6, 6)), 3, 8, 1, name="conv1"))
    return net.build(net.op("GlobalAveragePool", net.conv(x, 8, 4, kernel, pad=pad, name="conv2")))


def test_a_slot_that_stays_zero_up_to_its_consumers_is_exact() -> None:
    assert families(activation("Relu"))["conv1.weight:8"].exactness == "exact"


def test_a_slot_that_becomes_a_constant_is_folded() -> None:
    assert families(activation("Sigmoid"))["conv1.weight:8"].exactness == "folded"
    assert families(activation("Sigmoid", kernel=3))["conv1.weight:8"].exactness == "folded"


def test_a_constant_under_zero_padding_needs_its_consumers_at_zero() -> None:
    family = families(activation("Sigmoid", kernel=3, pad=1))["conv1.weight:8"]
    assert family.exactness == "consumers"
    assert members(family, CONSUMER) == {("conv2.weight", 1)}


def test_a_norm_over_the_slots_is_rescaled_and_slow_where_it_must_be_emitted_decomposed() -> None:
    net = Net("layer_norm")
    x = net.layer_norm(net.dense(net.input("x", (2, 5, 6)), 6, 8, name="fc1"), 8)
    model = net.build(net.dense(x, 8, 3, name="fc2"))
    (family,) = families(model).values()
    assert (family.exactness, family.slow, family.active) == ("rescaled", True, False)
    assert ozgraph.analyze(model, rescale=True).families[0].active
    assert {("norm.weight", 0), ("norm.bias", 0)} <= members(family, PRODUCER)


def test_a_root_mean_square_norm_is_rescaled_and_active() -> None:
    (stream, *_) = families(ROWS["rms_fused"]()).values()
    assert (stream.exactness, stream.slow, stream.active) == ("rescaled", False, True)


def test_a_softmax_freezes_with_its_reason() -> None:
    net = Net("softmax")
    x = net.op("Softmax", net.linear(net.input("x", (4, 6)), 6, 8, name="fc1"), axis=1)
    analysis = ozgraph.analyze(net.build(net.linear(x, 8, 3, name="fc2")))
    assert analysis.families == []
    assert "a softmax over it counts every slot" in {row.reason for row in analysis.report.frozen}


def test_what_would_not_be_finite_at_zero_freezes_with_its_reason() -> None:
    net = Net("log")
    x = net.op("Log", net.op("Abs", net.linear(net.input("x", (4, 6)), 6, 8, name="fc1")))
    analysis = ozgraph.analyze(net.build(net.linear(x, 8, 3, name="fc2")))
    assert analysis.families == []
    assert "a zeroed slot would not be finite there" in {row.reason for row in analysis.report.frozen}


def test_a_site_without_consumers_to_zero_freezes_with_its_reason() -> None:
    net = Net("gram")
    x = net.op("Sigmoid", net.linear(net.input("x", (4, 6)), 6, 8, name="fc1"))
    analysis = ozgraph.analyze(net.build(net.op("MatMul", x, net.transpose(x, 1, 0))))
    assert analysis.families == []
    reason = "a sum over it still sees a zeroed slot, and nothing there can be zeroed"
    assert reason in {row.reason for row in analysis.report.frozen}


# -- overlaps --------------------------------------------------------------------------------------------------------


def overlapping(model: onnx.ModelProto) -> tuple[set[int], set[int]]:
    """Sizes of active families that overlap with others, and of those that stand back for them."""
    found = [family for family in ozgraph.analyze(model).families if family.overlaps]
    return {f.atom.size for f in found if f.active}, {f.atom.size for f in found if not f.active}


def test_heads_are_preferred_over_head_widths() -> None:
    net = Net("attention")
    x = net.input("x", (2, 5, 6))
    q, k, v = (
        net.transpose(net.reshape(net.dense(x, 6, 12, name=part), 2, 5, 3, 4), 0, 2, 1, 3) for part in ("q", "k", "v")
    )
    scores = net.op("Softmax", net.op("MatMul", q, net.transpose(k, 0, 1, 3, 2)), axis=-1)
    y = net.reshape(net.transpose(net.op("MatMul", scores, v), 0, 2, 1, 3), 2, 5, 12)
    model = net.build(net.dense(y, 12, 3, name="out"))
    assert overlapping(model) == ({3}, {4})
    found = ozgraph.analyze(model).families
    heads = next(family for family in found if family.atom.size == 3)
    assert {family.atom.size for family in heads.overlaps} == {4}
    assert len(heads.overlaps) == 2, "q and k share a width, v has one of its own"


def grouped(channels: int, groups: int) -> onnx.ModelProto:
    net = Net("grouped")
    x = net.op("Relu", net.conv(net.input("x", (2, 3, 4, 4)), 3, channels, 1, name="conv1"))
    y = net.op("Relu", net.conv(x, channels, channels, 3, group=groups, name="conv2"))
    return net.build(net.op("GlobalAveragePool", net.conv(y, channels, 2, 1, name="conv3")))


def test_channels_inside_groups_are_preferred_over_groups() -> None:
    active, standing_back = overlapping(grouped(12, 3))
    assert active == {4}
    assert standing_back == {3}


def test_a_depthwise_convolution_has_one_family_of_whole_groups() -> None:
    found = families(grouped(12, 12))
    assert [(family.atom.size, family.active, family.overlaps) for family in found.values()] == [(12, True, [])]
    (family,) = found.values()
    assert {("conv1.weight", 0), ("conv2.weight", 0)} <= members(family, PRODUCER)


@pytest.mark.parametrize("name", ["attention_fused_qkv", "grouped_conv", "attention_grouped_query", "channel_shuffle"])
def test_active_families_never_overlap(name: str) -> None:
    for family in ozgraph.analyze(ROWS[name]()).families:
        if family.active:
            assert not any(other.active for other in family.overlaps)
        assert all(family in other.overlaps for other in family.overlaps)


# -- identity and graph ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["attention_separate", "concat_dense", "grouped_conv"])
def test_ids_are_stable_from_run_to_run_and_count_up(name: str) -> None:
    runs = [
        [(family.id, family.dim, family.atom.size) for family in ozgraph.analyze(ROWS[name]()).families]
        for _ in range(2)
    ]
    assert runs[0] == runs[1]
    assert [entry[0] for entry in runs[0]] == [f"f{number}" for number in range(len(runs[0]))]


def test_the_group_graph_is_a_networkx_graph_of_families_and_weights() -> None:
    analysis = ozgraph.analyze(grouped(12, 3))
    graph = group_graph(analysis.state)
    assert isinstance(graph, nx.MultiGraph)
    kinds = nx.get_node_attributes(graph, "kind")
    assert {node for node, kind in kinds.items() if kind == "family"} == {family.id for family in analysis.families}
    family = analysis.families[0]
    assert graph.nodes[family.id]["size"] == family.atom.size
    edges = {
        (name, data["axis"], data["role"]) for _, name, data in graph.edges(family.id, data=True) if "axis" in data
    }
    roles = {(member.value, member.axis): member.role for member in family.members}
    assert edges == {(value.name, axis, roles.get((value, axis))) for value, axis in family.slices}


def test_overlapping_families_are_joined_once_in_the_group_graph() -> None:
    analysis = ozgraph.analyze(grouped(12, 3))
    graph = group_graph(analysis.state)
    pairs = {frozenset((family.id, other.id)) for family in analysis.families for other in family.overlaps}
    found = [frozenset(edge[:2]) for edge in graph.edges(data=True) if edge[2]["kind"] == "overlap"]
    assert set(found) == pairs
    assert len(found) == len(pairs)


def test_families_that_share_no_weight_are_in_different_components() -> None:
    net = Net("two_towers")
    outputs = []
    for tower in "ab":
        x = net.op("Relu", net.linear(net.input(tower, (4, 6)), 6, 8, name=f"{tower}1"))
        outputs.append(net.linear(x, 8, 3, name=f"{tower}2"))
    graph = group_graph(ozgraph.analyze(net.build(*outputs)).state)
    assert nx.number_connected_components(graph) == 2

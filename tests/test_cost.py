"""What a selection saves, by arithmetic, against counting in the rewritten model."""

from __future__ import annotations

import math

import numpy as np
import onnx
import pytest
from onnx import shape_inference
from onnx_ir import serde

import ozgraph
from models.building import Net
from models.rows import ROWS
from ozgraph.backends.onnx import apply
from ozgraph.passes.cost import CostModel
from ozgraph.passes.eliminate import Eliminate
from ozgraph.passes.families import Family
from ozgraph.passes.manager import Pipeline
from ozgraph.passes.prove_dead import ProveDead
from ozgraph.passes.select import Ranking, Select
from ozgraph.passes.state import Removal, State


def rewritten(state: State) -> onnx.ModelProto:
    """The model without the chosen groups."""
    Pipeline((ProveDead(), Eliminate())).run(state)
    return serde.serialize_model(apply(state.graph, state.plan))


def counted_parameters(model: onnx.ModelProto, known: set[str]) -> int:
    """Elements of the initializers with these names."""
    return sum(math.prod(tensor.dims) for tensor in model.graph.initializer if tensor.name in known)


def counted_macs(model: onnx.ModelProto) -> int:
    """Multiply-accumulates of convolutions and matrix products, from inferred shapes."""
    inferred = shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    shapes = {tensor.name: tuple(tensor.dims) for tensor in inferred.initializer}
    for info in (*inferred.input, *inferred.value_info, *inferred.output):
        shapes[info.name] = tuple(size.dim_value for size in info.type.tensor_type.shape.dim)
    total = 0
    for node in inferred.node:
        if node.op_type == "Conv":
            weight, result = shapes[node.input[1]], shapes[node.output[0]]
            total += math.prod(result) * math.prod(weight[1:])
        elif node.op_type == "ConvTranspose":
            weight, source = shapes[node.input[1]], shapes[node.input[0]]
            total += math.prod(source) * math.prod(weight[1:])
        elif node.op_type in ("Gemm", "MatMul"):
            transposed = any(entry.name == "transA" and entry.i for entry in node.attribute)
            source = shapes[node.input[0]]
            total += math.prod(shapes[node.output[0]]) * (source[0] if transposed else source[-1])
    return total


COUNTED = [
    "residual_add", "concat_dense", "flatten_linear", "reshape_linear", "grouped_conv", "depthwise_conv",
    "depthwise_multiplier", "channel_shuffle", "attention_separate", "attention_fused_qkv", "attention_grouped_query",
    "split_gate", "conv_transpose", "tied_weight", "gemm_variants", "matmul_no_bias", "weight_behind_transpose",
]  # fmt: skip


def initializers(state: State) -> set[str]:
    return {value.name for value in state.graph.constants if value.is_float}


@pytest.mark.parametrize("name", COUNTED)
def test_the_original_costs_what_counting_says(name: str) -> None:
    model = ROWS[name]()
    state = ozgraph.analyze(model).state
    assert state.cost is not None
    assert state.cost.parameters() == counted_parameters(model, initializers(state))
    assert state.cost.macs() == counted_macs(model)


@pytest.mark.parametrize("name", COUNTED)
@pytest.mark.parametrize("share", [0.3, 0.7])
def test_the_closed_form_equals_counting_in_the_rewritten_model(name: str, share: float) -> None:
    state = ozgraph.analyze(ROWS[name]()).state
    ranking = Select(criterion="random", round_to=1).rank(state)
    state.chosen = ranking.removal(round(share * len(ranking.blocks)))
    assert state.cost is not None
    predicted = state.cost.parameters(state.chosen), state.cost.macs(state.chosen)
    model = rewritten(state)
    assert (counted_parameters(model, initializers(state)), counted_macs(model)) == predicted


@pytest.mark.parametrize("name", ["residual_add", "grouped_conv", "attention_separate", "flatten_linear"])
def test_one_slot_saves_what_removing_it_alone_saves(name: str) -> None:
    for position, family in enumerate(ozgraph.analyze(ROWS[name]()).families):
        state = ozgraph.analyze(ROWS[name]()).state
        family = state.families[position]
        assert state.cost is not None
        before = state.cost.parameters(), state.cost.macs()
        expected = state.cost.per_slot(family.atom)
        mask = np.zeros(family.atom.size, dtype=bool)
        mask[1] = True
        state.chosen = Ranking(state, [(family, mask)]).removal(1)
        model = rewritten(state)
        saved = (before[0] - counted_parameters(model, initializers(state)), before[1] - counted_macs(model))
        assert saved == expected, family


def test_a_frozen_dim_saves_nothing() -> None:
    net = Net("frozen")
    model = net.build(net.linear(net.input("x", (4, 6)), 6, 3))
    state = ozgraph.analyze(model).state
    assert state.cost is not None
    (atom,) = {atom for atom in state.dims.roots if atom.size == 3}
    assert state.cost.per_slot(atom) == (0, 0)


def test_overlapping_families_save_less_together_than_apart() -> None:
    state = ozgraph.analyze(ROWS["attention_separate"]()).state
    cost = state.cost
    assert cost is not None

    def saved(*families: Family) -> int:
        removal = Removal(state.dims.total)
        for family in families:
            removal.add(family.atom, np.arange(family.atom.size) == 0)
        return cost.parameters() - cost.parameters(removal)

    heads = next(family for family in state.families if family.overlaps)
    width = heads.overlaps[0]
    assert saved(heads, width) < saved(heads) + saved(width)


def test_macs_are_counted_for_one_sample_where_the_batch_varies() -> None:
    def model(batch: int | str) -> onnx.ModelProto:
        net = Net("batch")
        return net.build(net.linear(net.input("x", (batch, 6)), 6, 3))

    assert [CostModel(ozgraph.analyze(model(batch)).state).macs() for batch in ("batch", 1, 4)] == [18, 18, 72]


def test_large_products_do_not_overflow() -> None:
    net = Net("large")

    def filled(rows: int, columns: int) -> str:
        value = onnx.helper.make_tensor("value", onnx.TensorProto.FLOAT, [1], [0.5])
        return net.op("ConstantOfShape", net.ints(rows, columns), value=value)

    x = net.input("x", (1 << 26, 1 << 16))
    y = net.op("MatMul", net.op("MatMul", x, filled(1 << 16, 1 << 13)), filled(1 << 13, 1 << 14))
    state = ozgraph.analyze(net.build(y)).state
    assert state.cost is not None
    assert state.cost.macs() == (1 << 55) + (1 << 53)
    assert state.cost.per_slot(state.families[0].atom)[1] == (1 << 42) + (1 << 40)

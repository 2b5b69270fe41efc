"""Quantised weights: zero is the zero point, scales follow their slots, and tables of indexes are no weights."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import ozgraph
from models.building import Net
from models.pruning import families_of, halved
from models.quantised import MODELS
from models.rows import ROWS
from ozgraph.blocks import tiles
from ozgraph.rules.parameters import Encoding

FOUND = {
    "qdq_mlp": {("fc1.weight", 12, "exact"), ("fc2.weight", 8, "exact")},
    "qdq_behind_transpose": {("table", 12, "exact"), ("fc1.weight", 9, "exact")},
    # A zero point for every block: no single integer stands for zero in a column, so its consumers go along.
    "qdq_blocks": {("fc1.weight", 4, "exact"), ("fc2.weight", 12, "consumers")},
    "weight_cast_from_int8": {("fc1.weight", 12, "exact"), ("fc2.weight", 5, "exact")},
    "qlinear_convs": {
        ("conv1.weight", 2, "exact"),
        ("conv1.weight", 4, "exact"),
        ("conv2.weight", 6, "exact"),
        ("conv3.weight", 6, "exact"),
    },
    "integer_products": {("conv1.weight", 8, "exact"), ("fc1.weight", 12, "exact"), ("fc2.weight", 5, "exact")},
}


@pytest.mark.parametrize("name", MODELS)
def test_stored_weights_prune_and_verify(name: str) -> None:
    state = halved(MODELS[name]())
    assert families_of(state) == FOUND[name]
    assert not state.unknown


@pytest.mark.parametrize("name", ["weight_quantised", "qdq_mlp", "qlinear_convs", "integer_products"])
def test_scales_and_zero_points_shrink_but_are_not_zeroed(name: str) -> None:
    state = ozgraph.analyze(ROWS[name]()).state
    members = {member.value.name for family in state.families for member in family.members}
    sliced = {value.name for family in state.families for value, _ in family.slices}
    assert members
    assert not any(part in member for member in members for part in ("zero_point", "fc1.scale", "conv1.scale"))
    assert members <= sliced


def test_a_stored_weight_counts_once_for_each_element() -> None:
    net = Net("counted", opset=13)
    stored = net.const(np.ones((4, 6), np.int8), "weight")
    weight = net.op("DequantizeLinear", stored, net.number(0.5), net.const(np.array(3, np.int8), "zero_point"))
    model = net.build(net.op("MatMul", net.input("x", (2, 4)), weight))
    assert ozgraph.analyze(model).report.parameters == 4 * 6 + 1


def test_a_table_of_indexes_is_no_parameter() -> None:
    net = Net("indexes", opset=13)
    table = net.weight(9, 6, fan=6, hint="table")
    index = net.const(np.arange(4).reshape(2, 2), "index")
    rows = net.op("Gather", table, net.reshape(index, 4), axis=0)
    state = ozgraph.analyze(net.build(net.op("MatMul", net.input("x", (2, 4)), rows))).state
    assert {value.name for value in state.parameters} == {"table"}


def test_a_column_at_its_zero_point_is_eliminated() -> None:
    net = Net("dead_column", opset=13)
    stored = net.rng.integers(0, 255, (4, 6)).astype(np.uint8)
    stored[:, 2] = 7
    point = net.const(np.array(7, np.uint8), "zero_point")
    weight = net.op("DequantizeLinear", net.const(stored, "weight"), net.number(0.01), point)
    hidden = net.op("Relu", net.op("MatMul", net.input("x", (2, 4)), weight))
    result = ozgraph.eliminate(net.build(net.dense(hidden, 6, 5)))
    assert result.report.removed_slots == 1


@pytest.mark.parametrize("kind", ["INT4", "UINT4"])
def test_four_bit_weights_prune(kind: str) -> None:
    net = Net("four_bits", opset=21)
    dtype = onnx.helper.tensor_dtype_to_np_dtype(getattr(onnx.TensorProto, kind))
    middle = 0 if kind == "INT4" else 8
    stored = (middle + net.rng.integers(-7, 8, (4, 6))).astype(dtype)
    net.initializers.append(onnx.numpy_helper.from_array(stored, "weight"))
    net.initializers.append(onnx.numpy_helper.from_array(np.array(middle).astype(dtype), "zero_point"))
    weight = net.op("DequantizeLinear", "weight", net.number(0.1), "zero_point")
    hidden = net.op("Relu", net.op("MatMul", net.input("x", (2, 4)), weight))
    state = halved(net.build(net.dense(hidden, 6, 5)))
    assert families_of(state) == {("weight", 6, "exact")}


def blocked_columns(width: int) -> onnx.ModelProto:
    """Blocks of four columns share a scale and a zero point, another one in every row."""
    net = Net("blocked_columns", opset=21)
    blocks = -(-width // 4)
    stored = net.const(net.rng.integers(-100, 100, (10, width)).astype(np.int8), "fc1.weight")
    scale = net.const((net.positive(10, blocks) * 5e-3).astype(np.float32), "fc1.scale")
    points = net.const(net.rng.integers(-5, 6, (10, blocks)).astype(np.int8), "fc1.zero_point")
    weight = net.op("DequantizeLinear", stored, scale, points, axis=1, block_size=4)
    return net.build(net.dense(net.op("Relu", net.op("MatMul", net.input("x", (3, 10)), weight)), width, 5, name="fc2"))


def test_blocks_of_columns_go_whole_and_with_their_consumers() -> None:
    assert families_of(halved(blocked_columns(12))) == {("fc1.weight", 3, "consumers")}


def test_columns_whose_last_block_is_cut_short_stay() -> None:
    report = ozgraph.analyze(blocked_columns(10)).report
    assert not report.families
    assert "its last block is cut short" in {row.reason for row in report.frozen}


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("size", [2, 3, 6])
def test_what_a_block_shares_is_repeated_only_for_the_part_that_is_looked_at(axis: int, size: int) -> None:
    random = np.random.default_rng(0)
    stored = random.integers(-8, 8, (6, 12)).astype(np.int8)
    shape = tuple(extent // size if number == axis else extent for number, extent in enumerate(stored.shape))
    zero, scale = random.integers(-2, 3, shape).astype(np.int8), random.random(shape).astype(np.float32)
    zero[(slice(None),) * (1 - axis) + (0,)] = 1  # all along this position, one integer stands for zero
    encoding = Encoding(zero, scale, (axis, size))
    zeros, scales = zero.repeat(size, axis=axis), scale.repeat(size, axis=axis)
    wanted = (stored - zeros.astype(np.float32)) * scales
    for tile in (*tiles(stored.shape, 4), *tiles(stored.shape, 24), (slice(1, 6), slice(5, 12))):
        np.testing.assert_array_equal(encoding.numbers(stored[tile], tile), wanted[tile])
        np.testing.assert_array_equal(encoding.zeros(tile), zeros[tile])
    for along in (0, 1):
        found = encoding.zero_by_position(along, stored.shape[along])
        same = (zeros.max(axis=1 - along) == zeros.min(axis=1 - along)).tolist()
        assert np.isfinite(found).tolist() == same
        assert found[np.array(same)].tolist() == zeros.max(axis=1 - along)[np.array(same)].tolist()
    assert encoding.zero_by_position(1 - axis, stored.shape[1 - axis])[0] == 1

"""Graphs made to fool a pruner: axes of size one, flipped, rolled, padded, tied and viewed in several shapes.

Each is pruned rightly, judged by onnxruntime against the original zeroed by hand, or refused with the reason.
"""

from __future__ import annotations

import time

import numpy as np
import onnx
import pytest

import ozgraph
from models.building import Net
from models.zeroing import check_removal, pruned, reasons, refused
from ozgraph.passes.families import Family
from ozgraph.passes.state import State

INPUT = "it is an input of the model (--allow-io lets it shrink)"
OUTPUT = "it is an output of the model (--allow-io lets it shrink)"


def hidden(net: Net, width: int, name: str = "fc1", activation: str = "Tanh") -> str:
    """A linear layer on an input of its own, [4, width]."""
    return net.op(activation, net.linear(net.input(f"{name}.x", (4, 6)), 6, width, name=name))


def family(state: State, dim: str, size: int) -> Family:
    (found,) = (family for family in state.families if family.dim == dim and family.atom.size == size)
    return found


# -- size one --------------------------------------------------------------------------------------------------------


def test_one_channel_that_is_added_to_many_stays_and_keeps_their_slots_from_zero() -> None:
    net = Net("broadcast")
    x = net.input("x", (2, 3, 4, 4))
    y = net.op("Add", net.conv(x, 3, 8, name="many"), net.conv(x, 3, 1, name="one"))
    model = net.build(net.conv(net.op("Relu", y), 8, 3, name="head"))
    # Zero plus the one channel is not zero: the head's columns are part of the group.
    state = pruned(model, ("many.weight", 8, "consumers"))
    assert ("head.weight", 1) in {(m.value.name, m.axis) for m in state.families[0].members}


def test_a_gate_of_one_channel_multiplies_all_of_them() -> None:
    net = Net("gate")
    x = net.input("x", (2, 3, 4, 4))
    y = net.op("Mul", net.conv(x, 3, 8, name="many"), net.op("Sigmoid", net.conv(x, 3, 1, name="one")))
    pruned(net.build(net.conv(y, 8, 3, name="head")), ("many.weight", 8, "exact"))


@pytest.mark.parametrize("opset", [11, 20])
def test_a_dim_pruned_to_one_is_not_squeezed_away_by_a_squeeze_without_axes(opset: int) -> None:
    net = Net("squeeze", opset=opset)
    x = net.conv(net.input("x", (2, 3, 5, 5)), 3, 4, 5, pad=0, name="conv1")
    model = net.build(net.linear(net.op("Squeeze", x), 4, 3, name="fc"))
    pruned(model, ("conv1.weight", 4, "exact"))


def test_a_dim_pruned_to_one_is_not_broadcast_by_what_meets_it() -> None:
    net = Net("meets")
    a, b = hidden(net, 4, "a"), hidden(net, 4, "b")
    grown = net.op("Expand", net.unsqueeze(a, 1), net.ints(4, 3, 4))
    y = net.op("Add", net.op("Mul", grown, net.unsqueeze(b, 1)), net.const(net.normal(1, 3, 1), "rows"))
    y = net.op("Mul", y, net.const(net.normal(4), "scale"))
    pruned(net.build(net.dense(y, 4, 3, name="head")), ("a.weight", 4, "exact"))


def test_a_dim_pruned_to_one_still_flattens_and_splits() -> None:
    net = Net("flattens")
    x = net.conv(net.input("x", (2, 3, 4, 4)), 3, 4, name="conv1")
    left, right = net.split(x, [2, 2], 1)
    y = net.op("Concat", right, net.op("Neg", left), axis=1)
    pruned(
        net.build(net.linear(net.reshape(y, 2, -1), 64, 3, name="fc")),
        ("conv1.weight", 2, "exact"),
    )


# -- positions -------------------------------------------------------------------------------------------------------

WIDE = 4096


def plus(moved: str) -> onnx.ModelProto:
    """x plus itself with its slots in another order."""
    net = Net("plus")
    x = hidden(net, WIDE)
    if moved == "flip":
        y = net.slice(x, -1, -WIDE - 1, 1, step=-1)
    elif moved == "gathered flip":
        y = net.op("Gather", x, net.const(np.arange(WIDE)[::-1].copy(), "order"), axis=1)
    else:
        by = int(moved.split()[1])
        y = net.op("Concat", net.slice(x, WIDE - by, WIDE, 1), net.slice(x, 0, WIDE - by, 1), axis=1)
    return net.build(net.linear(net.op("Add", x, y), WIDE, 3, name="fc2"))


@pytest.mark.parametrize(
    ("moved", "cycles"),
    [("flip", 2048), ("gathered flip", 2048), ("roll 2048", 2048), ("roll 1024", 1024), ("roll 96", 32)],
)
def test_slots_that_meet_in_another_order_are_tied_in_little_time(moved: str, cycles: int) -> None:
    model = plus(moved)
    begin = time.process_time()
    state = ozgraph.analyze(model).state
    assert time.process_time() - begin < 1.0
    assert [(family.atom.size, family.exactness) for family in state.families] == [(cycles, "exact")]
    check_removal(model, state, state.families)


@pytest.mark.parametrize("by", [1, 3])
def test_a_roll_that_runs_through_all_slots_leaves_none_to_remove(by: int) -> None:
    model = plus(f"roll {by}")
    begin = time.process_time()
    refused(model, "fc1.weight", 0, "all of its slots go together or not at all")
    assert time.process_time() - begin < 1.0


def test_a_roll_that_leaves_one_slot_at_all_positions_leaves_none_to_remove() -> None:
    net = Net("rolled")
    x = hidden(net, 8)
    y = net.op("Concat", net.slice(x, 5, 8, 1), net.slice(x, 0, 5, 1), axis=1)
    model = net.build(net.linear(net.op("Add", x, y), 8, 3, name="fc2"))
    refused(model, "fc1.weight", 0, "an axis would be left without positions")


def test_indices_of_a_max_pool_count_through_all_channels_and_keep_them() -> None:
    net = Net("indices")
    x = net.conv(net.input("x", (2, 3, 4, 4)), 3, 8, name="conv1")
    y, indices = net.ops("MaxPool", x, outputs=2, kernel_shape=[2, 2], strides=[2, 2])
    y = net.op("Add", y, net.op("Cast", indices, to=onnx.TensorProto.FLOAT))
    refused(net.build(net.conv(y, 8, 3)), "conv1.weight", 0, "count positions in the whole tensor")


def test_the_mask_of_a_dropout_is_true_where_a_slot_is_zero() -> None:
    net = Net("mask")
    y, mask = net.ops("Dropout", hidden(net, 8), outputs=2)
    y = net.op("Add", y, net.op("Cast", mask, to=onnx.TensorProto.FLOAT))
    pruned(net.build(net.linear(y, 8, 3)), ("fc1.weight", 8, "consumers"))


def test_a_tensor_concatenated_with_itself_loses_both_copies_of_a_slot() -> None:
    net = Net("twice")
    x = hidden(net, 8)
    state = pruned(net.build(net.linear(net.op("Concat", x, x, axis=1), 16, 3, name="fc2")), ("fc1.weight", 8, "exact"))
    assert {(value.name, axis) for value, axis in state.families[0].slices} >= {("fc2.weight", 1)}


def test_a_tensor_concatenated_with_its_own_reverse_loses_both_copies_of_a_slot() -> None:
    net = Net("palindrome")
    x = hidden(net, 8)
    y = net.op("Concat", x, net.slice(x, -1, -9, 1, step=-1), axis=1)
    pruned(net.build(net.linear(y, 16, 3, name="fc2")), ("fc1.weight", 8, "exact"))


def test_tied_embeddings_lose_a_column_in_the_table_and_in_the_head() -> None:
    net = Net("tied_embeddings")
    table = net.weight(20, 8, fan=8, hint="table")
    x = net.op("Gather", table, net.input("tokens", (2, 5), np.int64), axis=0)
    x = net.op("Add", x, net.dense(net.op("Gelu", net.dense(x, 8, 10, name="up")), 10, 8, name="down"))
    model = net.build(net.op("MatMul", x, net.transpose(table, 1, 0)))
    state = pruned(model, ("table", 8, "exact"), ("up.weight", 10, "exact"))
    assert reasons(state, "table", 0) == {"positions along it are looked up at run time"}


# -- Gram matrices ---------------------------------------------------------------------------------------------------


def gram(flat: bool) -> onnx.ModelProto:
    """The products of all pairs of channels."""
    net = Net("gram")
    x = net.reshape(net.conv(net.input("x", (2, 3, 4, 4)), 3, 6, name="conv1"), 2, 6, 16)
    y = net.op("MatMul", x, net.transpose(x, 0, 2, 1))
    if flat:
        return net.build(net.linear(net.reshape(y, 2, 36), 36, 3, name="fc"))
    return net.build(net.dense(net.dense(y, 6, 4, name="columns"), 4, 3, name="fc"))


def test_a_flattened_gram_matrix_loses_rows_and_columns_together() -> None:
    pruned(gram(True), ("conv1.weight", 6, "exact"))


def test_a_gram_matrix_that_is_an_output_keeps_its_channels() -> None:
    refused(gram(False), "conv1.weight", 0, OUTPUT)


def test_a_gram_matrix_of_weights_prunes_by_its_inner_axis() -> None:
    net = Net("gram_of_weights")
    factor = net.weight(6, 8, fan=8, hint="factor")
    y = net.op("MatMul", net.input("x", (4, 6)), net.op("MatMul", factor, net.transpose(factor, 1, 0)))
    pruned(net.build(y), ("factor", 8, "consumers"))


# -- views -----------------------------------------------------------------------------------------------------------


def viewed(*shapes: tuple[int, ...]) -> onnx.ModelProto:
    """24 slots seen in several shapes; in each, a scale along one axis of the view."""
    net = Net("viewed")
    x = hidden(net, 24)
    for shape in shapes:
        y = net.reshape(x, 4, *shape)
        for axis, size in enumerate(shape):
            ones = [1] * len(shape)
            ones[axis] = size
            y = net.op("Mul", y, net.const(net.positive(*ones), f"scale{len(shape)}.{axis}"))
        x = net.reshape(y, 4, 24)
    return net.build(net.linear(x, 24, 3, name="fc2"))


@pytest.mark.parametrize(
    ("shapes", "sizes"),
    [
        (((4, 6), (4, 2, 3)), (4, 2, 3)),
        (((4, 2, 3), (4, 6)), (4, 2, 3)),
        (((4, 6), (6, 4)), (2, 2)),
        (((6, 4), (4, 6)), (2, 2)),
        (((2, 12), (3, 8)), (4,)),
    ],
)
def test_an_axis_viewed_in_two_shapes_is_cut_where_both_agree(
    shapes: tuple[tuple[int, ...], ...], sizes: tuple[int, ...]
) -> None:
    model = viewed(*shapes)
    state = ozgraph.analyze(model, rescale=True).state
    assert [(family.dim, family.atom.size, family.exactness) for family in state.families] == [
        ("fc1.weight", size, "exact") for size in sizes
    ]
    for family in state.families:
        for all_but_one in (False, True):
            check_removal(model, state, [family], all_but_one=all_but_one)
    check_removal(model, state, state.families)


def test_an_axis_viewed_in_shapes_without_a_common_divisor_stays_whole() -> None:
    refused(viewed((8, 3), (3, 8)), "fc1.weight", 0, "its positions are arranged in two ways that do not line up")


def test_two_layers_of_20_and_12_channels_meet_a_convolution_of_four_groups() -> None:
    net = Net("uneven_groups")
    x = net.input("x", (2, 3, 4, 4))
    y = net.op("Concat", net.conv(x, 3, 20, name="left"), net.conv(x, 3, 12, name="right"), axis=1)
    model = net.build(net.conv(net.conv(y, 32, 16, group=4, name="grouped"), 16, 3, name="head"))
    # The third group takes four channels of either layer: a slot is one of eight places in all four groups.
    state = pruned(model, ("left.weight", 8, "exact"), ("grouped.weight", 4, "exact"))
    assert {m.value.name for m in family(state, "left.weight", 8).members} >= {"left.weight", "right.weight"}


# -- padding ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["reflect", "edge", "wrap"])
def test_padding_of_pixels_by_their_neighbours_leaves_channels_free(mode: str) -> None:
    net = Net("pixels")
    x = net.conv(net.input("x", (2, 3, 5, 5)), 3, 8, name="conv1")
    y = net.op("Pad", x, net.ints(0, 0, 2, 2, 0, 0, 2, 2), mode=mode)
    pruned(net.build(net.conv(y, 8, 3, pad=0, name="conv2")), ("conv1.weight", 8, "exact"))


@pytest.mark.parametrize("mode", ["reflect", "edge", "wrap"])
def test_padding_of_channels_by_their_neighbours_keeps_them(mode: str) -> None:
    net = Net("channels")
    y = net.op("Pad", hidden(net, 8), net.ints(0, 2, 0, 2), mode=mode)
    model = net.build(net.linear(y, 12, 3, name="fc2"))
    refused(model, "fc1.weight", 0, "padding mirrors or repeats what lies along it")


def test_channels_beside_which_zeros_are_padded_go_one_by_one() -> None:
    net = Net("padded_channels")
    y = net.op("Pad", hidden(net, 8), net.ints(0, 2, 0, 2))
    pruned(net.build(net.linear(y, 12, 3, name="fc2")), ("fc1.weight", 8, "exact"))

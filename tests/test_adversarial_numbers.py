"""Graphs made to fool a pruner: sizes read as numbers, bodies of control flow, numbers that are not finite.

Each is pruned rightly, judged by onnxruntime against the original zeroed by hand, or refused with the reason.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_ir import serde

import ozgraph
from models.building import Net
from models.zeroing import check_removal, pruned, refused, same_function
from ozgraph.passes.state import State

Between = Callable[[Net, str], str]


def mlp(between: Between) -> onnx.ModelProto:
    """Two linear layers with something between them on [4, 8]."""
    net = Net("mlp")
    x = between(net, net.linear(net.input("x", (4, 6)), 6, 8, name="fc1"))
    return net.build(net.linear(x, 8, 3, name="fc2"))


# -- sizes read as numbers -------------------------------------------------------------------------------------------


def scaled_scores(net: Net, q: str, k: str, scale: str) -> str:
    return net.op("Softmax", net.op("Div", net.op("MatMul", q, net.transpose(k, 0, 2, 1)), scale), axis=-1)


def test_a_scale_computed_from_a_shape_stays_the_number_it_was() -> None:
    net = Net("scale_from_shape")
    x = net.input("x", (2, 5, 6))
    q, k, v = (net.dense(x, 6, 8, name=name) for name in ("q", "k", "v"))
    scale = net.op("Sqrt", net.op("Cast", net.op("Gather", net.op("Shape", q), net.integer(-1)), to=TensorProto.FLOAT))
    y = net.op("MatMul", scaled_scores(net, q, k, scale), v)
    pruned(net.build(net.dense(y, 8, 6, name="o")), ("q.weight", 8, "exact"), ("v.weight", 8, "exact"))


def test_a_scale_from_the_shape_of_an_axis_that_varies_leaves_the_widths_free() -> None:
    net = Net("scale_from_dynamic_shape")
    x = net.input("x", ("batch", "sequence", 6))
    q, k, v = (net.dense(x, 6, 8, name=name) for name in ("q", "k", "v"))
    count = net.op("ReduceProd", net.op("Slice", net.op("Shape", q), net.ints(1), net.ints(3)), keepdims=0)
    scale = net.op("Sqrt", net.op("Cast", count, to=TensorProto.FLOAT))
    y = net.op("MatMul", scaled_scores(net, q, k, scale), v)
    pruned(net.build(net.dense(y, 8, 6, name="o")), ("q.weight", 8, "exact"), ("v.weight", 8, "exact"))


@pytest.mark.parametrize("scale", [{}, {"scale": 0.7}])
def test_the_default_scale_of_attention_stays_that_of_the_original_width(scale: dict[str, float]) -> None:
    net = Net("default_scale", opset=23)
    x = net.input("x", (2, 5, 6))
    q, k, v = (net.dense(x, 6, 8, name=name) for name in ("q", "k", "v"))
    y = net.op("Attention", q, k, v, q_num_heads=2, kv_num_heads=2, **scale)
    pruned(
        net.build(net.dense(y, 8, 6, name="o")),
        ("q.weight", 2, "exact"), ("q.weight", 4, "exact"), ("v.weight", 4, "exact"),
    )  # fmt: skip


def width(net: Net, x: str) -> str:
    """The number of channels, read at run time."""
    return net.op("Gather", net.op("Shape", x), net.integer(1), axis=0)


def test_a_sum_divided_by_the_number_of_channels_keeps_the_number() -> None:
    def between(net: Net, x: str) -> str:
        return net.op("Mul", x, net.op("Div", net.sum(x, 1), net.op("Cast", width(net, x), to=TensorProto.FLOAT)))

    pruned(mlp(between), ("fc1.weight", 8, "exact"))


def test_positions_counted_off_along_the_channels_keep_them() -> None:
    def between(net: Net, x: str) -> str:
        positions = net.op("Range", net.integer(0), width(net, x), net.integer(1))
        return net.op("Add", x, net.op("Cast", positions, to=TensorProto.FLOAT))

    refused(mlp(between), "fc1.weight", 0, "it holds sizes or indexes")


def test_ones_in_the_shape_of_a_tensor_shrink_with_it() -> None:
    def between(net: Net, x: str) -> str:
        ones = net.op("ConstantOfShape", net.op("Shape", x), value=numpy_helper.from_array(np.ones(1, np.float32)))
        return net.op("Add", x, ones)

    pruned(mlp(between), ("fc1.weight", 8, "folded"))


def test_a_shape_constant_that_several_reshapes_share_changes_for_each_alone() -> None:
    net = Net("shared_shape")
    shape = net.ints(4, 2, 4)
    x, z = net.input("x", (4, 6)), net.input("z", (4, 8))
    layers = [
        net.op("Mul", net.op("Reshape", y, shape), net.const(net.positive(2, 4)))
        for y in (net.linear(x, 6, 8, name="a"), net.linear(x, 6, 8, name="b"), z)
    ]
    heads = [net.linear(net.reshape(y, 4, 8), 8, 3, name="head") for y in layers]
    model = net.build(net.op("Sum", *heads))
    pruned(model, *((name, size, "exact") for name in ("a.weight", "b.weight") for size in (2, 4)))


# -- control flow ----------------------------------------------------------------------------------------------------


def test_what_both_branches_of_an_if_capture_is_tied_to_what_they_return() -> None:
    net = Net("captured_by_if")
    x = net.input("x", (4, 6))
    hidden = net.op("Relu", net.linear(x, 6, 8, name="seen"))
    inner = net.weight(8, 8, fan=8, hint="inner")

    def branch(name: str, node: onnx.NodeProto) -> onnx.GraphProto:
        out = helper.make_tensor_value_info(node.output[0], TensorProto.FLOAT, [4, 8])
        return helper.make_graph([node], name, [], [out])

    y = net.op(
        "If", net.op("Greater", net.op("ReduceSum", x, keepdims=0), net.number(0.0)),
        then_branch=branch("then", helper.make_node("MatMul", [hidden, inner], ["a"])),
        else_branch=branch("else", helper.make_node("Neg", [hidden], ["b"])),
    )  # fmt: skip
    free = net.op("Relu", net.linear(x, 6, 10, name="free"))
    model = net.build(net.op("Add", net.linear(y, 8, 3, name="left"), net.linear(free, 10, 3, name="right")))
    pruned(model, ("seen.weight", 8, "exact"), ("free.weight", 10, "exact"))


def test_a_branch_inside_a_branch_captures_too() -> None:
    net = Net("nested")
    x = net.input("x", (4, 6))
    hidden = net.op("Relu", net.linear(x, 6, 8, name="seen"))
    condition = net.op("Greater", net.op("ReduceSum", x, keepdims=0), net.number(0.0))

    def branch(node: onnx.NodeProto) -> onnx.GraphProto:
        out = helper.make_tensor_value_info(node.output[0], TensorProto.FLOAT, [4, 8])
        return helper.make_graph([node], node.output[0], [], [out])

    leaves = [branch(helper.make_node(type_, [hidden], [type_.lower()])) for type_ in ("Neg", "Sigmoid")]
    inner = helper.make_node("If", [condition], ["inner"], then_branch=leaves[0], else_branch=leaves[1])
    ones = numpy_helper.from_array(np.ones((4, 8), np.float32))
    other = helper.make_node("Constant", [], ["other"], value=ones)
    y = net.op("If", condition, then_branch=branch(inner), else_branch=branch(other))
    model = net.build(net.linear(y, 8, 3, name="head"))
    # The sigmoid of zero is not zero, and the constant of ones is no initializer that could be zeroed by hand.
    state = ozgraph.analyze(model).state
    assert [(family.atom.size, family.exactness) for family in state.families] == [(8, "consumers")]


def test_what_a_loop_carries_and_captures_goes_together() -> None:
    net = Net("captured_by_loop")
    x = net.input("x", (4, 6))
    start, step = (net.op("Relu", net.linear(x, 6, 8, name=name)) for name in ("carried", "captured"))
    infos = [
        helper.make_tensor_value_info(name, kind, shape)
        for name, kind, shape in (
            ("i", TensorProto.INT64, []), ("go", TensorProto.BOOL, []), ("h", TensorProto.FLOAT, [4, 8]),
            ("go_on", TensorProto.BOOL, []), ("next", TensorProto.FLOAT, [4, 8]),
        )
    ]  # fmt: skip
    nodes = [helper.make_node("Identity", ["go"], ["go_on"]), helper.make_node("Add", ["h", step], ["next"])]
    body = helper.make_graph(nodes, "body", infos[:3], infos[3:])
    y = net.op("Loop", net.integer(3), net.const(np.array(True), "go_in"), start, body=body)
    free = net.op("Relu", net.linear(x, 6, 10, name="free"))
    model = net.build(net.op("Add", net.linear(y, 8, 3, name="left"), net.linear(free, 10, 3, name="right")))
    pruned(model, ("carried.weight", 8, "exact"), ("free.weight", 10, "exact"))


# -- numbers that are not finite -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "between",
    [
        lambda net, x: net.op("Div", x, x),
        lambda net, x: net.op("Log", net.op("Abs", x)),
        lambda net, x: net.op("Reciprocal", x),
        lambda net, x: net.op("Mod", x, net.op("Abs", x), fmod=1),
    ],
)
def test_a_slot_whose_zero_would_not_be_finite_stays(between: Between) -> None:
    refused(mlp(between), "fc1.weight", 0, "a zeroed slot would not be finite there")


NOT_FINITE = pytest.mark.parametrize("number", [np.nan, np.inf])


@NOT_FINITE
def test_slots_that_nobody_reads_go_whatever_they_hold(number: float) -> None:
    net = Net("unread")
    weight = net.normal(8, 6)
    weight[[0, 1, 6]] = number
    x = net.op("Gemm", net.input("x", (4, 6)), net.const(weight, "fc1.weight"), transB=1)
    model = net.build(net.linear(net.slice(x, 2, 5, 1), 3, 3, name="fc2"))
    result = ozgraph.eliminate(model)
    # One slot of each unread side stays.
    assert result.report.removed_slots == 3
    same_function(model, serde.serialize_model(result.model))


def held_for_what_it_meets(state: State) -> int:
    """How many slots stay because a weight that reads them is not finite."""
    (atom,) = state.weight_atoms
    slots = np.arange(atom.base, atom.base + atom.size)
    numbers = state.dims.frozen_reason(slots)
    reasons = [state.dims.reasons[number].text for number in numbers[numbers >= 0].tolist()]
    assert set(reasons) <= {"its zero would meet a weight that is not finite"}
    return len(reasons)


def refused_by_verification(result: ozgraph.PruneResult, model: onnx.ModelProto) -> None:
    (row,) = result.report.frozen_by_verification
    assert "it did not verify: tensor" in row.reason
    assert result.report.removed_slots == 0
    same_function(model, serde.serialize_model(result.model))


@NOT_FINITE
def test_a_zero_slot_stays_where_its_consumer_makes_it_something_not_finite(number: float) -> None:
    net = Net("zero_times_infinity")
    weight, consumer = net.normal(8, 6), net.normal(3, 8)
    weight[[2, 5]], consumer[0, 2] = 0.0, number
    x = net.op("Gemm", net.input("x", (4, 6)), net.const(weight, "fc1.weight"), transB=1)
    model = net.build(net.op("Gemm", x, net.const(consumer, "fc2.weight"), transB=1))
    result = ozgraph.eliminate(model)
    assert result.report.removed_slots == 1, "the other zero slot goes"
    assert held_for_what_it_meets(result.state) == 1
    same_function(model, serde.serialize_model(result.model))


@NOT_FINITE
def test_a_batch_norm_scale_of_zero_does_not_silence_a_channel_that_is_not_finite(number: float) -> None:
    net = Net("zero_scale")
    weight, gamma, beta = net.normal(8, 3, 1, 1), net.positive(8), net.normal(8)
    weight[2], gamma[[2, 5]], beta[[2, 5]] = number, 0.0, 0.0
    x = net.op("Conv", net.input("x", (2, 3, 4, 4)), net.const(weight, "conv1.weight"))
    statistics = net.const(net.normal(8), "mean"), net.const(net.positive(8), "var")
    x = net.op("BatchNormalization", x, net.const(gamma, "gamma"), net.const(beta, "beta"), *statistics)
    head = net.conv(x, 8, 4, name="conv2")
    apart = net.op("Conv", net.input("y", (2, 4, 4, 4)), net.weight(4, 4, 1, 1, fan=4))
    model = net.build(net.op("Where", net.op("IsNaN", head), apart, head))
    refused_by_verification(ozgraph.eliminate(model), model)


def layers_with(producer: tuple[int, int] | None, consumer: tuple[int, int] | None, number: float) -> onnx.ModelProto:
    """Two layers with one weight each that is not finite."""
    net = Net("not_finite")
    first, second = net.normal(8, 6), net.normal(3, 8)
    for weight, place in ((first, producer), (second, consumer)):
        if place is not None:
            weight[place] = number
    x = net.op("Gemm", net.input("x", (4, 6)), net.const(first, "fc1.weight"), transB=1)
    return net.build(net.op("Gemm", x, net.const(second, "fc2.weight"), transB=1))


@NOT_FINITE
def test_a_group_that_holds_what_is_not_finite_is_zeroed_and_goes(number: float) -> None:
    model = layers_with((3, 1), None, number)
    state = ozgraph.analyze(model).state
    (family,) = state.families
    check_removal(model, state, [family], slots=[3, 5])


@NOT_FINITE
def test_a_group_stays_where_a_consumer_that_is_not_finite_would_see_its_zero(number: float) -> None:
    model = layers_with(None, (1, 6), number)
    result = ozgraph.prune(model, target=ozgraph.Target(groups=0.75))
    assert held_for_what_it_meets(result.state) == 1
    assert result.report.removed_slots == 6 and not result.report.frozen_by_verification
    assert not result.state.removed.mask(result.state.families[0].atom)[6]

"""Graphs made to fool a pruner: operators along the channels, reductions and norms over them, weights in disguise.

Each is pruned rightly, judged by onnxruntime against the original zeroed by hand, or refused with the reason.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest

import ozgraph
from models.building import Net
from models.zeroing import pruned, refused

WINDOW = "the operator looks along it"
SOFTMAX = "a softmax over it counts every slot"

Between = Callable[[Net, str], str]


def mlp(between: Between) -> onnx.ModelProto:
    """Two linear layers with something between them on [4, 8]."""
    net = Net("mlp")
    x = between(net, net.linear(net.input("x", (4, 6)), 6, 8, name="fc1"))
    return net.build(net.linear(x, 8, 3, name="fc2"))


# -- along the channels ----------------------------------------------------------------------------------------------


def convolution(net: Net, x: str) -> str:
    y = net.op("Conv", net.unsqueeze(x, 1), net.weight(1, 1, 3, fan=3, hint="window"), pads=[1, 1])
    return net.squeeze(y, 1)


def pooling(type_: str) -> Between:
    def build(net: Net, x: str) -> str:
        return net.squeeze(net.op(type_, net.unsqueeze(x, 1), kernel_shape=[3], pads=[1, 1]), 1)

    return build


@pytest.mark.parametrize("between", [convolution, pooling("MaxPool"), pooling("AveragePool"), pooling("LpPool")])
def test_a_window_that_slides_along_the_channels_keeps_them(between: Between) -> None:
    refused(mlp(between), "fc1.weight", 0, WINDOW)


def test_a_local_response_norm_keeps_its_channels() -> None:
    def between(net: Net, x: str) -> str:
        return net.squeeze(net.op("LRN", net.unsqueeze(x, 2, 3), size=3), 2, 3)

    refused(mlp(between), "fc1.weight", 0, "a window runs across the channels")


@pytest.mark.parametrize("type_", ["Softmax", "LogSoftmax", "Hardmax"])
def test_a_softmax_over_the_channels_keeps_them(type_: str) -> None:
    refused(mlp(lambda net, x: net.op(type_, x, axis=1)), "fc1.weight", 0, SOFTMAX)


def test_a_softmax_of_old_opsets_runs_over_all_that_follows_its_axis() -> None:
    net = Net("flattening_softmax", opset=11)
    x = net.conv(net.input("x", (2, 3, 4, 4)), 3, 8, name="conv1")
    model = net.build(net.conv(net.op("Softmax", x, axis=1), 8, 4, name="conv2"))
    refused(model, "conv1.weight", 0, SOFTMAX)


def test_x_times_its_softmax_keeps_its_channels_although_zero_times_anything_is_zero() -> None:
    refused(mlp(lambda net, x: net.op("Mul", x, net.op("Softmax", x, axis=1))), "fc1.weight", 0, SOFTMAX)


def test_a_running_sum_along_the_channels_keeps_them() -> None:
    refused(mlp(lambda net, x: net.op("CumSum", x, net.integer(1))), "fc1.weight", 0, "a running sum")


# -- reductions over the channels ------------------------------------------------------------------------------------


def gated_by(reduction: str, rectified: bool = False) -> onnx.ModelProto:
    """Channels times a number that is reduced over them."""

    def between(net: Net, x: str) -> str:
        y = net.op("Relu", x) if rectified else x
        return net.op("Mul", x, net.reduce(reduction, y, 1))

    return mlp(between)


def test_a_mean_over_channels_keeps_its_count() -> None:
    pruned(gated_by("ReduceMean"), ("fc1.weight", 8, "rescaled"))


@pytest.mark.parametrize("type_", ["ReduceL2", "ReduceL1", "ReduceSum", "ReduceSumSquare"])
def test_sums_and_norms_over_channels_do_not_see_zeros(type_: str) -> None:
    pruned(gated_by(type_), ("fc1.weight", 8, "exact"))


@pytest.mark.parametrize(
    ("type_", "rectified", "reason"),
    [
        ("ReduceMax", False, "a maximum over it may be the zero of a removed slot"),
        ("ReduceMin", False, "a minimum over it may be the zero of a removed slot"),
        ("ReduceMin", True, "a minimum over it may be the zero of a removed slot"),
        ("ReduceProd", False, "sees every slot"),
        ("ReduceProd", True, "sees every slot"),
    ],
)
def test_an_extreme_over_channels_keeps_them_for_it_may_be_the_zero(type_: str, rectified: bool, reason: str) -> None:
    refused(gated_by(type_, rectified), "fc1.weight", 0, reason)


def test_a_position_of_the_largest_channel_is_never_followed() -> None:
    def between(net: Net, x: str) -> str:
        largest = net.op("ArgMax", net.op("Relu", x), axis=1, keepdims=1)
        return net.op("Mul", x, net.op("Cast", largest, to=onnx.TensorProto.FLOAT))

    refused(mlp(between), "fc1.weight", 0, "an argmax over it returns positions")


def test_a_log_of_summed_exponentials_keeps_its_channels() -> None:
    refused(gated_by("ReduceLogSumExp"), "fc1.weight", 0, "sees every slot")


def test_a_vector_divided_by_its_length_prunes() -> None:
    pruned(mlp(lambda net, x: net.op("LpNormalization", x, axis=1, p=2)), ("fc1.weight", 8, "exact"))


# -- norms -----------------------------------------------------------------------------------------------------------


def far_from_zero(net: Net) -> str:
    """A linear layer whose outputs have a mean of about four."""
    weight = net.weight(8, 6, fan=6, hint="fc1.weight")
    bias = net.const(net.normal(8, offset=4.0), "fc1.bias")
    return net.op("Gemm", net.input("x", (4, 6)), weight, bias, transB=1)


def test_a_layer_norm_keeps_the_statistics_of_a_mean_far_from_zero() -> None:
    net = Net("layer_norm")
    state = pruned(net.build(net.linear(net.layer_norm(far_from_zero(net), 8), 8, 3)), ("fc1.weight", 8, "rescaled"))
    assert {member.value.name for member in state.families[0].members} >= {"norm.weight", "norm.bias"}


def test_a_layer_norm_is_left_alone_unless_rescaling_is_asked_for() -> None:
    net = Net("layer_norm")
    analysis = ozgraph.analyze(net.build(net.linear(net.layer_norm(far_from_zero(net), 8), 8, 3)))
    assert [family.active for family in analysis.families] == [False]


def test_a_layer_norm_that_shares_a_scale_of_ones_is_zeroed_there() -> None:
    net = Net("no_affine")
    ones = net.const(np.ones(8, np.float32), "ones")
    x = net.op("LayerNormalization", far_from_zero(net), ones, axis=-1)
    x = net.op("Relu", net.linear(x, 8, 8, name="fc2"))
    y = net.op("LayerNormalization", x, ones, axis=-1)
    model = net.build(net.linear(y, 8, 3, name="fc3"))
    pruned(model, ("fc1.weight", 8, "rescaled"), ("fc2.weight", 8, "rescaled"))


def centred(net: Net, x: str) -> tuple[str, str]:
    """x less its mean, and the square root of its variance, as exporters decompose a layer norm."""
    difference = net.op("Sub", x, net.mean(x, -1))
    variance = net.mean(net.op("Mul", difference, difference), -1)
    return difference, net.op("Sqrt", net.op("Add", variance, net.number(1e-5)))


@pytest.mark.parametrize("opset", [16, 20])
def test_a_layer_norm_in_pieces_keeps_its_channels_where_no_operator_says_the_same(opset: int) -> None:
    """A zero is not the mean. Opset 16 has no LayerNormalization; in opset 20 someone else reads the variance."""
    net = Net("in_pieces", opset=opset)
    difference, deviation = centred(net, far_from_zero(net))
    y = net.op(
        "Add", net.op("Mul", net.op("Div", difference, deviation), net.const(net.positive(8), "gamma")), net.bias(8)
    )
    if opset == 20:
        y = net.op("Add", y, deviation)
    refused(net.build(net.linear(y, 8, 3)), "fc1.weight", 0, "a mean over it still sees a zeroed slot")


def test_a_root_mean_square_norm_rescales_as_an_operator_and_decomposed() -> None:
    net = Net("rms", opset=23)
    x = net.op("RMSNormalization", far_from_zero(net), net.const(net.positive(8), "gamma"), axis=-1)
    pruned(net.build(net.linear(x, 8, 3)), ("fc1.weight", 8, "rescaled"))
    net = Net("rms_decomposed")
    pruned(net.build(net.linear(net.rms_norm(far_from_zero(net), 8), 8, 3)), ("fc1.weight", 8, "rescaled"))


def test_a_root_mean_square_norm_whose_scale_is_one_plus_a_weight_prunes_by_the_slots_before_it() -> None:
    net = Net("one_plus")
    x = far_from_zero(net)
    variance = net.op("Add", net.mean(net.op("Mul", x, x), -1), net.number(1e-6))
    scale = net.op("Add", net.const(net.normal(8, scale=0.3), "gamma"), net.number(1.0))
    y = net.op("Mul", net.op("Div", x, net.op("Sqrt", variance)), scale)
    pruned(net.build(net.linear(y, 8, 3)), ("fc1.weight", 8, "rescaled"))


def test_a_group_norm_loses_whole_groups_or_the_same_channels_of_every_group() -> None:
    net = Net("group_norm", opset=21)
    x = net.conv(net.input("x", (2, 3, 4, 4)), 3, 12, name="conv1")
    affine = net.const(net.positive(12), "norm.weight"), net.bias(12, "norm.bias")
    y = net.stated(net.op("GroupNormalization", x, *affine, num_groups=3), 2, 12, 4, 4)
    model = net.build(net.conv(y, 12, 4), shapes=[(2, 4, 4, 4)])
    pruned(model, ("conv1.weight", 3, "exact"), ("conv1.weight", 4, "rescaled"))


def test_a_group_norm_by_reshape_and_instance_norm_does_so_too() -> None:
    net = Net("group_norm_reshaped")
    x = net.conv(net.input("x", (2, 3, 4, 4)), 3, 12, name="conv1")
    ones, zeros = net.const(np.ones(3, np.float32), "ones"), net.const(np.zeros(3, np.float32), "zeros")
    y = net.reshape(net.op("InstanceNormalization", net.reshape(x, 2, 3, -1), ones, zeros), 2, 12, 4, 4)
    y = net.op("Add", net.op("Mul", y, net.const(net.positive(12, 1, 1), "w")), net.const(net.normal(12, 1, 1), "b"))
    pruned(net.build(net.conv(y, 12, 4)), ("conv1.weight", 3, "exact"), ("conv1.weight", 4, "rescaled"))


@pytest.mark.parametrize("opset", [9, 18])
def test_a_group_norm_of_one_group_is_a_layer_norm_over_everything(opset: int) -> None:
    net = Net("one_group", opset=opset)
    x = net.conv(net.input("x", (2, 3, 4, 4)), 3, 12, name="conv1")
    scale, shift = net.const(np.full(1, 1.5, np.float32), "scale"), net.const(np.full(1, 0.25, np.float32), "shift")
    y = net.reshape(net.op("InstanceNormalization", net.reshape(x, 2, 1, -1), scale, shift, epsilon=0.1), 2, 12, 4, 4)
    y = net.op("Add", net.op("Mul", y, net.const(net.positive(12, 1, 1), "w")), net.const(net.normal(12, 1, 1), "b"))
    pruned(net.build(net.conv(y, 12, 4)), ("conv1.weight", 12, "rescaled"))


@pytest.mark.parametrize("returned", [False, True])
def test_a_layer_norm_still_returns_its_mean_and_deviation(returned: bool) -> None:
    net = Net("statistics")
    affine = net.const(net.positive(8), "gamma"), net.bias(8, "beta")
    y, mean, inverse = net.ops("LayerNormalization", far_from_zero(net), *affine, outputs=3, axis=-1)
    y = net.linear(y if returned else net.op("Add", net.op("Mul", y, mean), inverse), 8, 3)
    model = net.build(y, mean, inverse) if returned else net.build(y)
    pruned(model, ("fc1.weight", 8, "rescaled"))


# -- weights in disguise ---------------------------------------------------------------------------------------------


def test_the_direction_of_a_weight_norm_is_not_zeroed_for_zero_over_zero_is_not_a_number() -> None:
    net = Net("weight_norm")
    v, g = net.weight(8, 6, fan=6, hint="v"), net.const(net.positive(8, 1), "g")
    weight = net.op("Mul", g, net.op("Div", v, net.reduce("ReduceL2", v, 1)))
    x = net.op("Gemm", net.input("x", (4, 6)), weight, net.bias(8), transB=1)
    state = pruned(net.build(net.linear(net.op("Relu", x), 8, 3)), ("g", 8, "exact"))
    assert {member.value.name for member in state.families[0].members} == {"g", "bias"}


def test_consumers_normalised_over_the_pruned_axis_are_zeroed_with_the_group() -> None:
    net = Net("normalised_consumer")
    x = net.op("Tanh", net.linear(net.input("x", (4, 6)), 6, 8, name="fc1"))
    v = net.weight(5, 8, fan=8, hint="v")
    weight = net.op("Div", v, net.reduce("ReduceL2", v, 1))
    state = pruned(net.build(net.op("Gemm", x, weight, transB=1)), ("fc1.weight", 8, "consumers"))
    assert ("v", 1, "consumer") in {(m.value.name, m.axis, m.role) for m in state.families[0].members}


def test_consumers_whose_mean_is_taken_off_keep_the_pruned_axis() -> None:
    net = Net("standardised_consumer")
    x = net.op("Relu", net.linear(net.input("x", (4, 6)), 6, 8, name="fc1"))
    weight = net.op("Div", *centred(net, net.weight(5, 8, fan=8, hint="v")))
    y = net.op("Einsum", x, weight, equation="mk,nk->mn")  # a Gemm would have the weight computed
    refused(net.build(y), "fc1.weight", 0, "a mean over it still sees a zeroed slot")


def test_a_softmax_over_the_consumers_own_weights_keeps_the_axis() -> None:
    net = Net("mixing_weights")
    x = net.op("Relu", net.linear(net.input("x", (4, 6)), 6, 8, name="fc1"))
    weight = net.op("Softmax", net.weight(5, 8, fan=8, hint="v"), axis=1)
    refused(net.build(net.op("Einsum", x, weight, equation="mk,nk->mn")), "fc1.weight", 0, SOFTMAX)

"""What is known of slots, forward and backward: Zero, Constant or Unknown, and which slots are dead for it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx_ir import serde

import ozgraph
from models.building import Array, Net
from models.feeding import feeds, run
from ozgraph.backends.onnx import apply
from ozgraph.passes.cost import Cost
from ozgraph.passes.eliminate import Eliminate
from ozgraph.passes.freeze import Freeze
from ozgraph.passes.infer_dims import InferDims
from ozgraph.passes.manager import Pipeline
from ozgraph.passes.normalize import Normalize
from ozgraph.passes.prove_dead import ProveDead, Scan
from ozgraph.passes.prover import Prover
from ozgraph.passes.state import Removal, State

WIDTH = 5
CHANNEL = 2
"""The channel that the tests make zero, constant or dead."""

Build = Callable[[Net, str], str]


def constant_channel(
    number: float, then: Build, *, dtype: npt.DTypeLike = np.float32, opset: int = 20
) -> onnx.ModelProto:
    """A linear layer whose channel 2 is ``number`` whatever the input, what follows it, and a second layer."""
    net = Net("constant_channel", dtype=dtype, opset=opset)
    weight, bias = net.normal(6, WIDTH), net.normal(WIDTH)
    weight[:, CHANNEL], bias[CHANNEL] = 0.0, number
    x = net.op("MatMul", net.input("x", (4, 6)), net.const(weight, "fc1.weight"))
    y = then(net, net.op("Add", x, net.const(bias, "fc1.bias")))
    return net.build(net.op("MatMul", y, net.const(net.normal(WIDTH, 3), "fc2.weight")))


def op(type_: str, *others: float, **attributes: float) -> Build:
    """One operator on the tensor, with further operands that are numbers."""

    def build(net: Net, x: str) -> str:
        return net.op(type_, x, *(net.number(other) for other in others), **attributes)

    return build


def certified(model: onnx.ModelProto) -> State:
    """The dims of a model, without groups."""
    return Pipeline((Normalize(), InferDims(), Freeze(), Cost())).run(State(ozgraph.load(model)))


def known(model: onnx.ModelProto) -> float:
    """What the prover knows of channel 2 where the second layer reads it; NaN for Unknown."""
    state = certified(model)
    nothing = Removal(state.dims.total)
    prover = Prover(state, Scan(state, nothing, nothing))
    layer = next(op for op in state.graph.ops if op.input(1) is state.graph.values["fc2.weight"])
    value = layer.inputs[0]
    assert value is not None
    (atom,) = state.atoms(value, 1)
    states = np.broadcast_to(prover.at(value, 1, atom), (WIDTH,))
    others = np.delete(states, CHANNEL)
    assert np.isnan(others).all(), "only channel 2 is known"
    return float(states[CHANNEL])


def removed(state: State, tensor: str, axis: int) -> list[int]:
    """Positions of a weight axis that go."""
    value = state.graph.values[tensor]
    return np.flatnonzero(~state.removed.keep(state.dims.ids(state.axes[value][axis]))).tolist()


def proved(model: onnx.ModelProto) -> tuple[State, onnx.ModelProto]:
    """The state after elimination of what is dead as it is, and the smaller model."""
    state = Pipeline((ProveDead(), Eliminate()), verify_each=True).run(certified(model))
    return state, serde.serialize_model(apply(state.graph, state.plan))


def same_function(first: onnx.ModelProto, second: onnx.ModelProto, tolerance: float = 1e-5) -> bool:
    return all(
        np.allclose(a, b, rtol=tolerance, atol=tolerance)
        for seed in range(2)
        for a, b in zip(run(first, feeds(first, seed)), run(second, feeds(second, seed)), strict=True)
    )


# -- forward: pointwise operators are evaluated ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "then", "after"),
    [
        (0.0, op("Relu"), 0.0),
        (-0.5, op("Relu"), 0.0),
        (0.5, op("Relu"), 0.5),
        (0.0, op("Sigmoid"), 0.5),
        (0.0, op("Cos"), 1.0),
        (0.0, op("HardSigmoid"), 0.5),
        (-4.0, op("HardSwish"), 0.0),
        (2.0, op("Neg"), -2.0),
        (9.0, op("Sqrt"), 3.0),
        (2.0, op("Add", 1.0), 3.0),
        (3.0, op("Sub", 1.0), 2.0),
        (3.0, op("Pow", 2.0), 9.0),
        (7.0, op("Clip", 0.0, 6.0), 6.0),
        (-1.0, op("LeakyRelu", alpha=0.25), -0.25),
        (2.0, lambda net, x: net.op("Mul", x, x), 4.0),
        (2.0, lambda net, x: net.op("Mul", x, net.op("Neg", x)), -4.0),
        (2.0, lambda net, x: net.op("Where", net.op("Greater", x, net.number(1.0)), net.number(5.0), x), 5.0),
        (3.0, lambda net, x: net.op("Add", net.op("Relu", x), net.op("Abs", net.op("Neg", x))), 6.0),
    ],
)
def test_a_constant_goes_through_what_the_operator_computes(before: float, then: Build, after: float) -> None:
    assert known(constant_channel(before, then)) == after


def test_a_constant_is_evaluated_in_the_tensors_own_precision() -> None:
    tenth = np.float32(0.1)
    assert known(constant_channel(0.3, op("Mul", 0.1))) == float(np.float32(0.3) * tenth)
    assert known(constant_channel(0.3, op("Mul", 0.1))) != 0.3 * 0.1
    double = constant_channel(0.3, op("Mul", 0.1), dtype=np.float64)
    assert known(double) == 0.3 * 0.1


def test_a_constant_that_half_precision_rounds_to_zero_is_zero() -> None:
    tiny = constant_channel(6e-8, op("Mul", 0.1), dtype=np.float16)
    assert known(tiny) == 0.0
    assert known(constant_channel(6e-8, op("Mul", 0.1))) > 0.0


@pytest.mark.parametrize(
    ("before", "then"),
    [
        (0.0, op("Log")),
        (0.0, op("Reciprocal")),
        (200.0, op("Exp")),
        (-1.0, op("Sqrt")),
        (0.0, lambda net, x: net.op("Div", x, x)),
    ],
)
def test_what_is_not_finite_is_unknown(before: float, then: Build) -> None:
    assert np.isnan(known(constant_channel(before, then)))


def test_a_constant_that_meets_an_unknown_is_unknown() -> None:
    def plus_input(net: Net, x: str) -> str:
        return net.op("Add", x, net.input("other", (4, 1)))

    assert np.isnan(known(constant_channel(1.0, plus_input)))


def test_zero_times_an_unknown_is_zero_and_nothing_else_is() -> None:
    def times_input(net: Net, x: str) -> str:
        return net.op("Mul", x, net.op("Sigmoid", net.input("other", (4, 1))))

    assert known(constant_channel(0.0, times_input)) == 0.0
    assert np.isnan(known(constant_channel(1.0, times_input)))


def test_a_slot_that_random_numbers_are_added_to_stays() -> None:
    noisy = constant_channel(0.0, lambda net, x: net.op("Add", x, net.op("RandomNormalLike", x)))
    state, _ = proved(noisy)
    assert removed(state, "fc1.weight", 1) == []


def test_data_movement_carries_constants_along() -> None:
    def there_and_back(net: Net, x: str) -> str:
        return net.op("Flatten", net.transpose(net.unsqueeze(net.transpose(x, 1, 0), 2), 1, 0, 2))

    assert known(constant_channel(0.75, there_and_back)) == 0.75


def test_a_slot_is_constant_only_where_all_its_positions_agree() -> None:
    net = Net("two_rows")
    weight = np.zeros((2 * WIDTH, 3), np.float32)
    weight[CHANNEL] = 7.0
    weight[CHANNEL + WIDTH] = 8.0
    x = net.linear(net.input("x", (4, 6)), 6, WIDTH)
    y = net.op("Concat", x, x, axis=1)
    model = net.build(net.op("MatMul", y, net.const(weight, "twice")))
    state = certified(model)
    (atom,) = state.atoms(state.graph.values["twice"], 0)
    nothing = Removal(state.dims.total)
    states = Scan(state, nothing, nothing)(state.graph.values["twice"], 0, atom)
    assert np.isnan(states[CHANNEL])
    assert states[0] == 0.0


@pytest.mark.parametrize("first", [True, False])
def test_a_concatenation_along_another_axis_knows_only_what_all_its_operands_agree_on(first: bool) -> None:
    net = Net("unknown_beside_zero")
    x = net.linear(net.input("x", (4, 6)), 6, WIDTH, name="fc1")
    unknown = net.op("Softmax", x, axis=0)
    y = net.op("Concat", *((unknown, x) if first else (x, unknown)), axis=0)
    found = ozgraph.analyze(net.build(net.linear(y, WIDTH, 3, name="fc2")))
    assert [family.exactness for family in found.families] == ["consumers"]


# -- dead as it is ---------------------------------------------------------------------------------------------------


def conv_after_dead_norm(
    beta: float, *, kernel: int = 1, pad: int = 0, bias: bool = True, dtype: npt.DTypeLike = np.float32, group: int = 1
) -> onnx.ModelProto:
    """Conv, a batch norm whose channels 2 and 5 have gamma 0, ReLU, and a second convolution."""
    net = Net("conv_after_dead_norm", dtype=dtype)
    x = net.conv(net.input("x", (2, 3, 6, 6)), 3, 8, bias=False, name="conv1")
    gamma, shift = net.positive(8), net.normal(8)
    gamma[[2, 5]], shift[[2, 5]] = 0.0, beta
    y = net.op(
        "BatchNormalization", x, net.const(gamma, "gamma"), net.const(shift, "beta"),
        net.const(net.normal(8), "mean"), net.const(net.positive(8), "variance"),
    )  # fmt: skip
    y = net.op("Relu", y)
    y = net.conv(y, 8, 4, kernel, pad=pad, bias=bias, group=group, name="conv2")
    return net.build(net.op("GlobalAveragePool", y))


def test_a_channel_that_the_activation_turns_to_zero_goes() -> None:
    model = conv_after_dead_norm(-0.3)
    state, smaller = proved(model)
    assert removed(state, "conv1.weight", 0) == [2, 5]
    assert not state.folded
    assert same_function(model, smaller)


def test_a_channel_that_is_dead_only_by_a_constant_goes_and_leaves_it_in_the_bias() -> None:
    model = conv_after_dead_norm(0.3)
    state, smaller = proved(model)
    assert removed(state, "conv1.weight", 0) == [2, 5]
    assert state.folded.total == 2
    assert same_function(model, smaller)


def test_a_constant_folds_into_a_bias_that_is_added_where_there_is_none() -> None:
    model = conv_after_dead_norm(0.3, bias=False)
    _, smaller = proved(model)
    second = smaller.graph.node[[node.op_type for node in smaller.graph.node].index("Relu") + 1]
    assert len(second.input) == 3
    assert same_function(model, smaller)


def test_a_constant_folds_through_a_window_without_padding() -> None:
    model = conv_after_dead_norm(0.3, kernel=3)
    state, smaller = proved(model)
    assert state.folded.total == 2
    assert same_function(model, smaller)


def test_a_constant_never_folds_through_zero_padding() -> None:
    state, _ = proved(conv_after_dead_norm(0.3, kernel=3, pad=1))
    assert removed(state, "conv1.weight", 0) == []


def test_a_zero_goes_through_zero_padding() -> None:
    model = conv_after_dead_norm(-0.3, kernel=3, pad=1)
    state, smaller = proved(model)
    assert removed(state, "conv1.weight", 0) == [2, 5]
    assert same_function(model, smaller)


def test_a_constant_never_folds_in_half_precision() -> None:
    state, _ = proved(conv_after_dead_norm(0.3, dtype=np.float16))
    assert removed(state, "conv1.weight", 0) == []


def test_a_zero_goes_in_half_precision() -> None:
    state, _ = proved(conv_after_dead_norm(-0.3, dtype=np.float16))
    assert removed(state, "conv1.weight", 0) == [2, 5]


def gemm(bias: Array | None, **attributes: float) -> onnx.ModelProto:
    net = Net("gemm")
    first, shift = net.normal(WIDTH, 6), net.normal(WIDTH)
    first[CHANNEL], shift[CHANNEL] = 0.0, 0.7
    x = net.op("Gemm", net.input("x", (4, 6)), net.const(first, "fc1.weight"), net.const(shift, "fc1.bias"), transB=1)
    shape = (3, WIDTH) if attributes.get("transB") else (WIDTH, 3)
    operands = [net.const(net.normal(*shape), "fc2.weight")] + ([] if bias is None else [net.const(bias, "fc2.bias")])
    return net.build(net.op("Gemm", net.op("Tanh", x), *operands, **attributes))


ROW = np.arange(3, dtype=np.float32)


@pytest.mark.parametrize(
    ("bias", "attributes"),
    [
        (ROW, {}),
        (None, {}),
        (ROW, {"transB": 1}),
        (ROW, {"alpha": 0.5}),
        (ROW, {"beta": 2.0}),
        (ROW, {"alpha": 0.5, "beta": 2.0, "transB": 1}),
        (ROW, {"beta": 0.0}),
        (None, {"beta": 2.0}),
        (ROW[:1], {}),
        (np.array(0.5, np.float32), {}),
        (np.arange(12, dtype=np.float32).reshape(4, 3), {}),
        (np.arange(4, dtype=np.float32).reshape(4, 1), {"beta": 0.5}),
    ],
)
def test_a_constant_folds_into_gemm_whatever_its_scales_and_the_shape_of_its_bias(
    bias: Array | None, attributes: dict[str, float]
) -> None:
    model = gemm(bias, **attributes)
    state, smaller = proved(model)
    assert removed(state, "fc1.weight", 0) == [CHANNEL]
    assert same_function(model, smaller)


def test_a_constant_folds_into_matmul_as_an_addition_behind_it() -> None:
    model = constant_channel(0.7, op("Tanh"))
    state, smaller = proved(model)
    assert removed(state, "fc1.weight", 1) == [CHANNEL]
    assert [node.op_type for node in smaller.graph.node] == ["MatMul", "Add", "Tanh", "MatMul", "Add"]
    assert same_function(model, smaller)


def test_a_constant_folds_into_the_right_groups_of_a_grouped_convolution() -> None:
    # Channel 1 of the first group and channel 1 of the second go together.
    net = Net("grouped")
    first, shift = net.normal(8, 3, 1, 1), net.normal(8)
    first[[1, 5]], shift[[1, 5]] = 0.0, 0.4
    x = net.op("Conv", net.input("x", (2, 3, 4, 4)), net.const(first, "conv1.weight"), net.const(shift, "conv1.bias"))
    y = net.conv(net.op("Relu", x), 8, 6, 3, pad=0, group=2, name="conv2")
    model = net.build(net.op("GlobalAveragePool", y))
    state, smaller = proved(model)
    assert removed(state, "conv1.weight", 0) == [1, 5]
    assert same_function(model, smaller)


def test_what_a_folded_constant_adds_is_still_there_for_the_slots_behind_it() -> None:
    # Row 1 of fc2 reads only the constant channel: 2 * 0.7 - 0.5 is not the ReLU's zero that -0.5 alone would be.
    net = Net("folded_twice")
    first, shift = net.normal(WIDTH, 6), net.normal(WIDTH)
    first[CHANNEL], shift[CHANNEL] = 0.0, 0.7
    second, offset = net.normal(4, WIDTH), net.normal(4)
    second[1], offset[1] = 0.0, -0.5
    second[1, CHANNEL] = 2.0
    x = net.op("Gemm", net.input("x", (4, 6)), net.const(first, "fc1.weight"), net.const(shift, "fc1.bias"), transB=1)
    x = net.op("Gemm", net.op("Relu", x), net.const(second, "fc2.weight"), net.const(offset, "fc2.bias"), transB=1)
    model = net.build(net.dense(net.op("Relu", x), 4, 3, name="fc3"))
    state, smaller = proved(model)
    assert removed(state, "fc1.weight", 0) == [CHANNEL]
    assert same_function(model, smaller)


def test_a_constant_that_a_weight_computed_at_run_time_sees_stays() -> None:
    net = Net("dynamic_weight")
    weight, bias = net.normal(6, WIDTH), net.normal(WIDTH)
    weight[:, CHANNEL], bias[CHANNEL] = 0.0, 0.5
    x = net.op("MatMul", net.input("x", (4, 6)), net.const(weight, "fc1.weight"))
    x = net.op("Add", x, net.const(bias, "fc1.bias"))
    other = net.op("MatMul", net.input("z", (3, 6)), net.weight(6, WIDTH, fan=6, hint="other.weight"))
    model = net.build(net.op("MatMul", x, net.transpose(other, 1, 0)))
    state, _ = proved(model)
    assert removed(state, "fc1.weight", 1) == []


def test_something_always_stays() -> None:
    net = Net("all_dead")
    x = net.op("MatMul", net.input("x", (4, 6)), net.const(np.zeros((6, WIDTH), np.float32), "fc1.weight"))
    model = net.build(net.dense(net.op("Relu", x), WIDTH, 3, name="fc2"))
    state, smaller = proved(model)
    assert len(removed(state, "fc1.weight", 1)) == WIDTH - 1
    assert same_function(model, smaller)


# -- backward demand -------------------------------------------------------------------------------------------------


def chain(**zeroed: tuple[int, list[int]]) -> onnx.ModelProto:
    """Three linear layers with a Tanh between; rows or columns of their weights (``fc2=(1, [3])``) are zero."""
    net = Net("chain")
    x = net.input("x", (4, 6))
    for name, (n_in, n_out) in {"fc1": (6, 8), "fc2": (8, 7), "fc3": (7, 3)}.items():
        weight = net.normal(n_out, n_in)
        axis, positions = zeroed.get(name, (0, []))
        weight[(slice(None),) * axis + (positions,)] = 0.0
        x = net.op("Gemm", x, net.const(weight, f"{name}.weight"), net.bias(n_out, f"{name}.bias"), transB=1)
        x = net.op("Tanh", x) if name != "fc3" else x
    return net.build(x)


def test_a_slot_that_every_consumer_multiplies_by_zero_is_dead() -> None:
    model = chain(fc2=(1, [3, 6]))
    state, smaller = proved(model)
    assert removed(state, "fc1.weight", 0) == [3, 6]
    assert same_function(model, smaller)


def test_a_slot_that_one_of_two_consumers_reads_is_alive() -> None:
    net = Net("two_readers")
    x = net.op("Tanh", net.linear(net.input("x", (4, 6)), 6, WIDTH, name="fc1"))
    blind = net.normal(WIDTH, 3)
    blind[CHANNEL] = 0.0
    left = net.op("MatMul", x, net.const(blind, "left.weight"))
    model = net.build(left, net.dense(x, WIDTH, 3, name="right"))
    state, _ = proved(model)
    assert removed(state, "fc1.weight", 0) == []


def test_demand_cascades_through_what_fed_only_dead_slots() -> None:
    # Every output row of fc2 but 0 is unread, and row 0 does not read slot 4 of fc1: so nothing does.
    model = chain(fc3=(1, [1, 2, 3, 4, 5, 6]))
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == "fc2.weight")
    array = onnx.numpy_helper.to_array(weight).copy()
    array[0, 4] = 0.0
    weight.CopyFrom(onnx.numpy_helper.from_array(array, "fc2.weight"))
    state, smaller = proved(model)
    assert removed(state, "fc2.weight", 0) == [1, 2, 3, 4, 5, 6]
    assert removed(state, "fc1.weight", 0) == [4]
    assert same_function(model, smaller)


def test_a_live_model_loses_nothing() -> None:
    state, _ = proved(chain())
    assert not state.removed


@pytest.mark.parametrize("reader", ["Softmax", "ReduceMax", "ArgMax", "CumSum"])
def test_a_zero_slot_that_something_counts_stays(reader: str) -> None:
    net = Net("observed")
    weight = net.normal(6, WIDTH)
    weight[:, CHANNEL] = 0.0
    x = net.op("MatMul", net.input("x", (4, 6)), net.const(weight, "fc1.weight"))
    if reader == "ReduceMax":
        seen = net.reduce(reader, x, 1)
    elif reader == "CumSum":
        seen = net.op(reader, x, net.ints(1))
    else:
        seen = net.op(reader, x, axis=1)
    state, _ = proved(net.build(net.dense(x, WIDTH, 3, name="fc2"), seen))
    assert removed(state, "fc1.weight", 1) == []


def test_a_zero_slot_under_a_mean_goes_and_the_count_stays() -> None:
    net = Net("mean")
    weight = net.normal(6, WIDTH)
    weight[:, CHANNEL] = 0.0
    x = net.op("MatMul", net.input("x", (4, 6)), net.const(weight, "fc1.weight"))
    model = net.build(net.dense(x, WIDTH, 3, bias=False, name="fc2"), net.mean(x, 1))
    state, smaller = proved(model)
    assert removed(state, "fc1.weight", 1) == [CHANNEL]
    assert same_function(model, smaller)


# -- what must not be zero -------------------------------------------------------------------------------------------


def test_the_direction_of_a_weight_norm_is_spared_and_its_length_is_zeroed() -> None:
    net = Net("weight_norm")
    x = net.op("Relu", net.linear(net.input("x", (4, 6)), 6, 10, name="fc1"))
    v, g = net.const(net.normal(8, 10), "fc2.v"), net.const(net.positive(8, 1), "fc2.g")
    weight = net.op("Mul", g, net.op("Div", v, net.reduce("ReduceL2", v, 1)))
    y = net.op("Relu", net.op("Gemm", x, weight, net.bias(8, "fc2.bias"), transB=1))
    model = net.build(net.linear(y, 8, 5, name="fc3"))
    families = {family.dim: family for family in ozgraph.analyze(model).families}
    rows = families["fc2.g"]
    assert {member.value.name for member in rows.members} == {"fc2.g", "fc2.bias"}
    assert ("fc2.v", 0) in {(value.name, axis) for value, axis in rows.slices}

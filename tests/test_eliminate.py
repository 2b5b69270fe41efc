"""Elimination finds the zeros that a file has, whoever made them, and never changes the function.

Every comparison here is with the untouched file, by onnxruntime alone.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import ozgraph
from models.building import Net
from models.feeding import feeds, run
from models.halving import NOTHING, HalfOfEveryFamily, zeroed_by_hand
from models.moves import image
from models.rows import ROWS
from ozgraph.api import PruneResult
from ozgraph.cli import run as command_line


def eliminated(model: onnx.ModelProto, folder: Path) -> tuple[PruneResult, onnx.ModelProto]:
    """What ``eliminate`` makes of a file; the file is untouched and the function is the very same."""
    before, after = folder / "before.onnx", folder / "after.onnx"
    onnx.save(model, before)
    content = before.read_bytes()
    result = ozgraph.eliminate(before, after)
    assert before.read_bytes() == content
    assert result.report.frozen_by_verification == ()
    small = onnx.load(after)
    onnx.checker.check_model(small, full_check=True)
    same_function(model, small)
    return result, small


def same_function(model: onnx.ModelProto, small: onnx.ModelProto) -> None:
    for sizes in ({}, {"batch": 3, "sequence": 9}):
        for seed in range(3):
            inputs = feeds(model, seed, sizes)
            for wanted, found in zip(run(model, inputs), run(small, inputs), strict=True):
                scale = float(np.abs(wanted.astype(np.float64)).max())
                coarse = 1e-2 if wanted.dtype == np.float16 else 1e-5
                np.testing.assert_allclose(found, wanted, rtol=0, atol=coarse * scale)


def widths(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """Shapes of all initializers."""
    return {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}


def contents(model: onnx.ModelProto) -> dict[str, bytes]:
    """Bytes of all initializers."""
    return {tensor.name: numpy_helper.to_array(tensor).tobytes() for tensor in model.graph.initializer}


def edited(model: onnx.ModelProto, **changes: Callable[[np.ndarray], None]) -> onnx.ModelProto:
    """The model with some initializers changed in place; ``__`` in a keyword stands for a dot."""
    for tensor in model.graph.initializer:
        change = changes.get(tensor.name.replace(".", "__"))
        if change is not None:
            array = numpy_helper.to_array(tensor).copy()
            change(array)
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    return model


def zero(*index: object) -> Callable[[np.ndarray], None]:
    def change(array: np.ndarray) -> None:
        array[index] = 0

    return change


@pytest.mark.parametrize("name", ["dead_zero", "dead_negative"])
def test_a_channel_that_batch_norm_and_relu_leave_at_zero_goes(name: str, tmp_path: Path) -> None:
    result, small = eliminated(ROWS[name](), tmp_path)
    assert result.report.removed_slots == 2
    assert widths(small)["conv1.weight"] == (6, 3, 3, 3) and widths(small)["conv2.weight"] == (6, 6, 3, 3)


@pytest.mark.parametrize("name", ["dead_constant", "dead_constant_valid"])
def test_a_channel_that_is_a_constant_folds_into_the_next_bias_and_goes(name: str, tmp_path: Path) -> None:
    model = ROWS[name]()
    result, small = eliminated(model, tmp_path)
    assert result.report.removed_slots == 2
    assert widths(small)["conv2.weight"][:2] == (6, 6)
    biases = [node.input[2] for node in small.graph.node if node.op_type == "Conv" and len(node.input) > 2]
    folded = [numpy_helper.to_array(t) for t in small.graph.initializer if t.name in biases and t.dims == [6]]
    weight, bias = (
        next(numpy_helper.to_array(t).astype(np.float64) for t in model.graph.initializer if t.name == name)
        for name in ("conv2.weight", "conv2.bias")
    )
    wanted = bias + 0.3 * weight[:, [2, 5]].sum(axis=(1, 2, 3))
    assert any(np.allclose(array, wanted, atol=1e-6) for array in folded)


def test_a_convolution_without_a_bias_gets_one_for_the_constant(tmp_path: Path) -> None:
    model = ROWS["dead_constant_no_bias"]()
    result, small = eliminated(model, tmp_path)
    assert result.report.removed_slots == 2
    reader = {node.op_type + node.name: len(node.input) for node in small.graph.node if node.op_type == "Conv"}
    before = {node.op_type + node.name: len(node.input) for node in model.graph.node if node.op_type == "Conv"}
    assert sum(reader.values()) == sum(before.values()) + 1


def test_a_constant_before_zero_padding_stays(tmp_path: Path) -> None:
    result, small = eliminated(ROWS["dead_constant_padded"](), tmp_path)
    assert result.report.removed_slots == 0
    assert widths(small)["conv1.weight"] == (8, 3, 3, 3)


def test_a_constant_through_a_residual_add_stays_where_the_other_branch_is_alive(tmp_path: Path) -> None:
    net = Net("half_alive")
    x = net.op("Relu", net.conv(image(net), 3, 8, name="stem"))
    y = net.op("Add", x, net.conv(x, 8, 8, name="inner"))
    model = net.build(net.conv(net.op("Relu", y), 8, 5, 1, name="last"))
    edited(model, inner__weight=zero([2, 5]), inner__bias=zero([2, 5]))
    assert eliminated(model, tmp_path)[0].report.removed_slots == 0
    edited(model, stem__weight=zero([2]), stem__bias=zero([2]))
    result, small = eliminated(model, tmp_path)
    assert result.report.removed_slots == 1, "only the channel that is dead in both branches"
    assert widths(small)["stem.weight"][0] == widths(small)["inner.weight"][0] == 7


def test_channels_that_feed_only_zeros_go_whatever_they_hold(tmp_path: Path) -> None:
    result, small = eliminated(ROWS["dead_consumer"](), tmp_path)
    assert result.report.removed_slots == 2
    assert widths(small)["conv1.weight"][0] == 6 and widths(small)["conv1.bias"] == (6,)


def test_zeros_in_one_of_two_consumers_are_not_enough(tmp_path: Path) -> None:
    net = Net("two_readers")
    x = net.op("Tanh", net.linear(net.input("x", (4, 6)), 6, 12, name="fc1"))
    model = net.build(net.op("Add", net.linear(x, 12, 5, name="left"), net.linear(x, 12, 5, name="right")))
    edited(model, left__weight=zero(slice(None), [1, 4, 9]))
    assert eliminated(model, tmp_path)[0].report.removed_slots == 0
    edited(model, right__weight=zero(slice(None), [4]))
    result, small = eliminated(model, tmp_path)
    assert result.report.removed_slots == 1 and widths(small)["fc1.weight"] == (11, 6)


def test_dead_hidden_units_of_an_mlp_go(tmp_path: Path) -> None:
    result, small = eliminated(ROWS["dead_hidden"](), tmp_path)
    assert result.report.removed_slots == 3
    assert widths(small)["fc1.weight"] == (9, 6) and widths(small)["fc2.weight"] == (5, 9)


def test_a_hidden_unit_with_a_bias_of_its_own_folds(tmp_path: Path) -> None:
    net = Net("constant_unit")
    x = net.op("Sigmoid", net.linear(net.input("x", (4, 6)), 6, 12, name="fc1"))
    model = edited(net.build(net.linear(x, 12, 5, bias=False, name="fc2")), fc1__weight=zero([3, 8]))
    result, small = eliminated(model, tmp_path)
    assert result.report.removed_slots == 2 and widths(small)["fc1.weight"] == (10, 6)


@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_dead_hidden_units_of_recurrent_layers_go_through_all_gates(name: str, tmp_path: Path) -> None:
    gates = {"lstm": 4, "gru": 3}[name]
    model = ROWS[name]()
    rows = [gate * 10 + unit for gate in range(gates) for unit in (3, 7)]
    both = [*rows, *(gates * 10 + row for row in rows)]
    dead = {f"{name}1__W": zero(0, rows), f"{name}1__R": zero(0, rows), f"{name}1__B": zero(0, both)}
    result, small = eliminated(edited(model, **dead), tmp_path)
    assert result.report.removed_slots == 2
    assert widths(small)[f"{name}1.R"] == (1, gates * 8, 8)
    assert [a.i for n in small.graph.node for a in n.attribute if a.name == "hidden_size"] == [8, 8]


def test_a_hidden_unit_whose_bias_is_alive_in_one_gate_stays(tmp_path: Path) -> None:
    model, rows = ROWS["lstm"](), [gate * 10 + 3 for gate in range(4)]
    dead = {"lstm1__W": zero(0, rows), "lstm1__R": zero(0, rows)}
    assert eliminated(edited(model, **dead), tmp_path)[0].report.removed_slots == 0


def test_a_dead_head_goes_with_everything_that_it_has(tmp_path: Path) -> None:
    model = ROWS["attention_fused_qkv"]()
    columns = [part * 24 + 6 + unit for part in range(3) for unit in range(6)]
    dead = {"qkv__weight": zero(slice(None), columns), "qkv__bias": zero(columns)}
    result, small = eliminated(edited(model, **dead), tmp_path)
    assert widths(small)["qkv.weight"] == (16, 54)
    assert result.report.removed_slots == 1


def test_a_head_with_zero_queries_only_still_averages_and_stays(tmp_path: Path) -> None:
    model = ROWS["attention_fused_qkv"]()
    dead = {"qkv__weight": zero(slice(None), slice(6, 12)), "qkv__bias": zero(slice(6, 12))}
    result, _ = eliminated(edited(model, **dead), tmp_path)
    assert result.report.removed_slots == 0


def test_what_fed_only_dead_slots_goes_as_well(tmp_path: Path) -> None:
    net = Net("chain")
    x = net.input("x", (4, 6))
    for index in range(3):
        x = net.op("Relu", net.linear(x, 6 if index == 0 else 8, 8, name=f"fc{index}"))
    model = net.build(net.linear(x, 8, 5, name="last"))
    everything = slice(None)
    edited(model, last__weight=zero(everything, [1, 2]), fc2__weight=zero(slice(0, 8), [3]))
    for weight in ("fc1.weight", "fc2.weight"):
        assert widths(model)[weight] == (8, 8)
    # Only the dead units 1 and 2 of fc2 read unit 5 of fc1.
    alive = [unit for unit in range(8) if unit not in (1, 2)]
    edited(model, fc2__weight=lambda array: array.__setitem__((alive, 5), 0))
    result, small = eliminated(model, tmp_path)
    assert widths(small)["fc2.weight"] == (6, 6) and widths(small)["fc1.weight"] == (6, 8)
    assert result.report.removed_slots == 4


def test_a_layer_that_is_all_zero_keeps_one_slot(tmp_path: Path) -> None:
    net = Net("all_zero")
    x = net.input("x", (4, 6))
    y = net.op("Relu", net.linear(x, 6, 8, name="dead"))
    model = net.build(net.op("Add", net.linear(y, 8, 5, name="left"), net.linear(x, 6, 5, name="right")))
    result, small = eliminated(edited(model, dead__weight=zero(), dead__bias=zero()), tmp_path)
    assert widths(small)["dead.weight"] == (1, 6) and result.report.removed_slots == 7


WITHOUT_DEAD_SLOTS = ["residual_add", "attention_separate", "lstm", "dynamic_sequence", "half", "double_mlp"]


@pytest.mark.parametrize("name", WITHOUT_DEAD_SLOTS)
def test_a_model_without_dead_slots_comes_out_unchanged_and_says_so(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = ROWS[name]()
    result, small = eliminated(model, tmp_path)
    assert result.report.removed_slots == 0 and result.report.widths == ()
    assert result.report.parameters_after == result.report.parameters_before
    assert contents(small) == contents(model)
    assert [node.op_type for node in small.graph.node] == [node.op_type for node in model.graph.node]
    assert command_line(["eliminate", str(tmp_path / "before.onnx"), "-o", str(tmp_path / "again.onnx")]) == 0
    assert "no slot removed" in capsys.readouterr().out


def test_what_is_eliminated_once_holds_nothing_for_a_second_time(tmp_path: Path) -> None:
    _, small = eliminated(ROWS["dead_constant"](), tmp_path)
    again, _ = eliminated(small, tmp_path)
    assert again.report.removed_slots == 0


@pytest.mark.parametrize("name", ROWS)
def test_groups_that_someone_else_set_to_zero_are_found_and_go(name: str, tmp_path: Path) -> None:
    model = ROWS[name]()
    pruned = ozgraph.prune(model, target=NOTHING, passes=[HalfOfEveryFamily(seed=1)])
    zeroed = zeroed_by_hand(model, pruned.state)
    if zeroed is None:
        pytest.skip("its weights are not plain initializers")
    if name in ("weight_constant_of_shape", "vacuous_output"):
        pytest.skip("its zeros cannot be written by hand, or it has no output that varies")
    result, _ = eliminated(zeroed, tmp_path)
    assert result.report.parameters_after <= pruned.report.parameters_after

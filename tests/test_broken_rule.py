"""A wrong rule cannot hurt: the certificate or verification stops it, names the family, and the rest is pruned."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

import ozgraph
from models.building import Net
from models.feeding import feeds, run
from ozgraph.graph import Op
from ozgraph.passes.prove_dead import zeroing
from ozgraph.passes.state import State
from ozgraph.rules.lattice import opaque, uniform
from ozgraph.rules.notation import Letter
from ozgraph.rules.rule import Rule, Spec, line, with_describe
from ozgraph.rules.table import Override, registered


@contextmanager
def broken(operators: str, rule: Rule) -> Iterator[None]:
    """Replace a rule; it must have been another one before and be back afterwards."""
    before = registered()[operators]
    with Override(operators, rule):
        assert registered()[operators] is rule
        yield
    assert registered()[operators] is before


def zeroed(model: onnx.ModelProto, state: State) -> onnx.ModelProto:
    """The original with exactly the chosen members at zero, made without ozgraph's own backend."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    members = {(value.name, axis): positions for (value, axis), positions in zeroing(state).items()}
    for tensor in copy.graph.initializer:
        array = onnx.numpy_helper.to_array(tensor).copy()
        for (name, axis), positions in members.items():
            if name == tensor.name:
                array[(slice(None),) * axis + (positions,)] = 0.0
        tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    return copy


def right(model: onnx.ModelProto, result: ozgraph.PruneResult, written: Path) -> bool:
    """Whether the written file is the zeroed original, on other inputs than verification used."""
    reference = zeroed(model, result.state)
    return all(
        np.allclose(a, b, rtol=1e-4, atol=1e-5)
        for seed in (101, 102)
        for a, b in zip(run(reference, feeds(model, seed)), run(str(written), feeds(model, seed)), strict=True)
    )


def held(result: ozgraph.PruneResult) -> set[str]:
    """The tensors by which families that verification gave back are named."""
    return {row.reason.split(": ")[0] for row in result.report.frozen_by_verification}


def removed(result: ozgraph.PruneResult) -> dict[str, int]:
    return {row.dim: row.size - row.kept for row in result.report.widths}


# -- an axis that comes from the wrong operand -----------------------------------------------------------------------


def square_product() -> onnx.ModelProto:
    """A layer, a product with a square weight whose rows and columns a wrong rule may mix up, and two layers."""
    net = Net("square_product")
    x = net.op("Relu", net.linear(net.input("x", (4, 6)), 6, 8, name="fc1"))
    x = net.op("Tanh", net.op("MatMul", x, net.weight(8, 8, fan=8, hint="square")))
    x = net.op("Relu", net.linear(x, 8, 12, name="fc2"))
    return net.build(net.linear(x, 12, 3, name="fc3"))


def test_a_product_whose_columns_come_from_the_wrong_axis_is_stopped_and_the_rest_is_pruned(tmp_path: Path) -> None:
    wrong = line("... m k, ... n k -> ... m n", transfer=registered()["MatMul"].transfer, macs="m k n")
    model, output = square_product(), tmp_path / "small.onnx"
    with broken("MatMul", wrong):
        result = ozgraph.prune(model, output, target=ozgraph.Target(groups=0.4), round_to=1)
    assert held(result)
    assert held(result) <= {"fc1.weight", "square"}
    assert removed(result)["fc2.weight"] > 0
    assert right(model, result, output)


def test_the_same_model_with_the_right_rule_is_pruned_everywhere(tmp_path: Path) -> None:
    model, output = square_product(), tmp_path / "small.onnx"
    result = ozgraph.prune(model, output, target=ozgraph.Target(groups=0.4), round_to=1)
    assert not held(result)
    assert right(model, result, output)


# -- an operator that is taken for pointwise -------------------------------------------------------------------------


def softmax_between() -> onnx.ModelProto:
    net = Net("softmax_between")
    x = net.op("Softmax", net.linear(net.input("x", (4, 6)), 6, 10, name="fc1"), axis=1)
    x = net.op("Relu", net.linear(x, 10, 12, name="fc2"))
    return net.build(net.linear(x, 12, 3, name="fc3"))


@pytest.mark.parametrize("claim", ["stays what it is", "is unknown"])
def test_a_softmax_that_is_taken_for_pointwise_is_stopped(claim: str, tmp_path: Path) -> None:
    wrong = replace(registered()["Relu"], transfer=uniform if claim == "stays what it is" else opaque)
    model, output = softmax_between(), tmp_path / "small.onnx"
    with broken("Softmax", wrong):
        result = ozgraph.prune(model, output, target=ozgraph.Target(groups=0.4), round_to=1)
    assert held(result) == {"fc1.weight"}
    assert removed(result) == {"fc2.weight": removed(result)["fc2.weight"]}
    assert removed(result)["fc2.weight"] > 0
    assert right(model, result, output)


def test_the_reason_names_the_family_and_what_differed() -> None:
    with broken("Softmax", replace(registered()["Relu"], transfer=uniform)):
        result = ozgraph.prune(softmax_between(), target=ozgraph.Target(groups=0.4), round_to=1)
    (row,) = result.report.frozen_by_verification
    assert row.reason.startswith("fc1.weight: it did not verify: ")
    assert row.slots == 10
    family = next(family for family in result.state.families if family.dim == "fc1.weight")
    assert family.held is not None
    assert row.operator == family.id
    assert not result.state.dims.free_slots(family.atom).any()


# -- a rewrite that is missing ---------------------------------------------------------------------------------------


def grouped() -> onnx.ModelProto:
    net = Net("grouped")
    x = net.op("Relu", net.conv(net.input("x", (2, 3, 6, 6)), 3, 8, 1, name="conv1"))
    x = net.op("Relu", net.conv(x, 8, 8, 3, group=8, name="depthwise"))
    x = net.op("Relu", net.conv(x, 8, 12, 1, name="conv2"))
    return net.build(net.op("GlobalAveragePool", net.conv(x, 12, 4, 1, name="conv3")))


def test_a_convolution_whose_group_attribute_does_not_follow_is_stopped(tmp_path: Path) -> None:
    model, output = grouped(), tmp_path / "small.onnx"
    with broken("Conv", replace(registered()["Conv"], rewrite=None)):
        result = ozgraph.prune(model, output, target=ozgraph.Target(groups=0.4), round_to=1)
    assert held(result) == {"conv1.weight"}
    assert removed(result)["conv2.weight"] > 0
    assert right(model, result, output)


def test_a_rewrite_that_raises_gives_its_family_back_and_the_rest_is_pruned(tmp_path: Path) -> None:
    def fails(edit: object) -> None:
        raise ZeroDivisionError("a bug in the rule")

    net = Net("reshaped")
    x = net.op("Relu", net.linear(net.input("x", (4, 6)), 6, 8, name="fc1"))
    x = net.op("Relu", net.linear(net.reshape(x, 4, 8), 8, 10, name="fc2"))
    model, output = net.build(net.linear(x, 10, 3, name="fc3")), tmp_path / "small.onnx"
    with broken("Reshape", replace(registered()["Reshape"], rewrite=fails)):
        result = ozgraph.prune(model, output, target=ozgraph.Target(groups=0.4), round_to=1)
    (given_back,) = result.report.frozen_by_verification
    assert given_back.reason.startswith("fc1.weight: the rule of Reshape cannot rewrite 'node_reshape'")
    assert removed(result)["fc2.weight"] > 0
    assert "fc1.weight" not in removed(result)
    assert right(model, result, output)


# -- dims that contradict themselves ---------------------------------------------------------------------------------


def test_a_rule_that_does_not_fit_the_shapes_freezes_what_it_touches() -> None:
    net = Net("misfit")
    x = net.op("Relu", net.linear(net.input("x", (4, 6)), 6, 8, name="fc1"))
    model = net.build(net.linear(x, 8, 3, name="fc2"))
    with broken("Relu", line("a b -> b a", transfer=uniform)):
        analysis = ozgraph.analyze(model)
    assert analysis.families == []
    assert ("the rule does not fit the shapes that the model declares", "Relu") in {
        (row.reason, row.operator) for row in analysis.report.frozen
    }


def test_a_zero_that_a_wrong_transfer_invents_is_stopped_when_nothing_is_zeroed(tmp_path: Path) -> None:
    # The rule claims that a sigmoid keeps zeros: elimination would drop a channel that is one half.
    net = Net("sigmoid")
    weight, bias = net.normal(8, 6), net.normal(8)
    weight[[2, 5]], bias[[2, 5]] = 0.0, 0.0
    x = net.op("Gemm", net.input("x", (4, 6)), net.const(weight, "fc1.weight"), net.const(bias, "fc1.bias"), transB=1)
    dead = net.normal(12, 8)
    dead[:3] = 0.0
    x = net.op("Gemm", net.op("Sigmoid", x), net.const(dead, "fc2.weight"), transB=1)
    model = net.build(net.linear(net.op("Relu", x), 12, 3, name="fc3"))
    output = tmp_path / "small.onnx"
    with broken("Sigmoid", replace(registered()["Sigmoid"], transfer=uniform)):
        result = ozgraph.eliminate(model, output)
    assert held(result) == {"fc1.weight"}
    assert removed(result) == {"fc2.weight": 3} or result.report.removed_slots == 3
    assert all(
        np.allclose(a, b, rtol=1e-4, atol=1e-5)
        for a, b in zip(run(model, feeds(model, 7)), run(str(output), feeds(model, 7)), strict=True)
    )


def test_a_rule_with_other_axes_is_made_from_the_right_one() -> None:
    def swapped(op: Op) -> Spec:
        return Spec(((Letter("a"), Letter("b")),), ((Letter("b"), Letter("a")),))

    right_one = registered()["Relu"]
    assert with_describe(right_one, swapped).transfer is right_one.transfer


def test_an_override_of_an_unknown_operator_leaves_nothing_behind() -> None:
    with Override("my.domain.Swirl", registered()["Relu"]):
        assert "my.domain.Swirl" in registered()
    assert "my.domain.Swirl" not in registered()

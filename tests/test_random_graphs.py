"""Random models of 5 to 40 operators: half of what can go is removed, and onnxruntime finds the same function."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, note, settings

import ozgraph
from fuzz.campaign import graphs
from fuzz.graphs import FEWEST, MOST, Made, build
from fuzz.judge import AGREED, compared, judged
from fuzz.layers import LAYERS
from fuzz.recipes import Recipe, random_recipe, recipes, shrunk
from models.building import Net
from models.feeding import run

SLICE = 150


@pytest.mark.parametrize("first", range(0, SLICE, 50))
def test_half_of_what_can_go_from_a_random_model_leaves_its_function(first: int) -> None:
    found = graphs(0, first, first + 50)
    assert not found["failures"], found["failures"]
    assert found["counts"][AGREED] >= 35, "most models lose something"


@given(recipe=recipes())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_half_of_what_can_go_from_a_model_that_hypothesis_makes(recipe: Recipe) -> None:
    verdict = judged(recipe)
    note(f"{build(recipe).layers}: {verdict.detail}")
    assert not verdict.wrong


def test_random_models_are_valid_of_the_promised_size_and_use_every_layer() -> None:
    seen: set[str] = set()
    for number in range(120):
        made = build(random_recipe([5, number]))
        seen.update(made.layers)
        assert FEWEST <= len(made.model.graph.node) <= MOST
        if number < 40:
            onnx.checker.check_model(made.model, full_check=True)
            outputs = run(made.model, made.inputs(1), optimize=False)
            others = run(made.model, made.inputs(2), optimize=False)
            assert any(not np.array_equal(a, b) for a, b in zip(outputs, others, strict=True)), number
    assert len(seen) > 0.9 * len(LAYERS), LAYERS.keys() - seen


def test_the_same_number_makes_the_same_model() -> None:
    first, second = (build(random_recipe([3, 14])).model for _ in range(2))
    assert first.SerializeToString() == second.SerializeToString()


def test_a_failing_model_shrinks_to_few_layers() -> None:
    recipe = next(r for r in map(random_recipe, ([4, n] for n in range(400))) if "softmax" in build(r).layers)
    small = shrunk(recipe, lambda candidate: "softmax" in build(candidate).layers)
    assert build(small).layers == ("softmax",)


# -- what the campaign found, by hand --------------------------------------------------------------------------------


def _padded_channels() -> onnx.ModelProto:
    """Channels that padding makes, constant after a batch norm: which one stays must not be one that is zeroed."""
    net = Net("padded_channels", seed=3)
    x = net.op("Pad", net.input("x", (2, 3, 6, 6)), net.ints(0, 0, 0, 0, 0, 2, 0, 0, hint="pads"))
    return net.build(net.conv(net.batch_norm(x, 5), 5, 4, 1))


def _folded_overlap() -> onnx.ModelProto:
    """Slots that go with groups and with channels at once carry one constant into the bias, not two."""
    net = Net("folded_overlap")
    x = net.op("HardSigmoid", net.linear(net.input("x", (2, 6)), 6, 8))
    x = net.reshape(net.transpose(net.reshape(x, 0, 2, 4), 0, 2, 1), 0, 8)
    return net.build(net.linear(x, 8, 3))


def _one_of_taken_twice() -> onnx.ModelProto:
    """One position of an axis that is a permutation of another, twice."""
    net = Net("one_of_taken_twice")
    x = net.slice(net.conv(net.input("x", (2, 3, 6, 6)), 3, 4, 1), -1, -(1 << 30), 1, -1)
    x = net.op("Gather", net.op("Concat", x, x, axis=1), net.integer(0), axis=1)
    return net.build(net.dense(x, 6, 3))


@pytest.mark.parametrize("everything", [False, True])
@pytest.mark.parametrize("model", [_padded_channels, _folded_overlap, _one_of_taken_twice])
def test_what_random_models_found_stays_mended(model: object, everything: bool) -> None:
    assert callable(model)
    verdict = compared(Made(model(), (), everything))
    assert not verdict.wrong, verdict.detail


def test_small_weights_in_external_data_may_be_looked_at_while_the_smaller_model_is_written(tmp_path: Path) -> None:
    net = Net("small_external")
    x = net.op("Relu", net.linear(net.input("x", (2, 6)), 6, 12))
    model = net.build(net.linear(net.slice(x, 0, 8, 1), 8, 5))
    onnx.save(model, tmp_path / "split.onnx", save_as_external_data=True, location="split.bin", size_threshold=0)
    result = ozgraph.prune(tmp_path / "split.onnx", tmp_path / "small.onnx", target=ozgraph.Target(parameters=0.3))
    assert result.report.removed_slots > 0
    ozgraph.load(tmp_path / "small.onnx")

"""Selections that are measured: an output change that is never passed, a latency that is reached."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx_ir import serde

import ozgraph
from models.building import Net
from models.feeding import feeds, run
from ozgraph.errors import UsageError
from ozgraph.passes import search
from ozgraph.passes.search import SelectByDrift, macs_for_latency
from ozgraph.passes.select import Select
from ozgraph.passes.state import State
from ozgraph.results import BenchReport


def model() -> onnx.ModelProto:
    net = Net("three_layers")
    x = net.op("Relu", net.linear(net.input("x", (4, 6)), 6, 24, name="fc1"))
    x = net.op("Tanh", net.linear(x, 24, 16, name="fc2"))
    return net.build(net.linear(x, 16, 3, name="fc3"))


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    path = tmp_path / "inputs.npz"
    np.savez(path, **feeds(model(), seed=5))
    return path


def change(result: ozgraph.PruneResult, path: Path) -> float:
    """The largest change of the output on given inputs, over the range of the original's."""
    with np.load(path) as stored:
        given = dict(stored)
    (original,) = run(model(), given)
    (pruned,) = run(serde.serialize_model(result.model), given)
    return float(np.abs(original - pruned).max() / np.ptp(original))


@pytest.mark.parametrize("limit", [0.02, 0.1, 0.3])
def test_max_drift_is_never_exceeded_on_the_given_inputs(limit: float, inputs: Path) -> None:
    result = ozgraph.prune(model(), max_drift=limit, inputs=inputs, round_to=1)
    assert change(result, inputs) <= limit * (1 + 1e-4)


def test_more_drift_removes_more(inputs: Path) -> None:
    removed = [
        ozgraph.prune(model(), max_drift=limit, inputs=inputs, round_to=1).report.removed_slots
        for limit in (0.0, 0.2, 0.5)
    ]
    assert removed[0] < removed[1] < removed[2]


def test_drift_is_measured_on_the_given_inputs(inputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def made(*_: object, **__: object) -> None:
        raise AssertionError("inputs were given, so none are made")

    monkeypatch.setattr("ozgraph.numerics.inputs.make_inputs", made)
    state = ozgraph.analyze(model()).state
    SelectByDrift(Select(round_to=1), 0.2, inputs).run(state)
    assert state.chosen


def test_inputs_that_a_layer_does_not_see_let_it_go_at_no_drift(tmp_path: Path) -> None:
    # Slots 3 to 7 of the first layer read only the second input feature, which is zero in the given inputs.
    net = Net("half_blind")
    weight = net.normal(8, 2)
    weight[3:, 0], weight[:3, 1] = 0.0, 0.0
    weight[3:] *= 0.01
    x = net.op("Gemm", net.input("x", (4, 2)), net.const(weight, "fc1.weight"), transB=1)
    blind = net.build(net.dense(net.op("Relu", x), 8, 3, bias=False, name="fc2"))
    path = tmp_path / "x.npz"
    np.savez(path, x=np.stack([np.linspace(-1, 1, 4), np.zeros(4)], axis=1).astype(np.float32))
    state = ozgraph.analyze(blind).state
    SelectByDrift(Select(round_to=1), 0.0, path).run(state)
    family = state.families[0]
    assert np.flatnonzero(state.chosen.mask(family.atom)).tolist() == [3, 4, 5, 6, 7]


@pytest.mark.parametrize("drift", [-0.1, float("nan")])
def test_a_senseless_drift_is_refused(drift: float) -> None:
    with pytest.raises(UsageError, match="max_drift must be 0 or more"):
        SelectByDrift(Select(), drift).run(ozgraph.analyze(model()).state)


def test_a_target_and_a_drift_exclude_each_other() -> None:
    with pytest.raises(UsageError, match="give either a target or max_drift"):
        ozgraph.prune(model(), target=ozgraph.Target(macs=0.5), max_drift=0.1)
    with pytest.raises(UsageError, match="give either a target or max_drift"):
        ozgraph.prune(model())


# -- latency ---------------------------------------------------------------------------------------------------------


def weights(path: Path) -> int:
    return sum(int(np.prod(tensor.dims)) for tensor in onnx.load(path).graph.initializer)


@pytest.fixture
def _latency_follows_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model takes as long as it has weights, and as much again that pruning cannot reach."""

    def bench(first: Path, second: Path, **_: object) -> BenchReport:
        fixed = weights(first)
        before, after = weights(first) + fixed, weights(second) + fixed
        ratio = before / after
        return BenchReport(str(first), str(second), before, after, ratio, ratio, ratio, 1, 1)

    monkeypatch.setattr("ozgraph.numerics.bench.bench", bench)


def saved(state: State) -> float:
    """The fraction of the fake latency that a selection saves."""
    cost = state.cost
    assert cost is not None
    total = cost.parameters()
    return (total - cost.parameters(state.chosen)) / (2 * total)


@pytest.mark.usefixtures("_latency_follows_weights")
@pytest.mark.parametrize("wanted", [0.05, 0.2, 0.35])
def test_a_latency_target_is_met_by_little_more_than_needed(wanted: float) -> None:
    state = ozgraph.analyze(model()).state
    select = Select(round_to=1)
    fraction = macs_for_latency(state, select, wanted)
    replace(select, target=ozgraph.Target(macs=fraction)).run(state)
    assert saved(state) >= wanted
    replace(select, target=ozgraph.Target(macs=max(fraction - 0.06, 0.0))).run(state)
    assert saved(state) < wanted


@pytest.mark.usefixtures("_latency_follows_weights")
def test_prune_takes_a_latency_target() -> None:
    result = ozgraph.prune(model(), target=ozgraph.Target(latency=0.2), round_to=1)
    assert saved(result.state) >= 0.2


@pytest.mark.usefixtures("_latency_follows_weights")
def test_a_latency_out_of_reach_says_what_was_tried() -> None:
    with pytest.raises(UsageError, match=r"removing \d+% of the MACs, the most there is, takes less than 90% off"):
        macs_for_latency(ozgraph.analyze(model()).state, Select(round_to=1), 0.9)


@pytest.mark.usefixtures("_latency_follows_weights")
def test_the_search_tells_its_progress() -> None:
    told: list[tuple[str, int | None, int | None]] = []
    macs_for_latency(ozgraph.analyze(model()).state, Select(round_to=1), 0.2, lambda *said: told.append(said))
    assert told == [("latency", step, search._STEPS) for step in range(search._STEPS)]


def test_select_alone_refuses_a_latency_target() -> None:
    with pytest.raises(UsageError, match=r"use ozgraph\.prune"):
        Select(ozgraph.Target(latency=0.5)).run(ozgraph.analyze(model()).state)

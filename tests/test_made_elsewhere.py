"""Models that other exporters wrote: networks lose half of every family, estimators come out as they went in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

import ozgraph
from models.halving import NOTHING, HalfOfEveryFamily

MADE = Path(__file__).parent / "models" / "made_elsewhere"
NETWORKS = sorted((MADE / "networks").glob("*.onnx"))
ESTIMATORS = sorted((MADE / "estimators").glob("*.onnx"))

LEAST = {
    "equinox_perceptron": 0.7,  # its norm asks whether the smallest of all is the largest
    "flax_mixer": 0.6,  # layers over its tokens add their biases to every channel, so that none is zero ahead of a norm
    "sklearn_clusters": 0.55,  # its centres are three positions that an argmin returns
}
"""Prunable shares of the parameters, of networks of which a part stays for what they mean."""


@pytest.mark.parametrize("path", NETWORKS, ids=lambda path: path.stem)
def test_half_of_every_family_of_a_network_goes(path: Path) -> None:
    graph = ozgraph.load(path)
    report = ozgraph.analyze(graph, rescale=True).report
    assert report.unknown_operators == {}
    assert report.prunable_parameters > LEAST.get(path.stem, 0.9) * report.parameters, report.frozen[:4]
    assert all(row.reason for row in report.frozen)
    result = ozgraph.prune(graph, target=NOTHING, passes=[HalfOfEveryFamily()], rescale=True)
    assert result.report.frozen_by_verification == ()
    assert result.state.verification is not None and result.state.verification.equal
    assert result.state.chosen.total == result.report.removed_slots > 0
    active = [family for family in result.state.families if family.active and family.atom.size > 3]
    assert all(result.state.removed.count(family.atom) for family in active)


def facts(node: onnx.NodeProto) -> list[object]:
    attributes: dict[str, object] = {
        attribute.name: [facts(inner) for inner in attribute.g.node]
        if attribute.HasField("g")
        else attribute.SerializeToString()
        for attribute in node.attribute
    }
    return [node.op_type, node.domain, list(node.input), list(node.output), attributes]


@pytest.mark.parametrize("path", ESTIMATORS, ids=lambda path: path.stem)
def test_an_estimator_passes_through_unchanged(path: Path, tmp_path: Path) -> None:
    report = ozgraph.analyze(path).report
    assert report.unknown_operators == {} and report.families == ()
    assert all(row.reason for row in report.frozen)
    ozgraph.eliminate(path, tmp_path / "out.onnx")
    before, after = onnx.load(path), onnx.load(tmp_path / "out.onnx")
    assert [facts(node) for node in after.graph.node] == [facts(node) for node in before.graph.node]
    assert [info.type for info in after.graph.output] == [info.type for info in before.graph.output]
    x = np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32)
    expected, found = (
        session.run(None, {session.get_inputs()[0].name: x})
        for session in (onnxruntime.InferenceSession(file) for file in (path, tmp_path / "out.onnx"))
    )
    for left, right in zip(expected, found, strict=True):
        assert left == right if isinstance(left, list) else np.array_equal(left, right)


def test_every_maker_left_its_files() -> None:
    makers = {path.stem.partition("_")[0] for path in (*NETWORKS, *ESTIMATORS)}
    assert makers == {"equinox", "flax", "keras", "lightgbm", "sklearn", "xgboost"}
    assert all(path.stat().st_size < 100_000 for path in (*NETWORKS, *ESTIMATORS))

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
NETWORKS = {path.stem: path for path in sorted(MADE.glob("*/*.onnx"))}

LEAST = {
    "sklearn_mlp_classifier": 0.97,
    "sklearn_mlp_regressor": 0.97,
    "sklearn_clusters": 0.5,  # its centres are three positions that an argmin returns
}
"""The prunable share of the parameters of each network."""

ESTIMATORS = sorted(NETWORKS.keys() - LEAST.keys())


@pytest.mark.parametrize("name", LEAST)
def test_half_of_every_family_of_a_network_goes(name: str) -> None:
    report = ozgraph.analyze(NETWORKS[name], rescale=True).report
    assert report.unknown_operators == {}
    assert report.prunable_parameters > LEAST[name] * report.parameters, report.frozen[:4]
    assert all(row.reason for row in report.frozen)
    result = ozgraph.prune(NETWORKS[name], target=NOTHING, passes=[HalfOfEveryFamily()], rescale=True)
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


@pytest.mark.parametrize("name", ESTIMATORS)
def test_an_estimator_passes_through_unchanged(name: str, tmp_path: Path) -> None:
    report = ozgraph.analyze(NETWORKS[name]).report
    assert report.unknown_operators == {} and report.families == ()
    assert all(row.reason for row in report.frozen)
    ozgraph.eliminate(NETWORKS[name], tmp_path / "out.onnx")
    before, after = onnx.load(NETWORKS[name]), onnx.load(tmp_path / "out.onnx")
    assert [facts(node) for node in after.graph.node] == [facts(node) for node in before.graph.node]
    assert [info.type for info in after.graph.output] == [info.type for info in before.graph.output]
    x = np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32)
    expected, found = (
        session.run(None, {session.get_inputs()[0].name: x})
        for session in (onnxruntime.InferenceSession(path) for path in (NETWORKS[name], tmp_path / "out.onnx"))
    )
    for left, right in zip(expected, found, strict=True):
        assert left == right if isinstance(left, list) else np.array_equal(left, right)


def test_every_maker_left_its_files() -> None:
    assert len(ESTIMATORS) == 9
    assert {name.partition("_")[0] for name in NETWORKS} == {"lightgbm", "sklearn", "xgboost"}

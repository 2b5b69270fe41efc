"""Twenty-five architectures in the small, one for each way to tie channels: half of what is free goes, twice."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from pathlib import Path
from typing import Any

import pytest

import ozgraph
from models.halving import NOTHING, HalfOfEveryFamily

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")

from models.mixed_bag import MIXED_BAG  # noqa: E402  (needs torch)

LEAST = {"flow": 0.8, "matched": 0.8}
"""Prunable shares of networks in which inputs and outputs hold a good part of so few weights."""


def test_there_are_twenty_five() -> None:
    assert len(MIXED_BAG) == 25


@pytest.mark.parametrize("name", MIXED_BAG)
def test_half_of_an_architecture_goes_in_pytorch_and_in_onnxruntime(name: str, tmp_path: Path) -> None:
    module, inputs = MIXED_BAG[name]()
    graph = ozgraph.capture(module, inputs)
    file = _exported(graph.origin.program, tmp_path / "model.onnx")
    report = ozgraph.analyze(graph, rescale=True).report
    assert report.unknown_operators == {}
    assert report.prunable_parameters > LEAST.get(name, 0.9) * report.parameters, report.frozen[:4]
    for source in (graph, file):
        result = ozgraph.prune(source, target=NOTHING, passes=[HalfOfEveryFamily()], rescale=True)
        assert result.report.frozen_by_verification == ()
        assert result.state.verification is not None and result.state.verification.equal
        assert result.report.removed_slots > 0
        active = [family for family in result.state.families if family.active and family.atom.size > 3]
        assert all(result.state.removed.count(family.atom) for family in active)


def _exported(program: Any, path: Path) -> Path:
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), torch.no_grad(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            torch.onnx.export(program, (), str(path), dynamo=True, optimize=False, external_data=False, verbose=False)
    finally:
        logging.disable(logging.NOTSET)
    return path

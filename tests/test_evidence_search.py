"""Evidence far upstream of a dead output: found in a few sessions, however deep the network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from models.building import Net
from ozgraph.frontends.onnx import load
from ozgraph.numerics import compare as comparing
from ozgraph.numerics import evidence
from ozgraph.numerics.compare import compare
from ozgraph.results import VerifyReport

DEPTH = 240


def chain(lively: int, *, gate: bool = False, bare: bool = False, change: float = 0.0) -> onnx.ModelProto:
    """A layer and ``DEPTH`` additions; after ``lively`` of them everything is multiplied by zero.

    Args:
        gate: a second path beside every addition that never varies.
        bare: the input is negated before a weight meets it, which no evidence can come of.
        change: what is added to one weight.
    """
    net = Net("chain", seed=3)
    weight = net.normal(6, 6)
    weight[0, 0] += change
    x = net.input("x", (2, 6))
    source = net.op("MatMul", net.op("Neg", x) if bare else x, net.const(weight, "weight"))
    y, still = source, net.op("Mul", source, net.number(0.0, "nothing"))
    for number in range(DEPTH):
        if number == lively:
            y = net.op("Mul", y, net.number(0.0, "zero"))
        y = net.op("Add", y, still if gate else net.const(net.normal(6), "shift"), hint=f"step{number}")
    return net.build(y)


class Counted:
    """How many sessions comparisons open."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sessions = 0
        run_all = evidence.run_all

        def counting(*given: Any) -> Any:
            self.sessions += 1
            return run_all(*given)

        monkeypatch.setattr(evidence, "run_all", counting)
        monkeypatch.setattr(comparing, "run_all", counting)


def compared(first: onnx.ModelProto, second: onnx.ModelProto, folder: Path, **others: Any) -> VerifyReport:
    for name, model in (("first", first), ("second", second)):
        onnx.save(model, folder / f"{name}.onnx")
    return compare(folder / "first.onnx", folder / "second.onnx", load(folder / "first.onnx"), threads=1, **others)


@pytest.mark.parametrize("bare", [False, True])
@pytest.mark.parametrize("gate", [False, True])
@pytest.mark.parametrize("lively", [1, 37, 150, DEPTH - 3])
def test_the_nearest_tensor_that_varies_is_found_in_a_few_sessions(
    lively: int, gate: bool, bare: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = Counted(monkeypatch)
    model = chain(lively, gate=gate, bare=bare)
    report = compared(model, model, tmp_path)
    assert report.equal
    assert f"step{lively - 1}_out" in report.compared
    # Each round is one session with graph optimisations and one without.
    assert counted.sessions <= 12


def test_a_difference_that_only_evidence_far_upstream_shows_is_found(tmp_path: Path) -> None:
    assert not compared(chain(37), chain(37, change=1e-2), tmp_path).equal


def test_a_later_comparison_looks_where_the_first_found_evidence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = compared(chain(37), chain(37), tmp_path)
    counted = Counted(monkeypatch)
    second = compared(chain(37), chain(37), tmp_path, expected=first.compared)
    assert second.compared == first.compared
    assert counted.sessions == 3


def test_what_was_evidence_once_is_not_believed_where_it_no_longer_varies(tmp_path: Path) -> None:
    report = compared(chain(37), chain(37), tmp_path, expected=("step100_out", "no such tensor"))
    assert report.compared == ("step36_out",)
    assert np.isfinite(report.max_relative_error)

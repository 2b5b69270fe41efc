"""Operators without a rule: they freeze what they touch, with a reason of their own, and leave the rest to prune."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from test_rules import applied

from applications.application import DATA
from applications.freezing import TABLE
from applications.operands import Operand
from applications.verdicts import Analysed, axes_of
from ozgraph.rules.table import registered, registered_freezing

ONNX = ("", "com.microsoft", "ai.onnx.ml")
"""The domains that the design counts; what stands for bodies in a graph has others, and so have PyTorch's operators."""

RULES = {name for name in registered() if name.rpartition(".")[0] in ONNX}
FREEZING = {name: why for name, why in registered_freezing().items() if name.rpartition(".")[0] in ONNX}

DESIGN = Path(__file__).parents[1] / "docs" / "design.md"


@pytest.mark.parametrize("operator", sorted(registered_freezing()))
def test_every_axis_that_it_touches_freezes_with_its_own_reason(operator: str) -> None:
    state = applied(operator, (3, 4), (5,), to=[(3, 4), (6,)])
    (op,) = state.graph.ops
    for value in (*op.inputs, *op.outputs):
        assert value is not None
        for dim in state.axes[value]:
            table = state.dims.ids(dim, frozen=True)
            numbers = state.dims.frozen_reason(table[table >= 0])
            assert {state.dims.reasons[number].text for number in numbers.tolist()} == {registered_freezing()[operator]}
            assert {state.dims.reasons[number].operator for number in numbers.tolist()} == {operator}
    assert not state.unknown


@pytest.mark.parametrize("name", TABLE)
def test_in_a_model_it_stays_as_it_is_and_the_rest_is_pruned(name: str) -> None:
    application = TABLE[name]
    model = Analysed(application, DATA, beside=True)
    for position, axis in axes_of(application):
        if isinstance(application.operands[position], Operand):
            verdict = model.verdict(position, axis)
            assert not verdict.removable
            assert not verdict.slots or registered_freezing()[application.operator] in verdict.reasons
    beside = [family for family in model.state.families if family.dim.startswith("beside")]
    assert [family.atom.size for family in beside] == [5, 7]
    model.check(beside)
    assert application.operator not in registered()


def test_the_design_counts_the_rules_and_the_operators_that_freeze() -> None:
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in DESIGN.read_text(encoding="utf-8").splitlines()
        if line.startswith("| ")
    ]
    counted = {why: int(count) for why, count, *_ in (row for row in rows if len(row) == 3) if count.isdigit()}
    microsoft = sum(name.startswith("com.microsoft.") for name in RULES)
    totals = {
        "have a rule, default domain": len(RULES) - microsoft,
        "have a rule, com.microsoft": microsoft,
        "freeze, with a reason of their own": len(FREEZING),
    }
    assert counted == totals | Counter(FREEZING.values())


def test_the_design_names_the_operators_that_freeze() -> None:
    text = DESIGN.read_text(encoding="utf-8")
    for operator, reason in FREEZING.items():
        (row,) = [line for line in text.splitlines() if line.startswith(f"| {reason} |")]
        assert operator.rpartition(".")[2] in row.split("|")[3].replace(",", " ").split()

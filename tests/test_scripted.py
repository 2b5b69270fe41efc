"""Scripted torch models: what the exporter writes for branches, loops and lists prunes through them."""

from __future__ import annotations

import pytest

import ozgraph
from models.zeroing import check_removal

pytest.importorskip("torch")
scripted = pytest.importorskip("models.scripted")

FAMILIES = {
    "gated": {10: "exact", 12: "exact"},
    "collecting": {10: "exact", 12: "exact"},
    "refining": {10: "rescaled", 16: "exact"},  # the condition of its loop takes a mean
}


@pytest.mark.parametrize("name", FAMILIES)
def test_a_scripted_model_prunes_inside_its_branches_and_loops(name: str) -> None:
    model = scripted.scripted(name)
    state = ozgraph.analyze(model, verify_each=True).state
    assert {family.atom.size: family.exactness for family in state.families} == FAMILIES[name]
    for families in ([family] for family in state.families):
        check_removal(model, state, families)
    check_removal(model, state, state.families)
    check_removal(model, state, state.families, all_but_one=True)

"""Prune half of what can go, all together and each family alone, and let onnxruntime judge."""

from __future__ import annotations

import onnx

import ozgraph
from ozgraph.passes.eliminate import Eliminate
from ozgraph.passes.families import Family
from ozgraph.passes.manager import Pipeline
from ozgraph.passes.prove_dead import ProveDead
from ozgraph.passes.select import Ranking, Select
from ozgraph.passes.state import State
from ozgraph.passes.verify import Verify


def halved(model: onnx.ModelProto, *, exact: bool = False) -> State:
    """Verify half of the slots of the families that are active, and of every family alone.

    Raises:
        AssertionError: something that was chosen stayed, or did not verify.
    """
    state = ozgraph.analyze(model, rescale=True, verify_each=True).state
    trials = [[family for family in state.families if family.active], *([family] for family in state.families)]
    for trial in trials:
        _verify_half(state, trial, exact)
    return state


def _verify_half(state: State, families: list[Family], exact: bool) -> None:
    for family in state.families:
        family.active = family in families
    blocks = Select(criterion="random", round_to=1).rank(state).blocks
    chosen = []
    for family in families:
        mine = [block for block in blocks if block[0] is family]
        chosen += mine[: (family.atom.size + 1) // 2]
    state.chosen = Ranking(state, chosen).removal(len(chosen))
    redo = (ProveDead(), Eliminate())
    Pipeline((*redo, Verify(exact=exact, redo=redo)), verify_each=True).run(state)
    assert not state.given_back, [row.reason for row in state.given_back]
    stayed = [
        family for family in families if (state.chosen.mask(family.atom) & ~state.removed.mask(family.atom)).any()
    ]
    assert not stayed


def families_of(state: State) -> set[tuple[str, int, str]]:
    """(the weight that a family is known by, its slots, exactness) of every family."""
    return {(family.dim, family.atom.size, family.exactness) for family in state.families}

"""A pruned model against the original zeroed by hand, in plain onnxruntime, without ozgraph's own verification."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import onnx
from onnx_ir import serde

import ozgraph
from models.feeding import feeds, run
from models.halving import zeroed_by_hand
from ozgraph.backends.onnx import apply
from ozgraph.passes.eliminate import Eliminate
from ozgraph.passes.families import Family
from ozgraph.passes.manager import Pipeline
from ozgraph.passes.prove_dead import ProveDead
from ozgraph.passes.state import Removal, State

CLOSE = 2e-5
"""How far outputs may be apart, relative to their largest element."""

Found = tuple[str, int, str]
"""(the weight that a family is known by, its slots, exactness)."""


def pruned(model: onnx.ModelProto, *wanted: Found) -> State:
    """Prune the families alone, all together and down to one slot each; every result is the zeroed original.

    Args:
        wanted: the families that there must be, all of them.

    Raises:
        AssertionError: other families were found, or a result is another function.
    """
    state = ozgraph.analyze(model, rescale=True, verify_each=True).state
    found = {(family.dim, family.atom.size, family.exactness) for family in state.families}
    assert found == set(wanted), found
    trials = [[family] for family in state.families]
    if len(trials) > 1:
        trials += [state.families, [family for family in state.families if family.active]]
    for trial in trials:
        for all_but_one in (False, True):
            check_removal(model, state, trial, all_but_one=all_but_one)
    return state


def refused(model: onnx.ModelProto, weight: str, axis: int, reason: str) -> State:
    """An axis of a weight stays whole, for this reason among others; what else can go is pruned rightly."""
    state = ozgraph.analyze(model, rescale=True, verify_each=True).state
    assert not free(state, weight, axis).any()
    assert any(reason in text for text in reasons(state, weight, axis)), reasons(state, weight, axis)
    if state.families:
        check_removal(model, state, state.families)
    return state


def check_removal(
    model: onnx.ModelProto,
    state: State,
    families: Iterable[Family],
    *,
    all_but_one: bool = False,
    slots: Sequence[int] | None = None,
) -> onnx.ModelProto:
    """Remove half of the free slots, all but one or the named ones, and compare with the same zeros made by hand."""
    rng = np.random.default_rng(5)
    state.chosen = Removal(state.dims.total)
    for family in families:
        free_slots = np.flatnonzero(state.dims.free_slots(family.atom))
        count = len(free_slots) - 1 if all_but_one else (len(free_slots) + 1) // 2
        mask = np.zeros(family.atom.size, dtype=bool)
        mask[rng.permutation(free_slots)[:count] if slots is None else list(slots)] = True
        state.chosen.add(family.atom, mask)
    Pipeline((ProveDead(), Eliminate()), verify_each=True).run(state)
    assert not state.given_back, state.given_back
    assert state.removed, "nothing went"
    small = serde.serialize_model(apply(state.graph, state.plan))
    onnx.checker.check_model(small, full_check=True)
    zeroed = zeroed_by_hand(model, state)
    assert zeroed is not None
    same_function(zeroed, small)
    return small


def same_function(first: onnx.ModelProto, second: onnx.ModelProto) -> None:
    """Two models compute the same, not finite elements included, and it is not nothing."""
    feeding = [feeds(first, seed) for seed in (21, 22)]
    wanted, found = ([run(model, inputs) for inputs in feeding] for model in (first, second))
    for outputs, others in zip(zip(*wanted, strict=True), zip(*found, strict=True), strict=True):
        size = max(np.abs(array[np.isfinite(array)]).max(initial=0.0) for array in outputs)
        assert size > 0, "the output is all zero"
        for a, b in zip(outputs, others, strict=True):
            np.testing.assert_allclose(b, a, rtol=0, atol=CLOSE * size)


def free(state: State, weight: str, axis: int) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Which positions of a weight axis need a slot that may go."""
    dim = state.axes[state.graph.values[weight]][axis]
    mask: np.ndarray[tuple[int], np.dtype[np.bool_]] = (state.dims.ids(dim) >= 0).any(axis=1)
    return mask


def reasons(state: State, weight: str, axis: int) -> set[str]:
    """Why slots of a weight axis cannot go."""
    table = state.dims.ids(state.axes[state.graph.values[weight]][axis], frozen=True)
    numbers = state.dims.frozen_reason(table[table >= 0])
    return {state.dims.reasons[number].text for number in np.unique(numbers[numbers >= 0]).tolist()}

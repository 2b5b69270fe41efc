"""Half of every active family removed, against the same model with the same members zeroed by hand, in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from onnx.reference import ReferenceEvaluator

import ozgraph
from fuzz.graphs import Made, build
from fuzz.recipes import Recipe
from models.building import Array
from models.feeding import session
from models.halving import NOTHING, HalfOfEveryFamily, zeroed_by_hand
from ozgraph.backends.onnx import apply
from ozgraph.errors import VerificationError
from ozgraph.numerics.reference_operators import REPAIRED
from ozgraph.passes.eliminate import Eliminate
from ozgraph.passes.freeze import Freeze
from ozgraph.passes.group import Group
from ozgraph.passes.infer_dims import InferDims
from ozgraph.passes.manager import Pipeline
from ozgraph.passes.normalize import Normalize
from ozgraph.passes.program import UNREADABLE
from ozgraph.passes.prove_dead import ProveDead
from ozgraph.passes.state import State

LIMIT = 1e-5
NOISE_FLOORS = 3
DOUBLE_LIMIT = 1e-9
"""The limit where the same recipe is judged again in float64, on onnx's reference evaluator."""
EPSILON = 3465 / (1 << 28)
"""About 1.3e-5. Attributes are float32 even in float64 models; n / m times this one still is, for small n and m."""

AGREED, ROUNDED, VACUOUS, NOTHING_FREE = "agreed", "agreed in float64", "nothing varies", "nothing to remove"
MISMATCH, UNREMOVED, GIVEN_BACK, CRASHED, UNVERIFIED = "mismatch", "unremoved", "given back", "crashed", "unverified"
WRONG = (MISMATCH, UNREMOVED, GIVEN_BACK, CRASHED, UNVERIFIED)
"""Outcomes that count against ozgraph; the rest do not."""


@dataclass(frozen=True)
class Verdict:
    """What became of one model.

    Attributes:
        outcome: one of the constants of this module.
        detail: what is wrong, or empty.
        error: the largest difference, over the spread of its output.
        families, removed: how many there were, and how many slots went.
    """

    outcome: str
    detail: str = ""
    error: float = 0.0
    families: int = 0
    removed: int = 0

    @property
    def wrong(self) -> bool:
        return self.outcome in WRONG


def judged(recipe: Recipe, *, whole: bool = False) -> Verdict:
    """Prune a recipe's model and compare.

    Args:
        whole: through :func:`ozgraph.prune`, with its own verification, as well.
    """
    made = build(recipe)
    verdict = compared(made)
    if verdict.outcome == MISMATCH:
        double = _compared_in_double(build(recipe, np.float64))
        if not double.wrong:
            return Verdict(ROUNDED, verdict.detail, verdict.error, verdict.families, verdict.removed)
        return Verdict(MISMATCH, f"{verdict.detail}; in float64: {double.detail}", verdict.error, verdict.families)
    if whole and verdict.outcome in (AGREED, ROUNDED):
        return _verified(made) or verdict
    return verdict


def pruned(made: Made) -> tuple[State, onnx.ModelProto]:
    """Half of every family that is active, removed without verification."""
    state = State(ozgraph.load(made.model))
    Pipeline((Normalize(), InferDims(), Freeze(), Group(rescale=made.everything))).run(state)
    HalfOfEveryFamily(everything=made.everything).run(state)
    Pipeline((ProveDead(), Eliminate())).run(state)
    return state, ir.to_proto(apply(state.graph, state.plan))


def compared(made: Made) -> Verdict:
    """Half of every active family of a model, in float32."""
    try:
        state, small = pruned(made)
    except Exception as error:
        return Verdict(CRASHED, f"{type(error).__name__}: {error}")
    families, removed = len(state.families), state.removed.total
    if UNREADABLE in {reason.text for reason in state.dims.reasons}:
        return Verdict(CRASHED, "a rule cannot read an operator that is as it should be")
    fault = _broken_promise(state)
    if fault is not None:
        return fault
    if not state.chosen:
        return Verdict(NOTHING_FREE, families=families)
    zeroed = zeroed_by_hand(made.model, state)
    assert zeroed is not None, "all weights of random models are floating initializers"
    feeds = [made.inputs(seed) for seed in (1, 2)]
    wanted = _run(zeroed, feeds)
    try:
        found = _run(small, feeds)
    except Exception as error:
        return Verdict(MISMATCH, f"the pruned model does not run: {' '.join(str(error).split())}", np.inf, families)
    alive, gap = _distance(wanted, found)
    if gap > LIMIT:
        _, noise = _distance(wanted, _run(zeroed, feeds, optimize=True))
        if gap > NOISE_FLOORS * noise:
            detail = f"differs by {gap:.1e} of the spread; noise {noise:.1e}"
            return Verdict(MISMATCH, detail, gap, families, removed)
    return Verdict(AGREED if alive else VACUOUS, error=gap, families=families, removed=removed)


def _broken_promise(state: State) -> Verdict | None:
    """Families that elimination gave back, and chosen slots that the prover does not find dead."""
    if state.given_back:
        return Verdict(GIVEN_BACK, "; ".join(f"{row.reason}" for row in state.given_back))
    for family in state.families:
        stayed = state.chosen.mask(family.atom) & ~state.removed.mask(family.atom)
        if stayed.any():
            return Verdict(UNREMOVED, f"{family} keeps the chosen slots {np.flatnonzero(stayed).tolist()}")
    return None


def _compared_in_double(made: Made) -> Verdict:
    for node in made.model.graph.node:
        for attribute in node.attribute:
            if attribute.name == "epsilon":
                attribute.f = EPSILON
    try:
        state, small = pruned(made)
        zeroed = zeroed_by_hand(made.model, state)
        assert zeroed is not None
        feeds = [made.inputs(seed) for seed in (1, 2)]
        results = []
        for model in (zeroed, small):
            evaluator = ReferenceEvaluator(model, new_ops=REPAIRED)
            results.append([[np.asarray(array) for array in evaluator.run(None, inputs)] for inputs in feeds])
    except Exception as error:
        return Verdict(CRASHED, f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")
    _, gap = _distance(*results)
    return Verdict(MISMATCH if gap > DOUBLE_LIMIT else AGREED, f"differs by {gap:.1e} of the spread", gap)


def _verified(made: Made) -> Verdict | None:
    """What is wrong once :func:`ozgraph.prune` has run, or None."""
    half = HalfOfEveryFamily(everything=made.everything)
    try:
        result = ozgraph.prune(made.model, target=NOTHING, passes=[half], rescale=made.everything)
    except VerificationError as error:
        # With half of its groups at zero an output may be the same whatever goes in: there is nothing to compare.
        return Verdict(VACUOUS if "does not vary" in str(error) else UNVERIFIED, str(error))
    except Exception as error:
        return Verdict(UNVERIFIED, f"{type(error).__name__}: {error}")
    if result.state.given_back:
        return Verdict(UNVERIFIED, "; ".join(f"{row.reason}" for row in result.state.given_back))
    return None


def _run(model: onnx.ModelProto, feeds: Sequence[Mapping[str, Array]], *, optimize: bool = False) -> list[list[Array]]:
    native = session(model, optimize=optimize)
    return [[np.asarray(array) for array in native.run(None, dict(inputs))] for inputs in feeds]


def _distance(wanted: Sequence[Sequence[Array]], found: Sequence[Sequence[Array]]) -> tuple[bool, float]:
    """Whether an output varies with the input, and the largest difference over the spread of its output.

    The spread is the 90th percentile of what lively positions move between two inputs, or the position's own range
    where that is wider; the magnitude where nothing moves.
    """
    alive, worst = False, 0.0
    for (first, second), others in zip(zip(*wanted, strict=True), zip(*found, strict=True), strict=True):
        low, high = first.astype(np.float64), second.astype(np.float64)
        if not (np.isfinite(low).all() and np.isfinite(high).all()):
            continue
        moved = np.abs(high - low)
        lively = moved[moved > 0]
        spread = float(np.quantile(lively, 0.9, method="higher")) if lively.size else 0.0
        scale = max(float(np.abs(low).max()), float(np.abs(high).max()))
        alive = alive or spread > 1e-6 * scale
        yard = np.maximum(moved, spread if spread > 1e-6 * scale else scale)
        for original, other in ((low, others[0]), (high, others[1])):
            if other.shape != original.shape or not np.isfinite(other).all():
                return alive, np.inf
            gap = np.abs(original - other)
            with np.errstate(invalid="ignore", divide="ignore"):
                worst = max(worst, float(np.where(gap > 0, gap / yard, 0.0).max(initial=0.0)))
    return alive, worst


def saved(recipe: Recipe, folder: Path, name: str) -> None:
    """Write a recipe's model, for a report."""
    onnx.save(build(recipe).model, folder / f"{name}.onnx")

"""Selections that are measured rather than computed: a latency to reach, an output change not to pass."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

import numpy as np

from ozgraph.errors import UsageError
from ozgraph.graph import Array
from ozgraph.passes.eliminate import Eliminate, kept_positions
from ozgraph.passes.families import Family
from ozgraph.passes.manager import Pass, Progress
from ozgraph.passes.prove_dead import ProveDead
from ozgraph.passes.select import Select
from ozgraph.passes.state import Mask, Removal, State
from ozgraph.target import Target

_STEPS = 6
"""Bisection steps: the MACs of the answer are within 1/64 of the range."""

_SHARES = (0.25, 0.5, 0.75)
"""How much of a family is removed to see what it does to the output."""


def _trial(state: State, chosen: Removal) -> State:
    trial = replace(state, chosen=chosen, timings={}, facts=set(state.facts))
    ProveDead().run(trial)
    Eliminate().run(trial)
    return trial


def _write(trial: State, path: Path) -> Path:
    from ozgraph.backends.files import write
    from ozgraph.backends.onnx import apply

    write(apply(trial.graph, trial.plan), path, verify=None)
    return path


def macs_for_latency(state: State, select: Select, removed: float, progress: Progress | None = None) -> float:
    """The smallest fraction of MACs to remove, by bisection, that takes this fraction off the latency.

    Raises:
        UsageError: no selection is fast enough.
    """
    from ozgraph.numerics.bench import bench

    with tempfile.TemporaryDirectory(prefix="ozgraph-latency-") as name:
        folder = Path(name)
        original = _write(_trial(state, Removal(state.dims.total)), folder / "original.onnx")

        def saved(fraction: float) -> float:
            replace(select, target=Target(macs=fraction)).run(state)
            small = _write(_trial(state, state.chosen), folder / "small.onnx")
            return 1 - 1 / bench(original, small, seconds=1.5).ratio

        most = _most_macs(state, select)
        if saved(most) < removed:
            raise UsageError(
                f"the latency target cannot be met: removing {most:.0%} of the MACs, the most there is, "
                f"takes less than {removed:.0%} off the latency"
            )
        low, high = 0.0, most
        for step in range(_STEPS):
            if progress is not None:
                progress("latency", step, _STEPS)
            middle = (low + high) / 2
            if saved(middle) >= removed:
                high = middle
            else:
                low = middle
    return high


def _most_macs(state: State, select: Select) -> float:
    assert state.cost is not None
    ranking = select.rank(state)
    return 1 - state.cost.macs(ranking.removal(len(ranking.blocks))) / max(state.cost.macs(), 1)


@dataclass(frozen=True)
class SelectByDrift(Pass):
    """Remove the groups that change the output least, as long as the change stays within a bound.

    1. Every family is pruned alone at three widths and the output's change is measured; in between it is interpolated.
    2. Blocks go in the order of the change that they add to their family's.
    3. The longest prefix whose measured change stays within ``drift`` is chosen.

    The change is max |a - b| over the spread of the original's output, as verification measures it.
    """

    name: ClassVar[str] = "select"
    requires: ClassVar[frozenset[str]] = frozenset({"families", "cost"})
    ensures: ClassVar[frozenset[str]] = frozenset({"selection"})

    select: Select
    drift: float
    inputs: Path | None = None
    progress: Progress | None = field(default=None, compare=False)

    def run(self, state: State) -> bool:
        """Fill ``state.chosen``."""
        if not self.drift >= 0:
            raise UsageError(f"max_drift must be 0 or more, got {self.drift}")
        with tempfile.TemporaryDirectory(prefix="ozgraph-drift-") as folder:
            meter = _Meter(state, self.inputs, Path(folder))
            blocks = self._ordered(state, meter)
            low, high = 0, len(blocks)
            while low < high:
                middle = (low + high + 1) // 2
                if meter.drift(_removal(state, blocks[:middle])) <= self.drift:
                    low = middle
                else:
                    high = middle - 1
            state.chosen = _removal(state, blocks[:low])
        return bool(state.chosen)

    def _ordered(self, state: State, meter: _Meter) -> list[tuple[Family, Mask]]:
        by_family: dict[Family, list[Mask]] = {}
        for family, mask in self.select.rank(state).blocks:
            by_family.setdefault(family, []).append(mask)
        scored: list[tuple[float, int, Family, Mask]] = []
        for number, (family, masks) in enumerate(by_family.items()):
            if self.progress is not None:
                self.progress("measuring drift", number, len(by_family))
            shares = sorted({max(1, round(share * len(masks))) for share in _SHARES})
            drifts = [meter.drift(_removal(state, [(family, mask) for mask in masks[:share]])) for share in shares]
            curve = np.interp(np.arange(len(masks) + 1), [0, *shares], [0.0, *drifts])
            # Later blocks of a family never go before earlier ones, whatever the noise of measuring says.
            steps = np.maximum.accumulate(np.diff(np.maximum.accumulate(curve)))
            scored.extend(
                (float(step), len(scored) + k, family, mask)
                for k, (step, mask) in enumerate(zip(steps, masks, strict=True))
            )
        scored.sort(key=lambda entry: entry[:2])
        return [(family, mask) for _, _, family, mask in scored]


def _removal(state: State, blocks: list[tuple[Family, Mask]]) -> Removal:
    removal = Removal(state.dims.total)
    for family, mask in blocks:
        removal.add(family.atom, mask)
    return removal


class _Meter:
    """Measures how far a pruned model's outputs are from the original's."""

    def __init__(self, state: State, inputs: Path | None, folder: Path) -> None:
        from ozgraph.frontends.onnx import sample_shapes
        from ozgraph.numerics.inputs import load_inputs, make_inputs

        self._state = state
        self._folder = folder
        self._feeds: list[Mapping[str, Array]] = (
            list(load_inputs(inputs, state.graph))
            if inputs is not None
            else [make_inputs(state.graph, sample_shapes(state.graph, 0), seed) for seed in range(3)]
        )
        self._reference = self._outputs(_trial(state, Removal(state.dims.total)))

    def drift(self, chosen: Removal) -> float:
        """The largest relative change over all outputs and inputs."""
        from ozgraph.numerics.compare import selected
        from ozgraph.numerics.measure import spread

        worst = 0.0
        trial = _trial(self._state, chosen)
        found = self._outputs(trial)
        kept = kept_positions(trial)
        for position, output in enumerate(self._state.graph.outputs):
            original = [selected(run[position], kept(output)) for run in self._reference]
            pruned = [run[position] for run in found]
            if original[0].dtype.kind != "f":
                continue
            # A single input has no spread of its own across inputs; its elements have.
            yard = spread(original) if len(original) > 1 else float(np.ptp(original[0]))
            gap = max(float(np.max(np.abs(a - b), initial=0.0)) for a, b in zip(original, pruned, strict=True))
            worst = max(worst, gap / yard if yard > 0 else (0.0 if gap == 0 else float("inf")))
        return worst

    def _outputs(self, trial: State) -> list[list[Array]]:
        from ozgraph.numerics.compare import narrowed
        from ozgraph.numerics.sessions import open_session

        session = open_session(_write(trial, self._folder / "trial.onnx"))
        kept = kept_positions(trial)
        return [list(session.run(narrowed(feeds, trial.graph, kept)).values()) for feeds in self._feeds]

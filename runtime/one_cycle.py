"""One-cycle pruning (OCSPruner, arXiv 2501.13439): prune once, when the sub-network to keep has settled."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Unpack

import torch
from torch import Tensor
from torch.optim import Optimizer

from ozgraph.errors import UsageError
from ozgraph.groups import CONSUMER, PRODUCER, FamilyGroups, Groups, Occurrence
from ozgraph.runtime.places import Layout, layout
from ozgraph.runtime.pruner import Choices, Pruner
from ozgraph.runtime.schedule import Periods, Schedule
from ozgraph.runtime.scoring import as_scores
from ozgraph.runtime.selection import Mask
from ozgraph.runtime.stability import Stability
from ozgraph.runtime.zeroing import Zeroing
from ozgraph.target import Target

JACCARD, LATEST = "jaccard", "latest"
CUT, DECAY = "cut", "decay"


class OneCycle(Pruner):
    """Watches which sub-network would be kept, and prunes when that has settled.

    1. Every ``every`` steps from ``start`` on it looks: groups are scored, and the lowest that meet the target would
       go. How alike the retained sets of looks are is the stability indicator,
       :class:`~ozgraph.runtime.stability.Stability`.
    2. Once the indicator rises by less than ``slow_rise`` from one look to the next, the groups that would go shrink
       after every step, w <- (1 - lambda lr) w, with a lambda that grows by ``growth`` at every look. Lr is that of the
       optimizer's first group of options.
    3. At a look with an indicator of ``settled`` or more, or at ``latest``, the groups are final. ``finish="decay"``
       lets them decay to exactly zero in ``finish_steps``, as HESSO does; ``finish="cut"`` zeroes them at once, which
       is the published method and costs accuracy for a while.
    4. Given a compactor, the module becomes smaller there and then: from now on steps are faster. Without one, the
       groups are held at zero until the model is exported.

    A model that was trained before is pruned early by the same indicator (``start=0`` and a short ``every``), one at
    its initialisation with ``stop="latest", start=0, latest=0``.

    Args:
        optimizer, groups, target, steps, include, exclude, families, round_to, compactor, follow: as for
            :class:`~ozgraph.runtime.hesso.HESSO`.
        every: steps from look to look, in the paper an epoch: a number (int) or a fraction of the run (float).
        start: of the first look: a step (int) or a fraction of the run (float).
        latest: by when groups are final, alike.
        stop: ``jaccard`` waits until the sets have settled; ``latest`` waits for ``latest``, settled or not.
        finish: ``decay`` or ``cut``.
        finish_steps: of the decay: a number (int) or a fraction of the run (float).
        settled: the indicator that counts as stable.
        slow_rise: a rise of the indicator below this begins the shrinking.
        growth: of lambda, a look.
        lag, window: see :class:`~ozgraph.runtime.stability.Stability`.
        saliency: as for HESSO; criteria see consumers, too, and no biases. ``coupled`` by default.
        min_kept: as for HESSO; by default at most three quarters of a family go.

    Attributes:
        history: what every look saw, for a picture: plain dicts with the keys ``step``, ``jaccard`` (J, or None),
            ``stability`` (the indicator, or None), ``penalty`` (lambda), ``kept`` (slots by dim) and ``families``
            (Jaccard index by dim); where families share a dim, their ids follow it.
        stable_at: the step at which the groups became final; None before.
        stopped_by: ``jaccard`` or ``latest``; None before.

    Raises:
        UsageError: the target cannot be met, the schedule does not fit, the optimizer lacks parameters, or the module
            cannot be cut as the compactor should.
    """

    method = "one-cycle"

    def __init__(
        self,
        optimizer: Optimizer,
        groups: Groups,
        *,
        target: Target,
        steps: int,
        every: float | int = 0.01,
        start: float | int = 0,
        latest: float | int = 0.4,
        stop: str = JACCARD,
        finish: str = DECAY,
        finish_steps: float | int = 0.05,
        settled: float = 0.999,
        slow_rise: float = 1e-4,
        growth: float = 1e-4,
        lag: int = 2,
        window: int = 3,
        **choices: Unpack[Choices],
    ) -> None:
        if stop not in (JACCARD, LATEST):
            raise UsageError(f"stop is {JACCARD!r} or {LATEST!r}, got {stop!r}")
        if finish not in (DECAY, CUT):
            raise UsageError(f"finish is {DECAY!r} or {CUT!r}, got {finish!r}")
        if lag < 1 or window < 1 or not 0 < settled <= 1 or growth < 0:
            raise UsageError(
                f"lag and window are at least 1, settled lies between 0 and 1 and growth is not negative, got {lag}, "
                f"{window}, {settled} and {growth}"
            )
        self.steps = steps
        self.every = max(Schedule.as_step(every, steps), 1)
        self.start, self.latest = Schedule.as_step(start, steps), Schedule.as_step(latest, steps)
        self.finish_steps = max(Schedule.as_step(finish_steps, steps), 2) if finish == DECAY else 1
        if not 0 <= self.start <= self.latest <= self.latest + self.finish_steps <= steps:
            raise UsageError(
                f"looks from step {self.start} to step {self.latest} and {self.finish_steps} steps to finish do not "
                f"fit a run of {steps} steps; 0 <= start <= latest <= latest + finish_steps <= steps must hold"
            )
        self.stop, self.finish = stop, finish
        self.settled, self.slow_rise, self.growth = settled, slow_rise, growth
        self.penalty = 0.0
        self.stable_at: int | None = None
        self.stopped_by: str | None = None
        self.history: list[dict[str, Any]] = []
        choices.setdefault("saliency", "coupled")
        choices.setdefault("min_kept", 0.25)
        super().__init__(optimizer, groups, target=target, **choices)
        self.stability = Stability([span for _, span in self.layout.spans()], lag, window)
        self._shrinking = Zeroing(self.scored)
        self._candidates: Mask = self.gone
        self.attach()

    def scored_layout(self) -> Layout:
        """Producers and consumers, without biases: what the published norm counts."""
        return layout(self.groups, [_coupled(self.groups, family) for family in self.layout.families])

    def selects(self, step: int) -> bool:
        """At every look."""
        if self.stable_at is not None or self.selection.goal <= 0 or not self.start <= step <= self.latest:
            return False
        return step == self.latest or (step - self.start) % self.every == 0

    def advance(self, step: int, scores: Tensor | None) -> float | None:
        """Look, shrink what would go, and drive it to zero once it is final."""
        if scores is not None:
            self._look(step, scores)
        if self.stable_at is None:
            if self.penalty and self._candidates.any():
                self._shrinking.decay(1 - self.penalty * float(self.optimizer.param_groups[0]["lr"]))
            return None
        if not self.decaying.any():
            return None
        factor = self._decay.factor(step) if step < self._decay.edges[-1] else 0.0
        if factor == 0.0:
            self.commit()
            return None
        return factor

    def _look(self, step: int, scores: Tensor) -> None:
        self._candidates = self.selection.choose(as_scores(scores), self.gone, self.selection.goal)
        self.stability.look(~self._candidates)
        rise = self.stability.rise
        if self.penalty or (rise is not None and rise < self.slow_rise):
            self.penalty += self.growth
        self._write_down(step)
        indicator = self.stability.indicator
        if self.stop == JACCARD and indicator is not None and indicator >= self.settled:
            self._settle(step, JACCARD)
        elif step >= self.latest:
            if self.stop == JACCARD:
                said = "no indicator yet" if indicator is None else f"stability {indicator:.4f} < {self.settled}"
                warnings.warn(
                    f"step {step}: the sub-network has not settled ({said}) and is pruned now, since latest is "
                    f"{self.latest}; give a later one, or a longer run",
                    stacklevel=2,
                )
            self._settle(step, LATEST)
        elif self.penalty:
            self._shrinking.decay_only(self._candidates)

    def _settle(self, step: int, by: str) -> None:
        self.stable_at, self.stopped_by = step, by
        self._shrinking.decay_only(self.gone)
        self.set_decaying(self._candidates)
        if self.finish == CUT:
            self.commit()

    def _write_down(self, step: int) -> None:
        shared = Counter(family.dim for family in self.layout.families)
        families = [
            (family.dim if shared[family.dim] == 1 else f"{family.dim} ({family.id})", span)
            for family, span in self.layout.spans()
        ]
        indexes = self.stability.families
        self.history.append(
            {
                "step": step,
                "jaccard": self.stability.indexes[-1] if self.stability.indexes else None,
                "stability": self.stability.indicator,
                "penalty": self.penalty,
                "kept": {dim: int((~self._candidates[span]).sum()) for dim, span in families},
                "families": {dim: index for (dim, _), index in zip(families, indexes, strict=True)} if indexes else {},
            }
        )

    @property
    def _decay(self) -> Periods:
        assert self.stable_at is not None
        return Periods((self.stable_at, self.stable_at + self.finish_steps))

    @property
    def phase(self) -> str:
        """``waiting``, ``watching``, ``shrinking``, ``leaving`` or ``holding``."""
        if self.stable_at is not None:
            return "leaving" if self.decaying.any() else "holding"
        if self.step < self.start:
            return "waiting"
        return "shrinking" if self.penalty else "watching"

    def metrics(self) -> dict[str, float]:
        """See :meth:`Pruner.metrics`; and ``penalty``, ``jaccard``, ``stability``, ``stable_at`` as they are known."""
        found = super().metrics() | {"penalty": self.penalty}
        known = {
            "jaccard": self.stability.indexes[-1] if self.stability.indexes else None,
            "stability": self.stability.indicator,
            "stable_at": self.stable_at,
        }
        return found | {key: float(value) for key, value in known.items() if value is not None}

    def state_dict(self) -> dict[str, Any]:
        """See :meth:`Pruner.state_dict`."""
        return super().state_dict() | {
            "settings": self._settings(),
            "stability": self.stability.state_dict(),
            "candidates": torch.from_numpy(self._candidates.copy()),
            "penalty": self.penalty,
            "stable_at": self.stable_at,
            "stopped_by": self.stopped_by,
            "history": [dict(row) for row in self.history],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See :meth:`Pruner.load_state_dict`."""
        if list(state.get("settings", ())) != self._settings() and state.get("method") == self.method:
            raise UsageError(
                f"the state was saved under other settings ({list(state.get('settings', ()))}, here "
                f"{self._settings()}); give the same steps, every, start, latest, finish and finish_steps"
            )
        super().load_state_dict(state)
        self.stability.load_state_dict(state["stability"])
        self._candidates = state["candidates"].cpu().numpy().astype(bool)
        self.penalty = float(state["penalty"])
        self.stable_at, self.stopped_by = state["stable_at"], state["stopped_by"]
        self.history = [dict(row) for row in state["history"]]
        if self.stable_at is None and self.penalty:
            self._shrinking.decay_only(self._candidates)

    def _settings(self) -> list[Any]:
        return [self.steps, self.every, self.start, self.latest, self.finish, self.finish_steps]

    def _rebind(self, groups: Groups) -> None:
        super()._rebind(groups)
        self._shrinking = Zeroing(self.scored)


def _coupled(groups: Groups, family: FamilyGroups) -> FamilyGroups:
    """A family that counts everything that makes or reads its slots and is trained, but biases."""

    def counts(occurrence: Occurrence) -> bool:
        said = groups.tensors[occurrence.tensor]
        bias = len(said.shape) == 1 and occurrence.tensor.rpartition(".")[2] == "bias"
        return said.trainable and occurrence.role in (PRODUCER, CONSUMER) and not bias

    return replace(family, occurrences=tuple(replace(each, zeroed=True) for each in family.occurrences if counts(each)))

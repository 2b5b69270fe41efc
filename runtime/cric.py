"""HESSO-CRIC: corrective cycles find which groups really are dispensable before any of them goes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Unpack

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

from ozgraph.errors import UsageError
from ozgraph.groups import Groups
from ozgraph.runtime.pruner import Choices, Pruner
from ozgraph.runtime.schedule import Schedule
from ozgraph.runtime.scoring import as_scores
from ozgraph.runtime.selection import Mask
from ozgraph.runtime.snapshot import Snapshot
from ozgraph.target import Target

WARMING, PROBING, CYCLING, LEAVING, HOLDING = "warming up", "probing", "cycling", "leaving", "holding"


class HESSOCRIC(Pruner):
    """Tries groups out before it takes them: HESSO with corrective redundancy identification cycles.

    1. Warm up until ``start``; then the model, its statistics and the optimizer's state are saved.
    2. Probe: the lowest quarter, half and three quarters of each family are zeroed for one batch each. What that does
       to the loss becomes part of the score. Give the loss with :meth:`record` before every ``optimizer.step()``.
    3. Cycles: the violating set (at first, the lowest groups that meet the target) decays to zero while the rest
       trains, and every step is scored. Groups that come to be among the lowest join the trial set. At the end of a
       cycle everything is restored, and the trial set, less what was tried before, is the next violating set.
    4. When that is no larger than ``tolerance``, or after ``cycles``, the mean of all scores, with the probe's part,
       decides; those groups decay to exactly zero in ``leave_steps``, and the rest is ordinary training.

    Args:
        optimizer, groups, target, steps, saliency, include, exclude, families, round_to, min_kept: as for
            :class:`~ozgraph.runtime.hesso.HESSO`.
        start: the step (int) or fraction of the run (float) at which probing begins.
        cycle_steps: of one cycle.
        cycles: how many at most.
        tolerance: violating groups that are few enough.
        leave_steps: of the final decay.
        probes: shares of each family that are probed; none at all leaves the loss out.
        snapshot: device that the saved model lives on.

    Raises:
        UsageError: as for HESSO, and where probes and cycles do not fit the run.
    """

    method = "hesso-cric"

    def __init__(
        self,
        optimizer: Optimizer,
        groups: Groups,
        *,
        target: Target,
        steps: int,
        start: float | int = 0.1,
        cycle_steps: float | int = 0.01,
        cycles: int = 10,
        tolerance: int = 0,
        leave_steps: float | int = 0.1,
        probes: Sequence[float] = (0.25, 0.5, 0.75),
        snapshot: torch.device | str = "cpu",
        **choices: Unpack[Choices],
    ) -> None:
        super().__init__(optimizer, groups, target=target, **choices)
        if any(not 0 < share < 1 for share in probes):
            raise UsageError(f"probes are shares between 0 and 1, got {list(probes)}")
        if cycles < 1 or tolerance < 0:
            raise UsageError(f"cycles is at least 1 and tolerance at least 0, got {cycles} and {tolerance}")
        self.probes = tuple(probes)
        self.start = Schedule.as_step(start, steps)
        self.cycle_steps = max(Schedule.as_step(cycle_steps, steps), 2)
        self.leave_steps = max(Schedule.as_step(leave_steps, steps), 2)
        self.cycles, self.tolerance, self.steps = cycles, tolerance, steps
        self._device = snapshot
        probing = 1 + len(self.probes) * len(self.layout.families) if self.probes else 0
        longest = self.start + 1 + probing + cycles * self.cycle_steps + self.leave_steps
        if self.selection.goal > 0 and longest > steps:
            raise UsageError(
                f"{self.start} steps before, {probing} probes, {cycles} cycles of {self.cycle_steps} and "
                f"{self.leave_steps} steps to leave do not fit a run of {steps} steps; shorten one of them"
            )
        self._stage, self._tick, self._cycle = WARMING, 0, 0
        self._snapshot: Snapshot | None = None
        self._loss: Tensor | float | None = None
        self._losses: list[float] = []
        self._first: Tensor | None = None
        self._total = torch.zeros(self.layout.total, device=self.layout.device)
        self._scored = 0
        nothing = np.zeros(self.layout.total, dtype=bool)
        self._violating, self._trial, self._tried = nothing.copy(), nothing.copy(), nothing.copy()
        self.violations: list[int] = []
        self.attach()

    def record(self, loss: Tensor | float) -> None:
        """The loss of the batch that the next ``optimizer.step()`` is for; read only while probing."""
        self._loss = loss.detach() if isinstance(loss, Tensor) else loss

    # -- stages ------------------------------------------------------------------------------------------------------

    def selects(self, step: int) -> bool:
        """When probing begins, and in every step of a cycle."""
        return self.selection.goal > 0 and (step == self.start or self._stage == CYCLING)

    def advance(self, step: int, scores: Tensor | None) -> float | None:
        """One step of whatever stage the run is in."""
        if self.selection.goal <= 0:
            return None
        if self._stage == WARMING and step == self.start:
            assert scores is not None
            self._first = scores
            self._snapshot = Snapshot(self.groups.module, self.optimizer, self._device)
            if self.probes:
                self._stage, self._tick = PROBING, 0
            else:
                self._begin_cycles()
        elif self._stage == PROBING:
            self._probe()
        elif self._stage == CYCLING:
            assert scores is not None
            return self._turn(scores)
        elif self._stage == LEAVING:
            return self._leave()
        return None

    def _probe(self) -> None:
        """Take down what the batch before lost, restore, and zero the next part."""
        if self._loss is None:
            raise UsageError(
                "probing needs the loss: call pruner.record(loss) before every optimizer.step(), or give probes=()"
            )
        loss = torch.as_tensor(self._loss, dtype=torch.float64, device=self.layout.device)
        self._losses.append(float(self.processes.mean(loss)))
        self._loss = None
        self._restore()
        self._tick += 1
        if self._tick <= len(self.probes) * len(self.layout.families):
            mask = self._probed(self._tick - 1)
            kept = self.decaying
            self.set_decaying(mask)
            self._zeroing.decay(0.0)
            self.set_decaying(kept)
        else:
            self._begin_cycles()

    def _probed(self, number: int) -> Mask:
        """The lowest part of one family that probe ``number`` zeroes."""
        assert self._first is not None
        which, part = divmod(number, len(self.probes))
        _, span = list(self.layout.spans())[which]
        scores = as_scores(self._first)
        free = np.flatnonzero(self.selection.free[span]) + span.start
        order = free[np.argsort(scores[free], kind="stable")]
        mask = np.zeros(self.layout.total, dtype=bool)
        mask[order[: max(round(self.probes[part] * len(order)), 1)]] = True
        return mask

    def _probe_scores(self) -> Tensor:
        """Loss over the reference loss when a slot is first among the zeroed: [slots]."""
        found = np.zeros(self.layout.total)
        if not self._losses:
            return torch.from_numpy(found).to(self._total)
        reference = max(abs(self._losses[0]), 1e-12)
        for which, (_, span) in enumerate(self.layout.spans()):
            losses = self._losses[1 + which * len(self.probes) :][: len(self.probes)]
            ratios = [loss / reference if np.isfinite(loss) else np.inf for loss in losses]
            finite = [ratio for ratio in ratios if np.isfinite(ratio)]
            worst = max(finite, default=1.0)
            found[span] = worst
            for part in reversed(range(len(self.probes))):
                mask = self._probed(which * len(self.probes) + part)
                found[mask] = ratios[part] if np.isfinite(ratios[part]) else worst
        scores = torch.from_numpy(found).to(self._total)
        normalised: Tensor = scores / torch.linalg.vector_norm(scores).clamp(min=1e-12)
        return normalised

    def _begin_cycles(self) -> None:
        assert self._first is not None
        self._stage, self._tick, self._cycle = CYCLING, 0, 1
        self._violating = self._lowest(self._first)
        self._trial = self._violating.copy()
        self.violations.append(int(self._violating.sum()))
        self.set_decaying(self._violating)

    def _lowest(self, scores: Tensor) -> Mask:
        return self.selection.choose(as_scores(scores), np.zeros_like(self.gone), self.selection.goal)

    def _turn(self, scores: Tensor) -> float | None:
        """One step of a cycle."""
        self._total += scores
        self._scored += 1
        self._trial |= self._lowest(scores)
        self._tick += 1
        if self._tick < self.cycle_steps:
            left = self.cycle_steps - self._tick
            return (left - 1) / left
        self._tried |= self._violating
        self._restore()
        self._violating = self._trial & ~self._tried
        few = int(self._violating.sum()) <= self.tolerance
        if few or self._cycle >= self.cycles:
            self._decide()
            return None
        self.violations.append(int(self._violating.sum()))
        self._cycle, self._tick = self._cycle + 1, 0
        self.set_decaying(self._violating)
        return None

    def _decide(self) -> None:
        scores = self._total / max(self._scored, 1) + self._probe_scores()
        self._stage, self._tick = LEAVING, 0
        self._snapshot = None
        self.set_decaying(self._lowest(scores))

    def _leave(self) -> float | None:
        self._tick += 1
        left = self.leave_steps - self._tick
        if left <= 1:
            self.commit()
            self._stage = HOLDING
            return None
        return (left - 1) / left

    def _restore(self) -> None:
        assert self._snapshot is not None
        self._snapshot.restore()

    def metrics(self) -> dict[str, float]:
        """What to watch; ``cycle`` is 0 where there is none."""
        return {**super().metrics(), "cycle": float(self._cycle if self._stage == CYCLING else 0)}

    @property
    def phase(self) -> str:
        """``warming up``, ``probing``, ``cycle 2``, ``leaving`` or ``holding``."""
        return f"cycle {self._cycle}" if self._stage == CYCLING else self._stage

    # -- saving ------------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """See :meth:`Pruner.state_dict`; while cycles run it holds the saved model as well."""
        return (
            super().state_dict()
            | {
                "stage": self._stage,
                "tick": self._tick,
                "cycle": self._cycle,
                "losses": list(self._losses),
                "first": torch.zeros_like(self._total).cpu() if self._first is None else self._first.cpu().clone(),
                "total": self._total.cpu().clone(),
                "scored": self._scored,
                "violating": torch.from_numpy(self._violating.copy()),
                "trial": torch.from_numpy(self._trial.copy()),
                "tried": torch.from_numpy(self._tried.copy()),
                "violations": list(self.violations),
            }
            | ({} if self._snapshot is None else {"snapshot": self._snapshot.state_dict()})
        )

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See :meth:`Pruner.load_state_dict`."""
        super().load_state_dict(state)
        self._stage, self._tick, self._cycle = str(state["stage"]), int(state["tick"]), int(state["cycle"])
        self._losses = [float(loss) for loss in state["losses"]]
        self._first = None if self._stage == WARMING else state["first"].to(self.layout.device)
        self._total = state["total"].to(self.layout.device)
        self._scored = int(state["scored"])
        self._violating = state["violating"].cpu().numpy().copy()
        self._trial = state["trial"].cpu().numpy().copy()
        self._tried = state["tried"].cpu().numpy().copy()
        self.violations = [int(count) for count in state["violations"]]
        self._snapshot = None
        if self._stage in (PROBING, CYCLING):
            if "snapshot" not in state:
                raise UsageError(
                    f"the state was saved while {self.phase} and lacks the model of before; load it with torch.load, "
                    "or save outside of probing and cycles where torch.distributed.checkpoint is used"
                )
            self._snapshot = Snapshot.from_state_dict(self.groups.module, self.optimizer, state["snapshot"])

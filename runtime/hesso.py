"""HESSO (arXiv 2409.09085): warm up, then in every period choose the lowest groups and decay them to exactly zero."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Unpack

import torch
from torch import Tensor
from torch.optim import Optimizer

from ozgraph.errors import UsageError
from ozgraph.groups import Groups
from ozgraph.runtime.pruner import Choices, Pruner
from ozgraph.runtime.schedule import Schedule
from ozgraph.runtime.scoring import as_scores
from ozgraph.runtime.selection import Mask
from ozgraph.target import Target


class HESSO(Pruner):
    """Drives the groups that matter least to exact zero while the model trains.

    1. Until ``start`` the run is ordinary training.
    2. At the first step of each period the lowest-scoring groups still alive become redundant. After every step of the
       period they are multiplied by (D - t - 1) / (D - t): a linear decay, exactly zero before the period ends.
    3. At the end of a period they are held at zero, for ever. After the last the rest is ordinary training.

    Args:
        optimizer: any ``torch.optim.Optimizer``; it must hold the parameters of the groups.
        groups: of :func:`ozgraph.find_groups`.
        target: the fraction to remove, of groups, parameters or MACs.
        steps: optimizer steps of the whole run.
        start, end, periods, shape: see :class:`~ozgraph.runtime.schedule.Schedule`.
        saliency: a criterion's name, a mapping of criteria to weights, or a function of a
            :class:`~ozgraph.runtime.saliency.Measure`; the five of the paper by default.
        average: how much of the scores of earlier steps stays in a running average, 0 for none. Above 0 every step
            from ``score_from`` on is scored.
        score_from: steps before each period from which scores are averaged.
        include, exclude: globs over tensor names.
        families: ids or dims instead of the families that are active by default.
        round_to: kept slots of every family are a multiple of this.
        min_kept: slots that every family keeps: a number, or a share (float).
        compactor: an :class:`ozgraph.Compactor`; the module then becomes smaller while it trains.
        cut: when it does: at the end of every ``period``, or once at the ``end`` of the last. Criteria that compare a
            group's elements with each other (``mean_magnitude``) see smaller groups after a cut and may choose
            otherwise than without one; with ``end`` nothing is chosen after the cut.
        follow: what shrinks along with it; see :class:`~ozgraph.runtime.compaction.Compaction`.

    Raises:
        UsageError: the target cannot be met, the schedule does not fit, or the optimizer lacks parameters.
    """

    method = "hesso"

    def __init__(
        self,
        optimizer: Optimizer,
        groups: Groups,
        *,
        target: Target,
        steps: int,
        start: float | int = 0.1,
        end: float | int = 0.25,
        periods: int = 10,
        shape: str = "linear",
        average: float = 0.0,
        score_from: int = 10,
        cut: str = "period",
        **choices: Unpack[Choices],
    ) -> None:
        self.schedule = Schedule(start, end, periods, shape).resolve(steps)
        if not 0 <= average < 1:
            raise UsageError(f"average is a share from 0 up to but without 1, got {average}")
        if cut not in ("period", "end"):
            raise UsageError(f"the module is cut at every 'period' or at the 'end', got cut={cut!r}")
        self.steps, self.average, self.score_from, self.cut = steps, average, score_from, cut
        self._average: Tensor | None = None
        super().__init__(optimizer, groups, target=target, **choices)
        self.attach()

    def selects(self, step: int) -> bool:
        """At the first step of a period; shortly before it too where scores are averaged."""
        if step in self.schedule.edges[:-1]:
            return True
        return self.average > 0 and any(0 < edge - step <= self.score_from for edge in self.schedule.edges[:-1])

    def advance(self, step: int, scores: Tensor | None) -> float | None:
        """Select at the start of a period, decay in it, commit before it ends."""
        if scores is not None:
            scores = self._averaged(scores)
        if step == self.schedule.edges[-1]:
            self.commit()
        period = self.schedule.at(step)
        if period is None:
            return None
        if step == self.schedule.edges[period]:
            self.commit()
            assert scores is not None
            self.set_decaying(self.redundant(scores, period))
        factor = self.schedule.factor(step)
        if factor == 0.0:
            self.commit()
            return None
        return factor if self.decaying.any() else None

    def redundant(self, scores: Tensor, period: int) -> Mask:
        """The slots that a period drives to zero: the lowest scores among those still alive."""
        wanted = self.schedule.due(period, self.selection.goal)
        return self.selection.choose(as_scores(scores), self.gone, wanted)

    def _averaged(self, scores: Tensor) -> Tensor:
        if not self.average:
            return scores
        if self._average is None:
            self._average = scores.clone()
        else:
            self._average.mul_(self.average).add_(scores, alpha=1 - self.average)
        return self._average

    def cuts_now(self) -> bool:
        """After every period, or after the last."""
        return self.cut == "period" or self.finished

    @property
    def phase(self) -> str:
        """``warming up``, ``period 3 of 10``, or ``holding``."""
        period = self.schedule.at(self.step)
        if period is not None:
            return f"period {period + 1} of {self.schedule.count}"
        return "warming up" if self.step < self.schedule.edges[0] else "holding"

    def state_dict(self) -> dict[str, Any]:
        """See :meth:`Pruner.state_dict`."""
        # Of one shape whatever has happened: torch.distributed.checkpoint loads into what is there.
        average = torch.zeros(self.layout.total) if self._average is None else self._average.cpu().clone()
        return super().state_dict() | {
            "edges": list(self.schedule.edges),
            "averaging": self._average is not None,
            "average": average,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See :meth:`Pruner.load_state_dict`."""
        super().load_state_dict(state)
        if list(state["edges"]) != list(self.schedule.edges):
            raise UsageError(
                f"the state was saved under another schedule ({list(state['edges'])}); give the same steps, start, "
                "end and periods"
            )
        self._average = (
            state["average"].to(self.layout.device, torch.float32, copy=True) if state["averaging"] else None
        )

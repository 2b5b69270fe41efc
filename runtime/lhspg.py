"""LHSPG (LoRAShear, arXiv 2310.18356): half-space projection of weights that train through low-rank factors."""

from __future__ import annotations

from typing import Unpack

from torch import Tensor
from torch.optim import Optimizer

from ozgraph.errors import UsageError
from ozgraph.groups import Groups
from ozgraph.runtime.half_space import DHSPG, rest_of
from ozgraph.runtime.low_rank import LowRank, low_ranks
from ozgraph.runtime.pruner import Choices
from ozgraph.runtime.schedule import Periods, Schedule
from ozgraph.runtime.scoring import as_scores
from ozgraph.target import Target


class LHSPG(DHSPG):
    """Low-rank half-space projected gradient: DHSPG period by period, on weights W + s B A of which A and B train.

    1. At the first step of each period the lowest groups of W + s B A become redundant, as many as are due.
    2. During the period the optimizer moves the weights through A and B, and this pruner penalises and projects the
       redundant groups as :class:`DHSPG` does; what has not crossed decays to zero in the last tenth of the period.
       Where W is zeroed so are the rows of B or the columns of A, and whatever they learn later adds nothing there.
    3. At the end of the period s B A moves into W and B starts again from zero. So the weights change by a low rank in
       each period, and by a higher one over the run.

    What is saved must hold the weights as well as the adapters. Merge and unload the adapters before exporting.

    Args:
        optimizer: over the factors, and whatever else trains.
        groups: found on the model before it got adapters, and bound to the one that has them.
        target, steps, saliency, include, exclude, families, round_to, min_kept, process_group: as for
            :class:`~ozgraph.runtime.hesso.HESSO`.
        start: the step (int) or fraction of the run (float) of the first period.
        end: by when the target is met.
        periods: between both.
        penalty, epsilon: as for :class:`DHSPG`.

    Raises:
        UsageError: as for HESSO, and where the model has no low-rank adapters, or others than plain ones.
    """

    method = "lhspg"

    def __init__(
        self,
        optimizer: Optimizer,
        groups: Groups,
        *,
        target: Target,
        steps: int,
        start: float | int = 0.1,
        end: float | int = 0.5,
        periods: int = 5,
        penalty: float = 1e-3,
        epsilon: float = 0.95,
        **choices: Unpack[Choices],
    ) -> None:
        self.schedule = Schedule(start, end, periods).resolve(steps)
        self._adapted = [
            LowRank(name, layer, layer.get_base_layer().weight) for name, layer in low_ranks(groups.module).values()
        ]
        if not self._adapted:
            raise UsageError(
                "the model has no low-rank adapters; bind the groups to the one that has them with groups.bind(model), "
                "or train it with DHSPG"
            )
        super().__init__(
            optimizer,
            groups,
            target=target,
            steps=steps,
            start=start,
            end=end,
            penalty=penalty,
            epsilon=epsilon,
            **choices,
        )

    def selects(self, step: int) -> bool:
        """In every step of every period."""
        return self.schedule.at(step) is not None and self.selection.goal > 0

    def advance(self, step: int, scores: Tensor | None) -> float | None:
        """Choose, penalise and project, decay the rest; merge when the period ends."""
        period = self.schedule.at(step)
        if period is None or scores is None:
            return None
        first, last = self.schedule.edges[period : period + 2]
        if step == first:
            self.redundant = self.selection.choose(
                as_scores(scores), self.gone, self.schedule.due(period, self.selection.goal)
            )
        rest, factor = rest_of(first, last), None
        if step < rest:
            self._half_space(scores)
        else:
            if step == rest:
                self.set_decaying(self.candidates(scores))
            factor = Periods((rest, last)).factor(step)
            if factor == 0.0:
                self.commit()
                factor = None
        if step + 1 == last:
            for adapted in self._adapted:
                adapted.merge_()
        return factor if self.decaying.any() else None

    @property
    def phase(self) -> str:
        """``warming up``, ``period 3 of 5``, or ``holding``."""
        period = self.schedule.at(self.step)
        if period is not None:
            return f"period {period + 1} of {self.schedule.count}"
        return "warming up" if self.step < self.schedule.edges[0] else "holding"

    @property
    def edges(self) -> list[int]:
        """The first step of every period, and the one after the last."""
        return list(self.schedule.edges)

"""The half-space family: HSPG (OTOv1, arXiv 2107.07467) and DHSPG (OTOv2, arXiv 2303.06862) as pruners.

A step that would carry a group across the half-space {z : <z, x> >= eps ||x||^2} of where it stands is taken to mean
that the group wants to be zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Unpack

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

from ozgraph.errors import UsageError
from ozgraph.groups import Groups
from ozgraph.runtime.places import Occupied
from ozgraph.runtime.pruner import Choices, Pruner
from ozgraph.runtime.saliency import Measure
from ozgraph.runtime.schedule import Periods, Schedule
from ozgraph.runtime.scoring import as_scores
from ozgraph.runtime.selection import Mask
from ozgraph.target import Target

_TINY = 1e-12


class HSPG(Pruner):
    """Half-space projected gradient: every group is penalised from ``start`` on, and projected to zero when it crosses.

    The trial point of a group is x~ = x - lr d - lr penalty x / ||x||, which the optimizer and this pruner take
    together; the group becomes zero where <x~, x> < epsilon ||x||^2, lowest scores first, until the target is met. What
    is still missing at ``end`` decays to zero by the end of the run's last tenth before it.

    Args:
        optimizer, groups, target, steps, saliency, include, exclude, families, round_to, min_kept: as for
            :class:`~ozgraph.runtime.hesso.HESSO`.
        start: the step (int) or fraction of the run (float) from which groups are penalised.
        end: by when the target is met.
        penalty: lambda.
        epsilon: how far across the half-space; 0.9 to 0.95 in the papers, 0 is the most cautious.
    """

    method = "hspg"

    def __init__(
        self,
        optimizer: Optimizer,
        groups: Groups,
        *,
        target: Target,
        steps: int,
        start: float | int = 0.1,
        end: float | int = 0.5,
        penalty: float = 1e-3,
        epsilon: float = 0.95,
        **choices: Unpack[Choices],
    ) -> None:
        super().__init__(optimizer, groups, target=target, **choices)
        if penalty < 0 or not 0 <= epsilon < 1:
            raise UsageError(f"penalty is at least 0 and 0 <= epsilon < 1, got {penalty} and {epsilon}")
        whole = Schedule(start, end, 1).resolve(steps)
        first, last = whole.edges
        self.penalised_from, self.decay = first, Periods((rest_of(first, last), last))
        self.penalty, self.epsilon = penalty, epsilon
        self._weights: Mapping[str, Tensor] = {}
        self._lambdas: Tensor | None = None
        self.attach()

    def selects(self, step: int) -> bool:
        """In every step that penalises: the half-space is that of the weights before it."""
        return self.penalised_from <= step < self.decay.edges[-1] and not self.finished

    def _measure(self, before: Mapping[str, Tensor]) -> Measure:
        measure = super()._measure(before)
        self._weights = before
        self._lambdas = self.lambdas(measure)
        return measure

    def lambdas(self, measure: Measure) -> Tensor:
        """The penalty of every group: [slots]."""
        return torch.full((self.layout.total,), self.penalty, device=self.layout.device)

    def candidates(self, scores: Tensor) -> Mask:
        """The groups that are penalised and may be projected: [slots]."""
        return ~self.gone & self.selection.free

    def advance(self, step: int, scores: Tensor | None) -> float | None:
        """Penalise, project what crossed, and decay what is left when time is up."""
        if scores is None:
            return None
        if step < self.decay.edges[0]:
            self._half_space(scores)
            return None
        if step == self.decay.edges[0]:
            self.set_decaying(self.selection.choose(as_scores(scores), self.gone, self.selection.goal))
        factor = self.decay.factor(step)
        if factor == 0.0:
            self.commit()
            return None
        return factor

    def _half_space(self, scores: Tensor) -> None:
        candidates = self.candidates(scores)
        assert self._lambdas is not None
        norms = self.layout.sums(_inner, self._weights, self._weights).sqrt()
        pull = torch.where(self._flags(candidates), self._lambdas / norms.clamp(min=_TINY), 0.0)
        for entry in self.layout.occupied:
            options = self._groups_of_options.get(entry.name)
            if options is not None:
                _pull(entry, self._weights[entry.name], pull, float(options["lr"]))
        inner = self.layout.sums(_inner, self.layout.weights(), self._weights)
        inner, norms = self.processes.mean(torch.stack((inner, norms)))
        crossed = as_scores(inner) < self.epsilon * as_scores(norms) ** 2
        crossed &= candidates
        self._weights = {}
        if crossed.any():
            blocked = np.where(crossed, as_scores(scores), np.inf)
            chosen = self.selection.choose(blocked, self.gone, self.selection.goal) & crossed
            if chosen.any():
                self.set_gone(self.gone | chosen)

    @property
    def edges(self) -> list[int]:
        """The steps at which something changes."""
        return [self.penalised_from, *self.decay.edges]

    @property
    def phase(self) -> str:
        """``warming up``, ``half-space``, ``leaving`` or ``holding``."""
        if self.step < self.penalised_from:
            return "warming up"
        if self.step < self.decay.edges[0]:
            return "half-space"
        return "leaving" if self.step < self.decay.edges[1] else "holding"

    def state_dict(self) -> dict[str, Any]:
        """See :meth:`Pruner.state_dict`."""
        return super().state_dict() | {"edges": self.edges}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See :meth:`Pruner.load_state_dict`."""
        super().load_state_dict(state)
        if list(state["edges"]) != self.edges:
            raise UsageError("the state was saved under another schedule; give the same steps, start and end")


class DHSPG(HSPG):
    """Dual half-space projected gradient: only as many groups as the target needs are penalised, each as it can bear.

    At ``start`` the lowest groups that meet the target are chosen. Their penalty keeps the step a descent step: with
    lower = -<x, g> / ||x|| and upper = -||g||^2 ||x|| / <x, g>, it is 2 * lower between ``penalty`` and ten times that,
    and the middle of both bounds where it would pass the upper one.
    """

    method = "dhspg"

    redundant: Mask | None = None
    """The groups chosen at the start; None before."""

    def lambdas(self, measure: Measure) -> Tensor:
        """The penalty of every group: [slots]."""
        slope = self.layout.sums(_inner, measure.weights, measure.gradients)
        steep = self.layout.sums(_inner, measure.gradients, measure.gradients)
        norms = measure.norms.clamp(min=_TINY)
        lower = -slope / norms
        wanted = (2 * lower).clamp(self.penalty, 10 * self.penalty)
        upper = torch.where(slope < 0, -steep * norms / slope.clamp(max=-_TINY), torch.inf)
        return torch.where(wanted >= upper, (lower + upper) / 2, wanted)

    def candidates(self, scores: Tensor) -> Mask:
        """The groups chosen at the start that are not zero yet."""
        if self.redundant is None:
            self.redundant = self.selection.choose(as_scores(scores), self.gone, self.selection.goal)
        return self.redundant & ~self.gone

    def advance(self, step: int, scores: Tensor | None) -> float | None:
        """As HSPG; what decays at the end is what was chosen at the start."""
        if scores is not None and step == self.decay.edges[0]:
            left = self.candidates(scores)
            self.set_decaying(left)
            factor = self.decay.factor(step)
            if factor == 0.0:
                self.commit()
                return None
            return factor
        return super().advance(step, scores)

    def state_dict(self) -> dict[str, Any]:
        """See :meth:`Pruner.state_dict`."""
        chosen = np.zeros_like(self.gone) if self.redundant is None else self.redundant.copy()
        # Of one shape whatever has happened: torch.distributed.checkpoint loads into what is there.
        return super().state_dict() | {"chosen": self.redundant is not None, "redundant": torch.from_numpy(chosen)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See :meth:`Pruner.load_state_dict`."""
        super().load_state_dict(state)
        self.redundant = state["redundant"].cpu().numpy().astype(bool) if state["chosen"] else None


def rest_of(first: int, last: int) -> int:
    """The step from which what did not cross by itself decays: the last tenth of the time."""
    return max(last - max((last - first) // 10, 1), first)


def _inner(a: Tensor, b: Tensor) -> Tensor:
    product = a.float() * b.float()
    return product if product.dim() == 1 else product.sum(dim=tuple(range(1, product.dim())))


@torch.no_grad()
def _pull(entry: Occupied, before: Tensor, pull: Tensor, rate: float) -> None:
    """X -= rate * pull * before, slot by slot."""
    for place in entry.places:
        positions = torch.zeros(entry.tensor.shape[place.axis], device=pull.device)
        place.spread(pull, positions)
        scaled = entry.shaped(place.axis, positions).to(entry.tensor)
        entry.tensor.addcmul_(before, scaled, value=-rate)

"""How much a slot matters: criteria over the elements of its group, one number a slot, low ones go first.

Formulas after HESSO (arXiv 2409.09085), SNIP (arXiv 1810.02340), GraSP (arXiv 2002.07376), OCSPruner (arXiv
2501.13439) and the OTO family. ``d`` is
the direction that the optimizer steps along, ``g`` the gradient, ``x`` the weights before the step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from ozgraph.errors import UsageError
from ozgraph.runtime.places import Layout
from ozgraph.suggestions import hint

_TINY = 1e-12


def _rest(view: Tensor) -> tuple[int, ...]:
    return tuple(range(1, view.dim()))


def _wide(view: Tensor) -> torch.dtype:
    """What sums are taken in: at least single precision."""
    return torch.promote_types(view.dtype, torch.float32)


def squares(view: Tensor) -> Tensor:
    """Sum of x^2 of every slot of a slot-major view: [slots]."""
    if view.dim() == 1:
        return view.to(_wide(view)).square()
    norms: Tensor = torch.linalg.vector_norm(view, 2, dim=_rest(view), dtype=_wide(view))
    return norms.square()


def _absolutes(view: Tensor) -> Tensor:
    return (
        view.to(_wide(view)).abs()
        if view.dim() == 1
        else torch.linalg.vector_norm(view, 1, dim=_rest(view), dtype=_wide(view))
    )


def _product(a: Tensor, b: Tensor) -> Tensor:
    product = a.float() * b.float()
    return product if product.dim() == 1 else product.sum(dim=_rest(product))


def _absolute_product(a: Tensor, b: Tensor) -> Tensor:
    product = (a.float() * b.float()).abs()
    return product if product.dim() == 1 else product.sum(dim=_rest(product))


def _ones(view: Tensor) -> Tensor:
    count = view[0].numel() if len(view) else 0
    return torch.full((len(view),), float(count), device=view.device)


@dataclass
class Measure:
    """What criteria read: sums over the elements of every group, each worked out once and on demand.

    Attributes:
        layout: families and slots of the run.
        weights: before the step, by name.
        directions: that the optimizer steps along (x_before - x_after = lr * d), by name.
        gradients: by name.
        costs: [slots] MACs that go with each slot.
        hessian_gradient: H g by name, the Hessian of the loss times its gradient; None where nobody recorded it.
    """

    layout: Layout
    weights: Mapping[str, Tensor]
    directions: Mapping[str, Tensor]
    gradients: Mapping[str, Tensor]
    costs: Tensor
    hessian_gradient: Mapping[str, Tensor] | None = None

    @cached_property
    def norms(self) -> Tensor:
        """||x||: [slots]."""
        return self.layout.sums(squares, self.weights).sqrt()

    @cached_property
    def absolutes(self) -> Tensor:
        """Sum of abs(x): [slots]."""
        return self.layout.sums(_absolutes, self.weights)

    @cached_property
    def elements(self) -> Tensor:
        """Number of elements: [slots]."""
        return self.layout.sums(_ones, self.weights)

    @cached_property
    def coupled(self) -> Tensor:
        """Mean over the tensors of a group of ||x||^2 / sqrt(n), n the elements that it has in each: [slots]."""
        totals, tensors = torch.zeros(2, self.layout.total, device=self.layout.device)
        for entry in self.layout.occupied:
            alone = {entry.name: self.weights[entry.name]} if entry.name in self.weights else {}
            for axis in dict.fromkeys(axis for axis, _ in entry.whole):
                norms, elements = self.layout.several_sums((squares, _ones), alone, axis=axis)
                totals += norms / elements.clamp(min=1).sqrt()
                tensors += elements > 0
        mean: Tensor = totals / tensors.clamp(min=1)
        return mean

    @cached_property
    def _against_directions(self) -> tuple[Tensor, Tensor]:
        """<x, d> and ||d||^2, in one pass: a direction may be costly to work out."""
        inner, lengths = self.layout.several_sums((_product, lambda _, d: squares(d)), self.weights, self.directions)
        return inner, lengths

    @cached_property
    def inner(self) -> Tensor:
        """<x, d>: [slots]."""
        return self._against_directions[0]

    @cached_property
    def direction_norms(self) -> Tensor:
        """||d||: [slots]."""
        return self._against_directions[1].sqrt()

    @cached_property
    def sensitivity(self) -> Tensor:
        """Sum of abs(x g): [slots]."""
        return self.layout.sums(_absolute_product, self.weights, self.gradients)

    @cached_property
    def flow(self) -> Tensor:
        """<x, H g>: [slots].

        Raises:
            UsageError: H g was not recorded.
        """
        if self.hessian_gradient is None:
            raise UsageError(
                "grasp needs second derivatives: call pruner.record_hessian_gradient(loss) before backward"
            )
        return self.layout.sums(_product, self.weights, self.hessian_gradient)


Criterion = Callable[[Measure], Tensor]
"""A measure -> [slots] scores; the lowest go first."""


def magnitude(measure: Measure) -> Tensor:
    """||x||."""
    return measure.norms


def mean_magnitude(measure: Measure) -> Tensor:
    """||x|| over the number of elements."""
    return measure.norms / measure.elements.clamp(min=1)


def _cosine(measure: Measure) -> Tensor:
    return measure.inner / (measure.norms * measure.direction_norms + _TINY)


def cosine(measure: Measure) -> Tensor:
    """cos(x, d) + 1: a step that shrinks the group counts for it (HESSO)."""
    return _cosine(measure) + 1


def opposed_cosine(measure: Measure) -> Tensor:
    """1 - cos(x, d): a step that shrinks the group counts against it (OTOv2)."""
    return 1 - _cosine(measure)


def taylor1(measure: Measure) -> Tensor:
    """|<x, d>|."""
    return measure.inner.abs()


def taylor2(measure: Measure) -> Tensor:
    """0.5 <x, d>^2."""
    return 0.5 * measure.inner.square()


def snip(measure: Measure) -> Tensor:
    """Sum of abs(x g): what the loss would change by, element by element."""
    return measure.sensitivity


def grasp(measure: Measure) -> Tensor:
    """<x, H g>: by how much the norm of the gradient falls without the group, to first order (arXiv 2002.07376)."""
    return measure.flow


def coupled(measure: Measure) -> Tensor:
    """Mean over coupled tensors of ||x||^2 / sqrt(n), less where slots are expensive (arXiv 2501.13439).

    The factor is 1 - softmax, over the families, of the MACs in millions that go with one of their slots; a family that
    is alone has none.
    """
    spans = [span for _, span in measure.layout.spans()]
    if len(spans) == 1:
        return measure.coupled
    shares = torch.softmax(torch.stack([measure.costs[span.start] for span in spans]) / 1e6, dim=0)
    sizes = torch.tensor([span.stop - span.start for span in spans], device=shares.device)
    return measure.coupled * (1 - shares.repeat_interleave(sizes))


CRITERIA: dict[str, Criterion] = {
    "magnitude": magnitude,
    "mean_magnitude": mean_magnitude,
    "cosine": cosine,
    "opposed_cosine": opposed_cosine,
    "taylor1": taylor1,
    "taylor2": taylor2,
    "snip": snip,
    "grasp": grasp,
    "coupled": coupled,
}


@dataclass(frozen=True)
class Mix:
    """Weighted sum of criteria, each divided by its Euclidean norm over all slots: S = sum_i w_i * s_i / ||s_i||.

    Groups that are zero already score 0 by every criterion.

    Attributes:
        weights: criterion, by name or as a function -> its weight.
        per: ``"network"``, as published, or ``"family"``: each criterion then has the same root mean square over the
            slots of every family that are not zero yet, so that slots of wide late layers, whose weights are small, do
            not all go before any others do.
        cost_weight: how strongly expensive slots count as less important: scores are divided by
            (cost / mean cost) ** cost_weight. 0 leaves cost out.
    """

    weights: Mapping[str | Criterion, float]
    cost_weight: float = 0.0
    per: Literal["network", "family"] = "network"

    def __post_init__(self) -> None:
        if self.per not in ("network", "family"):
            raise UsageError(f"scores are compared per 'network' or per 'family', not per {self.per!r}")
        for named in self.weights:
            if isinstance(named, str) and named not in CRITERIA:
                raise UsageError(f"no criterion {named!r}; {hint(named, CRITERIA)} A function will do, too")
        if not self.weights:
            raise UsageError("a saliency needs at least one criterion")

    def __call__(self, measure: Measure) -> Tensor:
        """The scores: [slots]."""
        total = torch.zeros(measure.layout.total, device=measure.layout.device)
        for named, weight in self.weights.items():
            criterion = CRITERIA[named] if isinstance(named, str) else named
            scores = criterion(measure)
            if scores.shape != total.shape:
                raise UsageError(
                    f"the criterion {named!r} returned the shape {list(scores.shape)}; it must be one score a slot, "
                    f"{list(total.shape)}"
                )
            # A group that is zero already has nothing left to lose, whatever a criterion makes of 0 / 0.
            scores = torch.where(measure.norms > 0, scores.to(total.dtype), 0.0)
            if self.per == "family":
                scores = _evened(scores, measure)
            total += weight * scores / torch.linalg.vector_norm(scores).clamp(min=_TINY)
        if self.cost_weight:
            relative = measure.costs / measure.costs.mean().clamp(min=_TINY)
            total = total / relative.clamp(min=_TINY) ** self.cost_weight
        return total


def _evened(scores: Tensor, measure: Measure) -> Tensor:
    """Scores over the root mean square of their family's slots that are not zero: [slots]."""
    sizes = torch.tensor([family.size for family in measure.layout.families], device=scores.device)
    family = torch.arange(len(sizes), device=scores.device).repeat_interleave(sizes, output_size=len(scores))
    sums = torch.zeros(2, len(sizes), device=scores.device)
    sums[0].index_add_(0, family, scores.square().to(sums.dtype))
    sums[1].index_add_(0, family, (measure.norms > 0).to(sums.dtype))
    return scores / (sums[0] / sums[1].clamp(min=1)).sqrt().clamp(min=_TINY)[family]


HESSO_MIX = Mix({"magnitude": 0.2, "mean_magnitude": 0.2, "cosine": 0.2, "taylor1": 0.2, "taylor2": 0.2})
"""The five criteria of HESSO, alike."""


def as_saliency(given: str | Criterion | Mapping[str | Criterion, float] | None) -> Criterion:
    """A criterion by name, a function, a mapping of weights, or the default mix.

    Raises:
        UsageError: no criterion has that name.
    """
    if given is None:
        return HESSO_MIX
    if isinstance(given, Mapping):
        return Mix(given)
    if isinstance(given, str):
        return Mix({given: 1.0})
    return given

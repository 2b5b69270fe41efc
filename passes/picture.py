"""What a picture of a model needs, as plain data: operators, dims, families, costs and the order in which groups go."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ozgraph.dims import Dim, resolve
from ozgraph.frontends.scopes import Scope, scopes_of
from ozgraph.graph import Op, Value
from ozgraph.groups import Count, Polynomial
from ozgraph.passes.cost import samples
from ozgraph.passes.counting import Counting
from ozgraph.passes.families import Family
from ozgraph.passes.roles import Roles
from ozgraph.passes.saliency import Scores, criterion
from ozgraph.passes.select import Select
from ozgraph.passes.state import State
from ozgraph.target import Target

BINS = 40
"""Bars of a saliency histogram."""

MOST_SCORES = 400_000
"""Slots of a model whose scores a picture shows one by one; of larger models every nth stands for its neighbours."""

NO_REASON, NO_SLOTS, NO_DATA = -1, -2, -3
"""In the place of a reason: something of the axis may go; its size is one; it is not followed (shapes, indexes)."""


@dataclass(frozen=True, slots=True)
class Axis:
    """What an axis is made of; axes that always shrink alike share one.

    Attributes:
        size: positions.
        families: numbers of the families that it runs through, outermost first.
        reason: number of the reason for what is frozen of it, or one of the codes above.
        kept: positions that stay, as a polynomial in the counts of the picture.
    """

    size: int
    families: tuple[int, ...]
    reason: int
    kept: Polynomial


@dataclass(frozen=True, slots=True)
class Product:
    """A cost: a factor times what is kept of some axes. ``owner`` is the number of a value or an operator."""

    owner: int
    factor: int
    axes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Slice:
    """A weight axis that shrinks with a family; ``role`` is producer, consumer or slice."""

    value: int
    axis: int
    role: str


@dataclass(frozen=True, slots=True)
class Order:
    """In which order slots go under one criterion, and how much they matter.

    Attributes:
        criterion: its name.
        families, widths: of every block of slots, the first to go first.
        weighted: number of a count whose slots weigh differently -> what every block of its family takes of it.
        low, top: the scores, over the family's mean, up to which the first bin goes and at which the last begins.
        scores: family -> the bins of its slots: those of its blocks in their order, then those that never go.
    """

    criterion: str
    families: tuple[int, ...]
    widths: tuple[int, ...]
    weighted: dict[int, tuple[int, ...]]
    low: float
    top: float
    scores: dict[int, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Picture:
    """A model, ready to be drawn; numbers refer to places in these lists.

    Attributes:
        ops, values: operators and tensors of the graph.
        outputs: the values that the model returns.
        scopes: the modules around every operator.
        axes: distinct axes.
        of_value: the axes of every value.
        reasons: (text, operator, name of one such operator).
        slices: of every family, the weight axes that shrink with it.
        counts: what the polynomials count.
        parameters, macs: the costs; MACs are of ``samples`` samples.
        orders: one a criterion; none where weights cannot be read.
        step: slots that one score in ``orders`` stands for.
    """

    ops: tuple[Op, ...]
    values: tuple[Value, ...]
    outputs: tuple[Value, ...]
    scopes: tuple[Scope, ...]
    axes: tuple[Axis, ...]
    of_value: tuple[tuple[int, ...], ...]
    reasons: tuple[tuple[str, str, str], ...]
    slices: tuple[tuple[Slice, ...], ...]
    counts: tuple[Count, ...]
    parameters: tuple[Product, ...]
    macs: tuple[Product, ...]
    samples: int
    orders: tuple[Order, ...]
    step: int = 1


def picture_of(state: State) -> Picture:
    """The picture of an analysed model; reads its weights, for their saliency."""
    assert state.cost is not None
    values = tuple(state.graph.values.values())
    ops = state.graph.ops
    where = scopes_of(state.graph)
    axes = _Axes(state)
    of_value = tuple(axes.of(value) for value in values)
    value_numbers = {value: number for number, value in enumerate(values)}
    op_numbers = {op: number for number, op in enumerate(ops)}
    roles = Roles(state)
    slices = tuple(
        tuple(Slice(value_numbers[value], axis, roles.of(value, axis)) for value, axis in family.slices)
        for family in state.families
    )
    cost = state.cost
    parameters = tuple(
        Product(value_numbers[value], factor, tuple(map(axes.number, dims)))
        for value, (factor, dims) in zip(state.parameters, cost.products(cost.parameter_terms), strict=True)
    )
    macs = tuple(
        Product(op_numbers[op], factor, tuple(map(axes.number, dims)))
        for op, (factor, dims) in zip(cost.mac_ops, cost.products(cost.mac_terms), strict=True)
    )
    total = sum(family.atom.size for family in state.families)
    step = -(-total // MOST_SCORES) if total else 1
    readable = all(value.readable for family in state.families for value, _ in family.slices)
    orders = tuple(_order(state, name, axes.counts, step) for name in ("l2", "l1")) if readable else ()
    return Picture(
        ops,
        values,
        state.graph.outputs,
        tuple(where[op] for op in ops),
        tuple(axes.found),
        of_value,
        tuple(axes.reasons),
        slices,
        axes.counts,
        parameters,
        macs,
        samples(state),
        orders,
        step,
    )


class _Axes:
    """Distinct axes, numbered as they are met."""

    def __init__(self, state: State) -> None:
        self.found: list[Axis] = []
        self.reasons: dict[tuple[str, str, str], int] = {}
        self._state = state
        self._counting = Counting(state)
        self._numbers: dict[object, int] = {}
        self._families = {family.atom: number for number, family in enumerate(state.families)}

    @property
    def counts(self) -> tuple[Count, ...]:
        return self._counting.counts

    def of(self, value: Value) -> tuple[int, ...]:
        """The axes of a value; none where its shape is unknown."""
        dims = self._state.axes.get(value)
        if dims is not None:
            return tuple(map(self.number, dims))
        return tuple(self._numbered((size, NO_DATA), size, (), NO_DATA) for size in value.shape or ())

    def number(self, dim: Dim) -> int:
        """The number of an axis with this dim."""
        top = resolve(dim)
        known = self._numbers.get(top)
        if known is None:
            known = self._numbers[top] = self._new(top)
        return known

    def _new(self, dim: Dim) -> int:
        families = tuple(self._families[atom] for atom in self._state.atoms_of(dim) if atom in self._families)
        if not families:
            reason = self._reason(dim)
            return self._numbered((dim.size, reason), dim.size, (), reason)
        kept = self._counting.size(dim)
        reason = self._reason(dim)
        key = (dim.size, families, reason, kept)
        return self._numbered(key, dim.size, families, reason, kept)

    def _numbered(
        self, key: object, size: int, families: tuple[int, ...], reason: int, kept: Polynomial | None = None
    ) -> int:
        known = self._numbers.get(key)
        if known is None:
            known = self._numbers[key] = len(self.found)
            self.found.append(Axis(size, families, reason, Polynomial.constant(size) if kept is None else kept))
        return known

    def _reason(self, dim: Dim) -> int:
        """The reason of the first frozen slot, as reports give it."""
        dims = self._state.dims
        table = dims.ids(dim, frozen=True)
        slots = table[table >= 0]
        if not slots.size:
            return NO_SLOTS
        numbers = dims.frozen_reason(slots)
        held = numbers[numbers >= 0]
        if not held.size:
            return NO_REASON
        reason = dims.reasons[int(held[0])]
        return self.reasons.setdefault((reason.text, reason.operator, reason.op), len(self.reasons))


def _order(state: State, name: str, counts: tuple[Count, ...], step: int) -> Order:
    """The blocks of ``ozgraph prune`` under one criterion, with its other options at their defaults."""
    measure, scores = criterion(name, 0), dict[Family, Scores]()

    def once(state: State, family: Family) -> Scores:
        scores[family] = _relative(measure(state, family))
        return scores[family]

    ranking = Select(target=Target(macs=0.0), criterion=once).rank(state)
    numbers = {family: number for number, family in enumerate(state.families)}
    weighted: dict[int, list[int]] = {number: [] for number, count in enumerate(counts) if count.weights is not None}
    order: dict[Family, list[int]] = {}
    for family, mask in ranking.blocks:
        slots = np.flatnonzero(mask)
        order.setdefault(family, []).extend(slots[np.argsort(scores[family][slots], kind="stable")].tolist())
        for number, taken in weighted.items():
            weights = counts[number].weights
            if counts[number].family == numbers[family] and weights is not None:
                taken.append(int(np.asarray(weights)[mask].sum()))
    everything = np.concatenate([*scores.values(), np.zeros(0)])
    low, top = np.quantile(everything, (0.005, 0.995)).tolist() if everything.size else (0.0, 1.0)
    top = top if top > low else low + 1.0
    return Order(
        name,
        tuple(numbers[family] for family, _ in ranking.blocks),
        tuple(int(mask.sum()) for _, mask in ranking.blocks),
        {number: tuple(taken) for number, taken in weighted.items()},
        low,
        top,
        {
            numbers[family]: tuple(_bins(going, (scores[family] - low) / (top - low), step))
            for family, going in order.items()
        },
    )


def _relative(scores: Scores) -> Scores:
    """Scores over the mean of the family, as selection compares them."""
    mean = float(np.abs(scores).mean())
    return scores / mean if mean > 0 else scores


def _bins(going: list[int], places: Scores, step: int) -> Iterator[int]:
    """The bins of a family's slots, whose places are from 0 to 1: those that go first, in their order."""
    others = np.ones(len(places), dtype=bool)
    others[going] = False
    ordered = np.array([*going, *np.flatnonzero(others)], dtype=np.int64)[::step]
    bins = np.floor(np.nan_to_num(places[ordered]) * (BINS - 1))
    yield from np.clip(bins, 0, BINS - 1).astype(int).tolist()

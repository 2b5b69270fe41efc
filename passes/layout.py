"""Where the letters of a rule stand, and so which axes of the results come from which of the operands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from ozgraph.rules.notation import Axes, Axis, Concat, Letter, Product
from ozgraph.rules.rule import Spec

Place = tuple[int, int]
"""(operand or result position, axis)."""

Flows = tuple[tuple[tuple[Place, ...], ...], ...]
"""For each result and each of its axes, the (operand, axis) pairs whose slots end up there."""


def letter_names(axis: Axis) -> tuple[str, ...]:
    """The letters of an axis expression, outermost first."""
    if isinstance(axis, Letter):
        return (axis.name,)
    if isinstance(axis, Product):
        return axis.factors
    if isinstance(axis, Concat):
        return tuple(name for part in axis.parts for name in letter_names(part))
    return ()


@dataclass(frozen=True)
class Layout:
    """Where the letters of a rule stand; the same for every operator of the same rule and ranks.

    Attributes:
        operands, results: letter -> places.
        contracted: letters of several operands that no result has, in the order of the operands.
        unsaid: other letters that only operands or only results have.
        flows: where results come from, ties and takes left aside.
        products: the products that stand anywhere.
        concatenates: whether there is a concatenation.
    """

    operands: Mapping[str, tuple[Place, ...]]
    results: Mapping[str, tuple[Place, ...]]
    contracted: tuple[str, ...]
    unsaid: frozenset[str]
    flows: Flows
    products: tuple[Product, ...]
    concatenates: bool


@lru_cache(maxsize=4096)
def layout_of(operands: tuple[Axes | None, ...], results: tuple[Axes | None, ...]) -> Layout:
    """The layout of a rule's axes."""
    where, carried = _places(operands), _places(results)
    contracted = tuple(
        name for name, places in where.items() if name not in carried and len({place[0] for place in places}) > 1
    )
    unsaid = frozenset(where.keys() ^ carried.keys()).difference(contracted)
    distinct = dict.fromkeys(axis for axes in (*operands, *results) for axis in axes or ())
    products = tuple(axis for axis in distinct if isinstance(axis, Product))
    concatenates = any(isinstance(axis, Concat) for axis in distinct)
    return Layout(where, carried, contracted, unsaid, _flows(results, where, {}), products, concatenates)


def _places(tensors: tuple[Axes | None, ...]) -> dict[str, tuple[Place, ...]]:
    found: dict[str, list[Place]] = {}
    for position, axes in enumerate(tensors):
        for number, axis in enumerate(axes or ()):
            for name in letter_names(axis):
                found.setdefault(name, []).append((position, number))
    return {name: tuple(places) for name, places in found.items()}


def _flows(
    results: tuple[Axes | None, ...],
    where: Mapping[str, tuple[Place, ...]],
    linked: Mapping[str, tuple[str, ...]],
) -> Flows:
    def sources(axis: Axis) -> tuple[Place, ...]:
        found: dict[Place, None] = {}
        for name in letter_names(axis):
            for source in (name, *linked.get(name, ())):
                found.update(dict.fromkeys(where.get(source, ())))
        return tuple(found)

    return tuple(tuple(sources(axis) for axis in axes or ()) for axes in results)


def flows_of(spec: Spec) -> Flows:
    """For each result and each of its axes, the (operand, axis) pairs whose slots end up there."""
    layout = layout_of(spec.operands, spec.results)
    if not spec.ties and not spec.takes:
        return layout.flows
    return _flows(spec.results, layout.operands, _linked(spec, layout))


def tied_letters(spec: Spec, name: str) -> set[str]:
    """The letters that a plain tie makes the same as ``name``."""
    tied = {name}
    for left, right in spec.ties:
        if isinstance(left, Letter) and isinstance(right, Letter):
            if left.name == name:
                tied.add(right.name)
            elif right.name == name:
                tied.add(left.name)
    return tied


def _linked(spec: Spec, layout: Layout) -> dict[str, tuple[str, ...]]:
    """Result letter -> operand letters that it is made of through a tie or a take."""
    linked: dict[str, tuple[str, ...]] = {name: (source,) for name, (source, _) in spec.takes.items()}
    made_here = layout.results.keys() - layout.operands.keys()
    for left, right in spec.ties:
        for made, source in ((left, right), (right, left)):
            names = letter_names(made)
            if names and all(name in made_here for name in names):
                for name in names:
                    linked[name] = (*linked.get(name, ()), *letter_names(source))
    return linked

"""A rule applied to one operator: what its letters stand for, and where slots go and are combined."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache

from ozgraph.dims import Dim
from ozgraph.errors import RuleError
from ozgraph.graph import Op
from ozgraph.rules.notation import Axes, Axis, Concat, Letter, Product
from ozgraph.rules.rule import Reduction, Rule, Spec

Place = tuple[int, int]
"""(operand or result position, axis)."""

Flows = tuple[tuple[tuple[Place, ...], ...], ...]
"""For each result and each of its axes, the (operand, axis) pairs whose slots end up there."""


UNREADABLE = "its operands or attributes are not such as its rule takes"
"""The reason where a rule fails on an operator instead of describing it."""


def described(op: Op, rule: Rule) -> Spec:
    """What a rule says of an operator.

    Raises:
        RuleError: it has a reason to freeze the operator, or fails on it.
    """
    try:
        spec = rule.describe(op)
    except RuleError:
        raise
    except Exception as error:  # a rule may be anybody's, and a damaged file gives operators what they cannot take
        raise RuleError(UNREADABLE) from error
    if (len(spec.operands), len(spec.results)) != (len(op.inputs), len(op.outputs)):
        raise RuleError(UNREADABLE)
    return spec


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
    """

    operands: Mapping[str, tuple[Place, ...]]
    results: Mapping[str, tuple[Place, ...]]
    contracted: tuple[str, ...]
    unsaid: frozenset[str]
    flows: Flows


@lru_cache(maxsize=4096)
def layout_of(operands: tuple[Axes | None, ...], results: tuple[Axes | None, ...]) -> Layout:
    """The layout of a rule's axes."""
    where, carried = _places(operands), _places(results)
    contracted = tuple(
        name for name, places in where.items() if name not in carried and len({place[0] for place in places}) > 1
    )
    unsaid = frozenset(where.keys() ^ carried.keys()).difference(contracted)
    return Layout(where, carried, contracted, unsaid, _flows(results, where, {}))


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


@dataclass(frozen=True, slots=True)
class Site:
    """A place where an operator combines the slots of a dim.

    Attributes:
        letter: the letter of the operator's rule.
        dim: what the letter stands for.
        operands: every occurrence among the operands.
        results: recurrent occurrences among the results, whose zero makes the term vanish as well.
    """

    op: Op
    letter: str
    dim: Dim
    reduction: Reduction
    operands: tuple[Place, ...]
    results: tuple[Place, ...] = ()


@dataclass(eq=False)
class Bound:
    """A rule applied to one operator.

    Attributes:
        env: letter -> dim.
        sites: where slots are combined.
    """

    op: Op
    rule: Rule
    spec: Spec
    env: dict[str, Dim]
    sites: tuple[Site, ...] = ()

    @cached_property
    def layout(self) -> Layout:
        """Where the rule's letters stand."""
        return layout_of(self.spec.operands, self.spec.results)

    @cached_property
    def flows(self) -> Flows:
        """For each result and each of its axes, the (operand, axis) pairs whose slots end up there."""
        layout = self.layout
        if not self.spec.ties and not self.spec.takes:
            return layout.flows
        return _flows(self.spec.results, layout.operands, self._linked(layout))

    def _linked(self, layout: Layout) -> dict[str, tuple[str, ...]]:
        """Result letter -> operand letters that it is made of through a tie or a take."""
        linked: dict[str, tuple[str, ...]] = {name: (source,) for name, (source, _) in self.spec.takes.items()}
        made_here = layout.results.keys() - layout.operands.keys()
        for left, right in self.spec.ties:
            for made, source in ((left, right), (right, left)):
                names = letter_names(made)
                if names and all(name in made_here for name in names):
                    for name in names:
                        linked[name] = (*linked.get(name, ()), *letter_names(source))
        return linked

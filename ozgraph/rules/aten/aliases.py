"""What a write in place does to other views of the same memory: operators that only analysis knows of.

``ozgraph.viewed`` is a view taken again of what was written; ``ozgraph.written`` is a tensor with one of its views
written over; ``ozgraph.either`` is one of two, where torch decides at run time whether a view was a copy.
"""

from __future__ import annotations

from collections.abc import Sequence

from ozgraph.errors import RuleError
from ozgraph.graph import Op
from ozgraph.rules.lattice import Slots, joined
from ozgraph.rules.notation import Axes, Axis, Concat, Letter, Product
from ozgraph.rules.registry import RULES, register
from ozgraph.rules.rule import Reduction, Rule, Spec, letters, need_shape


def _rule_of(view: Op) -> Rule:
    rule = RULES.get(view.operator) or RULES.get(f"{view.domain}.{view.type.partition('.')[0]}")
    if rule is None:
        raise RuleError("it writes through a view that is not known")
    return rule


def _view(op: Op) -> tuple[Spec, Axes, Axes]:
    """The spec of the view, the axes of what it views and its own."""
    view: Op = op.attributes["view"]
    spec = _rule_of(view).describe(view)
    source, made = spec.operands[0], spec.results[int(op.attributes["result"])]
    if source is None or made is None:
        raise RuleError("it writes through a view that is not known")
    return spec, source, made


def _names(axes: Axes) -> set[str]:
    def within(axis: Axis) -> tuple[str, ...]:
        if isinstance(axis, Letter):
            return (axis.name,)
        if isinstance(axis, Product):
            return axis.factors
        return tuple(name for part in axis.parts for name in within(part)) if isinstance(axis, Concat) else ()

    return {name for axis in axes for name in within(axis)}


def _viewed(op: Op) -> Spec:
    spec, source, made = _view(op)
    unread = dict.fromkeys(_names(source) - _names(made), Reduction.UNREAD)
    reduced = {**unread, **{name: how for name, how in spec.reduced.items() if name not in _tied(spec)}}
    return Spec((source,), (made,), spec.sizes, reduced, spec.frozen, spec.ties, spec.takes)


def _tied(spec: Spec) -> set[str]:
    return {name for tie in spec.ties for name in _names(tie)}


def _written(op: Op) -> Spec:
    spec, source, made = _view(op)
    if spec.takes:
        raise RuleError("it writes through a view of chosen positions")
    reduced = {name: how for name, how in spec.reduced.items() if name not in _names(source)}
    return Spec((source, made), (source,), spec.sizes, reduced, spec.frozen, spec.ties)


def _either(op: Op) -> Spec:
    names = letters("a", len(need_shape(op.inputs[0], op)))
    return Spec((names, names), (names,))


def _again(op: Op, states: Sequence[Slots | None], result: int, axis: int) -> Slots:
    view: Op = op.attributes["view"]
    return _rule_of(view).transfer(
        view, [states[0], *(None for _ in view.inputs[1:])], int(op.attributes["result"]), axis
    )


register("ozgraph.viewed", Rule(_viewed, _again, text="the view's own"))
register("ozgraph.written", Rule(_written, joined, text="a, view(a) -> a"))
register("ozgraph.either", Rule(_either, joined, text="..., ... -> ..."))

"""Which operators share a program: those that a rule cannot tell from one another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from ozgraph.graph import Op
from ozgraph.passes.program import Program, compiled
from ozgraph.rules.rule import ByRanks, ByShapes, Rule

Kind = tuple[Any, ...]
"""What operators of one rule, type, version and attributes have in common."""

Likeness = tuple[Any, ...]
"""What tells operators apart for a rule."""


class Programs:
    """The programs of one model, each worked out once for all operators that are alike."""

    def __init__(self) -> None:
        self._known: dict[Op, Program] = {}
        self._exact: dict[Likeness, Program] = {}
        self._scaling: dict[Likeness, Program | Literal[False]] = {}  # False: sizes matter
        self._kinds: dict[Kind, int] = {}
        self._outlines: dict[tuple[int, ...], int] = {}
        self._patterns: dict[tuple[int, ...], int] = {}

    def of(self, op: Op, rule: Rule) -> Program:
        """The program of a rule for an operator.

        Raises:
            RuleError: the rule cannot speak, or does not fit the shapes.
        """
        known = self._known.get(op)
        if known is None:
            known = self._known[op] = self._find(op, rule)
        return known

    def _find(self, op: Op, rule: Rule) -> Program:
        kind = kind_of(op, rule) if isinstance(rule.describe, ByShapes) else None
        if kind is None:
            return compiled(op, rule, False)
        number = self._kinds.setdefault(kind, len(self._kinds))
        rough = None
        if isinstance(rule.describe, ByRanks):
            rough = likeness(op, number, self._outline)
            scaling = self._scaling.get(rough)
            if scaling:
                return scaling
            if scaling is False:
                rough = None
        exact = likeness(op, number, _itself)
        program = self._exact.get(exact)
        if program is None:
            program = self._exact[exact] = compiled(op, rule, True)
            if rough is not None:
                self._scaling[rough] = program if program.scales else False
        return program

    def _outline(self, shape: tuple[int, ...] | None) -> int | None:
        """A number for which sizes are one or none."""
        if shape is None:
            return None
        known = self._outlines.get(shape)
        if known is None:
            pattern = tuple([min(size, 2) for size in shape])
            known = self._outlines[shape] = self._patterns.setdefault(pattern, len(self._patterns))
        return known


def _itself(shape: tuple[int, ...] | None) -> tuple[int, ...] | None:
    return shape


_PLAIN = frozenset((int, float, str, bytes, bool, type(None)))


def kind_of(op: Op, rule: Rule) -> Kind | None:
    """The kind of an operator; None where that is hard to say."""
    if op.captures:
        return None  # it has bodies, which no attribute here tells apart
    key: list[Any] = [id(rule), op.domain, op.type, op.version]
    for name, given in op.attributes.items():
        if type(given) in _PLAIN:
            key += (name, given)
        elif type(given) is list and _PLAIN.issuperset(map(type, given)):
            key += (name, tuple(given))
        else:
            return None
    return tuple(key)


def likeness(op: Op, kind: int, view: Callable[[tuple[int, ...] | None], Any]) -> Likeness:
    """All that a rule may look at, when it sees ``view`` of a shape."""
    operands: list[Any] = []
    for value in op.inputs:
        if value is None:
            operands.append(None)
        elif value.integers is not None:
            elements, dynamic = value.integers.elements, value.integers.dynamic
            operands.append((value.shape, elements.dtype.char, elements.tobytes(), dynamic.tobytes()))
        elif value.constant is None or value.is_float:
            operands.append(view(value.shape))
        else:
            operands.append(value)  # elements that a rule may read
    results = [None if value is None else view(value.shape) for value in op.outputs]
    # Element types are for transfers, see :class:`~ozgraph.rules.lattice.ByStates`.
    dtypes = [None if value is None else id(value.dtype) for value in (*op.inputs, *op.outputs)]
    return kind, *operands, "->", *results, *dtypes

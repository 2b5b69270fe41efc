"""Which values are tables: shared by layers that have nothing else in common, and with no slot for a layer to lose.

Rotary tables are computed from positions, looked up in a constant or stored as they are, and every layer multiplies by
them; masks and position biases are added to the scores of every layer. None of that should tie the layers. Nothing in a
file tells a table from a weight, so a table is known by what is done with it; see :func:`reads_apart`.
"""

from __future__ import annotations

import numpy as np

from ozgraph.errors import RuleError
from ozgraph.graph import Graph, Op, Value
from ozgraph.passes.layout import layout_of, letter_names
from ozgraph.passes.normalize import reads_size
from ozgraph.passes.prover import uniform_constant
from ozgraph.passes.sharing import Programs
from ozgraph.rules.control import CROSSINGS
from ozgraph.rules.lattice import UNKNOWN, ZERO, Slots
from ozgraph.rules.rule import Reduction, Rule, Spec
from ozgraph.rules.table import find_rule

Use = tuple[Op, int]
"""(operator, operand position)."""


def reads_apart(graph: Graph, programs: Programs) -> list[Use]:
    """The uses of tables by operators on data, in the order of the model.

    A table

    1. is an input, a constant, or comes from these alone without ever being summed over: by positions, lookups,
       elementwise functions and outer products. A sum over slots is what layers do to data;
    2. varies along two axes at least if nothing but constants is behind it: it has positions and slots. One number a
       slot is a scale that was trained, and stays one parameter for all who share it;
    3. is read by nothing that its zeros could help, so that no group needs it: it multiplies data, whose zeros suffice,
       or is added where zeros are lost anyway, ahead of a softmax. The same holds for whatever else the constants
       behind it are read for. A position embedding that is added to data is no table.
    """
    origins = _Origins(graph, programs)
    read = {value: origins.read_apart(value) for value in origins.candidates}
    tables = {value for value, uses in read.items() if uses is not None}
    before = 0
    while before != len(tables):
        before = len(tables)
        tables = {
            value
            for value in tables
            if tables.issuperset(origins.made_from.get(value, ())) and tables.issuperset(origins.candidates[value])
        }
    found: dict[Op, list[int]] = {}
    for value in filter(origins.has_positions, tables):
        for op, position in read[value] or ():
            found.setdefault(op, []).append(position)
    return [(op, position) for op in graph.ops if op in found for position in sorted(found[op])]


class _Origins:
    """Values that come from inputs and constants alone, without a sum over slots.

    Attributes:
        candidates: every such value that may be a table -> the constants that it comes from.
        made_from: value -> what operators on such values alone make of it.
    """

    def __init__(self, graph: Graph, programs: Programs) -> None:
        self._programs = programs
        self.candidates: dict[Value, frozenset[Value]] = {}
        self.made_from: dict[Value, list[Value]] = {}
        self._outputs = frozenset(graph.outputs)
        self._known: set[Value] = set(graph.inputs)
        self._varies: set[Value] = set(graph.inputs)
        self._ops: set[Op] = set()
        for op in graph.ops:
            if reads_size(op):
                self._add(op, [], varies=True)
                continue
            for value in (*op.inputs, *op.captures):
                if value is not None and value.constant is None and value not in self._known:
                    break  # most operators work on data
            else:
                if not self._sums(op):
                    operands = self._read(op)
                    self._add(op, operands, varies=not self._varies.isdisjoint(operands))
        for value in (*graph.inputs, *graph.constants):
            # A constant that one operator reads has nothing to share.
            shared = value.constant is None or (len(value.uses) > 1 and self.has_positions(value))
            if shared and _may_be_table(value):
                self.candidates.setdefault(value, frozenset())

    def _knows(self, value: Value) -> bool:
        return value.constant is not None or value in self._known

    def _read(self, op: Op) -> list[Value]:
        """The operands whose elements matter to an operator: where only a type or a size is read, zeros help nobody."""
        rule = find_rule(op)
        try:
            spec = None if rule is None else self._programs.of(op, rule).spec
        except RuleError:
            spec = None
        if spec is None:
            return [value for value in (*op.inputs, *op.captures) if value is not None]
        unread = {name for name, how in spec.reduced.items() if how is Reduction.UNREAD}
        read: list[Value] = list(op.captures)
        for value, axes in zip(op.inputs, spec.operands, strict=True):
            names = set() if axes is None else {name for axis in axes for name in letter_names(axis)}
            if value is not None and not (names and names <= unread):
                read.append(value)
        return read

    def _add(self, op: Op, operands: list[Value], *, varies: bool) -> None:
        results = [value for value in op.outputs if value is not None]
        self._ops.add(op)
        self._known.update(results)
        if varies:
            self._varies.update(results)
        behind: set[Value] = set()
        for value in filter(_may_be_table, operands):
            behind |= {value} if value.constant is not None else self.candidates.setdefault(value, frozenset())
            self.candidates.setdefault(value, frozenset())
            self.made_from.setdefault(value, []).extend(results)
        self.candidates.update(dict.fromkeys(filter(_may_be_table, results), frozenset(behind)))

    def has_positions(self, value: Value) -> bool:
        """Whether a value varies with the input, or along positions as well as slots."""
        return value in self._varies or sum(size > 1 for size in value.shape or ()) > 1

    def read_apart(self, value: Value) -> list[Use] | None:
        """The uses of a value by operators on data; None where its zeros could help one of them."""
        uses = [use for use in value.uses if use[0] not in self._ops]
        return uses if all(self._needs_no_zero(*use) for use in uses) else None

    def _needs_no_zero(self, op: Op, position: int) -> bool:
        """Whether zeros of an operand tell nothing of the results that those of the data do not, or nobody sees it."""
        rule = self._rule(op, position)
        data = [value for value in op.inputs if value is not None and _calculates(value) and not self._knows(value)]
        if rule is None or not data or op.operator in CROSSINGS:
            return False
        return all(
            value is None or not self._helps(op, rule, position, result) or self._is_lost(value)
            for result, value in enumerate(op.outputs)
        )

    def _helps(self, op: Op, rule: Rule, position: int, result: int) -> bool:
        """Whether a result is known only with zero in this operand, the data being zero anyway."""
        for other in (ZERO, UNKNOWN):
            states = [
                None if value is None else _number(value, other if self._knows(value) else ZERO) for value in op.inputs
            ]
            if np.isfinite(_told(op, rule, states, position, result)).any():
                return True
        return False

    def _is_lost(self, value: Value) -> bool:
        """Whether zeros of a value tell nothing of whatever comes of it."""
        waiting, seen = [value], {value}
        for here in waiting:
            if here in self._outputs:
                return False
            for op, position in here.uses:
                rule = self._rule(op, position)
                if rule is None:
                    return False
                for result, made in enumerate(op.outputs):
                    # Others may be zero in the same group, or hold numbers (a divisor).
                    for other in (ZERO, UNKNOWN):
                        states = [None if operand is None else _number(operand, other) for operand in op.inputs]
                        told = _told(op, rule, states, position, result)
                        if made is None or np.isnan(told).all():
                            continue
                        if (told != 0).any():
                            return False
                        if made not in seen:
                            seen.add(made)
                            waiting.append(made)
        return True

    def _rule(self, op: Op, position: int) -> Rule | None:
        """The rule of an operator that neither sums over the axes of an operand nor leaves them out."""
        rule = find_rule(op)
        if rule is None or position < 0:
            return None
        try:
            spec = self._programs.of(op, rule).spec
        except RuleError:
            return None
        axes = spec.operands[position]
        if axes is None or _summed(spec).intersection(name for axis in axes for name in letter_names(axis)):
            return None
        return rule

    def _sums(self, op: Op) -> bool:
        """Whether an operator combines several slots of what it reads; arithmetic on positions does not count."""
        rule = find_rule(op)
        if rule is None or not any(value is not None and value.is_float and value.size > 1 for value in op.outputs):
            return False
        try:
            spec = self._programs.of(op, rule).spec
        except RuleError:
            return False
        summed = _summed(spec)
        return any(
            size > 1 and summed.intersection(letter_names(axis))
            for value, axes in zip(op.inputs, spec.operands, strict=True)
            if value is not None and axes is not None
            for size, axis in zip(value.shape or (), axes, strict=False)
        )


def _number(value: Value, otherwise: Slots) -> Slots:
    known = uniform_constant(value)
    return otherwise if known is None else known


def _told(op: Op, rule: Rule, states: list[Slots | None], position: int, result: int) -> Slots:
    """What zero in one operand tells of a result; NaN where nothing, or the same is known without."""
    value = op.outputs[result]
    if value is None:
        return UNKNOWN
    zero, without = (
        rule.transfer(op, [*states[:position], state, *states[position + 1 :]], result, max(value.rank - 1, 0))
        for state in (ZERO, UNKNOWN)
    )
    return np.where(np.isfinite(zero) & (zero != without), zero, np.nan)


def _may_be_table(value: Value) -> bool:
    """Whether a value is real numbers or a mask, more than one."""
    return value.size > 1 and _calculates(value)


def _calculates(value: Value) -> bool:
    """Whether the elements are no indexes or sizes."""
    return value.is_float or (value.dtype is not None and value.dtype.kind == "b")


def _summed(spec: Spec) -> set[str]:
    """The letters that an operator combines slots over."""
    reduced = {name for name, how in spec.reduced.items() if how is not Reduction.UNREAD}
    return {*layout_of(spec.operands, spec.results).contracted, *reduced}.difference(spec.frozen)

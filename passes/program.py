"""A rule's answer for operators of the same shapes, worked out once: what is made, tied, kept and frozen.

A program speaks of dims by number. Number 0 is the axis of size one, or of none; then come the axes of the operands in
order, then what the program makes itself, step by step. Models repeat their layers, so one program serves many
operators.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import itemgetter

from ozgraph.dims import Dim, Ids
from ozgraph.errors import RuleError
from ozgraph.graph import Op, Value
from ozgraph.passes.layout import Flows, Place, flows_of, layout_of, letter_names, tied_letters
from ozgraph.rules.notation import Axes, Axis, Concat, Letter, One, Product
from ozgraph.rules.rule import ByRanks, Reduction, Rule, Spec

UNREADABLE = "its operands or attributes are not such as its rule takes"
"""The reason where a rule fails on an operator instead of describing it."""

Picks = Callable[[Sequence[Dim]], tuple[Dim, ...]]
"""The dims of a result, out of all that an operator has."""


@dataclass(frozen=True, slots=True)
class Combination:
    """A letter whose slots an operator combines, see :class:`~ozgraph.passes.bound.Site`."""

    letter: str
    number: int
    reduction: Reduction
    operands: tuple[Place, ...]
    results: tuple[Place, ...]


@dataclass(frozen=True, eq=False)
class Program:
    """What to do for one operator; numbers are places in the list of its dims.

    Attributes:
        spec: what the rule said.
        letters: letter -> its number.
        steps: what to add to the list: a fresh atom of a size, or a take, product or sum of what is there.
        ties: pairs that are the same dim.
        lone: (number, index) of axes of which a single position is read.
        results: what picks the dims of each result; None where it is left out.
        frozen: (reason, numbers) that the rule freezes, or says nothing of.
        combinations: letters whose slots are combined.
        scales: whether it serves operators of other sizes too, as long as the same ones are one.
        shared: whether it serves all operators that are alike.
    """

    spec: Spec
    letters: Mapping[str, int]
    steps: tuple[Step, ...]
    ties: tuple[tuple[int, int], ...]
    lone: tuple[tuple[int, Ids], ...]
    results: tuple[Picks | None, ...]
    frozen: tuple[tuple[str, tuple[int, ...]], ...]
    combinations: tuple[Combination, ...]
    scales: bool
    shared: bool

    @cached_property
    def carried(self) -> frozenset[Place]:
        """The operand axes whose slots end up in a result."""
        return frozenset(place for axes in self.flows for flows in axes for place in flows)

    @cached_property
    def flows(self) -> Flows:
        """For each result and each of its axes, the (operand, axis) pairs whose slots end up there."""
        return flows_of(self.spec)


@dataclass(frozen=True, slots=True, eq=False)
class Fresh:
    """A step: an atom of the size that an axis of an operand or a result has."""

    result: bool
    position: int
    axis: int

    def size(self, op: Op) -> int:
        """How many slots it has."""
        value = (op.outputs if self.result else op.inputs)[self.position]
        assert value is not None and value.shape is not None
        return value.shape[self.axis]


@dataclass(frozen=True, slots=True, eq=False)
class Taken:
    """A step: positions of a dim."""

    source: int
    index: Ids


@dataclass(frozen=True, slots=True, eq=False)
class Joined:
    """A step: a product of dims, or else a sum."""

    parts: tuple[int, ...]
    product: bool


Step = int | Fresh | Taken | Joined
"""What a program adds to the list of dims; a number is a fresh atom of so many slots."""


class _Compiler:
    """One rule's answer for one operator, on its way to a program."""

    def __init__(self, op: Op, spec: Spec, by_ranks: bool) -> None:
        self.op = op
        self.spec = spec
        self.layout = layout_of(spec.operands, spec.results)
        self.extents = _extents(op, spec)
        self.scales = by_ranks and self._scales()
        self.letters: dict[str, int] = {}
        self.widths: dict[str, int] = {}  # of the letters that operands bring
        self.steps: list[Step] = []
        self.joined: dict[Axis, int] = {}
        self.ties: list[tuple[int, int]] = []
        self.lone: list[tuple[int, Ids]] = []
        self.silent: list[int] = []
        self.first = 1 + sum(value.rank for value in op.inputs if value is not None)

    def program(self, shared: bool) -> Program:
        self._read_operands()
        if any(self.extents[name] != size for name, size in self.widths.items()):
            raise RuleError("the rule does not fit the shapes that the model declares")
        for name in self.extents:
            self._letter(name)
        results = tuple(
            None if value is None else _picks(self._result(axes, value))
            for axes, value in zip(self.spec.results, self.op.outputs, strict=True)
        )
        for left, right in self.spec.ties:
            self._same(self._size(left), self._size(right))
            self.ties.append((self._number(left), self._number(right)))
        return Program(
            self.spec,
            self.letters,
            tuple(self.steps),
            tuple(self.ties),
            tuple(self.lone),
            results,
            self._frozen(),
            self._combinations(),
            self.scales,
            shared,
        )

    def _scales(self) -> bool:
        """Whether every letter's size can be read from some axis, whatever it is."""
        spec, layout = self.spec, self.layout
        if spec.takes or spec.ties or layout.concatenates or any(size != 1 for size in spec.sizes.values()):
            return False
        if 0 in self.extents.values():
            return False
        return all(len([name for name in product.factors if name not in spec.sizes]) < 2 for product in layout.products)

    def _fresh(self, name: str) -> Step:
        if self.scales:
            for result, places, values in (
                (False, self.layout.operands, self.op.inputs),
                (True, self.layout.results, self.op.outputs),
            ):
                for position, axis in places.get(name, ()):
                    value = values[position]
                    if value is not None and value.shape is not None and value.shape[axis] > 1:
                        return Fresh(result, position, axis)
        return self.extents[name]

    def _add(self, step: Step) -> int:
        self.steps.append(step)
        return self.first + len(self.steps) - 1

    def _read_operands(self) -> None:
        number = 0
        for value, axes in zip(self.op.inputs, self.spec.operands, strict=True):
            if value is None:
                continue
            shape = value.shape or ()
            if axes is None:
                self.silent += [number + 1 + axis for axis, size in enumerate(shape) if size > 1]
                number += len(shape)
                continue
            for axis, size in zip(axes, shape, strict=True):
                number += 1
                if isinstance(axis, One):
                    if size != 1:
                        raise RuleError(f"an axis of size one has {size} positions")
                elif size != 1:  # one position serves all: a broadcast, or the axis is of size one everywhere
                    self._read(axis, size, number)

    def _read(self, axis: Axis, size: int, number: int) -> None:
        """Operand axis ``number`` is what the rule says."""
        if not size:
            self._same(size, self._size(axis))
            return
        name = self._only_letter(axis)
        if name is None:
            if isinstance(axis, (Product, Concat)):
                self._same(size, self._size(axis))
                self.ties.append((number, self._number(axis)))
            else:
                self.silent.append(number)
        elif name in self.letters:
            self._same(self.widths.get(name, self.extents[name]), size)
            self.ties.append((self.letters[name], number))
        elif name not in self.spec.takes:
            self.letters[name], self.widths[name] = number, size

    def _only_letter(self, axis: Axis) -> str | None:
        """The letter that an axis comes down to where all other factors are of size one."""
        if isinstance(axis, Letter):
            return axis.name
        if isinstance(axis, Product):
            wide = [name for name in axis.factors if self.extents[name] > 1]
            if len(wide) == 1:
                return wide[0]
        return None

    def _letter(self, name: str) -> int:
        known = self.letters.get(name)
        if known is None:
            size, take = self.extents[name], self.spec.takes.get(name)
            known = 0
            if take is not None:
                source = self._letter(take[0])
                if size > 1:
                    known = self._add(Taken(source, take[1]))
                elif size:
                    self.lone.append((source, take[1]))
            elif size > 1:
                known = self._add(self._fresh(name))
            self.letters[name] = known
        return known

    def _number(self, axis: Axis) -> int:
        name = self._only_letter(axis)
        if name is not None:
            return self._letter(name)
        if not isinstance(axis, (Product, Concat)):
            return 0
        known = self.joined.get(axis)
        if known is None:
            if isinstance(axis, Product):
                parts = tuple(self._letter(name) for name in axis.factors if self.extents[name] > 1)
            else:
                parts = tuple(self._number(part) for part in axis.parts if self._size(part))
            known = self._add(Joined(parts, isinstance(axis, Product))) if len(parts) > 1 else parts[0] if parts else 0
            self.joined[axis] = known
        return known

    def _size(self, axis: Axis) -> int:
        if isinstance(axis, Letter):
            return self.extents[axis.name]
        if isinstance(axis, Product):
            return math.prod([self.extents[name] for name in axis.factors])
        if isinstance(axis, Concat):
            return sum([self._size(part) for part in axis.parts])
        return 1

    @staticmethod
    def _same(left: int, right: int) -> None:
        if left != right:
            raise RuleError(f"axes of {left} and {right} positions cannot be the same dimension")

    def _result(self, axes: Axes | None, value: Value) -> list[int]:
        shape = value.shape or ()
        if axes is None:
            return []  # a number, of which there is nothing to say
        if len(axes) != len(shape) or any(self._size(axis) != size for axis, size in zip(axes, shape, strict=True)):
            raise RuleError("the rule does not fit the shapes that the model declares")
        return [self._number(axis) for axis in axes]

    def _frozen(self) -> tuple[tuple[str, tuple[int, ...]], ...]:
        """Deny by default: whatever the rule does not carry, contract or name freezes."""
        spec = self.spec
        why = dict.fromkeys(self.layout.unsaid, "the operator looks along it (a window, a lookup or an order)")
        for left, right in spec.ties:
            for name in (*letter_names(left), *letter_names(right)):
                why.pop(name, None)
        for name, (source, _) in spec.takes.items():
            why.pop(name, None)
            why.pop(source, None)
        for name, reduction in spec.reduced.items():
            why.pop(name, None)
            if reduction is Reduction.ORDER:
                why[name] = "the number and order of its slots matter to the operator"
        why |= spec.frozen
        found: dict[str, list[int]] = {}
        if self.silent:
            found["the operator's rule says nothing of this axis"] = self.silent
        if why:
            for name, number in self.letters.items():
                if number and name in why:
                    found.setdefault(why[name], []).append(number)
        return tuple((text, tuple(numbers)) for text, numbers in found.items())

    def _combinations(self) -> tuple[Combination, ...]:
        """Letters that are contracted (in several operands and no result) or that the rule names as reduced."""
        spec, layout = self.spec, self.layout
        found = dict.fromkeys(layout.contracted, Reduction.SUM)
        found |= {name: reduction for name, reduction in spec.reduced.items() if name in layout.operands}
        made = []
        for name, reduction in found.items():
            number = self.letters[name]
            if number and reduction is not Reduction.UNREAD:
                results = tuple(
                    place
                    for tied in (tied_letters(spec, name) if name in spec.recurrent else ())
                    for place in layout.results.get(tied, ())
                    if place[0] in spec.recurrent[name]
                )
                made.append(Combination(name, number, reduction, layout.operands[name], results))
        return tuple(made)


def compiled(op: Op, rule: Rule, shared: bool) -> Program:
    """The program of a rule for an operator, and if ``shared`` for any other that is alike.

    Raises:
        RuleError: the rule cannot speak, or does not fit the shapes.
    """
    spec = described(op, rule)
    if any(value is not None and value.shape is None for value in (*op.inputs, *op.outputs)):
        raise RuleError("the shape of an operand is not known before running")
    if any(
        axes is None and value is not None and value.rank for value, axes in zip(op.outputs, spec.results, strict=True)
    ):
        # What its axes share with the others is not known, so nothing here may shrink.
        raise RuleError("its rule says nothing of one of its results")
    return _Compiler(op, spec, shared and isinstance(rule.describe, ByRanks)).program(shared)


def described(op: Op, rule: Rule) -> Spec:
    """What a rule says of an operator.

    Raises:
        RuleError: it does not speak for this application.
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


def _picks(numbers: list[int]) -> Picks:
    if len(numbers) > 1:
        return itemgetter(*numbers)
    return lambda dims: tuple([dims[number] for number in numbers])


def _extents(op: Op, spec: Spec) -> dict[str, int]:
    """The size of every letter.

    Raises:
        RuleError: the shapes leave a letter undetermined or contradict the rule.
    """
    extents = dict(spec.sizes)
    products: list[tuple[Product, int]] = []
    for tensors, values in ((spec.operands, op.inputs), (spec.results, op.outputs)):
        for axes, value in zip(tensors, values, strict=True):
            if axes is None or value is None or value.shape is None:
                continue
            if len(axes) != len(value.shape):
                raise RuleError(f"{value.name!r} has {len(value.shape)} axes, not {len(axes)}")
            for axis, size in zip(axes, value.shape, strict=True):
                if isinstance(axis, Letter):
                    if size > extents.get(axis.name, -1):  # an axis may have no positions
                        extents[axis.name] = size
                elif isinstance(axis, Product):
                    products.append((axis, size))
    for _ in range(2):  # a product may need a letter that a later product determines
        for product, size in products:
            unknown = [name for name in product.factors if name not in extents]
            if len(unknown) == 1:
                known = 1
                for name in product.factors:
                    known *= extents.get(name, 1)
                if not known or size % known:
                    raise RuleError(f"{size} positions do not divide into groups of {known}")
                extents[unknown[0]] = size // known
    for product, _ in products:
        if any(name not in extents for name in product.factors):
            raise RuleError("the rule leaves a size open")
    for name, (_, index) in spec.takes.items():
        extents[name] = len(index)
    return extents

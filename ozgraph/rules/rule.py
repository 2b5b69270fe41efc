"""What a rule is.

A rule says four things of an operator: how its axes relate (:class:`Spec`), what a slot that is constant in the
operands is in the results (``transfer``), what it costs (``macs``), and which attributes and shape constants follow
when an axis shrinks (``rewrite``). Most rules are one line; see :mod:`ozgraph.rules.notation`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ozgraph.errors import RuleError
from ozgraph.graph import Array, Op, Value
from ozgraph.plan import NewOp
from ozgraph.rules.lattice import Slots
from ozgraph.rules.notation import Axes, Axis, Letter, Pattern, expand, parse


class Reduction(Enum):
    """How an operator combines the slots of an axis, and so what a slot must be for its term to vanish."""

    SUM = "sum"
    """Zero in any operand that has the axis."""
    MEAN = "mean"
    """Zero; the count is kept by turning the mean into a sum times 1/n."""
    RMS = "root mean square norm"
    """Zero, and the statistics are rescaled."""
    NORM = "centred norm"
    """Zero, and the norm is emitted so that it keeps the original statistics."""
    EXTREME = "extreme among numbers of one sign"
    """Zero: no number is negative (a maximum) or positive (a minimum), so that one more zero is never noticed."""
    UNREAD = "left out"
    """Anything: the operator does not read these slots, or makes as many of them as it is asked to."""
    ORDER = "order"
    """Never: the position, the order or the number of slots matters."""


@dataclass(frozen=True, slots=True)
class Spec:
    """The axes of one operator application.

    Attributes:
        operands, results: axes by position; None where nothing is said, which freezes every axis there.
        sizes: letters that the shapes do not determine (inside products and concatenations).
        reduced: letters that are combined across slots; a letter may be reduced and carried (a norm, a softmax).
        frozen: letter -> why its slots cannot go, in plain words.
        ties: further equations between axes (a reshape).
        takes: result letter -> (operand letter, indexes): constant gathers, flips, strides.
        recurrent: letter -> results that feed back into the contraction over it (a recurrent layer's state).
    """

    operands: tuple[Axes | None, ...]
    results: tuple[Axes | None, ...]
    sizes: Mapping[str, int] = field(default_factory=dict)
    reduced: Mapping[str, Reduction] = field(default_factory=dict)
    frozen: Mapping[str, str] = field(default_factory=dict)
    ties: tuple[tuple[Axis, Axis], ...] = ()
    takes: Mapping[str, tuple[str, npt.NDArray[np.int64]]] = field(default_factory=dict)
    recurrent: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


class Edit(Protocol):
    """What a rewrite may ask and do; elimination provides it."""

    @property
    def op(self) -> Op:
        """The operator that is rewritten."""

    @property
    def opset(self) -> int:
        """The version of the default domain: what new operators are written in."""

    def kept(self, letter: str) -> npt.NDArray[np.bool_]:
        """Which positions of a letter of the rule stay."""

    def kept_axis(self, value: Value, axis: int) -> npt.NDArray[np.bool_]:
        """Which positions of an axis stay."""

    def shape(self, value: Value) -> tuple[int, ...]:
        """The shape after elimination."""

    def constant(self, position: int) -> Array | None:
        """The constant operand at ``position`` as it will be after elimination; None when it is computed."""

    def set_attribute(self, name: str, value: Any) -> None:
        """Give the operator another attribute value."""

    def set_constant(self, position: int, array: Array) -> None:
        """Give the operator a constant operand of its own."""

    def set_sizes(self, position: int, elements: Sequence[int | None]) -> None:
        """Replace elements of a computed shape operand; None keeps what the model computes."""

    def replace(self, *ops: NewOp) -> None:
        """Put other operators in place of this one."""

    def rename(self, hint: str) -> str:
        """A fresh tensor name for :meth:`replace`."""


Describe = Callable[[Op], Spec]


@dataclass(frozen=True, slots=True)
class ByShapes:
    """A :data:`Describe` that may be asked once for many operators: a decorator, and a promise.

    Such a function reads nothing of an operator but its type, version and attributes, the shapes of operands and
    results, and the integers that operands are known to hold: no name, no producer, no weight.
    """

    describe: Describe

    def __call__(self, op: Op) -> Spec:
        """The axes of an application."""
        return self.describe(op)


class ByRanks(ByShapes):
    """A :class:`ByShapes` that reads less of the shapes: only ranks, and which sizes are one."""

    __slots__ = ()


Rewriting = Callable[[Edit], None]
Transfer = Callable[[Op, Sequence[Slots | None], int, int], Slots]
"""(operator, operand states for one atom, result position, result axis) -> the state of the result."""


@dataclass(frozen=True, slots=True)
class Folding:
    """How the effect of a constant input slot moves into a bias.

    Attributes:
        applies: whether a constant slot adds the same to every position of an application's result (no zero padding).
        shift: (operator, constants [in], weight in double precision) -> what they add, [out]; without the factor
            that a bias has.
        add: type and domain of the operator that adds two tensors, for where the operator has no bias.
        axis: the axis of the result that the bias lies along.
        data, weight, bias: operand positions; no ``bias`` where the operator never has one.
        factor: the attribute that multiplies the bias, where there is one.
    """

    applies: Callable[[Op], bool]
    shift: Callable[[Op, Slots, Array], Array]
    add: tuple[str, str] = ("Add", "")
    axis: int = -1
    data: int = 0
    weight: int = 1
    bias: int | None = 2
    factor: str = ""


@dataclass(frozen=True, slots=True)
class Rule:
    """What is known of one operator.

    Attributes:
        describe: the axes of an application.
        transfer: states forward, see :mod:`ozgraph.rules.lattice`.
        rewrite: what follows when axes shrink; None when nothing does.
        macs: letters whose sizes multiply to the multiply-accumulates (``*`` for all of them), or several such
            products; one counts where the application has all its letters. Empty when there are none worth counting.
        statistics: operand positions that hold statistics, not trained parameters.
        zero_points: quantised operand -> the operand that holds its zero point: the integer that a sum does not see.
        terms: operands that are added up before they are combined with others or normalised; an operand that is in no
            term stands for itself.
        blocks: letters that give way when they overlap with another family (groups of a convolution).
        folds: how an input slot that is constant may move into the bias; None when it never does.
        text: the rule line, for people.
    """

    describe: Describe
    transfer: Transfer
    rewrite: Rewriting | None = None
    macs: str | tuple[str, ...] = ""
    statistics: frozenset[int] = frozenset()
    zero_points: Mapping[int, int] = field(default_factory=dict)
    terms: tuple[tuple[int, ...], ...] = ()
    blocks: frozenset[str] = frozenset()
    folds: Folding | None = None
    text: str = ""


def ranks(op: Op) -> tuple[tuple[int | None, ...], tuple[int | None, ...]]:
    """Ranks of operands and results; None where left out or unknown."""

    def rank(value: Value | None) -> int | None:
        return None if value is None or value.shape is None else len(value.shape)

    return tuple(rank(value) for value in op.inputs), tuple(rank(value) for value in op.outputs)


def from_pattern(
    pattern: Pattern,
    op: Op,
    *,
    sizes: Mapping[str, int] | None = None,
    reduced: Mapping[str, Reduction] | None = None,
    frozen: Mapping[str, str] | None = None,
) -> Spec:
    """A pattern applied to an operator."""
    opened = expand(pattern, *ranks(op))
    return Spec(opened.operands, opened.results, sizes or {}, reduced or {}, frozen or {})


def line(
    text: str,
    *,
    transfer: Transfer,
    sizes: Mapping[str, Callable[[Op], int]] | None = None,
    reduced: Mapping[str, Reduction] | None = None,
    frozen: Mapping[str, str] | None = None,
    **others: Any,
) -> Rule:
    """A rule in one line of notation. ``sizes`` computes letters from the operator (an attribute, mostly)."""
    pattern = parse(text)

    def describe(op: Op) -> Spec:
        known = {name: compute(op) for name, compute in sizes.items()} if sizes else None
        return from_pattern(pattern, op, sizes=known, reduced=reduced, frozen=frozen)

    by_ranks = all(isinstance(compute, Attribute) for compute in (sizes or {}).values())
    return Rule(ByRanks(describe) if by_ranks else ByShapes(describe), transfer, text=text, **others)


def with_describe(made: Rule, describe: Describe) -> Rule:
    """A copy of a rule that describes axes in another way; for experiments and tests."""
    return replace(made, describe=describe)


@dataclass(frozen=True, slots=True)
class Attribute:
    """A reader for an integer attribute, for ``sizes``."""

    name: str
    default: int

    def __call__(self, op: Op) -> int:
        """What the operator has."""
        return int(op.attributes.get(self.name, self.default))


def attribute(name: str, default: int) -> Attribute:
    """A reader for an integer attribute, for ``sizes``."""
    return Attribute(name, default)


def letters(prefix: str, count: int) -> tuple[Letter, ...]:
    """``count`` distinct letters."""
    return tuple(Letter(f"{prefix}{index}") for index in range(count))


def need_shape(value: Value | None, op: Op) -> tuple[int, ...]:
    """The shape of an operand or result.

    Raises:
        RuleError: it is left out or unknown, so that the rule cannot speak.
    """
    if value is None or value.shape is None:
        raise RuleError(f"{op.operator} {op.name!r}: the shape of an operand is not known before running")
    return value.shape


def known_integers(value: Value | None) -> Array | None:
    """Elements of a shape operand, at the sample sizes; None when they are not known."""
    if value is None:
        return None
    if value.integers is not None:
        return value.integers.elements
    # Integer constants of any size are data that may be read: indexes, bounds, axes.
    if value.constant is not None and value.readable and value.dtype is not None and value.dtype.kind in "iub":
        return value.constant.numpy()
    return None


def axis_list(op: Op, position: int, rank: int, *, name: str = "axes") -> tuple[int, ...] | None:
    """Axes from an attribute or from the operand at ``position``, made non-negative; None when neither is given.

    Raises:
        RuleError: they are computed at run time.
    """
    given = op.attributes.get(name)
    if given is None:
        operand = op.input(position)
        if operand is None:
            return None
        elements = known_integers(operand)
        if elements is None:
            raise RuleError(f"{op.operator} {op.name!r}: its axes are computed at run time")
        given = elements.ravel().tolist()
    return tuple(int(axis) % rank if rank else 0 for axis in given)

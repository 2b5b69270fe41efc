"""Arguments of ATen operators, read the way torch reads them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ozgraph.errors import RuleError
from ozgraph.graph import Op, Value
from ozgraph.plan import NewOp
from ozgraph.rules.aten.computed import Computed
from ozgraph.rules.rule import Edit, need_shape


def rank_of(op: Op, position: int = 0) -> int:
    """Axes of an operand.

    Raises:
        RuleError: it is left out or its shape is not known.
    """
    return len(need_shape(op.input(position), op))


def axis_of(op: Op, rank: int, name: str = "dim", default: int | None = None) -> int:
    """One axis, made non-negative.

    Raises:
        RuleError: none is given.
    """
    given = op.attributes.get(name, default)
    if given is None:
        raise RuleError("its axis is not known")
    return int(given) % rank if rank else 0


def axes_of(op: Op, rank: int, name: str = "dim") -> tuple[int, ...]:
    """Several axes, made non-negative; all of them where none or an empty list is given."""
    given = op.attributes.get(name)
    if given is None or (isinstance(given, list) and not given):
        return tuple(range(rank))
    listed = given if isinstance(given, list) else [given]
    return tuple(int(axis) % rank if rank else 0 for axis in listed)


def source_of(op: Op, position: int = 0) -> Value:
    """An operand that is there.

    Raises:
        RuleError: it is left out.
    """
    value = op.input(position)
    if value is None:
        raise RuleError("an operand is left out")
    return value


def resized(given: Sequence[Any], before: Sequence[int], after: Sequence[int]) -> list[Any]:
    """A list of sizes with those that changed in their place; ``-1`` and computed sizes stay.

    Raises:
        RuleError: a size that is computed at run time would have to change.
    """
    fresh = []
    for size, old, new in zip(given, before, after, strict=True):
        if old == new or size == -1:
            fresh.append(size)
        elif isinstance(size, Computed):
            raise RuleError("a size that it computes at run time would have to change")
        else:
            fresh.append(new)
    return fresh


def replaced(edit: Edit, type_: str, attributes: dict[str, Any], *, operands: int = 1) -> None:
    """Put another ATen operator on the first operands in place of this one."""
    names = tuple(None if value is None else value.name for value in edit.op.inputs[:operands])
    results = tuple("" if value is None else value.name for value in edit.op.outputs)
    edit.replace(NewOp(type_, names, results, attributes, "aten"))


def shrinks(edit: Edit, *values: Value | None) -> bool:
    """Whether an axis of any of these values loses positions."""
    return any(value is not None and value.shape is not None and edit.shape(value) != value.shape for value in values)

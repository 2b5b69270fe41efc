"""If, Loop and Scan: dims flow into bodies, through them and out again.

A body stands in line with the other operators of a graph. What it receives and what the node returns are results of
operators of their own, which these rules are for:

* ``Loop.body``, ``Scan.body``: (first) -> what the body receives; its ``later`` is what the body returns;
* ``Scan.slice``: (sequence) -> one position along ``axis``;
* ``If.result``: (condition, then, else) -> the result;
* ``Loop.result``: (trips, condition, goes on, first, last) -> the result; ``Scan.result``: (first, last);
* ``Loop.stack``: (trips, condition, goes on, each) -> all of them along ``axis``; ``Scan.stack``: (each).
"""

from __future__ import annotations

from ozgraph.errors import RuleError
from ozgraph.graph import Op
from ozgraph.rules.lattice import joined
from ozgraph.rules.notation import Letter
from ozgraph.rules.registry import register
from ozgraph.rules.rule import Describe, Rule, Spec, letters, need_shape

CROSSINGS = frozenset(
    ("Loop.body", "Scan.body", "Scan.slice", "If.result", "Loop.result", "Scan.result", "Loop.stack", "Scan.stack")
)
"""Operators that stand for the way into a body or out of it: their operands are none that a node of the file has."""

_RUNS = "the body runs once for each of its positions"


def _same(conditions: int, differs: str) -> Describe:
    """All operands behind the conditions have the axes of the result."""

    def describe(op: Op) -> Spec:
        shapes = {need_shape(value, op) for value in op.inputs[conditions:]}
        if len(shapes) > 1 or (op.outputs[0] is not None and op.outputs[0].shape is None):
            raise RuleError(differs)
        names = letters("a", len(need_shape(op.outputs[0], op)))
        return Spec((*(None,) * conditions, *(names,) * (len(op.inputs) - conditions)), (names,))

    return describe


def _received(op: Op) -> Spec:
    if op.outputs[0] is None or op.outputs[0].shape is None:
        raise RuleError("what the body receives changes its shape from one run to the next, or has none that is known")
    names = letters("a", len(op.outputs[0].shape))
    return Spec((names,) * len(op.inputs), (names,))


def _sliced(op: Op) -> Spec:
    rank = len(need_shape(op.inputs[0], op))
    axis = _axis(op, rank)
    names = letters("a", rank)
    return Spec((names,), ((*names[:axis], *names[axis + 1 :]),), frozen={f"a{axis}": _RUNS})


def _stacked(conditions: int) -> Describe:
    def describe(op: Op) -> Spec:
        if op.outputs[0] is None or op.outputs[0].shape is None:
            raise RuleError("what it stacks changes its shape from one run to the next, or has none that is known")
        axis = _axis(op, len(op.outputs[0].shape))
        names = letters("a", len(need_shape(op.inputs[conditions], op)))
        result = (*names[:axis], Letter("runs"), *names[axis:])
        return Spec((*(None,) * conditions, names), (result,), frozen={"runs": _RUNS})

    return describe


def _axis(op: Op, rank: int) -> int:
    axis = int(op.attributes.get("axis", 0))
    if not -rank <= axis < rank:
        raise RuleError(f"it runs along axis {axis} of a tensor with {rank} axes")
    return axis % rank


_CHANGES = "what the body returns has another shape than what it receives, or none that is known"

register("Loop.body Scan.body", Rule(_received, joined, text="... -> ..."))
register("Scan.slice", Rule(_sliced, joined, text="... l ... -> ... ..."))
register("If.result", Rule(_same(1, "its branches return different shapes, or one not known"), joined, text="..., ..."))
register("Loop.result", Rule(_same(3, _CHANGES), joined, text="..., ... -> ..."))
register("Scan.result", Rule(_same(0, _CHANGES), joined, text="..., ... -> ..."))
register("Loop.stack", Rule(_stacked(3), joined, text="... -> ... l ..."))
register("Scan.stack", Rule(_stacked(0), joined, text="... -> ... l ..."))

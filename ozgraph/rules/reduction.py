"""Reductions over axes that an attribute or an operand names: sums, means, extremes, norms, softmax, order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ozgraph.graph import Op
from ozgraph.plan import NewOp
from ozgraph.rules.lattice import UNKNOWN, Slots, opaque, uniform, vanishing
from ozgraph.rules.notation import Axes, Axis, Letter, One
from ozgraph.rules.registry import register
from ozgraph.rules.rule import ByRanks, Describe, Edit, Reduction, Rule, Spec, axis_list, letters, need_shape
from ozgraph.rules.signs import signs

_PRODUCT = "a product or a sum of exponentials over it sees every slot"
_EXTREME = {
    "ReduceMax": "a maximum over it may be the zero of a removed slot: nothing says that no number is negative",
    "ReduceMin": "a minimum over it may be the zero of a removed slot: nothing says that no number is positive",
}
EXTREME = "a maximum, a product or a minimum over it sees every slot"


def reduced_axes(op: Op) -> tuple[int, ...]:
    """The axes that a Reduce operator runs over; all where none are given, unless told to do nothing."""
    rank = len(need_shape(op.inputs[0], op))
    axes = axis_list(op, 1, rank)
    if not axes:
        return () if op.attributes.get("noop_with_empty_axes", 0) else tuple(range(rank))
    return axes


def _reduce(reduction: Reduction | None) -> Describe:
    @ByRanks
    def describe(op: Op) -> Spec:
        rank = len(need_shape(op.inputs[0], op))
        axes = reduced_axes(op)
        names = letters("a", rank)
        keep = bool(op.attributes.get("keepdims", 1))
        results: list[Axis] = []
        for number, name in enumerate(names):
            if number not in axes:
                results.append(name)
            elif keep:
                results.append(One())
        over = [f"a{number}" for number in axes]
        operands = (names, *(None for _ in op.inputs[1:]))
        if reduction is None:
            why = _EXTREME.get(op.type, _PRODUCT)
            return Spec(operands, (tuple(results),), frozen=dict.fromkeys(over, why))
        return Spec(operands, (tuple(results),), reduced=dict.fromkeys(over, reduction))

    return describe


def _mean_keeps_its_count(edit: Edit) -> None:
    op = edit.op
    source = op.inputs[0]
    assert source is not None and source.shape is not None and source.dtype is not None
    axes = reduced_axes(op)
    before, after = source.shape, edit.shape(source)
    if all(before[axis] == after[axis] for axis in axes):
        return
    # mean over n slots, n - m of them zero: the mean over the m that stay, times m / n.
    ratio = 1.0
    for axis in axes:
        ratio *= after[axis] / before[axis]
    part = edit.rename("mean")
    inputs = [None if value is None else value.name for value in op.inputs]
    result = op.outputs[0]
    assert result is not None
    edit.replace(
        NewOp("ReduceMean", tuple(inputs), (part,), op.attributes),
        NewOp("Mul", (part, np.array(ratio, dtype=source.dtype)), (result.name,)),
    )


register("ReduceSum ReduceSumSquare ReduceL1 ReduceL2", Rule(_reduce(Reduction.SUM), vanishing, text="sum"))
register("ReduceMean", Rule(_reduce(Reduction.MEAN), uniform, rewrite=_mean_keeps_its_count, text="mean"))


def _extreme(op: Op) -> Spec:
    """Among numbers of one sign a zero more or less is not noticed, as long as one number is left."""
    proved = signs(op.inputs[0])
    harmless = proved.no_negative if op.type == "ReduceMax" else proved.no_positive
    return _reduce(Reduction.EXTREME if harmless else None)(op)


register("ReduceMax ReduceMin", Rule(_extreme, uniform, text="extreme"))
register("ReduceProd", Rule(_reduce(None), vanishing, text="product"))


def _log_of_sum(op: Op, states: Sequence[Slots | None], result: int, axis: int) -> Slots:
    """A sum of zeros has no logarithm."""
    state = states[0]
    return UNKNOWN if state is None else np.where(state == 0, np.inf, np.nan)


register("ReduceLogSum", Rule(_reduce(Reduction.SUM), _log_of_sum, text="log of a sum"))
register("ReduceLogSumExp", Rule(_reduce(None), opaque, text="log of a sum of exponentials"))


def _along(why: str, default: int, *, drops: bool = False) -> Describe:
    """Operators that keep the shape and work along one axis, given by an attribute."""

    @ByRanks
    def describe(op: Op) -> Spec:
        rank = len(need_shape(op.inputs[0], op))
        axis = int(op.attributes.get("axis", default)) % rank if rank else 0
        names = letters("a", rank)
        over = [f"a{axis}"]
        # Before opset 13, softmax flattens to two axes and runs over the second.
        if op.type in ("Softmax", "LogSoftmax", "Hardmax") and op.version < 13:
            axis = int(op.attributes.get("axis", 1)) % rank if rank else 0
            over = [f"a{number}" for number in range(axis, rank)]
        results: Axes = names
        if drops:
            kept: Axes = tuple(name for number, name in enumerate(names) if number != axis)
            results = (*names[:axis], One(), *names[axis + 1 :]) if op.attributes.get("keepdims", 1) else kept
        operands = (names, *(None for _ in op.inputs[1:]))
        return Spec(operands, (results,) * len(op.outputs), frozen=dict.fromkeys(over, why))

    return describe


register("Softmax LogSoftmax Hardmax", Rule(_along("a softmax over it counts every slot", -1), opaque, text="softmax"))
register("ArgMax ArgMin", Rule(_along("an argmax over it returns positions", 0, drops=True), opaque, text="argmax"))


def _lp_normalization(op: Op) -> Spec:
    rank = len(need_shape(op.inputs[0], op))
    names = letters("a", rank)
    axis = int(op.attributes.get("axis", -1)) % rank
    return Spec((names,), (names,), reduced={f"a{axis}": Reduction.SUM})


register("LpNormalization", Rule(_lp_normalization, vanishing, text="x / norm(x)"))


def _cumulative(op: Op) -> Spec:
    rank = len(need_shape(op.inputs[0], op))
    names = letters("a", rank)
    axes = axis_list(op, 1, rank) or (0,)
    return Spec(
        (names, None), (names,), frozen={f"a{axis}": "a running sum along it depends on order" for axis in axes}
    )


register("CumSum CumProd", Rule(_cumulative, vanishing, text="running sum"))


def _topk(op: Op) -> Spec:
    rank = len(need_shape(op.inputs[0], op))
    axis = int(op.attributes.get("axis", -1)) % rank
    names = letters("a", rank)
    results = (*names[:axis], Letter("k"), *names[axis + 1 :])
    why = "a top-k along it depends on order"
    operands = (names, *(None for _ in op.inputs[1:]))
    return Spec(operands, (results,) * len(op.outputs), frozen={f"a{axis}": why, "k": why})


register("TopK", Rule(_topk, opaque, text="top-k"))

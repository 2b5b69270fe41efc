"""Reductions over axes that an argument names: sums, means, extremes, norms, softmax, order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ozgraph.errors import RuleError
from ozgraph.graph import Op
from ozgraph.plan import NewOp
from ozgraph.rules.aten.arguments import axes_of, axis_of, rank_of, source_of
from ozgraph.rules.lattice import Slots, opaque, uniform, vanishing
from ozgraph.rules.notation import Axes, Axis, Letter, One
from ozgraph.rules.reduction import EXTREME
from ozgraph.rules.registry import register
from ozgraph.rules.rule import Describe, Edit, Reduction, Rule, Spec, letters, need_shape
from ozgraph.rules.signs import signs


def _reduce(reduction: Reduction | None, why: str = EXTREME) -> Describe:
    def describe(op: Op) -> Spec:
        rank = rank_of(op)
        axes = axes_of(op, rank)
        names = letters("a", rank)
        results: list[Axis] = []
        for number, name in enumerate(names):
            if number not in axes:
                results.append(name)
            elif op.attributes.get("keepdim"):
                results.append(One())
        over = [f"a{number}" for number in axes]
        operands = (names, *(None for _ in op.inputs[1:]))
        made = (tuple(results),) * len(op.outputs)
        if reduction is None:
            return Spec(operands, made, frozen=dict.fromkeys(over, why))
        return Spec(operands, made, reduced=dict.fromkeys(over, reduction))

    return describe


def _mean_keeps_its_count(edit: Edit) -> None:
    """A mean over n slots of which m stay, the others being zero, is the mean over those m times m / n."""
    op, source, result = edit.op, source_of(edit.op), edit.op.outputs[0]
    assert source.shape is not None and result is not None
    before, after = source.shape, edit.shape(source)
    axes = axes_of(op, len(before))
    ratio = float(np.prod([after[axis] / before[axis] for axis in axes]))
    if all(before[axis] == after[axis] for axis in axes):
        return
    part = edit.rename("mean")
    edit.replace(
        NewOp(op.type, (source.name,), (part,), op.attributes, "aten"),
        NewOp("mul.Scalar", (part,), (result.name,), {"other": ratio}, "aten"),
    )


register("aten.sum", Rule(_reduce(Reduction.SUM), vanishing, text="sum"))
register("aten.mean", Rule(_reduce(Reduction.MEAN), uniform, rewrite=_mean_keeps_its_count, text="mean"))


def _norm(op: Op) -> Spec:
    """Norms add up powers, but for those of order zero and of infinite order."""
    order = op.attributes.get("ord", op.attributes.get("p", 2))
    order = 2.0 if order is None else float(order)
    return _reduce(Reduction.SUM if 0 < order < np.inf else None)(op)


register("aten.linalg_vector_norm aten.norm", Rule(_norm, vanishing, text="norm"))


def _indexed_extreme(op: Op, states: Sequence[Slots | None], result: int, axis: int) -> Slots:
    """The extreme of equal elements is that element; where it stands is not known."""
    return np.array([np.nan]) if result else uniform(op, states, result, axis)


def _extreme(op: Op) -> Spec:
    if len(op.inputs) > 1 and op.inputs[1] is not None:
        from ozgraph.rules.elementwise import elementwise_spec

        return elementwise_spec(op)
    return _reduce(None)(op)


def _extreme_value(op: Op, states: Sequence[Slots | None], result: int, axis: int) -> Slots:
    if len(op.inputs) > 1 and op.inputs[1] is not None:
        left, right = states[0], states[1]
        if left is None or right is None:
            return np.array([np.nan])
        return (np.maximum if op.type.startswith("max") else np.minimum)(left, right)  # NaN, the unknown, stays NaN
    return _indexed_extreme(op, states, result, axis)


register("aten.max aten.min", Rule(_extreme, _extreme_value, text="extreme"))


def _extreme_of_slots(op: Op) -> Spec:
    """Among numbers of one sign a zero more or less is not noticed, as long as one number is left."""
    proved = signs(op.inputs[0])
    harmless = proved.no_negative if op.type.startswith("amax") else proved.no_positive
    return _reduce(Reduction.EXTREME if harmless else None)(op)


register("aten.amax aten.amin", Rule(_extreme_of_slots, uniform, text="extreme"))
register("aten.aminmax", Rule(_reduce(None), uniform, text="extreme"))
register("aten.median aten.nanmedian aten.mode aten.kthvalue", Rule(_reduce(None), _indexed_extreme, text="extreme"))
register("aten.all aten.any", Rule(_reduce(None), opaque, text="extreme"))
register("aten.prod", Rule(_reduce(None), vanishing, text="product"))
register("aten.logsumexp", Rule(_reduce(None), opaque, text="log of a sum"))
register("aten.argmax aten.argmin", Rule(_reduce(None, "an argmax over it returns positions"), opaque, text="argmax"))
register(
    "aten.var aten.std aten.var_mean aten.std_mean",
    Rule(_reduce(None, "a variance over it counts every slot"), opaque, text="variance"),
)


def _along(why: str, *, name: str = "dim", default: int | None = None) -> Describe:
    """Operators that keep the shape and work along one axis."""

    def describe(op: Op) -> Spec:
        rank = rank_of(op)
        names: Axes = letters("a", rank)
        over = [f"a{axis_of(op, rank, name, default)}"] if rank else []
        results = []
        for value in op.outputs:
            shape = need_shape(value, op) if value is not None else need_shape(op.inputs[0], op)
            if len(shape) != rank:
                raise RuleError("its result has another number of axes")
            results.append(names)
        return Spec((names,), tuple(results), frozen=dict.fromkeys(over, why))

    return describe


_SOFTMAX = "a softmax over it counts every slot"
register(
    "aten.softmax aten.log_softmax aten._softmax aten._log_softmax aten._safe_softmax aten.special_softmax "
    "aten.special_log_softmax",
    Rule(_along(_SOFTMAX), opaque, text="softmax"),
)
register(
    "aten.cumsum aten.cumprod aten.logcumsumexp",
    Rule(_along("a running sum along it depends on order"), vanishing, text="running sum"),
)
register("aten.cummax aten.cummin", Rule(_along("a running extreme depends on order"), opaque, text="running extreme"))
register(
    "aten.sort aten.argsort", Rule(_along("sorting along it depends on every slot", default=-1), opaque, text="order")
)


def _diff(op: Op) -> Spec:
    rank = rank_of(op)
    axis = axis_of(op, rank, default=-1)
    names = letters("a", rank)
    why = "a difference along it depends on order"

    def along(part: str) -> tuple[Letter, ...]:
        return (*names[:axis], Letter(part), *names[axis + 1 :])

    parts = tuple(f"d{number}" for number in range(len(op.inputs)))
    return Spec(tuple(map(along, parts)), (along("d"),), frozen=dict.fromkeys((*parts, "d"), why))


register("aten.diff", Rule(_diff, opaque, text="difference"))


def _topk(op: Op) -> Spec:
    rank = rank_of(op)
    axis = axis_of(op, rank, default=-1)
    names, made = letters("a", rank), letters("k", rank)
    results = (*names[:axis], made[axis], *names[axis + 1 :])
    why = "a top-k along it depends on order"
    return Spec((names,), (results,) * len(op.outputs), frozen={f"a{axis}": why, f"k{axis}": why})


register("aten.topk", Rule(_topk, opaque, text="top-k"))

"""Concatenation and splitting: the slots of several tensors along one axis."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ozgraph.errors import RuleError
from ozgraph.graph import Op
from ozgraph.rules.aten.arguments import axis_of, rank_of, replaced, source_of
from ozgraph.rules.lattice import Slots, converted, joined, uniform
from ozgraph.rules.movement import concat_spec, split_spec
from ozgraph.rules.notation import Axes, Letter, Product
from ozgraph.rules.registry import register
from ozgraph.rules.rule import Edit, Reduction, Rule, Spec, letters, need_shape


def _cat(op: Op) -> Spec:
    if any(value is not None and value.rank != rank_of(op) for value in op.inputs):
        raise RuleError("it joins tensors of different numbers of axes")
    return concat_spec(op, axis_of(op, rank_of(op), default=0))


register("aten.cat aten.concat aten.concatenate", Rule(_cat, joined, text="... a ..., ... b ... -> ... (a + b) ..."))


def _stack(op: Op) -> Spec:
    rank = rank_of(op)
    axis = axis_of(op, rank + 1, default=0)
    names = letters("a", rank)
    result = (*names[:axis], Letter("each"), *names[axis:])
    return Spec((names,) * len(op.inputs), (result,), frozen={"each": "every position along it is a tensor of its own"})


register("aten.stack", Rule(_stack, joined, text="... a, ... a -> ... 2 a"))


def _split(op: Op) -> Spec:
    return split_spec(op, axis_of(op, rank_of(op), default=0))


def _split_sizes(edit: Edit) -> None:
    """The widths of the parts; where these cannot be said as they were, they are listed."""
    op, source = edit.op, source_of(edit.op)
    axis = axis_of(op, source.rank, default=0)
    before = [need_shape(value, op)[axis] for value in op.outputs]
    after = [edit.shape(value)[axis] for value in op.outputs if value is not None]
    if after == before:
        return
    if "split_sizes" in op.attributes:
        edit.set_attribute("split_sizes", after)
    elif "split_size" in op.attributes and isinstance(op.attributes["split_size"], list):
        edit.set_attribute("split_size", after)
    elif "split_size" in op.attributes and len(set(after[:-1])) <= 1 and after[-1] <= after[0]:
        edit.set_attribute("split_size", after[0])
    elif op.type.endswith("chunk") and _chunks(sum(after), int(op.attributes["chunks"])) == after:
        return
    else:
        replaced(edit, "split_with_sizes", {"split_sizes": after, "dim": axis})


def _chunks(total: int, parts: int) -> list[int]:
    """The widths into which ``chunk`` cuts an axis.

    >>> _chunks(7, 3)
    [3, 3, 1]
    """
    width = -(-total // parts)
    return [min(width, total - start) for start in range(0, total, width)]


register(
    "aten.split aten.split_with_sizes aten.unsafe_split aten.unsafe_split_with_sizes aten.chunk aten.unsafe_chunk "
    "aten.tensor_split",
    Rule(_split, uniform, rewrite=_split_sizes, text="... (a + b) ... -> ... a ..., ... b ..."),
)


def _unbind(op: Op) -> Spec:
    rank = rank_of(op)
    axis = axis_of(op, rank, default=0)
    names = letters("a", rank)
    result = (*names[:axis], *names[axis + 1 :])
    why = "every position along it becomes a tensor of its own"
    return Spec((names,), (result,) * len(op.outputs), frozen={f"a{axis}": why})


register("aten.unbind", Rule(_unbind, uniform, text="n ... -> ..., ..."))


def _glu(op: Op) -> Spec:
    """The first half times the sigmoid of the second: halves of one dim."""
    rank = rank_of(op)
    axis = axis_of(op, rank, default=-1)
    names = letters("a", rank)
    operand: Axes = (*names[:axis], Product(("half", f"a{axis}")), *names[axis + 1 :])
    return Spec((operand,), (names,), {"half": 2}, frozen={"half": "one half gates the other"})


def _gated(op: Op, states: Sequence[Slots | None], result: int, axis: int) -> Slots:
    return np.array([np.nan]) if states[0] is None else np.where(states[0] == 0, 0.0, np.nan)


register("aten.glu", Rule(_glu, _gated, text="... (2 a) ... -> ... a ..."))


def _part_written(op: Op) -> Spec:
    """A slice or a position of the first operand written over by the second."""
    shape = need_shape(op.inputs[0], op)
    axis = axis_of(op, len(shape), default=0)
    names = letters("a", len(shape))
    why = "positions along it are written one by one"
    part = [*names]
    if op.type.startswith("select"):
        del part[axis]
    elif need_shape(op.inputs[1], op)[axis] == shape[axis]:
        return Spec((names, names), (names,))
    else:
        part[axis] = Letter("part")
    return Spec((names, tuple(part)), (names,), frozen={f"a{axis}": why, "part": why})


register("aten.slice_scatter aten.select_scatter", Rule(_part_written, joined, text="..., ... -> ..."))


def _dropped(op: Op) -> Spec:
    names = letters("a", rank_of(op))
    return Spec((names,), (names,) * len(op.outputs))


def _kept(op: Op, states: Sequence[Slots | None], result: int, axis: int) -> Slots:
    """Nothing is dropped in eval mode; in training, only zero stays what it is."""
    state = states[0]
    if state is None or not (op.attributes.get("train", False) and op.attributes.get("p", 1.0)):
        return np.array([np.nan]) if state is None else state
    return np.where(state == 0, 0.0, np.nan)


register("aten.dropout aten.feature_dropout aten.native_dropout", Rule(_dropped, _kept, text="... -> ..."))


def _same(op: Op) -> Spec:
    """The first operand as it is; of others only type or place are read."""
    names = letters("a", rank_of(op))
    others = tuple(None if value is None else letters(f"o{n}x", value.rank) for n, value in enumerate(op.inputs[1:]))
    unread = {name.name: Reduction.UNREAD for axes in others for name in axes or ()}
    return Spec((names, *others), (names,) * len(op.outputs), reduced=unread)


register(
    "aten.alias aten.clone aten.contiguous aten.detach aten.lift aten.lift_fresh aten.lift_fresh_copy aten.type_as "
    "aten.to aten._to_copy aten.resolve_conj aten.resolve_neg",
    Rule(_same, converted, text="... -> ..."),
)

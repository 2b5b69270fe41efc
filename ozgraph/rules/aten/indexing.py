"""Operators that pick elements: slices, lookups, scatters, rolls."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ozgraph.errors import RuleError
from ozgraph.graph import Op
from ozgraph.plan import NewOp
from ozgraph.rules.aten.arguments import axes_of, axis_of, rank_of, source_of
from ozgraph.rules.aten.computed import Computed
from ozgraph.rules.indexing import LOOKUP, fixed_indexes, gathered_spec, move_indexes, moved_indexes, sliced_spec
from ozgraph.rules.lattice import Slots, given, meet, uniform, vanishing
from ozgraph.rules.notation import Axes, Axis, Concat, Letter
from ozgraph.rules.registry import register
from ozgraph.rules.rule import Edit, Reduction, Rule, Spec, letters, need_shape

Indexes = npt.NDArray[np.int64]

# -- slices ----------------------------------------------------------------------------------------------------------


def _bounds(op: Op, axis: int, size: int) -> tuple[int, int, int] | None:
    """Start, end and step of a slice; None where they are computed at run time."""
    start, end, step = (op.attributes.get(name) for name in ("start", "end", "step"))
    if isinstance(end, Computed) and source_of(op).dynamic[axis]:
        end = None if end == size else end  # all of an axis whose size is computed
    if any(isinstance(bound, Computed) for bound in (start, end, step)):
        return None
    first, last, step = slice(start, end, step).indices(size)
    return first, last, step


def _slice(op: Op) -> Spec:
    shape = need_shape(op.inputs[0], op)
    axis = axis_of(op, len(shape), default=0)
    bounds = _bounds(op, axis, shape[axis])
    return sliced_spec(op, {axis: None if bounds is None else (bounds[0], bounds[2])})


def _slice_bounds(edit: Edit) -> None:
    op, source, result = edit.op, source_of(edit.op), edit.op.outputs[0]
    assert result is not None and source.shape is not None and result.shape is not None
    axis = axis_of(op, source.rank, default=0)
    kept = edit.kept_axis(source, axis)
    bounds = _bounds(op, axis, source.shape[axis])
    if kept.all() or bounds is None:
        return
    first, _, step = bounds
    if step != 1:
        # A strided slice of a shrunken axis is no longer regular.
        wanted = first + step * np.arange(result.shape[axis])
        _index_select(edit, axis, wanted[edit.kept_axis(result, axis)], kept)
        return
    start = int(kept[:first].sum())
    edit.set_attribute("start", start)
    edit.set_attribute("end", start + edit.shape(result)[axis])


def _index_select(edit: Edit, axis: int, positions: Indexes, kept: npt.NDArray[np.bool_]) -> None:
    """Pick positions, counted before elimination, by their new numbers."""
    source, result = source_of(edit.op), edit.op.outputs[0]
    assert result is not None
    picked = moved_indexes(positions, kept)
    edit.replace(NewOp("index_select", (source.name, picked), (result.name,), {"dim": axis}, "aten"))


register("aten.slice", Rule(_slice, uniform, rewrite=_slice_bounds, text="(l + a + r) -> a"))


def _narrow(op: Op) -> Spec:
    shape = need_shape(op.inputs[0], op)
    axis = axis_of(op, len(shape))
    start = op.attributes.get("start")
    fixed = isinstance(start, int) and not isinstance(start, Computed)
    return sliced_spec(op, {axis: (int(start) % shape[axis], 1) if fixed and start is not None else None})


def _narrow_bounds(edit: Edit) -> None:
    op, source, result = edit.op, source_of(edit.op), edit.op.outputs[0]
    assert result is not None and source.shape is not None
    axis = axis_of(op, source.rank)
    kept = edit.kept_axis(source, axis)
    if not kept.all():
        start = int(op.attributes["start"]) % source.shape[axis]
        edit.set_attribute("start", int(kept[:start].sum()))
        edit.set_attribute("length", edit.shape(result)[axis])


register("aten.narrow", Rule(_narrow, uniform, rewrite=_narrow_bounds, text="(l + a + r) -> a"))


def _select(op: Op) -> Spec:
    """One position is read, the others are left out."""
    shape = need_shape(op.inputs[0], op)
    axis, index = axis_of(op, len(shape)), op.attributes["index"]
    names = letters("a", len(shape))
    result = (*names[:axis], *names[axis + 1 :])
    if not isinstance(index, int) or isinstance(index, Computed):
        return Spec((names,), (result,), frozen={f"a{axis}": LOOKUP})
    at = index % shape[axis]
    widths = {f"l{axis}": at, "one": 1, f"r{axis}": shape[axis] - at - 1}
    sizes = {name: width for name, width in widths.items() if width}
    parts = tuple(Letter(name) for name in sizes)
    read: Axis = Concat(parts) if len(parts) > 1 else parts[0]
    unread = {f"l{axis}": Reduction.UNREAD, f"r{axis}": Reduction.UNREAD}
    return Spec(((*names[:axis], read, *names[axis + 1 :]),), (result,), sizes, unread)


def _select_index(edit: Edit) -> None:
    op, source = edit.op, source_of(edit.op)
    axis, index = axis_of(op, source.rank), op.attributes["index"]
    kept = edit.kept_axis(source, axis)
    if not kept.all():
        edit.set_attribute("index", int(kept[: index % len(kept)].sum()))


register("aten.select", Rule(_select, uniform, rewrite=_select_index, text="(l + 1 + r) -> "))


def _diagonal(op: Op) -> Spec:
    rank = rank_of(op)
    first, second = axis_of(op, rank, "dim1", 0), axis_of(op, rank, "dim2", 1)
    names = letters("a", rank)
    rest = tuple(name for axis, name in enumerate(names) if axis not in (first, second))
    why = "a diagonal pairs positions"
    return Spec((names,), ((*rest, Letter("d")),), frozen={f"a{first}": why, f"a{second}": why, "d": why})


register("aten.diagonal aten.linalg_diagonal", Rule(_diagonal, uniform, text="i i -> i"))

# -- lookups ---------------------------------------------------------------------------------------------------------


def _lookup(op: Op, axis: int) -> Spec:
    return gathered_spec(op, axis, fixed_indexes(op.inputs[1], need_shape(op.inputs[0], op)[axis]))


register(
    "aten.embedding",
    Rule(
        lambda op: _lookup(op, 0),
        uniform,
        rewrite=lambda edit: move_indexes(edit, 0, 1),
        text="v d, *i -> *i d",
    ),
)
register(
    "aten.index_select",
    Rule(
        lambda op: _lookup(op, axis_of(op, rank_of(op))),
        uniform,
        rewrite=lambda edit: move_indexes(edit, axis_of(edit.op, rank_of(edit.op)), 1),
        text="v d, i -> i d",
    ),
)


def _embedding_bag(op: Op) -> Spec:
    names = letters("a", 2)
    operands = (names, *(None for _ in op.inputs[1:]))
    results = ((Letter("bags"), names[1]), *(None for _ in op.outputs[1:]))
    return Spec(operands, results, frozen={"a0": LOOKUP, "bags": LOOKUP})


register("aten.embedding_bag aten._embedding_bag", Rule(_embedding_bag, vanishing, text="v d, *i -> b d"))


def _indexed(op: Op) -> tuple[list[int], int]:
    """Axes of the first operand that are indexed, and the operand that holds the last index."""
    return [axis for axis, value in enumerate(op.inputs[1:]) if value is not None], len(op.inputs)


def _index_letters(op: Op, positions: Sequence[int]) -> tuple[tuple[Axes, ...], Axes]:
    """Axes of each index, and of all of them broadcast."""
    ranks = []
    for position in positions:
        value = source_of(op, position)
        if value.dtype is not None and value.dtype.kind == "b":
            raise RuleError("how many elements it picks depends on the data")
        ranks.append(len(need_shape(value, op)))
    picked = letters("i", max(ranks, default=0))
    return tuple(picked[len(picked) - rank :] for rank in ranks), picked


def _index(op: Op) -> Spec:
    """Advanced indexing: indexed axes are looked up, the others carried."""
    rank = rank_of(op)
    axes, _ = _indexed(op)
    names = letters("a", rank)
    each, picked = _index_letters(op, [1 + axis for axis in axes])
    if len(axes) == 1:
        known = fixed_indexes(op.inputs[1 + axes[0]], need_shape(op.inputs[0], op)[axes[0]])
        if known is not None and known.ndim == 1:
            return _taken(op, axes[0], known)
    # Where the indexed axes lie apart, the picked ones come first.
    together = axes == list(range(axes[0], axes[0] + len(axes))) if axes else True
    place = axes[0] if axes and together else 0
    rest = [name for axis, name in enumerate(names) if axis not in axes]
    before = sum(axis not in axes for axis in range(place))
    result = (*rest[:before], *picked, *rest[before:])
    by_axis = dict(zip(axes, each, strict=True))
    operands = (names, *(by_axis.get(number) for number in range(len(op.inputs) - 1)))
    return Spec(operands, (result,), frozen={f"a{axis}": LOOKUP for axis in axes})


def _taken(op: Op, axis: int, known: Indexes) -> Spec:
    names = letters("a", rank_of(op))
    result = (*names[:axis], Letter("t"), *names[axis + 1 :])
    operands = (names, *(None for _ in op.inputs[1:]))
    return Spec(operands, (result,), takes={"t": (f"a{axis}", known)})


def _index_moves(edit: Edit) -> None:
    axes, _ = _indexed(edit.op)
    if len(axes) == 1:
        move_indexes(edit, axes[0], 1 + axes[0])


register("aten.index aten._unsafe_index", Rule(_index, uniform, rewrite=_index_moves, text="*v *d, *i -> *i *d"))


def _gather(op: Op) -> Spec:
    shape, picked = need_shape(op.inputs[0], op), need_shape(op.inputs[1], op)
    axis = axis_of(op, len(shape), default=0)
    names, made = letters("a", len(shape)), letters("b", len(shape))
    result = tuple(
        a if n != axis and shape[n] == picked[n] else b for n, (a, b) in enumerate(zip(names, made, strict=True))
    )
    return Spec((names, result), (result,), frozen={f"a{axis}": LOOKUP, f"b{axis}": LOOKUP})


register("aten.gather aten.take_along_dim", Rule(_gather, uniform, text="element by element"))

# -- writes ----------------------------------------------------------------------------------------------------------


def _scattered(op: Op, states: Sequence[Slots | None], result: int, axis: int) -> Slots:
    """A slot holds what was there or what is written over it."""
    last = len(op.inputs) - 1
    if states[0] is None or (op.inputs[last] is not None and states[last] is None):
        return np.array([np.nan])
    if "value" in op.attributes:
        return np.array([np.nan])
    return meet(given((states[0], states[last])))


def _index_put(op: Op) -> Spec:
    shape = need_shape(op.inputs[0], op)
    names = letters("a", len(shape))
    positions = [number for number in range(1, len(op.inputs) - 1) if op.inputs[number] is not None]
    axes = [number - 1 for number in positions]
    each, picked = _index_letters(op, positions)
    together = axes == list(range(axes[0], axes[0] + len(axes))) if axes else True
    before = sum(axis not in axes for axis in range(axes[0])) if axes and together else 0
    rest = [name for axis, name in enumerate(names) if axis not in axes]
    target = (*rest[:before], *picked, *rest[before:])
    by_position = dict(zip(positions, each, strict=True))
    values = need_shape(op.inputs[-1], op)
    operands = (
        names,
        *(by_position.get(number) for number in range(1, len(op.inputs) - 1)),
        target[len(target) - len(values) :],
    )
    frozen = {f"a{axis}": LOOKUP for axis in axes} | {name.name: LOOKUP for name in picked if isinstance(name, Letter)}
    return Spec(operands, (names,), frozen=frozen)


register("aten.index_put aten._unsafe_index_put", Rule(_index_put, _scattered, text="*v *d, *i, *i *d -> *v *d"))


def _scatter(op: Op) -> Spec:
    shape, picked = need_shape(op.inputs[0], op), need_shape(op.inputs[1], op)
    axis = axis_of(op, len(shape))
    names, made = letters("a", len(shape)), letters("b", len(shape))
    updates = tuple(
        a if n != axis and shape[n] == picked[n] else b for n, (a, b) in enumerate(zip(names, made, strict=True))
    )
    frozen = {f"{prefix}{n}": LOOKUP for n in range(len(shape)) if updates[n] is not names[n] for prefix in "ab"}
    return Spec((names, updates, *(updates for _ in op.inputs[2:])), (names,), frozen=frozen)


register("aten.scatter aten.scatter_add aten.scatter_reduce", Rule(_scatter, _scattered, text="element by element"))


def _index_written(op: Op) -> Spec:
    shape = need_shape(op.inputs[0], op)
    axis = axis_of(op, len(shape))
    names = letters("a", len(shape))
    part = (*names[:axis], Letter("i"), *names[axis + 1 :])
    return Spec((names, (Letter("i"),), part), (names,), frozen={f"a{axis}": LOOKUP, "i": LOOKUP})


register("aten.index_add aten.index_copy", Rule(_index_written, _scattered, text="v d, i, i d -> v d"))


def _index_filled(op: Op) -> Spec:
    names = letters("a", rank_of(op))
    axis = axis_of(op, len(names))
    return Spec((names, *(None for _ in op.inputs[1:])), (names,), frozen={f"a{axis}": LOOKUP})


register("aten.index_fill", Rule(_index_filled, _scattered, text="v d, i -> v d"))

# -- order -----------------------------------------------------------------------------------------------------------


def _reordered(op: Op, order: dict[int, Indexes]) -> Spec:
    """Every position once, in another order."""
    names = letters("a", rank_of(op))
    result = tuple(Letter(f"b{axis}") if axis in order else name for axis, name in enumerate(names))
    return Spec((names,), (result,), takes={f"b{axis}": (f"a{axis}", index) for axis, index in order.items()})


def _flip(op: Op) -> Spec:
    shape = need_shape(op.inputs[0], op)
    axes = axes_of(op, len(shape), "dims") if "dims" in op.attributes else (1 if op.type == "fliplr" else 0,)
    return _reordered(op, {axis: np.arange(shape[axis])[::-1] for axis in axes if shape[axis] > 1})


register("aten.flip aten.fliplr aten.flipud", Rule(_flip, uniform, text="reversed"))


def _rolled(op: Op) -> dict[int, Indexes]:
    shape = need_shape(op.inputs[0], op)
    shifts, dims = op.attributes["shifts"], op.attributes.get("dims") or []
    shifts = shifts if isinstance(shifts, list) else [shifts]
    dims = dims if isinstance(dims, list) else [dims]
    if len(dims) != len(shifts) or any(isinstance(shift, Computed) for shift in shifts):
        raise RuleError("it rolls across axes, or by a number that is computed at run time")
    order: dict[int, Indexes] = {}
    for shift, dim in zip(shifts, dims, strict=True):
        axis = dim % len(shape)
        if shape[axis] > 1:
            order[axis] = np.roll(order.get(axis, np.arange(shape[axis])), shift)
    return order


def _roll_becomes_lookups(edit: Edit) -> None:
    """A shrunken axis rolls by other steps: its positions are picked one by one."""
    op, source, result = edit.op, source_of(edit.op), edit.op.outputs[0]
    assert result is not None
    order = _rolled(op)
    if all(edit.kept_axis(source, axis).all() for axis in order):
        return
    steps = []
    name = source.name
    for number, (axis, positions) in enumerate(order.items()):
        picked = moved_indexes(positions[edit.kept_axis(result, axis)], edit.kept_axis(source, axis))
        following = result.name if number == len(order) - 1 else edit.rename("part")
        steps.append(NewOp("index_select", (name, picked), (following,), {"dim": axis}, "aten"))
        name = following
    edit.replace(*steps)


register(
    "aten.roll",
    Rule(lambda op: _reordered(op, _rolled(op)), uniform, rewrite=_roll_becomes_lookups, text="rolled"),
)


def _triangle(op: Op) -> Spec:
    rank = rank_of(op)
    names = letters("a", rank)
    over = dict.fromkeys((f"a{rank - 1}", f"a{rank - 2}"), "the triangle depends on positions")
    return Spec((names,), (names,), frozen=over)


register("aten.tril aten.triu", Rule(_triangle, vanishing, text="a triangle of the last two axes"))


def _windows(op: Op) -> Spec:
    """``Tensor.unfold``: overlapping windows along an axis become an axis of their own."""
    rank = rank_of(op)
    axis = axis_of(op, rank, "dimension")
    names = letters("a", rank)
    why = "windows overlap along it"
    result = (*names[:axis], Letter("w"), *names[axis + 1 :], Letter("k"))
    return Spec((names,), (result,), frozen={f"a{axis}": why, "w": why, "k": why})


register("aten.unfold", Rule(_windows, uniform, text="a -> w k"))


def _one_hot(op: Op) -> Spec:
    names = letters("a", rank_of(op))
    return Spec((names,), ((*names, Letter("c")),), frozen={"c": "the number of its classes is read as a number"})


register("aten.one_hot", Rule(_one_hot, lambda op, states, result, axis: np.array([np.nan]), text="... -> ... c"))

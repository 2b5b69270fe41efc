"""Operators that pick elements: slices, gathers, scatters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from ozgraph.errors import RuleError
from ozgraph.graph import Op, Value
from ozgraph.plan import NewOp
from ozgraph.rules.lattice import Slots, given, meet, opaque, uniform, vanishing
from ozgraph.rules.movement import rederive
from ozgraph.rules.notation import ONE_AXIS, Axis, Concat, Letter, Product
from ozgraph.rules.registry import register
from ozgraph.rules.rule import ByShapes, Edit, Reduction, Rule, Spec, axis_list, known_integers, letters, need_shape

LOOKUP = "positions along it are looked up at run time"
_PLACE = {"place": "it holds the coordinates of an element"}


def _bounds(op: Op) -> dict[int, tuple[int, int] | None]:
    """Axis -> (start, step) of a slice; None for an axis whose bounds are computed at run time."""
    shape = need_shape(op.inputs[0], op)
    if "starts" in op.attributes:
        starts = list(op.attributes["starts"])
        axes = axis_list(op, 3, len(shape)) or tuple(range(len(starts)))
        return {axis: _clamped(start, 1, shape[axis]) for axis, start in zip(axes, starts, strict=True)}
    # Without the bounds themselves, their number is still known from their shape.
    count = need_shape(op.inputs[1], op)[0]
    axes = axis_list(op, 3, len(shape)) or tuple(range(count))
    fixed = [_fixed(op.input(position), count) for position in (1, 2)]
    starts_, ends = fixed
    steps = [1] * count if op.input(4) is None else _fixed(op.input(4), count)
    bounds: dict[int, tuple[int, int] | None] = {}
    for axis, start, end, step in zip(axes, starts_, ends, steps, strict=True):
        known = start is not None and step is not None and end is not None
        bounds[axis] = _clamped(start or 0, step or 1, shape[axis]) if known else None
    return bounds


def _fixed(value: Value | None, count: int) -> list[int | None]:
    """Elements of a bound that are the same at every run; None for the others."""
    known = known_integers(value)
    if known is None:
        return [None] * count
    elements: list[int | None] = [int(element) for element in known.ravel()]
    if value is not None and value.integers is not None:
        flags = value.integers.dynamic.ravel().tolist()
        elements = [None if flag else element for element, flag in zip(elements, flags, strict=True)]
    return elements


def _clamped(start: int, step: int, size: int) -> tuple[int, int]:
    start = start + size if start < 0 else start
    return min(max(start, 0), size if step > 0 else size - 1), step


@ByShapes
def _slice(op: Op) -> Spec:
    return sliced_spec(op, _bounds(op))


def sliced_spec(op: Op, bounds: Mapping[int, tuple[int, int] | None]) -> Spec:
    """A slice of the first operand.

    Args:
        bounds: axis -> (start, step); None for an axis whose bounds are computed at run time.
    """
    source, made = need_shape(op.inputs[0], op), need_shape(op.outputs[0], op)
    names = letters("a", len(source))
    operand: list[Axis] = list(names)
    result: list[Axis] = list(names)
    sizes: dict[str, int] = {}
    reduced: dict[str, Reduction] = {}
    takes: dict[str, tuple[str, npt.NDArray[np.int64]]] = {}
    frozen: dict[str, str] = {}
    for axis, (m, n) in enumerate(zip(source, made, strict=True)):
        bound = bounds.get(axis, (0, 1))
        start, step = bound or (0, 1)
        if bound is None:
            result[axis] = Letter(f"b{axis}")
            frozen |= dict.fromkeys((f"a{axis}", f"b{axis}"), LOOKUP)
        elif step == 1 and m != n:
            parts = []
            for letter, width in ((f"l{axis}", start), (f"a{axis}", n), (f"r{axis}", m - start - n)):
                if width:
                    parts.append(Letter(letter))
                    sizes[letter] = width
            reduced |= {f"l{axis}": Reduction.UNREAD, f"r{axis}": Reduction.UNREAD}
            operand[axis] = Concat(tuple(parts)) if len(parts) > 1 else parts[0]
        elif step != 1 and None in bounds.values():
            result[axis] = Letter(f"b{axis}")
            frozen |= dict.fromkeys((f"a{axis}", f"b{axis}"), LOOKUP)
        elif step != 1:
            result[axis] = Letter(f"b{axis}")
            takes[f"b{axis}"] = (f"a{axis}", start + step * np.arange(n, dtype=np.int64))
    operands = (tuple(operand), *(None for _ in op.inputs[1:]))
    return Spec(operands, (tuple(result),), sizes, reduced, frozen, takes=takes)


def _slice_bounds(edit: Edit) -> None:
    op = edit.op
    source, result = op.inputs[0], op.outputs[0]
    bounds = _bounds(op)
    assert source is not None and result is not None and source.shape is not None and result.shape is not None
    before, after = edit.shape(source), edit.shape(result)
    changed = {axis for axis, size in enumerate(source.shape) if before[axis] != size}
    if not changed & set(bounds):
        return
    known = {axis: bound for axis, bound in bounds.items() if bound is not None}
    if any(known[axis][1] != 1 for axis in changed & set(known)):
        _slice_becomes_gathers(edit, known)
        return
    starts: list[int | None] = []
    ends: list[int | None] = []
    for axis, bound in bounds.items():
        if axis not in changed or bound is None:
            starts.append(None)
            ends.append(None)
            continue
        first = int(edit.kept_axis(source, axis)[: bound[0]].sum())
        starts.append(first)
        ends.append(first + after[axis])
    if "starts" in op.attributes:
        for name, fresh in (("starts", starts), ("ends", ends)):
            old = op.attributes[name]
            edit.set_attribute(name, [o if n is None else n for o, n in zip(old, fresh, strict=True)])
        return
    rederive(edit, 1, starts)
    rederive(edit, 2, ends)


def _slice_becomes_gathers(edit: Edit, bounds: dict[int, tuple[int, int]]) -> None:
    """A strided slice of a shrunken axis is no longer regular."""
    source, result = edit.op.inputs[0], edit.op.outputs[0]
    assert source is not None and result is not None and result.shape is not None
    steps = []
    name = source.name
    for number, (axis, (start, step)) in enumerate(bounds.items()):
        wanted = start + step * np.arange(result.shape[axis])
        fresh = moved_indexes(wanted[edit.kept_axis(result, axis)], edit.kept_axis(source, axis))
        following = result.name if number == len(bounds) - 1 else edit.rename("part")
        steps.append(NewOp("Gather", (name, fresh), (following,), {"axis": axis}))
        name = following
    edit.replace(*steps)


def moved_indexes(indexes: npt.NDArray[np.int64], kept: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Where the positions ``indexes`` stand once only ``kept`` ones are left."""
    moved_to: npt.NDArray[np.int64] = (np.cumsum(kept) - 1)[indexes]
    return moved_to


register("Slice", Rule(_slice, uniform, rewrite=_slice_bounds, text="(l + a + r) -> a"))


def _gather_indexes(op: Op) -> npt.NDArray[np.int64] | None:
    """The indexes of a Gather where they are the same at every run, made non-negative."""
    return fixed_indexes(op.inputs[1], need_shape(op.inputs[0], op)[_gather_axis(op)])


def fixed_indexes(indexes: Value | None, size: int) -> npt.NDArray[np.int64] | None:
    """Indexes into an axis of ``size`` where they are the same at every run, made non-negative.

    Raises:
        RuleError: one of them lies outside.
    """
    if indexes is None or (indexes.integers is not None and not indexes.integers.static):
        return None
    known = known_integers(indexes)
    if known is None:
        return None
    if known.size and (known.min() < -size or known.max() >= size):
        raise RuleError("one of its indexes lies outside the axis that it reads")
    return np.where(known < 0, known + size, known).astype(np.int64)


def _gather_axis(op: Op) -> int:
    return int(op.attributes.get("axis", 0)) % len(need_shape(op.inputs[0], op))


@ByShapes
def _gather(op: Op) -> Spec:
    return gathered_spec(op, _gather_axis(op), _gather_indexes(op))


def gathered_spec(op: Op, axis: int, known: npt.NDArray[np.int64] | None) -> Spec:
    """Positions of the first operand, picked by the second.

    Args:
        known: the positions, non-negative, where they are the same at every run.
    """
    shape, indexes_shape = need_shape(op.inputs[0], op), need_shape(op.inputs[1], op)
    names, rows = letters("a", len(shape)), letters("i", len(indexes_shape))
    if known is not None and known.ndim == 0:
        # One position is read, the others are left out.
        index = int(known)
        widths = {f"l{axis}": index, "one": 1, f"r{axis}": shape[axis] - index - 1}
        sizes = {name: width for name, width in widths.items() if width}
        parts = tuple(Letter(name) for name in sizes)
        operand: tuple[Axis, ...] = (*names[:axis], Concat(parts) if len(parts) > 1 else parts[0], *names[axis + 1 :])
        unread = {f"l{axis}": Reduction.UNREAD, f"r{axis}": Reduction.UNREAD}
        return Spec((operand, ()), ((*names[:axis], *names[axis + 1 :]),), sizes, unread)
    if known is not None and known.ndim == 1:
        result = (*names[:axis], Letter("t"), *names[axis + 1 :])
        return Spec((names, None), (result,), takes={"t": (f"a{axis}", known)})
    if known is not None and known.size > 1 and np.array_equal(known.ravel(), np.arange(shape[axis])):
        # All positions in order, only regrouped.
        wide = tuple(name.name for name, size in zip(rows, known.shape, strict=True) if size > 1)
        regrouped: Axis = Product(wide) if len(wide) > 1 else Letter(wide[0])
        made = (ONE_AXIS if size == 1 else name for name, size in zip(rows, known.shape, strict=True))
        return Spec(
            ((*names[:axis], regrouped, *names[axis + 1 :]), None), ((*names[:axis], *made, *names[axis + 1 :]),)
        )
    return Spec((names, rows), ((*names[:axis], *rows, *names[axis + 1 :]),), frozen={f"a{axis}": LOOKUP})


def move_indexes(edit: Edit, axis: int, operand: int) -> None:
    """Give a lookup along an axis of its first operand indexes of its own, where that axis shrank."""
    source, result, indexes = edit.op.inputs[0], edit.op.outputs[0], edit.op.inputs[operand]
    assert source is not None and source.shape is not None and result is not None and indexes is not None
    known = fixed_indexes(indexes, source.shape[axis])
    if known is None:
        return
    kept = edit.kept_axis(source, axis)
    rows = [np.flatnonzero(edit.kept_axis(result, axis + number)) for number in range(known.ndim)]
    wanted = known[np.ix_(*rows)]
    if not kept.all() or wanted.size != known.size:
        edit.set_constant(operand, moved_indexes(wanted, kept).astype(indexes.dtype or np.int64))


def _gather_moves_its_indexes(edit: Edit) -> None:
    move_indexes(edit, _gather_axis(edit.op), 1)


register("Gather", Rule(_gather, uniform, rewrite=_gather_moves_its_indexes, text="v d, *i -> *i d"))


def _gather_elements(op: Op) -> Spec:
    shape, picked = need_shape(op.inputs[0], op), need_shape(op.inputs[1], op)
    axis = _gather_axis(op)
    names, made = letters("a", len(shape)), letters("b", len(shape))
    result = tuple(
        a if n != axis and shape[n] == picked[n] else b for n, (a, b) in enumerate(zip(names, made, strict=True))
    )
    # Where only the first positions of another axis are looked up, their places matter as well.
    frozen = {f"{letter}{n}": LOOKUP for n, made_here in enumerate(result) if made_here is made[n] for letter in "ab"}
    return Spec((names, result), (result,), frozen=frozen)


register("GatherElements", Rule(_gather_elements, uniform, text="element by element"))


def _gather_nd(op: Op) -> Spec:
    shape, picked = need_shape(op.inputs[0], op), need_shape(op.inputs[1], op)
    batch = int(op.attributes.get("batch_dims", 0))
    depth = picked[-1]
    names, rows = letters("a", len(shape)), letters("i", len(picked) - 1 - batch)
    looked_up = {f"a{axis}": LOOKUP for axis in range(batch, batch + depth)} | _PLACE
    return Spec(
        (names, (*names[:batch], *rows, Letter("place"))),
        ((*names[:batch], *rows, *names[batch + depth :]),),
        frozen=looked_up,
    )


register("GatherND", Rule(_gather_nd, uniform, text="*b *v *d, *b *i _ -> *b *i *d"))


def _scattered(op: Op, states: Sequence[Slots | None], result: int, axis: int) -> Slots:
    """A slot holds what was there or what is written over it."""
    if states[0] is None or states[2] is None:
        return np.array([np.nan])
    return meet(given((states[0], states[2])))


def _scatter_elements(op: Op) -> Spec:
    shape, picked = need_shape(op.inputs[0], op), need_shape(op.inputs[1], op)
    axis = int(op.attributes.get("axis", 0)) % len(shape)
    names, made = letters("a", len(shape)), letters("b", len(shape))
    updates = tuple(
        a if n != axis and shape[n] == picked[n] else b for n, (a, b) in enumerate(zip(names, made, strict=True))
    )
    frozen = {f"a{n}": LOOKUP for n in range(len(shape)) if updates[n] is not names[n]}
    frozen |= {f"b{n}": LOOKUP for n in range(len(shape)) if updates[n] is not names[n]}
    return Spec((names, updates, updates), (names,), frozen=frozen)


register("ScatterElements Scatter", Rule(_scatter_elements, _scattered, text="element by element"))


def _scatter_nd(op: Op) -> Spec:
    shape, picked = need_shape(op.inputs[0], op), need_shape(op.inputs[1], op)
    depth = picked[-1]
    names, rows = letters("a", len(shape)), letters("i", len(picked) - 1)
    frozen = {f"a{axis}": LOOKUP for axis in range(depth)} | {name.name: LOOKUP for name in rows} | _PLACE
    return Spec((names, (*rows, Letter("place")), (*rows, *names[depth:])), (names,), frozen=frozen)


register("ScatterND", Rule(_scatter_nd, _scattered, text="*v *d, *i _, *i *d -> *v *d"))


def _trilu(op: Op) -> Spec:
    rank = len(need_shape(op.inputs[0], op))
    if rank < 2:
        raise RuleError("a triangle needs two axes")
    names = letters("a", rank)
    over = dict.fromkeys((f"a{rank - 1}", f"a{rank - 2}"), "the triangle depends on positions")
    return Spec((names, *(None for _ in op.inputs[1:])), (names,), frozen=over)


register("Trilu", Rule(_trilu, vanishing, text="a triangle of the last two axes"))


def _reverse_sequence(op: Op) -> Spec:
    rank = len(need_shape(op.inputs[0], op))
    names = letters("a", rank)
    time, batch = int(op.attributes.get("time_axis", 0)), int(op.attributes.get("batch_axis", 1))
    over = dict.fromkeys((f"a{time}", f"a{batch}"), "the order along it changes at run time")
    return Spec((names, (names[batch],)), (names,), frozen=over)


register("ReverseSequence", Rule(_reverse_sequence, uniform, text="reversed along time"))


def _one_hot(op: Op) -> Spec:
    names = letters("a", len(need_shape(op.inputs[0], op)))
    axis = int(op.attributes.get("axis", -1)) % (len(names) + 1)
    return Spec(
        (names, None, None),
        ((*names[:axis], Letter("class"), *names[axis:]),),
        frozen={"class": "the number of its classes is read as a number"},
    )


register("OneHot", Rule(_one_hot, opaque, text="*i, , -> *i class"))


def _compress(op: Op) -> Spec:
    axis = op.attributes.get("axis")
    if axis is None:
        raise RuleError("how many elements it returns depends on the data")
    names = letters("a", len(need_shape(op.inputs[0], op)))
    axis = int(axis) % len(names)
    wanted = known_integers(op.inputs[1])
    result = (*names[:axis], Letter("t"), *names[axis + 1 :])
    if wanted is None:
        frozen = dict.fromkeys((f"a{axis}", "t"), "how many elements it returns depends on the data")
        return Spec((names, None), (result,), frozen=frozen)
    return Spec((names, None), (result,), takes={"t": (f"a{axis}", np.flatnonzero(wanted))})


def _compress_condition(edit: Edit) -> None:
    """Positions that go take their condition along; what it does not mention is left out."""
    source, wanted = edit.op.inputs[0], known_integers(edit.op.inputs[1])
    assert source is not None and source.shape is not None
    kept = edit.kept_axis(source, int(edit.op.attributes["axis"]) % len(source.shape))
    if wanted is not None and not kept.all():
        edit.set_constant(1, wanted[kept[: len(wanted)]])


register("Compress", Rule(_compress, uniform, rewrite=_compress_condition, text="a, positions -> t"))


def _tensor_scatter(op: Op) -> Spec:
    """Steps written into a cache; the other axes are those of both."""
    names = letters("a", len(need_shape(op.inputs[0], op)))
    axis = int(op.attributes.get("axis", -2)) % len(names)
    updates = (*names[:axis], Letter("u"), *names[axis + 1 :])
    operands = (names, updates, (names[0],))[: len(op.inputs)]
    return Spec(operands, (names,), frozen=dict.fromkeys((f"a{axis}", "u"), LOOKUP))


def _updated(op: Op, states: Sequence[Slots | None], result: int, axis: int) -> Slots:
    """A slot holds what was there or what is written over it."""
    if states[0] is None or states[1] is None:
        return np.array([np.nan])
    return meet((states[0], states[1]))


register("TensorScatter", Rule(_tensor_scatter, _updated, text="b *d p *e, b *d u *e, b -> b *d p *e"))

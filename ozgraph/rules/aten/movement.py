"""Data movement that keeps every element: reshape, permute, broadcast, repeat, pad."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ozgraph.errors import RuleError
from ozgraph.graph import Op
from ozgraph.rules.aten.arguments import axes_of, axis_of, rank_of, replaced, resized, shrinks, source_of
from ozgraph.rules.lattice import Slots, finite, meet, uniform
from ozgraph.rules.movement import broadcast_spec, padded_spec, reshaped, tiled_spec
from ozgraph.rules.notation import ONE_AXIS, Axis, Letter, Product
from ozgraph.rules.registry import register
from ozgraph.rules.rule import Edit, Reduction, Rule, Spec, letters, need_shape

# -- shapes ----------------------------------------------------------------------------------------------------------


def _reshaped(op: Op) -> Spec:
    if "dtype" in op.attributes:
        raise RuleError("it reads the same memory as another type")
    return reshaped(op)


def _size_argument(edit: Edit) -> None:
    """The sizes that are asked for; those that shrank are named anew."""
    op, result = edit.op, edit.op.outputs[0]
    assert result is not None and result.shape is not None
    name = next(name for name in ("size", "shape", "sizes") if name in op.attributes)
    before, after = result.shape, edit.shape(result)
    given = op.attributes[name]
    if op.type.startswith("unflatten"):
        first = axis_of(op, rank_of(op))
        before, after = before[first : first + len(given)], after[first : first + len(given)]
    edit.set_attribute(name, resized(given, before, after))


register(
    "aten.view aten.reshape aten._unsafe_view aten.unflatten",
    Rule(_reshaped, uniform, rewrite=_size_argument, text="row-major"),
)
register("aten.flatten aten.ravel", Rule(reshaped, uniform, text="row-major"))


def _reshaped_like(edit: Edit) -> None:
    result = edit.op.outputs[0]
    assert result is not None and result.shape is not None
    if shrinks(edit, result, edit.op.input(1)):
        sizes = [int(size) for size in edit.shape(result)]
        if any(result.dynamic):
            raise RuleError("a size that it computes at run time would have to change")
        replaced(edit, "reshape", {"shape": sizes})


def _reshape_as(op: Op) -> Spec:
    other = letters("o", rank_of(op, 1))
    spec = reshaped(op)
    unread = {name.name: Reduction.UNREAD for name in other}
    return Spec((spec.operands[0], other), spec.results, spec.sizes, unread, ties=spec.ties)


register("aten.view_as aten.reshape_as", Rule(_reshape_as, uniform, rewrite=_reshaped_like, text="row-major"))


def _permuted(op: Op, order: Sequence[int]) -> Spec:
    names = letters("a", rank_of(op))
    return Spec((names,), (tuple(names[axis] for axis in order),))


def _permute(op: Op) -> Spec:
    rank = rank_of(op)
    return _permuted(op, [int(axis) % rank for axis in op.attributes["dims"]])


def _transpose(op: Op) -> Spec:
    rank = rank_of(op)
    order = list(range(rank))
    if op.type.startswith(("transpose", "swap")):
        names = ("dim0", "dim1") if "dim0" in op.attributes else ("axis0", "axis1")
        first, second = (axis_of(op, rank, name) for name in names)
    else:  # t, mT, adjoint and the like, of real numbers
        first, second = (rank - 2, rank - 1) if rank > 1 else (0, 0)
    if rank:
        order[first], order[second] = order[second], order[first]
    return _permuted(op, order)


def _move(op: Op) -> Spec:
    rank = rank_of(op)
    source, target = (axes_of(op, rank, name) for name in ("source", "destination"))
    order: list[int] = [-1] * rank
    for old, new in zip(source, target, strict=True):
        order[new] = old
    others = iter([axis for axis in range(rank) if axis not in source])
    return _permuted(op, [axis if axis >= 0 else next(others) for axis in order])


register("aten.permute", Rule(_permute, uniform, text="permuted"))
register(
    "aten.transpose aten.swapaxes aten.swapdims aten.t aten.mT aten.adjoint aten.mH",
    Rule(_transpose, uniform, text="two axes swapped"),
)
register("aten.movedim aten.moveaxis", Rule(_move, uniform, text="permuted"))
register(
    "aten.numpy_T aten.matrix_H", Rule(lambda op: _permuted(op, range(rank_of(op))[::-1]), uniform, text="reversed")
)


def _squeezed(op: Op) -> tuple[int, ...]:
    shape = need_shape(op.inputs[0], op)
    wanted = axes_of(op, len(shape)) if "dim" in op.attributes else tuple(range(len(shape)))
    return tuple(axis for axis in wanted if shape[axis] == 1)


def _squeeze(op: Op) -> Spec:
    gone = _squeezed(op)
    names = letters("a", rank_of(op))
    operand = tuple(ONE_AXIS if axis in gone else name for axis, name in enumerate(names))
    return Spec((operand,), (tuple(name for axis, name in enumerate(names) if axis not in gone),))


def _squeeze_names_its_axes(edit: Edit) -> None:
    """An axis that shrinks to one slot must not vanish."""
    gone = _squeezed(edit.op)
    after = edit.shape(source_of(edit.op))
    wanted = axes_of(edit.op, len(after)) if "dim" in edit.op.attributes else range(len(after))
    if any(after[axis] == 1 for axis in wanted if axis not in gone):
        replaced(edit, "squeeze.dims", {"dim": list(gone)})


register("aten.squeeze", Rule(_squeeze, uniform, rewrite=_squeeze_names_its_axes, text="axes of size one dropped"))


def _unsqueeze(op: Op) -> Spec:
    rank = rank_of(op)
    names = letters("a", rank)
    new = axis_of(op, rank + 1)
    return Spec((names,), ((*names[:new], ONE_AXIS, *names[new:]),))


register("aten.unsqueeze", Rule(_unsqueeze, uniform, text="an axis of size one added"))


def _at_least(op: Op) -> Spec:
    return reshaped(op)


register("aten.atleast_1d aten.atleast_2d aten.atleast_3d", Rule(_at_least, uniform, text="row-major"))

# -- broadcasting and repeating --------------------------------------------------------------------------------------


def _expand(op: Op) -> Spec:
    return broadcast_spec(op, need_shape(op.inputs[0], op), need_shape(op.outputs[0], op))


def _expand_sizes(edit: Edit) -> None:
    result = edit.op.outputs[0]
    assert result is not None and result.shape is not None
    edit.set_attribute("size", resized(edit.op.attributes["size"], result.shape, edit.shape(result)))


def _expand_as(op: Op) -> Spec:
    spec = _expand(op)
    other = letters("o", rank_of(op, 1))
    unread = {name.name: Reduction.UNREAD for name in other}
    return Spec((spec.operands[0], other), spec.results, reduced={**spec.reduced, **unread})


def _expanded_like(edit: Edit) -> None:
    result, other = edit.op.outputs[0], source_of(edit.op, 1)
    assert result is not None
    after = edit.shape(result)
    if after != edit.shape(other):
        if any(result.dynamic):
            raise RuleError("a size that it computes at run time would have to change")
        replaced(edit, "expand", {"size": list(after)})


register("aten.expand aten.broadcast_to", Rule(_expand, uniform, rewrite=_expand_sizes, text="... -> ..."))
register("aten.expand_as", Rule(_expand_as, uniform, rewrite=_expanded_like, text="... -> ..."))


def _repeat(op: Op) -> Spec:
    before, after = need_shape(op.inputs[0], op), need_shape(op.outputs[0], op)
    return tiled_spec((1,) * (len(after) - len(before)) + before, after, len(before))


def _repeat_counts(edit: Edit) -> None:
    source, result = source_of(edit.op), edit.op.outputs[0]
    assert result is not None and result.shape is not None
    name = "repeats" if "repeats" in edit.op.attributes else "dims"
    after, small = edit.shape(result), edit.shape(source)
    lead = len(after) - len(small)
    counts = [new // old for old, new in zip((1,) * lead + small, after, strict=True)]
    given = edit.op.attributes[name]
    old = [new // old for old, new in zip((1,) * lead + (source.shape or ()), result.shape, strict=True)]
    skipped = len(counts) - len(given)
    edit.set_attribute(name, resized(given, old[skipped:], counts[skipped:]))


register("aten.repeat aten.tile", Rule(_repeat, uniform, rewrite=_repeat_counts, text="a -> (t a)"))


def _interleave(op: Op) -> Spec:
    before, after = need_shape(op.inputs[0], op), need_shape(op.outputs[0], op)
    if op.attributes.get("dim") is None or not isinstance(op.attributes.get("repeats"), int):
        raise RuleError("how often it repeats depends on the position")
    axis = axis_of(op, len(before))
    names = letters("a", len(before))
    result: list[Axis] = list(names)
    times = after[axis] // before[axis]
    if times == 1:
        return Spec((names,), (names,))
    result[axis] = Product((f"a{axis}", "t"))
    return Spec((names,), (tuple(result),), {"t": times, f"a{axis}": before[axis]}, {"t": Reduction.UNREAD})


def _interleave_count(edit: Edit) -> None:
    source, result = source_of(edit.op), edit.op.outputs[0]
    assert result is not None
    axis = axis_of(edit.op, source.rank)
    times = edit.shape(result)[axis] // edit.shape(source)[axis]
    old = (result.shape or ())[axis] // (source.shape or ())[axis]
    edit.set_attribute("repeats", resized([edit.op.attributes["repeats"]], [old], [times])[0])
    if edit.op.attributes.get("output_size") is not None:
        size, left = (result.shape or ())[axis], edit.shape(result)[axis]
        edit.set_attribute("output_size", resized([edit.op.attributes["output_size"]], [size], [left])[0])


register("aten.repeat_interleave", Rule(_interleave, uniform, rewrite=_interleave_count, text="a -> (a t)"))

# -- padding ---------------------------------------------------------------------------------------------------------


def _widths(op: Op) -> tuple[list[int], list[int]] | None:
    """Widths before and after every axis; None where it crops."""
    rank = rank_of(op)
    given = [int(width) for width in op.attributes.get("pad", op.attributes.get("padding", ()))]
    before, after = [0] * rank, [0] * rank
    for index in range(len(given) // 2):
        before[rank - 1 - index], after[rank - 1 - index] = given[2 * index], given[2 * index + 1]
    return None if min(*before, *after, 0) < 0 else (before, after)


def _pads_with_a_number(op: Op) -> bool:
    return op.type.startswith("constant_pad") or op.attributes.get("mode") == "constant"


def _pad(op: Op) -> Spec:
    return padded_spec(op, _widths(op) if _pads_with_a_number(op) else None)


def _padded(op: Op, states: Sequence[Slots | None], result: int, axis: int) -> Slots:
    """Padding slots hold the padding value; mirrored ones what lies in the tensor."""
    state = states[0]
    if not _pads_with_a_number(op):
        return uniform(op, states, result, axis)
    padding = finite(np.array([float(op.attributes.get("value") or 0.0)]))
    return padding if state is None else meet([state, padding])


def _pad_widths(edit: Edit) -> None:
    widths = _widths(edit.op)
    if widths is None or not _pads_with_a_number(edit.op):
        return
    given = list(edit.op.attributes["pad"])
    rank = len(widths[0])
    for index in range(len(given) // 2):
        axis = rank - 1 - index
        for place, letter, width in ((0, "p", widths[0][axis]), (1, "q", widths[1][axis])):
            if width:
                now = int(edit.kept(f"{letter}{axis}").sum())
                given[2 * index + place] = resized([given[2 * index + place]], [width], [now])[0]
    edit.set_attribute("pad", given)


register(
    "aten.pad aten.constant_pad_nd aten.reflection_pad1d aten.reflection_pad2d aten.reflection_pad3d "
    "aten.replication_pad1d aten.replication_pad2d aten.replication_pad3d",
    Rule(_pad, _padded, rewrite=_pad_widths, text="a -> (p + a + q)"),
)

# -- made from nothing -----------------------------------------------------------------------------------------------


def _filled(op: Op) -> Spec:
    """A fill makes as many slots as it is asked to; of the tensor that it is like, nothing is read."""
    result = letters("a", len(need_shape(op.outputs[0], op)))
    operands = tuple(None if value is None else letters(f"o{n}x", value.rank) for n, value in enumerate(op.inputs))
    made = [*result, *(name for axes in operands for name in axes or ())]
    return Spec(operands, (result,), reduced={name.name: Reduction.UNREAD for name in made})


def _fill_value(op: Op, states: Sequence[Slots | None], result: int, axis: int) -> Slots:
    name = op.type.partition(".")[0]
    value: Any = op.attributes.get("fill_value")
    if value is None:
        value = 0.0 if "zeros" in name else 1.0 if "ones" in name else np.nan
    return finite(np.array([float(value)])) if isinstance(value, (int, float)) else np.array([np.nan])


def _fill_sizes(edit: Edit) -> None:
    op, result = edit.op, edit.op.outputs[0]
    assert result is not None and result.shape is not None
    after = edit.shape(result)
    if "size" in op.attributes:
        edit.set_attribute("size", resized(op.attributes["size"], result.shape, after))
    elif after != edit.shape(source_of(op)):
        if any(result.dynamic):
            raise RuleError("a size that it computes at run time would have to change")
        name = op.type.partition(".")[0].removesuffix("_like")
        replaced(edit, f"new_{name}", {**op.attributes, "size": list(after)})


register(
    "aten.zeros aten.ones aten.full aten.empty aten.zeros_like aten.ones_like aten.full_like aten.empty_like "
    "aten.new_zeros aten.new_ones aten.new_full aten.new_empty",
    Rule(_filled, _fill_value, rewrite=_fill_sizes, text="-> ..."),
)


def _overwritten(op: Op) -> Spec:
    """What was there is not read, only its shape."""
    names = letters("a", rank_of(op))
    return Spec((names, *(() if value is not None else None for value in op.inputs[1:])), (names,))


def _written_value(op: Op, states: Sequence[Slots | None], result: int, axis: int) -> Slots:
    if op.type.startswith("zero"):
        return np.array([0.0])
    if op.input(1) is not None:
        return states[1] if states[1] is not None else np.array([np.nan])
    value = op.attributes.get("value")
    return finite(np.array([float(value)])) if isinstance(value, (int, float)) else np.array([np.nan])


register("aten.fill aten.zero", Rule(_overwritten, _written_value, text="... -> ..."))


def _meshgrid(op: Op) -> Spec:
    names = [
        Letter(f"a{number}") if value is not None and value.rank else None for number, value in enumerate(op.inputs)
    ]
    grid: tuple[Axis, ...] = tuple(ONE_AXIS if name is None else name for name in names)
    if op.attributes.get("indexing") == "xy" and len(grid) > 1:
        grid = (grid[1], grid[0], *grid[2:])
    operands = tuple(() if name is None else (name,) for name in names)
    return Spec(operands, (grid,) * len(op.outputs))


register("aten.meshgrid", Rule(_meshgrid, lambda op, states, result, axis: np.array([np.nan]), text="a, b -> a b, a b"))

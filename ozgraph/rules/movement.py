"""Data movement that keeps every element: reshape, transpose, concatenation, splitting, broadcasting, padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ozgraph.errors import RuleError
from ozgraph.graph import Op
from ozgraph.rules.lattice import Slots, finite, joined, meet, uniform
from ozgraph.rules.notation import ONE_AXIS, Axis, Concat, Letter, Product
from ozgraph.rules.registry import register
from ozgraph.rules.rule import (
    ByRanks,
    ByShapes,
    Edit,
    Reduction,
    Rule,
    Spec,
    axis_list,
    known_integers,
    letters,
    need_shape,
)


def rederive(edit: Edit, position: int, elements: Sequence[int | None]) -> None:
    """Give a shape operand new elements; None keeps one. Does nothing where all are kept."""
    if all(element is None for element in elements):
        return
    operand = edit.op.input(position)
    assert operand is not None
    known = operand.integers
    if known is not None and not known.static:
        edit.set_sizes(position, elements)
        return
    current = known_integers(operand)
    if current is None:
        edit.set_sizes(position, elements)
        return
    fresh = np.array(current, copy=True)
    flat = fresh.reshape(-1)
    for index, element in enumerate(elements):
        if element is not None:
            flat[index] = element
    edit.set_constant(position, fresh)


def _product(names: Sequence[Letter]) -> Axis:
    return names[0] if len(names) == 1 else Product(tuple(name.name for name in names))


def regroup(before: Sequence[int], after: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """The finest segments of axes that a row-major reshape keeps apart.

    >>> regroup((2, 12, 5), (2, 3, 4, 5))
    [([0], [0]), ([1], [1, 2]), ([2], [3])]
    """
    segments: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(before) or j < len(after):
        left: list[int] = []
        right: list[int] = []
        m = n = 1
        while True:
            if m <= n and i < len(before) and (m < n or not left):
                left.append(i)
                m *= before[i]
                i += 1
            elif j < len(after) and (n < m or not right):
                right.append(j)
                n *= after[j]
                j += 1
            elif m == n:
                break
            elif i < len(before) and m < n:
                left.append(i)
                m *= before[i]
                i += 1
            else:
                raise RuleError("its result has another number of elements than its operand")
        segments.append((left, right))
    return segments


@ByShapes
def reshaped(op: Op) -> Spec:
    """A row-major reshape of the first operand into the shape of the result."""
    before, after = need_shape(op.inputs[0], op), need_shape(op.outputs[0], op)
    if 0 in before or 0 in after:
        raise RuleError("an axis has no positions")
    source, made = letters("a", len(before)), letters("b", len(after))
    operand: list[Axis] = [ONE_AXIS if size == 1 else name for name, size in zip(source, before, strict=True)]
    result: list[Axis] = [ONE_AXIS if size == 1 else name for name, size in zip(made, after, strict=True)]
    wide_before = [axis for axis, size in enumerate(before) if size > 1]
    wide_after = [axis for axis, size in enumerate(after) if size > 1]
    ties = []
    for left, right in regroup([before[axis] for axis in wide_before], [after[axis] for axis in wide_after]):
        inner = [wide_before[k] for k in left]
        outer = [wide_after[k] for k in right]
        if len(outer) == 1:
            result[outer[0]] = _product([source[k] for k in inner])
        elif len(inner) == 1:
            operand[inner[0]] = _product([made[k] for k in outer])
        else:
            ties.append((_product([source[k] for k in inner]), _product([made[k] for k in outer])))
    sizes = {name.name: size for name, size in zip((*source, *made), (*before, *after), strict=True)}
    used = {name for axis in (*operand, *result) for name in _names(axis)}
    operands = (tuple(operand), *(None for _ in op.inputs[1:]))
    return Spec(operands, (tuple(result),), {k: v for k, v in sizes.items() if k in used}, ties=tuple(ties))


def _names(axis: Axis) -> tuple[str, ...]:
    return (axis.name,) if isinstance(axis, Letter) else axis.factors if isinstance(axis, Product) else ()


def _reshape_target(edit: Edit) -> None:
    result = edit.op.outputs[0]
    assert result is not None and result.shape is not None
    after = edit.shape(result)
    rederive(edit, 1, [new if new != old else None for old, new in zip(result.shape, after, strict=True)])


register("Reshape", Rule(reshaped, uniform, rewrite=_reshape_target, text="row-major"))
register("Flatten", Rule(reshaped, uniform, text="row-major"))


@ByRanks
def _transpose(op: Op) -> Spec:
    rank = len(need_shape(op.inputs[0], op))
    order = op.attributes.get("perm") or range(rank)[::-1]
    names = letters("a", rank)
    return Spec((names,), (tuple(names[int(axis)] for axis in order),))


register("Transpose", Rule(_transpose, uniform, text="permuted"))


def _squeezed_axes(op: Op) -> tuple[int, ...]:
    shape = need_shape(op.inputs[0], op)
    axes = axis_list(op, 1, len(shape))
    return tuple(axis for axis, size in enumerate(shape) if size == 1) if axes is None else axes


@ByRanks
def _squeeze(op: Op) -> Spec:
    rank = len(need_shape(op.inputs[0], op))
    gone = _squeezed_axes(op)
    names = letters("a", rank)
    operand = tuple(ONE_AXIS if axis in gone else name for axis, name in enumerate(names))
    return Spec(
        (operand, *(None for _ in op.inputs[1:])), (tuple(name for axis, name in enumerate(names) if axis not in gone),)
    )


def _squeeze_names_its_axes(edit: Edit) -> None:
    """Without axes, an axis that shrinks to one slot would vanish too."""
    op = edit.op
    if op.input(1) is not None or "axes" in op.attributes:
        return
    axes = _squeezed_axes(op)
    if op.version >= 13:
        edit.set_constant(1, np.array(axes, dtype=np.int64))
    else:
        edit.set_attribute("axes", list(axes))


register("Squeeze", Rule(_squeeze, uniform, rewrite=_squeeze_names_its_axes, text="axes of size one dropped"))


@ByRanks
def _unsqueeze(op: Op) -> Spec:
    rank = len(need_shape(op.outputs[0], op))
    new = axis_list(op, 1, rank) or ()
    names = iter(letters("a", rank))
    kept = [ONE_AXIS if axis in new else next(names) for axis in range(rank)]
    operand = tuple(axis for axis in kept if isinstance(axis, Letter))
    return Spec((operand, *(None for _ in op.inputs[1:])), (tuple(kept),))


register("Unsqueeze", Rule(_unsqueeze, uniform, text="axes of size one added"))


@ByShapes
def _concat(op: Op) -> Spec:
    return concat_spec(op, int(op.attributes["axis"]) % len(need_shape(op.outputs[0], op)))


def concat_spec(op: Op, axis: int) -> Spec:
    """All operands one after the other along an axis."""
    shape = need_shape(op.outputs[0], op)
    names = letters("a", len(shape))
    parts = letters("c", len(op.inputs))
    joined: Axis = Concat(parts) if len(parts) > 1 else parts[0]
    sizes = {part.name: need_shape(value, op)[axis] for part, value in zip(parts, op.inputs, strict=True)}
    return Spec(
        tuple((*names[:axis], part, *names[axis + 1 :]) for part in parts),
        ((*names[:axis], joined, *names[axis + 1 :]),),
        sizes,
    )


register("Concat", Rule(_concat, joined, text="... a ..., ... b ... -> ... (a + b) ..."))


@ByShapes
def _split(op: Op) -> Spec:
    return split_spec(op, int(op.attributes.get("axis", 0)) % len(need_shape(op.inputs[0], op)))


def split_spec(op: Op, axis: int) -> Spec:
    """The first operand cut into the results along an axis."""
    shape = need_shape(op.inputs[0], op)
    names = letters("a", len(shape))
    parts = letters("c", len(op.outputs))
    sizes = {part.name: need_shape(value, op)[axis] for part, value in zip(parts, op.outputs, strict=True)}
    if sum(sizes.values()) != shape[axis]:
        raise RuleError("its parts do not add up to the axis that it splits")
    joined: Axis = Concat(parts) if len(parts) > 1 else parts[0]
    return Spec(
        ((*names[:axis], joined, *names[axis + 1 :]), *(None for _ in op.inputs[1:])),
        tuple((*names[:axis], part, *names[axis + 1 :]) for part in parts),
        sizes,
    )


def _split_sizes(edit: Edit) -> None:
    op = edit.op
    source = op.inputs[0]
    assert source is not None
    axis = int(op.attributes.get("axis", 0)) % source.rank
    sizes = [edit.shape(value)[axis] for value in op.outputs if value is not None]
    if sizes == [(value.shape or ())[axis] for value in op.outputs if value is not None]:
        return
    if op.version >= 13:
        edit.set_constant(1, np.array(sizes, dtype=np.int64))
        if "num_outputs" in op.attributes:
            edit.set_attribute("num_outputs", None)
    else:
        edit.set_attribute("split", sizes)


register("Split", Rule(_split, uniform, rewrite=_split_sizes, text="... (a + b) ... -> ... a ..., ... b ..."))


@ByShapes
def _expand(op: Op) -> Spec:
    return broadcast_spec(op, need_shape(op.inputs[0], op), need_shape(op.outputs[0], op))


def broadcast_spec(op: Op, before: tuple[int, ...], after: tuple[int, ...]) -> Spec:
    """The first operand broadcast to the result, aligned on the right: axes that it grows make their slots."""
    names = letters("a", len(after))
    offset = len(after) - len(before)
    made = {
        name.name: Reduction.UNREAD
        for axis, name in enumerate(names)
        if axis < offset or before[axis - offset] != after[axis]
    }
    operand = tuple(ONE_AXIS if before[k] == 1 else names[k + offset] for k in range(len(before)))
    return Spec((operand, *(None for _ in op.inputs[1:])), (names,), reduced=made)


def _expand_shape(edit: Edit) -> None:
    op = edit.op
    result, target = op.outputs[0], op.input(1)
    assert result is not None and result.shape is not None
    current = known_integers(target)
    after = edit.shape(result)
    length = len(after) if current is None else len(current)
    elements: list[int | None] = []
    # The target may be shorter than the result, and may hold ones where the operand decides.
    for old, new, wanted in zip(
        result.shape[len(after) - length :],
        after[len(after) - length :],
        [None] * length if current is None else current.tolist(),
        strict=True,
    ):
        elements.append(new if old != new and wanted != 1 else None)
    rederive(edit, 1, elements)


register("Expand", Rule(_expand, uniform, rewrite=_expand_shape, text="... -> ..."))


def _filled(op: Op) -> Spec:
    """A fill makes as many slots as it is asked to."""
    names = letters("a", len(need_shape(op.outputs[0], op)))
    return Spec((None,), (names,), reduced={name.name: Reduction.UNREAD for name in names})


def _fill(op: Op, states: Sequence[Slots | None], result: int, axis: int) -> Slots:
    return finite(np.asarray(op.attributes.get("value", 0.0)).reshape(-1)[:1])


def _fill_shape(edit: Edit) -> None:
    result = edit.op.outputs[0]
    assert result is not None and result.shape is not None
    after = edit.shape(result)
    rederive(edit, 0, [new if new != old else None for old, new in zip(result.shape, after, strict=True)])


register("ConstantOfShape", Rule(_filled, _fill, rewrite=_fill_shape, text="sizes -> ..."))


def _tile(op: Op) -> Spec:
    before, after = need_shape(op.inputs[0], op), need_shape(op.outputs[0], op)
    spec = tiled_spec(before, after, len(before))
    return replace(spec, operands=(spec.operands[0], *(None for _ in op.inputs[1:])))


def tiled_spec(before: tuple[int, ...], after: tuple[int, ...], rank: int) -> Spec:
    """A tensor repeated along its axes.

    Args:
        before: its sizes, with as many axes as the result.
        rank: how many of these axes it has itself; leading ones are added.
    """
    names, repeats = letters("a", len(before)), letters("t", len(before))
    result: list[Axis] = []
    sizes: dict[str, int] = {}
    made: dict[str, Reduction] = {}
    for name, repeat, m, n in zip(names, repeats, before, after, strict=True):
        if m == n:
            result.append(name)
            continue
        result.append(Product((repeat.name, name.name)) if m > 1 else repeat)
        sizes |= {repeat.name: n // m, name.name: m}
        made[repeat.name] = Reduction.UNREAD
    return Spec((names[len(names) - rank :],), (tuple(result),), sizes, made)


def _tile_repeats(edit: Edit) -> None:
    op = edit.op
    source, result = op.inputs[0], op.outputs[0]
    assert source is not None and result is not None and source.shape is not None and result.shape is not None
    before, after = edit.shape(source), edit.shape(result)
    old = [n // m for m, n in zip(source.shape, result.shape, strict=True)]
    new = [n // m for m, n in zip(before, after, strict=True)]
    rederive(edit, 1, [n if n != o else None for n, o in zip(new, old, strict=True)])


register("Tile", Rule(_tile, uniform, rewrite=_tile_repeats, text="a -> (t a)"))


def _paddings(op: Op) -> tuple[list[int], list[int]] | None:
    """Widths before and after every axis; None where they are computed at run time or crop."""
    rank = len(need_shape(op.inputs[0], op))
    pads = op.attributes.get("pads")
    operand = op.input(1)
    if pads is None:
        if operand is None or (operand.integers is not None and not operand.integers.static):
            return None
        known = known_integers(operand)
        if known is None:
            return None
        pads = known.tolist()
    axes = axis_list(op, 3, rank) or tuple(range(rank))
    before, after = [0] * rank, [0] * rank
    for index, axis in enumerate(axes):
        before[axis], after[axis] = int(pads[index]), int(pads[index + len(axes)])
    return None if min(*before, *after) < 0 else (before, after)


def _pad(op: Op) -> Spec:
    return padded_spec(op, _paddings(op) if op.attributes.get("mode", "constant") == "constant" else None)


def padded_spec(op: Op, widths: tuple[list[int], list[int]] | None) -> Spec:
    """The first operand padded with a number.

    Args:
        widths: before and after every axis; None where it is padded in any other way.
    """
    source, made = need_shape(op.inputs[0], op), need_shape(op.outputs[0], op)
    names = letters("a", len(source))
    operands = (names, *(None for _ in op.inputs[1:]))
    if widths is None:
        why = "padding mirrors or repeats what lies along it, or is computed at run time"
        result = tuple(
            name if m == n else Letter(f"b{axis}")
            for axis, (name, m, n) in enumerate(zip(names, source, made, strict=True))
        )
        frozen = {
            name: why
            for axis, (m, n) in enumerate(zip(source, made, strict=True))
            if m != n
            for name in (f"a{axis}", f"b{axis}")
        }
        return Spec(operands, (result,), frozen=frozen)
    padded: list[Axis] = []
    sizes: dict[str, int] = {}
    reduced: dict[str, Reduction] = {}
    for axis, (name, before, after) in enumerate(zip(names, *widths, strict=True)):
        parts = []
        for width, letter in ((before, f"p{axis}"), (source[axis], name.name), (after, f"q{axis}")):
            if width:
                parts.append(Letter(letter))
                sizes[letter] = width
                if letter != name.name:
                    reduced[letter] = Reduction.UNREAD
        padded.append(Concat(tuple(parts)) if len(parts) > 1 else parts[0])
    return Spec(operands, (tuple(padded),), sizes, reduced)


def _padded(op: Op, states: Sequence[Slots | None], result: int, axis: int) -> Slots:
    """Padding slots hold the padding value; so does, at best, a slot that is padded along another axis."""
    fill = op.input(2)
    value = op.attributes.get("value", 0.0) if fill is None else None
    if fill is not None and fill.constant is not None:
        value = float(np.asarray(fill.constant.numpy()).ravel()[0])
    padding = finite(np.array([np.nan if value is None else float(value)]))
    state = states[0]
    return padding if state is None else meet([state, padding])


def _pad_widths(edit: Edit) -> None:
    op = edit.op
    widths = _paddings(op)
    if widths is None or op.attributes.get("mode", "constant") != "constant":
        return
    rank = len(widths[0])
    axes = axis_list(op, 3, rank) or tuple(range(rank))

    def shrunk(letter: str, width: int) -> int | None:
        now = int(edit.kept(letter).sum()) if width else 0
        return now if now != width else None

    changes = [shrunk(f"p{axis}", widths[0][axis]) for axis in axes]
    changes += [shrunk(f"q{axis}", widths[1][axis]) for axis in axes]
    if "pads" not in op.attributes:
        rederive(edit, 1, changes)
    elif any(change is not None for change in changes):
        pads = [old if new is None else new for old, new in zip(op.attributes["pads"], changes, strict=True)]
        edit.set_attribute("pads", pads)


register("Pad", Rule(_pad, _padded, rewrite=_pad_widths, text="a -> (p + a + q)"))

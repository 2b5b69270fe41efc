"""Operators that slide, resample or shuffle over spatial axes and leave channels alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ozgraph.errors import RuleError
from ozgraph.graph import Op
from ozgraph.rules.lattice import ByStates, Slots, linear, uniform, vanishing
from ozgraph.rules.movement import rederive
from ozgraph.rules.notation import Axis, Letter, One, Product, parse
from ozgraph.rules.registry import register
from ozgraph.rules.rule import ByRanks, Edit, Rule, Spec, from_pattern, known_integers, letters, line, need_shape


@ByStates
def _average(op: Op, states: Sequence[Slots | None], result: int, axis: int) -> Slots:
    """A constant survives an average unless padding zeros are counted."""
    if any(op.attributes.get("pads", ())) or op.attributes.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        return vanishing(op, states, result, axis)
    return uniform(op, states, result, axis)


_MAX_POOL = parse("n c *s -> n c *t, n c *t")


@ByRanks
def _max_pool(op: Op) -> Spec:
    spec = from_pattern(_MAX_POOL, op)
    if len(op.outputs) > 1 and op.outputs[1] is not None:
        why = "the indices that it returns count positions in the whole tensor"
        return replace(spec, frozen={"n": why, "c": why})
    return spec


register("MaxPool", Rule(_max_pool, uniform, text="n c *s -> n c *t, n c *t"))
register("LpPool", line("n c *s -> n c *t", transfer=vanishing))
register("AveragePool", line("n c *s -> n c *t", transfer=_average))


@ByRanks
def _global(op: Op) -> Spec:
    rank = len(need_shape(op.inputs[0], op))
    names = letters("a", rank)
    over = {f"a{number}": "a pooling window covers it" for number in range(2, rank)}
    return Spec((names,), ((*names[:2], *(One() for _ in names[2:])),), frozen=over)


register("GlobalAveragePool GlobalMaxPool", Rule(_global, uniform, text="n c *s -> n c 1 1"))
register("GlobalLpPool", Rule(_global, vanishing, text="n c *s -> n c 1 1"))


def _local_response(op: Op) -> Spec:
    names = letters("a", len(need_shape(op.inputs[0], op)))
    return Spec((names,), (names,), frozen={"a1": "a window runs across the channels"})


register("LRN", Rule(_local_response, vanishing, text="n c *s -> n c *s"))


def resized_spec(op: Op) -> Spec:
    """Axes that keep their size are carried; the others are resampled."""
    before, after = need_shape(op.inputs[0], op), need_shape(op.outputs[0], op)
    names, made = letters("a", len(before)), letters("b", len(before))
    results = tuple(a if m == n else b for a, b, m, n in zip(names, made, before, after, strict=True))
    return Spec((names, *(None for _ in op.inputs[1:])), (results,))


def _resize_sizes(edit: Edit) -> None:
    """``sizes`` (operand 3) names the result's sizes; ``scales`` do not change with the channels."""
    op = edit.op
    sizes, result = op.input(3), op.outputs[0]
    if sizes is None or result is None or result.shape is None:
        return
    axes = [int(axis) % len(result.shape) for axis in op.attributes.get("axes", range(len(result.shape)))]
    after = edit.shape(result)
    changed: list[int | None] = [after[axis] if after[axis] != result.shape[axis] else None for axis in axes]
    if any(size is not None for size in changed):
        edit.set_sizes(3, changed)


def _resize_transfer(op: Op, states: Sequence[Slots | None], result: int, axis: int) -> Slots:
    if op.attributes.get("mode", "nearest") == "nearest" and not op.attributes.get(
        "coordinate_transformation_mode", ""
    ).startswith("tf_crop"):
        return uniform(op, states, result, axis)
    return vanishing(op, states, result, axis)


register("Resize", Rule(resized_spec, _resize_transfer, rewrite=_resize_sizes, text="n c *s -> n c *t"))
register("Upsample", Rule(resized_spec, vanishing, text="n c *s -> n c *t"))


def _block(op: Op) -> int:
    return int(op.attributes.get("blocksize", 1))


register(
    "DepthToSpace",
    Rule(
        lambda op: _depth_to_space(op),
        uniform,
        text="n (b1 b2 c) h w -> n c (h b1) (w b2)",
    ),
)


def _depth_to_space(op: Op) -> Spec:
    n, c, h, w = letters("a", 4)
    channels = ("p", "q", "a1") if op.attributes.get("mode", "DCR") == "DCR" else ("a1", "p", "q")
    return Spec(
        ((n, Product(channels), h, w),),
        ((n, c, Product(("a2", "p")), Product(("a3", "q"))),),
        sizes={"p": _block(op), "q": _block(op)},
        frozen=dict.fromkeys(("p", "q", "a2", "a3"), "it becomes pixels"),
    )


register(
    "SpaceToDepth",
    Rule(lambda op: _space_to_depth(op), uniform, text="n c (h b1) (w b2) -> n (b1 b2 c) h w"),
)


def _space_to_depth(op: Op) -> Spec:
    n, c, h, w = letters("a", 4)
    return Spec(
        ((n, c, Product(("a2", "p")), Product(("a3", "q"))),),
        ((n, Product(("p", "q", "a1")), h, w),),
        sizes={"p": _block(op), "q": _block(op)},
        frozen=dict.fromkeys(("p", "q", "a2", "a3"), "it is made of pixels"),
    )


register(
    "GridSample",
    line("n c *s, n *t xy -> n c *t", transfer=vanishing, frozen={"xy": "it holds the coordinates of a sample"}),
)
_CORNERS = {"box": "it holds the corners of a box"}
register("RoiAlign", line("n c h w, r box, r -> r c y x", transfer=vanishing, frozen=_CORNERS))
register("MaxRoiPool", line("n c h w, r box -> r c y x", transfer=vanishing, frozen=_CORNERS))


def _column_to_image(op: Op) -> Spec:
    """Columns are channels times the block: [n, c * block, l] -> [n, c, *image]."""
    result = need_shape(op.outputs[0], op)
    source = need_shape(op.inputs[0], op)
    if source[1] % result[1]:
        raise RuleError("its channels do not divide into blocks")
    names = letters("a", len(result))
    return Spec(
        ((names[0], Product(("a1", "k")), *letters("l", 1)), None, None),
        (names,),
        sizes={"k": source[1] // result[1]},
        frozen={"k": "it becomes pixels", "l0": "it becomes pixels"},
    )


register("Col2Im", Rule(_column_to_image, vanishing, text="n (c k) l -> n c *t"))


def _grid(op: Op) -> Spec:
    names = letters("s", len(need_shape(op.outputs[0], op)) - 2)
    why = "it makes coordinates out of sizes"
    frozen = dict.fromkeys((name.name for name in names), why) | dict.fromkeys(("row", "column", "xy"), why)
    n = Letter("n")
    return Spec(((n, Letter("row"), Letter("column")), None), ((n, *names, Letter("xy")),), frozen=frozen)


def _grid_size(edit: Edit) -> None:
    """The number of pictures stands before their sizes."""
    result = edit.op.outputs[0]
    assert result is not None and result.shape is not None
    now = edit.shape(result)[0]
    rederive(edit, 1, [None if now == result.shape[0] else now] + [None] * (len(result.shape) - 1))


register("AffineGrid", Rule(_grid, vanishing, rewrite=_grid_size, text="n _ _, sizes -> n *s _"))


def _center_crop_pad(op: Op) -> Spec:
    """Axes that keep their size are carried; the middle of the others moves with it."""
    before, after = need_shape(op.inputs[0], op), need_shape(op.outputs[0], op)
    names, made = letters("a", len(before)), letters("b", len(before))
    fixed = known_integers(op.inputs[1]) is not None
    touched = {axis for axis in _cropped(op) if not fixed or before[axis] != after[axis]}
    results = tuple(b if axis in touched else a for axis, (a, b) in enumerate(zip(names, made, strict=True)))
    why = "it is cropped or padded around its middle"
    return Spec((names, None), (results,), frozen={f"{side}{axis}": why for axis in touched for side in "ab"})


def _cropped(op: Op) -> list[int]:
    rank = len(need_shape(op.inputs[0], op))
    return [int(axis) % rank for axis in op.attributes.get("axes", range(rank))]


def _crop_sizes(edit: Edit) -> None:
    result = edit.op.outputs[0]
    assert result is not None and result.shape is not None
    after = edit.shape(result)
    axes = _cropped(edit.op)
    rederive(edit, 1, [after[axis] if after[axis] != result.shape[axis] else None for axis in axes])


register("CenterCropPad", Rule(_center_crop_pad, vanishing, rewrite=_crop_sizes, text="*a, sizes -> *a"))


def _deformed(op: Op) -> Spec:
    """A convolution whose taps are moved by offsets, for all channels alike or for each of several parts of them."""
    spatial = len(need_shape(op.inputs[0], op)) - 2
    group, parts = (int(op.attributes.get(name, 1)) for name in ("group", "offset_group"))
    n, i, s, k, t = Letter("n"), Letter("i"), letters("s", spatial), letters("k", spatial), letters("t", spatial)
    outgoing: Axis = Product(("g", "o"))
    incoming: Axis = Product(("g", "i"))
    taken: Axis = i
    sizes = {"g": group}
    # Offsets are not multiplied: their parts go by another name, which is tied.
    ties: tuple[tuple[Axis, Axis], ...] = ()
    why = {"f": "its offsets belong to positions in the window", "m": "its offsets belong to positions in the window"}
    why |= {name.name: "its taps are placed by positions along it" for name in (*s, *k, *t)}
    if parts == 1:
        offsets: Axis = Letter("f")
        masks: Axis = Letter("m")
    elif parts == group:
        offsets, masks, ties = Product(("w", "f")), Product(("g", "m")), ((Letter("w"), Letter("g")),)
        sizes |= {"w": parts}
    elif group == 1:
        incoming = taken = Product(("q", "i"))
        offsets, masks, ties = Product(("w", "f")), Product(("q", "m")), ((Letter("w"), Letter("q")),)
        sizes |= {"w": parts, "q": parts}
    else:
        offsets, masks = Letter("f"), Letter("m")
        why |= dict.fromkeys("gi", "its groups and those of its offsets cut the channels in different places")
    operands = (
        (n, incoming, *s),
        (outgoing, taken, *k),
        (n, offsets, *t),
        (outgoing,),
        (n, masks, *t),
    )
    return Spec(operands[: len(op.inputs)], ((n, outgoing, *t),), sizes, frozen=why, ties=ties)


def _deformed_groups(edit: Edit) -> None:
    group, parts = (int(edit.op.attributes.get(name, 1)) for name in ("group", "offset_group"))
    if group > 1:
        edit.set_attribute("group", int(edit.kept("g").sum()))
    if parts > 1 and group in (1, parts):  # otherwise neither shrinks
        edit.set_attribute("offset_group", int(edit.kept("w").sum()))


register(
    "DeformConv",
    Rule(
        _deformed,
        linear((0, 1, 4), bias=3),
        rewrite=_deformed_groups,
        macs="n g i o *k *t",
        blocks=frozenset({"g"}),
        text="n (g i) *s, (g o) i *k, n (g f) *t, (g o), n (g m) *t -> n (g o) *t",
    ),
)

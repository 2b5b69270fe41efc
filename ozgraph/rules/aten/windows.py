"""Operators that slide, resample or shuffle over spatial axes and leave channels alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ozgraph.errors import RuleError
from ozgraph.graph import Op
from ozgraph.rules.aten.arguments import rank_of
from ozgraph.rules.lattice import Slots, uniform, vanishing
from ozgraph.rules.notation import Axes, Letter, Pattern, Product, parse
from ozgraph.rules.registry import register
from ozgraph.rules.rule import Describe, Rule, Spec, from_pattern, letters, line, need_shape
from ozgraph.rules.windows import resized_spec

_BATCHED = parse("n c *s -> n c *t, n c *t")
_SINGLE = parse("c *s -> c *t, c *t")


def _sliding(spatial: int) -> Describe:
    def describe(op: Op) -> Spec:
        pattern: Pattern = _BATCHED if rank_of(op) == spatial + 2 else _SINGLE
        spec = from_pattern(pattern, op)
        if len(op.outputs) > 1 and op.outputs[1] is not None:
            why = "the indices that it returns count positions in the whole tensor"
            return replace(spec, frozen={"n": why, "c": why})
        return spec

    return describe


def _average(op: Op, states: Sequence[Slots | None], result: int, axis: int) -> Slots:
    """A constant survives an average unless padding zeros are counted."""
    padding = op.attributes.get("padding", 0)
    padded = any(padding) if isinstance(padding, list) else bool(padding)
    if (padded and op.attributes.get("count_include_pad", True)) or op.attributes.get("divisor_override"):
        return vanishing(op, states, result, axis)
    return uniform(op, states, result, axis)


for _spatial in (1, 2, 3):
    _describe = _sliding(_spatial)
    register(
        f"aten.max_pool{_spatial}d aten.max_pool{_spatial}d_with_indices aten.adaptive_max_pool{_spatial}d",
        Rule(_describe, uniform, text="n c *s -> n c *t"),
    )
    register(f"aten.avg_pool{_spatial}d", Rule(_describe, _average, text="n c *s -> n c *t"))
    register(f"aten.adaptive_avg_pool{_spatial}d", Rule(_describe, uniform, text="n c *s -> n c *t"))


def _resampled(op: Op, states: Sequence[Slots | None], result: int, axis: int) -> Slots:
    """Nearest neighbours are elements as they are; others are sums that need not give the constant again."""
    nearest = op.type.startswith(("upsample_nearest", "_upsample_nearest"))
    return uniform(op, states, result, axis) if nearest else vanishing(op, states, result, axis)


register(
    "aten.upsample_nearest1d aten.upsample_nearest2d aten.upsample_nearest3d aten._upsample_nearest_exact1d "
    "aten._upsample_nearest_exact2d aten._upsample_nearest_exact3d aten.upsample_linear1d aten.upsample_bilinear2d "
    "aten.upsample_trilinear3d aten.upsample_bicubic2d aten._upsample_bilinear2d_aa aten._upsample_bicubic2d_aa",
    Rule(resized_spec, _resampled, text="n c *s -> n c *t"),
)


def _leading(rank: int) -> tuple[Letter, ...]:
    return letters("n", rank - 3)


def _to_pixels(op: Op) -> Spec:
    """``pixel_shuffle``: the inner factors of the channels become pixels."""
    factor = int(op.attributes["upscale_factor"])
    lead = _leading(rank_of(op))
    c, h, w = (Letter(name) for name in "chw")
    return Spec(
        ((*lead, Product(("c", "p", "q")), h, w),),
        ((*lead, c, Product(("h", "p")), Product(("w", "q"))),),
        sizes={"p": factor, "q": factor},
        frozen=dict.fromkeys(("p", "q", "h", "w"), "it becomes pixels"),
    )


def _from_pixels(op: Op) -> Spec:
    factor = int(op.attributes["downscale_factor"])
    lead = _leading(rank_of(op))
    c, h, w = (Letter(name) for name in "chw")
    return Spec(
        ((*lead, c, Product(("h", "p")), Product(("w", "q"))),),
        ((*lead, Product(("c", "p", "q")), h, w),),
        sizes={"p": factor, "q": factor},
        frozen=dict.fromkeys(("p", "q", "h", "w"), "it is made of pixels"),
    )


register("aten.pixel_shuffle", Rule(_to_pixels, uniform, text="n (c b1 b2) h w -> n c (h b1) (w b2)"))
register("aten.pixel_unshuffle", Rule(_from_pixels, uniform, text="n c (h b1) (w b2) -> n (c b1 b2) h w"))


def _channel_shuffle(op: Op) -> Spec:
    n, _, *positions = letters("a", rank_of(op))
    return Spec(
        ((n, Product(("g", "c")), *positions),),
        ((n, Product(("c", "g")), *positions),),
        sizes={"g": int(op.attributes["groups"])},
        frozen={"g": "the number of groups is an argument"},
    )


register(
    "aten.channel_shuffle aten.native_channel_shuffle", Rule(_channel_shuffle, uniform, text="n (g c) *s -> n (c g) *s")
)
register(
    "aten.grid_sampler aten.grid_sampler_2d aten.grid_sampler_3d aten.cudnn_grid_sampler",
    line("n c *s, n *t _ -> n c *t", transfer=vanishing),
)


def _image_to_columns(op: Op) -> Spec:
    """``unfold``: [n, c, *image] -> [n, c * block, l]."""
    source, result = need_shape(op.inputs[0], op), need_shape(op.outputs[0], op)
    if len(source) != 4 or result[1] % source[1]:
        raise RuleError("its image has no batch")
    names: Axes = letters("a", 4)
    return Spec(
        (names,),
        ((names[0], Product(("a1", "k")), Letter("l")),),
        sizes={"k": result[1] // source[1]},
        frozen=dict.fromkeys(("k", "l", "a2", "a3"), "it is made of pixels"),
    )


def _columns_to_image(op: Op) -> Spec:
    """``fold``: [n, c * block, l] -> [n, c, *image]."""
    source, result = need_shape(op.inputs[0], op), need_shape(op.outputs[0], op)
    if len(source) != 3 or source[1] % result[1]:
        raise RuleError("its columns have no batch")
    names: Axes = letters("a", 4)
    return Spec(
        ((names[0], Product(("a1", "k")), Letter("l")),),
        (names,),
        sizes={"k": source[1] // result[1]},
        frozen=dict.fromkeys(("k", "l", "a2", "a3"), "it becomes pixels"),
    )


register("aten.im2col", Rule(_image_to_columns, vanishing, text="n c h w -> n (c k) l"))
register("aten.col2im", Rule(_columns_to_image, vanishing, text="n (c k) l -> n c h w"))

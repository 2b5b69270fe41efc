"""Attention and rotary embedding of com.microsoft."""

from __future__ import annotations

from collections.abc import Sequence

from ozgraph.errors import RuleError
from ozgraph.graph import Op
from ozgraph.rules.attention import (
    LOOKED_UP,
    MASKED,
    SOFTMAX,
    count,
    masked_axes,
    original_scale,
    past_ties,
    rotary_pairs,
    zero_together,
)
from ozgraph.rules.contrib.operands import names, needing
from ozgraph.rules.lattice import UNKNOWN, Slots, vanishing
from ozgraph.rules.notation import Axes, Axis, Concat, Letter, Product, parse
from ozgraph.rules.registry import register
from ozgraph.rules.rule import Edit, Reduction, Rule, Spec, from_pattern, need_shape

_QKV = Concat((Product(("h", "d")), Product(("h", "d")), Product(("h", "e"))))
_PAST_QKV = Concat((Product(("h", "d")), Product(("h", "dk")), Product(("h", "e"))))
_PACKED = "queries, keys and values come packed in one operand"


def _heads(op: Op, name: str = "num_heads") -> int:
    heads = int(op.attributes.get(name, 0))
    if heads < 1:
        raise RuleError("its number of heads is not given")
    return heads


def _fused_attention(op: Op) -> Spec:
    """One weight for the projections of queries, keys and values."""
    if op.input(4) is not None or (len(op.outputs) > 1 and op.outputs[1] is not None):
        raise RuleError("queries, keys and values share the layout of its past state")
    if op.attributes.get("do_rotary", 0):
        raise RuleError("it rotates inside")
    heads, (batch, length, _), columns = _heads(op), need_shape(op.inputs[0], op), need_shape(op.inputs[1], op)[1]
    given = op.attributes.get("qkv_hidden_sizes")
    widths = [int(size) for size in given] if given else [columns // 3] * 3
    if sum(widths) != columns or widths[0] != widths[1] or any(width % heads for width in widths):
        raise RuleError("its columns do not divide into heads")
    b, s, c = (Letter(name) for name in "bsc")
    frozen = {"s": SOFTMAX}
    operands: list[Axes | None] = [(b, s, c), (c, _QKV), (_QKV,), _padding(op, 3, batch, frozen), None, None, None]
    mask = op.input(5)
    if mask is not None:
        operands[5] = masked_axes(mask, (b, Letter("h"), s, s), length)
    return Spec(
        tuple(operands[: len(op.inputs)]),
        ((b, s, Product(("h", "e"))), None)[: len(op.outputs)],
        {"h": heads, "d": widths[0] // heads, "e": widths[2] // heads},
        reduced={"d": Reduction.SUM},
        frozen=frozen,
    )


def _padding(op: Op, position: int, batch: int, frozen: dict[str, str]) -> Axes | None:
    """The axes of a mask over the keys: a length, a row or a square for each element of the batch.

    In any other form the batch is not told apart, and ``frozen`` gets it.
    """
    mask = op.input(position)
    if mask is None:
        return None
    shape = need_shape(mask, op)
    if len(shape) < 4 and shape[:1] == (batch,):
        frozen |= dict.fromkeys(("row", "column"), MASKED)
        return tuple(Letter(name) for name in ("b", "row", "column")[: len(shape)])
    frozen["b"] = "its mask tells the elements of the batch apart"
    return None


def _fused_attention_sizes(edit: Edit) -> None:
    heads, width, values = (int(edit.kept(letter).sum()) for letter in "hde")
    if not all(edit.kept(letter).all() for letter in "hde"):
        edit.set_attribute("qkv_hidden_sizes", [heads * width, heads * width, heads * values])
    count(edit, "num_heads", "h")
    original_scale(edit)


register(
    names("Attention"),
    needing(
        (0, 1),
        Rule(
            _fused_attention,
            lambda op, states, result, axis: zero_together(states, *((1, 2) if op.input(2) is not None else (1,))),
            rewrite=_fused_attention_sizes,
            macs=("b s c h d", "b s c h d", "b s c h e", "b h s s d", "b h s s e"),
            terms=((1, 2),),
            text="b s c, c (h d + h d + h e), (h d + h d + h e) -> b s (h e)",
        ),
    ),
)

_MULTI_HEAD = {
    False: parse("b s (h d), b t (h d), b t (h e), *a, *c, *m, *x, *y, *z, *w -> b s (h e), b h t d, b h t e, b h s t"),
    True: parse(
        "b s (h d), b t (h dk), b t (h e), *a, *c, *m, b h p dp, b h p e, *z, *w"
        " -> b s (h e), b h (p + t) dm, b h (p + t) e, b h s (p + t)"
    ),
}


def _multi_head(op: Op) -> Spec:
    operands_ = [need_shape(value, op) for value in op.inputs[:3]] if len(op.inputs) >= 3 and all(op.inputs[:3]) else []
    if len(operands_) != 3 or any(len(shape) != 3 for shape in operands_):
        raise RuleError(_PACKED)
    if any(op.input(position) is not None for position in (8, 9)):
        raise RuleError("its cache is shared and indexed at run time")
    past = op.input(6)
    spec = from_pattern(_MULTI_HEAD[past is not None], op, sizes={"h": _heads(op)})
    operands = list(spec.operands)
    if op.input(3) is not None:
        operands[3] = (_QKV if past is None else _PAST_QKV,)
    frozen = {"t": SOFTMAX, "p": SOFTMAX}
    if op.input(4) is not None:
        operands[4] = _padding(op, 4, operands_[0][0], frozen)
    mask = op.input(5)
    if mask is not None:
        total = operands_[1][1] + (need_shape(past, op)[2] if past is not None else 0)
        last: Axis = Letter("t") if past is None else Concat((Letter("p"), Letter("t")))
        operands[5] = masked_axes(mask, (Letter("b"), Letter("h"), Letter("s"), last), total)
    if op.attributes.get("unidirectional", 0):
        frozen["s"] = MASKED
    return Spec(
        tuple(operands),
        spec.results,
        spec.sizes,
        reduced={"d": Reduction.SUM},
        frozen=frozen,
        # With a past, the kernel wants one width for keys and values.
        ties=() if past is None else (*past_ties(op, 1), (Letter("dk"), Letter("e"))),
    )


def _multi_headed(op: Op, states: Sequence[Slots | None], result: int, axis: int) -> Slots:
    """Values, their bias and their past at zero make the result zero."""
    if result == 3:
        return UNKNOWN
    position = 2 if result == 0 else result
    beside = [place for place in (3, 5 + position) if op.input(place) is not None]
    return zero_together(states, position, *beside)


def _multi_head_counts(edit: Edit) -> None:
    count(edit, "num_heads", "h")
    original_scale(edit)


register(
    names("MultiHeadAttention"),
    Rule(
        _multi_head,
        _multi_headed,
        rewrite=_multi_head_counts,
        macs=("b h s t d", "b h s p d", "b h s t e", "b h s p e"),
        terms=((0, 3), (1, 3)),
        text="b s (h d), b t (h d), b t (h e), (h d + h d + h e) -> b s (h e)",
    ),
)

_GROUPED = {
    False: parse("b s (g r d), b s (g d), b s (g d), *a, *c, *x -> b s (g r d), b g s d, b g s d"),
    True: parse("b s (g r d), b s (g d), b s (g d), b g p d, b g p d, *x -> b s (g r d), b g t d, b g t d"),
}
_KERNEL_WIDTHS = "its kernels take only some widths of a head"


def _grouped_query(op: Op) -> Spec:
    """Heads prune, head widths do not."""
    if any(op.input(position) is None for position in (0, 1, 2)):
        raise RuleError(_PACKED)
    if any(value is not None for value in (*op.inputs[12:16], *op.inputs[17:])):
        raise RuleError("its cache is quantised or its operands are normalised inside")
    heads, shared = _heads(op), _heads(op, "kv_num_heads")
    if heads % shared:
        raise RuleError("its numbers of heads do not divide")
    spec = from_pattern(_GROUPED[op.input(3) is not None], op, sizes={"g": shared, "r": heads // shared})
    operands = list(spec.operands)
    # Lengths and positions belong to the elements of the batch; the tables of angles are looked up.
    named = {5: ("b", "s"), 7: ("position", "angle"), 8: ("position", "angle"), 9: ("b", "s"), 16: ("b",)}
    for position, axes in named.items():
        value = op.input(position)
        if value is not None:
            operands[position] = tuple(Letter(name) for name in axes[: value.rank])
    mask = op.input(10)
    if mask is not None:
        total = (mask.shape or (0,))[-1]
        operands[10] = masked_axes(mask, (Letter("b"), Product(("g", "r")), Letter("s"), Letter("u")), total)
    if op.input(11) is not None:
        operands[11] = (Product(("g", "r")),)
    return Spec(
        tuple(operands),
        spec.results,
        spec.sizes,
        frozen={
            **dict.fromkeys("sptu", SOFTMAX),
            **dict.fromkeys(("d", "angle"), _KERNEL_WIDTHS),
            "position": LOOKED_UP,
        },
    )


def _grouped_queried(op: Op, states: Sequence[Slots | None], result: int, axis: int) -> Slots:
    position = 2 if result == 0 else result
    return zero_together(states, position, position + 2) if op.input(3) is not None else zero_together(states, position)


def _grouped_counts(edit: Edit) -> None:
    count(edit, "num_heads", "g", "r")
    count(edit, "kv_num_heads", "g")


register(
    names("GroupQueryAttention"),
    Rule(
        _grouped_query,
        _grouped_queried,
        rewrite=_grouped_counts,
        macs=("b g r s t d", "b g r s t d"),
        text="b s (g r d), b s (g d), b s (g d) -> b s (g r d)",
    ),
)


def _rotary(op: Op) -> Spec:
    """As the default domain's, with positions before the tables."""
    source, tables = need_shape(op.inputs[0], op), need_shape(op.inputs[2], op)
    if op.attributes.get("is_packed_batching", 0) or len(source) not in (3, 4):
        raise RuleError("its batch is packed")
    rotated = int(op.attributes.get("rotary_embedding_dim", 0)) or 2 * tables[1]
    heads = source[1] if len(source) == 4 else int(op.attributes.get("num_heads", 0)) or source[2] // (2 * tables[1])
    width = source[3] if len(source) == 4 else source[2] // heads
    pairs, sizes = rotary_pairs(width, rotated, bool(op.attributes.get("interleaved", 0)))
    b, s, h, d = (Letter(name) for name in "bshd")
    data: Axes = (b, h, s, d) if len(source) == 4 else (b, s, Product(("h", "d")))
    if len(source) == 3:
        sizes["h"] = heads
    # Positions of every element of the batch, or one offset for all.
    positions: Axes | None = (b, s) if len(need_shape(op.inputs[1], op)) == 2 else None
    return Spec(
        (data, positions, (Letter("position"), Letter("f")), (Letter("position"), Letter("sine"))),
        (data,),
        sizes,
        frozen={"two": "its halves rotate together", "position": LOOKED_UP, "s": "positions are counted along it"},
        ties=((d, pairs), (Letter("sine"), Letter("f"))),
    )


def _rotary_width(edit: Edit) -> None:
    if edit.op.attributes.get("rotary_embedding_dim", 0):
        edit.set_attribute("rotary_embedding_dim", 2 * int(edit.kept("f").sum()))
    count(edit, "num_heads", "h")


register(
    names("RotaryEmbedding"),
    Rule(_rotary, vanishing, rewrite=_rotary_width, text="b h s (2 f), b s, p f, p f -> b h s (2 f)"),
)

"""Attention as one operator, and rotary embedding: heads and head widths."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ozgraph.errors import RuleError
from ozgraph.graph import Op, Value
from ozgraph.rules.lattice import UNKNOWN, Slots, meet, vanishing
from ozgraph.rules.notation import ONE_AXIS, Axes, Axis, Concat, Letter, Product, Unsaid, parse
from ozgraph.rules.registry import register
from ozgraph.rules.rule import Edit, Reduction, Rule, Spec, from_pattern, need_shape

SOFTMAX = "a softmax over it counts every slot"
MASKED = "the mask depends on positions along it"
LOOKED_UP = "positions along it are looked up at run time"

PRODUCTS = ("b g r s t d", "b g r s p d", "b g r s t e", "b g r s p e")
"""Queries with keys and weights with values, over incoming and past positions."""

# g: heads of keys and values, r: query heads for each, d: width of q and k, e: width of v. With past keys, zero keys
# do not make the product zero any more, so that keys have names of their own beside the queries' d.
_RESULTS = "b g t d, b g t e, b (g r) s t"
_PAST_RESULTS = "b g (p + t) dm, b g (p + t) e, b (g r) s (p + t)"
_LINES = {
    (4, False): parse(f"b (g r) s d, b g t d, b g t e, *m, *x, *y, b -> b (g r) s e, {_RESULTS}"),
    (3, False): parse(f"b s (g r d), b t (g d), b t (g e), *m, *x, *y, b -> b s (g r e), {_RESULTS}"),
    (4, True): parse(f"b (g r) s d, b g t dk, b g t e, *m, b g p dp, b g p e, b -> b (g r) s e, {_PAST_RESULTS}"),
    (3, True): parse(f"b s (g r d), b t (g dk), b t (g e), *m, b g p dp, b g p e, b -> b s (g r e), {_PAST_RESULTS}"),
}


def past_ties(op: Op, present: int) -> tuple[tuple[Axis, Axis], ...]:
    """The widths of queries, incoming keys, past keys and present keys (result ``present``) are one."""
    queries, keys, past, both = (Letter(name) for name in ("d", "dk", "dp", "dm"))
    ties: tuple[tuple[Axis, Axis], ...] = ((queries, keys), (keys, past))
    if present < len(op.outputs) and op.outputs[present] is not None:
        ties += ((both, keys), (both, past))
    return ties


def masked_axes(mask: Value, wanted: Axes, total: int) -> Axes:
    """The axes of a mask that broadcasts to scores; a last axis shorter than the scores' is read apart."""
    rank = len(mask.shape or ())
    axes = wanted[len(wanted) - rank :]
    if mask.shape and mask.shape[-1] not in (1, total):
        axes = (*axes[:-1], Unsaid())
    return axes


def _attention(op: Op) -> Spec:
    queries, keys = need_shape(op.inputs[0], op), need_shape(op.inputs[1], op)
    past = op.input(4)
    if len(queries) not in (3, 4) or len(keys) != len(queries):
        raise RuleError("its operands have neither three nor four axes")
    sizes: dict[str, int] = {}
    if len(queries) == 3:
        heads, shared = (int(op.attributes.get(name, 0)) for name in ("q_num_heads", "kv_num_heads"))
        if not heads or not shared or heads % shared:
            raise RuleError("its numbers of heads do not divide")
        sizes = {"g": shared, "r": heads // shared}
    spec = from_pattern(_LINES[len(queries), past is not None], op)
    operands = list(spec.operands)
    mask = op.input(3)
    if mask is not None:
        total = keys[-2] + (need_shape(past, op)[2] if past is not None else 0)
        last: Axis = Letter("t") if past is None else Concat((Letter("p"), Letter("t")))
        operands[3] = masked_axes(mask, (Letter("b"), Product(("g", "r")), Letter("s"), last), total)
    frozen = {"t": SOFTMAX, "p": SOFTMAX}
    if any(int(op.attributes.get(name, unset)) != unset for name, unset in _POSITIONAL.items()):
        frozen["s"] = MASKED
    return Spec(
        tuple(operands),
        spec.results,
        sizes,
        reduced={"d": Reduction.SUM},
        frozen=frozen,
        ties=() if past is None else past_ties(op, 1),
    )


_POSITIONAL = {"is_causal": 0, "left_window_size": -1, "right_window_size": -1}


def zero_together(states: Sequence[Slots | None], *positions: int) -> Slots:
    """Zero where all of these operands are, those that are left out aside."""
    present = [states[position] for position in positions if position < len(states)]
    known = [UNKNOWN if state is None else state for state in present]
    state = meet(known) if known else UNKNOWN
    return np.where(state == 0, 0.0, np.nan)


def _attended(op: Op, states: Sequence[Slots | None], result: int, axis: int) -> Slots:
    """Values at zero make the result zero; queries or keys at zero alone make the weights equal, not zero."""
    past = op.input(4) is not None
    if result == 0:
        return zero_together(states, 2, 5) if past else zero_together(states, 2)
    if result in (1, 2):
        return zero_together(states, result, result + 3) if past else zero_together(states, result)
    # The scores before the mask: their cap is tanh, which keeps zero.
    scores = int(op.attributes.get("qk_matmul_output_mode", 0)) < 2
    return zero_together(states, 0) if scores else UNKNOWN


def original_scale(edit: Edit, name: str = "scale") -> None:
    """Write the default scale out as the number that it was: 1 / sqrt(head width)."""
    kept = edit.kept("d")
    if not edit.op.attributes.get(name, 0.0) and not kept.all():
        edit.set_attribute(name, 1.0 / math.sqrt(len(kept)))


def count(edit: Edit, name: str, *factors: str) -> None:
    """Re-derive an attribute that counts slots, where the operator has it."""
    if edit.op.attributes.get(name, 0):
        total = 1
        for letter in factors:
            total *= int(edit.kept(letter).sum())
        edit.set_attribute(name, total)


def _head_counts(edit: Edit) -> None:
    count(edit, "q_num_heads", "g", "r")
    count(edit, "kv_num_heads", "g")
    original_scale(edit)


register(
    "Attention",
    Rule(
        _attention,
        _attended,
        rewrite=_head_counts,
        macs=PRODUCTS,
        text="b (g r) s d, b g t d, b g t e -> b (g r) s e",
    ),
)


# A state [d, e] for each head of keys: every step adds k v to it and reads it by q. The decays are not multiplied:
# their slots go by another name, which is tied.
_STEPS = parse("b t (g r d), b t (g d), b t (g e), b g d e, *m, *x -> b t (g r e), b g d e")


def _linear_attention(op: Op) -> Spec:
    heads, shared = (int(op.attributes.get(name, 0)) for name in ("q_num_heads", "kv_num_heads"))
    if not heads or not shared or heads % shared:
        raise RuleError("its numbers of heads do not divide")
    spec = from_pattern(_STEPS, op, sizes={"g": shared, "r": heads // shared})
    operands = list(spec.operands)
    b, t, g = Letter("b"), Letter("t"), Letter("g")
    ties: tuple[tuple[Axis, Axis], ...] = ()
    if (decay := op.input(4)) is not None:
        by_head = need_shape(decay, op)[2] == shared
        operands[4] = (b, t, g) if by_head else (b, t, Product(("g", "decay")))
        ties = () if by_head else ((Letter("decay"), Letter("d")),)
    if (rate := op.input(5)) is not None:
        operands[5] = (b, t, ONE_AXIS if need_shape(rate, op)[2] == 1 else g)
    return Spec(
        tuple(operands),
        spec.results,
        spec.sizes,
        reduced={"d": Reduction.SUM},
        frozen={"t": "time runs along it"},
        ties=ties,
    )


def _remembered(op: Op, states: Sequence[Slots | None], result: int, axis: int) -> Slots:
    """A state is zero where it starts there and nothing is added to it: where keys are zero, or values."""
    past = (3,) if op.input(3) is not None else ()
    silent = (zero_together(states, 1, *past) == 0) | (zero_together(states, 2, *past) == 0)
    if result == 0:
        silent = silent | (zero_together(states, 0) == 0)
    return np.where(silent, 0.0, np.nan)


register(
    "LinearAttention",
    Rule(
        _linear_attention,
        _remembered,
        rewrite=_head_counts,
        macs=("b t g d e", "b t g r d e"),
        # Updates read the state by the keys, too: only where all three are zero does no rule of update see a width.
        terms=((0, 1, 3),),
        text="b t (g r d), b t (g d), b t (g e), b g d e -> b t (g r e), b g d e",
    ),
)


def rotary_pairs(width: int, rotated: int, interleaved: bool) -> tuple[Axis, dict[str, int]]:
    """The slots of a head's width as pairs that rotate together, and a rest that does not; with the sizes."""
    if rotated % 2 or not 0 < rotated <= width:
        raise RuleError("the rotated width does not divide into pairs")
    pairs = Product(("f", "two") if interleaved else ("two", "f"))
    sizes = {"two": 2, "f": rotated // 2}
    if rotated == width:
        return pairs, sizes
    return Concat((pairs, Letter("rest"))), {**sizes, "rest": width - rotated}


_ROTARY = {3: parse("b s (h d), *c, *c, b s -> b s (h d)"), 4: parse("b h s d, *c, *c, b s -> b h s d")}


def _rotary(op: Op) -> Spec:
    source, cache = need_shape(op.inputs[0], op), need_shape(op.inputs[1], op)
    if len(source) not in _ROTARY:
        raise RuleError("its operand has neither three nor four axes")
    heads = int(op.attributes.get("num_heads", 0)) if len(source) == 3 else source[1]
    if not heads or source[-1] % (heads if len(source) == 3 else 1):
        raise RuleError("its number of heads does not divide")
    width = source[-1] // (heads if len(source) == 3 else 1)
    rotated = int(op.attributes.get("rotary_embedding_dim", 0)) or width
    pairs, sizes = rotary_pairs(width, rotated, bool(op.attributes.get("interleaved", 0)))
    spec = from_pattern(_ROTARY[len(source)], op)
    rows: Axes = (Letter("position"),) if len(cache) == 2 else (Letter("b"), Letter("s"))
    # Angles are not contracted: sines go by another name.
    cosines, sines = (*rows, Letter("f")), (*rows, Letter("sine"))
    if len(source) == 3:
        sizes["h"] = heads
    return Spec(
        (spec.operands[0], cosines, sines, *spec.operands[3:]),
        spec.results,
        sizes,
        frozen={"two": "its halves rotate together", "position": LOOKED_UP},
        ties=((Letter("d"), pairs), (Letter("sine"), Letter("f"))),
    )


def _rotary_width(edit: Edit) -> None:
    if edit.op.attributes.get("rotary_embedding_dim", 0):
        edit.set_attribute("rotary_embedding_dim", 2 * int(edit.kept("f").sum()))
    count(edit, "num_heads", "h")


register(
    "RotaryEmbedding",
    Rule(_rotary, vanishing, rewrite=_rotary_width, text="b h s (2 f), p f, p f, b s -> b h s (2 f)"),
)

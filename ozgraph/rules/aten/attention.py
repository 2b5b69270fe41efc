"""Scaled dot product attention as one operator."""

from __future__ import annotations

from collections.abc import Sequence

from ozgraph.errors import RuleError
from ozgraph.graph import Op
from ozgraph.rules.attention import MASKED, SOFTMAX, original_scale, zero_together
from ozgraph.rules.lattice import Slots
from ozgraph.rules.notation import Axes, Axis, Letter, Product, Unsaid
from ozgraph.rules.registry import register
from ozgraph.rules.rule import Reduction, Rule, Spec, need_shape


def _attention(op: Op) -> Spec:
    """Leading axes broadcast; with grouped queries a key head serves several query heads."""
    queries, keys, values = (need_shape(op.inputs[position], op) for position in range(3))
    rank = len(queries)
    if rank < 2 or len(keys) != rank or len(values) != rank:
        raise RuleError("its operands have different numbers of axes")
    leading: list[Axis] = [Letter(f"*b{number}") for number in range(rank - 3)]
    if rank > 2:
        leading.append(Letter("h"))
    sizes: dict[str, int] = {}
    shared: list[Axis] = list(leading)
    if rank > 2 and queries[-3] != keys[-3] and op.attributes.get("enable_gqa"):
        if queries[-3] % keys[-3]:
            raise RuleError("its numbers of heads do not divide")
        leading[-1], shared[-1] = Product(("g", "r")), Letter("g")
        sizes = {"g": keys[-3], "r": queries[-3] // keys[-3]}
    s, t, d, e = (Letter(name) for name in "stde")
    operands: list[Axes | None] = [(*leading, s, d), (*shared, t, d), (*shared, t, e)]
    mask = op.input(3)
    if mask is not None:
        scores: Axes = (*leading, s, t)
        axes = scores[len(scores) - mask.rank :]
        if mask.shape and mask.shape[-1] not in (1, keys[-2]):
            axes = (*axes[:-1], Unsaid())
        operands.append(axes)
    frozen = {"t": SOFTMAX}
    if op.attributes.get("is_causal"):
        frozen["s"] = MASKED
    return Spec(
        (*operands, *(None for _ in op.inputs[len(operands) :])),
        ((*leading, s, e),),
        sizes,
        reduced={"d": Reduction.SUM},
        frozen=frozen,
    )


def _attended(op: Op, states: Sequence[Slots | None], result: int, axis: int) -> Slots:
    """Values at zero make the result zero; queries or keys at zero alone make the weights equal, not zero."""
    return zero_together(states, 2)


register(
    "aten.scaled_dot_product_attention",
    Rule(
        _attention,
        _attended,
        rewrite=original_scale,
        macs=("*b h s t d", "*b h s t e", "*b g r s t d", "*b g r s t e"),
        text="b (g r) s d, b g t d, b g t e, b (g r) s t -> b (g r) s e",
    ),
)

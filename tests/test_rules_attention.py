"""Attention and RotaryEmbedding as operators: heads, their widths, and what holds them back."""

from __future__ import annotations

import pytest

from models.fused import MODELS
from models.pruning import families_of, halved

HEADS, WIDTH = ("q_proj.weight", 4, "exact"), ("q_proj.weight", 6, "exact")

FOUND = {
    "attention_op_widths": {HEADS, WIDTH, ("v_proj.weight", 3, "exact")},
    "attention_op_grouped_3d": {
        ("q_proj.weight", 2, "exact"),
        ("q_proj.weight", 2, "consumers"),
        WIDTH,
        ("v_proj.weight", 3, "exact"),
    },
    "attention_op_multi_query": {("q_proj.weight", 4, "consumers"), WIDTH, ("v_proj.weight", 6, "exact")},
    "attention_op_cache": {("fc1.weight", 24, "exact")},
    "attention_op_prefix": {HEADS, WIDTH, ("v_proj.weight", 6, "exact")},
    "attention_op_scores": {HEADS, WIDTH, ("v_proj.weight", 6, "exact")},
    "rotary_op": {HEADS, ("v_proj.weight", 8, "exact")},
    "rotary_op_3d": {HEADS, ("v_proj.weight", 8, "exact")},
    "rotary_op_partial": {HEADS, ("q_proj.weight", 2, "exact"), ("v_proj.weight", 8, "exact")},
    "rotary_op_partial_3d": {HEADS, ("q_proj.weight", 2, "exact"), ("v_proj.weight", 8, "exact")},
}


@pytest.mark.parametrize("name", MODELS)
def test_heads_and_widths_prune_and_verify(name: str) -> None:
    state = halved(MODELS[name]())
    assert families_of(state) == FOUND[name]
    assert not state.unknown


def test_both_products_count() -> None:
    state = halved(MODELS["attention_op_widths"]())
    batch, length, model, heads, width, values = 2, 5, 16, 4, 6, 3
    projections = batch * length * model * heads * (2 * width + 2 * values)
    products = batch * heads * length * length * (width + values)
    assert state.cost is not None
    assert state.cost.macs() == projections + products

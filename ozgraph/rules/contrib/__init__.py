"""Rules for the com.microsoft operators that onnxruntime's transformer optimizer and its saved graphs hold."""

from __future__ import annotations

from ozgraph.rules.contrib import (  # noqa: F401  (imported for what they register)
    attention,
    elementwise,
    norms,
    packed,
    products,
)
from ozgraph.rules.contrib.operands import names
from ozgraph.rules.registry import register_freezing

register_freezing(
    names("PackedAttention PackedMultiHeadAttention DecoderMaskedMultiHeadAttention DecoderMaskedSelfAttention"),
    "its tokens are packed, or its cache is shared and indexed at run time",
)
register_freezing(names("QAttention QEmbedLayerNormalization"), "its stored integers are not followed")
register_freezing(names("MoE QMoE"), "which expert a token meets depends on the data")

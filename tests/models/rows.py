"""All small models by name: ``ROWS["residual_add"]()``."""

from __future__ import annotations

from models import contrib, control, forms, fused, lists, moves, norms, quantised, sequences, tables
from models.building import Builder

ROWS: dict[str, Builder] = {
    **moves.MODELS,
    **sequences.MODELS,
    **norms.MODELS,
    **forms.MODELS,
    **fused.MODELS,
    **quantised.MODELS,
    **contrib.MODELS,
    **control.MODELS,
    **lists.MODELS,
    **tables.MODELS,
}

DESIGN_TABLE: dict[str, tuple[str, ...]] = {
    "residual add": ("residual_add", "residual_sum_of_three", "residual_from_input"),
    "concat, split, slice": (
        "concat", "concat_dense", "concat_with_itself", "concat_with_input", "split", "split_gate",
        "slice_halves", "slice_strided", "slice_reversed", "slice_frozen_part",
    ),
    "flatten before a linear": ("flatten_linear", "reshape_linear"),
    "grouped convolution": ("grouped_conv", "grouped_conv_uneven", "grouped_conv_residual"),
    "depthwise convolution": ("depthwise_conv", "depthwise_multiplier", "depthwise_on_input"),
    "channel shuffle": ("channel_shuffle", "channel_shuffle_groups"),
    "attention": ("attention_separate", "attention_cross"),
    "fused qkv": ("attention_fused_qkv", "attention_split_qkv"),
    "grouped-query attention": ("attention_grouped_query", "attention_multi_query"),
    "rotary embedding": ("rotary_embedding", "rotary_interleaved"),
    "LSTM, GRU": ("lstm", "lstm_bidirectional", "gru", "rnn"),
}  # fmt: skip
"""The rows of the table in the design, and the models that show each."""

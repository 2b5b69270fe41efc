"""Attention and rotary embedding, of the default domain and of com.microsoft."""

from __future__ import annotations

import numpy as np

from applications.application import DOMAIN, Table
from applications.operands import Fixed, T, booleans, indexes, integer, ints

TABLE = Table()
use = TABLE.use

# batch 2, heads 4 (of keys 2), queries 5, keys 7, past 3, width 6, width of values 8
_QUERIES, _KEYS, _VALUES = T(2, 4, 5, 6), T(2, 4, 7, 6), T(2, 4, 7, 8)
_SHARED = T(2, 2, 7, 6), T(2, 2, 7, 8)
_PAST = T(2, 4, 3, 6), T(2, 4, 3, 8)

use("Attention", _QUERIES, _KEYS, _VALUES, opset=23)
use("Attention", _QUERIES, *_SHARED, form="grouped", opset=23)
use("Attention", _QUERIES, _KEYS, _VALUES, T(5, 7), form="mask", opset=23, scale=0.3)
use("Attention", _QUERIES, _KEYS, _VALUES, booleans(2, 1, 5, 7), form="mask of booleans", opset=23)
use("Attention", _QUERIES, _KEYS, _VALUES, T(2, 4, 5, 7), form="mask of heads", opset=23, softcap=3.0)
use("Attention", _QUERIES, _KEYS, _VALUES, T(5, 10), *_PAST, form="past", opset=23, results=3)
use("Attention", _QUERIES, _KEYS, _VALUES, T(1, 4, 5, 7), form="one mask for all", opset=23)
use("Attention", T(4, 4, 4, 4), T(4, 4, 4, 4), T(4, 4, 4, 4), T(4, 4), form="equal sizes", opset=23)
use("Attention", _QUERIES, _KEYS, _VALUES, form="causal", opset=23, is_causal=1)
use("Attention", _QUERIES, _KEYS, _VALUES, form="scores", opset=23, results=4)
use("Attention", _QUERIES, _KEYS, _VALUES, form="weights out", opset=23, results=4, qk_matmul_output_mode=3)
use("Attention", T(2, 5, 24), T(2, 7, 12), T(2, 7, 16), form="three axes", opset=23, q_num_heads=4, kv_num_heads=2)
use(
    "Attention", T(2, 5, 24), T(2, 7, 24), T(2, 7, 32), None, *_PAST, form="three axes, past", opset=23, results=3,
    q_num_heads=4, kv_num_heads=4,
)  # fmt: skip
use("Attention", _QUERIES, _KEYS, _VALUES, None, None, None, ints(7, 4), form="lengths", opset=24)
use("Attention", _QUERIES, _KEYS, _VALUES, form="window", opset=25, is_causal=1, left_window_size=3)

_ANGLES = T(9, 3, through="Tanh"), T(9, 3, through="Tanh")
use("RotaryEmbedding", T(2, 4, 5, 6), *_ANGLES, indexes(2, 5, below=9), opset=23)
use("RotaryEmbedding", T(2, 4, 5, 6), *_ANGLES, indexes(2, 5, below=9), form="pairs", opset=23, interleaved=1)
use("RotaryEmbedding", T(2, 4, 5, 6), T(2, 5, 3), T(2, 5, 3), form="tables of positions", opset=23)
use("RotaryEmbedding", T(2, 5, 24), *_ANGLES, indexes(2, 5, below=9), form="three axes", opset=23, num_heads=4)
use(
    "RotaryEmbedding", T(2, 4, 5, 8), *_ANGLES, indexes(2, 5, below=9), form="part", opset=23, rotary_embedding_dim=6,
)  # fmt: skip

_ATTENTION = f"{DOMAIN}.Attention"
_WEIGHT = T(10, 24 + 24 + 32, only="weight"), T(24 + 24 + 32, only="weight")
use(_ATTENTION, T(2, 5, 10), *_WEIGHT, opset=17, num_heads=4, qkv_hidden_sizes=[24, 24, 32])
use(_ATTENTION, T(2, 5, 10), T(10, 72, only="weight"), T(72, only="weight"), form="equal widths", opset=17, num_heads=4)
use(
    _ATTENTION, T(2, 5, 10), *_WEIGHT, ints(5, 3, dtype="int32"), form="lengths", opset=17, num_heads=4,
    qkv_hidden_sizes=[24, 24, 32],
)  # fmt: skip
use(
    _ATTENTION, T(2, 5, 10), *_WEIGHT, None, None, T(2, 4, 5, 5), form="mask", opset=17, num_heads=4,
    qkv_hidden_sizes=[24, 24, 32],
)  # fmt: skip
use(
    _ATTENTION, T(2, 5, 10), T(10, 72, only="weight"), T(72, only="weight"), None, T(2, 2, 4, 3, 6), form="past",
    opset=17, results=2, num_heads=4,
)  # fmt: skip
use(
    _ATTENTION, T(2, 5, 10), T(10, 72, only="weight"), T(72, only="weight"), None, None, None,
    ints(3, dtype="int32"), form="length of the past", opset=17, num_heads=4,
)  # fmt: skip

_EQUAL = T(10, 72, only="weight"), T(72, only="weight")
_ROWS = Fixed(np.array([[1, 1, 1, 1, 0], [1, 1, 1, 0, 0]], np.int32))
_SQUARES = Fixed(np.tril(np.ones((2, 5, 5), np.int32)))
_STARTS = ints(5, 4, 0, 1, dtype="int32")
for _form, _mask in (("rows of a mask", _ROWS), ("squares of a mask", _SQUARES), ("ends and starts", _STARTS)):
    use(_ATTENTION, T(2, 5, 10), *_EQUAL, _mask, form=_form, opset=17, num_heads=4)

_MULTI = f"{DOMAIN}.MultiHeadAttention"
_Q, _K, _V = T(2, 5, 24), T(2, 7, 24), T(2, 7, 32)
use(_MULTI, _Q, _K, _V, opset=17, num_heads=4)
use(_MULTI, _Q, _K, _V, T(80), form="bias", opset=17, num_heads=4)
use(_MULTI, _Q, _K, _V, None, ints(7, 4, dtype="int32"), form="lengths", opset=17, num_heads=4)
use(_MULTI, _Q, _K, _V, None, Fixed(np.tri(2, 7, 4, np.int32)), form="rows of a mask", opset=17, num_heads=4)
use(_MULTI, _Q, _K, _V, None, None, T(2, 4, 5, 7), form="mask", opset=17, num_heads=4)
use(_MULTI, _Q, _K, _V, None, None, T(1, 4, 5, 7), form="one mask for all", opset=17, num_heads=4)
use(_MULTI, _Q, _K, _V, None, None, T(2, 1, 5, 7), form="mask of the batch", opset=17, num_heads=4)
use(_MULTI, T(3, 5, 24), T(3, 5, 24), T(3, 5, 24), None, None, None, T(3, 4, 3, 6), T(3, 4, 3, 6), form="equal sizes",
    opset=17, results=3, num_heads=4)  # fmt: skip
use(_MULTI, _Q, T(2, 5, 24), T(2, 5, 32), form="causal", opset=17, num_heads=4, unidirectional=1)
use(_MULTI, _Q, _K, _K, None, None, None, T(2, 4, 3, 6), T(2, 4, 3, 6), form="past", opset=17, results=3, num_heads=4)
use(
    _MULTI, T(2, 1, 24), T(2, 1, 24), T(2, 1, 24), None, None, None, T(2, 4, 8, 6), T(2, 4, 8, 6),
    integer(3, "int32"), form="shared past", opset=17, results=3, num_heads=4,
)  # fmt: skip

_GROUPED = f"{DOMAIN}.GroupQueryAttention"
_GQ, _GK, _GV = T(2, 5, 32), T(2, 5, 16), T(2, 5, 16)
_ENDS, _TOTAL = ints(4, 4, dtype="int32"), integer(5, "int32")
_HEADS = {"opset": 17, "results": 3, "num_heads": 4, "kv_num_heads": 2}
use(_GROUPED, _GQ, _GK, _GV, None, None, _ENDS, _TOTAL, **_HEADS)
# What stands behind the queries that count is not specified, so that all of them count here.
use(_GROUPED, _GQ, _GK, _GV, T(2, 2, 3, 8), T(2, 2, 3, 8), ints(7, 7, dtype="int32"), integer(8, "int32"),
    *([None] * 9), ints(5, 5, dtype="int32"), form="padded queries", **_HEADS)  # fmt: skip
use(
    _GROUPED, T(3, 1, 32), T(3, 1, 16), T(3, 1, 16), T(3, 2, 6, 8), T(3, 2, 6, 8), ints(6, 6, 6, dtype="int32"),
    integer(7, "int32"), form="past", **_HEADS,
)  # fmt: skip
_TABLE = T(9, 8, through="Tanh"), T(9, 8, through="Tanh")
use(
    _GROUPED, T(2, 5, 64), T(2, 5, 32), T(2, 5, 32), None, None, _ENDS, _TOTAL, *_TABLE, form="rotary", do_rotary=1,
    **_HEADS,
)  # fmt: skip
use(
    _GROUPED, T(2, 5, 64), T(2, 5, 32), T(2, 5, 32), None, None, _ENDS, _TOTAL, *_TABLE,
    indexes(2, 5, below=4), form="positions", do_rotary=1, **_HEADS,
)  # fmt: skip
use(
    _GROUPED, _GQ, _GK, _GV, None, None, _ENDS, _TOTAL, None, None, None, T(2, 4, 5, 5), form="mask", **_HEADS
)  # fmt: skip
use(_GROUPED, _GQ, _GK, _GV, None, None, _ENDS, _TOTAL, None, None, None, None, T(4), form="sinks", **_HEADS)

_ROTARY = f"{DOMAIN}.RotaryEmbedding"
use(_ROTARY, T(2, 5, 24), indexes(2, 5, below=9), *_ANGLES, opset=17, num_heads=4)
use(_ROTARY, T(2, 4, 5, 6), indexes(2, 5, below=9), *_ANGLES, form="four axes", opset=17, interleaved=1)
use(_ROTARY, T(2, 5, 24), ints(2), *_ANGLES, form="offset", opset=17)
use(_ROTARY, T(2, 5, 32), indexes(2, 5, below=9), *_ANGLES, form="part", opset=17, num_heads=4, rotary_embedding_dim=6)

for _name in ["Gelu", "QuickGelu"]:
    use(f"{DOMAIN}.{_name}", T(3, 4, 5), opset=17)
use(f"{DOMAIN}.FastGelu", T(3, 4, 5), T(5), opset=17)
use(f"{DOMAIN}.FastGelu", T(3, 4, 5), form="no bias", opset=17)
use(f"{DOMAIN}.BiasGelu", T(3, 4, 5), T(5), opset=17)

# batch 2, steps 3, heads 4 (of keys 2), width 6, width of values 5
for _rule in ("linear", "gated", "delta", "gated_delta"):
    _decay = (
        (T(2, 3, 12, through="Tanh") if _rule == "gated" else T(2, 3, 2, through="Tanh")) if "gated" in _rule else None
    )
    _rate = T(2, 3, 2, through="Sigmoid") if "delta" in _rule else None
    _heads = {"q_num_heads": 4, "kv_num_heads": 2, "update_rule": _rule, "opset": 27}
    use("LinearAttention", T(2, 3, 24), T(2, 3, 12), T(2, 3, 10), None, _decay, _rate, form=_rule, results=2, **_heads)
    use("LinearAttention", T(2, 3, 24), T(2, 3, 12), T(2, 3, 10), T(2, 2, 6, 5), _decay, _rate, form=f"{_rule}, past",
        results=2, **_heads)  # fmt: skip
use("LinearAttention", T(2, 3, 12), T(2, 3, 12), T(2, 3, 10), None, None, T(2, 3, 1, through="Sigmoid"),
    form="one rate", results=2, q_num_heads=2, kv_num_heads=2, update_rule="delta", scale=0.3, opset=27)  # fmt: skip

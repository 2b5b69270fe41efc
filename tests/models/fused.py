"""Models around the default domain's Attention and RotaryEmbedding operators."""

from __future__ import annotations

import numpy as np
import onnx

from models.building import Array, Builder, Net, registrar
from models.sequences import B, D, H, K, S, heads, merged

MODELS: dict[str, Builder] = {}
row = registrar(MODELS)


def projections(net: Net, x: str, queries: int, keys: int, values: int) -> tuple[str, str, str]:
    """Queries, keys and values of these widths, three axes each."""
    return (
        net.dense(x, D, queries, name="q_proj"),
        net.dense(x, D, keys, name="k_proj"),
        net.dense(x, D, values, name="v_proj"),
    )


def rotary_tables(rows: int, pairs: int) -> tuple[Array, Array]:
    """Cosines and sines, [rows, pairs]."""
    angle = np.arange(rows)[:, None] / 10.0 ** (np.arange(pairs) / pairs)
    return np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)


@row
def attention_op_widths() -> onnx.ModelProto:
    """Heads of queries and keys 6 wide, of values 3 wide; a boolean mask from outside."""
    net = Net("attention_op_widths", opset=23)
    x, mask = net.input("x", (B, S, D)), net.input("mask", (B, 1, S, S), np.bool_)
    q, k, v = projections(net, x, H * K, H * K, H * 3)
    keep = net.op("Or", mask, net.const(np.eye(S, dtype=np.bool_), "diagonal"))
    y = net.op("Attention", heads(net, q, H, K), heads(net, k, H, K), heads(net, v, H, 3), keep)
    return net.build(net.dense(merged(net, y, H, 3), H * 3, D, name="o_proj"))


@row
def attention_op_grouped_3d() -> onnx.ModelProto:
    """Two kv heads with two query heads each, head counts as attributes, a trained bias for every query head."""
    net = Net("attention_op_grouped_3d", opset=23)
    x = net.input("x", (B, S, D))
    q, k, v = projections(net, x, 4 * K, 2 * K, 2 * 3)
    bias = net.const(net.normal(1, 4, S, S), "bias_table")
    y = net.op("Attention", q, k, v, bias, q_num_heads=4, kv_num_heads=2, softcap=5.0)
    return net.build(net.dense(y, 4 * 3, D, name="o_proj"))


@row
def attention_op_multi_query() -> onnx.ModelProto:
    """One kv head for all query heads; the scale is given."""
    net = Net("attention_op_multi_query", opset=24)
    x = net.input("x", (B, S, D))
    q, k, v = projections(net, x, H * K, K, K)
    y = net.op("Attention", q, k, v, q_num_heads=H, kv_num_heads=1, scale=0.3, is_causal=1)
    return net.build(net.dense(y, H * K, D, name="o_proj"))


@row
def attention_op_cache() -> onnx.ModelProto:
    """Past keys and values come in and go out: what they touch stays."""
    net = Net("attention_op_cache", opset=23)
    x = net.input("x", (B, S, D))
    past = [net.input(f"past_{part}", (B, H, 3, K)) for part in ("key", "value")]
    q, k, v = (heads(net, part, H, K) for part in projections(net, x, H * K, H * K, H * K))
    y, key, value = net.ops("Attention", q, k, v, "", *past, outputs=3, is_causal=1)
    y = net.dense(merged(net, y, H, K), H * K, 24, name="fc1")
    return net.build(net.dense(net.op("Relu", y), 24, D, name="fc2"), key, value)


@row
def attention_op_prefix() -> onnx.ModelProto:
    """Trained past keys and values (prefix tuning): they shrink with the heads and their widths."""
    net = Net("attention_op_prefix", opset=23)
    x = net.input("x", (B, S, D))
    prefix = [net.const(net.normal(B, H, 3, K), f"prefix_{part}") for part in ("key", "value")]
    q, k, v = (heads(net, part, H, K) for part in projections(net, x, H * K, H * K, H * K))
    y, key, value = net.ops("Attention", q, k, v, "", *prefix, outputs=3)
    y = net.dense(merged(net, y, H, K), H * K, D, name="o_proj")
    return net.build(y, net.sum(key, 1, 3), net.sum(value, 1, 3))


@row
def attention_op_scores() -> onnx.ModelProto:
    """The scores come out as well, summed over heads."""
    net = Net("attention_op_scores", opset=23)
    x = net.input("x", (B, S, D))
    q, k, v = (heads(net, part, H, K) for part in projections(net, x, H * K, H * K, H * K))
    y, _, _, scores = net.ops("Attention", q, k, v, outputs=4)
    return net.build(net.dense(merged(net, y, H, K), H * K, D, name="o_proj"), net.sum(scores, 1))


def _rotated(name: str, *, three: bool, positions: bool, dim: int = 0, interleaved: int = 0) -> onnx.ModelProto:
    net = Net(name, opset=23)
    x = net.input("x", (B, S, D))
    cos, sin = rotary_tables(9 if positions else S, (dim or 8) // 2)
    if positions:
        where = net.input("positions", (B, S), np.int64)
    else:
        cos, sin = (np.broadcast_to(table, (B, *table.shape)) for table in (cos, sin))

    def turned(part: str) -> str:
        tables = [net.const(cos, "cos_cache"), net.const(sin, "sin_cache"), *([where] if positions else [])]
        attributes = {"num_heads": H} if three else {}
        if dim:
            attributes["rotary_embedding_dim"] = dim
        return net.op("RotaryEmbedding", part, *tables, interleaved=interleaved, **attributes)

    q, k, v = projections(net, x, H * 8, H * 8, H * 8)
    if three:
        y = net.op("Attention", turned(q), turned(k), v, q_num_heads=H, kv_num_heads=H, is_causal=1)
    else:
        q, k, v = (heads(net, part, H, 8) for part in (q, k, v))
        y = merged(net, net.op("Attention", turned(q), turned(k), v, is_causal=1), H, 8)
    return net.build(net.dense(y, H * 8, D, name="o_proj"))


@row
def rotary_op() -> onnx.ModelProto:
    """Halves rotate together; tables looked up by position."""
    return _rotated("rotary_op", three=False, positions=True)


@row
def rotary_op_3d() -> onnx.ModelProto:
    """Three axes, interleaved pairs, tables given for every position."""
    return _rotated("rotary_op_3d", three=True, positions=False, interleaved=1)


@row
def rotary_op_partial() -> onnx.ModelProto:
    """Four of eight slots of a head rotate."""
    return _rotated("rotary_op_partial", three=False, positions=True, dim=4)


@row
def rotary_op_partial_3d() -> onnx.ModelProto:
    """Four of eight slots of a head rotate, interleaved, on three axes."""
    return _rotated("rotary_op_partial_3d", three=True, positions=True, dim=4, interleaved=1)

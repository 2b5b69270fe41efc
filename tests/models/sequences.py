"""Models over sequences: attention in its forms, rotary embedding, recurrent layers, transformer blocks."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx

from models.building import NEWEST, Builder, Net, registrar

MODELS: dict[str, Builder] = {}
row = registrar(MODELS)

B, S, D, H, K = 2, 5, 16, 4, 6
"""Batch, sequence, model width, heads, width of a head."""


def heads(net: Net, x: str, count: int, width: int, batch: int = B, length: int = S) -> str:
    """[batch, length, count * width] -> [batch, count, length, width]."""
    return net.transpose(net.reshape(x, batch, length, count, width), 0, 2, 1, 3)


def merged(net: Net, x: str, count: int, width: int, batch: int = B, length: int = S) -> str:
    """[batch, count, length, width] -> [batch, length, count * width]."""
    return net.reshape(net.transpose(x, 0, 2, 1, 3), batch, length, count * width)


def attend(net: Net, q: str, k: str, v: str, width: int, mask: str | None = None) -> str:
    """softmax(q k^T / sqrt(width) + mask) v."""
    scores = net.op("MatMul", q, net.transpose(k, 0, 1, 3, 2), hint="scores")
    scores = net.op("Mul", scores, net.number(width**-0.5), hint="scale")
    if mask is not None:
        scores = net.op("Add", scores, mask, hint="masked")
    return net.op("MatMul", net.op("Softmax", scores, axis=-1), v, hint="mixed")


def causal_mask(net: Net, length: int = S) -> str:
    """A constant lower-triangular mask."""
    return net.const(np.triu(np.full((1, 1, length, length), -1e4, net.dtype), 1), "mask")


@row
def attention_separate() -> onnx.ModelProto:
    """Separate projections; the width of q and k (6) is apart from that of v (3)."""
    net = Net("attention_separate")
    x = net.input("x", (B, S, D))
    q = heads(net, net.dense(x, D, H * K, name="q_proj"), H, K)
    k = heads(net, net.dense(x, D, H * K, name="k_proj"), H, K)
    v = heads(net, net.dense(x, D, H * 3, name="v_proj"), H, 3)
    return net.build(net.dense(merged(net, attend(net, q, k, v, K), H, 3), H * 3, D, name="out_proj"))


@row
def attention_cross() -> onnx.ModelProto:
    """Cross attention: keys and values come from another input; an additive mask from outside."""
    net = Net("attention_cross")
    x, memory = net.input("x", (B, S, D)), net.input("memory", (B, 7, 10))
    mask = net.input("mask", (B, 1, S, 7))
    q = heads(net, net.dense(x, D, H * K, name="q_proj"), H, K)
    k = heads(net, net.dense(memory, 10, H * K, name="k_proj"), H, K, length=7)
    v = heads(net, net.dense(memory, 10, H * K, name="v_proj"), H, K, length=7)
    y = merged(net, attend(net, q, k, v, K, mask), H, K)
    return net.build(net.op("Add", x, net.dense(y, H * K, D, name="out_proj")))


@row
def attention_fused_qkv() -> onnx.ModelProto:
    """ViT: rows = Prod(3, H, D), the 3 taken apart by Gather."""
    net = Net("attention_fused_qkv")
    x = net.input("x", (B, S, D))
    qkv = net.reshape(net.dense(x, D, 3 * H * K, name="qkv"), B, S, 3, H, K)
    qkv = net.transpose(qkv, 2, 0, 3, 1, 4)
    q, k, v = (net.op("Gather", qkv, net.integer(index, "index"), axis=0) for index in range(3))
    return net.build(net.dense(merged(net, attend(net, q, k, v, K), H, K), H * K, D, name="proj"))


@row
def attention_split_qkv() -> onnx.ModelProto:
    """GPT-2: one projection, split in three along its rows, causal."""
    net = Net("attention_split_qkv")
    x = net.input("x", (B, S, D))
    parts = net.split(net.dense(x, D, 3 * H * K, name="c_attn"), [H * K] * 3, 2)
    q, k, v = (heads(net, part, H, K) for part in parts)
    return net.build(net.dense(merged(net, attend(net, q, k, v, K, causal_mask(net)), H, K), H * K, D, name="c_proj"))


def _grouped(net: Net, x: str, kv: int, repeats: int, rotary: bool = False) -> str:
    """Grouped-query attention with keys and values repeated by Unsqueeze, Expand, Reshape."""
    q = heads(net, net.dense(x, D, kv * repeats * K, name="q_proj"), kv * repeats, K)
    k = heads(net, net.dense(x, D, kv * K, name="k_proj"), kv, K)
    v = heads(net, net.dense(x, D, kv * K, name="v_proj"), kv, K)
    if rotary:
        q, k = rotate(net, q), rotate(net, k)

    def repeated(part: str) -> str:
        grown = net.op("Expand", net.unsqueeze(part, 2), net.ints(B, kv, repeats, S, K, hint="shape"))
        return net.reshape(grown, B, kv * repeats, S, K)

    y = merged(net, attend(net, q, repeated(k), repeated(v), K, causal_mask(net)), kv * repeats, K)
    return net.dense(y, kv * repeats * K, D, bias=False, name="o_proj")


def rotate(net: Net, x: str, width: int = K, length: int = S) -> str:
    """x cos + rotate_half(x) sin with constant tables: slots i and i + width / 2 are tied."""
    angle = np.arange(length)[:, None] / 10.0 ** (np.arange(width // 2) / width)
    tables = np.concatenate([angle, angle], axis=1).astype(net.dtype)
    half = width // 2
    turned = net.op("Concat", net.op("Neg", net.slice(x, half, width, 3)), net.slice(x, 0, half, 3), axis=3)
    cos, sin = net.const(np.cos(tables), "cos"), net.const(np.sin(tables), "sin")
    return net.op("Add", net.op("Mul", x, cos), net.op("Mul", turned, sin))


@row
def attention_grouped_query() -> onnx.ModelProto:
    """A kv head takes its query heads along."""
    net = Net("attention_grouped_query")
    x = net.input("x", (B, S, D))
    return net.build(net.op("Add", x, _grouped(net, x, 2, 3)))


@row
def attention_multi_query() -> onnx.ModelProto:
    """One kv head for all: size 1 as a broadcast over heads."""
    net = Net("attention_multi_query")
    x = net.input("x", (B, S, D))
    q = heads(net, net.dense(x, D, H * K, name="q_proj"), H, K)
    k = heads(net, net.dense(x, D, K, name="k_proj"), 1, K)
    v = heads(net, net.dense(x, D, K, name="v_proj"), 1, K)
    return net.build(net.dense(merged(net, attend(net, q, k, v, K), H, K), H * K, D, name="o_proj"))


@row
def rotary_embedding() -> onnx.ModelProto:
    """Rotary tables on q and k: the slots of a head's width are tied in pairs."""
    net = Net("rotary_embedding")
    x = net.input("x", (B, S, D))
    return net.build(_grouped(net, x, H, 1, rotary=True))


@row
def rotary_interleaved() -> onnx.ModelProto:
    """Rotary embedding on even and odd slots: [D/2, 2], the pairs indexed."""
    net = Net("rotary_interleaved")
    x = net.input("x", (B, S, D))
    angle = (np.arange(S)[:, None] / 10.0 ** (np.arange(K // 2) / K)).astype(np.float32)

    def turned(part: str) -> str:
        pairs = net.reshape(part, B, H, S, K // 2, 2)
        even, odd = (net.op("Gather", pairs, net.integer(index, "index"), axis=4) for index in range(2))
        cos, sin = net.const(np.cos(angle), "cos"), net.const(np.sin(angle), "sin")
        first = net.op("Sub", net.op("Mul", even, cos), net.op("Mul", odd, sin))
        second = net.op("Add", net.op("Mul", even, sin), net.op("Mul", odd, cos))
        both = net.op("Concat", net.unsqueeze(first, 4), net.unsqueeze(second, 4), axis=4)
        return net.reshape(both, B, H, S, K)

    q = turned(heads(net, net.dense(x, D, H * K, name="q_proj"), H, K))
    k = turned(heads(net, net.dense(x, D, H * K, name="k_proj"), H, K))
    v = heads(net, net.dense(x, D, H * K, name="v_proj"), H, K)
    return net.build(net.dense(merged(net, attend(net, q, k, v, K), H, K), H * K, D, name="o_proj"))


@row
def attention_fused_op() -> onnx.ModelProto:
    """The Attention operator (opset 23) on [batch, heads, length, width], causal, fewer kv heads."""
    net = Net("attention_fused_op", opset=23)
    x = net.input("x", (B, S, D))
    q = heads(net, net.dense(x, D, H * K, name="q_proj"), H, K)
    k = heads(net, net.dense(x, D, 2 * K, name="k_proj"), 2, K)
    v = heads(net, net.dense(x, D, 2 * K, name="v_proj"), 2, K)
    y = net.op("Attention", q, k, v, is_causal=1)
    return net.build(net.dense(merged(net, y, H, K), H * K, D, name="o_proj"))


@row
def attention_fused_op_3d() -> onnx.ModelProto:
    """The Attention operator on [batch, length, heads * width], with head counts as attributes."""
    net = Net("attention_fused_op_3d", opset=23)
    x = net.input("x", (B, S, D))
    q, k, v = (net.dense(x, D, H * K, name=f"{part}_proj") for part in "qkv")
    y = net.op("Attention", q, k, v, q_num_heads=H, kv_num_heads=H)
    return net.build(net.dense(y, H * K, D, name="o_proj"))


def _recurrent(net: Net, type_: str, x: str, n_in: int, hidden: int, name: str, **attributes: Any) -> str:
    """LSTM, GRU or RNN; one direction or two by the attribute; returns Y [seq, dirs, batch, hidden]."""
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[type_]
    dirs = 2 if attributes.get("direction") == "bidirectional" else 1
    w = net.weight(dirs, gates * hidden, n_in, fan=n_in, hint=f"{name}.W")
    r = net.weight(dirs, gates * hidden, hidden, fan=hidden, hint=f"{name}.R")
    b = net.const(net.normal(dirs, 2 * gates * hidden, scale=0.3), f"{name}.B")
    return net.op(type_, x, w, r, b, hint=name, hidden_size=hidden, **attributes)


@row
def lstm() -> onnx.ModelProto:
    """Two LSTM layers and a linear layer: hidden units prune through all four gates."""
    net = Net("lstm")
    x = net.input("x", (S, B, 6))
    y = net.squeeze(_recurrent(net, "LSTM", x, 6, 10, "lstm1"), 1)
    y = net.squeeze(_recurrent(net, "LSTM", y, 10, 8, "lstm2"), 1)
    return net.build(net.dense(y, 8, 5, name="head"))


@row
def lstm_bidirectional() -> onnx.ModelProto:
    """Both directions, joined as [dirs, hidden] -> [dirs * hidden]; peepholes; given initial states; Y_h used too."""
    net = Net("lstm_bidirectional")
    x, hidden = net.input("x", (S, B, 6)), 8
    w = net.weight(2, 4 * hidden, 6, fan=6, hint="lstm.W")
    r = net.weight(2, 4 * hidden, hidden, fan=hidden, hint="lstm.R")
    b = net.const(net.normal(2, 8 * hidden, scale=0.3), "lstm.B")
    h0 = net.const(net.normal(2, B, hidden, scale=0.5), "lstm.h0")
    c0 = net.const(net.normal(2, B, hidden, scale=0.5), "lstm.c0")
    p = net.const(net.normal(2, 3 * hidden, scale=0.3), "lstm.P")
    y, last = net.ops(
        "LSTM", x, w, r, b, "", h0, c0, p, outputs=2, hidden_size=hidden, direction="bidirectional"
    )  # fmt: skip
    joined = net.reshape(net.transpose(y, 0, 2, 1, 3), S, B, 2 * hidden)
    ends = net.reshape(net.transpose(last, 1, 0, 2), B, 2 * hidden)
    return net.build(net.dense(joined, 2 * hidden, 5, name="head"), net.linear(ends, 2 * hidden, 3, name="last"))


@row
def gru() -> onnx.ModelProto:
    """GRU as torch exports it (linear_before_reset), then one that resets before."""
    net = Net("gru")
    x = net.input("x", (S, B, 6))
    y = net.squeeze(_recurrent(net, "GRU", x, 6, 10, "gru1", linear_before_reset=1), 1)
    y = net.squeeze(_recurrent(net, "GRU", y, 10, 8, "gru2"), 1)
    return net.build(net.dense(y, 8, 5, name="head"))


@row
def rnn() -> onnx.ModelProto:
    """A plain recurrent layer."""
    net = Net("rnn")
    y = net.squeeze(_recurrent(net, "RNN", net.input("x", (S, B, 6)), 6, 10, "rnn"), 1)
    return net.build(net.dense(y, 10, 5, name="head"))


def swiglu(net: Net, x: str, hidden: int) -> str:
    """down(silu(gate(x)) * up(x))."""
    gate = net.silu(net.dense(x, D, hidden, bias=False, name="gate_proj"))
    up = net.dense(x, D, hidden, bias=False, name="up_proj")
    return net.dense(net.op("Mul", gate, up), hidden, D, bias=False, name="down_proj")


@row
def rms_swiglu() -> onnx.ModelProto:
    """Llama's MLP: decomposed RMSNorm, SwiGLU, residual; the stream itself is free between embedding and head."""
    net = Net("rms_swiglu")
    x = net.dense(net.input("x", (B, S, 7)), 7, D, bias=False, name="embed")
    x = net.op("Add", x, swiglu(net, net.rms_norm(x, D), 24))
    return net.build(net.dense(net.rms_norm(x, D), D, 5, bias=False, name="head"))


@row
def rms_fused() -> onnx.ModelProto:
    """The same with RMSNormalization (opset 23)."""
    net = Net("rms_fused", opset=23)
    x = net.dense(net.input("x", (B, S, 7)), 7, D, bias=False, name="embed")
    normed = net.op("RMSNormalization", x, net.const(net.positive(D), "norm.weight"), axis=-1, epsilon=1e-6)
    x = net.op("Add", x, swiglu(net, normed, 24))
    last = net.op("RMSNormalization", x, net.const(net.positive(D), "last.weight"), axis=-1, epsilon=1e-6)
    return net.build(net.dense(last, D, 5, bias=False, name="head"))


@row
def layer_norm_mlp() -> onnx.ModelProto:
    """A pre-norm transformer MLP with exact GELU, LayerNormalization and a residual."""
    net = Net("layer_norm_mlp")
    x = net.dense(net.input("x", (B, S, 7)), 7, D, name="embed")
    y = net.op("Gelu", net.dense(net.layer_norm(x, D, name="norm1"), D, 24, name="fc1"))
    x = net.op("Add", x, net.dense(y, 24, D, name="fc2"))
    return net.build(net.dense(net.layer_norm(x, D, name="norm2"), D, 5, name="head"))


@row
def layer_norm_decomposed() -> onnx.ModelProto:
    """LayerNorm as means, a square root and a division; GELU as Erf."""
    net = Net("layer_norm_decomposed", opset=13)
    x = net.dense(net.input("x", (B, S, 7)), 7, D, name="embed")
    centred = net.op("Sub", x, net.mean(x, -1))
    variance = net.mean(net.op("Pow", centred, net.number(2.0)), -1)
    deviation = net.op("Sqrt", net.op("Add", variance, net.number(1e-5)))
    y = net.op("Mul", net.op("Div", centred, deviation), net.const(net.positive(D), "norm.weight"))
    y = net.dense(net.op("Add", y, net.bias(D, "norm.bias")), D, 24, name="fc1")
    erf = net.op("Add", net.op("Erf", net.op("Div", y, net.number(2**0.5))), net.number(1.0))
    y = net.op("Mul", net.op("Mul", y, erf), net.number(0.5))
    return net.build(net.dense(net.op("Add", x, net.dense(y, 24, D, name="fc2")), D, 5, name="head"))


@row
def token_embedding() -> onnx.ModelProto:
    """A table read by token numbers, a position table, a block, and logits by the tied table."""
    net = Net("token_embedding")
    tokens = net.input("tokens", (B, S), np.int64)
    table = net.weight(32, D, fan=D, hint="wte.weight")
    x = net.op("Gather", table, tokens, axis=0)
    x = net.op("Add", x, net.const(net.normal(1, S, D, scale=0.3), "wpe"))
    y = net.op("Gelu", net.dense(net.layer_norm(x, D), D, 24, name="fc1"), approximate="tanh")
    x = net.op("Add", x, net.dense(y, 24, D, name="fc2"))
    return net.build(net.op("MatMul", x, net.op("Transpose", table, perm=[1, 0])))


@row
def class_token() -> onnx.ModelProto:
    """ViT's class token, expanded over the batch and concatenated along the sequence; the head reads position 0."""
    net = Net("class_token")
    patches = net.conv(net.input("x", (B, 3, 8, 8)), 3, D, 4, pad=0, stride=4, name="patch")
    tokens = net.transpose(net.reshape(patches, B, D, 4), 0, 2, 1)
    cls = net.op("Expand", net.const(net.normal(1, 1, D), "cls"), net.ints(B, 1, D, hint="shape"))
    x = net.op("Add", net.op("Concat", cls, tokens, axis=1), net.const(net.normal(1, 5, D), "pos"))
    x = net.op("Add", x, net.dense(net.op("Relu", net.dense(x, D, 20, name="fc1")), 20, D, name="fc2"))
    x = net.op("Add", x, net.mean(net.op("Tanh", x), 1))
    first = net.op("Gather", net.layer_norm(x, D), net.integer(0), axis=1)
    return net.build(net.linear(first, D, 5, name="head"))


@row
def window_attention() -> onnx.ModelProto:
    """Swin: roll, windows by Reshape and Transpose, attention with a bias table, windows back, roll back."""
    net = Net("window_attention")
    side, win = 4, 2
    x = net.dense(net.input("x", (B, side, side, 5)), 5, D, name="embed")

    def rolled(y: str, shift: int) -> str:
        for axis in (1, 2):
            far = net.slice(y, shift % side, side, axis)
            y = net.op("Concat", far, net.slice(y, 0, shift % side, axis), axis=axis)
        return y

    y = net.reshape(rolled(net.layer_norm(x, D), 1), B, 2, win, 2, win, D)
    windows = net.reshape(net.transpose(y, 0, 1, 3, 2, 4, 5), B * 4, win * win, D)
    qkv = net.reshape(net.dense(windows, D, 3 * H * 4, name="qkv"), B * 4, win * win, 3, H, 4)
    qkv = net.transpose(qkv, 2, 0, 3, 1, 4)
    q, k, v = (net.op("Gather", qkv, net.integer(index, "index"), axis=0) for index in range(3))
    table = net.const(net.normal(9, H, scale=0.5), "bias_table")
    places = np.array([[(a // 2 - b // 2 + 1) * 3 + a % 2 - b % 2 + 1 for b in range(4)] for a in range(4)])
    bias = net.reshape(net.op("Gather", table, net.const(places.reshape(-1), "places"), axis=0), 4, 4, H)
    bias = net.unsqueeze(net.transpose(bias, 2, 0, 1), 0)
    y = merged(net, attend(net, q, k, v, 4, bias), H, 4, batch=B * 4, length=win * win)
    y = net.reshape(net.dense(y, H * 4, D, name="proj"), B, 2, 2, win, win, D)
    y = net.reshape(net.transpose(y, 0, 1, 3, 2, 4, 5), B, side, side, D)
    x = net.op("Add", x, rolled(y, -1))
    return net.build(net.dense(net.mean(x, 1, 2, keepdims=0), D, 5, name="head"))


@row
def dynamic_batch() -> onnx.ModelProto:
    """A named batch axis: flatten and windows by computed shapes, as torch exports them."""
    net = Net("dynamic_batch")
    x = net.op("Relu", net.conv(net.input("x", ("batch", 3, 4, 4)), 3, 8, name="conv1"))
    batch = net.size(x, 0)
    y = net.transpose(net.reshape_to(x, batch, 2, 4, 4, 4), 0, 2, 1, 3, 4)
    y = net.op("Relu", net.conv(net.reshape_to(y, batch, 8, 4, 4), 8, 6, name="conv2"))
    return net.build(net.linear(net.reshape_to(y, batch, -1), 96, 5, name="head"))


@row
def dynamic_sequence() -> onnx.ModelProto:
    """Batch and sequence vary: attention with Shape, Gather, Concat, Reshape and a mask cut to size."""
    net = Net("dynamic_sequence")
    tokens = net.input("tokens", ("batch", "sequence"), np.int64)
    x = net.op("Gather", net.weight(32, D, fan=D, hint="embed.weight"), tokens, axis=0)
    batch, length = net.size(tokens, 0), net.size(tokens, 1)
    zero, step, axes = net.ints(0, hint="starts"), net.ints(1, hint="steps"), net.ints(2, 3, hint="axes")
    ends = net.op("Concat", length, length, axis=0)
    starts = net.op("Concat", zero, zero, axis=0)
    mask = net.op("Slice", causal_mask(net, 32), starts, ends, axes, net.op("Concat", step, step, axis=0))

    def split_heads(part: str) -> str:
        return net.transpose(net.reshape_to(part, batch, length, H, K), 0, 2, 1, 3)

    q, k, v = (split_heads(net.dense(x, D, H * K, name=f"{part}_proj")) for part in "qkv")
    y = net.transpose(attend(net, q, k, v, K, mask), 0, 2, 1, 3)
    y = net.dense(net.reshape_to(y, batch, length, H * K), H * K, D, name="o_proj")
    x = net.op("Add", x, y)
    return net.build(net.dense(net.op("Relu", net.dense(x, D, 24, name="fc1")), 24, 5, name="fc2"))


@row
def size_read_as_number() -> onnx.ModelProto:
    """The scale of attention is computed from the head width's size: it must stay what it was."""
    net = Net("size_read_as_number")
    x = net.input("x", (B, S, D))
    q, k, v = (heads(net, net.dense(x, D, H * K, name=f"{part}_proj"), H, K) for part in "qkv")
    width = net.op("Cast", net.op("Gather", net.op("Shape", q), net.integer(3), axis=0), to=onnx.TensorProto.FLOAT)
    scale = net.op("Div", net.number(1.0), net.op("Sqrt", width))
    scores = net.op("Mul", net.op("MatMul", q, net.transpose(k, 0, 1, 3, 2)), scale)
    y = merged(net, net.op("MatMul", net.op("Softmax", scores, axis=-1), v), H, K)
    return net.build(net.dense(y, H * K, D, name="o_proj"))


@row
def newest_block() -> onnx.ModelProto:
    """A pre-norm block at the newest opset that onnxruntime runs."""
    net = Net("newest_block", opset=NEWEST)
    x = net.input("x", (B, S, D))
    y = net.layer_norm(x, D)
    q, k, v = (heads(net, net.dense(y, D, H * K, name=f"{part}_proj"), H, K) for part in "qkv")
    x = net.op("Add", x, net.dense(merged(net, attend(net, q, k, v, K), H, K), H * K, D, name="o_proj"))
    hidden = net.op("Relu", net.dense(net.layer_norm(x, D), D, 24, name="fc1"))
    return net.build(net.op("Add", x, net.dense(hidden, 24, D, name="fc2")))

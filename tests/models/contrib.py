"""Models in the com.microsoft operators that onnxruntime's transformer optimizer writes, without declared shapes."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx

from models.building import Builder, Net, registrar
from models.fused import projections, rotary_tables
from models.sequences import B, D, H, K, S

MODELS: dict[str, Builder] = {}
row = registrar(MODELS)


def ms(net: Net, type_: str, *inputs: str, **attributes: Any) -> str:
    """A com.microsoft node with one output."""
    return net.op(type_, *inputs, domain="com.microsoft", **attributes)


def built(net: Net, y: str, *shape: int) -> onnx.ModelProto:
    """The model with one output of this shape."""
    return net.build(y, shapes=[shape])


@row
def contrib_gelus() -> onnx.ModelProto:
    """Gelu in four spellings, with biases inside."""
    net = Net("contrib_gelus")
    x = net.input("x", (B, S, D))
    x = ms(net, "BiasGelu", net.dense(x, D, 10, bias=False, name="fc1"), net.bias(10, "fc1.bias"))
    x = ms(net, "FastGelu", net.dense(x, 10, 9, bias=False, name="fc2"), net.bias(9, "fc2.bias"))
    x = ms(net, "QuickGelu", net.dense(x, 9, 8, name="fc3"))
    x = ms(net, "Gelu", net.dense(x, 8, 7, name="fc4"))
    return built(net, net.dense(x, 7, 5, name="head"), B, S, 5)


@row
def contrib_products() -> onnx.ModelProto:
    """FusedMatMul with transposes and a scale, FusedConv with a residual and an activation."""
    net = Net("contrib_products")
    x = net.input("x", (2, 3, 6, 6))
    stem = net.op("Relu", net.conv(x, 3, 8, name="stem"))

    def conv(x: str, *more: str, name: str, group: int = 1, **activation: Any) -> str:
        weight = net.weight(8, 8 // group, 3, 3, fan=72 // group, hint=f"{name}.weight")
        return ms(
            net, "FusedConv", x, weight, net.bias(8, f"{name}.bias"), *more,
            kernel_shape=[3, 3], pads=[1] * 4, group=group, **({"activation": "Relu"} | activation),
        )  # fmt: skip

    y = conv(conv(stem, name="conv1"), stem, name="conv2")
    y = conv(y, name="conv3", group=2, activation="LeakyRelu", activation_params=[0.1])
    y = net.op("Flatten", net.op("GlobalAveragePool", y))
    y = ms(net, "FusedMatMul", y, net.weight(10, 8, fan=8, hint="fc1.weight"), transB=1, alpha=0.5)
    y = net.op("Relu", net.op("Add", y, net.bias(10, "fc1.bias")))
    y = ms(net, "FusedMatMul", net.weight(10, 5, fan=10, hint="fc2.weight"), y, transA=1, transB=1)
    return built(net, y, 5, 2)


def _attended(net: Net, x: str) -> str:
    qkv = net.weight(D, 3 * H * K, fan=D, hint="qkv.weight")
    y = ms(net, "Attention", x, qkv, net.bias(3 * H * K, "qkv.bias"), num_heads=H)
    return net.dense(y, H * K, D, bias=False, name="proj")


@row
def contrib_bert() -> onnx.ModelProto:
    """BERT as the optimizer writes it: EmbedLayerNormalization, Attention, SkipLayerNormalization, BiasGelu."""
    net = Net("contrib_bert")
    tokens, segments = (net.input(name, (B, S), np.int32) for name in ("tokens", "token_type_ids"))
    x, _ = net.ops(
        "EmbedLayerNormalization", tokens, segments, net.weight(8, D, fan=1, hint="words"),
        net.weight(S, D, fan=1, hint="positions"), net.weight(8, D, fan=1, hint="segments"),
        net.const(net.positive(D), "embed_norm.weight"), net.bias(D, "embed_norm.bias"),
        outputs=2, domain="com.microsoft", epsilon=1e-5,
    )  # fmt: skip
    for number, y in ((1, lambda x: _attended(net, x)), (2, lambda x: _mlp(net, x))):
        x = ms(
            net, "SkipLayerNormalization", y(x), x, net.const(net.positive(D), f"norm{number}.weight"),
            net.bias(D, f"norm{number}.bias"), net.bias(D, f"skip{number}.bias"), epsilon=1e-5,
        )  # fmt: skip
    return built(net, net.dense(x, D, 5, name="head"), B, S, 5)


def _mlp(net: Net, x: str) -> str:
    y = ms(net, "BiasGelu", net.dense(x, D, 24, bias=False, name="fc1"), net.bias(24, "fc1.bias"))
    return net.dense(y, 24, D, bias=False, name="fc2")


@row
def contrib_llama() -> onnx.ModelProto:
    """RotaryEmbedding, MultiHeadAttention with a bias, SkipSimplifiedLayerNormalization with the sum taken along."""
    net = Net("contrib_llama")
    tokens = net.input("tokens", (B, S), np.int64)
    x = net.op("Gather", net.weight(8, D, fan=1, hint="words"), tokens, axis=0)
    width = 8
    cos, sin = rotary_tables(12, width // 2)
    positions = net.const(np.tile(np.arange(S), (B, 1)), "places")
    q, k, v = projections(net, x, H * width, H * width, H * width)
    tables = [net.const(cos, "cos_cache"), net.const(sin, "sin_cache")]
    q, k = (ms(net, "RotaryEmbedding", part, positions, *tables, num_heads=H) for part in (q, k))
    y = ms(net, "MultiHeadAttention", q, k, v, num_heads=H, unidirectional=1)
    y = net.dense(y, H * width, D, bias=False, name="o_proj")
    y, _, _, x = net.ops(
        "SkipSimplifiedLayerNormalization", x, y, net.const(net.positive(D), "norm.weight"),
        outputs=4, domain="com.microsoft", epsilon=1e-6,
    )  # fmt: skip
    y = net.dense(ms(net, "QuickGelu", net.dense(y, D, 24, name="fc1"), alpha=1.0), 24, D, name="fc2")
    return built(net, net.dense(net.op("Add", x, y), D, 5, name="head"), B, S, 5)


def packed(net: Net, x: str, n_in: int, n_out: int, *, block: int, bits: int, name: str, points: bool = True) -> str:
    """MatMulNBits on random codes, with zero points where asked."""
    blocks, bytes_ = -(-n_in // block), block * bits // 8
    operands = [
        net.const(net.rng.integers(0, 256, (n_out, blocks, bytes_)).astype(np.uint8), f"{name}.codes"),
        net.const((net.positive(n_out, blocks) * 2.0**-bits / np.sqrt(n_in)).astype(np.float32), f"{name}.scales"),
    ]
    if points:
        stored = net.rng.integers(0, 256, (n_out, -(-blocks * bits // 8))).astype(np.uint8)
        operands.append(net.const(stored, f"{name}.points"))
    return ms(net, "MatMulNBits", x, *operands, K=n_in, N=n_out, bits=bits, block_size=block)


@row
def contrib_packed() -> onnx.ModelProto:
    """A gated layer in weights of a few bits, behind a table of them; blocks of 16 numbers share a scale."""
    net = Net("contrib_packed", opset=21)
    tokens = net.input("tokens", (B, S), np.int64)
    table = net.const(net.rng.integers(0, 256, (8, 32)).astype(np.uint8), "words.codes")
    scales = net.const((net.positive(8, 4) * 0.1).astype(np.float32), "words.scales")
    x = ms(net, "GatherBlockQuantized", table, tokens, scales, quantize_axis=1, block_size=16, bits=4)
    gate = packed(net, x, 64, 96, block=16, bits=4, name="gate", points=False)
    up = packed(net, x, 64, 96, block=16, bits=8, name="up")
    y = packed(net, net.op("Mul", net.silu(gate), up), 96, 64, block=16, bits=4, name="down")
    y = net.op("Add", net.op("Mul", x, net.number(0.5)), y)
    return built(net, packed(net, y, 64, 5, block=16, bits=8, name="head"), B, S, 5)


@row
def contrib_cross_attention() -> onnx.ModelProto:
    """MultiHeadAttention over another sequence, values narrower than keys, biases inside."""
    net = Net("contrib_cross_attention")
    x, memory = net.input("x", (B, S, D)), net.input("memory", (B, 7, D))
    q = net.dense(x, D, H * K, bias=False, name="q_proj")
    k = net.dense(memory, D, H * K, bias=False, name="k_proj")
    v = net.dense(memory, D, H * 4, bias=False, name="v_proj")
    y = ms(net, "MultiHeadAttention", q, k, v, net.bias(2 * H * K + H * 4, "qkv.bias"), num_heads=H)
    return built(net, net.dense(y, H * 4, D, name="o_proj"), B, S, D)


@row
def contrib_grouped_query() -> onnx.ModelProto:
    """GroupQueryAttention without a past: two kv heads for four query heads."""
    net = Net("contrib_grouped_query")
    x = net.input("x", (B, S, D))
    q, k, v = projections(net, x, 4 * 8, 2 * 8, 2 * 8)
    ends, total = net.const(np.full(B, S - 1, np.int32), "ends"), net.const(np.array(S, np.int32), "total")
    y, _, _ = net.ops(
        "GroupQueryAttention", q, k, v, "", "", ends, total,
        outputs=3, domain="com.microsoft", num_heads=4, kv_num_heads=2,
    )  # fmt: skip
    return built(net, net.dense(y, 32, D, name="o_proj"), B, S, D)

"""Two layers of attention that share tables, in the ways that files spell them; and what only looks like that."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx

from models.building import Array, Builder, Net, registrar
from models.sequences import attend, heads, merged

MODELS: dict[str, Builder] = {}
row = registrar(MODELS)

B, S, D, H, K, ROWS = 2, 5, 12, 3, 8, 9
"""Batch, sequence, model width, heads, width of a head, rows of a table that is looked up."""

LAYERS = ("first", "second")

Turned = Callable[[str], str]
"""[B, H, S, K] -> the same, rotated."""


def layers(net: Net, x: str, turned: Turned, bias: str | None = None, *, masks: bool = False) -> str:
    """Two residual layers of attention; queries and keys are rotated, scores get a bias."""
    for layer in LAYERS:
        q, k, v = (heads(net, net.dense(x, D, H * K, name=f"{layer}.{part}"), H, K) for part in "qkv")
        q, k = turned(q), turned(k)
        y = net.op("Attention", q, k, v, bias or "") if masks else attend(net, q, k, v, K, bias)
        x = net.op("Add", x, net.dense(merged(net, y, H, K), H * K, D, name=f"{layer}.o"))
    return x


def angles(rows: int, pairs: int = K // 2) -> Array:
    """[rows, pairs]."""
    return (np.arange(rows)[:, None] / 10.0 ** (np.arange(pairs) / pairs)).astype(np.float32)


def both_halves(rows: int) -> Array:
    """[rows, K]: the angles of a pair stand half the width apart."""
    return np.concatenate([angles(rows)] * 2, axis=1)


def rotation(net: Net, cos: str, sin: str, *, every_use: bool = False) -> Turned:
    """x cos + rotate_half(x) sin; with ``every_use`` tables of three axes that each use unsqueezes for itself."""

    def turned(x: str) -> str:
        tables = [net.unsqueeze(table, 1) for table in (cos, sin)] if every_use else [cos, sin]
        half = net.op("Concat", net.op("Neg", net.slice(x, K // 2, K, 3)), net.slice(x, 0, K // 2, 3), axis=3)
        return net.op("Add", net.op("Mul", x, tables[0]), net.op("Mul", half, tables[1]))

    return turned


def stored(net: Net, *, rows: int = S) -> tuple[str, str]:
    """Cosines and sines as constants, [1, 1, rows, K]."""
    table = both_halves(rows)[None, None]
    return net.const(np.cos(table), "cos"), net.const(np.sin(table), "sin")


@row
def tables_stored() -> onnx.ModelProto:
    """Folded into constants that all layers multiply by."""
    net = Net("tables_stored", opset=23)
    return net.build(layers(net, net.input("x", (B, S, D)), rotation(net, *stored(net))))


@row
def tables_looked_up() -> onnx.ModelProto:
    """A cache of cosines and sines, gathered by position as an embedding is."""
    net = Net("tables_looked_up", opset=23)
    x, places = net.input("x", (B, S, D)), net.input("places", (B, S), np.int64)
    table = both_halves(ROWS)
    cos, sin = (
        net.op("Gather", net.const(function(table), f"{function.__name__}_cached"), places, axis=0)
        for function in (np.cos, np.sin)
    )
    return net.build(layers(net, x, rotation(net, cos, sin, every_use=True)))


@row
def tables_sliced() -> onnx.ModelProto:
    """A cache of which every use slices the rows that there are."""
    net = Net("tables_sliced", opset=23)
    x = net.input("x", (B, S, D))
    cos, sin = stored(net, rows=ROWS)

    def turned(part: str) -> str:
        return rotation(net, net.slice(cos, 0, S, 2), net.slice(sin, 0, S, 2))(part)

    return net.build(layers(net, x, turned))


def computed_tables(net: Net, places: str) -> tuple[str, str]:
    """Positions [B, S] times frequencies, doubled, through Cos and Sin and a factor: [B, S, K]."""
    frequencies = net.const(angles(2)[1][None, :, None], "frequencies")
    moved = net.op("Cast", net.unsqueeze(places, 1), to=onnx.TensorProto.FLOAT)
    angle = net.transpose(net.op("MatMul", frequencies, moved), 0, 2, 1)
    angle = net.op("Concat", angle, angle, axis=-1)
    cos, sin = (net.op("Mul", net.op(name, angle), net.number(0.9)) for name in ("Cos", "Sin"))
    return cos, sin


@row
def tables_computed() -> onnx.ModelProto:
    """Computed from positions at run time, as decoders are exported."""
    net = Net("tables_computed", opset=23)
    x, places = net.input("x", (B, S, D)), net.input("places", (B, S), np.int64)
    return net.build(layers(net, x, rotation(net, *computed_tables(net, places), every_use=True)))


@row
def tables_given() -> onnx.ModelProto:
    """Tables that the caller hands in."""
    net = Net("tables_given", opset=23)
    x, cos, sin = net.input("x", (B, S, D)), net.input("cos", (S, K)), net.input("sin", (S, K))
    return net.build(layers(net, x, rotation(net, cos, sin)))


@row
def tables_of_pairs() -> onnx.ModelProto:
    """Even and odd slots as pairs: [K / 2, 2], tables half as wide."""
    net = Net("tables_of_pairs", opset=23)
    x = net.input("x", (B, S, D))
    cos, sin = net.const(np.cos(angles(S)), "cos"), net.const(np.sin(angles(S)), "sin")

    def turned(part: str) -> str:
        pairs = net.reshape(part, B, H, S, K // 2, 2)
        even, odd = (net.op("Gather", pairs, net.integer(index, "index"), axis=4) for index in range(2))
        first = net.op("Sub", net.op("Mul", even, cos), net.op("Mul", odd, sin))
        second = net.op("Add", net.op("Mul", even, sin), net.op("Mul", odd, cos))
        return net.reshape(net.op("Concat", net.unsqueeze(first, 4), net.unsqueeze(second, 4), axis=4), B, H, S, K)

    return net.build(layers(net, x, turned))


@row
def tables_of_operator() -> onnx.ModelProto:
    """RotaryEmbedding of the default domain; one cache for both layers."""
    net = Net("tables_of_operator", opset=23)
    x, places = net.input("x", (B, S, D)), net.input("places", (B, S), np.int64)
    cos, sin = net.const(np.cos(angles(ROWS)), "cos_cache"), net.const(np.sin(angles(ROWS)), "sin_cache")
    return net.build(layers(net, x, lambda part: net.op("RotaryEmbedding", part, cos, sin, places)))


@row
def tables_of_contrib_operator() -> onnx.ModelProto:
    """RotaryEmbedding of onnxruntime; one cache for both layers."""
    net = Net("tables_of_contrib_operator")
    x, places = net.input("x", (B, S, D)), net.input("places", (B, S), np.int64)
    cos, sin = net.const(np.cos(angles(ROWS)), "cos_cache"), net.const(np.sin(angles(ROWS)), "sin_cache")

    def turned(part: str) -> str:
        made = net.op("RotaryEmbedding", part, places, cos, sin, domain="com.microsoft")
        return net.stated(made, B, H, S, K)

    y = layers(net, x, turned)
    return net.build(y, shapes=[(B, S, D)])


@row
def tables_of_varying_length() -> onnx.ModelProto:
    """Batch and length vary at run time; values are the rotated queries, summed over heads."""
    net = Net("tables_of_varying_length")
    x, places = net.input("x", ("batch", "sequence", D)), net.input("places", ("batch", "sequence"), np.int64)
    cos, sin = (net.unsqueeze(table, 1) for table in computed_tables(net, places))
    turned = rotation(net, cos, sin)
    for layer in LAYERS:
        rows = (net.dense(x, D, H * K, name=f"{layer}.{part}") for part in "qk")
        q, k = (turned(net.transpose(net.reshape(part, 0, 0, H, K), 0, 2, 1, 3)) for part in rows)
        weights = net.op("Softmax", net.op("MatMul", q, net.transpose(k, 0, 1, 3, 2)), axis=-1)
        y = net.sum(net.op("MatMul", weights, q), 1, keepdims=0)
        x = net.op("Add", x, net.dense(y, K, D, name=f"{layer}.o"))
    return net.build(x)


@row
def tables_of_mixed_positions() -> onnx.ModelProto:
    """Positions are mixed before and after, the same for both layers: they shrink in the table, its slots are taken."""
    net = Net("tables_of_mixed_positions")
    x = net.input("x", (B, D, S))
    mixed = net.transpose(net.dense(x, S, ROWS, bias=False, name="mix"), 0, 2, 1)
    places = net.const(np.arange(ROWS, dtype=np.float32)[:, None] + 0.3, "places")
    table = net.op("Cos", net.op("Mul", places, net.const(angles(2, K)[1], "frequencies")))
    parts = []
    for layer in LAYERS:
        y = net.op("Mul", net.dense(mixed, D, K, bias=False, name=f"{layer}.up"), table)
        parts.append(net.dense(y, K, D, bias=False, name=f"{layer}.down"))
    y = net.transpose(net.op("Add", *parts), 0, 2, 1)
    return net.build(net.dense(y, ROWS, 3, name="head"))


@row
def tables_of_one_layer() -> onnx.ModelProto:
    """Cosines for one layer only, sines for another: nothing to share, so the tables shrink."""
    net = Net("tables_of_one_layer", opset=23)
    cos, sin = stored(net)
    tables = iter([cos, cos, sin, sin])
    return net.build(layers(net, net.input("x", (B, S, D)), lambda part: net.op("Mul", part, next(tables))))


# -- biases of scores ------------------------------------------------------------------------------------------------


def unturned(part: str) -> str:
    """No rotation."""
    return part


@row
def score_bias_looked_up() -> onnx.ModelProto:
    """T5: one table of biases for the heads of all layers, gathered by distance."""
    net = Net("score_bias_looked_up", opset=23)
    x = net.input("x", (B, S, D))
    distance = net.const(np.abs(np.arange(S)[:, None] - np.arange(S)), "distance")
    bias = net.op("Gather", net.const(net.normal(S, H), "relative.weight"), distance, axis=0)
    return net.build(layers(net, x, unturned, net.unsqueeze(net.transpose(bias, 2, 0, 1), 0)))


@row
def score_bias_from_slopes() -> onnx.ModelProto:
    """ALiBi: slopes of heads times positions, computed from a mask at run time."""
    net = Net("score_bias_from_slopes", opset=23)
    x, mask = net.input("x", (B, S, D)), net.input("mask", (B, S), np.int64)
    slopes = net.const(0.5 ** np.arange(1, H + 1, dtype=np.float32)[:, None, None], "slopes")
    moved = net.op("Cast", net.op("CumSum", mask, net.integer(1)), to=onnx.TensorProto.FLOAT)
    return net.build(layers(net, x, unturned, net.op("Mul", slopes, net.unsqueeze(moved, 1, 2))))


@row
def score_bias_that_lends_its_type() -> onnx.ModelProto:
    """A scale of the data takes the type of the bias, as exporters write a fused multiply and add."""
    net = Net("score_bias_that_lends_its_type", opset=23)
    x, bias = net.input("x", (B, S, D)), net.const(net.normal(H, S, S), "bias")
    scale = net.op("CastLike", net.const(np.array(0.5, np.float64), "scale"), bias)
    return net.build(layers(net, net.op("Mul", x, scale), unturned, bias))


@row
def score_bias_of_operator() -> onnx.ModelProto:
    """A mask for every head that the caller hands in, to Attention as one operator."""
    net = Net("score_bias_of_operator", opset=23)
    x, mask = net.input("x", (B, S, D)), net.input("mask", (B, H, S, S))
    return net.build(layers(net, x, unturned, mask, masks=True))


@row
def score_mask_of_heads() -> onnx.ModelProto:
    """A constant mask that lets every head look another distance back, through Where."""
    net = Net("score_mask_of_heads")
    x = net.input("x", (B, S, D))
    back = np.arange(S)[:, None] - np.arange(S)
    near = net.const(back[None, None] <= np.arange(H)[None, :, None, None], "near")
    for layer in LAYERS:
        q, k, v = (heads(net, net.dense(x, D, H * K, name=f"{layer}.{part}"), H, K) for part in "qkv")
        scores = net.op("MatMul", q, net.transpose(k, 0, 1, 3, 2))
        weights = net.op("Softmax", net.op("Where", near, scores, net.number(-1e4)), axis=-1)
        y = net.op("MatMul", weights, v)
        x = net.op("Add", x, net.dense(merged(net, y, H, K), H * K, D, name=f"{layer}.o"))
    return net.build(x)


@row
def score_sinks() -> onnx.ModelProto:
    """One more score for every head and query, in front of those of all layers, that takes weight and has no value."""
    net = Net("score_sinks")
    x = net.input("x", (B, S, D))
    sinks = net.const(net.normal(B, H, S, 1), "sinks")
    for layer in LAYERS:
        q, k, v = (heads(net, net.dense(x, D, H * K, name=f"{layer}.{part}"), H, K) for part in "qkv")
        scores = net.op("Concat", sinks, net.op("MatMul", q, net.transpose(k, 0, 1, 3, 2)), axis=3)
        weights = net.slice(net.op("Softmax", scores, axis=-1), 1, S + 1, 3)
        y = net.op("MatMul", weights, v)
        x = net.op("Add", x, net.dense(merged(net, y, H, K), H * K, D, name=f"{layer}.o"))
    return net.build(x)


@row
def tables_that_come_out() -> onnx.ModelProto:
    """The tables are outputs of the model as well, whole."""
    net = Net("tables_that_come_out", opset=23)
    x, places = net.input("x", (B, S, D)), net.input("places", (B, S), np.int64)
    cos, sin = (net.unsqueeze(table, 1) for table in computed_tables(net, places))
    return net.build(layers(net, x, rotation(net, cos, sin)), cos, sin)


# -- shared, but not tables ------------------------------------------------------------------------------------------


def two_layers(net: Net, x: str, between: Callable[[str], str]) -> str:
    """Two layers that share nothing but what ``between`` reads; the width between is 8."""
    for layer in LAYERS:
        x = net.dense(between(net.dense(x, D, K, name=f"{layer}.up")), K, D, name=f"{layer}.down")
    return x


@row
def shared_scale() -> onnx.ModelProto:
    """One number a slot, for both layers: a parameter that was trained."""
    net = Net("shared_scale")
    scale = net.const(net.positive(K), "scale")
    return net.build(two_layers(net, net.input("x", (B, S, D)), lambda y: net.op("Mul", y, scale)))


@row
def shared_positions() -> onnx.ModelProto:
    """A position embedding that is added in both layers: its zeros are needed."""
    net = Net("shared_positions")
    x, places = net.input("x", (B, S, D)), net.input("places", (B, S), np.int64)
    added = net.op("Gather", net.const(net.normal(ROWS, K), "positions.weight"), places, axis=0)
    return net.build(two_layers(net, x, lambda y: net.op("Relu", net.op("Add", y, added))))


@row
def shared_scale_and_shift() -> onnx.ModelProto:
    """A table that scales in one layer and is added in the other: it is needed at zero there."""
    net = Net("shared_scale_and_shift")
    table = net.const(net.normal(S, K), "table")
    kinds = iter(["Mul", "Add"])
    return net.build(two_layers(net, net.input("x", (B, S, D)), lambda y: net.op(next(kinds), y, table)))

"""Attention in the forms in which exporters write it."""

from __future__ import annotations

import numpy as np

from fuzz.recipes import Draws
from fuzz.workshop import Tensor, Workshop, channels, layer, projected, table


def _heads(w: Workshop, x: str, length: int, count: int, width: int) -> str:
    return w.net.transpose(w.net.reshape(x, 0, length, count, width), 0, 2, 1, 3)


def _attend(w: Workshop, q: str, k: str, v: str, x: Tensor, heads: int, width: int, draws: Draws) -> None:
    net, length = w.net, x.shape[1]
    scores = net.op("Mul", net.op("MatMul", q, net.transpose(k, 0, 1, 3, 2)), net.number(width**-0.5))
    if draws.chance(3):
        scores = net.op("Add", scores, net.const(np.triu(np.full((length, length), -1e4, net.dtype), 1), "mask"))
    elif draws.chance(4):
        scores = net.op("Add", scores, table(w, heads, length, length))
    y = net.transpose(net.op("MatMul", net.op("Softmax", scores, axis=-1), v), 0, 2, 1, 3)
    y = net.dense(net.reshape(y, 0, length, heads * width), heads * width, x.shape[2], bias=draws.chance(2))
    w.like(net.op("Add", x.name, y) if draws.chance(2) else y, x)


@layer(3, weight=10)
def attention_separate(w: Workshop, x: Tensor, draws: Draws) -> None:
    _, length, d = x.shape
    heads, width = draws.pick((2, 3, 4, 1)), draws.pick((3, 4, 2))
    q, k, v = (
        _heads(w, w.net.dense(x.name, d, heads * width, bias=draws.chance(2), name=name), length, heads, width)
        for name in "qkv"
    )
    _attend(w, q, k, v, x, heads, width, draws)


@layer(3, weight=8)
def attention_fused(w: Workshop, x: Tensor, draws: Draws) -> None:
    net, (_, length, d) = w.net, x.shape
    heads, width = draws.pick((2, 3, 4, 1)), draws.pick((3, 4, 2))
    rows = net.dense(x.name, d, 3 * heads * width, bias=draws.chance(2), name="qkv")
    if draws.chance(2):
        q, k, v = (_heads(w, y, length, heads, width) for y in net.split(rows, [heads * width] * 3, 2))
    else:
        grid = net.transpose(net.reshape(rows, 0, length, 3, heads, width), 2, 0, 3, 1, 4)
        q, k, v = (net.op("Gather", grid, net.integer(index, "index"), axis=0) for index in range(3))
    _attend(w, q, k, v, x, heads, width, draws)


@layer(3, weight=8)
def attention_grouped_query(w: Workshop, x: Tensor, draws: Draws) -> None:
    net, (_, length, d) = w.net, x.shape
    kv, repeats, width = draws.pick((2, 3, 1)), draws.pick((2, 3)), draws.pick((4, 2))
    heads = kv * repeats
    q = _heads(w, net.dense(x.name, d, heads * width, name="q"), length, heads, width)

    def repeated(name: str) -> str:
        part = _heads(w, net.dense(x.name, d, kv * width, name=name), length, kv, width)
        grown = net.op("Expand", net.unsqueeze(part, 2), net.ints(1, 1, repeats, 1, 1, hint="shape"))
        return net.reshape(grown, 0, heads, length, width)

    _attend(w, q, repeated("k"), repeated("v"), x, heads, width, draws)


@layer(3, 4, weight=8)
def with_table(w: Workshop, x: Tensor, draws: Draws) -> None:
    """Two projections that a shared table scales, shifts or, as in a rotary embedding, mixes."""
    width = draws.pick((6, 4))
    for _ in range(2):
        y = projected(w, x, width)
        shared = table(w, *y.shape[1:])
        if draws.chance(3):
            shared = w.net.op("Cos", shared)
        kind = draws.pick(("Mul", "Rotate", "Mul", "Div", "Add"))
        w.like(_rotated(w, y, shared) if kind == "Rotate" else w.net.op(kind, y.name, shared), y)


def _rotated(w: Workshop, y: Tensor, shared: str) -> str:
    net, axis, width = w.net, channels(y), y.shape[channels(y)]
    low, high = net.slice(y.name, 0, width // 2, axis), net.slice(y.name, width // 2, width, axis)
    turned = net.op("Concat", net.op("Neg", high), low, axis=axis)
    return net.op("Add", net.op("Mul", y.name, shared), net.op("Mul", turned, shared))

"""Layers of random models with bodies, and with sequences."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper

from fuzz.recipes import Draws
from fuzz.workshop import Tensor, Workshop, channels, layer, projected, require, resized, some_axis
from models.control import Body, cell, loop_body, positive, zeros

_POINTWISE = ("Relu", "Tanh", "Sigmoid", "Neg", "Identity", "Softplus")


def _sizes(w: Workshop, shape: Sequence[int]) -> list[int | str]:
    return [*(shape[:1] if w.fixed_batch else ("batch",)), *shape[1:]]


def _closed(w: Workshop, body: Body, *made: Tensor, first: str | None = None) -> onnx.GraphProto:
    """The body; ``first`` is the condition that it returns ahead of the rest."""
    kind = helper.np_dtype_to_tensor_dtype(w.net.dtype)
    heads = [(first, (), TensorProto.BOOL)] if first is not None else []
    return body.graph(*heads, *((tensor.name, _sizes(w, tensor.shape), kind) for tensor in made))


@layer(2, 3, 4, weight=5)
def branches(w: Workshop, x: Tensor, draws: Draws) -> None:
    """Two branches, each a layer of its own or something pointwise, around a residual or not."""
    width = draws.pick((x.shape[channels(x)], 6, 8))
    graphs = []
    for name in ("then", "else"):
        body = Body(w.net, name)
        inner = Workshop(body, [], set(), w.fixed_batch)
        made = x
        if width != x.shape[channels(x)] or draws.chance(2):
            made = projected(inner, x, width)
        made = Tensor(body.op(draws.pick(_POINTWISE), made.name), made.shape)
        graphs.append(_closed(w, body, made))
    y = w.net.op("If", positive(w.net, x.name), then_branch=graphs[0], else_branch=graphs[1])
    made = w.add(y, *resized(x, channels(x), width))
    if made.shape == x.shape and draws.chance(2):
        w.like(w.net.op("Add", x.name, y), x)


@layer(2, 3, weight=4)
def refined(w: Workshop, x: Tensor, draws: Draws) -> None:
    """A Loop that applies a residual block to what it carries."""
    size, inner = x.shape[-1], draws.pick((6, 8))
    body, go_on = loop_body(w.net)
    h = body.input("h", _sizes(w, x.shape))
    wide = body.op(draws.pick(_POINTWISE), body.dense(h, size, inner))
    step = body.dense(wide, inner, size)
    if draws.chance(2):
        step = body.op("Add", h, step)
    step = body.op("Tanh", step)
    graph = _closed(w, body, Tensor(step, x.shape), first=go_on)
    go = w.net.const(np.array(True), "go")
    w.like(w.net.op("Loop", w.net.integer(draws.pick((2, 3))), go, x.name, body=graph), x)


@layer(2, weight=3)
def recurrent_loop(w: Workshop, x: Tensor, draws: Draws) -> None:
    """A Loop over a state of zeros that returns its last state and everything it computed on the way."""
    require(w.fixed_batch)
    n, d = x.shape
    units, runs = draws.pick((6, 8)), draws.pick((2, 3))
    body, go_on = loop_body(w.net)
    h = body.input("h", (n, units))
    step = Tensor(cell(body, x.name, h, units=units, features=d), (n, units))
    each = Tensor(body.op(draws.pick(_POINTWISE), body.dense(step.name, units, 5)), (n, 5))
    graph = _closed(w, body, step, each, first=go_on)
    start = zeros(w.net, n, units)
    go = w.net.const(np.array(True), "go")
    last, stacked = w.net.ops("Loop", w.net.integer(runs), go, start, outputs=2, body=graph)
    w.add(last, n, units)
    w.add(w.net.transpose(stacked, 1, 0, 2), n, runs, 5)


@layer(3, weight=3)
def scanned(w: Workshop, x: Tensor, draws: Draws) -> None:
    """A Scan over the positions of a sequence."""
    require(w.fixed_batch)
    n, length, d = x.shape
    units = draws.pick((6, 8))
    body = Body(w.net, "body")
    h, part = body.input("h", (n, units)), body.input("part", (n, d))
    step = Tensor(cell(body, part, h, units=units, features=d), (n, units))
    each = Tensor(body.op(draws.pick(_POINTWISE), step.name), step.shape)
    graph = _closed(w, body, step, each)
    operands = zeros(w.net, n, units), w.net.transpose(x.name, 1, 0, 2)
    last, stacked = w.net.ops("Scan", *operands, outputs=2, body=graph, num_scan_inputs=1)
    w.add(last, n, units)
    w.add(w.net.transpose(stacked, 1, 0, 2), n, length, units)


@layer(weight=2)
def listed(w: Workshop, x: Tensor, draws: Draws) -> None:
    """Cut into a sequence; two pieces of it are put together again."""
    axis = some_axis(x, draws)
    size = x.shape[axis]
    require(size >= 3)
    first = 1 + draws.below(size - 2)
    sizes = [first, 1, size - first - 1]
    pieces = w.net.op("SplitToSequence", x.name, w.net.ints(*sizes, hint="split"), axis=axis)
    left, right = draws.pick(((0, 2), (-1, 0), (1, 0), (2, 2)))
    parts = [w.net.op("SequenceAt", pieces, w.net.integer(place)) for place in (left, right)]
    y = w.net.op("ConcatFromSequence", w.net.op("SequenceConstruct", *parts), axis=axis)
    w.add(y, *resized(x, axis, sizes[left] + sizes[right]))

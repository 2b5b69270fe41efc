"""Models of a few operators and short axes, one for each thing that ties slots."""

from __future__ import annotations

import numpy as np
import onnx

from models.building import Builder, Net, registrar

MODELS: dict[str, Builder] = {}
model = registrar(MODELS)


@model
def residual() -> onnx.ModelProto:
    """Two layers whose outputs are added."""
    net = Net("residual")
    x = net.op("Relu", net.conv(net.input("x", (1, 3, 4, 4)), 3, 4, 1, name="stem"))
    y = net.batch_norm(net.conv(x, 4, 4, 3, name="branch"), 4)
    y = net.op("Relu", net.op("Add", x, y))
    return net.build(net.op("GlobalAveragePool", net.conv(y, 4, 2, 1, name="head")))


@model
def concat_and_split() -> onnx.ModelProto:
    """Two layers joined, and taken apart at another place."""
    net = Net("concat_and_split")
    x = net.input("x", (2, 5))
    joined = net.op("Concat", net.linear(x, 5, 3, name="left"), net.linear(x, 5, 4, name="right"), axis=1)
    first, second = net.split(net.op("Relu", joined), (2, 5), 1)
    return net.build(net.linear(first, 2, 2, name="fc1"), net.linear(second, 5, 2, name="fc2"))


@model
def grouped_convolution() -> onnx.ModelProto:
    """Two groups of three channels."""
    net = Net("grouped_convolution")
    x = net.op("Relu", net.conv(net.input("x", (1, 2, 4, 4)), 2, 6, 1, name="before"))
    x = net.op("Relu", net.conv(x, 6, 4, 3, group=2, name="grouped"))
    return net.build(net.op("GlobalAveragePool", net.conv(x, 4, 2, 1, name="after")))


@model
def depthwise() -> onnx.ModelProto:
    """A group for every channel, between two pointwise convolutions."""
    net = Net("depthwise")
    x = net.conv_bn_relu(net.input("x", (1, 2, 4, 4)), 2, 4, 1, name="expand")
    x = net.conv_bn_relu(x, 4, 4, 3, group=4, name="depthwise")
    return net.build(net.op("GlobalAveragePool", net.conv(x, 4, 2, 1, name="project")))


@model
def channel_shuffle() -> onnx.ModelProto:
    """Two halves interleaved."""
    net = Net("channel_shuffle")
    x = net.op("Relu", net.conv(net.input("x", (1, 2, 3, 3)), 2, 6, 1, name="before"))
    x = net.reshape(net.transpose(net.reshape(x, 1, 2, 3, 3, 3), 0, 2, 1, 3, 4), 1, 6, 3, 3)
    return net.build(net.op("GlobalAveragePool", net.conv(x, 6, 2, 1, name="after")))


@model
def flatten() -> onnx.ModelProto:
    """Every channel becomes four columns."""
    net = Net("flatten")
    x = net.op("Relu", net.conv(net.input("x", (2, 2, 2, 2)), 2, 3, 1))
    return net.build(net.linear(net.op("Flatten", x), 12, 2))


@model
def swiglu() -> onnx.ModelProto:
    """A gate times a value, down to the residual again."""
    net = Net("swiglu")
    x = net.dense(net.input("x", (2, 3, 4)), 4, 4, name="embed")
    y = net.op("Mul", net.silu(net.dense(x, 4, 5, name="gate")), net.dense(x, 4, 5, name="up"))
    x = net.op("Add", x, net.dense(y, 5, 4, name="down"))
    return net.build(net.dense(x, 4, 2, name="head"))


@model
def rms_norm() -> onnx.ModelProto:
    """A norm over the residual, which keeps its count."""
    net = Net("rms_norm")
    x = net.dense(net.input("x", (2, 3, 4)), 4, 4, bias=False, name="embed")
    return net.build(net.dense(net.rms_norm(x, 4), 4, 2, name="head"))


def attended(net: Net, x: str, *, heads: int, shared: int, width: int, rotary: bool = False) -> str:
    """Attention of ``heads`` query heads on ``shared`` heads of keys and values, over [2, 3, 4]."""

    def headed(name: str, count: int) -> str:
        y = net.dense(x, 4, count * width, name=name)
        return net.transpose(net.reshape(y, 2, 3, count, width), 0, 2, 1, 3)

    def repeated(y: str) -> str:
        if shared == heads:
            return y
        wide = net.op("Expand", net.unsqueeze(y, 2), net.ints(2, shared, heads // shared, 3, width, hint="shape"))
        return net.reshape(wide, 2, heads, 3, width)

    def rotated(y: str) -> str:
        angles = np.arange(3)[:, None] * 0.5 ** np.arange(width // 2)[None]
        tables = [np.tile(function(angles), 2).astype(np.float32) for function in (np.cos, np.sin)]
        cosines, sines = (net.const(table, "table") for table in tables)
        half = width // 2
        turned = net.op("Concat", net.op("Neg", net.slice(y, half, width, 3)), net.slice(y, 0, half, 3), axis=3)
        return net.op("Add", net.op("Mul", y, cosines), net.op("Mul", turned, sines))

    q, k, v = headed("q", heads), headed("k", shared), headed("v", shared)
    if rotary:
        q, k = rotated(q), rotated(k)
    scores = net.op("MatMul", q, net.transpose(repeated(k), 0, 1, 3, 2))
    weights = net.op("Softmax", net.op("Mul", scores, net.number(0.7)), axis=-1)
    y = net.transpose(net.op("MatMul", weights, repeated(v)), 0, 2, 1, 3)
    return net.dense(net.reshape(y, 2, 3, heads * width), heads * width, 4, name="out")


@model
def attention() -> onnx.ModelProto:
    """Two heads."""
    net = Net("attention")
    return net.build(attended(net, net.input("x", (2, 3, 4)), heads=2, shared=2, width=2))


@model
def grouped_query_attention() -> onnx.ModelProto:
    """Two query heads for each head of keys and values."""
    net = Net("grouped_query_attention")
    return net.build(attended(net, net.input("x", (2, 3, 4)), heads=4, shared=2, width=2))


@model
def rotary() -> onnx.ModelProto:
    """Slots i and i + D/2 turn together."""
    net = Net("rotary")
    return net.build(attended(net, net.input("x", (2, 3, 4)), heads=2, shared=2, width=4, rotary=True))


@model
def lstm() -> onnx.ModelProto:
    """Hidden units run through all gates."""
    net = Net("lstm")
    x = net.input("x", (3, 2, 2))
    weights = [net.weight(1, 12, 2, fan=2, hint="w"), net.weight(1, 12, 3, fan=3, hint="r")]
    states = net.ops("LSTM", x, *weights, outputs=1, hidden_size=3)
    return net.build(net.dense(net.squeeze(states[0], 1), 3, 2, name="head"))


@model
def tied_embedding() -> onnx.ModelProto:
    """One table looks tokens up and scores them."""
    net = Net("tied_embedding")
    table = net.weight(5, 4, fan=4, hint="table")
    x = net.op("Gather", table, net.input("tokens", (2, 3), np.int64))
    x = net.op("Add", x, net.dense(net.op("Relu", net.dense(x, 4, 3, name="fc1")), 3, 4, name="fc2"))
    return net.build(net.op("MatMul", x, net.transpose(table, 1, 0)))

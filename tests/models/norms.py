"""Models with group and instance norms, and models in which channels are dead already."""

from __future__ import annotations

import numpy as np
import onnx

from models.building import NEWEST, Builder, Net, registrar
from models.moves import head, image

MODELS: dict[str, Builder] = {}
row = registrar(MODELS)


@row
def group_norm_decomposed() -> onnx.ModelProto:
    """GroupNorm as torch exports it: Reshape, InstanceNormalization, Reshape, Mul, Add."""
    net = Net("group_norm_decomposed", opset=18)
    x = net.conv(image(net), 3, 12, name="conv1")
    grouped = net.reshape(x, 0, 3, -1)
    ones, zeros = net.const(np.ones(3, np.float32), "ones"), net.const(np.zeros(3, np.float32), "zeros")
    normed = net.op("InstanceNormalization", grouped, ones, zeros, epsilon=1e-5)
    y = net.op("Reshape", normed, net.op("Shape", x))
    y = net.op("Mul", y, net.const(net.positive(12, 1, 1), "norm.weight"))
    y = net.op("Add", y, net.const(net.normal(12, 1, 1, scale=0.3), "norm.bias"))
    return head(net, net.conv(net.op("Relu", y), 12, 8, name="conv2"), 8)


def _group_norm(net: Net, x: str, groups: int) -> str:
    """GroupNormalization of 12 channels; onnx 1.23 does not infer its shape, so the file states it."""
    operands = net.const(net.positive(12), "norm.weight"), net.bias(12, "norm.bias")
    return net.stated(net.op("GroupNormalization", x, *operands, num_groups=groups), 2, 12, 8, 8)


@row
def group_norm_op() -> onnx.ModelProto:
    """GroupNormalization (opset 21: scale and bias per channel)."""
    net = Net("group_norm_op", opset=21)
    x = net.conv(image(net), 3, 12, name="conv1")
    y = _group_norm(net, x, 3)
    return head(net, net.conv(net.op("Relu", y), 12, 8, name="conv2"), 8)


@row
def group_norm_residual() -> onnx.ModelProto:
    """A stream with a norm in each block, groups of different sizes: 2 groups of 6, then 3 groups of 4."""
    net = Net("group_norm_residual", opset=21)
    x = net.conv(image(net), 3, 12, name="stem")
    for groups in (2, 3):
        y = net.op("Relu", _group_norm(net, x, groups))
        x = net.op("Add", x, net.conv(net.op("Relu", net.conv(y, 12, 8)), 8, 12))
    return head(net, x, 12)


@row
def instance_norm() -> onnx.ModelProto:
    """Instance normalization keeps channels apart: they prune like those of batch norm."""
    net = Net("instance_norm")
    x = net.conv(image(net), 3, 8, name="conv1")
    y = net.op("InstanceNormalization", x, net.const(net.positive(8), "in.weight"), net.bias(8, "in.bias"))
    return head(net, net.op("Tanh", net.conv(net.op("LeakyRelu", y, alpha=0.1), 8, 6, name="conv2")), 6)


@row
def channels_last_norm() -> onnx.ModelProto:
    """ConvNeXt block: depthwise, LayerNorm over the last axis, two linear layers, layer scale, residual."""
    net = Net("channels_last_norm")
    x = net.conv(image(net), 3, 8, name="stem")
    y = net.transpose(net.conv(x, 8, 8, 7, group=8, name="dw"), 0, 2, 3, 1)
    y = net.op("Gelu", net.dense(net.layer_norm(y, 8), 8, 20, name="pw1"))
    y = net.transpose(net.dense(y, 20, 8, name="pw2"), 0, 3, 1, 2)
    y = net.op("Mul", net.const(net.normal(8, 1, 1), "gamma"), y)
    return head(net, net.op("Add", x, y), 8)


@row
def prelu_and_pointwise() -> onnx.ModelProto:
    """PRelu with a slope per channel, Clip, Where, Max, HardSwish, Elu: all of them leave zero at zero."""
    net = Net("prelu_and_pointwise")
    x = image(net)
    y = net.op("PRelu", net.conv(x, 3, 8, name="conv1"), net.const(net.positive(8, 1, 1), "slope"))
    y = net.op("HardSwish", net.conv(y, 8, 8, name="conv2"))
    y = net.op("Clip", net.conv(y, 8, 8, name="conv3"), net.number(0.0), net.number(6.0))
    z = net.op("Elu", net.conv(y, 8, 8, name="conv4"))
    y = net.op("Where", net.op("Greater", y, net.number(0.5)), y, net.op("Max", z, y))
    return head(net, y, 8)


@row
def weight_standardised() -> onnx.ModelProto:
    """Weight standardisation: arithmetic on the weight itself, which mixes input channels and space."""
    net = Net("weight_standardised")
    x = net.op("Relu", net.conv(image(net), 3, 8, name="stem"))
    raw = net.weight(10, 8, 3, 3, fan=72, hint="conv.weight")
    centred = net.op("Sub", raw, net.mean(raw, 1, 2, 3))
    deviation = net.op("Sqrt", net.op("Add", net.mean(net.op("Mul", centred, centred), 1, 2, 3), net.number(1e-4)))
    weight = net.op("Mul", net.op("Div", centred, deviation), net.number(0.1))
    y = net.op("Conv", x, weight, net.bias(10, "conv.bias"), kernel_shape=[3, 3], pads=[1] * 4)
    return head(net, net.op("Relu", y), 10)


@row
def weight_normalised() -> onnx.ModelProto:
    """Weight norm: g * v / |v|, where a zero v is not a number."""
    net = Net("weight_normalised")
    x = net.op("Relu", net.linear(net.input("x", (4, 6)), 6, 10, name="fc1"))
    v, g = net.weight(8, 10, fan=10, hint="fc2.v"), net.const(net.positive(8, 1), "fc2.g")
    weight = net.op("Mul", g, net.op("Div", v, net.reduce("ReduceL2", v, 1)))
    y = net.op("Relu", net.op("Gemm", x, weight, net.bias(8, "fc2.bias"), transB=1))
    return net.build(net.linear(y, 8, 5, name="fc3"))


def _dead_batch_norm(net: Net, x: str, gamma: float, beta: float) -> str:
    """A batch norm over 8 channels in which channels 2 and 5 have the given gamma and beta."""
    scale, shift = net.positive(8), net.normal(8, scale=0.3)
    scale[[2, 5]], shift[[2, 5]] = gamma, beta
    return net.op(
        "BatchNormalization", x, net.const(scale, "bn.weight"), net.const(shift, "bn.bias"),
        net.const(net.normal(8, scale=0.3), "bn.running_mean"), net.const(net.positive(8), "bn.running_var"),
    )  # fmt: skip


def _dead(name: str, beta: float, k: int, pad: int, bias: bool, activation: str = "Relu") -> onnx.ModelProto:
    net = Net(name)
    x = _dead_batch_norm(net, net.conv(image(net), 3, 8, bias=False, name="conv1"), 0.0, beta)
    y = net.conv(net.op(activation, x), 8, 6, k, pad=pad, bias=bias, name="conv2")
    return head(net, net.op("Relu", y), 6)


@row
def dead_zero() -> onnx.ModelProto:
    """Channels 2 and 5: gamma 0, beta 0, then ReLU and a padded 3x3: dead as they stand."""
    return _dead("dead_zero", 0.0, 3, 1, True)


@row
def dead_negative() -> onnx.ModelProto:
    """Channels 2 and 5: gamma 0, beta -0.3, then ReLU: zero after the activation."""
    return _dead("dead_negative", -0.3, 3, 1, True)


@row
def dead_constant() -> onnx.ModelProto:
    """Channels 2 and 5: gamma 0, beta 0.3, ReLU, 1x1: a constant that folds into the next bias."""
    return _dead("dead_constant", 0.3, 1, 0, True)


@row
def dead_constant_no_bias() -> onnx.ModelProto:
    """The same before a convolution without bias: one has to be added."""
    return _dead("dead_constant_no_bias", 0.3, 1, 0, False)


@row
def dead_constant_padded() -> onnx.ModelProto:
    """The same before a zero-padded 3x3: not foldable, the border sees fewer copies of the constant."""
    return _dead("dead_constant_padded", 0.3, 3, 1, True)


@row
def dead_constant_valid() -> onnx.ModelProto:
    """The same before a 3x3 without padding: foldable."""
    return _dead("dead_constant_valid", 0.3, 3, 0, True)


@row
def dead_consumer() -> onnx.ModelProto:
    """Channels 1 and 4 feed only zero weights: dead by demand, whatever they hold."""
    net = Net("dead_consumer")
    x = net.op("Sigmoid", net.conv(image(net), 3, 8, name="conv1"))
    weight = net.normal(6, 8, 3, 3, scale=0.15)
    weight[:, [1, 4]] = 0
    y = net.op("Conv", x, net.const(weight, "conv2.weight"), net.bias(6, "conv2.bias"), pads=[1] * 4)
    return head(net, y, 6)


@row
def dead_hidden() -> onnx.ModelProto:
    """MLP with zero rows and biases in the first layer, and zero heads in attention-like products after it."""
    net = Net("dead_hidden")
    x = net.input("x", (4, 6))
    weight, bias = net.normal(12, 6, scale=0.4), net.normal(12, scale=0.2)
    weight[[0, 7, 11]], bias[[0, 7, 11]] = 0, 0
    y = net.op("Gemm", x, net.const(weight, "fc1.weight"), net.const(bias, "fc1.bias"), transB=1)
    return net.build(net.linear(net.op("Gelu", y), 12, 5, name="fc2"))


def _sigmoid(name: str, k: int, pad: int) -> onnx.ModelProto:
    net = Net(name)
    x = net.op("Sigmoid", net.conv(image(net), 3, 8, name="conv1"))
    return head(net, net.op("Relu", net.conv(x, 8, 6, k, pad=pad, name="conv2")), 6)


@row
def sigmoid_between() -> onnx.ModelProto:
    """A zeroed channel is 0.5 after the sigmoid: foldable into the next bias, for there is no padding."""
    return _sigmoid("sigmoid_between", 3, 0)


@row
def sigmoid_padded() -> onnx.ModelProto:
    """A zeroed channel is 0.5 inside and 0 on the border: its consumers must be zero for it to go."""
    return _sigmoid("sigmoid_padded", 3, 1)


@row
def newest_convs() -> onnx.ModelProto:
    """Convolutions, batch norm, pooling and a residual at the newest opset that onnxruntime runs."""
    net = Net("newest_convs", opset=NEWEST)
    x = net.conv_bn_relu(image(net), 3, 8, name="stem")
    x = net.op("Relu", net.op("Add", x, net.conv(net.conv_bn_relu(x, 8, 12), 12, 8)))
    return head(net, net.op("AveragePool", x, kernel_shape=[2, 2], strides=[2, 2]), 8)

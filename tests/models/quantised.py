"""Models with quantised weights: behind DequantizeLinear, and in products of integers."""

from __future__ import annotations

import numpy as np
import onnx

from models.building import Array, Builder, Net, registrar

MODELS: dict[str, Builder] = {}
row = registrar(MODELS)


def integers(net: Net, *shape: int, signed: bool = True, limit: int = 100) -> Array:
    """Random stored weights around the middle of their range."""
    middle, dtype = (0, np.int8) if signed else (128, np.uint8)
    return (middle + net.rng.integers(-limit, limit, shape)).astype(dtype)


def dequantized(net: Net, stored: Array, axis: int | None, name: str, points: bool = True) -> str:
    """A weight behind DequantizeLinear: per slot of ``axis``, or one scale for all."""
    count = 1 if axis is None else stored.shape[axis]
    scales = (net.positive(count) * 0.02 / np.sqrt(stored.size / count / 16)).astype(np.float32)
    middle = 128 if stored.dtype == np.uint8 else 0
    zeros = (middle + net.rng.integers(-5, 6, count)).astype(stored.dtype)
    if axis is None:
        scales, zeros = scales.reshape(()), zeros.reshape(())
    operands = [net.const(stored, f"{name}.weight"), net.const(scales, f"{name}.scale")]
    if points:
        operands.append(net.const(zeros, f"{name}.zero_point"))
    return net.op("DequantizeLinear", *operands, **({} if axis is None else {"axis": axis}))


def requantized(net: Net, x: str, scale: float = 0.05, point: int = 120) -> str:
    """QuantizeLinear, DequantizeLinear: one step of rounding."""
    pair = [net.number(scale, "scale"), net.const(np.array(point, np.uint8), "zero_point")]
    return net.op("DequantizeLinear", net.op("QuantizeLinear", x, *pair), *pair)


@row
def qdq_mlp() -> onnx.ModelProto:
    """Weights stored [in, out], one scale a column or one for all, biases in 32 bits, activations rounded."""
    net = Net("qdq_mlp", opset=13)
    x = requantized(net, net.input("x", (3, 10)))
    y = net.op("MatMul", x, dequantized(net, integers(net, 10, 12), 1, "fc1"))
    bias = net.const(net.rng.integers(-400, 400, 12).astype(np.int32), "fc1.bias")
    y = net.op("Add", y, net.op("DequantizeLinear", bias, net.number(1e-3, "bias_scale")))
    y = requantized(net, net.op("Relu", y))
    y = net.op("MatMul", y, dequantized(net, integers(net, 12, 8, signed=False), None, "fc2"))
    y = requantized(net, net.op("Relu", y))
    return net.build(net.op("MatMul", y, dequantized(net, integers(net, 8, 5), 1, "fc3", points=False)))


@row
def qdq_behind_transpose() -> onnx.ModelProto:
    """Stored weights are transposed before they are dequantised, and a table of them is gathered from."""
    net = Net("qdq_behind_transpose", opset=13)
    tokens = net.input("tokens", (2, 4), np.int64)
    table = net.const(integers(net, 16, 12, signed=False), "table")
    pair = [net.number(0.01, "scale"), net.const(np.array(128, np.uint8), "zero_point")]
    x = net.op("DequantizeLinear", net.op("Gather", table, tokens, axis=0), *pair)
    stored = net.op("Transpose", net.const(integers(net, 9, 12), "fc1.weight"), perm=[1, 0])
    scale = net.const((net.positive(9) * 5e-3).astype(np.float32), "fc1.scale")
    x = net.op("Relu", net.op("MatMul", x, net.op("DequantizeLinear", stored, scale, axis=1)))
    return net.build(net.dense(x, 9, 5, name="fc2"))


@row
def qdq_blocks() -> onnx.ModelProto:
    """Blocks of four inputs share a scale, as weight-only quantisation has it."""
    net = Net("qdq_blocks", opset=21)
    x = net.op("Relu", net.dense(net.input("x", (3, 10)), 10, 16, name="fc1"))
    stored = net.const(integers(net, 16, 12), "fc2.weight")
    scale = net.const((net.positive(4, 12) * 5e-3).astype(np.float32), "fc2.scale")
    points = net.const(net.rng.integers(-5, 6, (4, 12)).astype(np.int8), "fc2.zero_point")
    weight = net.op("DequantizeLinear", stored, scale, points, axis=0, block_size=4)
    return net.build(net.dense(net.op("Relu", net.op("MatMul", x, weight)), 12, 5, name="fc3"))


@row
def weight_cast_from_int8() -> onnx.ModelProto:
    """Weights stored as integers, cast and scaled."""
    net = Net("weight_cast_from_int8")
    x = net.input("x", (3, 10))
    for name, n_in, n_out in (("fc1", 10, 12), ("fc2", 12, 5)):
        stored = net.op("Cast", net.const(integers(net, n_in, n_out), f"{name}.weight"), to=onnx.TensorProto.FLOAT)
        scale = net.const((net.positive(n_out) * 5e-3).astype(np.float32), f"{name}.scale")
        x = net.op("Relu", net.op("MatMul", x, net.op("Mul", stored, scale)))
    return net.build(net.dense(x, 5, 4, name="fc3"))


@row
def qlinear_convs() -> onnx.ModelProto:
    """QLinearConv, plain and grouped, with scales for every channel, and QLinearMatMul at the end."""
    net = Net("qlinear_convs", opset=13)
    x = net.input("x", (2, 3, 8, 8))
    step = (net.number(0.04, "scale"), net.const(np.array(110, np.uint8), "zero_point"))
    y = net.op("QuantizeLinear", x, *step)
    for name, n_in, n_out, group in (("conv1", 3, 8, 1), ("conv2", 8, 12, 2), ("conv3", 12, 6, 1)):
        weight = integers(net, n_out, n_in // group, 3, 3)
        scale = net.const((net.positive(n_out) * 3e-3).astype(np.float32), f"{name}.scale")
        y = net.op(
            "QLinearConv", y, *step, net.const(weight, f"{name}.weight"), scale,
            net.const(np.zeros(n_out, np.int8), f"{name}.zero_point"), *step,
            net.const(net.rng.integers(-900, 900, n_out).astype(np.int32), f"{name}.bias"),
            pads=[1] * 4, group=group,
        )  # fmt: skip
    y = net.op("QuantizeLinear", net.op("Relu", net.op("DequantizeLinear", y, *step)), *step)
    y = net.op("MaxPool", y, kernel_shape=[8, 8])
    y = net.op("Flatten", y)
    weight = [net.const(integers(net, 6, 7, signed=False), "head.weight"), net.number(0.01, "head.scale")]
    point = net.const(np.array(128, np.uint8), "head.zero_point")
    y = net.op("QLinearMatMul", y, *step, *weight, point, *step)
    return net.build(net.op("DequantizeLinear", y, *step))


@row
def integer_products() -> onnx.ModelProto:
    """Dynamic quantisation: DynamicQuantizeLinear, ConvInteger or MatMulInteger, Cast, Mul."""
    net = Net("integer_products", opset=13)
    x = net.input("x", (2, 3, 6, 6))

    def scaled(y: str, scale: str, weight_scale: float) -> str:
        factor = net.op("Mul", scale, net.number(weight_scale, "weight_scale"))
        return net.op("Mul", net.op("Cast", y, to=onnx.TensorProto.FLOAT), factor)

    stored, scale, point = net.ops("DynamicQuantizeLinear", x, outputs=3)
    weight = net.const(integers(net, 8, 3, 3, 3), "conv1.weight")
    y = scaled(net.op("ConvInteger", stored, weight, point, pads=[1] * 4), scale, 5e-3)
    y = net.op("Relu", net.op("Add", y, net.const(net.normal(8, 1, 1, scale=0.3), "conv1.bias")))
    x = net.op("Flatten", net.op("GlobalAveragePool", y))
    for name, n_in, n_out in (("fc1", 8, 12), ("fc2", 12, 5)):
        stored, scale, point = net.ops("DynamicQuantizeLinear", x, outputs=3)
        weight = net.const(integers(net, n_in, n_out, signed=False), f"{name}.weight")
        middle = net.const(np.array(128, np.uint8), f"{name}.zero_point")
        x = net.op("Relu", scaled(net.op("MatMulInteger", stored, weight, point, middle), scale, 8e-3))
    return net.build(net.dense(x, 5, 4, name="head"))

"""The same simple networks in the many forms that files have: where weights live, element types, opsets, functions."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from models.building import Builder, Net, registrar
from models.moves import head, image

MODELS: dict[str, Builder] = {}
row = registrar(MODELS)


@row
def gemm_variants() -> onnx.ModelProto:
    """Gemm with transA, transB, alpha, beta, and C as [n], [1, n], [m, n], [1] or left out."""
    net = Net("gemm_variants")
    x = net.input("x", (6, 4))
    columns = net.op(
        "Gemm", net.weight(6, 10, fan=6, hint="a.weight"), x, net.const(net.normal(10, 1), "a.column"), transA=1
    )  # [10, 4]: features along axis 0
    b = net.op("Gemm", net.op("Relu", columns), net.weight(10, 8, fan=10, hint="b.weight"), transA=1, alpha=0.5)
    c = net.op(
        "Gemm", net.op("Relu", b), net.weight(12, 8, fan=8, hint="c.weight"), net.bias(12, "c.bias"), transB=1, beta=2.0
    )
    weight, line = net.weight(12, 8, fan=12, hint="d.weight"), net.const(net.normal(1, 8), "d.row")
    d = net.op("Gemm", net.op("Tanh", c), weight, line)
    e = net.op("Gemm", d, net.weight(8, 9, fan=8, hint="e.weight"), net.const(net.normal(4, 9), "e.full"), beta=0.5)
    f = net.op("Gemm", net.op("Relu", e), net.weight(9, 5, fan=9, hint="f.weight"), net.const(net.normal(1), "f.one"))
    return net.build(f)


@row
def matmul_no_bias() -> onnx.ModelProto:
    """MatMul chains without biases, weights stored [in, out], on 2-D and 3-D inputs."""
    net = Net("matmul_no_bias")
    x = net.input("x", (2, 5, 6))
    y = net.op("Relu", net.dense(x, 6, 12, bias=False, name="fc1"))
    y = net.op("Tanh", net.dense(y, 12, 10, bias=False, name="fc2"))
    return net.build(net.dense(y, 10, 4, bias=False, name="fc3"))


@row
def matmul_weight_first() -> onnx.ModelProto:
    """The weight as the left operand: W x on columns."""
    net = Net("matmul_weight_first")
    x = net.input("x", (6, 5))
    y = net.op("Relu", net.op("MatMul", net.weight(10, 6, fan=6, hint="fc1.weight"), x))
    y = net.op("Add", y, net.const(net.normal(10, 1), "fc1.bias"))
    return net.build(net.op("MatMul", net.weight(4, 10, fan=10, hint="fc2.weight"), y))


@row
def tied_weight() -> onnx.ModelProto:
    """One weight used by two layers: both uses shrink together."""
    net = Net("tied_weight")
    x = net.input("x", (4, 6))
    shared, bias = net.weight(10, 10, fan=10, hint="shared.weight"), net.bias(10, "shared.bias")
    y = net.op("Relu", net.linear(x, 6, 10, name="fc1"))
    y = net.op("Relu", net.op("Gemm", y, shared, bias, transB=1))
    y = net.op("Relu", net.op("Gemm", y, shared, bias, transB=1))
    return net.build(net.linear(y, 10, 4, name="fc2"))


@row
def tied_transposed() -> onnx.ModelProto:
    """An autoencoder with tied weights: W up, W^T down, and two heads that share a weight on different inputs."""
    net = Net("tied_transposed")
    x = net.input("x", (4, 6))
    weight = net.weight(10, 6, fan=8, hint="tied.weight")
    hidden = net.op("Relu", net.op("Gemm", x, weight, net.bias(10, "up.bias"), transB=1))
    back = net.op("Gemm", hidden, weight, net.bias(6, "down.bias"))
    shared = net.weight(10, 3, fan=10, hint="head.weight")
    other = net.op("Relu", net.linear(back, 6, 10, name="other"))
    return net.build(back, net.op("MatMul", hidden, shared), net.op("MatMul", other, shared))


@row
def weight_behind_transpose() -> onnx.ModelProto:
    """Linear weights stored [out, in] and transposed by a node."""
    net = Net("weight_behind_transpose")
    x = net.input("x", (4, 6))
    for index, (n_in, n_out) in enumerate(((6, 12), (12, 5))):
        weight = net.op("Transpose", net.weight(n_out, n_in, fan=n_in, hint=f"fc{index}.weight"), perm=[1, 0])
        x = net.op("Tanh", net.op("MatMul", x, weight))
    return net.build(x)


@row
def weight_behind_cast() -> onnx.ModelProto:
    """Weights stored in float16 and double, cast to float32 where they are used."""
    net = Net("weight_behind_cast")
    x = net.op("Relu", net.linear(net.input("x", (4, 6)), 6, 12, name="fc1"))
    half = net.const(net.normal(12, 10, scale=0.3).astype(np.float16), "fc2.weight")
    y = net.op("Relu", net.op("MatMul", x, net.op("Cast", half, to=TensorProto.FLOAT)))
    double = net.const(net.normal(10, 4, scale=0.3).astype(np.float64), "fc3.weight")
    return net.build(net.op("MatMul", y, net.op("Cast", double, to=TensorProto.FLOAT)))


@row
def weight_behind_identity() -> onnx.ModelProto:
    """Weights reached through Identity, twice in a row and shared."""
    net = Net("weight_behind_identity")
    x = net.input("x", (4, 6))
    y = net.linear(x, 6, 12, name="fc1")
    weight = net.op("Identity", net.op("Identity", net.weight(12, 12, fan=12, hint="fc2.weight")))
    y = net.op("Gemm", net.op("Relu", y), weight, net.op("Identity", net.bias(12, "fc2.bias")), transB=1)
    y = net.op("Gemm", net.op("Relu", y), net.op("Identity", weight), transB=1)
    return net.build(net.linear(y, 12, 4, name="fc3"))


@row
def weight_in_constant_node() -> onnx.ModelProto:
    """Weights and shapes in Constant nodes: tensor, floats, ints."""
    net = Net("weight_in_constant_node")
    x = net.op("Relu", net.conv(image(net, side=2), 3, 6, name="conv1"))
    weight = net.op("Constant", value=numpy_helper.from_array(net.normal(8, 6, 1, 1, scale=0.4), "value"))
    bias = net.op("Constant", value_floats=[float(v) for v in net.normal(8, scale=0.2)])
    y = net.op("Relu", net.op("Conv", x, weight, bias, kernel_shape=[1, 1]))
    y = net.op("Reshape", y, net.op("Constant", value_ints=[2, 32]))
    y = net.op("Mul", y, net.op("Constant", value_float=0.5))
    return net.build(net.linear(y, 32, 4, name="head"))


@row
def weight_constant_of_shape() -> onnx.ModelProto:
    """A weight and a bias by ConstantOfShape: every slot the same, none of them zero."""
    net = Net("weight_constant_of_shape")

    def filled(value: float, *shape: int) -> str:
        fill = numpy_helper.from_array(np.array([value], np.float32), "value")
        return net.op("ConstantOfShape", net.ints(*shape, hint="shape"), value=fill)

    x = net.op("Relu", net.conv(image(net), 3, 6, name="conv1"))
    y = net.op("Conv", x, filled(0.05, 8, 6, 3, 3), filled(0.1, 8), kernel_shape=[3, 3])
    return head(net, net.op("Relu", net.conv(net.op("Relu", y), 8, 6, name="conv3")), 6)


@row
def weight_quantised() -> onnx.ModelProto:
    """Weights behind DequantizeLinear, per tensor and per axis; zero means the zero point."""
    net = Net("weight_quantised", opset=13)
    x = net.op("Relu", net.conv(image(net), 3, 6, name="conv1"))
    q = net.const(net.rng.integers(-100, 100, (8, 6, 3, 3)).astype(np.int8), "conv2.weight")
    scale = net.const((net.positive(8) * 2e-3).astype(np.float32), "conv2.scale")
    points = net.const(net.rng.integers(-5, 5, 8).astype(np.int8), "conv2.zero_point")
    weight = net.op("DequantizeLinear", q, scale, points, axis=0)
    y = net.op("Relu", net.op("Conv", x, weight, net.bias(8, "conv2.bias"), pads=[1] * 4))
    q = net.const(net.rng.integers(0, 255, (5, 8)).astype(np.uint8), "head.weight")
    scale, point = net.number(4e-3, "head.scale"), net.const(np.array(128, np.uint8), "head.zero_point")
    pooled = net.op("Flatten", net.op("GlobalAveragePool", y))
    return net.build(net.op("Gemm", pooled, net.op("DequantizeLinear", q, scale, point), transB=1))


@row
def initializers_as_inputs() -> onnx.ModelProto:
    """Every initializer is listed among the inputs too, as before IR version 4."""
    net = Net("initializers_as_inputs", opset=11)
    x = net.conv_bn_relu(image(net), 3, 8, name="conv1")
    y = net.op("Flatten", net.op("GlobalAveragePool", net.conv_bn_relu(x, 8, 6, name="conv2")))
    return net.build(net.linear(y, 6, 4, name="head"), listed=True)


@row
def function_model() -> onnx.ModelProto:
    """Layers as calls of model functions: one with weights as arguments, one that calls another."""
    net = Net("function_model")
    imports = [helper.make_opsetid("", net.opset), helper.make_opsetid("custom", 1)]
    silu = helper.make_function(
        "custom", "Silu", ["x"], ["y"],
        [helper.make_node("Sigmoid", ["x"], ["s"]), helper.make_node("Mul", ["x", "s"], ["y"])], imports[:1],
    )  # fmt: skip
    gated = helper.make_function(
        "custom", "Gated", ["x", "gate", "up", "down"], ["y"],
        [
            helper.make_node("MatMul", ["x", "gate"], ["g"]),
            helper.make_node("Silu", ["g"], ["a"], domain="custom"),
            helper.make_node("MatMul", ["x", "up"], ["u"]),
            helper.make_node("Mul", ["a", "u"], ["h"]),
            helper.make_node("MatMul", ["h", "down"], ["y"]),
        ],
        imports,
    )  # fmt: skip
    net.functions += [silu, gated]
    x = net.dense(net.input("x", (2, 5, 6)), 6, 8, name="embed")
    for index in range(2):
        weights = [
            net.weight(*shape, fan=shape[0], hint=f"layer{index}.{part}")
            for part, shape in (("gate", (8, 12)), ("up", (8, 12)), ("down", (12, 8)))
        ]
        x = net.op("Add", x, net.op("Gated", x, *weights, domain="custom"))
    return net.build(net.dense(x, 8, 4, name="head"), shapes=[(2, 5, 4)])


def _convs(net: Net) -> onnx.ModelProto:
    x = net.conv_bn_relu(image(net), 3, 8, name="conv1")
    x = net.op("Relu", net.op("Add", x, net.conv(x, 8, 8, name="conv2")))
    return head(net, net.op("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2]), 8)


def _mlp(net: Net) -> onnx.ModelProto:
    x = net.input("x", (4, 6))
    x = net.op("Relu", net.linear(x, 6, 12, name="fc1"))
    x = net.op("Add", x, net.op("Tanh", net.linear(x, 12, 12, name="fc2")))
    return net.build(net.linear(net.op("Sigmoid", net.linear(x, 12, 10, name="fc3")), 10, 4, name="head"))


@row
def half() -> onnx.ModelProto:
    """float16 convolutions."""
    return _convs(Net("half", dtype=np.float16))


@row
def half_mlp() -> onnx.ModelProto:
    """float16 linear layers."""
    return _mlp(Net("half_mlp", dtype=np.float16))


@row
def double_mlp() -> onnx.ModelProto:
    """float64 linear layers."""
    return _mlp(Net("double_mlp", dtype=np.float64))


@row
def opset11_convs() -> onnx.ModelProto:
    """Convolutions at opset 11, the oldest that is read."""
    return _convs(Net("opset11_convs", opset=11))


@row
def opset11_mlp() -> onnx.ModelProto:
    """Linear layers at opset 11."""
    return _mlp(Net("opset11_mlp", opset=11))


@row
def opset11_attributes() -> onnx.ModelProto:
    """Opset 11 keeps axes and splits in attributes; Softmax flattens at its axis; a Dropout; defaults."""
    net = Net("opset11_attributes", opset=11)
    x = net.op("Relu", net.conv(image(net), 3, 12, name="conv1"))
    a, b, c = net.ops("Split", x, outputs=3, axis=1)
    y = net.op("Concat", net.op("Mul", a, b), c, axis=1)
    y = net.ops("Dropout", y, outputs=1, ratio=0.5)[0]
    pooled = net.op("Squeeze", net.op("ReduceMean", y, axes=[2, 3]), axes=[2, 3])
    hidden = net.op("Softmax", net.linear(pooled, 8, 10, name="fc1"))
    wide = net.op("Flatten", net.op("Unsqueeze", hidden, axes=[2]))
    return net.build(net.linear(wide, 10, 4, name="head"))


@row
def captured_by_if() -> onnx.ModelProto:
    """The branches of an If read a pruned tensor from outside: what they capture stays whole."""
    net = Net("captured_by_if")
    x = net.input("x", (4, 6))
    hidden = net.op("Relu", net.linear(x, 6, 10, name="fc1"))
    free = net.op("Relu", net.linear(x, 6, 12, name="fc2"))
    condition = net.op("Greater", net.op("ReduceSum", x, keepdims=0), net.number(0.0))

    def branch(name: str, type_: str) -> onnx.GraphProto:
        out = helper.make_tensor_value_info(f"{name}_out", TensorProto.FLOAT, [4, 10])
        return helper.make_graph([helper.make_node(type_, [hidden], [f"{name}_out"])], name, [], [out])

    chosen = net.op("If", condition, then_branch=branch("then", "Neg"), else_branch=branch("else", "Identity"))
    y = net.op("Add", net.linear(chosen, 10, 4, name="left"), net.linear(free, 12, 4, name="right"))
    return net.build(y)


@row
def unknown_operator_island() -> onnx.ModelProto:
    """An operator of another domain that onnxruntime runs and no rule mentions, beside a free layer."""
    net = Net("unknown_operator_island", opset=17)
    x = net.input("x", (4, 6))
    a = net.op("Relu", net.linear(x, 6, 10, name="seen"))
    odd = net.op("BiasGelu", a, net.bias(10, "odd.bias"), domain="com.microsoft")
    b = net.op("Relu", net.linear(x, 6, 12, name="free"))
    y = net.op("Add", net.linear(odd, 10, 4, name="left"), net.linear(b, 12, 4, name="right"))
    return net.build(y, shapes=[(4, 4)])


@row
def integers_are_not_parameters() -> onnx.ModelProto:
    """Integer tables as wide as the layers beside them: positions to gather, counts to add, never pruned."""
    net = Net("integers_are_not_parameters")
    x = net.op("Relu", net.linear(net.input("x", (4, 6)), 6, 8, name="fc1"))
    order = net.const(np.arange(8)[::-1].copy(), "order")
    counts = net.op("Cast", net.const(np.arange(1, 9), "counts"), to=TensorProto.FLOAT)
    y = net.op("Div", net.op("Gather", x, order, axis=1), counts)
    return net.build(net.linear(y, 8, 4, name="fc2"))


@row
def vacuous_output() -> onnx.ModelProto:
    """Returns an ArgMax only: agreement has to be measured upstream."""
    net = Net("vacuous_output")
    x = net.op("Relu", net.linear(net.input("x", (4, 6)), 6, 12, name="fc1"))
    return net.build(net.op("ArgMax", net.linear(x, 12, 5, name="fc2"), axis=1, keepdims=0))


@row
def one_slot() -> onnx.ModelProto:
    """Layers of one unit: nothing can go there, and size one must not be taken for a broadcast."""
    net = Net("one_slot")
    x = net.conv(image(net), 3, 1, name="one")
    y = net.op("Add", net.conv(net.op("Relu", x), 1, 6, name="wide"), x)
    return head(net, net.op("Relu", y), 6)

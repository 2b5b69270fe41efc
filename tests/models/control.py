"""Models with If, Loop and Scan: weights inside bodies and captured by them, carried states, stacked results."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from models.building import Builder, Net, Size, registrar

MODELS: dict[str, Builder] = {}
row = registrar(MODELS)

B, S, D, H = 2, 5, 6, 10
"""Batch, sequence, features, hidden units."""


class Body(Net):
    """A body of control flow, written like a model; its names are those of the model."""

    def __init__(self, outer: Net, name: str) -> None:
        super().__init__(name, opset=outer.opset, dtype=outer.dtype)
        self._taken = outer._taken

    def input(self, name: str, shape: Sequence[Size], dtype: npt.DTypeLike | None = None) -> str:
        """An input of the body, under a name that the model does not have yet."""
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype) if dtype is not None else self.dtype)
        self.inputs.append(helper.make_tensor_value_info(self.fresh(name), kind, list(shape)))
        return self.inputs[-1].name

    def graph(self, *outputs: tuple[str, Sequence[Size], int]) -> onnx.GraphProto:
        """The body with its (name, shape, element type) results."""
        results = [helper.make_tensor_value_info(name, kind, list(shape)) for name, shape, kind in outputs]
        return helper.make_graph(self.nodes, self.fresh(self.name), self.inputs, results, self.initializers)

    def floats(self, *outputs: tuple[str, Sequence[Size]]) -> onnx.GraphProto:
        """The body with results of the model's floating type."""
        kind = helper.np_dtype_to_tensor_dtype(self.dtype)
        return self.graph(*((name, shape, kind) for name, shape in outputs))


def positive(net: Net, x: str) -> str:
    """Whether the elements of ``x`` have a positive sum: as good as a coin."""
    return net.op("Greater", net.op("ReduceSum", x, keepdims=0), net.number(0.0))


def loop_body(outer: Net, name: str = "body") -> tuple[Body, str]:
    """A body that goes on as long as it may, and the condition that it returns."""
    body = Body(outer, name)
    body.input("run", (), np.int64)
    return body, body.op("Identity", body.input("again", (), np.bool_), hint="go_on")


def looped(net: Net, runs: str, body: onnx.GraphProto, *initial: str, outputs: int = 1) -> list[str]:
    """A Loop that runs ``runs`` times."""
    return net.ops("Loop", runs, net.const(np.array(True), "go"), *initial, outputs=outputs, body=body)


def cell(net: Net, x: str, h: str, name: str = "cell", units: int = H, features: int = D) -> str:
    """tanh(x Wx + b + h Wh)."""
    mixed = net.op(
        "Add", net.dense(x, features, units, name=f"{name}.x"), net.dense(h, units, units, bias=False, name=f"{name}.h")
    )
    return net.op("Tanh", mixed)


def zeros(net: Net, *shape: int, name: str = "zeros") -> str:
    """A state of zeros."""
    return net.const(np.zeros(shape, net.dtype), name)


@row
def if_weights_in_branches() -> onnx.ModelProto:
    """Each branch ends in a layer of its own; both make the same dim."""
    net = Net("if_weights_in_branches")
    x = net.input("x", ("batch", D))
    then, other = Body(net, "then"), Body(net, "else")
    first = then.floats((then.op("Relu", then.linear(x, D, H, name="then.fc")), ("batch", H)))
    second = other.floats((other.linear(x, D, H, name="else.fc"), ("batch", H)))
    y = net.op("If", positive(net, x), then_branch=first, else_branch=second)
    return net.build(net.linear(net.op("Relu", y), H, 3, name="head"), shapes=[("batch", 3)])


@row
def if_captures() -> onnx.ModelProto:
    """Branches read a tensor and a weight from outside; the weight is used outside as well."""
    net = Net("if_captures")
    x = net.input("x", (B, D))
    hidden = net.op("Relu", net.linear(x, D, H, name="fc1"))
    shared = net.weight(H, H, fan=H, hint="shared")
    then, other = Body(net, "then"), Body(net, "else")
    first = then.floats((then.op("MatMul", hidden, shared), (B, H)))
    second = other.floats((other.op("Neg", hidden), (B, H)))
    y = net.op("If", positive(net, x), then_branch=first, else_branch=second)
    z = net.op("MatMul", hidden, shared)
    return net.build(net.linear(net.op("Add", y, z), H, 3, name="head"))


@row
def if_residual() -> onnx.ModelProto:
    """h + If(...): what a branch returns shares the dim of the stream around it."""
    net = Net("if_residual")
    x = net.input("x", (B, D))
    h = net.linear(x, D, H, name="embed")
    then, other = Body(net, "then"), Body(net, "else")
    inner = then.op("Relu", then.linear(h, H, 2 * H, name="up"))
    first = then.floats((then.linear(inner, 2 * H, H, name="down"), (B, H)))
    second = other.floats((other.op("Identity", h), (B, H)))
    y = net.op("Add", h, net.op("If", positive(net, x), then_branch=first, else_branch=second))
    return net.build(net.linear(y, H, 3, name="head"))


@row
def if_nested() -> onnx.ModelProto:
    """A branch inside a branch; one of the leaves returns a constant."""
    net = Net("if_nested")
    x = net.input("x", (B, D))
    h = net.op("Relu", net.linear(x, D, H, name="fc1"))
    outer = Body(net, "then")
    leaves = [Body(net, name) for name in ("inner_then", "inner_else")]
    graphs = [
        leaves[0].floats((leaves[0].linear(h, H, H, name="leaf"), (B, H))),
        leaves[1].floats((leaves[1].op("Sigmoid", h), (B, H))),
    ]
    inner = outer.op("If", positive(outer, h), then_branch=graphs[0], else_branch=graphs[1])
    other = Body(net, "else")
    second = other.floats((other.const(other.normal(B, H), "constant"), (B, H)))
    y = net.op("If", positive(net, x), then_branch=outer.floats((inner, (B, H))), else_branch=second)
    return net.build(net.linear(y, H, 3, name="head"))


@row
def loop_rnn() -> onnx.ModelProto:
    """A recurrent cell written as a Loop over a state of zeros; the weights stand in the body."""
    net = Net("loop_rnn")
    x = net.input("x", ("batch", D))
    body, go_on = loop_body(net)
    h = body.input("h", ("batch", H))
    step = cell(body, x, h)
    graph = body.graph((go_on, (), TensorProto.BOOL), (step, ("batch", H), TensorProto.FLOAT))
    sizes = net.op("Concat", net.size(x, 0), net.ints(H), axis=0)
    start = net.op("ConstantOfShape", sizes, value=helper.make_tensor("fill", TensorProto.FLOAT, [1], [0.0]))
    (y,) = looped(net, net.integer(3), graph, start)
    return net.build(net.linear(y, H, 3, name="head"), shapes=[("batch", 3)])


@row
def loop_two_states() -> onnx.ModelProto:
    """A long short-term memory: each state follows from the other, and one starts from a layer."""
    net = Net("loop_two_states")
    x = net.input("x", (B, D))
    body, go_on = loop_body(net)
    h, c = (body.input(name, (B, H)) for name in "hc")
    gates = body.op("Add", body.dense(x, D, 4 * H, name="gates.x"), body.dense(h, H, 4 * H, bias=False, name="gates.h"))
    i, f, g, o = body.split(gates, [H] * 4, 1)
    kept = body.op("Mul", body.op("Sigmoid", f), c)
    memory = body.op("Add", kept, body.op("Mul", body.op("Sigmoid", i), body.op("Tanh", g)))
    state = body.op("Mul", body.op("Sigmoid", o), body.op("Tanh", memory))
    graph = body.graph(
        (go_on, (), TensorProto.BOOL), (state, (B, H), TensorProto.FLOAT), (memory, (B, H), TensorProto.FLOAT)
    )
    first = net.linear(x, D, H, name="start")
    last, _ = looped(net, net.integer(3), graph, zeros(net, B, H), first, outputs=2)
    return net.build(net.linear(last, H, 3, name="head"))


@row
def loop_stacked() -> onnx.ModelProto:
    """Besides its state, a Loop returns what every run computes, one behind the other."""
    net = Net("loop_stacked")
    x = net.input("x", (B, D))
    body, go_on = loop_body(net)
    h = body.input("h", (B, H))
    step = cell(body, x, h)
    seen = body.op("Relu", body.linear(step, H, 8, name="seen"))
    graph = body.graph(
        (go_on, (), TensorProto.BOOL), (step, (B, H), TensorProto.FLOAT), (seen, (B, 8), TensorProto.FLOAT)
    )
    last, each = looped(net, net.integer(4), graph, zeros(net, B, H), outputs=2)
    parts = net.linear(last, H, 3, name="left"), net.mean(net.dense(each, 8, 3, name="right"), 0, keepdims=0)
    return net.build(net.op("Add", *parts))


@row
def loop_captures() -> onnx.ModelProto:
    """A residual stream around a block that is applied several times; its first weight is used outside as well."""
    net = Net("loop_captures")
    x = net.input("x", (B, D))
    start = net.linear(x, D, H, name="embed")
    up = net.weight(H, 2 * H, fan=H, hint="up")
    body, go_on = loop_body(net)
    h = body.input("h", (B, H))
    inner = body.op("Relu", body.op("MatMul", h, up))
    step = body.op("Add", h, body.dense(inner, 2 * H, H, name="down"))
    graph = body.graph((go_on, (), TensorProto.BOOL), (step, (B, H), TensorProto.FLOAT))
    (y,) = looped(net, net.integer(2), graph, start)
    outside = net.dense(net.op("Relu", net.op("MatMul", y, up)), 2 * H, 3, name="outside")
    return net.build(net.op("Add", outside, net.linear(y, H, 3, name="head")), shapes=[(B, 3)])


@row
def loop_with_branches() -> onnx.ModelProto:
    """Every run of a Loop takes one of two branches."""
    net = Net("loop_with_branches")
    x = net.input("x", (B, D))
    body, go_on = loop_body(net)
    h = body.input("h", (B, H))
    then, other = Body(body, "then"), Body(body, "else")
    first = then.floats((cell(then, x, h, name="first"), (B, H)))
    second = other.floats((cell(other, x, h, name="second"), (B, H)))
    step = body.op("If", positive(body, h), then_branch=first, else_branch=second)
    graph = body.graph((go_on, (), TensorProto.BOOL), (step, (B, H), TensorProto.FLOAT))
    (y,) = looped(net, net.integer(3), graph, zeros(net, B, H))
    return net.build(net.linear(y, H, 3, name="head"))


@row
def scan_rnn() -> onnx.ModelProto:
    """A recurrent cell written as a Scan along the second axis of a sequence that a layer makes."""
    net = Net("scan_rnn")
    x = net.input("x", (B, S, D))
    wide = net.op("Relu", net.dense(x, D, 8, name="embed"))
    body = Body(net, "body")
    h, part = body.input("h", (B, H)), body.input("part", (B, 8))
    step = cell(body, part, h, features=8)
    graph = body.floats((step, (B, H)), (body.op("Identity", step), (B, H)))
    last, each = net.ops(
        "Scan", zeros(net, B, H), wide, outputs=2, body=graph, num_scan_inputs=1, scan_input_axes=[1],
        scan_output_axes=[1],
    )  # fmt: skip
    parts = net.linear(last, H, 3, name="left"), net.mean(net.dense(each, H, 3, name="right"), 1, keepdims=0)
    return net.build(net.op("Add", *parts))

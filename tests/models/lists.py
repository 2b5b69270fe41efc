"""Models with sequences and optionals whose elements are known, and with lists that a loop appends to."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper

from models.building import Builder, Net, registrar
from models.control import Body, H, cell, loop_body, positive, zeros

MODELS: dict[str, Builder] = {}
row = registrar(MODELS)

B, D, S = 2, 6, 4


@row
def sequence_split() -> onnx.ModelProto:
    """A sequence of unequal pieces, of which two are read: one from the front, one from the back."""
    net = Net("sequence_split")
    x = net.linear(net.input("x", ("batch", D)), D, 12, name="fc1")
    pieces = net.op("SplitToSequence", x, net.ints(3, 4, 5, hint="sizes"), axis=-1)
    first, last = (net.op("SequenceAt", pieces, net.integer(place)) for place in (0, -1))
    heads = net.linear(net.op("Relu", first), 3, 3, name="left"), net.linear(net.op("Tanh", last), 5, 3, name="right")
    return net.build(net.op("Add", *heads), shapes=[("batch", 3)])


@row
def sequence_rows() -> onnx.ModelProto:
    """One piece a position, without the axis, then stacked again along another axis in another order."""
    net = Net("sequence_rows")
    x = net.input("x", (B, 3, D))
    wide = net.op("Relu", net.dense(x, D, 8, name="fc1"))
    pieces = net.op("SplitToSequence", wide, axis=1, keepdims=0)
    rows = [net.op("SequenceAt", pieces, net.integer(place)) for place in (2, 0, 1)]
    stacked = net.op("ConcatFromSequence", net.op("SequenceConstruct", *rows), axis=0, new_axis=1)
    return net.build(net.mean(net.dense(stacked, 8, 3, name="head"), 0, keepdims=0))


@row
def sequence_edited() -> onnx.ModelProto:
    """Tensors put into a list, taken out of it, and put side by side; its length scales the result."""
    net = Net("sequence_edited")
    x = net.input("x", (B, D))
    a, b, c, d = (net.op("Relu", net.linear(x, D, size, name=f"fc{size}")) for size in (4, 5, 6, 7))
    made = net.op("SequenceInsert", net.op("SequenceEmpty"), a)
    made = net.op("SequenceInsert", made, b, net.integer(0))
    made = net.op("SequenceInsert", net.op("SequenceInsert", made, c), d, net.integer(-1))
    made = net.op("SequenceErase", made, net.integer(1))
    wide = net.op("ConcatFromSequence", made, axis=1)
    length = net.op("Cast", net.op("SequenceLength", made), to=TensorProto.FLOAT)
    return net.build(net.linear(net.op("Mul", wide, length), 18, 3, name="head"))


@row
def optional_tensors() -> onnx.ModelProto:
    """A tensor wrapped as optional, a branch that asks whether it is there, and one that is not."""
    net = Net("optional_tensors")
    x = net.input("x", (B, D))
    h = net.op("Relu", net.linear(x, D, H, name="fc1"))
    wrapped = net.op("Optional", h)
    kind = helper.make_tensor_type_proto(TensorProto.FLOAT, None)
    for value in (wrapped, net.op("Optional", type=kind)):
        there = net.op("OptionalHasElement", value)
        then, other = Body(net, "then"), Body(net, "else")
        first = then.floats((then.linear(then.op("OptionalGetElement", wrapped), H, H, name="inside"), (B, H)))
        second = other.floats((other.op("Tanh", h), (B, H)))
        h = net.op("If", there, then_branch=first, else_branch=second)
    return net.build(net.linear(h, H, 3, name="head"), shapes=[(B, 3)])


@row
def list_appended() -> onnx.ModelProto:
    """A list that a loop appends its state to, stacked along the second axis, as scripted models do it."""
    net = Net("list_appended")
    x = net.input("x", ("batch", S, D))
    body, go_on = loop_body(net)
    h = body.input("h", ("batch", H))
    kind = helper.make_tensor_sequence_value_info(body.fresh("list"), TensorProto.FLOAT, None)
    body.inputs.append(kind)
    step = cell(body, body.op("Gather", x, body.inputs[0].name, axis=1), h)
    longer = body.op("SequenceInsert", kind.name, step)
    graph = body.graph((go_on, (), TensorProto.BOOL), (step, ("batch", H), TensorProto.FLOAT))
    graph.output.append(helper.make_tensor_sequence_value_info(longer, TensorProto.FLOAT, None))
    start = net.op("Expand", zeros(net, 1, H), net.op("Concat", net.size(x, 0), net.ints(H), axis=0))
    runs = net.op("Gather", net.op("Shape", x), net.integer(1), axis=0)
    _, states = net.ops(
        "Loop", runs, net.const(np.array(True), "go"), start, net.op("SequenceEmpty"), outputs=2, body=graph
    )
    stacked = net.op("ConcatFromSequence", states, axis=1, new_axis=1)
    return net.build(net.dense(stacked, H, 3, name="head"), shapes=[("batch", S, 3)])


def unresolved(kind: str) -> onnx.ModelProto:
    """Sequences of which only a run knows the elements."""
    net = Net(kind)
    x = net.input("x", (B, D))
    parts = [net.op("Relu", net.linear(x, D, H, name=name)) for name in ("fc1", "fc2")]
    made = net.op("SequenceConstruct", *parts)
    if kind == "position":
        place = net.op("Cast", net.op("ReduceMax", x, keepdims=0), to=TensorProto.INT64)
        place = net.op("Clip", place, net.integer(0), net.integer(1))
    else:
        then, other = Body(net, "then"), Body(net, "else")
        graphs = []
        for branch, result in ((then, then.op("Identity", made)), (other, other.op("SequenceConstruct", *parts[::-1]))):
            graph = branch.graph()
            graph.output.append(helper.make_tensor_sequence_value_info(result, TensorProto.FLOAT, [B, H]))
            graphs.append(graph)
        made = net.op("If", positive(net, x), then_branch=graphs[0], else_branch=graphs[1])
        place = net.integer(0)
    return net.build(net.linear(net.op("SequenceAt", made, place), H, 3, name="head"), shapes=[(B, 3)])

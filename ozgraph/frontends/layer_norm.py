"""Layer norms that exporters wrote out: recognised, and written as the one operator that they are.

A slot at zero is not the mean, so that nothing could be removed under the separate operators. The pattern is exact:

    mean = ReduceMean(x); d = x - mean; y = d / Sqrt(ReduceMean(d * d) + epsilon); y * scale + bias

over the last axes, the square as Mul or Pow, the division as Div or as Mul by Reciprocal, the bias optional, and
nothing in between read by anyone else. What deviates in any way stays as it is, and so do half and double precision.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

_OPSET = 17
"""LayerNormalization exists from here on."""


def fuse_layer_norms(model: ir.Model) -> int:
    """Put LayerNormalization in the place of every written-out layer norm of the main graph, in place; how many."""
    graph = model.graph
    if graph.opset_imports.get("", 0) < _OPSET:
        return 0
    count = 0
    for node in list(graph):
        if node.op_type in ("Div", "Mul") and node.domain in ("", "ai.onnx") and node.graph is graph:
            found = _match(node)
            if found is not None:
                _replace(graph, found)
                count += 1
    return count


@dataclass(slots=True)
class _Norm:
    """A match: ``nodes`` go, ``result`` is what they compute."""

    source: ir.Value
    axes: int
    epsilon: float
    nodes: list[ir.Node]
    result: ir.Value
    scale: ir.Value | None = None
    bias: ir.Value | None = None


def _match(last: ir.Node) -> _Norm | None:
    """The norm whose division ``last`` is."""
    halves = _division(last)
    if halves is None:
        return None
    centred, deviation, nodes = halves
    root = _made_by(deviation, "Sqrt")
    added = _made_by(root.inputs[0], "Add") if root is not None else None
    if root is None or added is None:
        return None
    parts = _with_number(added)
    difference = _made_by(centred, "Sub", inner=False)
    if parts is None or difference is None:
        return None
    variance, epsilon = parts
    averaged = _made_by(variance, "ReduceMean")
    square = _squared(averaged.inputs[0]) if averaged is not None else None
    mean = _made_by(difference.inputs[1], "ReduceMean", inner=False)
    if averaged is None or square is None or mean is None:
        return None
    squarer, base = square
    source = mean.inputs[0]
    twin = base.producer()
    # Some exporters take the mean off twice, once for the square.
    if base is not centred and (twin is None or twin.op_type != "Sub" or list(twin.inputs) != list(difference.inputs)):
        return None
    if source is None or difference.inputs[0] is not source or source.const_value is not None:
        return None
    axes = _last_axes(mean)
    if not axes or axes != _last_axes(averaged):
        return None
    nodes += [root, added, averaged, squarer, difference, mean]
    if twin is not None and twin is not difference:
        nodes.append(twin)
    mine = set(nodes)
    inside = [value for node in nodes if node is not last for value in node.outputs]
    if any(value.is_graph_output() or any(use.node not in mine for use in value.uses()) for value in inside):
        return None
    found = _Norm(source, axes, epsilon, nodes, last.outputs[0])
    _take_affine(found)
    # A scale made up here would be a weight that the file does not have.
    return found if found.scale is not None else None


def _division(node: ir.Node) -> tuple[ir.Value, ir.Value, list[ir.Node]] | None:
    """(what is divided, the divisor, the nodes) of a Div, or of a Mul by a Reciprocal."""
    left, right = node.inputs[0], node.inputs[1]
    if left is None or right is None:
        return None
    if node.op_type == "Div":
        return left, right, [node]
    for centred, inverse in ((left, right), (right, left)):
        reciprocal = _made_by(inverse, "Reciprocal")
        if reciprocal is not None and reciprocal.inputs[0] is not None:
            return centred, reciprocal.inputs[0], [node, reciprocal]
    return None


def _made_by(value: ir.Value | None, kind: str, *, inner: bool = True) -> ir.Node | None:
    """The node of this type that makes a value; an ``inner`` value has no other use."""
    node = None if value is None else value.producer()
    if value is None or node is None or node.op_type != kind or node.domain not in ("", "ai.onnx"):
        return None
    return node if not inner or len(value.uses()) == 1 else None


def _squared(value: ir.Value | None) -> tuple[ir.Node, ir.Value] | None:
    """(the node that squares, what it squares)."""
    product = _made_by(value, "Mul")
    if product is not None and product.inputs[0] is product.inputs[1] and product.inputs[0] is not None:
        return product, product.inputs[0]
    power = _made_by(value, "Pow")
    if power is not None and power.inputs[0] is not None and _number(power.inputs[1]) == 2.0:
        return power, power.inputs[0]
    return None


def _with_number(node: ir.Node) -> tuple[ir.Value, float] | None:
    """(the other operand, the number) of a sum with one constant number, in single precision."""
    for value, other in ((node.inputs[0], node.inputs[1]), (node.inputs[1], node.inputs[0])):
        number = _number(other)
        if value is None or other is None or number is None or other.const_value is None:
            continue
        if np.isfinite(number) and number >= 0 and other.const_value.dtype == ir.DataType.FLOAT:
            return value, number
    return None


def _number(value: ir.Value | None) -> float | None:
    tensor = None if value is None else value.const_value
    if value is None or tensor is None or value.is_graph_input() or tensor.size != 1 or len(tensor.shape) > 1:
        return None
    return float(tensor.numpy().reshape(()))


def _last_axes(node: ir.Node) -> int:
    """How many axes, the last ones, a mean runs over and keeps; 0 where it is any other."""
    if node.attributes.get_int("keepdims", 1) != 1:
        return 0
    given = node.attributes.get_ints("axes", None)
    if given is None:
        operand = node.inputs[1] if len(node.inputs) > 1 else None
        if operand is None or operand.const_value is None or operand.is_graph_input():
            return 0
        given = tuple(int(axis) for axis in operand.const_value.numpy().ravel())
    source = node.inputs[0]
    rank = len(source.shape) if source is not None and source.shape is not None else None
    if any(axis >= 0 for axis in given) and rank is None:
        return 0
    below = sorted(axis - rank if axis >= 0 and rank is not None else axis for axis in given)
    return len(below) if below == list(range(-len(below), 0)) else 0


def _take_affine(norm: _Norm) -> None:
    """Take a scale, then a bias, along where they are constants of the normalised axes."""
    shapes: list[tuple[int, ...]] = []

    def follow(kind: str, fits: Callable[[tuple[int, ...]], bool]) -> ir.Value | None:
        uses = tuple(norm.result.uses())
        if len(uses) != 1 or norm.result.is_graph_output():
            return None
        node = uses[0].node
        if node.op_type != kind or node.domain not in ("", "ai.onnx") or len(node.inputs) != 2:
            return None
        operand = node.inputs[1 - uses[0].idx]
        tensor = None if operand is None else operand.const_value
        if operand is None or tensor is None or not operand.is_initializer() or tensor.dtype != ir.DataType.FLOAT:
            return None
        shape = tuple(int(size) for size in tensor.shape.numpy())
        if not fits(shape):
            return None
        shapes.append(shape)
        norm.nodes.append(node)
        norm.result = node.outputs[0]
        return operand

    norm.scale = follow("Mul", lambda shape: len(shape) == norm.axes and min(shape) > 1)
    if norm.scale is not None:
        norm.bias = follow("Add", lambda shape: shape == shapes[0])


def _replace(graph: ir.Graph, norm: _Norm) -> None:
    last = norm.result.producer()
    assert last is not None
    inputs = [norm.source, norm.scale, *([norm.bias] if norm.bias is not None else [])]
    attributes = {"axis": -norm.axes, "epsilon": norm.epsilon}
    made = ir.node("LayerNormalization", inputs, attributes=attributes, name=last.name, version=last.version)
    made.metadata_props.update(last.metadata_props)
    ir.convenience.replace_nodes_and_values(graph, last, norm.nodes, [made], [norm.result], [made.outputs[0]])

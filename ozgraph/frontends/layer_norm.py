"""Layer norms that exporters wrote out: recognised, and written as the one operator that they are.

A slot at zero is not the mean, so that nothing could be removed under the separate operators. The pattern is exact:

    mean = ReduceMean(x); d = x - mean; y = d / Sqrt(variance + epsilon); y * scale + bias

over the last axes, the division as Div or as Mul by Reciprocal, the bias optional, and nothing in between read by
anyone else. TensorFlow multiplies out, with s = scale * Reciprocal(Sqrt(variance + epsilon)):

    y = x * s + (bias - mean * s)

A mean may be a GlobalAveragePool. The variance is ReduceMean(d * d), the square as Mul or Pow, or, as JAX writes it,
Max(ReduceMean(x * x) - mean * mean, 0). What deviates in any way stays as it is, and so do half and double precision.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ozgraph.frontends.shapes import InferenceError, Skeleton

_OPSET = 17
"""LayerNormalization exists from here on."""


RankOf = Callable[[ir.Value], int | None]
"""How many axes a value has, for values whose shape the file does not say; None where it is not known."""


class Ranks:
    """Ranks by inference, which is asked once, and only when one is wanted."""

    def __init__(self, model: ir.Model) -> None:
        self._model = model
        self._found: dict[str, int] | None = None

    def __call__(self, value: ir.Value) -> int | None:
        """How many axes a value has."""
        if self._found is None:
            try:
                shapes = Skeleton(self._model).infer({}, walk=False).shapes
            except InferenceError:
                shapes = {}
            self._found = {name: len(shape) for name, shape in shapes.items()}
        return self._found.get(value.name or "")


def fuse_layer_norms(model: ir.Model, rank_of: RankOf) -> int:
    """Put LayerNormalization in the place of every written-out layer norm of the main graph, in place; how many."""
    graph = model.graph
    if graph.opset_imports.get("", 0) < _OPSET:
        return 0
    count = 0
    for node in list(graph):
        if node.op_type in ("Add", "Div", "Mul") and node.domain in ("", "ai.onnx") and node.graph is graph:
            found = _match(node, rank_of)
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


def _match(last: ir.Node, rank_of: RankOf) -> _Norm | None:
    """The norm that ends with ``last``: a division, or the sum of what was multiplied out."""
    find = _multiplied_out if last.op_type == "Add" else _divided
    found = find(last, rank_of)
    if found is None:
        return None
    found.nodes = list(dict.fromkeys(found.nodes))
    mine = set(found.nodes)
    inside = [value for node in mine if node is not last for value in node.outputs]
    if any(value.is_graph_output() or any(use.node not in mine for use in value.uses()) for value in inside):
        return None
    if found.scale is None:
        _take_affine(found)
    # A scale made up here would be a weight that the file does not have.
    return found if found.scale is not None else None


def _divided(last: ir.Node, rank_of: RankOf) -> _Norm | None:
    """``d / Sqrt(variance + epsilon)``."""
    halves = _division(last)
    if halves is None:
        return None
    centred, deviation, nodes = halves
    difference = _made_by(centred, "Sub", inner=False)
    if difference is None:
        return None
    found = _statistics(deviation, difference.inputs[0], difference.inputs[1], rank_of)
    if found is None:
        return None
    found.nodes += [*nodes, difference]
    found.result = last.outputs[0]
    return found


def _multiplied_out(last: ir.Node, rank_of: RankOf) -> _Norm | None:
    """``x * s + (bias - mean * s)``, the difference as a sum with a negative mean."""
    for product, shift in (tuple(last.inputs), tuple(last.inputs)[::-1]):
        scaled, moved = _made_by(product, "Mul"), _made_by(shift, "Add")
        if scaled is None or moved is None:
            continue
        for part, bias in (tuple(moved.inputs), tuple(moved.inputs)[::-1]):
            inner = _made_by(part, "Mul")
            if inner is None:
                continue
            for source, factor in (tuple(scaled.inputs), tuple(scaled.inputs)[::-1]):
                if factor is None or factor not in inner.inputs:
                    continue
                negative = _made_by(next(value for value in inner.inputs if value is not factor), "Neg")
                slope = _made_by(factor, "Mul", inner=False)
                if negative is None or slope is None:
                    continue
                for inverse, scale in (tuple(slope.inputs), tuple(slope.inputs)[::-1]):
                    reciprocal = _made_by(inverse, "Reciprocal")
                    if reciprocal is None:
                        continue
                    found = _statistics(reciprocal.inputs[0], source, negative.inputs[0], rank_of)
                    if found is None or not _take_leading(found, scale, bias):
                        continue
                    found.nodes += [last, scaled, moved, inner, negative, slope, reciprocal]
                    found.result = last.outputs[0]
                    return found
    return None


def _statistics(
    deviation: ir.Value | None, source: ir.Value | None, average: ir.Value | None, rank_of: RankOf
) -> _Norm | None:
    """A norm of ``source`` whose divisor and mean these are; its result is not known yet."""
    root = _made_by(deviation, "Sqrt")
    added = _made_by(root.inputs[0], "Add") if root is not None else None
    parts = _with_number(added) if added is not None else None
    mean = _mean(average)
    if root is None or added is None or parts is None or mean is None:
        return None
    if source is None or mean.inputs[0] is not source or source.const_value is not None:
        return None
    variance, epsilon = parts
    found = _spread(variance, source, mean) or _second_moment(variance, source, mean)
    if found is None:
        return None
    averaged, nodes = found
    axes = _last_axes(mean, source, rank_of)
    if not axes or axes != _last_axes(averaged, source, rank_of):
        return None
    return _Norm(source, axes, epsilon, [root, added, mean, *nodes], root.outputs[0])


_Variance = tuple[ir.Node, list[ir.Node]]
"""(the second mean, all nodes)."""


def _spread(variance: ir.Value, source: ir.Value, mean: ir.Node) -> _Variance | None:
    """``ReduceMean(d * d)``; d may be a difference of its own, which some exporters write for the square."""
    averaged = _mean(variance)
    square = _squared(averaged.inputs[0]) if averaged is not None else None
    difference = _made_by(square[1], "Sub", inner=False) if square is not None else None
    if averaged is None or square is None or difference is None:
        return None
    if list(difference.inputs) != [source, mean.outputs[0]]:
        return None
    return averaged, [averaged, square[0], difference]


def _second_moment(variance: ir.Value, source: ir.Value, mean: ir.Node) -> _Variance | None:
    """``Max(ReduceMean(x * x) - mean * mean, 0)``."""
    nodes = []
    clamped = _made_by(variance, "Max")
    if clamped is not None:
        if len(clamped.inputs) != 2 or 0.0 not in map(_number, clamped.inputs):
            return None
        nodes.append(clamped)
        variance = next(value for value in clamped.inputs if value is not None and _number(value) is None)
    difference = _made_by(variance, "Sub")
    moment = _mean(difference.inputs[0]) if difference is not None else None
    above = _squared(moment.inputs[0]) if moment is not None else None
    below = _squared(difference.inputs[1]) if difference is not None else None
    if difference is None or moment is None or above is None or below is None:
        return None
    if above[1] is not source or below[1] is not mean.outputs[0]:
        return None
    return moment, [*nodes, difference, moment, above[0], below[0]]


def _mean(value: ir.Value | None) -> ir.Node | None:
    """The node that makes a value as a mean."""
    found = _made_by(value, "ReduceMean", inner=False)
    return found if found is not None else _made_by(value, "GlobalAveragePool", inner=False)


def _take_leading(norm: _Norm, scale: ir.Value | None, bias: ir.Value | None) -> bool:
    """Take a scale and a bias, which may have axes of size one ahead of the normalised ones."""
    for value in (scale, bias):
        tensor = None if value is None else value.const_value
        if value is None or tensor is None or not value.is_initializer() or value.is_graph_input():
            return False
        sizes = tuple(int(size) for size in tensor.shape.numpy())
        ahead, last = sizes[: len(sizes) - norm.axes], sizes[len(sizes) - norm.axes :]
        if tensor.dtype != ir.DataType.FLOAT or set(ahead) - {1} or len(last) != norm.axes or min(last) < 2:
            return False
    assert scale is not None and bias is not None
    if scale.const_value is None or bias.const_value is None or scale.const_value.size != bias.const_value.size:
        return False
    norm.scale, norm.bias = scale, bias
    return True


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


def _last_axes(node: ir.Node, source: ir.Value, rank_of: RankOf) -> int:
    """How many axes, the last ones, a mean runs over and keeps; 0 where it is any other.

    Args:
        source: a value with as many axes as the operand of the mean.
    """

    def rank() -> int | None:
        return rank_of(source) if source.shape is None else len(source.shape)

    if node.op_type == "GlobalAveragePool":
        return max((rank() or 0) - 2, 0)
    if node.attributes.get_int("keepdims", 1) != 1:
        return 0
    given = node.attributes.get_ints("axes", None)
    if given is None:
        operand = node.inputs[1] if len(node.inputs) > 1 else None
        if operand is None or operand.const_value is None or operand.is_graph_input():
            return 0
        given = tuple(int(axis) for axis in operand.const_value.numpy().ravel())
    if any(axis >= 0 for axis in given):
        axes = rank()
        if axes is None:
            return 0
        given = tuple(axis - axes if axis >= 0 else axis for axis in given)
    return len(given) if sorted(given) == list(range(-len(given), 0)) else 0


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
    made: list[ir.Node] = []
    for name in ("scale", "bias"):
        value = getattr(norm, name)
        if value is not None and len(value.const_value.shape) > norm.axes:
            # The weight keeps its shape: it is the caller's.
            ahead = ir.tensor(np.arange(len(value.const_value.shape) - norm.axes))
            axes = ir.node("Constant", [], attributes={"value": ahead}, version=last.version)
            made += [axes, ir.node("Squeeze", [value, axes.outputs[0]], version=last.version)]
            setattr(norm, name, made[-1].outputs[0])
    inputs = [norm.source, norm.scale, *([norm.bias] if norm.bias is not None else [])]
    attributes = {"axis": -norm.axes, "epsilon": norm.epsilon}
    fused = ir.node("LayerNormalization", inputs, attributes=attributes, name=last.name, version=last.version)
    fused.metadata_props.update(last.metadata_props)
    made.append(fused)
    ir.convenience.replace_nodes_and_values(graph, last, norm.nodes, made, [norm.result], [fused.outputs[0]])

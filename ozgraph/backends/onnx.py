"""ONNX out: carry out a plan, or zero chosen positions, on a copy of the loaded model.

Weights are shared with the original and sliced when they are written, one at a time. The original is never changed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx_ir as ir

from ozgraph.backends.files import check, write
from ozgraph.backends.model_copy import Changed, ModelCopy, Slice, Zero, copy_of, cut, lazily
from ozgraph.backends.rewriting import replace_op, rewrite_op
from ozgraph.backends.taking import take_apart
from ozgraph.blocks import Tile
from ozgraph.frontends import shared_fills
from ozgraph.frontends.normal_form import drop_unused
from ozgraph.graph import Array, Graph, Value
from ozgraph.plan import Indices, Plan, Zeroing
from ozgraph.rules.parameters import encoding


def apply(graph: Graph, plan: Plan) -> ir.Model:
    """The pruned model that ``plan`` describes.

    ``plan.takes`` count positions along the operand as it is after ``plan.keep``. Inputs, outputs, their names and
    order, metadata, documentation and opset imports stay as in the original; ``write`` puts the model into a file.

    Args:
        graph: a graph that :func:`ozgraph.frontends.onnx.load` made.
        plan: what to keep and rewrite.
    """
    copy = copy_of(graph)
    for constant, axes in _by_value(plan.keep).items():
        _keep(copy, constant, axes)
    take_apart(copy, plan)
    for op, rewrite in plan.rewrites.items():
        rewrite_op(copy, op, rewrite)
    for op, sequence in plan.replacements.items():
        replace_op(copy, op, sequence)
    _set_shapes(copy, plan.shapes)
    shared_fills.join(copy.model.graph, graph.origin.parted)
    drop_unused(copy.model)
    return copy.model


def zeroed(graph: Graph, zeroing: Zeroing) -> ir.Model:
    """The original model with the given positions of its constants at zero.

    A quantized weight's zero is the zero point of the operator that reads it.
    """
    copy = copy_of(graph)
    for constant, axes in _by_value(zeroing).items():
        source = copy.values[constant]
        assert constant.constant is not None and constant.shape is not None
        held = _held(source)
        if held is not None:
            tensor = lazily(held.attributes["value"].value, constant.shape, Zero(axes))
            held.attributes["value"] = ir.AttrTensor("value", tensor)
            continue
        if source.const_value is None:  # filled by a node: an initializer takes its place
            _replace_fill(copy, source, constant, axes)
            continue
        source.const_value = lazily(source.const_value, constant.shape, Zero(axes, _zero_point(constant)))
    drop_unused(copy.model)
    return copy.model


def _by_value(positions: Mapping[tuple[Value, int], Indices]) -> dict[Value, list[tuple[int, Indices]]]:
    grouped: dict[Value, list[tuple[int, Indices]]] = {}
    for (value, axis), indices in positions.items():
        grouped.setdefault(value, []).append((axis, indices))
    return grouped


def _held(source: ir.Value) -> ir.Node | None:
    """The Constant node behind a constant that is also a graph output."""
    node = source.producer()
    return node if node is not None and node.op_type == "Constant" else None


def _keep(copy: ModelCopy, constant: Value, axes: list[tuple[int, Indices]]) -> None:
    source = copy.values[constant]
    assert constant.shape is not None
    shape = cut(constant.shape, axes)
    if source.const_value is not None:
        source.const_value = lazily(source.const_value, shape, Slice(axes))
    elif (held := _held(source)) is not None:
        held.attributes["value"] = ir.AttrTensor("value", lazily(held.attributes["value"].value, shape, Slice(axes)))
    else:
        node = source.producer()
        assert node is not None
        node.replace_input_with(0, copy.constant(f"{source.name}_shape", np.array(shape, dtype=np.int64)))
    source.shape = ir.Shape(shape)


def _replace_fill(copy: ModelCopy, source: ir.Value, constant: Value, axes: list[tuple[int, Indices]]) -> None:
    """Put an initializer of zeros and fills in the place of a ConstantOfShape node."""
    node = source.producer()
    weight = constant.constant
    assert node is not None and weight is not None and constant.shape is not None and source.name is not None
    name = source.name
    source.name = None
    dtype = ir.DataType.from_numpy(weight.numpy().dtype)
    tensor = Changed(weight.numpy, constant.shape, Zero(axes), dtype=dtype, name=name)
    value = copy.initializer(name, tensor)
    source.replace_all_uses_with(value, replace_graph_outputs=True)
    graph = node.graph
    assert isinstance(graph, ir.Graph)
    graph.remove(node, safe=True)
    copy.values[constant] = value


def _zero_point(constant: Value) -> Callable[[Tile], Array] | None:
    """What stands for zero in a quantized weight: its zero point, tile by tile."""
    narrow = constant.dtype is not None and constant.dtype.itemsize == 1
    how = encoding(constant) if narrow or not constant.is_float else None
    return None if how is None else how.zeros


def _set_shapes(copy: ModelCopy, shapes: Mapping[Value, tuple[int, ...]]) -> None:
    """Declare the new shapes, keep the names of dynamic axes, and correct declarations that were stale."""
    inputs, outputs = set(copy.model.graph.inputs), set(copy.model.graph.outputs)
    for value, source in copy.values.items():
        shape = shapes.get(value, value.shape)
        if source.is_initializer() or (source in inputs and value not in shapes):
            continue
        if shape is None or not isinstance(source.type, ir.TensorType):
            if value in shapes:
                source.shape = None
            continue
        if source.shape is None and source not in outputs:
            continue
        declared: list[Any] = list(source.shape) if source.shape is not None else [None] * len(shape)
        if len(declared) != len(shape):
            declared = [None] * len(shape)
        flags = value.dynamic if len(value.dynamic) == len(shape) else (True,) * len(shape)
        extents = [
            _extent(old, size, before, flag)
            for old, size, before, flag in zip(declared, shape, value.shape or shape, flags, strict=True)
        ]
        source.shape = ir.Shape(extents)


def _extent(old: Any, size: int, before: int, varies: bool) -> int | ir.SymbolicDim | None:
    """The size to declare: names stay, numbers follow the plan, and what varies is no number unless it was."""
    if isinstance(old, ir.SymbolicDim) and old.value is not None:
        return old
    if not varies:
        return size
    return old if old == size == before else None


__all__ = ["apply", "check", "write", "zeroed"]

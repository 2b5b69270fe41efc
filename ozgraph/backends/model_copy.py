"""A copy of the loaded model that may be changed, and tensors that change lazily."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir

from ozgraph.frontends.control_flow import graphs_of
from ozgraph.frontends.onnx import OnnxOrigin
from ozgraph.graph import Array, Graph, Op, Value
from ozgraph.plan import Indices

EXTERNAL = "ozgraph.external"
"""Set in ``Model.meta`` of models whose weights came from external data: they go back there."""


@dataclass(slots=True)
class ModelCopy:
    """A copy of the loaded model, with the way from the graph to its nodes and values."""

    graph: Graph
    model: ir.Model
    values: dict[Value, ir.Value]
    nodes: dict[Op, ir.Node]
    names: set[str] = field(default_factory=set)
    constants: dict[tuple[Any, ...], ir.Value] = field(default_factory=dict)

    def unique(self, name: str) -> str:
        """``name``, or the first numbered form of it that nothing in the model uses."""
        candidate, count = name, 0
        while candidate in self.names:
            count += 1
            candidate = f"{name}_{count}"
        self.names.add(candidate)
        return candidate

    def constant(self, name: str, array: Array) -> ir.Value:
        """A new initializer; equal small integer ones are shared."""
        key = (array.dtype.str, array.shape, array.tobytes()) if array.size <= 64 and array.dtype.kind == "i" else None
        if key is not None and key in self.constants:
            return self.constants[key]
        name = self.unique(name)
        tensor = ir.Tensor(np.ascontiguousarray(array).reshape(array.shape), name=name)
        value = self.initializer(name, tensor)
        if key is not None:
            self.constants[key] = value
        return value

    def initializer(self, name: str, tensor: ir.TensorProtocol) -> ir.Value:
        """Register ``tensor`` under ``name``."""
        shape = ir.Shape(tensor.shape.numpy())
        value = ir.Value(name=name, shape=shape, type=ir.TensorType(tensor.dtype), const_value=tensor)
        self.model.graph.register_initializer(value)
        return value


def copy_of(graph: Graph) -> ModelCopy:
    """A copy of the loaded model that may be changed; its weights are shared."""
    origin = graph.origin
    assert isinstance(origin, OnnxOrigin), "only graphs from the ONNX frontend can be written as ONNX"
    model = origin.model.clone()
    model.meta[EXTERNAL] = origin.external
    twins: dict[ir.Value, ir.Value] = dict(zip(origin.model.graph.inputs, model.graph.inputs, strict=True))
    for name, value in origin.model.graph.initializers.items():
        twins[value] = model.graph.initializers[name]
    nodes: dict[ir.Node, ir.Node] = {}
    pending = [(origin.model.graph, model.graph)]
    for part, copied in pending:
        for node, twin in zip(part, copied, strict=True):
            nodes[node] = twin
            twins.update(zip(node.outputs, twin.outputs, strict=True))
            for body, twin_body in zip(graphs_of(node), graphs_of(twin), strict=True):
                twins.update(zip(body.inputs, twin_body.inputs, strict=True))
                pending.append((body, twin_body))
    names = {
        value.name
        for part in model.graphs()
        for value in (*part.inputs, *part.initializers.values(), *(out for node in part for out in node.outputs))
        if value.name
    }
    return ModelCopy(
        graph,
        model,
        {value: twins[source] for value, source in origin.values.items()},
        {op: nodes[node] for op, node in origin.nodes.items()},
        names,
    )


@dataclass(frozen=True, slots=True)
class Slice:
    """Keep positions along some axes."""

    axes: list[tuple[int, Indices]]

    def __call__(self, array: Array) -> Array:
        """The kept positions of ``array``."""
        for axis, positions in self.axes:
            array = array.take(positions, axis=axis)
        return array


@dataclass(frozen=True, slots=True)
class Zero:
    """Set positions along some axes to ``point``, which broadcasts against the tensor."""

    axes: list[tuple[int, Indices]]
    point: Array | None = None

    def __call__(self, array: Array) -> Array:
        """A copy of ``array`` with the positions at zero."""
        array = np.array(array)
        for axis, positions in self.axes:
            index = (slice(None),) * axis + (positions,)
            array[index] = 0 if self.point is None else np.broadcast_to(self.point, array.shape)[index]
        return array


def lazily(tensor: ir.TensorProtocol, shape: tuple[int, ...], change: Slice | Zero) -> ir.TensorProtocol:
    """``tensor`` after ``change``, computed each time it is read and never kept."""

    def evaluate() -> ir.TensorProtocol:
        array = np.ascontiguousarray(change(tensor.numpy())).reshape(shape)
        return ir.Tensor(array, dtype=tensor.dtype, name=tensor.name)

    return ir.LazyTensor(
        evaluate,
        dtype=tensor.dtype,
        shape=ir.Shape(shape),
        name=tensor.name,
        doc_string=tensor.doc_string,
        metadata_props=dict(tensor.metadata_props),
    )


def cut(shape: Iterable[int], axes: Iterable[tuple[int, Indices]]) -> tuple[int, ...]:
    """The shape that is left of ``shape``."""
    sizes = [int(extent) for extent in shape]
    for axis, positions in axes:
        sizes[axis] = len(positions)
    return tuple(sizes)

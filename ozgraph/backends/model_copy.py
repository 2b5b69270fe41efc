"""A copy of the loaded model that may be changed, and tensors that change lazily."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir

from ozgraph.blocks import Tile, tiles, within
from ozgraph.frontends.control_flow import graphs_of
from ozgraph.frontends.onnx import OnnxOrigin
from ozgraph.frontends.tensors import elements
from ozgraph.graph import Array, Graph, Op, Value
from ozgraph.names import fresh
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
        return fresh(name, self.names, first=1)

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

    def inside(self, tile: Tile) -> Slice:
        """The same for the part of a tensor in ``tile``; positions must rise."""
        return Slice([(axis, within(positions, tile[axis])) for axis, positions in self.axes])


@dataclass(frozen=True, slots=True)
class Zero:
    """Set positions along some axes to what stands for zero.

    Attributes:
        point: a tile of the tensor -> what stands for zero there, broadcasting against it; None is zero itself.
        tile: the part of the tensor that is given; None is all of it.
    """

    axes: list[tuple[int, Indices]]
    point: Callable[[Tile], Array] | None = None
    tile: Tile | None = None

    def __call__(self, array: Array) -> Array:
        """A copy of ``array`` with the positions at zero."""
        array = np.array(array)
        whole = tuple(slice(0, extent) for extent in array.shape)
        zero = np.zeros(()) if self.point is None else self.point(self.tile or whole)
        zeros = np.broadcast_to(zero, array.shape)
        for axis, positions in self.axes:
            index = (slice(None),) * axis + (positions,)
            array[index] = zeros[index]
        return array

    def inside(self, tile: Tile) -> Zero:
        """The same for the part of a tensor in ``tile``; positions must rise."""
        return Zero([(axis, within(positions, tile[axis])) for axis, positions in self.axes], self.point, tile)


class Changed(ir.LazyTensor):
    """A tensor with a change that is made each time it is read; written a block at a time.

    Args:
        source: the elements before the change, a memory map where they are large.
        shape: what the change leaves.
        known: dtype, name and documentation, as for any ``LazyTensor``.
    """

    def __init__(self, source: Callable[[], Array], shape: tuple[int, ...], change: Slice | Zero, **known: Any) -> None:
        super().__init__(self._whole, shape=ir.Shape(shape), **known)
        self._source, self._change, self._sizes = source, change, shape

    def _whole(self) -> ir.TensorProtocol:
        array = np.ascontiguousarray(self._change(self._source())).reshape(self._sizes)
        return ir.Tensor(array, dtype=self.dtype, name=self.name)

    def tofile(self, file: Any) -> None:
        """Write the elements in the order of the file; at no time is there more than a block of them in memory."""
        axes = [axis for axis, _ in self._change.axes]
        rising = all((positions[1:] > positions[:-1]).all() for _, positions in self._change.axes)
        if self.dtype.bitwidth < 8 or sys.byteorder != "little" or not rising or len(set(axes)) < len(axes):
            super().tofile(file)
            return
        array = self._source()
        for tile in tiles(array.shape):
            block = np.ascontiguousarray(self._change.inside(tile)(array[tile]))
            file.write(block.reshape(-1).view(np.uint8))


def lazily(tensor: ir.TensorProtocol, shape: tuple[int, ...], change: Slice | Zero) -> ir.TensorProtocol:
    """``tensor`` after ``change``, computed each time it is read and never kept."""
    return Changed(
        lambda: elements(tensor),
        shape,
        change,
        dtype=tensor.dtype,
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

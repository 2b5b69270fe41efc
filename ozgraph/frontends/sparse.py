"""Sparse tensors: initializers and constants that list what is not zero. They become dense, but only when read.

onnx_ir has no sparse tensors, and onnx's own strict shape inference rejects files with sparse initializers, so what
ozgraph writes is dense.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from ozgraph.errors import ModelError
from ozgraph.frontends import dictionaries, graph_protos, safety
from ozgraph.graph import Array

LARGEST = 1 << 30
"""Sparse tensors with more bytes than this (1 GiB) once they are dense are refused: their files would take any size."""

_WITH_BODIES = frozenset({"If", "Loop", "Scan", "SequenceMap"})

_STAND_IN = "\0sparse/"
"""Location of the external data of what stands for a sparse tensor until onnx_ir has read the model."""


def to_ir(proto: onnx.ModelProto, where: str) -> ir.Model:
    """``proto`` as onnx_ir reads it, sparse tensors as dense ones whose elements are put together on every reading.

    Args:
        proto: checked, but for its sparse tensors; left as it is.
        where: what errors call the model.

    Raises:
        ModelError: a sparse tensor is damaged or too large.
    """
    proto = dictionaries.hidden(proto)
    if not present(proto):
        return ir.from_proto(proto)
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    dense = _taken_out(copy, where)
    model = ir.from_proto(copy)
    functions = list(model.functions.values())
    for graph in (*model.graphs(), *(body for function in functions for body in function.subgraphs())):
        for value in graph.initializers.values():
            found = _meant(value.const_value, dense)
            if found is not None:
                value.const_value = _lazy(found, value.name)
    for node in (*model.graph.all_nodes(), *(node for function in functions for node in function.all_nodes())):
        attribute = node.attributes.get("value")
        if attribute is not None and attribute.type == ir.AttributeType.TENSOR:
            found = _meant(attribute.value, dense)
            if found is not None:
                node.attributes["value"] = ir.AttrTensor("value", _lazy(found, attribute.value.name))
    return model


def present(proto: onnx.ModelProto) -> bool:
    """Whether a model has a sparse initializer, or a constant that is sparse.

    It is asked of every model: attributes are looked at only where there may be one, or a body.
    """
    pending: list[onnx.GraphProto | onnx.FunctionProto] = [proto.graph, *proto.functions]
    while pending:
        part = pending.pop()
        if isinstance(part, onnx.GraphProto) and part.sparse_initializer:
            return True
        for node in part.node:
            if node.op_type == "Constant":
                if any(_is_sparse(attribute) for attribute in node.attribute):
                    return True
            elif node.op_type in _WITH_BODIES or node.domain:
                pending.extend(graph_protos.bodies(node))
    return False


def _is_sparse(attribute: onnx.AttributeProto) -> bool:
    return attribute.HasField("sparse_tensor") or attribute.type == onnx.AttributeProto.SPARSE_TENSOR


def _taken_out(proto: onnx.ModelProto, where: str) -> list[onnx.SparseTensorProto]:
    """Put stand-ins into the places of sparse tensors, which are returned."""
    found: list[onnx.SparseTensorProto] = []

    def stand_in(tensor: onnx.SparseTensorProto, name: str, target: onnx.TensorProto) -> None:
        check_sparse(tensor, f"{where}: sparse tensor {name!r}")
        kept = onnx.SparseTensorProto()
        kept.CopyFrom(tensor)
        target.name, target.data_type = name, tensor.values.data_type
        target.dims.extend(tensor.dims)
        target.data_location = onnx.TensorProto.EXTERNAL
        target.external_data.add(key="location", value=f"{_STAND_IN}{len(found)}")
        found.append(kept)

    for part in graph_protos.parts(proto):
        if isinstance(part, onnx.GraphProto):
            for tensor in part.sparse_initializer:
                stand_in(tensor, tensor.values.name, part.initializer.add())
            del part.sparse_initializer[:]
        for node in part.node:
            for attribute in node.attribute:
                if node.op_type == "Constant" and _is_sparse(attribute):
                    name = node.output[0] if node.output else ""
                    tensor = onnx.SparseTensorProto()
                    tensor.CopyFrom(attribute.sparse_tensor)
                    attribute.Clear()
                    attribute.name, attribute.type = "value", onnx.AttributeProto.TENSOR
                    stand_in(tensor, name, attribute.t)
    return found


def _meant(tensor: ir.TensorProtocol | None, dense: list[onnx.SparseTensorProto]) -> onnx.SparseTensorProto | None:
    """The sparse tensor that a stand-in stands for."""
    if not isinstance(tensor, ir.ExternalTensor):
        return None
    location = str(tensor.location)
    number = location.removeprefix(_STAND_IN)
    return dense[int(number)] if number != location and number.isdecimal() and int(number) < len(dense) else None


def _lazy(tensor: onnx.SparseTensorProto, name: str | None) -> ir.TensorProtocol:
    dtype = ir.DataType(tensor.values.data_type)

    def evaluate() -> ir.TensorProtocol:
        return ir.Tensor(dense(tensor), dtype=dtype, name=name)

    return ir.LazyTensor(evaluate, dtype=dtype, shape=ir.Shape(list(tensor.dims)), name=name)


def dense(tensor: onnx.SparseTensorProto) -> Array:
    """The elements of a sparse tensor that has been checked, zeros included."""
    values = onnx.numpy_helper.to_array(tensor.values)
    indices = onnx.numpy_helper.to_array(tensor.indices)
    array: np.ndarray[Any, Any] = np.zeros(tuple(tensor.dims), dtype=values.dtype)
    if indices.ndim == 2:
        array[tuple(indices.T)] = values
    else:
        array.reshape(-1)[indices] = values
    return array


def check_sparse(tensor: onnx.SparseTensorProto, what: str) -> None:
    """Refuse a sparse tensor whose parts do not fit together, before memory of its size is taken.

    Raises:
        ModelError: with one sentence; ``what`` names the tensor.
    """
    again = "the file is damaged, export the model again"
    for part in (tensor.values, tensor.indices):
        if part.data_location == onnx.TensorProto.EXTERNAL:
            raise ModelError(f"{what} keeps its elements in another file, which nothing reads; store it dense")
        safety.check_tensor(part, what)
    if tensor.values.data_type == onnx.TensorProto.STRING:
        raise ModelError(f"{what} holds strings; store it dense")
    count, rank = safety.elements(tensor.dims, what), len(tensor.dims)
    size = count * -(-ir.DataType(tensor.values.data_type).bitwidth // 8)
    if size > LARGEST:
        raise ModelError(f"{what} would take {size:,} bytes once it is dense, over 1 GiB; store it dense")
    listed = list(tensor.values.dims)
    if not rank or len(listed) != 1:
        raise ModelError(f"{what} has {rank} axes and elements of the shape {listed}, where a list belongs; {again}")
    places = list(tensor.indices.dims)
    if tensor.indices.data_type != onnx.TensorProto.INT64 or places not in ([listed[0]], [listed[0], rank]):
        raise ModelError(f"{what} has {listed[0]} elements and indexes of the shape {places}; {again}")
    indices = onnx.numpy_helper.to_array(tensor.indices)
    limits = np.array([count] if indices.ndim == 1 else list(tensor.dims))
    if indices.size and not ((indices >= 0) & (indices < limits)).all():
        raise ModelError(f"{what} has an index that lies outside its shape {list(tensor.dims)}; {again}")
    flat = indices if indices.ndim == 1 else np.ravel_multi_index(tuple(indices.T), tuple(tensor.dims))
    if (np.diff(flat) <= 0).any():
        raise ModelError(f"{what} has indexes that do not rise; {again}")

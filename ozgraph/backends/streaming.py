"""A model as one protobuf file, written weight by weight.

Protobuf wants a message in memory as a whole, twice. But a message's repeated fields may stand anywhere in it, so the
initializers can follow the rest of the graph, each written from its own tensor.
See https://protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import BinaryIO

import onnx
import onnx_ir as ir

from ozgraph.errors import VerificationError
from ozgraph.frontends import dictionaries
from ozgraph.frontends.hollow import Hollow
from ozgraph.frontends.tensors import elements

_DELIMITED = 2
_GRAPH = onnx.ModelProto.DESCRIPTOR.fields_by_name["graph"].number
_INITIALIZER = onnx.GraphProto.DESCRIPTOR.fields_by_name["initializer"].number
_RAW_DATA = onnx.TensorProto.DESCRIPTOR.fields_by_name["raw_data"].number


def embedded(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    """``tensor`` such that its elements, not a reference to a file, are written."""
    return ir.LazyTensor(
        lambda: ir.Tensor(elements(tensor), dtype=tensor.dtype),
        dtype=tensor.dtype,
        shape=ir.Shape(tensor.shape.numpy()),
        name=tensor.name,
        doc_string=tensor.doc_string,
        metadata_props=dict(tensor.metadata_props),
    )


def stream(model: ir.Model, file: BinaryIO, count: Callable[[ir.TensorProtocol], None]) -> None:
    """Write ``model``, which is the same afterwards; ``count`` hears of every weight written."""
    weights: list[ir.TensorProtocol] = []
    originals: list[tuple[ir.Value, ir.TensorProtocol]] = []
    try:
        for graph in model.graphs():
            for value in graph.initializers.values():
                tensor = value.const_value
                if tensor is None or tensor.dtype == ir.DataType.STRING:
                    continue
                originals.append((value, tensor))
                if graph is model.graph:
                    weights.append(embedded(tensor) if isinstance(tensor, ir.ExternalTensor) else tensor)
                    value.const_value = Hollow(tensor)
                else:
                    value.const_value = embedded(tensor)
        proto = ir.to_proto(model)
        dictionaries.shown(proto)
    finally:
        for value, tensor in originals:
            value.const_value = tensor
    by_name = {tensor.name: tensor for tensor in weights}
    headers: list[tuple[bytes, ir.TensorProtocol]] = []
    strings: list[onnx.TensorProto] = []
    for header in proto.graph.initializer:
        if header.name not in by_name:
            strings.append(header)
            continue
        header.ClearField("raw_data")
        weight = by_name[header.name]
        headers.append((header.SerializeToString() + _tag(_RAW_DATA, int(weight.nbytes)), weight))
    kept = onnx.GraphProto()
    kept.initializer.extend(strings)
    del proto.graph.initializer[:]
    body = proto.graph.SerializeToString() + kept.SerializeToString()
    proto.ClearField("graph")
    sizes = [len(start) + int(weight.nbytes) for start, weight in headers]
    length = len(body) + sum(len(_tag(_INITIALIZER, size)) + size for size in sizes)
    file.write(proto.SerializePartialToString() + _tag(_GRAPH, length) + body)
    for (start, weight), size in zip(headers, sizes, strict=True):
        file.write(_tag(_INITIALIZER, size) + start)
        content = weight.tobytes()
        if len(content) != weight.nbytes:
            raise VerificationError(f"weight {weight.name!r} changed its size while it was written; report this")
        file.write(content)
        count(weight)


def _tag(field: int, length: int) -> bytes:
    """Start of a length-delimited field."""
    return _varint(field << 3 | _DELIMITED) + _varint(length)


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)

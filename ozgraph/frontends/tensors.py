"""Tensors of a model: their elements, and themselves under other names."""

from __future__ import annotations

import onnx_ir as ir

from ozgraph.graph import Array


def alias(tensor: ir.TensorProtocol, name: str | None) -> ir.TensorProtocol:
    """``tensor`` under another name, sharing its data."""
    if isinstance(tensor, ir.ExternalTensor):
        return ir.ExternalTensor(
            tensor.location,
            tensor.offset,
            tensor.length,
            tensor.dtype,
            shape=tensor.shape.copy(),
            name=name or "",
            base_dir=tensor.base_dir,
        )
    if isinstance(tensor, ir.StringTensor):
        return ir.StringTensor(tensor.string_data(), shape=tensor.shape.copy(), name=name)
    shape = ir.Shape(tensor.shape.numpy())
    return ir.LazyTensor(lambda: tensor, dtype=tensor.dtype, shape=shape, name=name)


def elements(tensor: ir.TensorProtocol) -> Array:
    """The elements of a tensor; a view of the memory map for external data, unpacked where several share a byte."""
    array = tensor.numpy()
    if isinstance(tensor, ir.ExternalTensor) and tensor.dtype.bitwidth < 8:
        tensor.release()  # it would keep what it unpacked
    return array

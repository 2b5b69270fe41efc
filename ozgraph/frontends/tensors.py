"""Tensors of a model: their elements, and themselves under other names."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ozgraph.frontends.safety import check_external
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
    """The elements of a tensor; of external data a view of a memory map, unpacked where several share a byte.

    Raises:
        ModelError: the file with external data is not what it was when the model was loaded.
    """
    if not isinstance(tensor, ir.ExternalTensor):
        return tensor.numpy()
    check_external(tensor, "the model")
    if tensor.dtype.bitwidth < 8 or not tensor.size:
        array = tensor.numpy()
        tensor.release()  # it would keep what it unpacked
        return array
    # onnx_ir maps the whole file for every tensor, and keeps the maps: of a few hundred weights in a file of a
    # gigabyte, that takes more addresses than a process may be allowed. Here each map ends where its weight does, and
    # goes when nobody looks at it any more.
    dtype = np.dtype(tensor.dtype.numpy()).newbyteorder("<")
    return np.asarray(np.memmap(tensor.path, dtype, "r", tensor.offset or 0, tuple(tensor.shape.numpy())))

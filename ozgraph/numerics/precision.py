"""Copies of a model to verify it with: in another floating type, with weights that can be mapped, or rounded otherwise.

CPU kernels for float16, bfloat16 and float64 are few, and half precision is too coarse to tell a wrong pruning from
rounding. Its float32 twin computes the same function from the same (converted) weights.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from ozgraph.blocks import tiles
from ozgraph.errors import ModelError
from ozgraph.frontends import dictionaries, sparse
from ozgraph.frontends.tensors import elements
from ozgraph.graph import Array
from ozgraph.numerics.sessions import read_structure

_FLOATS = frozenset({ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.FLOAT, ir.DataType.DOUBLE})
# Attributes that hold an element type, whichever operator carries them.
_TYPE_ATTRIBUTES = frozenset({"to", "dtype", "output_dtype", "output_datatype", "stash_type", "softmax_precision"})
_EXTERNAL_BYTES = 1 << 20
_LARGE_FILE = 1 << 26


def mapped(path: Path, folder: Path) -> Path:
    """``path`` itself, or a copy in ``folder``: with large weights beside it, and with sparse tensors made dense.

    onnxruntime maps weights that are outside the protobuf; inside, every session parses and copies them. Sparse tensors
    it reads in some places only, and in others it crashes.
    """
    if path.is_file() and path.stat().st_size > _LARGE_FILE:
        return _saved(_load(path), path, folder, "mapped")
    return dense(path, folder)


def dense(path: Path, folder: Path) -> Path:
    """``path`` itself, or a copy in ``folder`` with its sparse tensors made dense."""
    return _saved(_load(path), path, folder, "dense") if _has_sparse(path) else path


def _has_sparse(path: Path) -> bool:
    try:
        return path.is_file() and sparse.present(read_structure(path))
    except ModelError:
        return False  # running the file says what is wrong with it


def to_float32(path: Path, folder: Path) -> Path:
    """Write the float32 twin of a float16, bfloat16 or float64 model into ``folder``; return its path."""
    return _retyped(path, folder, ir.DataType.FLOAT)


def to_float64(path: Path, folder: Path) -> Path:
    """Write the float64 twin of a model into ``folder``; return its path.

    Initializers that an operator takes as float32 only (``Resize`` scales) stay.
    """
    return _retyped(path, folder, ir.DataType.DOUBLE)


def nudged(path: Path, folder: Path, seed: int, sign: int) -> Path:
    """Write a twin into ``folder`` with the matrices' numbers each moved by up to two roundings, up or down.

    Zeros stay, and so do vectors and scalars: sizes may be computed from those.

    Args:
        sign: 1, or -1 for the same moves the other way.
    """
    model = _load(path)
    random = np.random.default_rng(seed)
    for graph in _graphs(model):
        for value in graph.initializers.values() if isinstance(graph, ir.Graph) else ():
            tensor = value.const_value
            if tensor is not None and len(tensor.shape) > 1 and tensor.dtype in (ir.DataType.FLOAT, ir.DataType.DOUBLE):
                value.const_value = _Nudged(tensor, int(random.integers(1 << 31)), sign)
    return _saved(model, path, folder, "nudged")


def _retyped(path: Path, folder: Path, target: ir.DataType) -> Path:
    model = _load(path)
    sources = _FLOATS - {target}
    for graph in _graphs(model):
        _retype_graph(graph, sources, target)
    return _saved(model, path, folder, target.name.lower())


def _saved(model: ir.Model, source: Path, folder: Path, label: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    twin = _unused(folder / f"{source.stem}.{label}.onnx")
    try:
        ir.save(model, twin, external_data=f"{twin.name}.data", size_threshold_bytes=_EXTERNAL_BYTES)
        if dictionaries.DOMAIN in model.graph.opset_imports:
            dictionaries.show_in_file(twin)
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot copy {source} for onnxruntime: {error}") from error
    return twin


def _retype_graph(graph: ir.Graph | ir.Function, sources: Collection[int], target: ir.DataType) -> None:
    if isinstance(graph, ir.Graph):
        for value in graph.initializers.values():
            if _stays_float32(value):
                continue
            if value.const_value is not None:
                value.const_value = _converted(value.const_value, sources, target)
            _retype_value(value, sources, target)
    for value in graph.inputs:
        _retype_value(value, sources, target)
    for node in graph:
        for value in node.outputs:
            _retype_value(value, sources, target)
        if node.op_type == "GroupNormalization" and _opset(node, graph) >= 21:
            # Left out, it means float32, whatever the type of the input.
            node.attributes.setdefault("stash_type", ir.AttrInt64("stash_type", int(ir.DataType.FLOAT)))
        for name, attribute in list(node.attributes.items()):
            if not attribute.is_ref():
                del node.attributes[name]
                node.attributes.add(_retyped_attribute(node, attribute, sources, target))


def _opset(node: ir.Node, graph: ir.Graph | ir.Function) -> int:
    return node.version or graph.opset_imports.get("", 0)


def _retyped_attribute(node: ir.Node, attribute: ir.Attr, sources: Collection[int], target: ir.DataType) -> ir.Attr:
    if attribute.type == ir.AttributeType.TENSOR:
        return ir.AttrTensor(attribute.name, _converted(attribute.as_tensor(), sources, target))
    if attribute.name in ("value_float", "value_floats") and ir.DataType.FLOAT in sources:
        # These are float32 by definition; a tensor may be anything.
        plain = ir.tensor(np.asarray(attribute.value, np.float32))
        return ir.AttrTensor("value", _converted(plain, sources, target))
    if attribute.type == ir.AttributeType.INT and attribute.name in _TYPE_ATTRIBUTES:
        # These refuse any other stash type in the reference evaluator, and compute in their input's type.
        if attribute.name == "stash_type" and node.op_type in ("LayerNormalization", "RMSNormalization"):
            return attribute
        if attribute.as_int() in sources:
            return ir.AttrInt64(attribute.name, int(target))
    return attribute


def _stays_float32(value: ir.Value) -> bool:
    """Whether every operator that reads an initializer takes float32 there and nothing else (``Resize`` scales)."""
    uses = list(value.uses())
    return bool(uses) and all(_takes_only_float32(use.node, use.idx) for use in uses)


def _takes_only_float32(node: ir.Node, position: int) -> bool:
    try:
        formal = onnx.defs.get_schema(node.op_type, node.domain).inputs[position]
    except (onnx.defs.SchemaError, IndexError):
        return False
    return set(formal.types) == {"tensor(float)"}


def _retype_value(value: ir.Value, sources: Collection[int], target: ir.DataType) -> None:
    if value.type is not None and value.type.dtype in sources:
        # Sequence and optional types hand the element type on to the tensor type inside.
        value.type.dtype = target


def _converted(tensor: ir.TensorProtocol, sources: Collection[int], target: ir.DataType) -> ir.TensorProtocol:
    return _Converted(tensor, target) if tensor.dtype in sources else tensor


class _Derived(ir.LazyTensor, ABC):
    """A tensor computed from another each time it is read; written a block at a time."""

    def __init__(self, tensor: ir.TensorProtocol, target: ir.DataType) -> None:
        super().__init__(self._whole, dtype=target, shape=ir.Shape(tensor.shape.numpy()), name=tensor.name)
        self._source = tensor

    def _whole(self) -> ir.TensorProtocol:
        return ir.Tensor(self._block(elements(self._source)), dtype=self.dtype, name=self.name)

    @abstractmethod
    def _block(self, array: Array) -> Array:
        """What becomes of some of the elements."""

    def tofile(self, file: Any) -> None:
        """Write the elements without holding more than a block of them in memory."""
        array = elements(self._source)
        for tile in tiles(array.shape):
            block = self._block(array[tile])
            file.write(block.astype(block.dtype.newbyteorder("<"), copy=False).reshape(-1).view(np.uint8))


class _Converted(_Derived):
    """A tensor in another floating type."""

    def _block(self, array: Array) -> Array:
        with np.errstate(over="ignore"):  # float64 weights beyond float32 become infinite in both models alike
            return array.astype(self.dtype.numpy())


class _Nudged(_Derived):
    """A tensor whose numbers are moved by up to two roundings."""

    def __init__(self, tensor: ir.TensorProtocol, seed: int, sign: int) -> None:
        super().__init__(tensor, tensor.dtype)
        self._random, self._sign = np.random.default_rng(seed), sign

    def _block(self, array: Array) -> Array:
        steps = self._sign * self._random.integers(-2, 3, array.shape)
        still = (array == 0) | ~np.isfinite(array)
        rounding = np.spacing(np.abs(np.where(still, 1, array)))
        moved: Array = np.where(still, array, array + (steps * rounding).astype(array.dtype))
        return moved


def _graphs(model: ir.Model) -> Iterator[ir.Graph | ir.Function]:
    yield model.graph
    yield from model.graph.subgraphs()
    for function in model.functions.values():
        yield function
        yield from function.subgraphs()


def _load(path: Path) -> ir.Model:
    try:
        model = sparse.to_ir(onnx.load(path, load_external_data=False), str(path))
        ir.external_data.set_base_dir(model.graph, path.parent)
        return model
    except ModelError:
        raise
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror or error}") from error
    except Exception as error:  # protobuf's own error classes differ between its builds
        raise ModelError(f"{path} is not an ONNX model: {error}") from error


def _unused(path: Path) -> Path:
    candidate, number = path, 1
    while candidate.exists():
        candidate, number = path.with_stem(f"{path.stem}-{number}"), number + 1
    return candidate

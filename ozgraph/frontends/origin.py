"""What a graph from an ONNX model remembers of it: its weights, nodes and values."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from ozgraph.frontends import sampling
from ozgraph.frontends.tensors import elements
from ozgraph.graph import Array, Op, Value


@dataclass(frozen=True, slots=True)
class TensorConstant:
    """A weight that onnx_ir holds: a part of the protobuf, or a memory map of external data."""

    tensor: ir.TensorProtocol

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the axes."""
        return tuple(int(extent) for extent in self.tensor.shape.numpy())

    @property
    def nbytes(self) -> int:
        """Bytes of the elements."""
        return int(self.tensor.nbytes)

    def numpy(self) -> Array:
        """The elements; a view of the memory map for external data. Never write into it."""
        return elements(self.tensor)


@dataclass(frozen=True, slots=True)
class FillConstant:
    """A weight that a ConstantOfShape node fills with one value; nothing is allocated until :meth:`numpy`."""

    shape: tuple[int, ...]
    fill: Array

    @property
    def nbytes(self) -> int:
        """Bytes that :meth:`numpy` would announce (it returns a broadcast view, which takes none)."""
        count = int(self.fill.dtype.itemsize)
        for extent in self.shape:
            count *= extent
        return count

    def numpy(self) -> Array:
        """The elements, as a read-only broadcast of the one value."""
        return np.broadcast_to(self.fill.reshape(()), self.shape)


@dataclass(slots=True)
class OnnxOrigin:
    """What the ONNX backend needs to write the model again.

    Attributes:
        model: the model in normal form; never changed after loading.
        path: the file it came from, absolute; None for models from memory.
        nodes: operator -> node. ConstantOfShape nodes that became constants have no operator.
        values: value -> onnx_ir value.
        dims: input -> declared sizes, with names for dynamic axes.
        samples: valid input sizes; the first is what the graph's shapes are bound to, each of the others changes every
            dynamic size that the user did not fix.
        external: whether weights are kept in a file beside the model.
        source: the model as it was read, where bodies, sequences or optionals were rewritten after that; else None.
        files: every file that the model reads, absolute and without links.
        parted: constant -> the one that it was in the file, see :mod:`~ozgraph.frontends.shared_fills`.
    """

    model: ir.Model
    path: str | None
    nodes: dict[Op, ir.Node] = field(default_factory=dict)
    values: dict[Value, ir.Value] = field(default_factory=dict)
    dims: dict[str, tuple[int | str, ...]] = field(default_factory=dict)
    samples: tuple[sampling.Sample, ...] = ()
    external: bool = False
    source: ir.Model | None = None
    files: frozenset[str] = frozenset()
    parted: dict[str, str] = field(default_factory=dict)

"""What a graph captured from PyTorch remembers: the program, where every operator stands in it, and the weights.

Importing this module imports torch; import it where a module is about to be captured.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from torch import fx

from ozgraph.errors import ModelError
from ozgraph.graph import Array, Op, Value

_BY_NAME = {
    torch.bfloat16: "bfloat16",
    torch.float8_e4m3fn: "float8_e4m3fn",
    torch.float8_e4m3fnuz: "float8_e4m3fnuz",
    torch.float8_e5m2: "float8_e5m2",
    torch.float8_e5m2fnuz: "float8_e5m2fnuz",
}


def numpy_dtype(dtype: torch.dtype) -> np.dtype[Any] | None:
    """The numpy type of a torch type, through ml_dtypes where numpy has none; None where neither has one."""
    name = _BY_NAME.get(dtype)
    if name is not None:
        import ml_dtypes

        extended: np.dtype[Any] = np.dtype(getattr(ml_dtypes, name))
        return extended
    try:
        found: np.dtype[Any] = torch.empty(0, dtype=dtype).numpy().dtype
    except (TypeError, RuntimeError):
        return None
    return found


@dataclass(frozen=True, slots=True)
class TorchConstant:
    """A parameter, a buffer or another tensor of a module; nothing is copied until :meth:`numpy`.

    Attributes:
        name: fully qualified.
        tensor: the module's own tensor, on any device.
    """

    name: str
    tensor: torch.Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the axes."""
        return tuple(self.tensor.shape)

    @property
    def nbytes(self) -> int:
        """Bytes that :meth:`numpy` would occupy."""
        return self.tensor.numel() * self.tensor.element_size()

    @property
    def readable(self) -> bool:
        """Whether there are elements to read: not on the meta device."""
        return not self.tensor.is_meta

    def numpy(self) -> Array:
        """The elements; a view of the tensor where it lies in main memory. Never write into it.

        Raises:
            ModelError: the tensor is on the meta device.
        """
        if self.tensor.is_meta:
            raise ModelError(f"{self.name} is on the meta device and has no elements; load the weights to read them")
        here = self.tensor.detach().cpu().resolve_conj().resolve_neg()
        if self.tensor.dtype not in _BY_NAME:
            plain: Array = here.numpy()
            return plain
        bits = torch.uint8 if here.element_size() == 1 else torch.uint16
        dtype = numpy_dtype(self.tensor.dtype)
        assert dtype is not None
        found: Array = here.contiguous().view(bits).numpy().view(dtype)
        return found


@dataclass(frozen=True, slots=True)
class Weight:
    """A tensor of the module behind a constant of the graph.

    Attributes:
        name: the name that the constant has in the graph: the first of ``names``.
        names: every fully qualified name of the tensor; more than one where it is shared.
        kind: ``parameter``, ``buffer`` or ``constant`` (a tensor that is neither).
        trainable: whether it asks for gradients.
        persistent: whether ``state_dict`` has it.
    """

    name: str
    names: tuple[str, ...]
    kind: str
    trainable: bool
    persistent: bool


@dataclass(slots=True, eq=False)
class TorchOrigin:
    """What the PyTorch backend needs to write the module again.

    Attributes:
        program: the exported program, training-level ATen, captured in eval mode; never changed.
        module: the caller's module, unwrapped.
        args, kwargs: the example inputs.
        nodes: operator -> fx node, for every operator that stands in the program. An operator without a node only
            says what a write in place did to other views of the same memory; it needs no rewriting.
        values: value -> (fx node, result number or None): where it comes from in the program.
        weights: constant -> what it is in the module.
        leaves_in, leaves_out: what the leaves of the inputs and of what the module returns are in the graph, in order;
            None for numbers.
        dynamic_shapes: as the caller gave them.
        files: none; a captured graph was not read from any file.
        dialect: see :attr:`ozgraph.graph.Graph.dialect`.
    """

    dialect: ClassVar[str] = "aten"

    program: torch.export.ExportedProgram
    module: torch.nn.Module
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    nodes: dict[Op, fx.Node] = field(default_factory=dict)
    values: dict[Value, tuple[fx.Node, int | None]] = field(default_factory=dict)
    weights: dict[Value, Weight] = field(default_factory=dict)
    leaves_in: list[Value | None] = field(default_factory=list)
    leaves_out: list[Value | None] = field(default_factory=list)
    dynamic_shapes: Any = None
    files: frozenset[str] = frozenset()

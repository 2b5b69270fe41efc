"""The operator graph that every pass reads: values, operators and nothing of the file format they came from.

A :class:`Graph` is a snapshot for analysis. Shapes are concrete: axes that vary at run time are bound to sample sizes
and marked in :attr:`Value.dynamic`. Weights stay where they are and are read only through :meth:`Constant.numpy`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import networkx as nx

Array = npt.NDArray[Any]


class Constant(Protocol):
    """A weight that can be read, but has not been: a memory map, a part of a protobuf, a fill value."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the axes."""

    @property
    def nbytes(self) -> int:
        """Bytes that :meth:`numpy` would occupy."""

    def numpy(self) -> Array:
        """The elements; a memory-mapped view where the source allows it. Never write into it."""


@dataclass(frozen=True, slots=True)
class Integers:
    """The elements of a small integer (or boolean) tensor, known at analysis.

    Attributes:
        elements: the values at the sample sizes, in the tensor's own shape.
        dynamic: same shape; true where the element follows a size that varies at run time.
    """

    elements: Array
    dynamic: npt.NDArray[np.bool_]

    @property
    def static(self) -> bool:
        """Whether every element is the same number at every run."""
        return not bool(self.dynamic.any())


@dataclass(eq=False, slots=True)
class Value:
    """A tensor: an input, a constant or what an operator computes.

    Attributes:
        name: unique in the graph.
        shape: sizes at the sample binding; None when they cannot be known before running.
        dtype: None for strings, sequences and optionals.
        dynamic: one flag an axis: its size varies at run time.
        constant: the weight behind it, for initializers and constants.
        integers: the known elements of shape arithmetic.
        producer: the operator that computes it; None for inputs and constants.
        uses: every (operator, operand position); captures of closed subgraphs have position -1.
    """

    name: str
    shape: tuple[int, ...] | None
    dtype: np.dtype[Any] | None
    dynamic: tuple[bool, ...] = ()
    constant: Constant | None = None
    integers: Integers | None = None
    producer: Op | None = None
    uses: list[tuple[Op, int]] = field(default_factory=list)

    @property
    def rank(self) -> int:
        """Number of axes; 0 when the shape is unknown."""
        return 0 if self.shape is None else len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements at the sample sizes."""
        count = 1
        for extent in self.shape or ():
            count *= extent
        return count

    @property
    def is_float(self) -> bool:
        """Whether the elements are real numbers (float16, bfloat16, float32, float64, float8)."""
        # ml_dtypes register their floating types with kind "V" or "f"; names tell them from structs.
        return self.dtype is not None and (self.dtype.kind == "f" or "float" in self.dtype.name)

    @property
    def readable(self) -> bool:
        """Whether it is a constant whose elements can be read; those of a tensor on the meta device cannot."""
        return self.constant is not None and bool(getattr(self.constant, "readable", True))

    def __repr__(self) -> str:
        return f"Value({self.name!r}, {self.shape}, {self.dtype})"


@dataclass(eq=False, slots=True, weakref_slot=True)
class Op:
    """One operator application.

    Attributes:
        name: unique in the graph.
        type: the operator's name in its domain, such as ``Conv``.
        domain: ``""`` for the default ONNX domain.
        version: the opset version in force for the domain.
        inputs: operands in order; None where an optional operand is left out.
        attributes: plain Python values (int, float, str, lists of them) and numpy arrays.
        captures: values that subgraphs of this operator read from outside, where they are not followed.
        repeats: how often a run of the model applies it at most, as far as that is known: more than once in a loop.
        later: what stands in the place of the result from the second run of a body on; only for what a body receives.
    """

    name: str
    type: str
    domain: str
    version: int
    inputs: tuple[Value | None, ...]
    outputs: tuple[Value | None, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    captures: tuple[Value, ...] = ()
    repeats: int = 1
    later: Value | None = None

    @property
    def operator(self) -> str:
        """The qualified operator name: ``Conv``, ``com.microsoft.FusedMatMul``."""
        return self.type if self.domain in ("", "ai.onnx") else f"{self.domain}.{self.type}"

    def input(self, position: int) -> Value | None:
        """The operand at ``position``; None where it is left out."""
        return self.inputs[position] if position < len(self.inputs) else None

    def __repr__(self) -> str:
        return f"Op({self.operator} {self.name!r})"


@dataclass(eq=False)
class Graph:
    """Operators in topological order over named values; those in bodies of If, Loop and Scan stand in line.

    Attributes:
        name: what reports call the model.
        ops: topological order.
        values: by name; inputs, constants and results.
        inputs, outputs: the model's signature, in order.
        origin: what the frontend made the graph from; only the matching backend looks at it.
    """

    name: str
    ops: tuple[Op, ...]
    values: dict[str, Value]
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    origin: Any = None

    @property
    def dialect(self) -> str:
        """The operators that it is made of: ``onnx``, or ``aten`` where it was captured from PyTorch."""
        return str(getattr(self.origin, "dialect", "onnx"))

    @property
    def constants(self) -> Iterator[Value]:
        """Values with a weight behind them."""
        return (value for value in self.values.values() if value.constant is not None)

    @cached_property
    def op_graph(self) -> nx.MultiDiGraph[Op]:
        """Operators as nodes; one edge a tensor, with attributes ``value`` and ``operand``.

        >>> graph = Graph("empty", (), {}, (), ())
        >>> graph.op_graph.number_of_nodes()
        0
        """
        import networkx as nx  # here, since few who load a model ask for this

        network: nx.MultiDiGraph[Op] = nx.MultiDiGraph(name=self.name)
        network.add_nodes_from(self.ops)
        for op in self.ops:
            for operand, value in enumerate(op.inputs):
                if value is not None and value.producer is not None:
                    network.add_edge(value.producer, op, value=value, operand=operand)
            for value in op.captures:
                if value.producer is not None:
                    network.add_edge(value.producer, op, value=value, operand=-1)
        return network

    def _repr_html_(self) -> str:
        from collections import Counter

        from ozgraph.markup import element, join, table

        counts = Counter(op.operator for op in self.ops).most_common(12)
        signature = [
            (kind, value.name, " × ".join(map(str, value.shape or ())), "" if value.dtype is None else value.dtype.name)
            for kind, values in (("input", self.inputs), ("output", self.outputs))
            for value in values[:24]
        ]
        return join(
            [
                element("p", element("b", self.name), f" · {len(self.ops):,} operators, {self.dialect}"),
                table(["", "name", "shape", "type"], signature),
                table(["operator", "number"], counts, numbers=[1]),
            ]
        )

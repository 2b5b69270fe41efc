"""From a model in normal form, and what inference found, to a :class:`~ozgraph.graph.Graph`.

Bodies of If, Loop and Scan that are followed stand in line with the rest: what a body receives is the result of an
operator of its own (``Loop.body``, ``Scan.body``, ``Scan.slice``), and so is every result of the node (``If.result``,
``Loop.result``, ``Loop.stack``, ``Scan.result``, ``Scan.stack``), so that one that cannot be followed freezes alone.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir

from ozgraph.errors import ModelError
from ozgraph.frontends import body_shapes, dynamic
from ozgraph.frontends.control_flow import Control, Entry
from ozgraph.frontends.known import Inferred, Variability
from ozgraph.frontends.origin import FillConstant, OnnxOrigin, TensorConstant
from ozgraph.frontends.shapes import Skeleton
from ozgraph.graph import Constant, Graph, Op, Value
from ozgraph.names import fresh


def build(origin: OnnxOrigin, inferred: Inferred, varying: Variability, skeleton: Skeleton, where: str) -> Graph:
    """The graph of a normalised model from what inference found.

    Raises:
        ModelError: two values share a name, or a node reads what nothing computes.
    """
    model = origin.model
    builder = _Builder(origin, inferred, varying, skeleton, where)
    inputs = tuple(builder.add(source) for source in model.graph.inputs)
    for source in model.graph.initializers.values():
        assert source.const_value is not None
        builder.add(source, TensorConstant(source.const_value))
    builder.convert(model.graph)
    results = tuple(builder.lookup(source, None) for source in model.graph.outputs)
    name = os.path.basename(origin.path) if origin.path else (model.graph.name or "model")
    return Graph(name, tuple(builder.ops), builder.values, inputs, results, origin)


@dataclass(slots=True)
class _Builder:
    origin: OnnxOrigin
    inferred: Inferred
    varying: Variability
    skeleton: Skeleton
    where: str
    values: dict[str, Value] = field(default_factory=dict)
    ops: list[Op] = field(default_factory=list)
    _names: set[str] = field(default_factory=set)
    _fills: dict[ir.Node, tuple[int, ...]] = field(init=False)
    _captures: dict[ir.Node, tuple[str, ...]] = field(init=False)

    def __post_init__(self) -> None:
        self._fills = dict(fills(self.skeleton))
        self._captures = dynamic.captures(self.origin.model.graph)

    def add(self, source: ir.Value, constant: Constant | None = None) -> Value:
        """Enter a value."""
        name = source.name or ""
        shape = constant.shape if constant is not None else self.inferred.static_shape(name)
        code = self.inferred.dtypes.get(name)
        if code is None and source.dtype is not None and isinstance(source.type, ir.TensorType):
            code = source.dtype.value
        value = Value(
            name,
            shape,
            _numpy_dtype(code),
            self.varying.axes.get(name, (False,) * len(shape or ())) if shape is not None else (),
            constant,
            self.varying.integers.get(name),
        )
        if name in self.values:
            raise ModelError(f"{self.where}: two values are named {name!r}; rename one")
        self.values[name] = value
        self.origin.values[value] = source
        return value

    def lookup(self, source: ir.Value, node: ir.Node | None) -> Value:
        """The value that ``node`` (None: the output list) reads."""
        value = self.values.get(source.name or "")
        if value is None:
            reader = f"node {node.name!r} ({node.op_type})" if node is not None else "the output list"
            raise ModelError(
                f"{self.where}: {reader} reads {source.name!r}, which nothing computes; export the model again"
            )
        return value

    def convert(self, nodes: Iterable[ir.Node], repeats: int = 1) -> None:
        """Enter the operators of ``nodes``, which run ``repeats`` times."""
        for node in nodes:
            control = self.skeleton.controls.get(node)
            if control is not None:
                self._convert_bodies(control, repeats)
                continue
            constant = _constant_of(node, self._fills)
            if constant is not None:
                self.add(node.outputs[0], constant)
                continue
            operands = tuple(self.lookup(source, node) if source is not None else None for source in node.inputs)
            outputs = tuple(self.add(source) if source.name else None for source in node.outputs)
            captures = tuple(self.values[name] for name in self._captures.get(node, ()))
            self._enter(node, node.op_type, operands, outputs, repeats, captures=captures)

    def _convert_bodies(self, control: Control, repeats: int) -> None:
        node = control.node
        looping: list[tuple[Op, Entry]] = []
        for entry in control.entries:
            kind = f"{node.op_type}.body" if entry.axis is None else f"{node.op_type}.slice"
            sources = [] if entry.source is None else [self.lookup(entry.source, node)]
            op = self._enter(node, kind, tuple(sources), (self.add(entry.value),), repeats, axis=entry.axis)
            looping.append((op, entry))
        times = repeats * max(1, body_shapes.runs(control, self.inferred) or 1)
        for body in control.bodies:
            self.convert(body, times)
        for op, entry in looping:
            if entry.later is not None:
                op.later = self.lookup(entry.later, node)
        conditions = [self._condition(source, node) for source in control.conditions]
        for made in control.exits:
            kind = f"{node.op_type}.result" if made.axis is None else f"{node.op_type}.stack"
            sources = [self.lookup(source, node) for source in made.sources]
            self._enter(node, kind, (*conditions, *sources), (self.add(made.value),), repeats, axis=made.axis)

    def _condition(self, source: ir.Value | None, node: ir.Node) -> Value | None:
        """A condition, where it is a number as it should be."""
        value = None if source is None else self.lookup(source, node)
        return value if value is not None and value.shape is not None and value.size == 1 else None

    def _enter(
        self,
        node: ir.Node,
        kind: str,
        operands: tuple[Value | None, ...],
        outputs: tuple[Value | None, ...],
        repeats: int,
        *,
        captures: tuple[Value, ...] = (),
        axis: int | None = None,
    ) -> Op:
        attributes = {name: _plain(attribute) for name, attribute in node.attributes.items()}
        if axis is not None:
            attributes["axis"] = axis
        op = Op(
            fresh(node.name or (node.outputs[0].name if node.outputs else "") or node.op_type, self._names),
            kind,
            "" if node.domain == "ai.onnx" else node.domain,
            self.skeleton.version_of(node.domain),
            operands,
            outputs,
            attributes,
            captures,
            repeats,
        )
        for position, value in enumerate(operands):
            if value is not None:
                value.uses.append((op, position))
        for value in captures:
            value.uses.append((op, -1))
        for result in outputs:
            if result is not None:
                result.producer = op
        self.origin.nodes[op] = node
        self.ops.append(op)
        return op


def fills(skeleton: Skeleton) -> Iterable[tuple[ir.Node, tuple[int, ...]]]:
    """ConstantOfShape nodes whose shape is a constant, with that shape."""
    for node in skeleton.nodes:
        if node.op_type == "ConstantOfShape" and node.domain in ("", "ai.onnx") and node.inputs:
            if node.graph is not skeleton.model.graph and node.outputs[0].is_graph_output():
                continue  # a body returns nothing that comes from outside it
            operand = node.inputs[0]
            elements = skeleton.constants.get(operand.name or "") if operand is not None else None
            if elements is not None and elements.ndim == 1:
                yield node, tuple(int(extent) for extent in elements)


def _numpy_dtype(code: int | None) -> np.dtype[Any] | None:
    if code is None or code in (ir.DataType.UNDEFINED, ir.DataType.STRING):
        return None
    try:
        return np.dtype(ir.DataType(code).numpy())
    except (TypeError, ValueError):
        return None


def _constant_of(node: ir.Node, fills: Mapping[ir.Node, tuple[int, ...]]) -> Constant | None:
    """The weight that ``node`` makes up from nothing: a float ConstantOfShape, or a Constant that is an output."""
    if node.op_type == "Constant" and node.domain in ("", "ai.onnx") and "value" in node.attributes:
        return TensorConstant(node.attributes["value"].value)
    if node not in fills:
        return None
    attribute = node.attributes.get("value")
    fill = attribute.value.numpy() if attribute is not None else np.zeros(1, dtype=np.float32)
    if fill.dtype.kind != "f" and "float" not in fill.dtype.name:
        return None  # integers are shape arithmetic, not weights
    return FillConstant(fills[node], fill)


def _plain(attribute: ir.Attr) -> Any:
    """An attribute as plain Python: numbers, strings, lists of them, numpy arrays; ``"<graph>"`` for bodies."""
    kind = attribute.type
    if kind in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS):
        return "<graph>"
    if kind == ir.AttributeType.TENSOR:
        return attribute.value.numpy()
    if kind == ir.AttributeType.TENSORS:
        return [tensor.numpy() for tensor in attribute.value]
    if kind in (ir.AttributeType.INTS, ir.AttributeType.FLOATS, ir.AttributeType.STRINGS):
        return list(attribute.value)
    return attribute.value

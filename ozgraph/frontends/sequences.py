"""Sequences and optionals whose elements are known before running become the tensors that they hold.

No rule needs to know of sequences: a SequenceAt becomes an Identity, a ConcatFromSequence a Concat, a SplitToSequence a
Split. What only a run can tell stays, and freezes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from ozgraph.frontends.control_flow import Control
from ozgraph.frontends.known import Inferred, Variability
from ozgraph.graph import Array
from ozgraph.names import fresh

OPERATORS = frozenset(
    {
        "ConcatFromSequence",
        "Optional",
        "OptionalGetElement",
        "OptionalHasElement",
        "SequenceAt",
        "SequenceConstruct",
        "SequenceEmpty",
        "SequenceErase",
        "SequenceInsert",
        "SequenceLength",
        "SplitToSequence",
    }
)

_AXES_ARE_OPERANDS = 13

_MOST_ELEMENTS = 1 << 12


class Resolver:
    """Puts tensors in the place of sequences, graph by graph, outer ones first.

    Args:
        model: in normal form; changed in place.
        version: opset version of the default domain.
        inferred: sizes and elements at the sample binding.
        varying: which of them vary at run time.
    """

    def __init__(self, model: ir.Model, version: int, inferred: Inferred, varying: Variability) -> None:
        self._model = model
        self._version = version
        self._inferred = inferred
        self._varying = varying
        self._held: dict[ir.Value, list[ir.Value]] = {}
        self._optional: dict[ir.Value, ir.Value | None] = {}
        self._names = {
            value.name
            for graph in model.graphs()
            for value in (*graph.inputs, *graph.initializers.values(), *(out for node in graph for out in node.outputs))
        }
        self.changed = False

    def run(self, controls: Mapping[ir.Node, Control]) -> bool:
        """Resolve what can be; whether the model changed."""
        self._visit(self._model.graph)
        for control in list(controls.values()):
            for body in control.bodies:
                self._visit(body)
        return self.changed

    def _visit(self, graph: ir.Graph) -> None:
        for node in list(graph):
            if node.domain in ("", "ai.onnx") and (node.op_type in OPERATORS or node.op_type == "Identity"):
                self._resolve(node)

    def _resolve(self, node: ir.Node) -> None:
        result = node.outputs[0]
        first = node.inputs[0] if node.inputs else None
        held = self._held.get(first) if first is not None else None
        kind = node.op_type
        if kind == "Identity":
            if held is not None:
                self._held[result] = held
            elif first is not None and first in self._optional:
                self._optional[result] = self._optional[first]
        elif kind == "SequenceEmpty":
            self._held[result] = []
        elif kind == "SequenceConstruct":
            elements = [value for value in node.inputs if value is not None]
            if len(elements) == len(node.inputs):
                self._held[result] = elements
        elif kind == "SplitToSequence":
            self._split(node)
        elif kind.startswith("Optional"):
            self._resolve_optional(node, kind, first)
        elif held is not None:
            self._resolve_use(node, kind, held)

    def _resolve_use(self, node: ir.Node, kind: str, held: list[ir.Value]) -> None:
        result = node.outputs[0]
        if kind == "SequenceInsert" and len(node.inputs) > 1:
            place = self._position(node, 2, len(held), len(held), last=len(held))
            element = node.inputs[1]
            if place is not None and element is not None:
                self._held[result] = [*held[:place], element, *held[place:]]
        elif kind == "SequenceErase":
            place = self._position(node, 1, len(held) - 1, len(held), last=len(held) - 1)
            if place is not None:
                self._held[result] = [*held[:place], *held[place + 1 :]]
        elif kind == "SequenceAt":
            place = self._position(node, 1, None, len(held), last=len(held) - 1)
            if place is not None:
                self._replace(node, ir.node("Identity", [held[place]]))
        elif kind == "SequenceLength":
            length = self._constant(np.array(len(held), dtype=np.int64), f"{result.name}_length")
            self._replace(node, ir.node("Identity", [length]))
        elif kind == "ConcatFromSequence" and held:
            self._concatenate(node, held)

    def _position(self, node: ir.Node, operand: int, default: int | None, count: int, *, last: int) -> int | None:
        """A position that is a constant, counted from the back where negative; None where not known or out of range."""
        place = default
        value = node.inputs[operand] if operand < len(node.inputs) else None
        if value is not None:
            elements = self._elements(value)
            place = int(elements.reshape(-1)[0]) if elements is not None and elements.size == 1 else None
        if place is None or not -count <= place <= last:
            return None
        return place + count if place < 0 else place

    def _elements(self, value: ir.Value) -> Array | None:
        """The elements of shape arithmetic that are the same at every run."""
        known = self._varying.integers.get(value.name or "")
        return known.elements if known is not None and known.static else None

    # -- optionals ---------------------------------------------------------------------------------------------------

    def _resolve_optional(self, node: ir.Node, kind: str, first: ir.Value | None) -> None:
        result = node.outputs[0]
        if kind == "Optional":
            self._optional[result] = first
            return
        if first is not None and first not in self._optional:
            if not isinstance(first.type, ir.TensorType) and first.name not in self._inferred.shapes:
                return  # an optional that comes from elsewhere
            there: ir.Value | None = first
        else:
            there = self._optional[first] if first is not None else None
        if kind == "OptionalHasElement":
            has = self._constant(np.array(there is not None), f"{result.name}_known")
            self._replace(node, ir.node("Identity", [has]))
        elif there is not None:
            if there in self._held:
                self._held[result] = self._held[there]
            self._replace(node, ir.node("Identity", [there]))

    # -- tensors in their place --------------------------------------------------------------------------------------

    def _split(self, node: ir.Node) -> None:
        source = node.inputs[0]
        shape = self._inferred.shapes.get(source.name or "") if source is not None else None
        axis = _integer(node, "axis", 0)
        if source is None or shape is None or not -len(shape) <= axis < len(shape):
            return
        axis %= len(shape)
        given = node.inputs[1] if len(node.inputs) > 1 else None
        sizes: list[int]
        flags = self._varying.axes.get(source.name or "", ())
        extent = shape[axis]
        if given is not None:
            elements = self._elements(given)
            if elements is None:
                return
            sizes = [int(size) for size in elements.reshape(-1)]
            if elements.ndim == 0:
                if not isinstance(extent, int) or flags[axis] or sizes[0] <= 0:
                    return
                sizes = [min(sizes[0], extent - start) for start in range(0, extent, sizes[0])]
        else:
            if not isinstance(extent, int) or flags[axis]:
                return
            sizes = [1] * extent
        if not 0 < len(sizes) <= _MOST_ELEMENTS or min(sizes) < 0:
            return
        pieces = self._pieces(node, source, sizes, axis)
        if given is None and not _integer(node, "keepdims", 1):
            pieces = [self._with_axes(node, "Squeeze", piece, axis) for piece in pieces]
        self._held[node.outputs[0]] = pieces

    def _pieces(self, node: ir.Node, source: ir.Value, sizes: Sequence[int], axis: int) -> list[ir.Value]:
        name = node.outputs[0].name or "sequence"
        operands = [source]
        attributes: dict[str, ir.Attr] = {"axis": ir.AttrInt64("axis", axis)}
        if self._version >= _AXES_ARE_OPERANDS:
            operands.append(self._constant(np.array(sizes, dtype=np.int64), f"{name}_sizes"))
        else:
            attributes["split"] = ir.AttrInt64s("split", list(sizes))
        made = ir.Node("", "Split", operands, attributes.values(), num_outputs=len(sizes), name=node.name)
        for value in made.outputs:
            value.name = fresh(f"{name}_piece", self._names)
            value.type = source.type
        self._insert(node, made)
        return list(made.outputs)

    def _concatenate(self, node: ir.Node, held: list[ir.Value]) -> None:
        axis = _integer(node, "axis", 0)
        if _integer(node, "new_axis", 0):
            held = [self._with_axes(node, "Unsqueeze", value, axis) for value in held]
        self._replace(node, ir.node("Concat", held, attributes={"axis": axis}))

    def _with_axes(self, node: ir.Node, kind: str, value: ir.Value, axis: int) -> ir.Value:
        """``value`` with an axis of size one more or less, inserted ahead of ``node``."""
        if self._version >= _AXES_ARE_OPERANDS:
            axes = self._constant(np.array([axis], dtype=np.int64), f"{node.outputs[0].name}_axes")
            made = ir.node(kind, [value, axes])
        else:
            made = ir.node(kind, [value], attributes={"axes": [axis]})
        made.outputs[0].name = fresh(f"{value.name}_{kind.lower()}", self._names)
        self._insert(node, made)
        return made.outputs[0]

    def _replace(self, old: ir.Node, new: ir.Node) -> None:
        """Put ``new``, with one result, in the place of ``old``; the name of the result stays."""
        before, after = old.outputs[0], new.outputs[0]
        self._insert(old, new)
        new.name = old.name
        after.type, after.shape, after.doc_string = before.type, before.shape, before.doc_string
        after.name, before.name = before.name, None
        before.replace_all_uses_with(after, replace_graph_outputs=True)
        if before in self._held:
            self._held[after] = self._held[before]
        graph = old.graph
        assert isinstance(graph, ir.Graph)
        graph.remove(old, safe=True)
        self.changed = True

    def _insert(self, node: ir.Node, new: ir.Node) -> None:
        graph = node.graph
        assert isinstance(graph, ir.Graph)
        graph.insert_before(node, new)

    def _constant(self, array: Array, name: str) -> ir.Value:
        name = fresh(name, self._names)
        tensor = ir.Tensor(array, name=name)
        value = ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
        self._model.graph.register_initializer(value)
        return value


def uses_sequences(nodes: Iterable[ir.Node]) -> bool:
    """Whether any of ``nodes`` works on sequences or optionals."""
    return any(node.op_type in OPERATORS and node.domain in ("", "ai.onnx") for node in nodes)


def _integer(node: ir.Node, name: str, default: int) -> int:
    attribute = node.attributes.get(name)
    return attribute.as_int() if attribute is not None and attribute.type == ir.AttributeType.INT else default

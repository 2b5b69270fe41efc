"""Which axes vary at run time, and which elements of shape arithmetic follow them.

An axis is dynamic when its size differs between sample bindings. Where samples agree, it still counts as dynamic unless
inference with the sizes left open, or the operands that set the size, show that it is static: samples can agree by
accident, as in a floor division.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir
from onnx_ir.analysis import analyze_implicit_usage

from ozgraph.frontends import arithmetic, contrib_shapes, dynamic_bodies
from ozgraph.frontends.control_flow import graphs_of
from ozgraph.frontends.evaluated import axes_read
from ozgraph.frontends.known import Dim, Flags, Inferred, Variability
from ozgraph.frontends.shapes import Skeleton
from ozgraph.graph import Integers

_GROWTHS = (1, 2, 3, 16)
"""By how much sizes that vary are made larger. A quotient rounded down may stay the same at one of them, not at all."""


def settled(inferred: Inferred) -> Variability:
    """Variability of a model without dynamic inputs: nothing varies."""
    result = Variability()
    for name in inferred.shapes:
        shape = inferred.static_shape(name)
        if shape is not None:
            result.axes[name] = (False,) * len(shape)
    for name, elements in inferred.elements.items():
        result.integers[name] = Integers(elements, np.zeros(elements.shape, dtype=np.bool_))
    return result


def trace(
    skeleton: Skeleton,
    inputs: Mapping[str, Flags],
    sample: Inferred,
    others: Sequence[Inferred],
    symbolic: Inferred | None,
) -> Variability:
    """Variability of every value of a model with dynamic inputs.

    Args:
        skeleton: the model.
        inputs: input name -> which of its axes vary.
        sample: what is known at the sample binding that the analysis uses.
        others: what is known at bindings that change every dynamic size.
        symbolic: what is known with the dynamic sizes left open; None when that inference failed.
    """
    result = Variability()
    for name, shape in sample.shapes.items():
        if name in inputs:
            result.axes[name] = inputs[name]
        elif name in skeleton.model.graph.initializers:
            result.axes[name] = (False,) * len(shape)
    for name, elements in skeleton.integers.items():
        result.integers[name] = Integers(elements, np.zeros(elements.shape, dtype=np.bool_))
    tracer = _Tracer(skeleton, sample, others, symbolic, result)
    tracer.visit(skeleton.model.graph)
    return result


@dataclass(slots=True)
class _Tracer:
    """Walks the nodes of a model in order, bodies included, and fills ``result``."""

    skeleton: Skeleton
    sample: Inferred
    others: Sequence[Inferred]
    symbolic: Inferred | None
    result: Variability
    closed: dict[ir.Node, tuple[str, ...]] = field(init=False)

    def __post_init__(self) -> None:
        self.closed = captures(self.skeleton.model.graph)

    def visit(self, nodes: Iterable[ir.Node]) -> None:
        """Note what varies among the results of ``nodes``."""
        for node in nodes:
            control = self.skeleton.controls.get(node)
            if control is None:
                self._visit(node)
            else:
                dynamic_bodies.trace(control, self.sample, self.result, self.visit)

    def _visit(self, node: ir.Node) -> None:
        result = self.result
        operands = [value.name or "" for value in node.inputs if value is not None]
        reads = [*operands, *self.closed.get(node, ())]
        varies = any(result.varies(name) or name not in result.axes for name in reads)
        for value in node.outputs:
            if not value.name:
                continue
            sizes = self.sample.static_shape(value.name)
            if sizes is None:
                continue
            if not varies:
                result.axes[value.name] = (False,) * len(sizes)
                continue
            result.axes[value.name] = _axes(
                self.skeleton, node, value.name, sizes, self.sample, self.others, self.symbolic, result
            )
        _elements(self.skeleton, node, self.sample, result)


def captures(graph: ir.Graph) -> dict[ir.Node, tuple[str, ...]]:
    """What the subgraphs of each node read from outside, by name; of nodes in subgraphs as well."""
    found: dict[ir.Node, tuple[str, ...]] = {}
    if not any(graphs_of(node) for node in graph):
        return found
    usage = analyze_implicit_usage(graph)
    for node in graph.all_nodes():
        inner = graphs_of(node)
        if inner:
            found[node] = tuple(sorted({value.name or "" for body in inner for value in usage.get(body, ())}))
    return found


def _axes(
    skeleton: Skeleton,
    node: ir.Node,
    name: str,
    sizes: tuple[int, ...],
    sample: Inferred,
    others: Sequence[Inferred],
    symbolic: Inferred | None,
    result: Variability,
) -> Flags:
    flags = [False] * len(sizes)
    open_axes: list[int] = []
    elsewhere = [other.static_shape(name) for other in others]
    declared = symbolic.shapes.get(name) if symbolic is not None else None
    for axis, size in enumerate(sizes):
        if any(shape is None or len(shape) != len(sizes) or shape[axis] != size for shape in elsewhere):
            flags[axis] = True
        elif declared is None or len(declared) != len(sizes) or declared[axis] != size:
            open_axes.append(axis)
    if open_axes:
        known = _by_operands(node, sizes, result, bool(others))
        if known is None and node.domain in contrib_shapes.DOMAINS:
            known = _at_other_sizes(node, name, sizes, sample, result)
        if known is None:
            known = _by_inference(skeleton, node, name, sizes, sample, result)
        for axis in open_axes:
            flags[axis] = known[axis]
    return tuple(flags)


def _by_operands(node: ir.Node, sizes: tuple[int, ...], result: Variability, sampled: bool) -> Flags | None:
    """Flags that the operand which sets the sizes gives; None for other operators.

    ``sampled``: other bindings gave the same sizes. Then a Reshape's -1, a ratio of products of sizes, is static.
    """
    if node.domain not in ("", "ai.onnx") or not node.inputs or node.inputs[0] is None:
        return None
    if node.op_type == "Slice":
        return _by_slice(node, sizes, result)
    position = {"Reshape": 1, "Expand": 1, "Tile": 1, "ConstantOfShape": 0}.get(node.op_type)
    if position is None or len(node.inputs) <= position:
        return None
    operand = node.inputs[position]
    target = result.integers.get(operand.name or "") if operand is not None else None
    if target is None or target.elements.ndim != 1 or len(target.elements) > len(sizes):
        return None
    source = result.axes.get(node.inputs[0].name or "")
    if source is None:
        return None
    offset = len(sizes) - len(target.elements)
    if node.op_type == "Expand":  # sizes align at the last axis
        source = (False,) * (len(sizes) - len(source)) + source
    flags = list(source[:offset]) + [bool(flag) for flag in target.dynamic]
    for axis, element in enumerate(target.elements.tolist(), offset):
        carried = node.op_type == "Tile" or (node.op_type == "Expand" and element == 1)
        copied = node.op_type == "Reshape" and element == 0 and axis < len(source)
        if carried or (copied and "allowzero" not in node.attributes):
            flags[axis] = flags[axis] or source[axis]
        elif node.op_type == "Reshape" and element == -1:
            flags[axis] = not sampled and (any(source) or bool(target.dynamic.any()))
    return tuple(flags)


def _by_slice(node: ir.Node, sizes: tuple[int, ...], result: Variability) -> Flags | None:
    """A Slice leaves the axes alone that it does not name; those it names may follow its bounds."""
    operands = [value.name or "" if value is not None else "" for value in node.inputs]
    source = result.axes.get(operands[0])
    bounds = [result.integers.get(name) for name in operands[1:] if name]
    if source is None or len(source) != len(sizes) or not any(bound is None or not bound.static for bound in bounds):
        return None
    axes = list(range(len(sizes)))
    if len(operands) > 3 and operands[3]:
        named = result.integers.get(operands[3])
        if named is None or not named.static:
            return (True,) * len(sizes)
        axes = [int(axis) % len(sizes) for axis in named.elements.flat]
    return tuple(flag or axis in axes for axis, flag in enumerate(source))


def _by_inference(
    skeleton: Skeleton, node: ir.Node, name: str, sizes: tuple[int, ...], sample: Inferred, result: Variability
) -> Flags:
    """Flags from inferring this node with the sizes that vary left open."""
    shapes: dict[str, tuple[Dim, ...]] = {}
    data = {}
    for value in node.inputs:
        if value is None or value.name is None:
            continue
        extents = sample.static_shape(value.name)
        flags = result.axes.get(value.name)
        if extents is not None and flags is not None:
            shapes[value.name] = tuple(None if flag else size for size, flag in zip(extents, flags, strict=True))
        integers = result.integers.get(value.name)
        if integers is not None and integers.static:
            data[value.name] = integers.elements
        elif (elements := sample.floats.get(value.name, skeleton.constants.get(value.name))) is not None:
            data[value.name] = elements
    found = skeleton.infer_node(node, shapes, sample.dtypes, data)
    shape = found.shapes.get(name) if found is not None else None
    if shape is None or len(shape) != len(sizes):
        return (True,) * len(sizes)
    return tuple(extent != size for extent, size in zip(shape, sizes, strict=True))


def _at_other_sizes(node: ir.Node, name: str, sizes: tuple[int, ...], sample: Inferred, result: Variability) -> Flags:
    """Flags of an operator that onnx does not infer: axes that change with what varies, at one of several sizes."""
    position = next(number for number, value in enumerate(node.outputs) if value.name == name)
    flags = [False] * len(sizes)
    for growth in _GROWTHS:
        operands: list[tuple[int, ...] | None] = []
        for value in node.inputs:
            key = value.name or "" if value is not None else ""
            extents, varying = sample.static_shape(key), result.axes.get(key)
            if extents is None or varying is None:
                operands.append(None)
                continue
            # Axes of one size stay axes of one size: they may be the same axis.
            operands.append(tuple(s * growth + 1 if flag else s for s, flag in zip(extents, varying, strict=True)))
        found = contrib_shapes.inferred(node, operands)
        shape = found[position] if position < len(found) else None
        if shape is None or len(shape) != len(sizes):
            return (True,) * len(sizes)
        flags = [flag or size != other for flag, size, other in zip(flags, sizes, shape, strict=True)]
    return tuple(flags)


def _elements(skeleton: Skeleton, node: ir.Node, sample: Inferred, result: Variability) -> None:
    """Record the variability of the elements that ``node`` computes."""
    outputs = [(value.name, sample.elements[value.name]) for value in node.outputs if value.name in sample.elements]
    if not outputs:
        return
    first = node.inputs[0].name or "" if node.inputs and node.inputs[0] is not None else ""
    flags = result.axes.get(first, ())
    if node.op_type == "Shape":
        masks = [np.array(flags[axes_read(node, len(flags))], dtype=np.bool_)]
    elif node.op_type == "Size":
        masks = [np.array(any(flags), dtype=np.bool_)]
    else:
        operands: list[Integers | None] = []
        for value in node.inputs:
            known = result.integers.get(value.name or "") if value is not None else None
            if value is not None and known is None:
                elements = skeleton.elements_of(value.name or "", sample)
                assert elements is not None
                known = Integers(elements, np.zeros(elements.shape, dtype=np.bool_))
            operands.append(known)
        masks = arithmetic.varying(node, skeleton.version, operands, [elements for _, elements in outputs])
    for (name, elements), mask in zip(outputs, masks, strict=False):
        assert name is not None
        if any(result.axes.get(name, ())):
            mask = np.ones(elements.shape, dtype=np.bool_)
        result.integers[name] = Integers(elements, mask.reshape(elements.shape))

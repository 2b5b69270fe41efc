"""Uses of a shared value that read a part of it: one part for all that want the same."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from ozgraph.backends.model_copy import ModelCopy, Slice, cut, lazily
from ozgraph.backends.rewriting import set_operand
from ozgraph.graph import Op
from ozgraph.plan import Cuts, Plan

Parts = dict[tuple[tuple[int, bytes], ...], tuple[Cuts, list[tuple[Op, int]]]]
"""What is read of a value: axes and positions as bytes -> the cuts and the uses that want them."""


def take_apart(copy: ModelCopy, plan: Plan) -> None:
    """Let uses read only the positions that ``plan.takes`` names.

    A constant is stored in parts where these are no more than the whole; otherwise, and where the value is computed,
    the model gathers each part once.
    """
    shared: dict[ir.Value, Parts] = {}
    stale: set[ir.Value] = set()
    for (op, position), cuts in plan.takes.items():
        operand = copy.nodes[op].inputs[position]
        assert operand is not None
        key = tuple((axis, positions.tobytes()) for axis, positions in cuts)
        shared.setdefault(operand, {}).setdefault(key, (cuts, []))[1].append((op, position))
        if op.inputs[position] in plan.shapes and not operand.is_initializer():
            stale.add(operand)
    for operand, parts in shared.items():
        stored = _may_be_stored(operand, parts)
        for cuts, uses in parts.values():
            shape = None if operand in stale else operand.shape
            part = _stored(copy, operand, cuts) if stored else _gathered(copy, operand, cuts, shape)
            for op, position in uses:
                set_operand(copy.nodes[op], position, part)


def _may_be_stored(operand: ir.Value, parts: Parts) -> bool:
    """Whether a constant gives way to its parts without making the file larger."""
    if operand.const_value is None or not operand.is_initializer():
        return False
    shape = operand.const_value.shape.numpy()
    readers = sum(len(uses) for _, uses in parts.values())
    rest = 0 if readers == len(tuple(operand.uses())) and not operand.is_graph_output() else math.prod(shape)
    return rest + sum(math.prod(cut(shape, cuts)) for cuts, _ in parts.values()) <= math.prod(shape)


def _stored(copy: ModelCopy, operand: ir.Value, cuts: Cuts) -> ir.Value:
    tensor = operand.const_value
    assert tensor is not None
    sliced = lazily(tensor, cut(tensor.shape.numpy(), cuts), Slice(list(cuts)))
    sliced.name = copy.unique(f"{operand.name}_part")
    return copy.initializer(sliced.name, sliced)


def _gathered(copy: ModelCopy, operand: ir.Value, cuts: Cuts, shape: ir.Shape | None) -> ir.Value:
    producer = operand.producer()
    version = copy.model.graph.opset_imports.get("")
    extents = None if shape is None else list(shape)
    name = f"{operand.name}_part"
    for axis, positions in cuts:
        index = copy.constant(f"{operand.name}_positions", np.asarray(positions, dtype=np.int64))
        node = ir.node("Gather", [operand, index], {"axis": axis}, name=copy.unique(name), version=version)
        part = node.outputs[0]
        part.name, part.type = copy.unique(f"{name}_output"), operand.type
        if extents is not None:
            extents[axis] = len(positions)
            part.shape = ir.Shape(extents)
        # In the graph that the value stands in: the model's, or a body.
        host = producer.graph if producer is not None else operand.graph
        graph = host if isinstance(host, ir.Graph) else copy.model.graph
        if producer is not None:
            graph.insert_after(producer, node)
        else:
            graph.insert_before(graph[0], node)
        operand, producer = part, node
    return operand

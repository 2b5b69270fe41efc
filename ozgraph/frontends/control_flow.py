"""If, Loop and Scan: what their bodies receive and return, for every pass over the nodes of a model.

A body is followed where its signature fits its node. Others stay closed: what they capture freezes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import onnx_ir as ir

DEEPEST = 16
"""Bodies nested more deeply stay closed."""

DEEPEST_LOOP = 4
"""Loops and scans nested more deeply stay closed: each level multiplies the rounds in which its shapes settle."""

_OLDEST_SCAN = 9  # before, it had a batch axis


@dataclass(frozen=True, slots=True)
class Entry:
    """What a body receives.

    Attributes:
        value: the input of the body.
        source: the operand that it is, or is cut from; None for the number of the run.
        later: the result of the body that stands in its place from the second run on.
        axis: the axis of ``source`` that is run along; None where the operand comes whole.
    """

    value: ir.Value
    source: ir.Value | None
    later: ir.Value | None = None
    axis: int | None = None


@dataclass(frozen=True, slots=True)
class Exit:
    """A result of the node.

    Attributes:
        value: the result.
        sources: the values that it may be: one a branch, or the initial value and what the body returns.
        axis: the axis along which the results of all runs are stacked; None where there is one.
    """

    value: ir.Value
    sources: tuple[ir.Value, ...]
    axis: int | None = None


@dataclass(frozen=True, slots=True)
class Control:
    """A node whose bodies are followed.

    Attributes:
        bodies: the branches of an If, then first; the one body of a Loop or Scan.
        conditions: what decides which body runs, and how often.
    """

    node: ir.Node
    bodies: tuple[ir.Graph, ...]
    entries: tuple[Entry, ...]
    exits: tuple[Exit, ...]
    conditions: tuple[ir.Value | None, ...] = ()


def graphs_of(node: ir.Node) -> list[ir.Graph]:
    """All subgraphs of a node."""
    found: list[ir.Graph] = []
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            found.append(attribute.as_graph())
        elif attribute.type == ir.AttributeType.GRAPHS:
            found.extend(attribute.as_graphs())
    return found


def followed(graph: ir.Graph, version: int) -> dict[ir.Node, Control]:
    """The control operators of ``graph``, and of the bodies that are followed, outer ones first.

    Args:
        graph: the main graph.
        version: the opset version of the default domain.
    """
    found: dict[ir.Node, Control] = {}
    pending = [(graph, 0, 0)]
    for part, depth, loops in pending:
        for node in part:
            control = _read(node, version)
            if control is None:
                continue
            inside = loops + (node.op_type != "If")
            if depth < DEEPEST and inside <= DEEPEST_LOOP:
                found[node] = control
                pending.extend((body, depth + 1, inside) for body in control.bodies)
    return found


def every_node(graph: ir.Graph, controls: Mapping[ir.Node, Control]) -> Iterator[ir.Node]:
    """The nodes of ``graph`` and of all bodies that are followed."""
    pending = [graph]
    for part in pending:
        for node in part:
            yield node
            if node in controls:
                pending.extend(controls[node].bodies)


def _read(node: ir.Node, version: int) -> Control | None:
    """The signature of a control operator; None where it is none, or does not fit together."""
    if node.domain not in ("", "ai.onnx"):
        return None
    control = None
    if node.op_type == "If":
        control = _branches(node)
    elif node.op_type == "Loop":
        control = _loop(node)
    elif node.op_type == "Scan" and version >= _OLDEST_SCAN:
        control = _scan(node)
    if control is None or not all(map(_is_closed, control.bodies)):
        return None
    return control


def _is_closed(body: ir.Graph) -> bool:
    """Whether the inputs and outputs of a body are its own, each of them once."""
    own = all(value is not None and value.graph is body for value in (*body.inputs, *body.outputs))
    return own and not any(value.is_initializer() for value in body.inputs)


def _body(node: ir.Node, name: str) -> ir.Graph | None:
    attribute = node.attributes.get(name)
    return attribute.as_graph() if attribute is not None and attribute.type == ir.AttributeType.GRAPH else None


def _branches(node: ir.Node) -> Control | None:
    first, second = _body(node, "then_branch"), _body(node, "else_branch")
    if first is None or second is None or len(node.inputs) != 1 or first.inputs or second.inputs:
        return None
    if len(first.outputs) != len(node.outputs) or len(second.outputs) != len(node.outputs):
        return None
    rows = zip(node.outputs, first.outputs, second.outputs, strict=True)
    exits = tuple(Exit(value, (then, otherwise)) for value, then, otherwise in rows)
    return Control(node, (first, second), (), exits, tuple(node.inputs))


def _loop(node: ir.Node) -> Control | None:
    body = _body(node, "body")
    operands = [*node.inputs, None, None]
    trips, go, initial = operands[0], operands[1], node.inputs[2:]
    count = len(initial)
    if body is None or len(body.inputs) != 2 + count or len(body.outputs) != 1 + len(node.outputs):
        return None
    starts = [value for value in initial if value is not None]
    if len(starts) != count or len(node.outputs) < count:
        return None
    number, again, *carried = body.inputs
    going, *results = body.outputs
    entries = [Entry(number, None), Entry(again, go, going)]
    entries += [Entry(*row) for row in zip(carried, starts, results[:count], strict=True)]
    exits = [
        Exit(value, (start, result))
        for value, start, result in zip(node.outputs[:count], starts, results[:count], strict=True)
    ]
    exits += [Exit(value, (each,), 0) for value, each in zip(node.outputs[count:], results[count:], strict=True)]
    return Control(node, (body,), tuple(entries), tuple(exits), (trips, go, going))


def _scan(node: ir.Node) -> Control | None:
    body = _body(node, "body")
    number = node.attributes.get("num_scan_inputs")
    if body is None or number is None or number.type != ir.AttributeType.INT:
        return None
    operands = [value for value in node.inputs if value is not None]
    count = len(operands) - number.as_int()
    if not 0 <= count < len(operands) or len(operands) != len(node.inputs) or len(body.inputs) != len(operands):
        return None
    if len(body.outputs) != len(node.outputs) or len(node.outputs) < count:
        return None
    before = _axes(node, "scan_input_axes", len(operands) - count)
    after = _axes(node, "scan_output_axes", len(node.outputs) - count)
    if before is None or after is None:
        return None
    states = zip(body.inputs[:count], operands[:count], body.outputs[:count], strict=True)
    entries = [Entry(*row) for row in states]
    entries += [
        Entry(value, source, None, axis)
        for value, source, axis in zip(body.inputs[count:], operands[count:], before, strict=True)
    ]
    exits = [
        Exit(value, (start, result))
        for value, start, result in zip(node.outputs[:count], operands[:count], body.outputs[:count], strict=True)
    ]
    exits += [
        Exit(value, (each,), axis)
        for value, each, axis in zip(node.outputs[count:], body.outputs[count:], after, strict=True)
    ]
    return Control(node, (body,), tuple(entries), tuple(exits))


def _axes(node: ir.Node, name: str, count: int) -> list[int] | None:
    attribute = node.attributes.get(name)
    if attribute is None:
        return [0] * count
    if attribute.type != ir.AttributeType.INTS or len(attribute.as_ints()) != count:
        return None
    return list(attribute.as_ints())

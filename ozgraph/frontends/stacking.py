"""A Loop that appends to a sequence, run by run, and whose sequence is stacked afterwards, stacks its results itself.

That is how exporters write a list that a loop appends to. A Loop that stacks says the same without a sequence.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx_ir as ir

from ozgraph.frontends.control_flow import Control
from ozgraph.frontends.known import Inferred
from ozgraph.names import fresh


@dataclass(frozen=True, slots=True)
class _Appending:
    """A carried sequence: its place among the carried values, what appends to it, and what stacks it afterwards."""

    place: int
    insert: ir.Node
    stacks: tuple[ir.Node, ...]
    rank: int


def stack_results(model: ir.Model, controls: Mapping[ir.Node, Control], inferred: Inferred) -> bool:
    """Rewrite every such Loop, in place; whether there was one."""
    changed = False
    for control in list(controls.values()):
        if control.node.op_type != "Loop" or control.node.graph is None:
            continue
        for place in reversed(range(len(control.node.inputs) - 2)):
            found = _appending(control, place, inferred)
            if found is not None:
                _rewrite(model, control, found)
                changed = True
                break  # the signature is another now: the next round sees to the rest
    return changed


def _appending(control: Control, place: int, inferred: Inferred) -> _Appending | None:
    node, (body,) = control.node, control.bodies
    start, received, returned, result = (
        node.inputs[2 + place],
        body.inputs[2 + place],
        body.outputs[1 + place],
        node.outputs[place],
    )
    empty = start.producer() if start is not None else None
    insert = returned.producer()
    if empty is None or empty.op_type != "SequenceEmpty" or insert is None or insert.op_type != "SequenceInsert":
        return None
    if len(insert.inputs) > 2 and insert.inputs[2] is not None:
        return None
    only = [use.node for use in received.uses()] == [insert] and insert.inputs[0] is received
    element = insert.inputs[1]
    shape = inferred.static_shape(element.name or "") if element is not None else None
    if not only or received.is_graph_output() or returned.uses() or shape is None or result.is_graph_output():
        return None
    if sum(value is returned for value in body.outputs) > 1:
        return None
    stacks = tuple(use.node for use in result.uses())
    for stack in stacks:
        axis = stack.attributes.get("axis")
        new = stack.attributes.get("new_axis")
        if stack.op_type != "ConcatFromSequence" or new is None or new.as_int() != 1 or axis is None:
            return None
        if not -len(shape) - 1 <= axis.as_int() <= len(shape):
            return None
    return _Appending(place, insert, stacks, len(shape))


def _rewrite(model: ir.Model, control: Control, found: _Appending) -> None:
    node, (body,) = control.node, control.bodies
    graph = node.graph
    assert isinstance(graph, ir.Graph)
    element = found.insert.inputs[1]
    assert element is not None
    names = {
        value.name
        for part in model.graphs()
        for value in (*part.inputs, *part.initializers.values(), *(out for inner in part for out in inner.outputs))
    }

    # The body returns the element in the place of the sequence, behind everything that it carries.
    each = ir.node("Identity", [element])
    each.outputs[0].name = fresh(f"{element.name}_each", names)
    each.outputs[0].type, each.outputs[0].shape = element.type, element.shape
    body.insert_before(found.insert, each)
    outputs = [value for number, value in enumerate(body.outputs) if number != 1 + found.place]
    body.outputs.clear()
    body.outputs.extend([*outputs, each.outputs[0]])
    body.remove(found.insert, safe=True)
    inputs = list(body.inputs)
    del inputs[2 + found.place]
    body.inputs.clear()
    body.inputs.extend(inputs)

    operands = [value for number, value in enumerate(node.inputs) if number != 2 + found.place]
    made = ir.Node("", "Loop", operands, [ir.AttrGraph("body", body)], num_outputs=len(node.outputs))
    made.metadata_props.update(node.metadata_props)
    graph.insert_before(node, made)
    kept = [value for number, value in enumerate(node.outputs) if number != found.place]
    for before, after in zip(kept, made.outputs, strict=False):
        after.type, after.shape = before.type, before.shape
        after.name, before.name = before.name, None
        before.replace_all_uses_with(after, replace_graph_outputs=True)
    stacked = made.outputs[-1]
    stacked.name = fresh(f"{node.outputs[found.place].name}_stacked", names)
    stacked.type = element.type
    for stack in found.stacks:
        _transpose(stack, stacked, found.rank)
    node.attributes.pop("body")
    graph.remove(node, safe=True)
    made.name = node.name


def _transpose(stack: ir.Node, stacked: ir.Value, rank: int) -> None:
    """Put the runs, which are in front, where ``stack`` has them."""
    axis = stack.attributes["axis"].as_int() % (rank + 1)
    order = list(range(1, rank + 1))
    order.insert(axis, 0)
    node = ir.node("Transpose", [stacked], attributes={"perm": order}, name=stack.name)
    graph = stack.graph
    assert isinstance(graph, ir.Graph)
    graph.insert_before(stack, node)
    before, after = stack.outputs[0], node.outputs[0]
    after.type, after.shape = before.type, before.shape
    after.name, before.name = before.name, None
    before.replace_all_uses_with(after, replace_graph_outputs=True)
    graph.remove(stack, safe=True)

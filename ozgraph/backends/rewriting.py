"""Changes to single operators: attributes, shape operands, replacements."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from ozgraph.backends.model_copy import ModelCopy
from ozgraph.frontends.normal_form import ANNOTATION
from ozgraph.graph import Op
from ozgraph.plan import NewOp, Rewrite


def _graph_of(node: ir.Node) -> ir.Graph:
    """The main graph, or the body that a node stands in."""
    graph = node.graph
    assert isinstance(graph, ir.Graph)
    return graph


def set_operand(node: ir.Node, position: int, value: ir.Value) -> None:
    """Give a node another operand; missing ones before it are left out."""
    if position >= len(node.inputs):
        node.resize_inputs(position + 1)
    node.replace_input_with(position, value)


def _insert(
    copy: ModelCopy, before: ir.Node, kind: str, inputs: list[ir.Value | None], name: str, **attributes: Any
) -> ir.Value:
    """Insert a node ahead of ``before`` and return its result."""
    node = ir.node(kind, inputs, attributes=attributes, name=copy.unique(name), version=before.version)
    node.outputs[0].name = copy.unique(f"{name}_output")
    if inputs[0] is not None:
        node.outputs[0].type = inputs[0].type
    _graph_of(before).insert_before(before, node)
    return node.outputs[0]


def rewrite_op(copy: ModelCopy, op: Op, changes: Rewrite) -> None:
    """Change the attributes and shape operands of one node."""
    node = copy.nodes[op]
    for name, value in changes.attributes.items():
        if value is None:
            node.attributes.pop(name, None)
        else:
            node.attributes[name] = _attribute(name, value, node.attributes.get(name))
    for position, array in changes.constants.items():
        old = node.inputs[position] if position < len(node.inputs) else None
        name = old.name if old is not None and old.name else f"{op.name}_operand_{position}"
        set_operand(node, position, copy.constant(f"{name}_pruned" if old is not None else name, array))
    for position, sizes in changes.sizes.items():
        _resize(copy, op, node, position, sizes)


def _attribute(name: str, value: Any, old: ir.Attr | None) -> ir.Attr:
    """``value`` as an attribute, of the type it had before where there was one."""
    if isinstance(value, np.ndarray):
        tensors = (ir.AttributeType.TENSOR, ir.AttributeType.UNDEFINED)
        if old is None or old.type in tensors:
            return ir.AttrTensor(name, ir.Tensor(np.ascontiguousarray(value).reshape(value.shape)))
        value = value.tolist()
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, (tuple, list)):
        value = [entry.item() if isinstance(entry, np.generic) else entry for entry in value]
    if isinstance(value, bool):
        value = int(value)
    if old is not None and old.type in (ir.AttributeType.FLOAT, ir.AttributeType.FLOATS):
        value = [float(entry) for entry in value] if isinstance(value, list) else float(value)
    kind = old.type if old is not None else None
    if isinstance(value, list) and not value and kind is None:
        kind = ir.AttributeType.INTS
    return ir.convenience.convert_attribute(name, value, kind)


def _resize(copy: ModelCopy, op: Op, node: ir.Node, position: int, sizes: tuple[int | None, ...]) -> None:
    """Replace some elements of a shape operand that the model computes."""
    operand = node.inputs[position]
    assert operand is not None
    kept = [index for index, size in enumerate(sizes) if size is None]
    value = op.input(position)
    dtype = value.dtype if value is not None and value.dtype is not None else np.dtype(np.int64)
    if not kept or (op.operator == "Reshape" and len(kept) == 1 and all(size != 0 for size in sizes)):
        # A Reshape computes one open size by itself.
        numbers = np.array([-1 if size is None else size for size in sizes], dtype=dtype)
        set_operand(node, position, copy.constant(f"{operand.name}_pruned", numbers))
        return
    if len(kept) == len(sizes):
        return
    name = f"{operand.name}_for_{op.name}"
    parts: list[ir.Value | None] = []
    start = 0
    while start < len(sizes):
        stop = start
        while stop < len(sizes) and (sizes[stop] is None) == (sizes[start] is None):
            stop += 1
        if sizes[start] is None:
            index = copy.constant(f"{name}_positions", np.arange(start, stop, dtype=np.int64))
            parts.append(_insert(copy, node, "Gather", [operand, index], f"{name}_kept", axis=0))
        else:
            parts.append(copy.constant(f"{name}_sizes", np.array(sizes[start:stop], dtype=dtype)))
        start = stop
    result = _insert(copy, node, "Concat", parts, name, axis=0)
    result.type = ir.TensorType(ir.DataType.from_numpy(dtype))
    set_operand(node, position, result)


def replace_op(copy: ModelCopy, op: Op, sequence: tuple[NewOp, ...]) -> None:
    """Put ``sequence`` in the place of ``op``; its own output names stay on the values they name."""
    old = copy.nodes[op]
    own = {value.name: value for value in op.outputs if value is not None}
    known = {value.name: copy.values[value] for value in copy.graph.values.values()}
    local: dict[str, ir.Value] = {}
    created: list[ir.Node] = []
    finals: dict[str, ir.Value] = {}
    for new in sequence:
        inputs: list[ir.Value | None] = []
        for entry in new.inputs:
            if entry is None:
                inputs.append(None)
            elif isinstance(entry, str):
                inputs.append(local[entry] if entry in local else known[entry])
            else:
                inputs.append(copy.constant(f"{op.name}_{new.type}_constant", np.asarray(entry)))
        attributes = [_attribute(name, value, None) for name, value in new.attributes.items() if value is not None]
        node = ir.Node(
            new.domain, new.type, inputs, attributes, num_outputs=len(new.outputs), name=copy.unique(f"{op.name}_new")
        )
        for name, value in zip(new.outputs, node.outputs, strict=True):
            local[name] = value
            if name in own:
                finals[name] = value
            else:
                value.name = copy.unique(name) if name else ""
        created.append(node)
        if new.domain not in copy.model.graph.opset_imports and new.domain not in ("", "ai.onnx"):
            copy.model.graph.opset_imports[new.domain] = 1
    created[-1].name = old.name
    for node in created[:-1]:
        node.metadata_props.update(old.metadata_props)
    created[-1].metadata_props.update(old.metadata_props)
    created[-1].doc_string = old.doc_string
    _graph_of(old).insert_before(old, created)
    for name, value in finals.items():
        before = copy.values[own[name]]
        value.type, value.shape, value.doc_string = before.type, before.shape, before.doc_string
        value.metadata_props.update(before.metadata_props)
        if before.meta.get(ANNOTATION):
            value.meta[ANNOTATION] = before.meta[ANNOTATION]
        before.name, value.name = copy.unique(f"{name}_replaced"), name
        before.replace_all_uses_with(value, replace_graph_outputs=True)
        copy.values[own[name]] = value
    _graph_of(old).remove(old, safe=True)
    copy.nodes[op] = created[-1]

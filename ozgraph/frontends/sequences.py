"""Tensors in sequences, written as the splits that they are: SplitToSequence read by SequenceAt becomes Split.

PyTorch's exporter writes chunk, split and unbind so while it does not optimise.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ozgraph.graph import Array

_DEFAULT = ("", "ai.onnx")
_SPLIT_TAKES_SIZES_AS_INPUT = 13


def split_sequences(model: ir.Model) -> None:
    """Rewrite, in place, every split into a sequence whose parts are all read at fixed positions and known in size."""
    version = model.graph.opset_imports.get("", 0)
    for node in tuple(model.graph):
        if node.op_type != "SplitToSequence" or node.domain not in _DEFAULT:
            continue
        readers = _readers(node)
        sizes = _sizes(node)
        if readers is not None and sizes is not None and max(readers.values(), default=0) < len(sizes):
            _rewrite(model.graph, node, readers, sizes, version)


def _readers(node: ir.Node) -> dict[ir.Node, int] | None:
    """The nodes that read the sequence, each at a fixed position; None where anything else does."""
    sequence = node.outputs[0]
    found: dict[ir.Node, int] = {}
    for user, operand in sequence.uses():
        at = _constant(user.inputs[1]) if user.op_type == "SequenceAt" and operand == 0 else None
        if at is None or user.domain not in _DEFAULT or user.graph is not node.graph:
            return None
        found[user] = int(at.reshape(-1)[0])
    if sequence.is_graph_output() or not found:
        return None
    sizes = _sizes(node)
    count = 0 if sizes is None else len(sizes)
    return {user: at + count if at < 0 else at for user, at in found.items()}


def _sizes(node: ir.Node) -> list[int] | None:
    """The widths of the parts; None where they are not known before running."""
    source = node.inputs[0]
    axis = _integer(node, "axis", 0)
    given = _constant(node.inputs[1]) if len(node.inputs) > 1 and node.inputs[1] is not None else np.array(1)
    if given is None or source is None:
        return None
    if given.ndim:
        return [int(size) for size in given]
    if source.shape is None:
        return None
    extent, width = source.shape[axis], int(given)
    if not isinstance(extent, int) or extent <= 0 or width <= 0:
        return None
    return [min(width, extent - start) for start in range(0, extent, width)]


def _integer(node: ir.Node, name: str, default: int) -> int:
    attribute = node.attributes.get(name)
    return default if attribute is None else int(attribute.as_int())


def _constant(value: ir.Value | None) -> Array | None:
    tensor = None if value is None else value.const_value
    return None if tensor is None else tensor.numpy()


def _rewrite(graph: ir.Graph, node: ir.Node, readers: dict[ir.Node, int], sizes: list[int], version: int) -> None:
    source, axis = node.inputs[0], _integer(node, "axis", 0)
    squeezed = len(node.inputs) < 2 or node.inputs[1] is None
    squeezed = squeezed and not _integer(node, "keepdims", 1)
    made: list[ir.Node] = []
    attributes = [ir.AttrInt64("axis", axis)]
    operands = [source]
    if version >= _SPLIT_TAKES_SIZES_AS_INPUT:
        operands.append(_initializer(graph, node, "sizes", sizes))
    else:
        attributes.append(ir.AttrInt64s("split", sizes))
    split = ir.Node("", "Split", operands, attributes, num_outputs=len(sizes), name=node.name)
    made.append(split)
    sequence = node.outputs[0].name
    for number, part in enumerate(split.outputs):
        part.name = f"{sequence}_{number}"
    replaced = {}
    for reader, at in readers.items():
        result = reader.outputs[0]
        part = split.outputs[at]
        if squeezed:
            axes = [_initializer(graph, reader, "axes", [axis])] if version >= _SPLIT_TAKES_SIZES_AS_INPUT else []
            listed = [] if axes else [ir.AttrInt64s("axes", [axis])]
            squeeze = ir.Node("", "Squeeze", [part, *axes], listed, num_outputs=1, name=reader.name)
        else:
            squeeze = ir.Node("", "Identity", [part], (), num_outputs=1, name=reader.name)
        made.append(squeeze)
        fresh = squeeze.outputs[0]
        fresh.name, fresh.shape, fresh.type = result.name, result.shape, result.type
        replaced[result] = fresh
    graph.insert_before(node, made)
    for old, fresh in replaced.items():
        old.replace_all_uses_with(fresh, replace_graph_outputs=True)
    graph.remove([*readers, node], safe=True)


def _initializer(graph: ir.Graph, node: ir.Node, what: str, numbers: list[int]) -> ir.Value:
    name = f"{node.outputs[0].name}_{what}"
    while name in graph.initializers:
        name += "_"
    tensor = ir.tensor(np.array(numbers, dtype=np.int64), name=name)
    value = ir.Value(
        name=name, shape=ir.Shape([len(numbers)]), type=ir.TensorType(ir.DataType.INT64), const_value=tensor
    )
    graph.register_initializer(value)
    return value

"""Constants of one number that several operators read become one for each operator.

Biases that start at zero and scales that start at one are equal in every layer of a network that was not trained, and
exporters write equal constants once. As one weight, such a constant would tie the channels of all these layers
together, though nothing in the model does. When a model is written, those that are still alike become one again.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from ozgraph.frontends.tensors import alias, elements
from ozgraph.names import fresh

_MOST = 1 << 18
"""Elements of the largest that are parted: each is a tensor of its own while the model is verified."""

_KINDS = frozenset(
    {
        ir.DataType.FLOAT,
        ir.DataType.DOUBLE,
        ir.DataType.FLOAT16,
        ir.DataType.BFLOAT16,
        ir.DataType.INT4,
        ir.DataType.UINT4,
        ir.DataType.INT8,
        ir.DataType.UINT8,
        ir.DataType.INT32,
    }
)
"""Weights, zero points and quantised biases; not the integers that sizes are made of."""


def part(model: ir.Model) -> dict[str, str]:
    """Give every node its own, in place; in normal form.

    Returns:
        Name of each new constant -> name of the one that it was. New names tell which node reads them.
    """
    graph = model.graph
    shared = [value for value in graph.initializers.values() if len(value.uses()) > 1 and _is_fill(value.const_value)]
    if not shared:
        return {}
    parted: dict[str, str] = {}
    taken = {value.name for node in graph.all_nodes() for value in node.outputs} | set(graph.initializers)
    taken.update(value.name for value in graph.inputs)
    for value in shared:
        tensor, uses = value.const_value, [use for use in value.uses() if use.node.graph is graph]
        assert tensor is not None and value.name is not None
        others = len(uses) < len(value.uses()) or value.is_graph_output()  # which the name belongs to
        for use in uses if others else uses[1:]:
            name = fresh(f"{value.name}@{_reader(use.node)}", taken)
            own = ir.Value(name=name, shape=value.shape, type=value.type, const_value=alias(tensor, name))
            graph.register_initializer(own)
            use.node.replace_input_with(use.idx, own)
            parted[name] = value.name
    return parted


def join(graph: ir.Graph, parted: Mapping[str, str]) -> None:
    """Make those one again whose contents are the same, in place: they are of one number, so shapes tell."""
    kept: dict[tuple[str, tuple[int, ...]], ir.Value] = {}
    for name in dict.fromkeys((*parted.values(), *parted)):
        value = graph.initializers.get(name)
        if value is None or value.const_value is None:
            continue
        key = parted.get(name, name), tuple(value.const_value.shape.numpy())
        first = kept.setdefault(key, value)
        if first is not value:
            value.replace_all_uses_with(first)


def _reader(node: ir.Node) -> str | None:
    """What a node is known by; exporters give an Identity the name of the layer's own weight."""
    made = node.outputs[0].name
    return made if node.op_type == "Identity" else node.name or made


def _is_fill(tensor: ir.TensorProtocol | None) -> bool:
    """Whether a tensor of several elements holds one number."""
    if tensor is None or tensor.dtype not in _KINDS or not 1 < tensor.size <= _MOST:
        return False
    array = np.ascontiguousarray(elements(tensor)).reshape(-1, 1).view(np.uint8)  # a negative zero is another number
    return bool((array[0] == array[-1]).all() and (array == array[0]).all())

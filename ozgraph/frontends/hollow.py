"""Nodes with bodies (If, Loop, Scan) as protobufs without the bodies' weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import onnx
import onnx_ir as ir

from ozgraph.frontends import graph_protos
from ozgraph.frontends.tensors import elements

IsSmall = Callable[[ir.TensorProtocol], bool]
Declare = Callable[[ir.TensorProtocol], str]
"""Announces a weight outside; returns the name that it has there."""


class Hollow(ir.LazyTensor):
    """A tensor that is written without its elements."""

    def __init__(self, tensor: ir.TensorProtocol) -> None:
        super().__init__(
            lambda: tensor,
            dtype=tensor.dtype,
            shape=ir.Shape(tensor.shape.numpy()),
            name=tensor.name,
            doc_string=tensor.doc_string,
            metadata_props=dict(tensor.metadata_props),
        )

    def tobytes(self) -> bytes:
        """Nothing: the elements follow by themselves, or are not wanted."""
        return b""


def has_bodies(node: ir.Node) -> bool:
    """Whether a node has a graph of its own."""
    return any(attribute.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for attribute in _attributes(node))


def without_weights(node: ir.Node, is_small: IsSmall, declare: Declare | None = None) -> onnx.NodeProto:
    """``node`` as a protobuf, with no elements but those of small weights.

    Args:
        node: the same afterwards.
        is_small: which weights keep their elements.
        declare: called for every other weight; what it announces takes the weight's place, through an Identity, since
            the checker accepts no weight without elements. Without it, their shapes and types stay.
    """
    if not has_bodies(node):
        return ir.serde.serialize_node(node)
    with _hollowed(node, is_small) as emptied:
        proto = ir.serde.serialize_node(node)
    if declare is not None:
        # Inner bodies first: what is put into an outer one copies its nodes.
        for body, body_proto in reversed(list(zip(_bodies(node), _body_protos(proto), strict=True))):
            _declare_outside(body, body_proto, emptied, declare)
    return proto


def _attributes(node: ir.Node) -> Iterator[ir.Attr]:
    return (attribute for attribute in node.attributes.values() if not attribute.is_ref())


def _bodies(node: ir.Node) -> Iterator[ir.Graph]:
    """The graphs of a node and of the nodes in them, outer ones first."""
    for attribute in _attributes(node):
        graphs: list[ir.Graph] = []
        if attribute.type == ir.AttributeType.GRAPH:
            graphs = [attribute.as_graph()]
        elif attribute.type == ir.AttributeType.GRAPHS:
            graphs = list(attribute.as_graphs())
        for graph in graphs:
            yield graph
            for inner in graph:
                yield from _bodies(inner)


def _body_protos(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    """The same, in the same order."""
    found: list[onnx.GraphProto] = []
    for graph in graph_protos.bodies(node):
        found.append(graph)
        for inner in graph.node:
            found += _body_protos(inner)
    return found


@contextmanager
def _hollowed(node: ir.Node, is_small: IsSmall) -> Iterator[set[ir.Value]]:
    """Inside, large weights of the bodies have no elements, and small ones have theirs with them; yields the large."""
    kept: list[tuple[ir.Value, ir.TensorProtocol]] = []
    emptied: set[ir.Value] = set()
    try:
        for body in _bodies(node):
            for value in body.initializers.values():
                tensor = value.const_value
                if tensor is None or tensor.dtype == ir.DataType.STRING:
                    continue
                kept.append((value, tensor))
                if is_small(tensor):
                    value.const_value = ir.Tensor(elements(tensor), dtype=tensor.dtype, name=tensor.name)
                else:
                    emptied.add(value)
                    value.const_value = Hollow(tensor)
        yield emptied
    finally:
        for value, tensor in kept:
            value.const_value = tensor


def _declare_outside(body: ir.Graph, proto: onnx.GraphProto, emptied: set[ir.Value], declare: Declare) -> None:
    gone = {name: value.const_value for name, value in body.initializers.items() if value in emptied}
    if not gone:
        return
    kept = [tensor for tensor in proto.initializer if tensor.name not in gone]
    nodes = [
        onnx.helper.make_node("Identity", [declare(tensor)], [name])
        for name, tensor in gone.items()
        if tensor is not None
    ]
    nodes += proto.node
    del proto.initializer[:], proto.node[:]
    proto.initializer.extend(kept)
    proto.node.extend(nodes)

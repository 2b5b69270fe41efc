"""What a model is made of, told from its graph and not from its name."""

from __future__ import annotations

from ozgraph.graph import Graph, Op

ATTENTION, CONVOLUTION, OTHER = "attention", "convolution", "other"

FARTHEST = 6
"""Operators between a softmax and the product that it weighs: casts, dropouts, reshapes of heads, copies for them."""


def kind_of_layers(graph: Graph) -> str:
    """``attention`` where a softmax weighs a product or an operator is all of that, else ``convolution`` where there
    is one, else ``other``."""
    if any("attention" in op.type.lower() or _weighs(op) for op in graph.ops):
        return ATTENTION
    return CONVOLUTION if any("conv" in op.type.lower() for op in graph.ops) else OTHER


def _weighs(op: Op) -> bool:
    """Whether a product has an operand that a softmax made."""
    if not any(word in op.type.lower() for word in ("matmul", "bmm", "einsum")):
        return False
    for operand in op.inputs:
        producer = operand.producer if operand is not None else None
        for _ in range(FARTHEST):
            if producer is None:
                break
            if "softmax" in producer.type.lower():
                return True
            first = producer.inputs[0] if producer.inputs else None
            producer = first.producer if first is not None else None
    return False

"""The quantum of a tensor: the step between the numbers that it can hold, behind a QuantizeLinear.

Sums that leave out zeros may be added up in another order. What differs by one rounding then may be rounded to the next
integer, so that two right models differ by one quantum where they quantise, now and then.
"""

from __future__ import annotations

from ozgraph.graph import Graph, Op

# Differences never grow through these.
_KEEPING = frozenset(
    {"Clip", "Flatten", "Identity", "LeakyRelu", "MaxPool", "Relu", "Reshape", "Slice", "Squeeze", "Transpose"}
    | {"Unsqueeze"}
)


def quanta(graph: Graph) -> dict[str, float] | None:
    """Tensor -> its quantum, for those that have one; None for a graph that quantises no data."""
    if not any(op.type == "QuantizeLinear" and _varies(op) for op in graph.ops):
        return None
    found: dict[str, float] = {}
    for op in graph.ops:
        result = op.outputs[0]
        source = op.input(0)
        if result is None or source is None:
            continue
        if op.type == "DequantizeLinear" and source.constant is None:
            scale = op.input(1)
            if scale is not None and scale.constant is not None and scale.size == 1:
                found[result.name] = float(scale.constant.numpy().reshape(()))
        elif op.type in _KEEPING and source.name in found and not (op.type == "LeakyRelu" and _steep(op)):
            found[result.name] = found[source.name]
    return found


def _varies(op: Op) -> bool:
    data = op.input(0)
    return data is not None and data.constant is None


def _steep(op: Op) -> bool:
    return abs(float(op.attributes.get("alpha", 0.01))) > 1

"""The operator graph in the language of Graphviz, for those who draw themselves."""

from __future__ import annotations

from collections.abc import Mapping

from ozgraph.graph import Graph, Value
from ozgraph.names import visible

_COLORS = ("#0064a8", "#b84a00", "#00705a", "#a23b86", "#7a5c00", "#4b45b0", "#8f2340", "#0f7080", "#4d6b00", "#8a4a2f")
"""Of families, in turns; told apart by people who see red and green alike."""

_LONGEST = 80


def dot(graph: Graph, dims: Mapping[Value, str], families: Mapping[Value, int]) -> str:
    """Operators as nodes and tensors as edges.

    Args:
        dims: what stands at the edges of a value.
        families: value -> number of the family whose colour its edges have.
    """
    numbers = {op: number for number, op in enumerate(graph.ops)}
    lines = [
        f"digraph {_quoted(graph.name)} {{",
        '  node [shape=box, style=rounded, fontname="Helvetica", fontsize=11];',
        '  edge [fontname="Helvetica", fontsize=9, color="#8a97a3"];',
    ]

    def edge(start: str, end: str, value: Value) -> str:
        number = families.get(value)
        color = "" if number is None else f", color={_quoted(_COLORS[number % len(_COLORS)])}"
        return f"  {start} -> {end} [label={_quoted(dims.get(value, ''))}{color}];"

    for number, value in enumerate(graph.inputs):
        lines.append(f"  i{number} [label={_quoted(value.name)}, shape=ellipse];")
        lines += [edge(f"i{number}", f"o{numbers[op]}", value) for op, _ in value.uses]
    for op, number in numbers.items():
        lines.append(f"  o{number} [label={_quoted(op.operator)}, tooltip={_quoted(op.name)}];")
    for op, number in numbers.items():
        for result in op.outputs:
            if result is not None:
                lines += [edge(f"o{number}", f"o{numbers[use]}", result) for use, _ in result.uses]
    for number, value in enumerate(graph.outputs):
        lines.append(f"  r{number} [label={_quoted(value.name)}, shape=ellipse];")
        if value.producer is not None:
            lines.append(edge(f"o{numbers[value.producer]}", f"r{number}", value))
    return "\n".join([*lines, "}", ""])


def _quoted(name: str) -> str:
    """A name as a string of the language: one line, nothing in it ends it or is an escape."""
    return '"' + visible(name, _LONGEST).replace("\\", "\\\\").replace('"', '\\"') + '"'

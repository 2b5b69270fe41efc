"""Bring a graph into the form that rules are written for, without touching the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ozgraph.errors import PassError
from ozgraph.graph import Op, Value
from ozgraph.passes.manager import Pass
from ozgraph.passes.state import State


@dataclass(frozen=True)
class Normalize(Pass):
    """Settle what the later passes rely on.

    1. Operators stand in topological order and every operand is known (checked).
    2. Sizes read as numbers are numbers: whatever the frontend could follow through shape arithmetic is in
       ``Value.integers``, and elimination writes the original number wherever the model would read a shrunken size.
    3. Defaults that depend on the opset (softmax and squeeze axes, split sizes) are read through the rules, which
       know the version, and are written out when an axis shrinks.
    """

    name: ClassVar[str] = "normalize"
    ensures: ClassVar[frozenset[str]] = frozenset({"normalized"})

    def run(self, state: State) -> bool:
        """Check the order of operators."""
        self.check(state)
        return False

    def check(self, state: State) -> None:
        """Every operand is an input, a constant or the result of an earlier operator."""
        made: set[Value] = set(state.graph.inputs)
        for op in state.graph.ops:
            for value in (*op.inputs, *op.captures):
                if value is not None and value.constant is None and value not in made:
                    raise PassError(f"{op!r} reads {value.name!r} before anything computes it")
            made.update(value for value in op.outputs if value is not None)


def reads_size(op: Op) -> bool:
    """Whether an operator turns the sizes of its operand into numbers."""
    return op.type in ("Shape", "Size") and op.domain in ("", "ai.onnx")

"""Print a graph between passes, for ``--print-after`` and debugging."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import Any

from ozgraph.errors import UsageError
from ozgraph.graph import Value
from ozgraph.names import unseen_removed
from ozgraph.passes.manager import Pass
from ozgraph.passes.state import State
from ozgraph.suggestions import hint


def text(state: State) -> str:
    """The operators of a graph with the dims of their tensors, one line each, then the families."""
    lines = [f"graph {state.graph.name!r}, facts: {', '.join(sorted(state.facts)) or 'none'}"]
    for op in state.graph.ops:
        operands = ", ".join("-" if value is None else _tensor(state, value) for value in op.inputs)
        results = ", ".join("-" if value is None else _tensor(state, value) for value in op.outputs)
        lines.append(f"  {results} = {op.operator}({operands})")
    for family in state.families:
        gone = state.removed.count(family.atom) if state.removed else 0
        lines.append(
            f"  {family.id}: {family.atom.size} slots of {family.dim}, {family.exactness}"
            + ("" if family.active else ", inactive")
            + (f", {gone} go" if gone else "")
        )
    return "\n".join(lines)


def _tensor(state: State, value: Value) -> str:
    dims = state.axes.get(value)
    if dims is None:
        return f"{value.name}{list(value.shape or ())}"
    axes = []
    for dim in dims:
        atoms = state.atoms_of(dim) if "certified" in state.facts else ()
        axes.append(f"{dim.size}:{'*'.join(f'a{atom.base}' for atom in atoms)}" if atoms else str(dim.size))
    return f"{value.name}[{', '.join(axes)}]"


def dump_after(names: Iterable[str]) -> Callable[[Pass, State], None]:
    """A pipeline observer that prints the graph to standard error after the named passes."""
    wanted = set(names)
    from ozgraph.passes import eliminate, freeze, group, infer_dims, normalize, prove_dead, select, verify  # noqa: F401

    known = {step.name for step in _subclasses(Pass) if hasattr(step, "name")}
    unknown = sorted(wanted - known)
    if unknown:
        raise UsageError(f"no pass {unknown[0]!r} to print after; {hint(unknown[0], sorted(known))}")

    def observe(step: Pass, state: State) -> None:
        if step.name in wanted:
            sys.stderr.write(f"after {step.name}:\n{unseen_removed(text(state))}\n")

    return observe


def _subclasses(cls: Any) -> list[type[Pass]]:
    found: list[type[Pass]] = []
    stack = [cls]
    while stack:
        for sub in stack.pop().__subclasses__():
            found.append(sub)
            stack.append(sub)
    return found

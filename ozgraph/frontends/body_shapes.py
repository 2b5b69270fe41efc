"""Shapes inside the bodies of If, Loop and Scan, and of what comes out of them.

A carried value is first taken to keep its shape. Where the body then returns another one, the axes that differ are left
open, and the body is walked again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np
import onnx_ir as ir

from ozgraph.frontends.control_flow import Control, Entry, Exit, every_node
from ozgraph.frontends.known import Dim, Inferred

Walk = Callable[[Iterable[ir.Node]], None]

_ROUNDS = 3

_MOST_RUNS = 1 << 20

ASSUMED_RUNS = 3
"""How often a body is taken to run where only a run can tell; an axis of that size counts as one that varies."""


def infer(
    control: Control, controls: Mapping[ir.Node, Control], known: Inferred, computed: set[str], walk: Walk
) -> None:
    """Record what is known of the values of the bodies and of the results.

    Args:
        control: the node.
        controls: all nodes whose bodies are followed.
        known: what is known so far; extended.
        computed: names of shape arithmetic that follows from sizes; extended.
        walk: records what is known of the results of nodes, in order.
    """
    for entry in control.entries:
        _enter(entry, known)
    for attempt in range(_ROUNDS + 1):
        for body in control.bodies:
            walk(body)
        changing = [entry for entry in control.entries if _open_what_changes(entry, known, drop=attempt == _ROUNDS - 1)]
        if not changing:
            break
        _forget(control, controls, known, computed)
    count = runs(control, known)
    for made in control.exits:
        _leave(control, made, count, known, computed)


def _enter(entry: Entry, known: Inferred) -> None:
    name = entry.value.name or ""
    source = entry.source.name or "" if entry.source is not None else ""
    if source in known.dtypes:
        known.dtypes[name] = known.dtypes[source]
    elif entry.value.dtype is not None:
        known.dtypes.setdefault(name, entry.value.dtype.value)
    shape = known.shapes.get(source)
    if entry.source is None or (shape is None and entry.later is not None and entry.value.dtype == ir.DataType.BOOL):
        declared = entry.value.shape
        sizes = [extent for extent in declared if isinstance(extent, int)] if declared is not None else []
        known.shapes[name] = tuple(sizes) if declared is not None and len(sizes) == len(declared) else ()
    elif shape is None:
        known.shapes.pop(name, None)
    elif entry.axis is None:
        known.shapes[name] = shape
    elif -len(shape) <= entry.axis < len(shape):
        axis = entry.axis % len(shape)
        known.shapes[name] = shape[:axis] + shape[axis + 1 :]


def _open_what_changes(entry: Entry, known: Inferred, *, drop: bool) -> bool:
    """Leave the axes open that differ between what a body receives and what it returns; whether there were any."""
    if entry.later is None or entry.source is None:
        return False
    name = entry.value.name or ""
    before, after = known.shapes.get(name), known.shapes.get(entry.later.name or "")
    if before is None:
        return False
    if after is None or len(after) != len(before):
        del known.shapes[name]
        return True
    opened: tuple[Dim, ...] = tuple(a if a == b else None for a, b in zip(before, after, strict=True))
    if opened == before:
        return False
    if drop:
        del known.shapes[name]
    else:
        known.shapes[name] = opened
    return True


def _forget(control: Control, controls: Mapping[ir.Node, Control], known: Inferred, computed: set[str]) -> None:
    for body in control.bodies:
        for node in every_node(body, controls):
            for value in node.outputs:
                name = value.name or ""
                known.shapes.pop(name, None)
                known.elements.pop(name, None)
                known.floats.pop(name, None)
                computed.discard(name)


def runs(control: Control, known: Inferred) -> int | None:
    """How often a Loop or Scan runs its body at most, at the sizes at hand; None where only a run can tell."""
    if control.node.op_type == "Scan":
        for entry in control.entries:
            shape = known.shapes.get(entry.source.name or "") if entry.source is not None else None
            if entry.axis is not None and shape is not None and -len(shape) <= entry.axis < len(shape):
                size = shape[entry.axis]
                return size if isinstance(size, int) else None
        return None
    trips = control.conditions[0] if control.node.op_type == "Loop" else None
    elements = known.elements.get(trips.name or "") if trips is not None else None
    if elements is None or elements.size != 1:
        return None
    count = int(elements.reshape(-1)[0])
    return count if 0 <= count <= _MOST_RUNS else None


def is_counted(control: Control, known: Inferred) -> bool:
    """Whether it is known, at the sizes at hand, how often a Loop or Scan runs its body."""
    return runs(control, known) is not None and _runs_on(control, known)


def _runs_on(control: Control, known: Inferred) -> bool:
    """Whether nothing stops a Loop or Scan before it has run as often as it may."""
    if control.node.op_type == "Scan":
        return True
    _, go, going = control.conditions
    again = control.entries[1].value
    while going is not None and going is not again and _passes_on(going.producer(), known):
        producer = going.producer()
        assert producer is not None
        going = producer.inputs[0]
    return (go is None or _is_true(go, known)) and (going is again or _is_true(going, known))


def _passes_on(node: ir.Node | None, known: Inferred) -> bool:
    """Whether a node hands a condition on as it is."""
    source = node.inputs[0] if node is not None and len(node.inputs) == 1 else None
    if node is None or source is None or node.domain not in ("", "ai.onnx"):
        return False
    boolean = known.dtypes.get(source.name or "") == ir.DataType.BOOL.value
    return node.op_type == "Identity" or (node.op_type == "Cast" and boolean)


def _is_true(value: ir.Value | None, known: Inferred) -> bool:
    elements = known.elements.get(value.name or "") if value is not None else None
    return elements is not None and elements.size == 1 and bool(elements.reshape(-1)[0])


def choice(control: Control, known: Inferred) -> int | None:
    """The branch that an If takes at the sizes at hand; None where only a run can tell."""
    condition = control.conditions[0] if control.node.op_type == "If" else None
    elements = known.elements.get(condition.name or "") if condition is not None else None
    if elements is None or elements.size != 1:
        return None
    return 0 if bool(elements.reshape(-1)[0]) else 1


def _leave(control: Control, made: Exit, count: int | None, known: Inferred, computed: set[str]) -> None:
    name = made.value.name or ""
    taken = choice(control, known)
    sources = [value.name or "" for value in (made.sources if taken is None else made.sources[taken : taken + 1])]
    for source in sources:
        if source in known.dtypes:
            known.dtypes.setdefault(name, known.dtypes[source])
    shapes = [known.shapes.get(source) for source in sources]
    if not known.complete(name) and all(shape is not None for shape in shapes):
        present = [shape for shape in shapes if shape is not None]
        if len({len(shape) for shape in present}) == 1:
            merged: tuple[Dim, ...] = tuple(
                sizes[0] if len(set(sizes)) == 1 else None for sizes in zip(*present, strict=True)
            )
            if made.axis is None:
                known.shapes[name] = merged
            elif -len(merged) <= made.axis + 1 and made.axis <= len(merged):
                axis = made.axis % (len(merged) + 1)
                known.shapes[name] = (*merged[:axis], ASSUMED_RUNS if count is None else count, *merged[axis:])
    elements = [known.elements.get(source) for source in sources]
    first = elements[0]
    if control.node.op_type != "If" or first is None:
        return
    if all(other is not None and other.dtype == first.dtype and np.array_equal(first, other) for other in elements):
        known.elements[name] = first
        if any(source in computed for source in sources):
            computed.add(name)

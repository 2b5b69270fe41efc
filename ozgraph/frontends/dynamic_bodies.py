"""What varies at run time inside the bodies of If, Loop and Scan, and of what comes out of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import onnx_ir as ir

from ozgraph.frontends import body_shapes
from ozgraph.frontends.control_flow import Control, Entry, Exit
from ozgraph.frontends.known import Flags, Inferred, Variability
from ozgraph.graph import Integers

_ROUNDS = 3


def trace(control: Control, sample: Inferred, result: Variability, visit: Callable[[Iterable[ir.Node]], None]) -> None:
    """Note what varies in the bodies and among the results; what a body returns flows back into it.

    Args:
        control: the node.
        sample: what is known at the binding that the analysis uses.
        result: what is known to vary so far; extended.
        visit: notes what varies among the results of nodes, in order.
    """
    for entry in control.entries:
        _enter(entry, sample, result)
    for attempt in range(_ROUNDS + 1):
        for body in control.bodies:
            visit(body)
        changed = [entry for entry in control.entries if _feed_back(entry, result, everything=attempt == _ROUNDS - 1)]
        if not changed:
            break
    for made in control.exits:
        _leave(control, made, sample, result)


def stacks_uncounted(controls: Iterable[Control], sample: Inferred) -> bool:
    """Whether the number of results that some node stacks is known only after a run, in a model of fixed sizes too."""
    return any(
        not body_shapes.is_counted(control, sample)
        for control in controls
        if any(made.axis is not None for made in control.exits)
    )


def _enter(entry: Entry, sample: Inferred, result: Variability) -> None:
    name = entry.value.name or ""
    shape = sample.static_shape(name)
    if shape is None:
        return
    flags: Flags | None = (False,) * len(shape)
    if entry.source is not None:
        flags = result.axes.get(entry.source.name or "")
        if flags is not None and entry.axis is not None:
            axis = entry.axis % len(flags)
            flags = flags[:axis] + flags[axis + 1 :]
    result.axes[name] = flags if flags is not None and len(flags) == len(shape) else (True,) * len(shape)


def _feed_back(entry: Entry, result: Variability, *, everything: bool) -> bool:
    """Let what varies in what the body returns vary in what it receives; whether that is news."""
    if entry.later is None:
        return False
    name = entry.value.name or ""
    before = result.axes.get(name)
    if before is None:
        return False
    after = result.axes.get(entry.later.name or "")
    if after is None or len(after) != len(before):
        after = (True,) * len(before)
    joined = tuple(a or b for a, b in zip(before, after, strict=True))
    if joined == before:
        return False
    result.axes[name] = (True,) * len(before) if everything else joined
    return True


def _leave(control: Control, made: Exit, sample: Inferred, result: Variability) -> None:
    name = made.value.name or ""
    shape = sample.static_shape(name)
    condition = control.conditions[0] if control.conditions else None
    known = result.integers.get(condition.name or "") if condition is not None else None
    settled = known is not None and known.static
    taken = body_shapes.choice(control, sample) if settled else None
    sources = made.sources if taken is None else made.sources[taken : taken + 1]
    if shape is not None:
        result.axes[name] = _flags(control, made, len(shape), sources, sample, result)
    elements = sample.elements.get(name)
    if elements is not None:
        masks = [result.integers.get(value.name or "") for value in sources]
        varies = np.zeros(elements.shape, dtype=np.bool_)
        for mask in masks:
            same = mask is not None and np.array_equal(mask.elements, elements)
            varies = varies | mask.dynamic if mask is not None and same else np.ones(elements.shape, dtype=np.bool_)
        if any(result.axes.get(name, ())):
            varies = np.ones(elements.shape, dtype=np.bool_)
        result.integers[name] = Integers(elements, varies)


def _flags(
    control: Control,
    made: Exit,
    rank: int,
    sources: tuple[ir.Value, ...],
    sample: Inferred,
    result: Variability,
) -> Flags:
    flags = [False] * (rank if made.axis is None else rank - 1)
    shapes = {sample.static_shape(value.name or "") for value in sources}
    for value in sources:
        known = result.axes.get(value.name or "")
        if known is None or len(known) != len(flags) or len(shapes) > 1:
            return (True,) * rank
        flags = [a or b for a, b in zip(flags, known, strict=True)]
    if made.axis is not None:
        flags.insert(made.axis % rank, not body_shapes.is_counted(control, sample) or _count_varies(control, result))
    return tuple(flags)


def _count_varies(control: Control, result: Variability) -> bool:
    """Whether a Loop or Scan does not run its body the same number of times at every run."""
    for entry in control.entries:
        if entry.axis is not None and entry.source is not None:
            axes = result.axes.get(entry.source.name or "")
            if axes is None or not -len(axes) <= entry.axis < len(axes) or axes[entry.axis]:
                return True
    if control.node.op_type == "Scan":
        return False
    trips, *conditions = (
        None if value is None else result.integers.get(value.name or "") for value in control.conditions
    )
    return trips is None or any(known is not None and not known.static for known in (trips, *conditions))

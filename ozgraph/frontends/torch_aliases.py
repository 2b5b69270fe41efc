"""Writes in place, made into values: which tensor a name stands for once memory that it shares has been written.

Training-level graphs keep ``relu_`` and ``copy_``. A write gives the written tensor a new value; tensors that view the
same memory follow, and are worked out only when they are read again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from ozgraph.graph import Op, Value

MakeOp = Callable[[str, tuple[Value, ...], Value, Op, int], Value]
"""(operator type, operands, a value with the shape of the result, the view and which of its results) -> the result of
a new operator."""


@dataclass(eq=False, slots=True)
class _Memory:
    """What some tensors share, and the writes to it in order: (tensor, its new value)."""

    writes: list[tuple[Value, Value]] = field(default_factory=list)
    known: dict[tuple[Value, int], Value] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _View:
    parent: Value
    op: Op
    certain: bool


class Aliases:
    """Views and writes of one graph.

    Args:
        make: enters an operator that only analysis knows of.
    """

    def __init__(self, make: MakeOp) -> None:
        self._make = make
        self._views: dict[Value, _View] = {}
        self._memory: dict[Value, _Memory] = {}

    def view(self, parent: Value, child: Value, op: Op, *, certain: bool) -> None:
        """``child`` views the memory of ``parent``; or, where that is not certain, may be a copy."""
        self._views[child] = _View(parent, op, certain)
        memory = self._memory_of(parent)
        self._memory[child] = memory
        memory.known[child, len(memory.writes)] = child

    def write(self, target: Value, made: Value) -> None:
        """``made`` is written over ``target``."""
        self._memory_of(target).writes.append((target, made))

    def read(self, value: Value) -> Value:
        """What ``value`` holds now."""
        memory = self._memory.get(value)
        return value if memory is None else self._after(value, memory, len(memory.writes))

    def _memory_of(self, value: Value) -> _Memory:
        memory = self._memory.get(value)
        if memory is None:
            memory = self._memory[value] = _Memory()
        return memory

    def _after(self, value: Value, memory: _Memory, count: int) -> Value:
        """What ``value`` holds after ``count`` writes."""
        known = memory.known.get((value, count))
        if known is None:
            known = memory.known[value, count] = self._worked_out(value, memory, count)
        return known

    def _worked_out(self, value: Value, memory: _Memory, count: int) -> Value:
        if count == 0:
            return value
        target, made = memory.writes[count - 1]
        if target is value:
            return made
        line = self._line(target)
        if value in line:
            # An ancestor: what it held, with the view of it that leads to the target written over.
            child = target if value is self._views[target].parent else line[line.index(value) - 1]
            before, part = self._after(value, memory, count - 1), self._after(child, memory, count)
            view = self._views[child]
            return self._make("written", (before, part), value, view.op, view.op.outputs.index(child))
        view = self._views[value]
        number = view.op.outputs.index(value)
        if (value, count) not in memory.known and not self._existed(value, memory, count):
            return value
        seen = self._make("viewed", (self._after(view.parent, memory, count),), value, view.op, number)
        if view.certain:
            return seen
        return self._make("either", (self._after(value, memory, count - 1), seen), value, view.op, number)

    def _existed(self, value: Value, memory: _Memory, count: int) -> bool:
        """Whether a view was already there before write number ``count``."""
        return any((value, number) in memory.known for number in range(count))

    def _line(self, value: Value) -> list[Value]:
        """What a value views, and what that views, up to the tensor that owns the memory."""
        found = []
        while value in self._views:
            value = self._views[value].parent
            found.append(value)
        return found

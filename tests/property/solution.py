"""A system as an operator graph, solved by ozgraph: the ids that every position of every tensor needs."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ozgraph.dims import Reason
from ozgraph.graph import Graph, Integers, Op, Value
from ozgraph.passes.freeze import Freeze
from ozgraph.passes.infer_dims import InferDims
from ozgraph.passes.state import State
from property.systems import (
    Add,
    Concat,
    Hold,
    Kept,
    Mask,
    Permute,
    Reshape,
    Shape,
    Slice,
    Slot,
    Source,
    System,
    Transpose,
    Use,
    carried,
    read_by,
)

Ids = npt.NDArray[np.int64]

_HELD = Reason("the system holds it")


@dataclass(frozen=True)
class _Table:
    """A constant that nobody reads."""

    shape: Shape

    @property
    def nbytes(self) -> int:
        return 4 * int(np.prod(self.shape))

    def numpy(self) -> npt.NDArray[Any]:
        return np.ones(self.shape, np.float32)


class _Network:
    """The operator graph of a system; tensor ``i`` of the system is ``tensors[i]``, made by ``makers[i]``.

    Sources are data that nothing makes, but for those that are named as constants: these may be tables, of which every
    use takes its own slots. Then sums are products, as data is scaled by tables.
    """

    def __init__(self, system: System, constants: Collection[int]) -> None:
        self._constants = constants
        self.ops: list[Op] = []
        self.tensors: list[Value] = []
        self._values: dict[str, Value] = {}
        self._shapes = system.shapes
        for operation in system.operations:
            self.tensors.append(self._made(operation))
        self.graph = Graph(system.kind, tuple(self.ops), self._values, (), ())

    def _value(self, name: str, shape: Shape, **known: Any) -> Value:
        dtype = np.dtype(np.int64 if "integers" in known else np.float32)
        value = Value(name, shape, dtype, (False,) * len(shape), **known)
        self._values[name] = value
        return value

    def _integers(self, elements: Iterable[int]) -> Value:
        array = np.array(list(elements), np.int64)
        known = Integers(array, np.zeros(array.shape, bool))
        return self._value(f"c{len(self._values)}", array.shape, integers=known)

    def _op(self, type_: str, inputs: Iterable[Value], shape: Shape, **attributes: Any) -> Value:
        operands, result = tuple(inputs), self._value(f"t{len(self.tensors)}", shape)
        op = Op(f"op{len(self.ops)}", type_, "", 18, operands, (result,), attributes)
        result.producer = op
        for position, operand in enumerate(operands):
            operand.uses.append((op, position))
        self.ops.append(op)
        return result

    def _made(self, operation: object) -> Value:
        shape, t = self._shapes[len(self.tensors)], self.tensors
        match operation:
            case Source():
                known = {"constant": _Table(shape)} if len(t) in self._constants else {}
                return self._value(f"t{len(t)}", shape, **known)
            case Reshape(x, _):
                return self._op("Reshape", (t[x], self._integers(shape)), shape)
            case Slice(x, axis, start, count, step):
                stop = start + count * step
                # A stop before the first position would count from the end.
                bounds = (start, stop if stop >= 0 else -(1 << 60), axis, step)
                return self._op("Slice", (t[x], *(self._integers([bound]) for bound in bounds)), shape)
            case Concat(xs, axis):
                return self._op("Concat", (t[x] for x in xs), shape, axis=axis)
            case Transpose(x, perm):
                return self._op("Transpose", (t[x],), shape, perm=list(perm))
            case Permute(x, axis, order):
                return self._op("Gather", (t[x], self._integers(order)), shape, axis=axis)
            case Add(x, y):
                return self._op("Mul" if self._constants else "Add", (t[x], t[y]), shape)
            case Hold(x, _, _):
                return t[x]
        raise TypeError(f"{operation!r} is no operation")


class Solution:
    """What ozgraph finds in a system.

    Args:
        constants: the sources that are constants, and so may be tables.

    Attributes:
        free: the ids that may go, one by one and together.
        parts: the uses that take parts of their own.
    """

    def __init__(self, system: System, constants: Collection[int] = ()) -> None:
        self.system = system
        network = _Network(system, constants)
        state = State(network.graph)
        InferDims().run(state)
        for operation, value in zip(system.operations, network.tensors, strict=True):
            if isinstance(operation, Hold) and value in state.axes:
                state.dims.freeze(state.axes[value][operation.axis], _HELD, list(operation.positions))
        Freeze().run(state)
        self._tables: list[tuple[Ids | None, ...]] = []
        for value in network.tensors:
            # A source that nothing reads has no dims; then it is free as it is, and says nothing of ozgraph.
            axes = state.axes.get(value)
            shape = value.shape or ()
            self._tables.append(tuple(None for _ in shape) if axes is None else tuple(map(state.dims.ids, axes)))
        self._taken: dict[Use, tuple[Ids, ...]] = {
            (number, position): tuple(map(state.dims.ids, state.takes[value.producer, position]))
            for number, value in enumerate(network.tensors)
            if value.producer is not None and not isinstance(system.operations[number], Hold)
            for position in range(len(value.producer.inputs))
            if (value.producer, position) in state.takes
        }
        self.parts = len(self._taken)
        made = [*self._tables, *self._taken.values()]
        tables = [table.ravel() for axes in made for table in axes if table is not None]
        ids = np.unique(np.concatenate(tables)) if tables else np.empty(0, np.int64)
        self.free: list[int] = ids[ids >= 0].tolist()

    def kept(self, removed: Iterable[int]) -> list[Kept]:
        """What every tensor keeps, in ozgraph's view, when these ids go."""
        gone = np.array(sorted(removed), np.int64)
        return [
            tuple(
                np.ones(size, bool) if table is None else _stays(table, gone)
                for table, size in zip(axes, shape, strict=True)
            )
            for axes, shape in zip(self._tables, self.system.shapes, strict=True)
        ]

    def taken(self, removed: Iterable[int]) -> Mapping[Use, Kept]:
        """What the uses that take parts of their own take when these ids go."""
        gone = np.array(sorted(removed), np.int64)
        return {use: tuple(_stays(table, gone) for table in axes) for use, axes in self._taken.items()}

    def survives(self, removed: Iterable[int]) -> bool:
        """Whether every axis keeps a position when these ids go."""
        removed = list(removed)
        return all(mask.any() for masks in (*self.kept(removed), *self.taken(removed).values()) for mask in masks)

    def disagreement(self, removed: Iterable[int]) -> str | None:
        """How ozgraph's view of a removal differs from what the operations make of it; None when it does not."""
        removed = list(removed)
        view = self.kept(removed)
        taken = self.taken(removed)
        for (number, position), masks in taken.items():
            whole = view[read_by(self.system.operations[number])[position]]
            for axis, (part, own) in enumerate(zip(masks, whole, strict=True)):
                if not np.array_equal(part, own) and not own.all():
                    return f"removing ids {removed}: t{number} takes a part of axis {axis} of what is not whole"
        truth = carried(self.system, {tensor: view[tensor] for tensor in self.system.sources}, taken)
        if truth is None:
            return f"removing ids {removed} is not valid"
        for i, (seen, real) in enumerate(zip(view, truth, strict=True)):
            for axis, (mine, theirs) in enumerate(zip(seen, real, strict=True)):
                if not np.array_equal(mine, theirs):
                    kept = f"keeps {theirs.astype(int)}, not {mine.astype(int)}"
                    return f"removing ids {removed}: axis {axis} of t{i} {kept}"
        return None

    def found(self) -> frozenset[Slot]:
        """The slots that go with some free id, alone, and leave a survivor everywhere."""
        slots: set[Slot] = set()
        for i in self.free:
            view = self.kept([i])
            if all(mask.any() for masks in view for mask in masks):
                slots.update(slot for slot in self.system.slots if not view[slot[0]][slot[1]][slot[2]])
        return frozenset(slots)

    def unread(self) -> frozenset[Slot]:
        """The slots of sources that no operation reads."""
        return frozenset(slot for slot in self.system.slots if self._tables[slot[0]][slot[1]] is None)


def _stays(table: Ids, gone: Ids) -> Mask:
    return np.asarray(~np.isin(table, gone).any(axis=1))

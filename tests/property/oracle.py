"""Every slot that lies in some removable set, found by search on the definition alone.

Each position of each axis is a boolean: kept or not. Ties make two positions one boolean; a reshape says of every
element that it is kept on one side exactly when it is on the other; an axis that keeps nothing is forbidden. What is
left is a small satisfiability problem, solved by unit propagation and backtracking. :func:`removable_by_enumeration`
knows nothing of that: it tries all removals, and is there to check the search.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import product

import numpy as np

from property.systems import (
    Add,
    Concat,
    Hold,
    Permute,
    Reshape,
    Slice,
    Slot,
    Source,
    System,
    Transpose,
    carried,
)

Literal = int
"""A variable's number plus one when it is true, its negative when it is false."""


def removable(system: System) -> frozenset[Slot]:
    """The slots that some valid removal takes away."""
    problem = _Problem(system)
    found: set[Slot] = set()
    for slot, variable in problem.slots.items():
        if slot in found:
            continue
        kept = problem.solve(-(variable + 1))
        if kept is not None:
            found.update(other for other, number in problem.slots.items() if not kept[number])
    return frozenset(found)


def removable_by_enumeration(system: System) -> frozenset[Slot]:
    """The same by trying every removal; for systems of a dozen slots."""
    shapes, slots = system.shapes, system.slots
    index = {slot: number for number, slot in enumerate(slots)}
    found = np.zeros(len(slots), dtype=bool)
    for bits in product((True, False), repeat=len(slots)):
        gone = ~np.array(bits, dtype=bool)
        if not (gone & ~found).any():
            continue
        kept = {
            tensor: tuple(
                np.array([size == 1 or bits[index[tensor, axis, p]] for p in range(size)])
                for axis, size in enumerate(shapes[tensor])
            )
            for tensor in system.sources
        }
        if carried(system, kept) is not None:
            found |= gone
    return frozenset(slot for slot, number in index.items() if found[number])


class _Problem:
    """The booleans of a system and the clauses over them.

    Attributes:
        slots: the variable of every slot.
        clauses: at least one literal of each holds.
    """

    def __init__(self, system: System) -> None:
        self._parent: list[int] = []
        self._axes: list[list[list[int]]] = []
        self._raw: list[tuple[Literal, ...]] = []
        shapes = system.shapes
        for i, operation in enumerate(system.operations):
            axes = self._made(operation, shapes[i])
            self._axes.append(axes)
            self._raw.extend(tuple(variable + 1 for variable in axis) for axis in axes)
        self.slots = {
            (tensor, axis, position): self._find(self._axes[tensor][axis][position])
            for tensor, axis, position in system.slots
        }
        clauses: set[tuple[Literal, ...]] = set()
        for raw in self._raw:
            named = {(self._find(abs(literal) - 1) + 1) * (1 if literal > 0 else -1) for literal in raw}
            if not any(-literal in named for literal in named):
                clauses.add(tuple(sorted(named)))
        self.clauses = sorted(clauses)
        self._where: dict[Literal, list[int]] = defaultdict(list)
        for number, clause in enumerate(self.clauses):
            for literal in clause:
                self._where[literal].append(number)

    def _fresh(self, count: int) -> list[int]:
        first = len(self._parent)
        self._parent.extend(range(first, first + count))
        return list(range(first, first + count))

    def _find(self, variable: int) -> int:
        while self._parent[variable] != variable:
            self._parent[variable] = self._parent[self._parent[variable]]
            variable = self._parent[variable]
        return variable

    def _tie(self, left: Sequence[int], right: Sequence[int]) -> None:
        for a, b in zip(left, right, strict=True):
            self._parent[self._find(b)] = self._find(a)

    def _made(self, operation: object, shape: tuple[int, ...]) -> list[list[int]]:
        axes = self._axes
        match operation:
            case Source():
                return [self._fresh(size) for size in shape]
            case Reshape(x, _):
                made = [self._fresh(size) for size in shape]
                for left, right in zip(_elements(axes[x]), _elements(made), strict=True):
                    self._same_conjunction(left, right)
                return made
            case Slice(x, axis, start, count, step):
                return _with(axes[x], axis, [axes[x][axis][start + step * k] for k in range(count)])
            case Concat(xs, axis):
                for x in xs[1:]:
                    for number, variables in enumerate(axes[xs[0]]):
                        if number != axis:
                            self._tie(variables, axes[x][number])
                return _with(axes[xs[0]], axis, [variable for x in xs for variable in axes[x][axis]])
            case Transpose(x, perm):
                return [axes[x][axis] for axis in perm]
            case Permute(x, axis, order):
                return _with(axes[x], axis, [axes[x][axis][p] for p in order])
            case Add(x, y):
                for one, other in zip(axes[x], axes[y], strict=True):
                    if len(one) == len(other):
                        self._tie(one, other)
                return [max(pair, key=len) for pair in zip(axes[x], axes[y], strict=True)]
            case Hold(x, axis, positions):
                self._raw.extend((axes[x][axis][p] + 1,) for p in positions)
                return axes[x]
        raise TypeError(f"{operation!r} is no operation")

    def _same_conjunction(self, left: tuple[int, ...], right: tuple[int, ...]) -> None:
        """All of ``left`` are kept exactly when all of ``right`` are."""
        (both,) = self._fresh(1)
        for side in (left, right):
            self._raw.extend((-(both + 1), variable + 1) for variable in side)
            self._raw.append((both + 1, *(-(variable + 1) for variable in side)))

    def solve(self, assumption: Literal) -> list[bool] | None:
        """An assignment under which every clause and the assumption hold, by variable; None when there is none."""
        value: dict[int, bool] = {}
        trail: list[Literal] = []
        # (length of the trail before the decision, the decision); a decision is tried as "kept" first.
        decisions: list[tuple[int, Literal]] = []

        def assign(literal: Literal) -> bool:
            """Make ``literal`` true and all that follows; false on a contradiction."""
            queue = [literal]
            while queue:
                here = queue.pop()
                variable = abs(here) - 1
                if variable in value:
                    if value[variable] != (here > 0):
                        return False
                    continue
                value[variable] = here > 0
                trail.append(here)
                for number in self._where.get(-here, ()):
                    open_literals = []
                    for other in self.clauses[number]:
                        state = value.get(abs(other) - 1)
                        if state is None:
                            open_literals.append(other)
                        elif state == (other > 0):
                            break
                    else:
                        if not open_literals:
                            return False
                        if len(open_literals) == 1:
                            queue.append(open_literals[0])
            return True

        units = [clause[0] for clause in self.clauses if len(clause) == 1]
        if not all(assign(literal) for literal in (*units, assumption)):
            return None
        while True:
            tightest = self._tightest(value)
            if tightest is None:
                return [value.get(self._find(variable), True) for variable in range(len(self._parent))]
            literal = abs(tightest)
            decisions.append((len(trail), literal))
            while not assign(literal):
                # Undo to the last decision whose other side has not been tried.
                while decisions:
                    length, decided = decisions.pop()
                    for undone in trail[length:]:
                        del value[abs(undone) - 1]
                    del trail[length:]
                    if decided > 0:
                        literal = -decided
                        decisions.append((length, literal))
                        break
                else:
                    return None

    def _tightest(self, value: dict[int, bool]) -> Literal | None:
        """A literal of the open clause with the fewest of them; None when every clause holds."""
        best: list[Literal] | None = None
        for clause in self.clauses:
            open_literals = []
            for literal in clause:
                state = value.get(abs(literal) - 1)
                if state is None:
                    open_literals.append(literal)
                elif state == (literal > 0):
                    break
            else:
                if best is None or len(open_literals) < len(best):
                    best = open_literals
                    if len(best) == 2:
                        break
        # What nothing has touched yet is kept: then all clauses over it hold.
        return best[0] if best else None


def _elements(axes: Sequence[Sequence[int]]) -> list[tuple[int, ...]]:
    """The variables that each element depends on, row-major."""
    return list(product(*axes))


def _with(axes: list[list[int]], axis: int, variables: list[int]) -> list[list[int]]:
    return [*axes[:axis], variables, *axes[axis + 1 :]]

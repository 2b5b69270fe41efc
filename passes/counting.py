"""Sizes of dims as polynomials in counts of kept slots: what an axis becomes, without a graph."""

from __future__ import annotations

import math

import numpy as np

from ozgraph.dims import Atom, Dim, Ids, Prod, Sum, Take, resolve
from ozgraph.groups import ABSENT, Count, Polynomial, total
from ozgraph.passes.state import State


class Counting:
    """Sizes of dims as polynomials in counts of kept slots."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._families = {family.atom: number for number, family in enumerate(state.families)}
        self._numbers: dict[Count, int] = {}
        self._known: dict[Dim, Polynomial] = {}

    @property
    def counts(self) -> tuple[Count, ...]:
        """What the numbers in the polynomials stand for."""
        return tuple(self._numbers)

    def _count(self, count: Count) -> Polynomial:
        return Polynomial.count(self._numbers.setdefault(count, len(self._numbers)))

    def size(self, dim: Dim) -> Polynomial:
        """How many positions of ``dim`` are kept."""
        top = resolve(dim)
        known = self._known.get(top)
        if known is None:
            known = self._known[top] = self._size(top)
        return known

    def _size(self, dim: Dim) -> Polynomial:
        if isinstance(dim, Atom):
            number = self._families.get(dim)
            return Polynomial.constant(dim.size) if number is None else self._count(Count(number))
        if isinstance(dim, Sum):
            return total(self.size(part) for part in dim.parts)
        if isinstance(dim, Prod):
            product = Polynomial.constant(1)
            for factor in dim.factors:
                product = product * self.size(factor)
            return product
        assert isinstance(dim, Take)
        return self._taken(dim)

    def _taken(self, dim: Take) -> Polynomial:
        """Positions by the families that they need slots of, as a product where they need several."""
        table = self._state.dims.ids(dim)
        owners = np.full(table.shape, ABSENT, dtype=np.int64)
        for atom, number in self._families.items():
            owners[(table >= atom.base) & (table < atom.base + atom.size)] = number
        needed = np.sort(owners, axis=1)
        parts: list[Polynomial] = []
        for signature in np.unique(needed, axis=0):
            rows = (needed == signature).all(axis=1)
            families = signature[signature >= 0].tolist()
            if len(families) == 1:
                parts.append(self._weighted(families[0], table[rows][owners[rows] >= 0]))
            else:
                parts.append(self._crossed(families, int(rows.sum())))
        return total(parts)

    def _weighted(self, number: int, slots: Ids) -> Polynomial:
        atom = self._state.families[number].atom
        weights = np.bincount(slots - atom.base, minlength=atom.size)
        if (weights == weights[0]).all():
            return self._count(Count(number)) * int(weights[0])
        return self._count(Count(number, tuple(weights.tolist())))

    def _crossed(self, numbers: list[int], positions: int) -> Polynomial:
        """Positions that need a slot of each of several families: every combination, or they count as kept."""
        product = Polynomial.constant(1)
        for number in numbers:
            product = product * self._count(Count(number))
        repeats, rest = divmod(positions, math.prod(self._state.families[number].atom.size for number in numbers))
        return Polynomial.constant(positions) if rest else product * repeats

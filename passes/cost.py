"""What a selection saves, as arithmetic: parameters and multiply-accumulates are products of the sizes of dims."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar

import numpy as np

from ozgraph.collector import collector_paused
from ozgraph.dims import Atom, Dim
from ozgraph.passes.bound import Bound
from ozgraph.passes.manager import Pass
from ozgraph.passes.state import Removal, State


@dataclass(frozen=True, slots=True)
class Term:
    """One product: a constant factor times the sizes of dims that can shrink."""

    factor: int
    dims: tuple[int, ...]


class CostModel:
    """Parameters and MACs of a model as sums of :class:`Term` over its distinct dims.

    What is in the body of a Loop or Scan counts as often as it runs at most, once where that is not known. Both
    branches of an If count: which one a run takes is not known, and a maximum would be no sum of products.

    Args:
        state: with certified dims.
    """

    def __init__(self, state: State) -> None:
        self._state = state
        self._numbers: dict[int, int] = {}
        self._dims: list[Dim] = []
        self._touching: dict[Atom, list[int]] = {}
        self.parameter_terms = [
            self._term(state.axes.get(value, ()) if value in state.axes else (), value.size, stored.packed)
            for value, stored in state.parameters.items()
        ]
        share = samples(state)
        owned = [(bound.op, term) for bound in state.bound.values() for term in self._macs(bound)]
        self.mac_terms = [term for _, term in owned]
        self.mac_ops = [op for op, _ in owned]
        self._samples = share
        self._full = np.array([dim.size for dim in self._dims], dtype=np.float64)

    def _number(self, dim: Dim) -> int | None:
        atoms = self._state.atoms_of(dim)
        if not atoms:
            return None
        number = self._numbers.get(id(dim))
        if number is None:
            number = self._numbers[id(dim)] = len(self._dims)
            self._dims.append(dim)
            for atom in atoms:
                self._touching.setdefault(atom, []).append(number)
        return number

    def _term(self, dims: Iterable[Dim], size: int | None = None, each: int = 1) -> Term:
        factor, variable = each, []
        known = False
        for dim in dims:
            known = True
            number = self._number(dim)
            if number is None:
                factor *= dim.size
            else:
                variable.append(number)
        return Term(factor if known or size is None else size * each, tuple(variable))

    def _macs(self, bound: Bound) -> list[Term]:
        """One term for each product of the rule whose letters the application has."""
        spelled = bound.rule.macs
        stems: dict[str, list[Dim]] = {}
        for name, dim in bound.env.items():
            stem = "*" + name[1:].rstrip("0123456789") if name.startswith("*") else "..." if name[0] == "." else name
            stems.setdefault(stem, []).append(dim)
        terms = []
        for product in (spelled,) if isinstance(spelled, str) else spelled:
            letters = list(stems) if product == "*" else product.split()
            # Stars and ellipses may stand for no axes at all.
            if letters and all(letter in stems or letter[0] in "*." for letter in letters):
                term = self._term([dim for letter in letters for dim in stems.get(letter, ())])
                terms.append(replace(term, factor=term.factor * bound.op.repeats))
        return terms

    def products(self, terms: Iterable[Term]) -> Iterator[tuple[int, tuple[Dim, ...]]]:
        """Terms spelt out: (factor, the dims whose sizes are multiplied)."""
        for term in terms:
            yield term.factor, tuple(self._dims[number] for number in term.dims)

    def sizes(self, removal: Removal) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        """What is left of every dim."""
        left = self._full.copy()
        if removal:
            for number, dim in enumerate(self._dims):
                left[number] = removal.keep(self._state.dims.ids(dim)).sum()
        return left

    def parameters(self, removal: Removal | None = None) -> int:
        """Numbers in all weights once ``removal`` is gone."""
        return self._total(self.parameter_terms, self._full if removal is None else self.sizes(removal))

    def macs(self, removal: Removal | None = None) -> int:
        """Multiply-accumulates of one sample once ``removal`` is gone."""
        return self._total(self.mac_terms, self._full if removal is None else self.sizes(removal)) // self._samples

    @staticmethod
    def _total(terms: Iterable[Term], sizes: np.ndarray[tuple[int], np.dtype[np.float64]]) -> int:
        # Python integers: products of five sizes can pass 2**53.
        whole = [int(size) for size in sizes]
        return sum(term.factor * math.prod([whole[number] for number in term.dims]) for term in terms)

    def per_slot(self, atom: Atom) -> tuple[int, int]:
        """Parameters and MACs that go with one slot of ``atom`` while the rest stays: (parameters, MACs)."""
        free = np.flatnonzero(self._state.dims.free_slots(atom))
        if not free.size:
            return 0, 0
        slot = atom.base + int(free[-1])
        left = {
            number: int((self._state.dims.ids(self._dims[number]) != slot).all(axis=1).sum())
            for number in self._touching.get(atom, ())
        }

        def saved(terms: list[Term], using: dict[int, list[int]]) -> int:
            total = 0
            for term in (terms[place] for place in {place for number in left for place in using.get(number, ())}):
                before = math.prod([self._dims[number].size for number in term.dims])
                after = math.prod([left.get(number, self._dims[number].size) for number in term.dims])
                total += term.factor * (before - after)
            return total

        of_parameters, of_macs = self._using
        return saved(self.parameter_terms, of_parameters), saved(self.mac_terms, of_macs) // self._samples

    @cached_property
    def _using(self) -> tuple[dict[int, list[int]], dict[int, list[int]]]:
        """Dim -> the terms with it, for parameters and for MACs."""
        found: tuple[dict[int, list[int]], dict[int, list[int]]] = ({}, {})
        for terms, using in zip((self.parameter_terms, self.mac_terms), found, strict=True):
            for place, term in enumerate(terms):
                for number in term.dims:
                    using.setdefault(number, []).append(place)
        return found


def samples(state: State) -> int:
    """The batch size that analysis is bound to, where every input has a varying first axis; MACs are per sample."""
    firsts = {value.shape[0] for value in state.graph.inputs if value.shape and value.dynamic and value.dynamic[0]}
    everywhere = all(value.shape and value.dynamic and value.dynamic[0] for value in state.graph.inputs)
    return firsts.pop() if everywhere and len(firsts) == 1 else 1


@dataclass(frozen=True)
class Cost(Pass):
    """Write parameters and MACs as products of dims, so that what a selection saves needs no trial rewrite."""

    name: ClassVar[str] = "cost"
    requires: ClassVar[frozenset[str]] = frozenset({"certified"})
    ensures: ClassVar[frozenset[str]] = frozenset({"cost"})

    @collector_paused()
    def run(self, state: State) -> bool:
        """Fill ``state.cost``."""
        state.cost = CostModel(state)
        return False

"""Costs as sums of products of family sizes: what a selection saves is arithmetic, without a graph."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Kept = Sequence[npt.NDArray[np.bool_]]
"""Family number -> which of its slots are kept."""


@dataclass(frozen=True, slots=True)
class Count:
    """How many positions the kept slots of a family make.

    Attributes:
        family: its number.
        weights: positions of every slot, where slots differ; None for one each.
    """

    family: int
    weights: tuple[int, ...] | None = None

    def of(self, kept: Kept) -> int:
        """The count for these kept slots."""
        mask = kept[self.family]
        return int(mask.sum()) if self.weights is None else int(np.asarray(self.weights)[mask].sum())


Monomial = tuple[int, ...]
"""Numbers of counts, ascending; their product is meant. A count may stand there twice."""


class Polynomial:
    """A sum of monomials in counts of kept slots, with whole coefficients.

    >>> rows, columns = Polynomial.count(0), Polynomial.count(1)
    >>> weights = rows * columns * 9 + rows
    >>> str(weights)
    'n0 + 9*n0*n1'
    """

    __slots__ = ("terms",)

    def __init__(self, terms: Mapping[Monomial, int] | None = None) -> None:
        self.terms: dict[Monomial, int] = {key: factor for key, factor in (terms or {}).items() if factor}

    @classmethod
    def constant(cls, value: int) -> Polynomial:
        """A number."""
        return cls({(): value})

    @classmethod
    def count(cls, number: int) -> Polynomial:
        """One count."""
        return cls({(number,): 1})

    def __add__(self, other: Polynomial) -> Polynomial:
        terms = dict(self.terms)
        for key, factor in other.terms.items():
            terms[key] = terms.get(key, 0) + factor
        return Polynomial(terms)

    def __mul__(self, other: Polynomial | int) -> Polynomial:
        if isinstance(other, int):
            return Polynomial({key: factor * other for key, factor in self.terms.items()})
        terms: dict[Monomial, int] = {}
        for left, a in self.terms.items():
            for right, b in other.terms.items():
                key = tuple(sorted((*left, *right)))
                terms[key] = terms.get(key, 0) + a * b
        return Polynomial(terms)

    def of(self, counts: Sequence[int]) -> int:
        """The value for these counts, in whole numbers of any size."""
        total = 0
        for key, factor in self.terms.items():
            for number in key:
                factor *= counts[number]
            total += factor
        return total

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Polynomial) and self.terms == other.terms

    def __hash__(self) -> int:
        return hash(frozenset(self.terms.items()))

    def __str__(self) -> str:
        def spelled(key: Monomial, factor: int) -> str:
            names = [f"n{number}" for number in key]
            return "*".join([str(factor), *names] if factor != 1 or not names else names)

        return (
            " + ".join(spelled(*item) for item in sorted(self.terms.items(), key=lambda item: (len(item[0]), item)))
            or "0"
        )

    def __repr__(self) -> str:
        return f"Polynomial({self})"

    def as_json(self) -> list[list[Any]]:
        """Plain data: [factor, [counts]] each."""
        return [[factor, list(key)] for key, factor in sorted(self.terms.items())]

    @classmethod
    def from_json(cls, data: Iterable[Sequence[Any]]) -> Polynomial:
        """What :meth:`as_json` wrote."""
        return cls({tuple(int(number) for number in key): int(factor) for factor, key in data})


def total(parts: Iterable[Polynomial]) -> Polynomial:
    """The sum of many, in one pass."""
    terms: dict[Monomial, int] = {}
    for part in parts:
        for key, factor in part.terms.items():
            terms[key] = terms.get(key, 0) + factor
    return Polynomial(terms)

"""How much a group matters: criteria over the members' elements, one number a slot."""

from __future__ import annotations

import zlib
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from ozgraph.blocks import Tile, sums
from ozgraph.errors import UsageError
from ozgraph.graph import Array
from ozgraph.passes.families import Family
from ozgraph.passes.state import State
from ozgraph.rules.parameters import Encoding
from ozgraph.suggestions import hint

Scores = npt.NDArray[np.float64]
Criterion = Callable[[State, Family], Scores]
"""(state, family) -> [slots] scores; the lowest go first."""


def _accumulated(state: State, family: Family, measure: Callable[[Array], Array]) -> Scores:
    """Sum of ``measure`` over the elements of every group of a family."""
    atom = family.atom
    totals = np.zeros(atom.size)
    for member in family.members:
        assert member.value.constant is not None
        encoding = state.parameters[member.value]

        def measured(block: Array, tile: Tile, encoding: Encoding = encoding) -> Array:
            return measure(encoding.numbers(block, tile))

        # Weights are finite in a model worth pruning; what is not must not decide alone.
        per_position = np.nan_to_num(sums(member.value.constant.numpy(), member.axis, measured))
        table = state.dims.ids(state.axes[member.value][member.axis], frozen=True)
        for column in table.T:
            here = (column >= atom.base) & (column < atom.base + atom.size)
            totals += np.bincount(column[here] - atom.base, weights=per_position[here], minlength=atom.size)
    return totals


def l1(state: State, family: Family) -> Scores:
    """Sum of absolute values of the group's elements."""
    return _accumulated(state, family, np.abs)


def l2(state: State, family: Family) -> Scores:
    """Euclidean norm of the group's elements."""
    norms: Scores = np.sqrt(_accumulated(state, family, np.square))
    return norms


def random(seed: int) -> Criterion:
    """Uniform numbers that depend on the seed and the family alone, not on the order of families."""

    def scores(state: State, family: Family) -> Scores:
        generator = np.random.default_rng((seed, zlib.crc32(family.dim.encode()), family.atom.size))
        return generator.random(family.atom.size)

    return scores


CRITERIA: dict[str, Criterion] = {"l1": l1, "l2": l2}


def criterion(named: str | Criterion, seed: int) -> Criterion:
    """A criterion by name, or a user's own function.

    Raises:
        UsageError: no criterion has that name.
    """
    if callable(named):
        return named
    if named == "random":
        return random(seed)
    if named not in CRITERIA:
        raise UsageError(f"no criterion {named!r}; {hint(named, [*CRITERIA, 'random'])}")
    return CRITERIA[named]

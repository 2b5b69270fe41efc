"""Families that share an axis: which of them a default run prunes, and which give way."""

from __future__ import annotations

from itertools import combinations, product
from typing import TYPE_CHECKING

from ozgraph.dims import Atom, Dim, Ids, Prod, Take, children, resolve
from ozgraph.passes.families import Family
from ozgraph.passes.state import State

if TYPE_CHECKING:
    import networkx as nx


def settle_overlaps(state: State) -> None:
    """Note which families share an axis, and leave only families active that do not."""
    by_atom = {family.atom: family for family in state.families}
    preferred: dict[tuple[Family, Family], None] = {}
    giving_way = _blocks(state)
    nested = dict.fromkeys(
        resolve(state.axes[value][axis]) for value, axes in state.live.items() for axis, atoms in axes if len(atoms) > 1
    )
    for dim in nested:
        for outer, inner in _nested(state, dim):
            if outer in by_atom and inner in by_atom and outer is not inner:
                first, second = by_atom[outer], by_atom[inner]
                if outer in giving_way and inner not in giving_way:
                    first, second = second, first
                preferred[first, second] = None
    if not preferred:
        return
    order = {family: number for number, family in enumerate(state.families)}
    beside: dict[Family, set[Family]] = {}
    for first, second in preferred:
        beside.setdefault(first, set()).add(second)
        beside.setdefault(second, set()).add(first)
    for family, others in beside.items():
        family.overlaps = sorted(others, key=order.__getitem__)
    firsts, seconds = {first for first, _ in preferred}, {second for _, second in preferred}
    if firsts & seconds:
        _untangle(list(preferred), order)
    else:
        for family in seconds:
            family.active = False


def _untangle(preferred: list[tuple[Family, Family]], order: dict[Family, int]) -> None:
    """Activate preferred families first; a circle of preferences falls back to the order of the model."""
    import networkx as nx  # most models have nothing to untangle

    nesting: nx.DiGraph[Family] = nx.DiGraph(preferred)
    chosen: set[Family] = set()
    condensed = nx.condensation(nesting)
    for component in nx.lexicographical_topological_sort(
        condensed, key=lambda node: min(order[family] for family in condensed.nodes[node]["members"])
    ):
        for family in sorted(condensed.nodes[component]["members"], key=order.__getitem__):
            family.active = not any(other in chosen for other in family.overlaps)
            if family.active:
                chosen.add(family)


def _blocks(state: State) -> set[Atom]:
    """Atoms that give way to what they overlap with."""
    found: set[Atom] = set()
    for bound in state.bound.values():
        for letter in bound.rule.blocks:
            if letter in bound.program.letters:
                found.update(state.atoms_of(bound.dim(letter)))
    return found


def _nested(state: State, dim: Dim) -> set[tuple[Atom, Atom]]:
    """Pairs (outer atom, inner atom) that some position needs both of."""
    pairs: set[tuple[Atom, Atom]] = set()
    stack = [dim]
    while stack:
        here = resolve(stack.pop())
        if isinstance(here, Take):
            # Which slots meet depends on the indexes.
            return _nested_by_position(state, state.dims.ids(dim))
        if isinstance(here, Prod):
            # All combinations of positions are there.
            for outer, inner in combinations(here.factors, 2):
                pairs.update(product(state.atoms_of(outer), state.atoms_of(inner)))
        stack.extend(children(here))
    return pairs


def _nested_by_position(state: State, table: Ids) -> set[tuple[Atom, Atom]]:
    """The same, read from the slots that every position needs."""
    atoms = state.dims.atoms
    pairs: set[tuple[Atom, Atom]] = set()
    for left, right in combinations(range(table.shape[1]), 2):
        both = (table[:, left] >= 0) & (table[:, right] >= 0)
        outer, inner = state.dims.owners(table[both, left]), state.dims.owners(table[both, right])
        pairs.update((atoms[i], atoms[j]) for i, j in set(zip(outer.tolist(), inner.tolist(), strict=True)))
    return pairs

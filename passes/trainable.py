"""Write what analysis found as :class:`~ozgraph.groups.Groups`: plain data for a training runtime."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable
from dataclasses import replace

import numpy as np

from ozgraph.dims import Dim, Ids, resolve
from ozgraph.graph import Value
from ozgraph.groups import (
    ABSENT,
    Cost,
    FamilyGroups,
    Groups,
    Occurrence,
    Polynomial,
    Tensor,
    patterns_of,
    total,
)
from ozgraph.passes.cost import samples
from ozgraph.passes.counting import Counting
from ozgraph.passes.families import Family
from ozgraph.passes.roles import Roles
from ozgraph.passes.select import is_partial
from ozgraph.passes.state import State
from ozgraph.passes.summary import why_inactive

Named = Callable[[Value], Tensor | None]


def groups_of(state: State, tensor: Named | None = None) -> Groups:
    """The families of an analysed model, with no graph in them.

    Args:
        tensor: what to say of a weight, None of one that training cannot reach: no slot goes whose zero it would have
            to hold. By default all of them are trainable.
    """
    assert state.cost is not None
    said = tensor if tensor is not None else _plain
    roles = Roles(state)
    keep = _keep_one(state)
    occupied = dict.fromkeys(value for family in state.families for value, _ in family.slices)
    tensors = {value.name: said(value) for value in occupied}
    families = (_family(state, family, roles, keep.get(family, {})) for family in state.families)
    reachable = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    return Groups(state.graph.name, tuple(_within(reachable, f) for f in families), reachable, _cost(state))


def _plain(value: Value) -> Tensor:
    return Tensor(value.shape or ())


def _family(state: State, family: Family, roles: Roles, keep: Iterable[tuple[int, ...]]) -> FamilyGroups:
    free = state.dims.free_slots(family.atom)
    return FamilyGroups(
        family.id,
        family.dim,
        family.atom.size,
        tuple(np.flatnonzero(~free).tolist()),
        family.exactness,
        family.active and family.held is None,
        why_inactive(family),
        tuple(other.id for other in family.overlaps),
        tuple(
            occurrence
            for value, axis in family.slices
            for occurrence in _occurrences(state, family, value, axis, roles.of(value, axis))
        ),
        tuple(keep),
    )


def _within(reachable: Container[str], family: FamilyGroups) -> FamilyGroups:
    """The family without the tensors that training cannot reach; where one would have to be zero, all slots stay."""
    beyond = next((each.tensor for each in family.zeroed if each.tensor not in reachable), None)
    family = replace(family, occurrences=tuple(each for each in family.occurrences if each.tensor in reachable))
    if beyond is None:
        return family
    why = f"{beyond!r} is neither a parameter nor a buffer; register it as a buffer"
    return replace(family, held=tuple(range(family.size)), active=False, inactive=why)


def _occurrences(state: State, family: Family, value: Value, axis: int, role: str) -> Iterable[Occurrence]:
    """One for every column of an axis in which slots of the family stand: usually one."""
    atom = family.atom
    zeroed = any(member.value is value and member.axis == axis for member in family.members)
    table = state.dims.ids(state.axes[value][axis], frozen=True)
    for column in table.T:
        here = (column >= atom.base) & (column < atom.base + atom.size)
        if not here.any():
            continue
        slots: Ids = np.where(here, column - atom.base, ABSENT)
        patterns = patterns_of(slots)
        yield Occurrence(
            value.name,
            axis,
            role,
            zeroed,
            len(slots),
            patterns,
            slots if patterns is None else None,
        )


def _keep_one(state: State) -> dict[Family, dict[tuple[int, ...], None]]:
    """For every axis that sees only some slots of a family, those slots: one of them has to stay.

    Where a position needs slots of several families, one position stands for the axis and its slots stay.
    """
    found: dict[Family, dict[tuple[int, ...], None]] = {}
    by_atom = {family.atom: family for family in state.families}
    seen: set[Dim] = set()
    for axes in state.axes.values():
        for dim in map(resolve, axes):
            if dim in seen or not is_partial(dim) or not state.atoms_of(dim):
                continue
            seen.add(dim)
            table = state.dims.ids(dim)
            if (table < 0).all(axis=1).any():
                continue  # a position that needs nothing stays anyway
            involved = [atom for atom in state.atoms_of(dim) if atom in by_atom]
            alone = len(involved) == 1 and table.shape[1] == 1
            rows = table if alone else table[:1]
            for atom in involved:
                slots = np.unique(rows[(rows >= atom.base) & (rows < atom.base + atom.size)]) - atom.base
                if 0 < len(slots) < atom.size:
                    found.setdefault(by_atom[atom], {})[tuple(slots.tolist())] = None
    return found


def _cost(state: State) -> Cost:
    assert state.cost is not None
    counting = Counting(state)

    def summed(terms: Iterable[tuple[int, tuple[Dim, ...]]]) -> Polynomial:
        parts = []
        for factor, dims in terms:
            product = Polynomial.constant(factor)
            for dim in dims:
                product = product * counting.size(dim)
            parts.append(product)
        return total(parts)

    parameters = summed(state.cost.products(state.cost.parameter_terms))
    macs = summed(state.cost.products(state.cost.mac_terms))
    return Cost(counting.counts, parameters, macs, samples(state))

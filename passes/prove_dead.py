"""Find the slots that are dead in the model with the chosen members at zero."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from ozgraph.blocks import uniform
from ozgraph.dims import Atom
from ozgraph.graph import Value
from ozgraph.passes.bound import Site
from ozgraph.passes.manager import Pass
from ozgraph.passes.promise import promised, shown
from ozgraph.passes.prover import Prover, sites_by_atom, slot_states, zero_state
from ozgraph.passes.state import Mask, Removal, State
from ozgraph.rules.lattice import UNKNOWN, Slots


@dataclass(frozen=True)
class ProveDead(Pass):
    """Find the slots that are dead in the model with the chosen members at zero.

    1. Constants are scanned for slots that are uniform; chosen members count as zero.
    2. States go forward through every operator.
    3. A slot is dead when every site sees zero, or a constant that folds into a bias there.
    4. Removing slots can kill what fed only them: repeat on what is left until nothing more dies (backward demand).
    5. Chosen slots that are not dead after all are chosen no longer, and the rest is proved without their zeros.

    At least one slot of every atom stays.
    """

    name: ClassVar[str] = "prove_dead"
    requires: ClassVar[frozenset[str]] = frozenset({"certified"})
    ensures: ClassVar[frozenset[str]] = frozenset({"dead"})

    def run(self, state: State) -> bool:
        """Fill ``state.removed``."""
        if not state.chosen:
            state.chosen = Removal(state.dims.total)  # plain elimination has no selection
        sites = sites_by_atom(state)
        while True:
            removed, folded = Removal(state.dims.total), Removal(state.dims.total)
            while self._round(state, sites, removed, folded):
                pass
            keep_axes_alive(state, removed)
            stays = state.chosen.without(removed)
            if not stays:
                break
            # Nothing shows that these are dead: they keep their weights, and others must go without their zeros.
            state.chosen = state.chosen.without(stays)
        state.removed, state.folded = removed, folded
        return bool(removed)

    def _round(self, state: State, sites: dict[Atom, list[Site]], removed: Removal, folded: Removal) -> bool:
        """Remove what is dead once ``removed`` is gone; whether that was anything."""
        prover = Prover(state, Scan(state, removed, folded))
        before = removed.total
        held = {family.atom for family in state.families if family.held is not None}
        for atom in state.weight_atoms:
            if atom in held:
                continue  # left out by the user or given back: not even what is dead goes
            gone = removed.mask(atom)
            dead = state.dims.free_slots(atom) & ~gone
            constant = np.zeros(atom.size, dtype=bool)
            for site in sites.get(atom, ()):
                if not dead.any():
                    break
                zero = prover.neutral(site, atom)
                moves = ~zero & foldable(site, atom, prover, state)
                constant |= moves
                dead = dead & (zero | moves)
            for output, axis in shown(state, atom):
                # The caller sees it: only what was chosen goes from an output, or what is always zero.
                dead = dead & (state.chosen.mask(atom) | (prover.at(output, axis, atom) == 0))
            if (dead | gone).all():
                # What stays must not be chosen: the smaller model has its weights as they are, not at zero.
                dead[np.flatnonzero(~gone)[np.argmin(state.chosen.mask(atom)[~gone])]] = False
            removed.add(atom, dead)
            folded.add(atom, dead & constant)
        return removed.total > before


class Scan:
    """States of constants as they are in the model: chosen members at zero, removed positions left out.

    Positions whose constant folds into a bias are not left out: what they add is still there.
    """

    def __init__(self, state: State, removed: Removal, folded: Removal) -> None:
        self._state = state
        self._removed = removed.without(folded)
        self._zeroed = zeroed_axes(state)

    def __call__(self, value: Value, axis: int, atom: Atom) -> Slots:
        """The state of every slot of the atom on an axis of a constant, or of an input that may shrink."""
        if value.constant is None:
            return np.where(promised(self._state, value, atom, self), 0.0, np.nan)
        if value.dtype is None or not (value in self._state.parameters or value.dtype.kind in "iub"):
            return UNKNOWN
        cuts = {}
        for number, dim in enumerate(self._state.axes[value]):
            if number == axis:
                continue
            ids = self._state.dims.ids(dim, frozen=True)
            # A row that is zero as a whole hides nothing from the columns: leave out what is gone or chosen.
            keep = self._removed.keep(ids)
            if (value, number) in self._zeroed:
                keep &= self._state.chosen.keep(ids)
            if not keep.all():
                cuts[number] = keep
        table = self._state.dims.ids(self._state.axes[value][axis], frozen=True)
        positions = self._whole(value, axis)
        if cuts and value.readable and np.isnan(positions).any():
            positions = uniform(value.constant.numpy(), axis, cuts, positions)
        states = slot_states(positions, table, atom)
        if atom in self._zeroed.get((value, axis), ()):
            states = np.where(self._state.chosen.mask(atom), zero_state(self._state, value, axis, atom), states)
        return states

    def _whole(self, value: Value, axis: int) -> Slots:
        """What every position of an axis consists of, all others counted; read once for all rounds and trials."""
        known = self._state.scanned.get((value, axis))
        if known is None:
            assert value.constant is not None
            if not value.readable:
                return np.full(self._state.axes[value][axis].size, np.nan)
            known = self._state.scanned[value, axis] = uniform(value.constant.numpy(), axis)
        return known


def zeroed_axes(state: State) -> dict[tuple[Value, int], set[Atom]]:
    """The weight axes on which chosen slots are set to zero, with the atoms chosen there."""
    found: dict[tuple[Value, int], set[Atom]] = {}
    for family in state.families:
        if state.chosen.count(family.atom):
            for member in family.members:
                found.setdefault((member.value, member.axis), set()).add(family.atom)
    return found


def zeroing(state: State) -> dict[tuple[Value, int], npt.NDArray[np.int64]]:
    """The positions of weight axes that are zero in the chosen groups."""
    positions = {}
    for (value, axis), atoms in zeroed_axes(state).items():
        table = state.dims.ids(state.axes[value][axis], frozen=True)
        members = Removal(state.dims.total)
        for atom in atoms:
            members.add(atom, state.chosen.mask(atom))
        positions[value, axis] = np.flatnonzero(~members.keep(table))
    return positions


def foldable(site: Site, atom: Atom, prover: Prover, state: State) -> Mask:
    """Which slots are constant at a contraction that can take the constant into its bias."""
    from ozgraph.passes.fold import folding_operand

    operand = folding_operand(site, state)
    if operand is None:
        return np.zeros(1, dtype=bool)
    return np.isfinite(prover.at(*operand, atom)) if atom in state.atoms(*operand) else np.zeros(1, dtype=bool)


def keep_axes_alive(state: State, removed: Removal) -> None:
    """Give back slots until every axis of every value keeps a position."""
    seen: set[int] = set()
    for axes in (*state.axes.values(), *state.takes.values()):
        for dim in axes:
            if id(dim) not in seen and state.atoms_of(dim):
                seen.add(id(dim))
                table = state.dims.ids(dim)
                if not removed.keep(table).any():
                    removed.give_back(table[np.argmax(state.chosen.keep(table))])

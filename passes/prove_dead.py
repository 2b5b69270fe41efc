"""Follow constants through the graph and find the slots that nothing can notice the loss of.

One prover, two questions. *If the members of this family were zero, would its slots be dead?* (grouping; one state a
family) and *which slots are dead in the model as it is?* (elimination; one state a slot). A slot is dead when at every
site that combines it, its term is the neutral element.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from ozgraph.dims import Atom, Ids
from ozgraph.errors import RuleError
from ozgraph.graph import Array, Op, Value
from ozgraph.passes.bound import Bound, Place, Site, letter_names
from ozgraph.passes.manager import Pass
from ozgraph.passes.promise import promised, shown
from ozgraph.passes.state import Mask, Removal, State
from ozgraph.rules.lattice import UNKNOWN, Slots, finite, joined, meet
from ozgraph.rules.notation import Product
from ozgraph.rules.rule import Reduction
from ozgraph.rules.table import find_rule

Start = Callable[[Value, int, Atom], Slots]
"""(constant, or input that may shrink, axis, atom) -> the state of the atom's slots there."""

Key = tuple[Value, int, Atom]

_ROUNDS = 32
"""Rounds in which the slots of what a body receives are given up one by one; afterwards, axis by axis."""


class Prover:
    """States of atoms along the axes of values, computed once, front to back.

    Args:
        state: with certified dims.
        start: the states of constants.
        atoms: the atoms to follow; all free ones by default.

    Attributes:
        not_finite: where an operator on known slots gives something that is not finite: (operator, result, axis).
    """

    def __init__(self, state: State, start: Start, atoms: Iterable[Atom] | None = None) -> None:
        self._state = state
        self._start = start
        self._only = None if atoms is None else set(atoms)
        self._known: dict[Key, Slots] = {}
        self._entering: dict[Key, Slots] = {}
        self.not_finite: dict[Atom, list[tuple[Bound, int, int]]] = {}
        bounds = [bound for op in state.graph.ops if (bound := state.bound.get(op)) is not None]
        looping = [bound for bound in bounds if bound.op.later is not None]
        rounds = 0
        while True:
            self.not_finite.clear()
            for bound in bounds:
                self._forward(bound)
            rounds += 1
            if not self._feed_back(looping, whole=rounds >= _ROUNDS):
                break

    def at(self, value: Value, axis: int, atom: Atom) -> Slots:
        """What is known of the atom's slots on this axis."""
        if value.constant is not None or (value.producer is None and value in self._state.shrinkable):
            key = (value, axis, atom)
            known = self._known.get(key)
            if known is None:
                known = self._known[key] = self._start(value, axis, atom)
            return known
        return self._known.get((value, axis, atom), UNKNOWN)

    def _followed(self, value: Value, axis: int) -> Collection[Atom]:
        atoms = self._state.atoms(value, axis)
        return atoms if self._only is None else [atom for atom in atoms if atom in self._only]

    def _forward(self, bound: Bound) -> None:
        for position, value in enumerate(bound.op.outputs):
            if value is None or value not in self._state.axes:
                continue
            for axis in range(len(self._state.axes[value])):
                atoms = self._followed(value, axis)
                if atoms:
                    self._transfer(bound, position, axis, value, atoms)

            if bound.op.later is not None:
                for key in [key for key in self._entering if key[0] is value]:
                    self._known[key] = meet([self._known.get(key, UNKNOWN), self._entering[key]])

    def _feed_back(self, looping: Iterable[Bound], *, whole: bool) -> bool:
        """Take back what a body does not keep up from run to run; whether that was anything.

        What a body receives is first taken to stay as it was before the first run. That holds by induction where the
        body, given it, returns it. ``whole``: give up all slots of an axis with one, so that this ends soon.
        """
        changed = False
        for bound in looping:
            value, later = bound.op.outputs[0], bound.op.later
            if value is None or later is None or value not in self._state.axes:
                continue
            for axis in range(len(self._state.axes[value])):
                for atom in self._followed(value, axis):
                    key = (value, axis, atom)
                    before = np.broadcast_to(self._known.get(key, UNKNOWN), atom.size)
                    stays = self._at_if_there(later, axis, atom) if later.rank == value.rank else UNKNOWN
                    after = meet([before, np.broadcast_to(stays, atom.size)])
                    if np.isnan(after).sum() > np.isnan(before).sum():
                        self._entering[key] = np.full(atom.size, np.nan) if whole else after
                        changed = True
        return changed

    def _transfer(self, bound: Bound, position: int, axis: int, value: Value, atoms: Collection[Atom]) -> None:
        """States of the atoms on one axis of a result.

        Transfers work slot by slot, so atoms that come from the same operands go through one call together.
        """
        if position >= len(bound.flows) or axis >= len(bound.flows[position]):
            return
        alike: dict[tuple[int, ...], list[tuple[Atom, dict[int, Slots]]]] = {}
        for atom, carried in self._carried(bound, bound.flows[position][axis], atoms).items():
            self._drop_partial(bound, position, axis, atom, carried)
            if bound.rule.transfer is joined:
                # Atom by atom, since every operand may bring others.
                self._known[value, axis, atom] = meet(list(carried.values())) if carried else UNKNOWN
            else:
                alike.setdefault(tuple(carried), []).append((atom, carried))
        if not alike:
            return
        constants = [uniform_constant(operand) for operand in bound.op.inputs]
        for operands, members in alike.items():
            widths = [max((state.size for state in carried.values()), default=1) for _, carried in members]
            states = list(constants)
            for operand in operands:
                pieces = [
                    _widened(carried[operand], width) for (_, carried), width in zip(members, widths, strict=True)
                ]
                states[operand] = pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
            total = sum(widths)
            result = _widened(bound.rule.transfer(bound.op, states, position, axis), total)
            infinite = bool(np.isinf(result).any())
            start = 0
            for (atom, _), width in zip(members, widths, strict=True):
                here = result[start : start + width]
                start += width
                if infinite and np.isinf(here).any():
                    self.not_finite.setdefault(atom, []).append((bound, position, axis))
                    here = finite(here)
                self._known[value, axis, atom] = here

    def _drop_partial(self, bound: Bound, position: int, axis: int, atom: Atom, carried: dict[int, Slots]) -> None:
        """Where an atom stands in several factors of a result axis, an operand speaks only if it has all of them.

        In a row-major product, positions need the slot through either factor: x[g] tiled t times says nothing of the
        positions that need it through t.
        """
        axes = bound.spec.results[position]
        product = axes[axis] if axes is not None else None
        if not carried or not isinstance(product, Product):
            return
        standing = {name for name in product.factors if atom in self._state.atoms_of(bound.env[name])}
        if len(standing) > 1:
            for operand in list(carried):
                had = {name for entry in bound.spec.operands[operand] or () for name in letter_names(entry)}
                if not standing <= had:
                    del carried[operand]

    def _carried(self, bound: Bound, flows: Iterable[Place], atoms: Iterable[Atom]) -> dict[Atom, dict[int, Slots]]:
        """For each atom, the states of the operands that carry it to a result axis."""
        found: dict[Atom, dict[int, Slots]] = {atom: {} for atom in atoms}
        for operand, number in flows:
            value = bound.op.inputs[operand]
            taken = self._state.takes.get((bound.op, operand))
            if taken is not None and value is not None and taken[number] is not self._state.axes[value][number]:
                # Nothing is known of the elements that this use takes.
                for atom in self._state.atoms_of(taken[number]):
                    if atom in found:
                        found[atom][operand] = UNKNOWN
                continue
            for atom in self._state.atoms(value, number) if value is not None else ():
                carried = found.get(atom)
                if value is not None and carried is not None:
                    state = self.at(value, number, atom)
                    carried[operand] = meet([carried[operand], state]) if operand in carried else state
        return found

    def neutral(self, site: Site, atom: Atom) -> Mask:
        """For which of the atom's slots the term at a site vanishes; one answer may stand for all of them."""
        rule = self._state.bound[site.op].rule
        seen: dict[int, Slots] = {}
        for operand, axis in site.operands:
            if site.op.inputs[operand] is not None:
                state = self._less_its_zero_point(site.op, operand, axis, atom, rule.zero_points.get(operand))
                seen[operand] = meet([seen[operand], state]) if operand in seen else state
        alone = [(operand,) for operand in seen if not any(operand in term for term in rule.terms)]
        # Without its first operand, a term is not part of this combination: a bias adds nothing by itself.
        terms = [meet([seen[o] for o in term if o in seen]) for term in (*rule.terms, *alone) if term[0] in seen]
        if site.reduction in (Reduction.MEAN, Reduction.RMS, Reduction.NORM):
            source = site.op.inputs[site.operands[0][0]]
            assert source is not None
            return terms[0] == 0 if keeps_statistics(source) else np.zeros(1, dtype=bool)
        for result, axis in site.results:
            output = site.op.outputs[result]
            if output is not None:
                terms.append(self._at_if_there(output, axis, atom))
        vanishes: Mask = terms[0] == 0 if terms else np.zeros(1, dtype=bool)
        for state in terms[1:]:
            vanishes = vanishes | (state == 0)
        return vanishes

    def _less_its_zero_point(self, op: Op, operand: int, axis: int, atom: Atom, position: int | None) -> Slots:
        """What an operand adds to a sum: its elements, less the integer that stands for zero where they have one."""
        value, point = op.inputs[operand], None if position is None else op.input(position)
        assert value is not None
        if point is None:
            return self._at_if_there(value, axis, atom)
        maker = value.producer
        if maker is not None and maker.operator == "DynamicQuantizeLinear" and point is maker.outputs[2]:
            # The zero point is computed at run time, but the number before is known.
            source = maker.inputs[0]
            assert source is not None
            return self._at_if_there(source, axis, atom)
        stored = self._at_if_there(value, axis, atom)
        if atom in self._state.atoms(point, 0) if point.rank else False:
            return stored - self.at(point, 0, atom)
        return stored - uniform_elements(point)

    def _at_if_there(self, value: Value, axis: int, atom: Atom) -> Slots:
        return self.at(value, axis, atom) if atom in self._state.atoms(value, axis) else UNKNOWN


def keeps_statistics(value: Value) -> bool:
    """Whether a norm or mean over a value can be rescaled: in half precision the factor itself would be rounded."""
    return value.dtype is not None and value.dtype.itemsize >= 4


def occurrences(site: Site) -> list[tuple[Value, int]]:
    """The tensors and axes that a site combines."""
    found = []
    for operand, axis in site.operands:
        value = site.op.inputs[operand]
        if value is not None:
            found.append((value, axis))
    for result, axis in site.results:
        value = site.op.outputs[result]
        if value is not None:
            found.append((value, axis))
    return found


def _widened(state: Slots, width: int) -> Slots:
    # Most states have their width already, and broadcasting costs more than the transfers themselves.
    return state if state.size == width else np.broadcast_to(state, width)


def uniform_constant(value: Value | None) -> Slots | None:
    """The number that all elements of a one-element constant have; None for anything else."""
    if value is None or value.size != 1:
        return None
    if value.integers is not None:
        return finite(value.integers.elements.reshape(1)) if value.integers.static else None
    if value.producer is not None:
        return _computed_constant(value, value.producer)
    if value.constant is None or not value.readable or value.dtype is None or value.dtype.kind in "OSU":
        return None
    return finite(np.asarray(value.constant.numpy()).reshape(1))


def _computed_constant(value: Value, op: Op) -> Slots | None:
    """The number that an operator makes of numbers: the cast zero that stands for a bias that a layer does not have."""
    rule = find_rule(op)
    states = [uniform_constant(operand) for operand in op.inputs]
    if rule is None or all(state is None for state in states):
        return None
    try:
        rule.describe(op)
    except RuleError:
        return None  # the rule does not speak for this application
    known = rule.transfer(op, states, op.outputs.index(value), 0)
    return known if known.size == 1 and np.isfinite(known).all() else None


def uniform_elements(value: Value) -> Slots:
    """The number that all elements of a constant have, however many there are; Unknown otherwise."""
    if value.constant is None or not value.size:
        return UNKNOWN
    elements = np.asarray(value.constant.numpy()).astype(np.float64).ravel()
    return elements[:1] if (elements == elements[0]).all() else UNKNOWN


def zero_state(state: State, value: Value, axis: int, atom: Atom) -> Slots:
    """The element that stands for zero in every slot of a parameter: its zero point, where integers are stored."""
    zero = state.parameters[value].zero.astype(np.float64)
    if zero.size == 1:
        return zero.reshape(1)
    shape = list(zero.shape)
    shape[axis] = (value.shape or ())[axis]
    table = state.dims.ids(state.axes[value][axis], frozen=True)
    return slot_states(np.broadcast_to(zero, shape), table, axis, atom)


def as_stored(state: State, value: Value, axis: int, atom: Atom) -> Slots:
    """The elements of a constant as they are in the file, slot by slot."""
    if value.constant is None or not value.readable or value.dtype is None or value.dtype.kind not in "iub":
        return UNKNOWN
    return slot_states(value.constant.numpy(), state.dims.ids(state.axes[value][axis], frozen=True), axis, atom)


def sites_by_atom(state: State) -> dict[Atom, list[Site]]:
    """Every place that combines slots of an atom."""
    found: dict[Atom, list[Site]] = {}
    for bound in state.bound.values():
        for site in bound.sites:
            for atom in state.atoms_of(site.dim):
                found.setdefault(atom, []).append(site)
    return found


def slot_states(array: Array, table: Ids, axis: int, atom: Atom) -> Slots:
    """The common element of every slot of ``atom`` on an axis of an array; NaN where elements differ.

    Args:
        array: the constant's elements.
        table: the ids of the axis, frozen ones included.
    """
    others = tuple(number for number in range(array.ndim) if number != axis)
    lowest = np.full(atom.size, np.inf)
    highest = np.full(atom.size, -np.inf)
    with np.errstate(invalid="ignore"):  # weights may hold NaN, which is uniform nowhere
        low = np.asarray(array.min(axis=others) if others else array, dtype=np.float64)
        high = np.asarray(array.max(axis=others) if others else array, dtype=np.float64)
        for column in table.T:
            here = (column >= atom.base) & (column < atom.base + atom.size)
            if here.any():
                slots = column[here] - atom.base
                np.minimum.at(lowest, slots, low[here])
                np.maximum.at(highest, slots, high[here])
        return np.where((lowest == highest) & np.isfinite(lowest), lowest, np.nan)


@dataclass(frozen=True)
class ProveDead(Pass):
    """Find the slots that are dead in the model with the chosen members at zero.

    1. Constants are scanned for slots that are uniform; chosen members count as zero.
    2. States go forward through every operator.
    3. A slot is dead when every site sees zero, or a constant that folds into a bias there.
    4. Removing slots can kill what fed only them: repeat on what is left until nothing more dies (backward demand).

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
        removed, folded = Removal(state.dims.total), Removal(state.dims.total)
        while self._round(state, sites, removed, folded):
            pass
        keep_axes_alive(state, removed)
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
        states = self._whole(value, axis, atom)
        if cuts and value.readable and np.isnan(states).any():
            array = value.constant.numpy()
            for number, keep in cuts.items():
                array = np.compress(keep, array, axis=number)
            table = self._state.dims.ids(self._state.axes[value][axis], frozen=True)
            states = slot_states(array, table, axis, atom) if array.size else np.zeros(atom.size)
        if atom in self._zeroed.get((value, axis), ()):
            states = np.where(self._state.chosen.mask(atom), zero_state(self._state, value, axis, atom), states)
        return states

    def _whole(self, value: Value, axis: int, atom: Atom) -> Slots:
        """The states with every position counted; read once for all rounds and trials.

        What is uniform over all positions is so over any of them, and what differs may still agree on those left.
        """
        known = self._state.scanned.get((value, axis, atom))
        if known is None:
            assert value.constant is not None
            if not value.readable:
                return np.full(atom.size, np.nan)
            array = value.constant.numpy()
            table = self._state.dims.ids(self._state.axes[value][axis], frozen=True)
            known = slot_states(array, table, axis, atom) if array.size else np.zeros(atom.size)
            self._state.scanned[value, axis, atom] = known
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

"""Follow constants through the graph: what is known of every slot, and which slots nothing can notice the loss of.

One prover, two questions. *If the members of this family were zero, would its slots be dead?* (grouping; one state a
family) and *which slots are dead in the model as it is?* (elimination; one state a slot). A slot is dead when at every
site that combines it, its term is the neutral element.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable

import numpy as np

from ozgraph.blocks import uniform
from ozgraph.dims import Atom, Ids
from ozgraph.errors import RuleError
from ozgraph.graph import Op, Value
from ozgraph.passes.bound import Bound, Site
from ozgraph.passes.layout import letter_names
from ozgraph.passes.program import described
from ozgraph.passes.state import Mask, State
from ozgraph.rules.lattice import UNKNOWN, ZERO, ByStates, Slots, finite, joined, meet
from ozgraph.rules.notation import Product
from ozgraph.rules.rule import Reduction
from ozgraph.rules.table import find_rule

Start = Callable[[Value, int, Atom], Slots]
"""(constant, or input that may shrink, axis, atom) -> the state of the atom's slots there."""

_NOTHING: dict[Atom, Slots] = {}

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
        self._takes = state.takes
        self._known: dict[tuple[Value, int], dict[Atom, Slots]] = {}
        self._entering: dict[tuple[Value, int], dict[Atom, Slots]] = {}
        self._singles: dict[tuple[object, ...], Slots] = {}
        self._uniforms: dict[Value, Slots | None] = {}
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
        return self._states(value, axis).get(atom, UNKNOWN)

    def _states(self, value: Value, axis: int) -> dict[Atom, Slots]:
        """The states of all atoms that are followed along an axis."""
        known = self._known.get((value, axis))
        if known is None:
            atoms = self._followed(self._state.atoms(value, axis))
            if value.constant is not None or (value.producer is None and value in self._state.shrinkable):
                known = {atom: self._start(value, axis, atom) for atom in atoms}
            else:
                known = dict.fromkeys(atoms, UNKNOWN)
            self._known[value, axis] = known
        return known

    def _followed(self, atoms: Collection[Atom]) -> Collection[Atom]:
        return atoms if self._only is None else [atom for atom in atoms if atom in self._only]

    def _forward(self, bound: Bound) -> None:
        live = self._state.live
        for position, value in enumerate(bound.op.outputs):
            for axis, atoms in live.get(value, ()) if value is not None else ():
                followed = self._followed(atoms)
                if followed and value is not None:
                    known = self._known[value, axis] = self._transfer(bound, position, axis, followed)
                    for atom, state in self._entering.get((value, axis), _NOTHING).items():
                        known[atom] = meet((known[atom], state))

    def _feed_back(self, looping: Iterable[Bound], *, whole: bool) -> bool:
        """Take back what a body does not keep up from run to run; whether that was anything.

        What a body receives is first taken to stay as it was before the first run. That holds by induction where the
        body, given it, returns it. ``whole``: give up all slots of an axis with one, so that this ends soon.
        """
        changed = False
        for bound in looping:
            value, later = bound.op.outputs[0], bound.op.later
            if value is None or later is None:
                continue
            for axis, atoms in self._state.live.get(value, ()):
                for atom in self._followed(atoms):
                    before = np.broadcast_to(self.at(value, axis, atom), atom.size)
                    stays = self._at_if_there(later, axis, atom) if later.rank == value.rank else UNKNOWN
                    after = meet((before, np.broadcast_to(stays, atom.size)))
                    if np.isnan(after).sum() > np.isnan(before).sum():
                        given_up = self._entering.setdefault((value, axis), {})
                        given_up[atom] = np.full(atom.size, np.nan) if whole else after
                        changed = True
        return changed

    def _transfer(self, bound: Bound, position: int, axis: int, atoms: Collection[Atom]) -> dict[Atom, Slots]:
        """States of the atoms on one axis of a result."""
        found = dict.fromkeys(atoms, UNKNOWN)
        flows = bound.flows
        if position >= len(flows) or axis >= len(flows[position]):
            return found
        inputs = bound.op.inputs
        sources = [
            (operand, self._read(bound.op, operand, source, number))
            for operand, number in flows[position][axis]
            if (source := inputs[operand]) is not None
        ]
        results = bound.spec.results[position]
        product = results[axis] if results is not None else None
        joins = bound.rule.transfer is joined
        if joins and not isinstance(product, Product):
            # Every operand may bring other atoms.
            joint: dict[Atom, Slots] = {}
            for _, states in sources:
                for atom, state in states.items():
                    joint[atom] = meet((joint[atom], state)) if atom in joint else state
            return {atom: joint.get(atom, UNKNOWN) for atom in atoms}
        seen: dict[tuple[int, ...], Slots] = {}
        wide: dict[tuple[int, ...], list[tuple[Atom, dict[int, Slots]]]] = {}
        for atom in atoms:
            carried: dict[int, Slots] = {}
            single, met = True, False
            for operand, states in sources:
                here = states.get(atom)
                if here is not None:
                    if operand in carried:
                        here, met = meet((carried[operand], here)), True
                    carried[operand] = here
                    single = single and here.size == 1
            if isinstance(product, Product):
                self._drop_partial(bound, product, atom, carried)
            if joins:
                found[atom] = meet(tuple(carried.values())) if carried else UNKNOWN
                continue
            if not single:
                wide.setdefault(tuple(carried), []).append((atom, carried))
                continue
            alike = (*carried, *map(id, carried.values()))
            known = seen.get(alike)
            if known is None:
                operands = [
                    carried[number] if number in carried else self._uniform(operand)
                    for number, operand in enumerate(inputs)
                ]
                known = self._single(bound, operands, position, axis)
                if not met:  # so that states stay and are what their ids say
                    seen[alike] = known
            found[atom] = self._noted(bound, position, axis, atom, known)
        for present, members in wide.items():
            found.update(self._transfer_together(bound, position, axis, present, members))
        return found

    def _read(self, op: Op, operand: int, value: Value, axis: int) -> dict[Atom, Slots]:
        """The states of the atoms that an operator reads along an axis of an operand."""
        taken = self._takes.get((op, operand)) if self._takes else None
        if taken is not None and taken[axis] is not self._state.axes[value][axis]:
            # Nothing is known of the elements that this use takes.
            return dict.fromkeys(self._state.atoms_of(taken[axis]), UNKNOWN)
        return self._states(value, axis)

    def _noted(self, bound: Bound, position: int, axis: int, atom: Atom, state: Slots) -> Slots:
        """A state as it goes on; infinity is noted."""
        if state is ZERO or state is UNKNOWN or not np.isinf(state).any():
            return state
        self.not_finite.setdefault(atom, []).append((bound, position, axis))
        return finite(state)

    def _single(self, bound: Bound, states: list[Slots | None], position: int, axis: int) -> Slots:
        """What becomes of states that are one number for all slots; asked once for operators that are alike."""
        rule, program = bound.rule, bound.program
        if not (program.shared and isinstance(rule.transfer, ByStates)):
            return plain(rule.transfer(bound.op, states, position, axis))
        key = id(program), position, axis, *[None if state is None else state.tobytes() for state in states]
        known = self._singles.get(key)
        if known is None:
            known = self._singles[key] = plain(rule.transfer(bound.op, states, position, axis))
        return known

    def _uniform(self, value: Value | None) -> Slots | None:
        """:func:`uniform_constant`, read once."""
        if value is None or value.size != 1:
            return None
        if value not in self._uniforms:
            self._uniforms[value] = uniform_constant(value)
        return self._uniforms[value]

    def _transfer_together(
        self,
        bound: Bound,
        position: int,
        axis: int,
        operands: tuple[int, ...],
        members: list[tuple[Atom, dict[int, Slots]]],
    ) -> dict[Atom, Slots]:
        """Transfers work slot by slot, so atoms that come from the same operands go through one call."""
        widths = [max((state.size for state in carried.values()), default=1) for _, carried in members]
        states = [self._uniform(operand) for operand in bound.op.inputs]
        for operand in operands:
            pieces = [_widened(carried[operand], width) for (_, carried), width in zip(members, widths, strict=True)]
            states[operand] = pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
        result = _widened(bound.rule.transfer(bound.op, states, position, axis), sum(widths))
        found = {}
        start = 0
        for (atom, _), width in zip(members, widths, strict=True):
            found[atom] = self._noted(bound, position, axis, atom, result[start : start + width])
            start += width
        return found

    def _drop_partial(self, bound: Bound, product: Product, atom: Atom, carried: dict[int, Slots]) -> None:
        """Where an atom stands in several factors of a result axis, an operand speaks only if it has all of them.

        In a row-major product, positions need the slot through either factor: x[g] tiled t times says nothing of the
        positions that need it through t.
        """
        standing = {name for name in product.factors if atom in self._state.atoms_of(bound.dim(name))}
        if len(standing) > 1:
            for operand in list(carried):
                had = {name for entry in bound.spec.operands[operand] or () for name in letter_names(entry)}
                if not standing <= had:
                    del carried[operand]

    def vanishes(self, site: Site, atom: Atom) -> bool:
        """Whether the term at a site vanishes for all of the atom's slots."""
        rule, operands = self._state.bound[site.op].rule, site.operands
        if (
            site.reduction is Reduction.SUM
            and not (rule.terms or rule.zero_points)
            and (len(operands) == 1 or (len(operands) == 2 and operands[0][0] != operands[1][0]))
        ):
            # The usual case: products of operands, of which a single one has to be zero.
            for operand, axis in operands:
                value = site.op.inputs[operand]
                if value is not None and operand not in rule.statistics and self.at(value, axis, atom) is ZERO:
                    return True
        return bool(self.neutral(site, atom).all())

    def neutral(self, site: Site, atom: Atom) -> Mask:
        """For which of the atom's slots the term at a site vanishes; one answer may stand for all of them."""
        rule = self._state.bound[site.op].rule
        seen: dict[int, Slots] = {}
        for operand, axis in site.operands:
            # Codes and zero points are no factors: a zero among them says nothing.
            if site.op.inputs[operand] is not None and operand not in rule.statistics:
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


_ZERO_BYTES = ZERO.tobytes()


def plain(state: Slots) -> Slots:
    """``state``, with a single zero or unknown as the very objects that stand for them."""
    if state.size != 1:
        return state
    if state.tobytes() == _ZERO_BYTES:
        return ZERO
    return UNKNOWN if math.isnan(state.item()) else state


def keeps_statistics(value: Value) -> bool:
    """Whether a norm or mean over a value can be rescaled: in half precision the factor itself would be rounded."""
    return value.dtype is not None and value.dtype.itemsize >= 4


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
        described(op, rule)
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
    encoding = state.parameters[value]
    if encoding.plain:
        return ZERO
    if encoding.zero.size == 1:
        return encoding.zero.astype(np.float64).reshape(1)
    table = state.dims.ids(state.axes[value][axis], frozen=True)
    return slot_states(encoding.zero_by_position(axis, (value.shape or ())[axis]), table, atom)


def as_stored(state: State, value: Value, axis: int, atom: Atom) -> Slots:
    """The elements of a constant as they are in the file, slot by slot."""
    if value.constant is None or not value.readable or value.dtype is None or value.dtype.kind not in "iub":
        return UNKNOWN
    table = state.dims.ids(state.axes[value][axis], frozen=True)
    return slot_states(uniform(value.constant.numpy(), axis), table, atom)


def sites_by_atom(state: State) -> dict[Atom, list[Site]]:
    """Every place that combines slots of an atom."""
    found: dict[Atom, list[Site]] = {}
    for bound in state.bound.values():
        for combination in bound.program.combinations:
            atoms = state.atoms_of(bound.dims[combination.number])
            if atoms:
                site = bound.site(combination)
                for atom in atoms:
                    found.setdefault(atom, []).append(site)
    return found


def slot_states(positions: Slots, table: Ids, atom: Atom) -> Slots:
    """The common element of every slot of ``atom`` on an axis of a constant; NaN where elements differ.

    Args:
        positions: the common element of every position of the axis, as :func:`ozgraph.blocks.uniform` finds it.
        table: the ids of the axis, frozen ones included.
    """
    lowest = np.full(atom.size, np.inf)
    highest = np.full(atom.size, -np.inf)
    with np.errstate(invalid="ignore"):  # NaN stands for positions whose elements differ
        for column in table.T:
            here = (column >= atom.base) & (column < atom.base + atom.size)
            if here.any():
                slots = column[here] - atom.base
                np.minimum.at(lowest, slots, positions[here])
                np.maximum.at(highest, slots, positions[here])
        return np.where((lowest == highest) & np.isfinite(lowest), lowest, np.nan)

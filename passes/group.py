"""Zero-invariant groups: what must be zero together for a slot to be dead."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import ClassVar

from ozgraph.collector import collector_paused
from ozgraph.dims import Atom, Reason
from ozgraph.graph import Value
from ozgraph.groups import CONSUMER, PRODUCER
from ozgraph.passes.bound import Site
from ozgraph.passes.families import Family, Member
from ozgraph.passes.manager import Pass
from ozgraph.passes.overlaps import settle_overlaps
from ozgraph.passes.promise import may_promise
from ozgraph.passes.prove_dead import foldable
from ozgraph.passes.prover import Prover, Start, as_stored, keeps_statistics, sites_by_atom, zero_state
from ozgraph.passes.roles import Roles
from ozgraph.passes.state import State
from ozgraph.rules.lattice import UNKNOWN, ZERO, Slots
from ozgraph.rules.rule import Reduction

_EXACTNESS = ("exact", "folded", "consumers", "rescaled")


@dataclass(frozen=True)
class Group(Pass):
    """Find the families and what each must zero.

    1. Weight axes are traced to the operators that use them: carried to data is a producer, contracted a consumer.
    2. With all producers of a slot at zero, the prover asks every site. Where one still sees the slot, a constant may
       fold, or the consumers there join the group; else the dim freezes with that site's reason.
    3. Families that share an axis overlap; the outer one is active by default, but groups of a convolution give way.
    """

    name: ClassVar[str] = "group"
    requires: ClassVar[frozenset[str]] = frozenset({"certified"})
    ensures: ClassVar[frozenset[str]] = frozenset({"families"})

    rescale: bool = field(
        default=False, metadata={"help": "also prune where a norm must be emitted decomposed (slower)"}
    )

    @collector_paused()
    def run(self, state: State) -> bool:
        """Fill ``state.families``."""
        roles = Roles(state)
        sites = sites_by_atom(state)
        zeroed = {atom: roles.producers(atom) for atom in state.weight_atoms}
        verdicts = _judge(state, sites, zeroed, roles)
        for number, (atom, verdict) in enumerate(verdicts.items()):
            members = [Member(value, axis, PRODUCER) for value, axis in zeroed[atom]]
            members += [
                Member(value, axis, CONSUMER) for value, axis in verdict.consumers if (value, axis) not in zeroed[atom]
            ]
            if not members:
                continue
            family = Family(
                f"f{number}",
                atom,
                verdict.exactness,
                tuple(members),
                state.weight_atoms[atom],
                slow=verdict.slow,
            )
            state.families.append(family)
        for number, family in enumerate(state.families):
            family.id = f"f{number}"
        settle_overlaps(state)
        for family in state.families:
            if family.slow and not self.rescale:
                family.active = False
        state.forget_atoms()
        return bool(state.families)


@dataclass(slots=True)
class _Verdict:
    exactness: str = "exact"
    consumers: tuple[tuple[Value, int], ...] = ()
    slow: bool = False

    def worsen(self, exactness: str) -> None:
        if _EXACTNESS.index(exactness) > _EXACTNESS.index(self.exactness):
            self.exactness = exactness


def _judge(
    state: State,
    sites: dict[Atom, list[Site]],
    zeroed: dict[Atom, list[tuple[Value, int]]],
    roles: Roles,
) -> dict[Atom, _Verdict]:
    """A verdict for every atom that can be made dead; the others freeze, with the reason."""
    first, spared = _spare_what_must_not_be_zero(state, zeroed, roles)
    verdicts: dict[Atom, _Verdict] = {}
    undecided: dict[Atom, list[tuple[Value, int]]] = {}
    for atom in zeroed:
        if atom in first.not_finite:
            _freeze_not_finite(state, atom, first)
            continue
        verdict = _Verdict()
        for site in sites.get(atom, ()):
            if _vanishes(site, atom, first, state, verdict):
                continue
            consumers = [place for place in roles.consumers(site, atom) if place not in spared[atom]]
            if not consumers:
                _freeze(state, atom, site)
                break
            undecided.setdefault(atom, []).extend(consumers)
        else:
            verdicts[atom] = verdict
    undecided = {atom: consumers for atom, consumers in undecided.items() if atom in verdicts}
    if undecided:
        # With those consumers at zero too, every site must see nothing.
        both = {atom: [*zeroed[atom], *consumers] for atom, consumers in undecided.items()}
        second, _ = _spare_what_must_not_be_zero(state, both, roles, both)
        for atom, consumers in undecided.items():
            if atom in second.not_finite:
                _freeze_not_finite(state, atom, second)
                del verdicts[atom]
                continue
            verdict = _Verdict("consumers", tuple(place for place in dict.fromkeys(consumers) if place in both[atom]))
            verdicts[atom] = verdict
            for site in sites[atom]:
                if not _vanishes(site, atom, second, state, verdict):
                    _freeze(state, atom, site)
                    del verdicts[atom]
                    break
    return verdicts


def _freeze_not_finite(state: State, atom: Atom, prover: Prover) -> None:
    op = prover.not_finite[atom][0][0].op
    state.dims.freeze(atom, Reason("a zeroed slot would not be finite there", op.operator, op.name))


def _spare_what_must_not_be_zero(
    state: State,
    zeroed: dict[Atom, list[tuple[Value, int]]],
    roles: Roles,
    atoms: Iterable[Atom] | None = None,
) -> tuple[Prover, dict[Atom, set[tuple[Value, int]]]]:
    """Take weights out of groups whose zero gives something not finite (the direction of a weight norm: 0 / 0).

    Returns:
        What is known with the others at zero, and what was taken out: no consumer of its slots either.
    """
    kept_out: dict[Atom, set[tuple[Value, int]]] = {atom: set() for atom in zeroed}
    while True:
        prover = Prover(state, _zero_at(state, zeroed), atoms)
        spared = False
        for atom, places in prover.not_finite.items():
            blamed = {
                source
                for bound, position, axis in places
                for operand, number in bound.flows[position][axis]
                if (value := bound.op.inputs[operand]) is not None
                for source in roles.sources(value, number)
            }
            left = [place for place in zeroed[atom] if place not in blamed]
            spared |= len(left) < len(zeroed[atom])
            zeroed[atom] = left
            kept_out[atom] |= blamed
        if not spared:
            return prover, kept_out


def _zero_at(state: State, places: dict[Atom, list[tuple[Value, int]]]) -> Start:
    sets = {atom: set(axes) for atom, axes in places.items()}

    def start(value: Value, axis: int, atom: Atom) -> Slots:
        if value.constant is None:
            return ZERO if may_promise(state, value, atom) else UNKNOWN
        if (value, axis) in sets.get(atom, ()):
            return zero_state(state, value, axis, atom)
        # Zero points, as all that is no parameter, are what they are.
        return UNKNOWN if value in state.parameters else as_stored(state, value, axis, atom)

    return start


def _vanishes(site: Site, atom: Atom, prover: Prover, state: State, verdict: _Verdict) -> bool:
    if prover.vanishes(site, atom):
        if site.reduction in (Reduction.MEAN, Reduction.RMS, Reduction.NORM):
            verdict.worsen("rescaled")
            verdict.slow |= site.reduction is Reduction.NORM
        return True
    if foldable(site, atom, prover, state).all():
        verdict.worsen("folded")
        return True
    return False


def _freeze(state: State, atom: Atom, site: Site) -> None:
    what = {
        Reduction.SUM: "a sum over it still sees a zeroed slot, and nothing there can be zeroed",
        Reduction.MEAN: "a mean over it still sees a zeroed slot",
        Reduction.RMS: "a norm over it still sees a zeroed slot",
        Reduction.NORM: "a norm over it still sees a zeroed slot",
        Reduction.EXTREME: "a maximum or minimum over it still sees a zeroed slot",
    }.get(site.reduction, "the order of its slots matters")
    source = site.op.inputs[site.operands[0][0]]
    statistic = site.reduction in (Reduction.MEAN, Reduction.RMS, Reduction.NORM)
    if statistic and source is not None and not keeps_statistics(source):
        what = "a mean or norm over it cannot be rescaled exactly in half precision"
    state.dims.freeze(atom, Reason(what, site.op.operator, site.op.name))

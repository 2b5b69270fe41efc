"""Zero-invariant groups: what must be zero together for a slot to be dead."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import combinations, product
from typing import TYPE_CHECKING, ClassVar

from ozgraph.collector import collector_paused
from ozgraph.dims import Atom, Dim, Ids, Prod, Reason, Take, children, resolve
from ozgraph.graph import Value
from ozgraph.passes.bound import Bound, Site
from ozgraph.passes.manager import Pass
from ozgraph.passes.promise import may_promise
from ozgraph.passes.prove_dead import foldable
from ozgraph.passes.prover import Prover, Start, as_stored, keeps_statistics, occurrences, sites_by_atom, zero_state
from ozgraph.passes.state import State
from ozgraph.rules.lattice import UNKNOWN, ZERO, Slots
from ozgraph.rules.rule import Reduction

if TYPE_CHECKING:
    import networkx as nx

PRODUCER = "producer"
CONSUMER = "consumer"
SLICE = "slice"

_EXACTNESS = ("exact", "folded", "consumers", "rescaled")


@dataclass(frozen=True, slots=True)
class Member:
    """A weight axis whose slices are zeroed with the group."""

    value: Value
    axis: int
    role: str


@dataclass(eq=False, slots=True)
class Family:
    """All the groups of one dim.

    Attributes:
        id: stable from run to run.
        atom: its dim.
        exactness: how a group may go: ``exact``, ``folded``, ``consumers`` or ``rescaled``.
        members: what is zeroed, slot by slot.
        slices: every weight axis that shrinks, members or not.
        slow: a norm over it would be emitted decomposed.
        active: whether a default run prunes it.
        overlaps: families that share a tensor axis with it.
        held: why selection leaves it alone (excluded, given back by verification); None when it does not.
    """

    id: str
    atom: Atom
    exactness: str
    members: tuple[Member, ...]
    slices: tuple[tuple[Value, int], ...]
    slow: bool = False
    active: bool = True
    overlaps: list[Family] = field(default_factory=list)
    held: str | None = None

    @property
    def dim(self) -> str:
        """The tensor that the dim is best known by."""
        return self.members[0].value.name

    @property
    def names(self) -> list[str]:
        """Its id, the weights that shrink with it, and the operators that use them."""
        return [self.id, *names_of(value for value, _ in self.slices)]

    def __repr__(self) -> str:
        return f"Family({self.id}, {self.dim}, {self.atom.size} slots, {self.exactness})"


def names_of(weights: Iterable[Value]) -> list[str]:
    """Names of weights and of the operators that use them, each once."""
    return list(dict.fromkeys(name for value in weights for name in (value.name, *(op.name for op, _ in value.uses))))


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
        _settle_overlaps(state)
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


def producers_of(state: State) -> dict[Atom, list[tuple[Value, int]]]:
    """For every atom on a weight, the weight axes whose slices make its slots."""
    roles = Roles(state)
    return {atom: roles.producers(atom) for atom in state.weight_atoms}


class Roles:
    """Which weight axes produce the slots of data and which consume them, through arithmetic on weights alone."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._sources: dict[tuple[Value, int], tuple[tuple[Value, int], ...]] = {}
        self._produces: set[tuple[Value, int]] = set()
        only_weights: set[Value] = set()
        for op in state.graph.ops:
            bound = state.bound.get(op)
            if bound is None:
                continue
            weights = others = False
            for value in op.inputs:
                if value is not None:
                    if value.constant is not None or value in only_weights:
                        weights = True
                    elif value.integers is None:
                        others = True
            # What a body receives is constant before its first run only.
            if others or op.later is not None:
                if weights:
                    self._note(bound)
            elif any(value is not None for value in op.inputs):
                only_weights.update(value for value in op.outputs if value is not None)
                self._pass_on(bound)

    def sources(self, value: Value, axis: int) -> tuple[tuple[Value, int], ...]:
        """The weight axes that an axis of a value computed from weights alone comes from."""
        if value.constant is not None:
            return ((value, axis),) if value in self._state.parameters else ()
        return self._sources.get((value, axis), ())

    def _pass_on(self, bound: Bound) -> None:
        for result, axes in zip(bound.op.outputs, bound.flows, strict=True):
            for axis, flows in enumerate(axes):
                found: dict[tuple[Value, int], None] = {}
                for operand, number in flows:
                    value = bound.op.inputs[operand]
                    if value is not None and operand not in bound.rule.statistics:
                        found.update(dict.fromkeys(self.sources(value, number)))
                if result is not None:
                    self._sources[result, axis] = tuple(found)

    def _note(self, bound: Bound) -> None:
        for operand, axis in bound.program.carried:
            value = bound.op.inputs[operand]
            if value is not None and operand not in bound.rule.statistics:
                self._produces.update(self.sources(value, axis))

    def of(self, value: Value, axis: int) -> str:
        """What a weight axis is to the slots that it carries."""
        if (value, axis) in self._produces:
            return PRODUCER
        bound = [(self._state.bound.get(op), operand) for op, operand in value.uses]
        if all(application is not None and operand in application.rule.statistics for application, operand in bound):
            return SLICE
        return CONSUMER

    def producers(self, atom: Atom) -> list[tuple[Value, int]]:
        """The weight axes whose slices make the atom's slots."""
        return [place for place in self._state.weight_atoms[atom] if place in self._produces]

    def consumers(self, site: Site, atom: Atom) -> list[tuple[Value, int]]:
        """The weight axes that a site contracts with the atom's slots."""
        found: dict[tuple[Value, int], None] = {}
        for value, axis in occurrences(site):
            for source in self.sources(value, axis):
                if atom in self._state.atoms(*source):
                    found[source] = None
        return list(found)


def _settle_overlaps(state: State) -> None:
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


def group_graph(state: State) -> nx.MultiGraph[str]:
    """Families and weights as a networkx graph.

    Nodes are family ids (``kind="family"``) and tensor names (``kind="weight"``). Edges run from a family to every
    weight axis that shrinks with it (attributes ``axis`` and ``role``; role is None for axes that are only sliced) and
    between families that overlap (``kind="overlap"``).
    """
    import networkx as nx

    graph: nx.MultiGraph[str] = nx.MultiGraph(name=state.graph.name)
    for family in state.families:
        graph.add_node(
            family.id, kind="family", size=family.atom.size, exactness=family.exactness, active=family.active
        )
    for family in state.families:
        roles = {(member.value, member.axis): member.role for member in family.members}
        for value, axis in family.slices:
            graph.add_node(value.name, kind="weight", shape=value.shape)
            graph.add_edge(family.id, value.name, kind="slice", axis=axis, role=roles.get((value, axis)))
        for other in family.overlaps:
            if not graph.has_edge(family.id, other.id):
                graph.add_edge(family.id, other.id, kind="overlap")
    return graph

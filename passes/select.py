"""Choose which groups go: by score, until the target is met."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import ClassVar

import numpy as np

from ozgraph.dims import Take, children, resolve
from ozgraph.errors import UsageError
from ozgraph.graph import Graph
from ozgraph.passes.families import Family, names_of
from ozgraph.passes.manager import Pass
from ozgraph.passes.saliency import Criterion, Scores, criterion
from ozgraph.passes.state import Mask, Removal, State
from ozgraph.suggestions import nearest
from ozgraph.target import Target

_WIDE = 32
"""From this many slots on a family is rounded by default."""
_ROUND = 8


@dataclass(frozen=True)
class Select(Pass):
    """Choose groups to remove.

    1. Families that are inactive, excluded or given back are left alone.
    2. Slots are scored, normalised, and taken in ascending order, in blocks where ``round_to`` asks for it; each
       family keeps ``min_kept`` slots and every axis at least one position.
    3. Where ``uniform`` asks for it, families that are alike (the same size, the same weights in the same places) go
       block by block together, each with its own lowest slots.
    4. The shortest prefix that meets the target is chosen: never less, more by at most one slot or block.
    """

    name: ClassVar[str] = "select"
    requires: ClassVar[frozenset[str]] = frozenset({"families", "cost"})
    ensures: ClassVar[frozenset[str]] = frozenset({"selection"})

    target: Target = field(default=Target(macs=0.5))
    criterion: str | Criterion = field(
        default="l2", metadata={"help": "how groups are scored", "choices": ("l1", "l2", "random")}
    )
    seed: int = field(default=0, metadata={"help": "seed of the random criterion"})
    normalise: str = field(
        default="family",
        metadata={"help": "compare scores within the family's mean, or as they are", "choices": ("family", "global")},
    )
    round_to: int | None = field(
        default=None, metadata={"help": f"kept slots are a multiple of this (default: {_ROUND} in wide families)"}
    )
    min_kept: int = field(default=1, metadata={"help": "slots that every family keeps at least"})
    include: tuple[str, ...] = field(
        default=(),
        metadata={
            "help": "prune only families that this glob matches: by a tensor, a node, or their id",
            "metavar": "GLOB",
            "complete": "families",
        },
    )
    exclude: tuple[str, ...] = field(
        default=(),
        metadata={
            "help": "leave families alone that this glob matches: by a tensor, a node, or their id",
            "metavar": "GLOB",
            "complete": "families",
        },
    )
    uniform: bool = field(
        default=False, metadata={"help": "remove the same number of slots from families that are alike, as layers are"}
    )

    def run(self, state: State) -> bool:
        """Fill ``state.chosen``.

        Raises:
            UsageError: the target cannot be met, or an option makes no sense.
        """
        ranking = self.rank(state)
        wanted = self._wanted(state, ranking)
        if wanted(ranking.removal(len(ranking.blocks))) is False:
            most = self._reached(state, ranking, len(ranking.blocks))
            raise UsageError(
                f"the target cannot be met: at most {most:.1%} can be removed with these options; "
                f"lower the target, or see 'ozgraph analyze' for what holds the rest back"
            )
        ends = ranking.ends
        low, high = 0, len(ends) - 1
        while low < high:
            middle = (low + high) // 2
            if wanted(ranking.removal(ends[middle])):
                high = middle
            else:
                low = middle + 1
        state.chosen = ranking.removal(ends[low])
        return bool(state.chosen)

    def rank(self, state: State) -> Ranking:
        """All blocks that may go, in the order in which they would."""
        if self.round_to is not None and self.round_to < 1:
            raise UsageError(f"round_to must be at least 1, got {self.round_to}")
        if self.min_kept < 1:
            raise UsageError(f"min_kept must be at least 1, got {self.min_kept}")
        self.hold(state)
        score = criterion(self.criterion, self.seed)
        blocks: list[tuple[float, int, Family, Mask]] = []
        families = [family for family in state.families if family.active and family.held is None]
        scored = {family: self._scores(state, family, score) for family in families}
        protected = np.zeros(state.dims.total, dtype=bool)
        protected[list(_protected(state, scored))] = True
        for family in families:
            blocks.extend(self._blocks(state, family, scored[family], protected, len(blocks)))
        if self.uniform:
            steps = _together(blocks)
            ends = [0, *np.cumsum([len(step) for step in steps]).tolist()]
            return Ranking(state, [block for step in steps for block in step], ends)
        blocks.sort(key=lambda block: block[:2])
        return Ranking(state, [(family, mask) for _, _, family, mask in blocks])

    def hold(self, state: State) -> None:
        """Mark families that the user's globs leave out."""
        known = list(dict.fromkeys(name for family in state.families for name in family.names))
        for glob in (*self.include, *self.exclude):
            if not _matches(known, (glob,)):
                raise UsageError(
                    f"{glob!r} matches no tensor, node or id of a family that can be pruned; "
                    f"{_meant(glob, known, state.graph)}"
                )
        for family in state.families:
            # A family is included by what is zeroed for it, and excluded by whatever would shrink with it.
            zeroed = [family.id, *names_of(member.value for member in family.members)]
            if self.include and not _matches(zeroed, self.include):
                family.held = family.held or "not included"
            if _matches(family.names, self.exclude):
                family.held = family.held or "excluded"

    def _scores(self, state: State, family: Family, score: Criterion) -> Scores:
        scores = np.asarray(score(state, family), dtype=np.float64)
        if scores.shape != (family.atom.size,):
            raise UsageError(
                f"the criterion returned shape {scores.shape} for {family.dim!r}; it must be one score a slot, "
                f"({family.atom.size},)"
            )
        if self.normalise == "global":
            return scores
        if self.normalise != "family":
            raise UsageError(f"normalise is 'family' or 'global', got {self.normalise!r}")
        mean = float(np.abs(scores).mean())
        return scores / mean if mean > 0 else scores

    def _blocks(
        self, state: State, family: Family, scores: Scores, protected: Mask, start: int
    ) -> list[tuple[float, int, Family, Mask]]:
        atom = family.atom
        may_go = state.dims.free_slots(atom)
        may_go &= ~protected[atom.base : atom.base + atom.size]
        candidates = np.flatnonzero(may_go)
        order = candidates[np.argsort(scores[candidates], kind="stable")]
        order = order[: max(atom.size - self.min_kept, 0)]
        step = self.round_to or (_ROUND if atom.size >= _WIDE else 1)
        blocks: list[tuple[float, int, Family, Mask]] = []
        position = 0
        while position < len(order):
            # The first block brings the kept count down to a multiple of the step.
            width = (atom.size - position) % step or step
            taken = order[position : position + width]
            if len(taken) < width and step > 1:
                break
            mask = np.zeros(atom.size, dtype=bool)
            mask[taken] = True
            blocks.append((float(scores[taken].mean()), start + len(blocks), family, mask))
            position += width
        return blocks

    def _wanted(self, state: State, ranking: Ranking) -> Callable[[Removal], bool]:
        cost, target = state.cost, self.target
        assert cost is not None
        if target.groups is not None:
            total = sum(family.atom.size for family in state.families if family.active)
            return lambda removal: removal.total >= target.groups * total  # type: ignore[operator]
        if target.parameters is not None:
            parameters = cost.parameters()
            return lambda removal: parameters - cost.parameters(removal) >= target.parameters * parameters  # type: ignore[operator]
        if target.macs is None:
            raise UsageError("a latency target is met by bisection: use ozgraph.prune or 'ozgraph prune'")
        macs = cost.macs()
        return lambda removal: macs - cost.macs(removal) >= target.macs * macs  # type: ignore[operator]

    def _reached(self, state: State, ranking: Ranking, length: int) -> float:
        cost, removal = state.cost, ranking.removal(length)
        assert cost is not None
        if self.target.groups is not None:
            total = sum(family.atom.size for family in state.families if family.active)
            return removal.total / total if total else 0.0
        if self.target.parameters is not None:
            return 1 - cost.parameters(removal) / max(cost.parameters(), 1)
        return 1 - cost.macs(removal) / max(cost.macs(), 1)


@dataclass(frozen=True, slots=True)
class Ranking:
    """Blocks of slots in the order in which they would go.

    Attributes:
        ends: how many blocks may go, ascending from 0; those in between would leave alike families apart.
    """

    state: State
    blocks: list[tuple[Family, Mask]]
    ends: Sequence[int] = ()

    def __post_init__(self) -> None:
        if not self.ends:
            object.__setattr__(self, "ends", range(len(self.blocks) + 1))

    def removal(self, count: int) -> Removal:
        """The first ``count`` blocks as a removal."""
        removal = Removal(self.state.dims.total)
        for family, mask in self.blocks[:count]:
            removal.add(family.atom, mask)
        return removal


def _together(blocks: Iterable[tuple[float, int, Family, Mask]]) -> list[list[tuple[Family, Mask]]]:
    """Blocks of families that are alike, the nth of each at once, in the order of their mean scores."""
    kinds: dict[tuple[object, ...], dict[Family, list[tuple[float, Mask]]]] = {}
    for score, _, family, mask in blocks:
        kinds.setdefault(_kind(family), {}).setdefault(family, []).append((score, mask))
    steps: list[tuple[float, int, list[tuple[Family, Mask]]]] = []
    for alike in kinds.values():
        for rank in zip(*alike.values(), strict=False):
            step = [(family, mask) for family, (_, mask) in zip(alike, rank, strict=True)]
            steps.append((float(np.mean([score for score, _ in rank])), len(steps), step))
    return [step for _, _, step in sorted(steps, key=lambda step: step[:2])]


def _kind(family: Family) -> tuple[object, ...]:
    """What families of layers that are alike have in common."""
    places = sorted((member.value.shape or (), member.axis, member.role) for member in family.members)
    return family.atom.size, family.exactness, tuple(places)


def _matches(names: Iterable[str], globs: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, glob) for name in names for glob in globs)


def _meant(glob: str, known: Sequence[str], graph: Graph) -> str:
    """What somebody may have meant by a glob that matches no family."""
    inside = sum(glob in name for name in known)
    if inside:
        return f"did you mean '*{glob}*', which matches {inside:,}?"
    if _matches([*graph.values, *(op.name for op in graph.ops)], (glob,)):
        return "it is in the model, but nothing there can go: 'ozgraph analyze --all' says why"
    near = nearest(glob, known)
    return f"did you mean {near!r}?" if near is not None else "'ozgraph analyze' lists the families"


def _protected(state: State, scored: dict[Family, Scores]) -> set[int]:
    """Slot ids that stay: the best of every family, and for every axis that sees only some slots the best of those."""
    scores = np.full(state.dims.total + 1, np.inf)
    protected: set[int] = set()
    for family, values in scored.items():
        atom = family.atom
        scores[atom.base : atom.base + atom.size] = values
        protected.add(atom.base + int(np.argmax(values)))
    seen: set[int] = set()
    for axes in state.axes.values():
        for dim in axes:
            if id(dim) in seen or not is_partial(dim) or not state.atoms_of(dim):
                continue
            seen.add(id(dim))
            table = state.dims.ids(dim)
            safe = np.isin(table, list(protected)) | (table < 0)
            if not safe.all(axis=1).any():
                # Unscored slots count as infinitely good: they are not going anywhere.
                best = int(np.argmax(np.where(table < 0, np.inf, scores[table]).min(axis=1)))
                protected.update(int(slot) for slot in table[best] if slot >= 0)
    return protected


def is_partial(dim: object) -> bool:
    """Whether an axis may see only some of an atom's slots."""
    from ozgraph.dims import Dim

    stack = [dim]
    while stack:
        here = stack.pop()
        assert isinstance(here, Dim)
        here = resolve(here)
        if isinstance(here, Take):
            return True
        stack.extend(children(here))
    return False

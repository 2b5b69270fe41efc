"""Which slots go next: the lowest scores, until a share of the target is met."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np
import numpy.typing as npt

from ozgraph.errors import UsageError
from ozgraph.groups import FamilyGroups, Groups
from ozgraph.runtime.places import Layout
from ozgraph.target import Target

Mask = npt.NDArray[np.bool_]
Scores = npt.NDArray[np.float64]

_KINDS = ("groups", "parameters", "macs")


def chosen_families(
    groups: Groups, *, include: Iterable[str] = (), exclude: Iterable[str] = (), families: Iterable[str] | None = None
) -> list[FamilyGroups]:
    """The families that a run prunes.

    Args:
        include, exclude: globs over tensor names. A family is included by what is zeroed for it, and excluded by
            whatever would shrink with it.
        families: ids or dims to prune instead of those that are active by default; overlapping ones may both be named.

    Raises:
        UsageError: a glob or a name fits nothing.
    """
    if families is not None:
        wanted = [groups[name] for name in families]
    else:
        wanted = [family for family in groups if family.active]
    known = {occurrence.tensor for family in groups for occurrence in family.occurrences}
    include, exclude = tuple(include), tuple(exclude)
    for glob in (*include, *exclude):
        if not any(fnmatchcase(name, glob) for name in known):
            raise UsageError(f"{glob!r} matches no tensor of a family that can be pruned; print the groups to see them")

    def fits(names: Iterable[str], globs: Sequence[str]) -> bool:
        return any(fnmatchcase(name, glob) for name in names for glob in globs)

    kept = []
    for family in wanted:
        if include and not fits((o.tensor for o in family.zeroed), include):
            continue
        if fits((o.tensor for o in family.occurrences), exclude):
            continue
        if family.free.any():
            kept.append(family)
    if not kept:
        raise UsageError("no family is left to prune; loosen include and exclude, or print the groups to see why")
    return kept


@dataclass(frozen=True, slots=True)
class Limits:
    """What selection keeps back.

    Attributes:
        round_to: kept slots of a family are a multiple of this.
        min_kept: slots that every family keeps at least: a number (int) or a share of them (float).
    """

    round_to: int = 1
    min_kept: int | float = 1

    def __post_init__(self) -> None:
        if self.round_to < 1:
            raise UsageError(f"round_to is at least 1, got {self.round_to}")
        if (isinstance(self.min_kept, float) and not 0 <= self.min_kept <= 1) or self.min_kept < 0:
            raise UsageError(f"min_kept is a number of slots or a share between 0 and 1, got {self.min_kept}")

    def least(self, size: int) -> int:
        """Slots that a family of ``size`` keeps."""
        share = self.min_kept
        return max(1, int(np.ceil(share * size)) if isinstance(share, float) else share)


class Selection:
    """Chooses slots of a layout for a target.

    Raises:
        UsageError: the target cannot be met, with what can.
    """

    def __init__(self, layout: Layout, target: Target, limits: Limits) -> None:
        self.layout, self.target, self.limits = layout, target, limits
        if target.latency is not None:
            raise UsageError("a latency is measured on a file: train for macs, or prune the exported file for it")
        self._cost = layout.groups.cost
        self._before = self._cost.of(layout.groups.full)
        self.free: Mask = np.concatenate([family.free for family in layout.families])
        most = self.amount(self._most())
        if most < self.goal:
            whole = self.whole
            raise UsageError(
                f"the target cannot be met: {self.kind}={self.share:.1%} is asked for, and at most "
                f"{most / whole:.1%} can go with these families and limits; lower the target, min_kept or round_to"
            )

    @property
    def kind(self) -> str:
        """What the target counts."""
        return next(kind for kind in _KINDS if getattr(self.target, kind) is not None)

    @property
    def share(self) -> float:
        """The fraction to remove."""
        return float(getattr(self.target, self.kind))

    @property
    def whole(self) -> int:
        """All there is of what the target counts."""
        if self.kind == "groups":
            return self.layout.total
        return self._before[0] if self.kind == "parameters" else self._before[1]

    @property
    def goal(self) -> float:
        """What must be gone in the end: a whole number of groups, or parameters or MACs."""
        if self.kind == "groups":
            return int(self.share * self.layout.total + 1e-9)
        return self.share * self.whole

    def kept(self, gone: Mask) -> list[Mask]:
        """Kept slots of every family of the groups."""
        masks = [np.ones(family.size, dtype=bool) for family in self.layout.groups.families]
        for number, (_, span) in zip(self.layout.numbers, self.layout.spans(), strict=True):
            masks[number] = ~gone[span]
        return masks

    def left(self, gone: Mask) -> tuple[int, int]:
        """(parameters, MACs) without these slots."""
        return self._cost.of(self.kept(gone))

    def amount(self, gone: Mask) -> float:
        """What is gone, in the target's own units."""
        if self.kind == "groups":
            return int(gone.sum())
        parameters, macs = self.left(gone)
        return self._before[0] - parameters if self.kind == "parameters" else self._before[1] - macs

    def _most(self) -> Mask:
        """As much as may go at all."""
        blocks = self.blocks(np.zeros(self.layout.total), np.zeros(self.layout.total, dtype=bool))
        gone = np.zeros(self.layout.total, dtype=bool)
        for _, slots in blocks:
            gone[slots] = True
        return gone

    def half(self, scores: Scores) -> Mask:
        """Of every family the lower half of what may go, at least one block of it."""
        blocks = self.blocks(scores, np.zeros(self.layout.total, dtype=bool))
        chosen = np.zeros(self.layout.total, dtype=bool)
        for _, span in self.layout.spans():
            mine = [slots for _, slots in blocks if span.start <= slots[0] < span.stop]
            for slots in mine[: (len(mine) + 1) // 2]:
                chosen[slots] = True
        return chosen

    def choose(self, scores: Scores, gone: Mask, wanted: float) -> Mask:
        """The slots that go next: lowest scores first, until ``wanted`` is gone, with what went before.

        Args:
            scores: [slots].
            gone: [slots] that went before; they stay gone.
            wanted: groups, parameters or MACs, as the target counts.

        Returns:
            [slots] flags of the new ones.
        """
        return self.first(self.blocks(scores, gone), gone, wanted)

    def first(self, blocks: Sequence[tuple[float, npt.NDArray[np.int64]]], gone: Mask, wanted: float) -> Mask:
        """The shortest run of blocks that brings what is gone to ``wanted``; all of them if that is too little."""

        def after(count: int) -> Mask:
            mask = gone.copy()
            for _, slots in blocks[:count]:
                mask[slots] = True
            return mask

        low, high = 0, len(blocks)
        while low < high:
            middle = (low + high) // 2
            if self.amount(after(middle)) >= wanted:
                high = middle
            else:
                low = middle + 1
        return after(low) & ~gone

    def blocks(self, scores: Scores, gone: Mask) -> list[tuple[float, npt.NDArray[np.int64]]]:
        """What may still go, lowest first: single slots, or as many at once as ``round_to`` asks for."""
        blocks: list[tuple[float, npt.NDArray[np.int64]]] = []
        for family, span in self.layout.spans():
            mine, there = scores[span], gone[span]
            spared = _spared(family, mine, there)
            candidates = np.flatnonzero(self.free[span] & ~there & ~spared)
            order = candidates[np.argsort(mine[candidates], kind="stable")]
            alive = family.size - int(there.sum())
            order = order[: max(alive - self.limits.least(family.size), 0)]
            step = self.limits.round_to
            position = 0
            while position < len(order):
                width = (alive - position) % step or step
                taken = order[position : position + width]
                if len(taken) < width:
                    break
                blocks.append((float(mine[taken].mean()), taken + span.start))
                position += width
        blocks.sort(key=lambda block: block[0])  # stable: ties go to the front of the model
        return blocks


def _spared(family: FamilyGroups, scores: Scores, gone: Mask) -> Mask:
    """The best slot of every set that must not go whole."""
    spared = np.zeros(family.size, dtype=bool)
    for slots in family.keep_one:
        members = np.asarray(slots)
        alive = members[~gone[members]]
        if len(alive):
            spared[alive[np.argmax(scores[alive])]] = True
    return spared


def macs_per_slot(layout: Layout) -> Scores:
    """MACs that go with one slot of each family while the rest stays: [slots]."""
    cost, groups = layout.groups.cost, layout.groups
    whole = groups.macs
    found = np.zeros(layout.total)
    for number, (family, span) in zip(layout.numbers, layout.spans(), strict=True):
        kept = groups.full
        last = int(np.flatnonzero(family.free)[-1])
        kept[number][last] = False
        found[span] = whole - cost.of(kept)[1]
    return found

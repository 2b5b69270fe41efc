"""The solver: unification, then slots, then the certificate on which soundness rests."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ozgraph.dims.ids import NOTHING, Mask, combine, components, differing, in_one_piece, removable
from ozgraph.dims.terms import Atom, Dim, Ids, Take, children, resolve, same
from ozgraph.dims.unify import MOST_CUTS, Unifier


class Reason(NamedTuple):
    """Why a slot cannot go.

    Attributes:
        text: in plain words, the same for every slot that the same cause holds back.
        operator: the operator type it comes from, or ``""``.
        op: the name of one such operator, or ``""``.
    """

    text: str
    operator: str = ""
    op: str = ""


_ASKEW = "its positions are arranged in two ways that do not line up"
_TOGETHER = "all of its slots go together or not at all"
_IN_PART, _VARIOUSLY = -2, -3
"""What stands for the reason of an atom with free slots left, and of one that is frozen for several reasons."""


class Dims(Unifier):
    """The dims of a model: unifies, freezes slots, and certifies the solution.

    Equations that the symbolic solver cannot align wait in ``deferred``; :meth:`settle` retries them and falls back to
    slots. :meth:`certify` then checks every recorded equation on ids, so soundness does not rest on the solver.
    """

    def __init__(self) -> None:
        super().__init__()
        self.reasons: list[Reason] = []
        self._reason_ids: dict[Reason, int] = {}
        self._held: dict[Atom, int] = {}  # atoms with frozen slots -> the one reason for all of them, or as below
        self._late: list[Atom] = []  # frozen as a whole, and not yet written into the array
        self._slots = np.full(64, NOTHING, dtype=np.int32)
        self._starts: Ids = np.full(64, NOTHING, dtype=np.int64)
        self._started = 0
        self._expanded: dict[int, tuple[Dim, Ids]] = {}

    @property
    def _frozen(self) -> npt.NDArray[np.int32]:
        """The reason of every slot, :data:`NOTHING` for free ones, and a spare one at the end, which that indexes."""
        if self.total >= len(self._slots):
            self._slots = _with_room(self._slots, self.total + 1)
        if self._late:
            for atom in self._late:
                held = self._slots[atom.base : atom.base + atom.size]
                held[held < 0] = self._held[atom]
            self._late.clear()
        return self._slots

    @property
    def _bases(self) -> Ids:
        """The first id of every atom."""
        count = len(self.atoms)
        if self._started < count:
            if count > len(self._starts):
                self._starts = _with_room(self._starts, count)
            self._starts[self._started : count] = [atom.base for atom in self.atoms[self._started :]]
            self._started = count
        return self._starts[:count]

    def _bound(self, atom: Atom, dim: Dim) -> None:
        if self._expanded:
            self._expanded.clear()
        reason = self._held.get(atom)
        if reason is None:
            return
        top = resolve(dim)
        if isinstance(top, Atom) and reason != _IN_PART:
            # All slots of the one are frozen, and so are all of the other from now on.
            other = self._held.get(top)
            if other is None and reason >= 0:
                self._hold(top, reason)
                return
            if other is not None and other != _IN_PART:
                return
        held = self._frozen[atom.base : atom.base + atom.size]
        table = self.ids(dim, frozen=True)
        for number in np.unique(held[held >= 0]):
            self._freeze_ids(table[held == number], int(number))

    # -- reading ---------------------------------------------------------------------------------------------------

    def ids(self, dim: Dim, *, frozen: bool = False) -> Ids:
        """The slots that every position needs: [size, columns] ids, :data:`NOTHING` where a column has none.

        Frozen slots read as :data:`NOTHING` unless ``frozen`` asks for them.
        """
        table = self._expand(dim)
        if frozen or not self._held or not table.size:
            return table
        return np.where((table >= 0) & (self._frozen[table] < 0), table, NOTHING)

    def _expand(self, dim: Dim) -> Ids:
        """All ids of ``dim``, frozen or not; remembered until the next binding."""
        top = resolve(dim)
        stack = [(top, False)]
        while stack:
            here, ready = stack.pop()
            if id(here) in self._expanded:
                continue
            if ready:
                tables = [self._expanded[id(resolve(child))][1] for child in children(here)]
                self._expanded[id(here)] = (here, combine(here, tables))
            else:
                stack.append((here, True))
                stack.extend((resolve(child), False) for child in children(here))
        return self._expanded[id(top)][1]

    def owners(self, slots: Ids) -> Ids:
        """For every slot id, the index of its atom in :attr:`atoms`."""
        owners: Ids = np.searchsorted(self._bases, slots, side="right") - 1
        return owners

    # -- freezing --------------------------------------------------------------------------------------------------

    def freeze(self, dim: Dim, reason: Reason, positions: Any = None) -> None:
        """Hold back every slot that the positions of ``dim`` need (all positions by default)."""
        top = resolve(dim)
        if positions is None and isinstance(top, Atom):
            held = self._held.get(top)
            if held is None:
                self._hold(top, self._reason(reason))
                return
            if held != _IN_PART:
                return
        table = self._expand(top)
        self._freeze_ids(table if positions is None else table[positions], self._reason(reason))

    def _hold(self, atom: Atom, reason: int) -> None:
        """Freeze all slots of an atom that has none frozen."""
        self._held[atom] = reason
        self._late.append(atom)

    def freeze_slots(self, slots: Ids, reason: Reason) -> None:
        """Hold back the slots with these ids."""
        self._freeze_ids(slots, self._reason(reason))

    def _reason(self, reason: Reason) -> int:
        number = self._reason_ids.get(reason)
        if number is None:
            number = self._reason_ids[reason] = len(self.reasons)
            self.reasons.append(reason)
        return number

    def _freeze_ids(self, slots: Ids, reason: int) -> None:
        slots = np.asarray(slots).ravel()
        slots = slots[slots >= 0]
        frozen = self._frozen
        slots = slots[frozen[slots] < 0]
        if slots.size:
            frozen[slots] = reason
            for number in np.unique(self.owners(slots)).tolist():
                atom = self.atoms[number]
                self._held[atom] = _IN_PART if self.free_slots(atom).any() else _VARIOUSLY

    def frozen_reason(self, slots: Ids) -> npt.NDArray[np.int32]:
        """Index into :attr:`reasons` for each slot id, -1 where it is free."""
        return self._frozen[slots]

    def free_slots(self, atom: Atom) -> Mask:
        """Which slots of ``atom`` may go."""
        return self._frozen[atom.base : atom.base + atom.size] < 0

    def free_atoms(self) -> set[Atom]:
        """The unbound atoms with a slot that may go."""
        held = self._held
        return {atom for atom in self.atoms if atom.bound is None and held.get(atom, _IN_PART) == _IN_PART}

    # -- slots -----------------------------------------------------------------------------------------------------

    def settle(self) -> None:
        """Retry what was deferred now that the rest is known; what still does not align is solved slot by slot."""
        waiting, self.deferred = self.deferred, []
        for left, right, origin in waiting:
            self._unify(left, right, origin)
        waiting, self.deferred = self.deferred, []
        for left, right, origin in waiting:
            self._settle_slots(left, right, origin)

    def _settle_slots(self, left: Dim, right: Dim, origin: Any) -> None:
        a, b = self.ids(left), self.ids(right)
        if self._sets_equal(a, b):
            return
        pairs = self._best_pairs(a, b)
        why = _TOGETHER if not pairs and in_one_piece(a, b) else _ASKEW
        reason = Reason(why, *_origin_names(origin))
        for table, used in ((a, {i for i, _ in pairs}), (b, {j for _, j in pairs})):
            for column in range(table.shape[1]):
                if column not in used:
                    self.freeze_slots(table[:, column], reason)
        a, b = self.ids(left), self.ids(right)
        for i, j in pairs:
            self._tie(a[:, i], b[:, j], reason)

    def _best_pairs(self, a: Ids, b: Ids) -> list[tuple[int, int]]:
        """Which columns to identify: the pairs that leave most slots removable, found greedily."""
        chosen: list[tuple[int, int]] = []
        best = 0
        while True:
            gains: list[tuple[int, int, tuple[int, int]]] = []
            for i in range(a.shape[1]):
                for j in range(b.shape[1]):
                    if all(i != k and j != m for k, m in chosen):
                        gains.append((removable(a, b, [*chosen, (i, j)]), len(gains), (i, j)))
            if not gains:
                return chosen
            # Ties go to the innermost columns, which come last.
            gain, _, pair = max(gains)
            if gain <= best:
                return chosen
            best = gain
            chosen.append(pair)

    def _tie(self, a: Ids, b: Ids, reason: Reason) -> None:
        """Make the slots ``a[p]`` and ``b[p]`` one slot for every p; where one side has none, the other freezes."""
        self.freeze_slots(a[b < 0], reason)
        self.freeze_slots(b[a < 0], reason)
        both = (a >= 0) & (b >= 0) & (a != b)
        if not both.any():
            return
        involved = np.unique(np.concatenate((a[both], b[both])))
        touched = [self.atoms[k] for k in np.unique(self.owners(involved))]
        universe = np.concatenate([np.arange(atom.base, atom.base + atom.size) for atom in touched])
        order = np.argsort(universe)

        def find(slots: Ids) -> Ids:
            found: Ids = order[np.searchsorted(universe, slots, sorter=order)]
            return found

        label = components(len(universe), find(a[both]), find(b[both]))
        _, merged = np.unique(label, return_inverse=True)
        made = self._atom(int(merged.max()) + 1, MOST_CUTS)
        start = 0
        for atom in touched:
            self._bind(atom, Take(made, merged[start : start + atom.size]))
            start += atom.size

    # -- certificate -----------------------------------------------------------------------------------------------

    @staticmethod
    def _sets_equal(a: Ids, b: Ids) -> bool:
        return not differing(a, b).size

    def certify(self) -> int:
        """Check every recorded equation; freeze the slots of violated ones until none is. Returns how many were.

        Both sides must need the same non-frozen slots at every position. Structurally equal sides do by construction.
        """
        open_equations = [
            (left, right, origin)
            for left, right, origin in self.equations
            if resolve(left) is not resolve(right) and not same(left, right)
        ]
        violated: set[int] = set()
        while True:
            before = len(violated)
            changed = False
            for number, (left, right, origin) in enumerate(open_equations):
                bad = differing(self.ids(left), self.ids(right))
                if bad.size:
                    violated.add(number)
                    changed = True
                    reason = Reason("two uses of it demand different slots", *_origin_names(origin))
                    self.freeze_slots(bad, reason)
            if not changed:
                return max(before, len(violated))


def _with_room(array: npt.NDArray[Any], size: int) -> npt.NDArray[Any]:
    """``array`` grown to ``size`` elements, or to twice what it has."""
    return np.concatenate((array, np.full(max(size, 2 * len(array)) - len(array), NOTHING, dtype=array.dtype)))


def _origin_names(origin: Any) -> tuple[str, str]:
    """Operator type and name of what an equation came from."""
    return getattr(origin, "operator", "") or "", getattr(origin, "name", "") or ""

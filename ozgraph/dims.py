"""Dimensions as types: what an axis is made of, and the unification that finds out.

A :class:`Dim` is an ordered set of slots. An :class:`Atom` has slots that may go one by one; :class:`Sum` is a
concatenation, :class:`Prod` a row-major product, :class:`Take` a gather by constant indexes. :data:`ONE` is the axis of
size one: a position that nothing can remove.

Position ``p`` of an axis *needs* a set of slots, one of each atom that it runs through, and survives when all of them
do. Slots have global ids, so an axis is a matrix of ids (:meth:`Dims.ids`), and everything that follows, from the
certificate to the rewrite, is arithmetic on such matrices.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ozgraph.errors import RuleError

Ids = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

NOTHING = -1
"""The id in a position that no removable slot of that column stands behind."""

# An atom cut more often than this is better described slot by slot (x + roll(x, 1) would cut it n times).
_CUTS = 8


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a slot cannot go.

    Attributes:
        text: in plain words, the same for every slot that the same cause holds back.
        operator: the operator type it comes from, or ``""``.
        op: the name of one such operator, or ``""``.
    """

    text: str
    operator: str = ""
    op: str = ""


class Dim:
    """An ordered set of slots; see the subclasses."""

    __slots__ = ("size",)
    size: int


class Atom(Dim):
    """``size`` independent slots with the ids ``base .. base + size``; ``bound`` once it is known to be more."""

    __slots__ = ("base", "bound", "cuts")

    def __init__(self, size: int, base: int, cuts: int = 0) -> None:
        self.size = size
        self.base = base
        self.bound: Dim | None = None
        self.cuts = cuts

    def __repr__(self) -> str:
        return f"a{self.base}:{self.size}"


class Sum(Dim):
    """Concatenation: the slots of each part in turn."""

    __slots__ = ("parts",)

    def __init__(self, parts: tuple[Dim, ...]) -> None:
        self.parts = parts
        self.size = sum(part.size for part in parts)

    def __repr__(self) -> str:
        return f"({' + '.join(map(repr, self.parts))})"


class Prod(Dim):
    """Row-major product, outermost factor first; the empty product is :data:`ONE`."""

    __slots__ = ("factors",)

    def __init__(self, factors: tuple[Dim, ...]) -> None:
        self.factors = factors
        self.size = math.prod(factor.size for factor in factors)

    def __repr__(self) -> str:
        return f"({' * '.join(map(repr, self.factors))})" if self.factors else "1"


class Take(Dim):
    """Position ``p`` is position ``index[p]`` of ``base``; repeats allowed."""

    __slots__ = ("base", "index")

    def __init__(self, base: Dim, index: Ids) -> None:
        self.base = base
        self.index = index
        self.size = len(index)

    def __repr__(self) -> str:
        return f"{self.base!r}[{len(self.index)} indexes]"


ONE = Prod(())
"""The axis of size one, and the broadcast axis: no slots."""


def resolve(dim: Dim) -> Dim:
    """``dim`` with bindings followed at its head."""
    while isinstance(dim, Atom) and dim.bound is not None:
        # Path halving, as in union-find.
        following = dim.bound
        if isinstance(following, Atom) and following.bound is not None:
            dim.bound = following.bound
        dim = following
    return dim


def sum_of(parts: Iterable[Dim]) -> Dim:
    """The concatenation of ``parts``, without empty ones."""
    kept = tuple(part for part in parts if part.size)
    return kept[0] if len(kept) == 1 else Sum(kept)


def prod_of(factors: Iterable[Dim]) -> Dim:
    """The product of ``factors``, without ones."""
    kept = tuple(factor for factor in map(resolve, factors) if factor is not ONE)
    return ONE if not kept else kept[0] if len(kept) == 1 else Prod(kept)


def _parts(dim: Dim) -> deque[Dim]:
    return deque(dim.parts) if isinstance(dim, Sum) else deque((dim,))


def _factors(dim: Dim) -> deque[Dim]:
    return deque(dim.factors) if isinstance(dim, Prod) else deque((dim,))


def _next(queue: deque[Dim], kind: type[Dim], left: bool) -> Dim:
    """The next operand of a sum or product, nested ones of the same kind opened on the way."""
    while True:
        head = resolve(queue[0] if left else queue[-1])
        if isinstance(head, kind) and isinstance(head, (Sum, Prod)):
            inner = head.parts if isinstance(head, Sum) else head.factors
            if left:
                queue.popleft()
                queue.extendleft(reversed(inner))
            else:
                queue.pop()
                queue.extend(inner)
            if inner:
                continue
            if not queue:
                return ONE
            continue
        if left:
            queue[0] = head
        else:
            queue[-1] = head
        return head


def children(dim: Dim) -> tuple[Dim, ...]:
    """The dims that ``dim`` is directly made of."""
    if isinstance(dim, Sum):
        return dim.parts
    if isinstance(dim, Prod):
        return dim.factors
    if isinstance(dim, Take):
        return (dim.base,)
    return ()


def components(count: int, left: Ids, right: Ids) -> Ids:
    """Connected components of ``count`` nodes under the edges ``left[i] -- right[i]``: the least node of each.

    >>> components(4, np.array([0, 2]), np.array([2, 3])).tolist()
    [0, 1, 0, 0]
    """
    label = np.arange(count, dtype=np.int64)
    while True:
        a, b = label[left], label[right]
        if np.array_equal(a, b):
            return label
        np.minimum.at(label, np.maximum(a, b), np.minimum(a, b))
        while True:
            shorter = label[label]
            if np.array_equal(shorter, label):
                break
            label = shorter


class Dims:
    """The solver: makes atoms, unifies dims, freezes slots and certifies the solution.

    Equations that the symbolic solver cannot align wait in ``deferred``; :meth:`settle` retries them and falls back to
    slots. :meth:`certify` then checks every recorded equation on ids, so soundness does not rest on the solver.
    """

    def __init__(self) -> None:
        self.total = 0
        self.atoms: list[Atom] = []
        self.equations: list[tuple[Dim, Dim, Any]] = []
        self.deferred: list[tuple[Dim, Dim, Any]] = []
        self.reasons: list[Reason] = []
        self._reason_ids: dict[Reason, int] = {}
        self._frozen = np.full(1024, NOTHING, dtype=np.int32)
        self._any_frozen = False
        self._expanded: dict[int, tuple[Dim, Ids]] = {}

    # -- making ----------------------------------------------------------------------------------------------------

    def atom(self, size: int, cuts: int = 0) -> Dim:
        """A fresh atom; size one gives :data:`ONE`, since the only slot of an axis never goes."""
        return ONE if size == 1 else self._atom(size, cuts)

    def _atom(self, size: int, cuts: int = 0) -> Atom:
        if size < 1:
            raise RuleError(f"a dimension needs at least one slot, got {size}")
        made = Atom(size, self.total, cuts)
        self.total += size
        self.atoms.append(made)
        if self.total > len(self._frozen):
            grown = np.full(max(self.total, 2 * len(self._frozen)), NOTHING, dtype=np.int32)
            grown[: len(self._frozen)] = self._frozen
            self._frozen = grown
        return made

    @property
    def roots(self) -> list[Atom]:
        """The atoms that are bound to nothing else: what the solution is made of."""
        return [atom for atom in self.atoms if atom.bound is None]

    # -- unification -----------------------------------------------------------------------------------------------

    def equate(self, left: Dim, right: Dim, origin: Any = None) -> None:
        """Record that two dims are the same, position by position, and solve it as far as it aligns.

        Raises:
            RuleError: the sizes differ.
        """
        if left is right:
            return
        if left.size != right.size:
            raise RuleError(f"axes of {left.size} and {right.size} positions cannot be the same dimension")
        self.equations.append((left, right, origin))
        self._unify(left, right, origin)

    def _unify(self, left: Dim, right: Dim, origin: Any) -> None:
        work = [(left, right)]
        while work:
            a, b = work.pop()
            a, b = resolve(a), resolve(b)
            if a is b:
                continue
            if isinstance(b, Atom) and (not isinstance(a, Atom) or b.base > a.base):
                a, b = b, a
            if a is ONE or b is ONE:
                self._bind_to_one(b if a is ONE else a)
            elif isinstance(a, Atom):
                if isinstance(b, Atom) or not self._occurs(a, b):
                    self._bind(a, b)
                elif not same(a, b):
                    self.deferred.append((a, b, origin))
            elif isinstance(a, Take) or isinstance(b, Take):
                if not same(a, b):
                    self.deferred.append((a, b, origin))
            elif isinstance(a, Sum) and isinstance(b, Sum):
                self._unify_sums(a, b, work, origin)
            elif isinstance(a, Prod) and isinstance(b, Prod):
                self._unify_products(a, b, work, origin)
            else:
                total, product = (a, b) if isinstance(a, Sum) else (b, a)
                self._unify_sum_with_product(total, product, work, origin)

    def _bind(self, atom: Atom, dim: Dim) -> None:
        atom.bound = dim
        self._expanded.clear()
        if self._any_frozen:
            held = self._frozen[atom.base : atom.base + atom.size]
            for reason in np.unique(held[held >= 0]):
                self._freeze_ids(self.ids(dim, frozen=True)[held == reason], int(reason))

    def _bind_to_one(self, dim: Dim) -> None:
        for atom in self.atoms_of(dim):
            self._bind(atom, ONE)

    def _occurs(self, atom: Atom, dim: Dim) -> bool:
        stack = [dim]
        seen: set[int] = set()
        while stack:
            here = resolve(stack.pop())
            if here is atom:
                return True
            if id(here) not in seen:
                seen.add(id(here))
                stack.extend(children(here))
        return False

    def _unify_sums(self, a: Dim, b: Dim, work: list[tuple[Dim, Dim]], origin: Any) -> None:
        left, right = _parts(a), _parts(b)
        while left and right:
            x, y = _next(left, Sum, True), _next(right, Sum, True)
            if x is y or x.size == y.size:
                if x is not y:
                    work.append((x, y))
                left.popleft()
                right.popleft()
                continue
            long, short, queue = (x, y, left) if x.size > y.size else (y, x, right)
            pieces = self._cut(long, short.size)
            if pieces is None:
                self.deferred.append((sum_of(left), sum_of(right), origin))
                return
            queue.popleft()
            queue.extendleft(reversed(pieces))

    def _unify_products(self, a: Dim, b: Dim, work: list[tuple[Dim, Dim]], origin: Any) -> None:
        left, right = _factors(a), _factors(b)
        inside = True
        while left and right:
            x, y = _next(left, Prod, not inside), _next(right, Prod, not inside)
            if x is ONE or y is ONE:
                break
            if x is y or x.size == y.size:
                if x is not y:
                    work.append((x, y))
                _drop(left, inside)
                _drop(right, inside)
                continue
            common = math.gcd(x.size, y.size)
            if common == 1 or not (self._split(x, left, common, inside) and self._split(y, right, common, inside)):
                if not inside:
                    self.deferred.append((prod_of(left), prod_of(right), origin))
                    return
                inside = False
        for rest in (*left, *right):
            self._bind_to_one(rest)

    def _split(self, factor: Dim, queue: deque[Dim], common: int, inside: bool) -> bool:
        """Put two factors in place of the next one of ``queue``, the nearer of them of size ``common``."""
        if factor.size == common:
            return True
        pair = self._factor(factor, common if inside else factor.size // common)
        if pair is None:
            return False
        _drop(queue, inside)
        if inside:
            queue.extend(pair)
        else:
            queue.extendleft(reversed(pair))
        return True

    def _unify_sum_with_product(self, total: Dim, product: Dim, work: list[tuple[Dim, Dim]], origin: Any) -> None:
        factors = _factors(product)
        inner = _next(factors, Prod, False)
        # Where only a part of the inner factor divides the summands, slots one by one say more than smaller factors.
        pair = self._factor(total, inner.size)
        if pair is None:
            self.deferred.append((total, product, origin))
            return
        factors.pop()
        work.append((pair[1], inner))
        work.append((pair[0], prod_of(factors)))

    def _cut(self, dim: Dim, at: int) -> tuple[Dim, Dim] | None:
        """``dim`` as a sum of its first ``at`` positions and the rest, or None where its structure forbids it."""
        dim = resolve(dim)
        if isinstance(dim, Atom):
            if dim.cuts >= _CUTS:
                return None
            first = self._atom(at, dim.cuts + 1)
            rest = self._atom(dim.size - at, dim.cuts + 1)
            self._bind(dim, Sum((first, rest)))
            return first, rest
        if isinstance(dim, Take):
            return Take(dim.base, dim.index[:at]), Take(dim.base, dim.index[at:])
        if isinstance(dim, Prod) and dim.factors:
            factors = _factors(dim)
            outer = _next(factors, Prod, True)
            factors.popleft()
            inner = prod_of(factors)
            if at % inner.size:
                return None
            halves = _cut_parts(outer, at // inner.size) or self._cut(outer, at // inner.size)
            return None if halves is None else (prod_of((halves[0], inner)), prod_of((halves[1], inner)))
        if isinstance(dim, Sum):
            return _cut_parts(dim, at)
        return None

    def _factor(self, dim: Dim, inner: int) -> tuple[Dim, Dim] | None:
        """``dim`` as a product whose innermost factor has ``inner`` slots, or None where its structure forbids it."""
        dim = resolve(dim)
        if inner == dim.size:
            return ONE, dim
        if inner == 1:
            return dim, ONE
        if isinstance(dim, Atom):
            pair = (self._atom(dim.size // inner, dim.cuts), self._atom(inner, dim.cuts))
            self._bind(dim, Prod(pair))
            return pair
        if isinstance(dim, Prod):
            factors, taken, missing = _factors(dim), deque[Dim](), inner
            while missing > 1:
                last = _next(factors, Prod, False)
                if missing % last.size == 0:
                    missing //= last.size
                    taken.appendleft(factors.pop())
                    continue
                pair = self._factor(last, missing) if last.size % missing == 0 else None
                if pair is None:
                    return None
                factors.pop()
                factors.append(pair[0])
                taken.appendleft(pair[1])
                missing = 1
            return prod_of(factors), prod_of(taken)
        if isinstance(dim, Sum):
            parts = _open_sum(dim)
            if any(part.size % inner for part in parts):
                return None
            outers, shared = [], None
            for part in parts:
                pair = self._factor(part, inner)
                if pair is None:
                    return None
                outers.append(pair[0])
                if shared is None:
                    shared = pair[1]
                else:
                    self._unify(shared, pair[1], None)
            assert shared is not None
            return sum_of(outers), shared
        return None

    # -- reading ---------------------------------------------------------------------------------------------------

    def atoms_of(self, dim: Dim) -> list[Atom]:
        """The distinct unbound atoms that ``dim`` runs through, outermost first."""
        found: dict[int, Atom] = {}
        stack = [dim]
        seen: set[int] = set()
        while stack:
            here = resolve(stack.pop())
            if isinstance(here, Atom):
                found.setdefault(here.base, here)
            elif id(here) not in seen:
                seen.add(id(here))
                stack.extend(reversed(children(here)))
        return list(found.values())

    def ids(self, dim: Dim, *, frozen: bool = False) -> Ids:
        """The slots that every position needs: [size, columns] ids, :data:`NOTHING` where a column has none.

        Frozen slots read as :data:`NOTHING` unless ``frozen`` asks for them.
        """
        table = self._expand(dim)
        if frozen or not self._any_frozen or not table.size:
            return table
        # NOTHING indexes the last element, which is never a slot's (the array keeps one spare).
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
                self._expanded[id(here)] = (here, _combine(here, tables))
            else:
                stack.append((here, True))
                stack.extend((resolve(child), False) for child in children(here))
        return self._expanded[id(top)][1]

    # -- freezing --------------------------------------------------------------------------------------------------

    def freeze(self, dim: Dim, reason: Reason, positions: Any = None) -> None:
        """Hold back every slot that the positions of ``dim`` need (all positions by default)."""
        table = self._expand(dim)
        self._freeze_ids(table if positions is None else table[positions], self._reason(reason))

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
        slots = slots[self._frozen[slots] < 0]
        if slots.size:
            self._frozen[slots] = reason
            self._any_frozen = True

    def frozen_reason(self, slots: Ids) -> npt.NDArray[np.int32]:
        """Index into :attr:`reasons` for each slot id, -1 where it is free."""
        return self._frozen[slots]

    def free_slots(self, atom: Atom) -> Mask:
        """Which slots of ``atom`` may go."""
        return self._frozen[atom.base : atom.base + atom.size] < 0

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
        reason = Reason("its positions are arranged in two ways that do not line up", *_origin_names(origin))
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
            gains = []
            for i in range(a.shape[1]):
                for j in range(b.shape[1]):
                    if all(i != k and j != m for k, m in chosen):
                        gains.append((_removable(a, b, [*chosen, (i, j)]), len(gains), (i, j)))
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
        bases = np.array([atom.base for atom in self.atoms], dtype=np.int64)
        touched = [self.atoms[k] for k in np.unique(np.searchsorted(bases, involved, side="right") - 1)]
        universe = np.concatenate([np.arange(atom.base, atom.base + atom.size) for atom in touched])
        order = np.argsort(universe)
        find = lambda slots: order[np.searchsorted(universe, slots, sorter=order)]  # noqa: E731
        label = components(len(universe), find(a[both]), find(b[both]))
        _, merged = np.unique(label, return_inverse=True)
        made = self._atom(int(merged.max()) + 1, _CUTS)
        start = 0
        for atom in touched:
            self._bind(atom, Take(made, merged[start : start + atom.size]))
            start += atom.size

    # -- certificate -----------------------------------------------------------------------------------------------

    @staticmethod
    def _sets_equal(a: Ids, b: Ids) -> bool:
        return not _differing(a, b).size

    def certify(self) -> int:
        """Check every recorded equation; freeze the slots of violated ones until none is. Returns how many were.

        Both sides must need the same non-frozen slots at every position. Structurally equal sides do by construction.
        """
        open_equations = [entry for entry in self.equations if not same(entry[0], entry[1])]
        violated: set[int] = set()
        while True:
            before = len(violated)
            changed = False
            for number, (left, right, origin) in enumerate(open_equations):
                differing = _differing(self.ids(left), self.ids(right))
                if differing.size:
                    violated.add(number)
                    changed = True
                    reason = Reason("two uses of it demand different slots", *_origin_names(origin))
                    self.freeze_slots(differing, reason)
            if not changed:
                return max(before, len(violated))


def _drop(queue: deque[Dim], inside: bool) -> None:
    if inside:
        queue.pop()
    else:
        queue.popleft()


def _open_sum(dim: Dim) -> list[Dim]:
    """The parts of a sum, nested sums opened."""
    queue, opened = _parts(dim), []
    while queue:
        opened.append(_next(queue, Sum, True))
        queue.popleft()
    return opened


def _cut_parts(dim: Dim, at: int) -> tuple[Dim, Dim] | None:
    """A sum cut at one of its own boundaries, else None."""
    if not isinstance(dim, Sum):
        return None
    parts, seen = _open_sum(dim), 0
    for number, part in enumerate(parts):
        if seen == at and number:
            return sum_of(parts[:number]), sum_of(parts[number:])
        seen += part.size
    return None


def same(a: Dim, b: Dim) -> bool:
    """Whether two dims are equal by structure (nested sums and products compare flattened)."""
    work = [(a, b)]
    while work:
        x, y = work.pop()
        x, y = resolve(x), resolve(y)
        if x is y:
            continue
        if x.size != y.size:
            return False
        if isinstance(x, Take) and isinstance(y, Take):
            if not np.array_equal(x.index, y.index):
                return False
            work.append((x.base, y.base))
        elif isinstance(x, Sum) and isinstance(y, Sum):
            left, right = _open_sum(x), _open_sum(y)
            if len(left) != len(right):
                return False
            work.extend(zip(left, right, strict=True))
        elif isinstance(x, Prod) and isinstance(y, Prod):
            left, right = _open_product(x), _open_product(y)
            if len(left) != len(right):
                return False
            work.extend(zip(left, right, strict=True))
        else:
            return False
    return True


def _open_product(dim: Dim) -> list[Dim]:
    queue, opened = _factors(dim), deque[Dim]()
    while queue:
        last = _next(queue, Prod, False)
        if queue:
            queue.pop()
        if last is not ONE:
            opened.appendleft(last)
    return list(opened)


def _combine(dim: Dim, tables: Sequence[Ids]) -> Ids:
    """The id matrix of ``dim`` from those of its children."""
    if isinstance(dim, Atom):
        return np.arange(dim.base, dim.base + dim.size, dtype=np.int64)[:, None]
    if isinstance(dim, Take):
        return tables[0][dim.index]
    if isinstance(dim, Sum):
        columns = max(table.shape[1] for table in tables)
        return np.concatenate([_pad(table, columns) for table in tables])
    # Row-major: repeat outer factors, tile inner ones.
    rows = dim.size
    pieces, inner = [], rows
    for table in tables:
        inner //= max(len(table), 1)
        tiled = np.repeat(table, inner, axis=0)
        pieces.append(np.tile(tiled, (rows // len(tiled), 1)) if len(tiled) else tiled)
    return np.concatenate(pieces, axis=1) if pieces else np.empty((1, 0), dtype=np.int64)


def _pad(table: Ids, columns: int) -> Ids:
    """``table`` with empty columns on the left, so that innermost factors share a column."""
    missing = columns - table.shape[1]
    if not missing:
        return table
    return np.concatenate((np.full((len(table), missing), NOTHING, dtype=np.int64), table), axis=1)


def _canonical(table: Ids, columns: int) -> Ids:
    """Rows as sets: sorted, repeats replaced by NOTHING, sorted again."""
    rows = np.sort(_pad(table, columns), axis=1)
    if columns > 1:
        rows[:, 1:][rows[:, 1:] == rows[:, :-1]] = NOTHING
        rows.sort(axis=1)
    return rows


def _differing(a: Ids, b: Ids) -> Ids:
    """Slots of the positions whose sets differ, those that both sides have at that position left out."""
    columns = max(a.shape[1], b.shape[1])
    left, right = _canonical(a, columns), _canonical(b, columns)
    bad = (left != right).any(axis=1)
    if not bad.any():
        return np.empty(0, dtype=np.int64)
    left, right = left[bad], right[bad]
    # A slot on both sides of the same row is agreed on; compare all column pairs of the few bad rows.
    agreed = (left[:, :, None] == right[:, None, :]).any(axis=2)
    agreed_right = (right[:, :, None] == left[:, None, :]).any(axis=2)
    slots = np.concatenate((left[~agreed], right[~agreed_right]))
    return np.unique(slots[slots >= 0])


def _removable(a: Ids, b: Ids, pairs: Sequence[tuple[int, int]]) -> int:
    """How many slots could still go if these columns were identified and all others frozen."""
    slots = np.unique(np.concatenate((a.ravel(), b.ravel())))
    slots = slots[slots >= 0]
    if not slots.size:
        return 0
    frozen = np.zeros(len(slots) + 1, dtype=bool)
    left = np.where(a >= 0, np.searchsorted(slots, a), len(slots))
    right = np.where(b >= 0, np.searchsorted(slots, b), len(slots))
    for table, used in ((left, {i for i, _ in pairs}), (right, {j for _, j in pairs})):
        for column in range(table.shape[1]):
            if column not in used:
                frozen[table[:, column]] = True
    # The extra node stands for "frozen": whatever meets it is frozen too.
    frozen[len(slots)] = True
    edges_left = np.concatenate([left[:, i] for i, _ in pairs])
    edges_right = np.concatenate([right[:, j] for _, j in pairs])
    label = components(len(slots) + 1, edges_left, edges_right)
    stuck = np.zeros(len(slots) + 1, dtype=bool)
    np.logical_or.at(stuck, label, frozen)
    # A class that every position needs cannot go either: nothing would be left.
    for table in (left, right):
        rows = len(table)
        for column in range(table.shape[1]):
            counts = np.bincount(label[table[:, column]], minlength=len(stuck))
            stuck |= counts >= rows
    return int((~stuck[label[: len(slots)]]).sum())


def _origin_names(origin: Any) -> tuple[str, str]:
    """Operator type and name of what an equation came from."""
    return getattr(origin, "operator", "") or "", getattr(origin, "name", "") or ""

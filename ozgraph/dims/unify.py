"""Unification: bind atoms until both sides of every equation are the same dim, as far as they align."""

from __future__ import annotations

import math
from collections import deque
from typing import Any

from ozgraph.dims.terms import (
    ONE,
    Atom,
    Dim,
    Prod,
    Sum,
    Take,
    children,
    next_operand,
    open_sum,
    prod_of,
    queue_of_factors,
    queue_of_parts,
    resolve,
    same,
    sum_of,
)
from ozgraph.errors import RuleError

# An atom cut more often than this is better described slot by slot (x + roll(x, 1) would cut it n times).
MOST_CUTS = 8


class Unifier:
    """Makes atoms and unifies dims.

    Attributes:
        total: ids given out so far.
        atoms: every atom made, by base.
        equations: every equation asked for, with what it came from.
        deferred: equations that do not align symbolically.
    """

    def __init__(self) -> None:
        self.total = 0
        self.atoms: list[Atom] = []
        self.equations: list[tuple[Dim, Dim, Any]] = []
        self.deferred: list[tuple[Dim, Dim, Any]] = []

    def _bound(self, atom: Atom, dim: Dim) -> None:
        """Called when ``atom`` turns out to be ``dim``."""

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
        return made

    @property
    def roots(self) -> list[Atom]:
        """The atoms that are bound to nothing else: what the solution is made of."""
        return [atom for atom in self.atoms if atom.bound is None]

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
        left, right = resolve(left), resolve(right)
        if left is right:
            return
        if isinstance(left, Atom) and isinstance(right, Atom):
            # Nearly all equations are of this kind.
            older, younger = (left, right) if left.base < right.base else (right, left)
            self._bind(younger, older)
        else:
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
        self._bound(atom, dim)

    def _bind_to_one(self, dim: Dim) -> None:
        for atom in self.atoms_of(dim):
            if atom.size == 1:  # behind one position of a longer dim it stays what it is; certification sees to it
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
        left, right = queue_of_parts(a), queue_of_parts(b)
        while left and right:
            x, y = next_operand(left, Sum, True), next_operand(right, Sum, True)
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
        left, right = queue_of_factors(a), queue_of_factors(b)
        inside = True
        while left and right:
            x, y = next_operand(left, Prod, not inside), next_operand(right, Prod, not inside)
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
        factors = queue_of_factors(product)
        inner = next_operand(factors, Prod, False)
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
            if dim.cuts >= MOST_CUTS:
                return None
            first = self._atom(at, dim.cuts + 1)
            rest = self._atom(dim.size - at, dim.cuts + 1)
            self._bind(dim, Sum((first, rest)))
            return first, rest
        if isinstance(dim, Take):
            return Take(dim.base, dim.index[:at]), Take(dim.base, dim.index[at:])
        if isinstance(dim, Prod) and dim.factors:
            factors = queue_of_factors(dim)
            outer = next_operand(factors, Prod, True)
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
            outer, innermost = self._atom(dim.size // inner, dim.cuts), self._atom(inner, dim.cuts)
            self._bind(dim, Prod((outer, innermost)))
            return outer, innermost
        if isinstance(dim, Prod):
            factors, taken, missing = queue_of_factors(dim), deque[Dim](), inner
            while missing > 1:
                last = next_operand(factors, Prod, False)
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
            parts = open_sum(dim)
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


def _drop(queue: deque[Dim], inside: bool) -> None:
    if inside:
        queue.pop()
    else:
        queue.popleft()


def _cut_parts(dim: Dim, at: int) -> tuple[Dim, Dim] | None:
    """A sum cut at one of its own boundaries, else None."""
    if not isinstance(dim, Sum):
        return None
    parts, seen = open_sum(dim), 0
    for number, part in enumerate(parts):
        if seen == at and number:
            return sum_of(parts[:number]), sum_of(parts[number:])
        seen += part.size
    return None

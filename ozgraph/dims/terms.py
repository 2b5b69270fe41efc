"""What an axis is made of: atoms, sums, products and takes, and how to read them through their bindings."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int64]


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


def queue_of_parts(dim: Dim) -> deque[Dim]:
    """The parts of a sum; anything else is a sum of itself."""
    return deque(dim.parts) if isinstance(dim, Sum) else deque((dim,))


def queue_of_factors(dim: Dim) -> deque[Dim]:
    """The factors of a product; anything else is a product of itself."""
    return deque(dim.factors) if isinstance(dim, Prod) else deque((dim,))


def next_operand(queue: deque[Dim], kind: type[Dim], left: bool) -> Dim:
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


def open_sum(dim: Dim) -> list[Dim]:
    """The parts of a sum, nested sums opened."""
    queue, opened = queue_of_parts(dim), []
    while queue:
        opened.append(next_operand(queue, Sum, True))
        queue.popleft()
    return opened


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
            left, right = open_sum(x), open_sum(y)
            if len(left) != len(right):
                return False
            work.extend(zip(left, right, strict=True))
        elif isinstance(x, Prod) and isinstance(y, Prod):
            left, right = open_product(x), open_product(y)
            if len(left) != len(right):
                return False
            work.extend(zip(left, right, strict=True))
        else:
            return False
    return True


def open_product(dim: Dim) -> list[Dim]:
    """The factors of a product, nested products opened, without ones."""
    queue, opened = queue_of_factors(dim), deque[Dim]()
    while queue:
        last = next_operand(queue, Prod, False)
        if queue:
            queue.pop()
        if last is not ONE:
            opened.appendleft(last)
    return list(opened)

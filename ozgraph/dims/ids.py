"""Axes as matrices of slot ids: what unification means, spelt out position by position."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ozgraph.dims.terms import Atom, Dim, Ids, Sum, Take

Mask = npt.NDArray[np.bool_]

NOTHING = -1
"""The id in a position that no removable slot of that column stands behind."""


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


def combine(dim: Dim, tables: Sequence[Ids]) -> Ids:
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


def differing(a: Ids, b: Ids) -> Ids:
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


def in_one_piece(a: Ids, b: Ids) -> bool:
    """Whether identifying two axes of one column each, position by position, ties all of their slots to one another.

    >>> in_one_piece(np.array([[0], [1], [2]]), np.array([[2], [0], [1]]))
    True
    """
    if a.shape[1] != 1 or b.shape[1] != 1:
        return False
    both = (a[:, 0] >= 0) & (b[:, 0] >= 0)
    slots, places = np.unique(np.concatenate((a[both, 0], b[both, 0])), return_inverse=True)
    left, right = np.split(places, 2)
    return bool(slots.size) and not components(len(slots), left, right).any()


def removable(a: Ids, b: Ids, pairs: Sequence[tuple[int, int]]) -> int:
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

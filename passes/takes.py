"""Uses of tables have dims of their own: each takes the slots that it needs, and the table stays whole.

Once everything is solved, uses that agree are tied to the table again: what only one layer uses shrinks like a weight.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ozgraph.dims import Dim, Ids, Reason
from ozgraph.dims.ids import NOTHING, Mask
from ozgraph.graph import Value
from ozgraph.passes.state import State

_APART = Reason("it stays whole: every use of it takes the slots that it needs")


def dims_apart(state: State, value: Value, own: Iterable[Dim]) -> tuple[Dim, ...]:
    """Dims of one use of a value: fresh along axes of a fixed size, the value's own along others."""
    varying = value.dynamic or (False,) * value.rank
    return tuple(
        dim if dim.size == 1 or varies else state.dims.atom(dim.size) for dim, varies in zip(own, varying, strict=True)
    )


def settle_takes(state: State) -> None:
    """Tie the uses of a value to it again where all of them agree on its slots; the others take theirs.

    Uses agree when tying them ties nothing else: no slot of the value would be two slots of data. ``state.takes`` keeps
    the axes that stay apart, and the values' own slots freeze there.
    """
    reads = [
        (op, position, axis, state.axes[value][axis], dim)
        for (op, position), dims in state.takes.items()
        if op in state.bound and (value := op.inputs[position]) is not None
        for axis, dim in enumerate(dims)
        if dim is not state.axes[value][axis]
    ]
    if not reads:
        state.takes = {}
        return
    tables = [(state.dims.ids(own), state.dims.ids(dim)) for *_, own, dim in reads]
    differing = _differing(state, tables)
    state.takes = {}
    for (op, position, axis, own, dim), (slots, _) in zip(reads, tables, strict=True):
        value = op.inputs[position]
        assert value is not None
        if differing[slots].any():
            taken = state.takes.get((op, position), state.axes[value])
            state.takes[op, position] = (*taken[:axis], dim, *taken[axis + 1 :])
            state.dims.freeze(own, _APART)
        else:
            state.dims.equate(own, dim, op)
    state.dims.settle()


def _differing(state: State, tables: list[tuple[Ids, Ids]]) -> Mask:
    """Which own slots must not be tied: they would be several slots of data, or freeze what nothing else does.

    Args:
        tables: own ids and ids of the use, for every axis of every use.

    Returns:
        one flag an id, and one at the end for :data:`NOTHING`.
    """
    differing = np.zeros(state.dims.total + 1, dtype=bool)
    differing[NOTHING] = True
    for value in (*state.graph.inputs, *state.graph.outputs):
        for dim in state.axes.get(value, ()):
            differing[state.dims.ids(dim).ravel()] = True
    pairs = []
    for own, used in tables:
        if own.shape[1] == 1:
            pairs.append((own[:, 0], used))
        elif own.shape == used.shape:
            pairs += [(own[:, column], used[:, [column]]) for column in range(own.shape[1])]
        else:
            differing[own] = True
    _disagreeing(pairs, differing)
    while True:
        # An axis stays apart as a whole, and so does whatever shares slots with it.
        before = int(differing.sum())
        for own, _ in tables:
            if differing[own].any():
                differing[own] = True
        if int(differing.sum()) == before:
            return differing


def _disagreeing(pairs: list[tuple[Ids, Ids]], differing: Mask) -> None:
    """Flag the slots that meet several sets of slots; pairs of [positions] and [positions, columns]."""
    if not pairs:
        return
    slots, places = np.unique(np.concatenate([own for own, _ in pairs]), return_inverse=True)
    columns = max(used.shape[1] for _, used in pairs)
    rows = np.full((len(places), columns), NOTHING, dtype=np.int64)
    start = 0
    for own, used in pairs:
        rows[start : start + len(own), : used.shape[1]] = used
        start += len(own)
    met = np.empty((len(slots), columns), dtype=np.int64)
    met[places] = rows  # of several rows for a slot one stays, and the others differ from it
    differing[slots[places[(met[places] != rows).any(axis=1)]]] = True

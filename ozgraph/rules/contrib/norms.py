"""Norms of sums of com.microsoft: a skip, a bias or the tables of an embedding are added first."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ozgraph.graph import Op
from ozgraph.plan import NewOp
from ozgraph.rules.attention import LOOKED_UP
from ozgraph.rules.contrib.operands import names, needing
from ozgraph.rules.lattice import UNKNOWN, Slots
from ozgraph.rules.normalization import decomposed, rescaled_rms, statistics
from ozgraph.rules.registry import register
from ozgraph.rules.rule import Edit, Reduction, line

_EPSILON = 1e-12


def _skip_norm(op: Op, states: Sequence[Slots | None], result: int, axis: int, *, scale: int, shifts: bool) -> Slots:
    """The sum of input, skip and bias; its norm is beta, or zero, where gamma is zero."""
    bias = 4 if shifts else 3
    added = [states[0], states[1], *([states[bias]] if op.input(bias) is not None else [])]
    total = np.zeros(1)
    for state in added:
        total = total + (UNKNOWN if state is None else state)
    if result == 3:
        return total
    if result:
        return UNKNOWN
    gamma = UNKNOWN if states[scale] is None else np.asarray(states[scale])
    if not shifts:
        return np.where((total == 0) | (gamma == 0), 0.0, np.nan)
    beta = states[3] if op.input(3) is not None else np.zeros(1)
    return np.where(gamma == 0, UNKNOWN if beta is None else beta, np.nan)


def _last_axis(edit: Edit, position: int) -> tuple[int, int]:
    """Sizes before and after of an operand's last axis."""
    value = edit.op.inputs[position]
    assert value is not None and value.shape is not None
    return value.shape[-1], edit.shape(value)[-1]


def _skip_rms(edit: Edit) -> None:
    before, after = _last_axis(edit, 0)
    rescaled_rms(edit, before, after, gamma=2, epsilon=_EPSILON, inverse=2)


def _skip_layer_norm(edit: Edit) -> None:
    """The sum as operators of its own, then the decomposed norm."""
    before, after = _last_axis(edit, 0)
    if before == after:
        return
    op = edit.op
    source, skip, bias = op.inputs[0], op.inputs[1], op.input(4)
    kept = op.outputs[3] if len(op.outputs) > 3 else None
    assert source is not None and skip is not None and source.dtype is not None
    total = kept.name if kept is not None else edit.rename("total")
    part = total if bias is None else edit.rename("part")
    steps = [NewOp("Add", (source.name, skip.name), (part,))]
    if bias is not None:
        steps.append(NewOp("Add", (part, bias.name), (total,)))
    norm = decomposed(
        edit,
        total,
        (source.rank - 1,),
        before,
        after,
        dtype=source.dtype,
        gamma=op.input(2),
        beta=op.input(3),
        epsilon=float(op.attributes.get("epsilon", _EPSILON)),
    )
    edit.replace(*steps, *norm, *statistics(edit))


register(
    names("SkipLayerNormalization"),
    needing(
        (0, 1, 2),
        line(
            "... c, ... c, c, c, c -> ... c, *x, *y, ... c",
            transfer=lambda *given: _skip_norm(*given, scale=2, shifts=True),
            reduced={"c": Reduction.NORM},
            terms=((0, 1, 4),),
            rewrite=_skip_layer_norm,
        ),
    ),
)
register(
    names("SkipSimplifiedLayerNormalization"),
    needing(
        (0, 1, 2),
        line(
            "... c, ... c, c, c -> ... c, *x, *y, ... c",
            transfer=lambda *given: _skip_norm(*given, scale=2, shifts=False),
            reduced={"c": Reduction.RMS},
            terms=((0, 1, 3),),
            rewrite=_skip_rms,
        ),
    ),
)


def _embedded(op: Op, states: Sequence[Slots | None], result: int, axis: int) -> Slots:
    """The sum of the tables; its norm is beta where gamma is zero."""
    tables = [states[position] for position in (2, 3, 4) if op.input(position) is not None]
    total = np.zeros(1)
    for state in tables:
        total = total + (UNKNOWN if state is None else state)
    if result == 2:
        return total
    gamma, beta = (UNKNOWN if state is None else state for state in states[5:7])
    return np.where(gamma == 0, beta, np.nan)


def _embedding_norm(edit: Edit) -> None:
    """Keep the sum of the tables, which the operator gives as its third result, and norm it anew."""
    before, after = _last_axis(edit, 2)
    if before == after:
        return
    op = edit.op
    table, result = op.inputs[2], op.outputs[0]
    assert table is not None and table.dtype is not None and result is not None
    total = op.outputs[2] if len(op.outputs) > 2 else None
    mask = op.outputs[1] if len(op.outputs) > 1 else None
    summed = total.name if total is not None else edit.rename("tables")
    names = tuple(None if value is None else value.name for value in op.inputs)
    results = (edit.rename("fused"), mask.name if mask is not None else edit.rename("mask"), summed)
    norm = decomposed(
        edit,
        summed,
        (result.rank - 1,),
        before,
        after,
        dtype=table.dtype,
        gamma=op.input(5),
        beta=op.input(6),
        epsilon=float(op.attributes.get("epsilon", _EPSILON)),
    )
    edit.replace(NewOp(op.type, names, results, op.attributes, op.domain), *norm)


register(
    names("EmbedLayerNormalization"),
    needing(
        (0, 2, 3, 5, 6),
        line(
            "b s, b s, v c, p c, t c, c, c, b s, b s -> b s c, b, b s c",
            transfer=_embedded,
            reduced={"c": Reduction.NORM},
            frozen={"v": LOOKED_UP, "p": LOOKED_UP, "t": LOOKED_UP, "s": "positions are counted along it"},
            terms=((2, 3, 4),),
            rewrite=_embedding_norm,
        ),
    ),
)

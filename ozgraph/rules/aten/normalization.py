"""Normalisations: batch, instance, layer, root mean square and group."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ozgraph.graph import Op
from ozgraph.rules.lattice import UNKNOWN, ZERO, Slots
from ozgraph.rules.normalization import batch_normalized
from ozgraph.rules.registry import register
from ozgraph.rules.rule import line

_ONE: Slots = np.array([1.0])


def _state(op: Op, states: Sequence[Slots | None], position: int, otherwise: Slots = UNKNOWN) -> Slots:
    """The state of an operand; ``otherwise`` where it is left out."""
    if op.input(position) is None:
        return otherwise
    state = states[position]
    return UNKNOWN if state is None else state


def _batch_norm(op: Op, states: Sequence[Slots | None], result: int, axis: int) -> Slots:
    """As in ONNX; with the statistics of the batch, what is constant becomes beta, and so does gamma zero."""
    x, gamma, beta = _state(op, states, 0), _state(op, states, 1, _ONE), _state(op, states, 2, ZERO)
    if op.attributes["training"]:
        return np.where(~np.isnan(x) | (gamma == 0), beta, np.nan)
    mean, variance = _state(op, states, 3), _state(op, states, 4)
    return batch_normalized(op, (x, gamma, beta, mean, variance), float(op.attributes["eps"]))


register(
    "aten.batch_norm",
    line("n c *s, c, c, c, c -> n c *s", transfer=_batch_norm, statistics=frozenset({3, 4})),
)

"""LSTM, GRU and RNN: hidden units prune through all gates."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ozgraph.graph import Op
from ozgraph.rules.lattice import UNKNOWN, Slots
from ozgraph.rules.notation import Axes, Letter, Product
from ozgraph.rules.registry import register
from ozgraph.rules.rule import Describe, Edit, Reduction, Rule, Spec

_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}

_CELL_ACTIVATIONS: dict[str, tuple[int, tuple[int, ...]]] = {"LSTM": (3, (1, 2)), "GRU": (2, (1,)), "RNN": (1, (0,))}
"""Activations a direction, and which of them make the state (the others are gates): zero must stay zero there."""


def _named(*names: str | tuple[str, ...]) -> Axes:
    return tuple(Product(name) if isinstance(name, tuple) else Letter(name) for name in names)


def _describe(gates: int) -> Describe:
    def describe(op: Op) -> Spec:
        gate = ("gate", "h") if gates > 1 else ("h",)
        rows = Product(gate) if gates > 1 else Letter("h")
        layout = int(op.attributes.get("layout", 0))
        state = _named("b", "d", "h") if layout else _named("d", "b", "h")
        sequence = _named("b", "l", "i") if layout else _named("l", "b", "i")
        output = _named("b", "l", "d", "h") if layout else _named("l", "d", "b", "h")
        operands: list[Axes | None] = [
            sequence,
            (Letter("d"), rows, Letter("i")),
            # The recurrent columns are contracted with the state: the same slots, under a name of their own.
            (Letter("d"), rows, Letter("k")),
            (Letter("d"), Product(("biases", "h"))),
            (Letter("b"),),
            state,
            state,
            (Letter("d"), Product(("peepholes", "h"))),
        ]
        why = "the gates stand in a fixed order"
        frozen = {
            "gate": why,
            "biases": why,
            "peepholes": why,
            "d": "directions stand in a fixed order",
            "l": "time runs along it",
        }
        count = len(op.inputs)
        sizes = {"gate": gates} if gates > 1 else {}
        return Spec(
            tuple(operands[:count]),
            (output, state, state)[: len(op.outputs)],
            sizes,
            reduced={"i": Reduction.SUM, "k": Reduction.SUM},
            frozen=frozen,
            ties=((Letter("k"), Letter("h")),),
            recurrent={"k": tuple(range(min(len(op.outputs), 2)))},
        )

    return describe


def _hidden(op: Op, states: Sequence[Slots | None], result: int, axis: int) -> Slots:
    """A unit whose gate rows, biases and initial states are all zero stays zero at every step.

    LSTM: g = tanh(0) = 0 keeps c at 0, so h = sigmoid(0) * tanh(0) = 0. GRU: h' = 0 and h mixes zeros. RNN: tanh(0)
    or relu(0). Other activations are not followed.
    """
    known = {"tanh", "sigmoid", "relu"}
    if any(name.lower() not in known for name in op.attributes.get("activations", ())):
        return UNKNOWN
    each, cells = _CELL_ACTIVATIONS[op.type]
    if any(name.lower() == "sigmoid" for cell in cells for name in op.attributes.get("activations", ())[cell::each]):
        return UNKNOWN
    zero = np.array([True])
    # Peepholes multiply the cell state, which is zero; the sequence's own states do not carry hidden units.
    for position in (1, 2, 3, 5, 6):
        if position < len(op.inputs) and op.inputs[position] is not None:
            state = states[position]
            zero = zero & (False if state is None else state == 0)
    return np.where(zero, 0.0, np.nan)


def _hidden_size(edit: Edit) -> None:
    if "hidden_size" in edit.op.attributes:
        edit.set_attribute("hidden_size", int(edit.kept("h").sum()))


def _products(gates: int) -> tuple[str, str]:
    """What every step multiplies: the gate rows with the input and with the state."""
    rows = "l b d gate h" if gates > 1 else "l b d h"
    return f"{rows} i", f"{rows} k"


for _name, _count in _GATES.items():
    register(
        _name,
        Rule(
            _describe(_count),
            _hidden,
            rewrite=_hidden_size,
            macs=_products(_count),
            text="l b i, d (gate h) i, d (gate h) h, d (8 h) -> l d b h, d b h",
        ),
    )

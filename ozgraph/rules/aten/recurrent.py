"""Recurrent layers, all layers and directions in one operator, and single cells: units prune through all gates."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ozgraph.errors import RuleError
from ozgraph.graph import Op
from ozgraph.rules.lattice import Slots
from ozgraph.rules.notation import Axes, Axis, Letter, Product
from ozgraph.rules.registry import register
from ozgraph.rules.rule import Describe, Reduction, Rule, Spec, Transfer, need_shape

_GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}
_STATES = {"lstm": 2}


def _layout(op: Op) -> tuple[int, int, int]:
    """Operands before the weights, directions, and weights of one direction of one layer.

    Raises:
        RuleError: sequences are packed, or the state is projected.
    """
    name, _, overload = op.type.partition(".")
    if overload != "input":
        raise RuleError("its sequences are packed")
    first = 1 + _STATES.get(name, 1)
    directions = 2 if op.attributes["bidirectional"] else 1
    each = 4 if op.attributes["has_biases"] else 2
    if len(op.inputs) - first != each * directions * int(op.attributes["num_layers"]):
        raise RuleError("its state is projected")
    return first, directions, each


def _describe(gates: int) -> Describe:
    def describe(op: Op) -> Spec:
        first, directions, each = _layout(op)
        if len(need_shape(op.inputs[0], op)) != 3:
            raise RuleError("its sequence has no batch")
        rows: Axis = Product(("gate", "h")) if gates > 1 else Letter("h")
        state: Axes = (Letter("y"), Letter("b"), Letter("h"))
        wide: Axis = Product(("d", "h")) if directions > 1 else Letter("h")
        time: Axes = (Letter("b"), Letter("l")) if op.attributes["batch_first"] else (Letter("l"), Letter("b"))
        operands: list[Axes | None] = [(*time, Letter("i")), *(state for _ in range(first - 1))]
        for number in range((len(op.inputs) - first) // each):
            # Recurrent columns, and those that read the layer below, are contracted with the state: the same slots
            # under names of their own.
            below: Axis = Product(("d", "kk")) if directions > 1 else Letter("kk")
            operands.append((rows, Letter("i") if number < directions else below))
            operands.append((rows, Letter("k")))
            operands.extend((rows,) for _ in range(each - 2))
        layers = int(op.attributes["num_layers"])
        sizes = {"d": directions, **({"gate": gates} if gates > 1 else {})}
        reduced = {"i": Reduction.SUM, "k": Reduction.SUM}
        ties: list[tuple[Axis, Axis]] = [(Letter("k"), Letter("h"))]
        recurrent: dict[str, tuple[int, ...]] = {"k": tuple(range(len(op.outputs)))[:2]}
        if layers > 1:
            sizes["deep"] = layers - 1
            reduced["kk"] = Reduction.SUM
            ties.append((Letter("kk"), Letter("h")))
            recurrent["kk"] = recurrent["k"]
        return Spec(
            tuple(operands),
            ((*time, wide), *(state for _ in op.outputs[1:])),
            sizes,
            reduced=reduced,
            frozen={
                "gate": "the gates stand in a fixed order",
                "d": "directions stand in a fixed order",
                "y": "layers and directions stand in a fixed order",
                "l": "time runs along it",
            },
            ties=tuple(ties),
            recurrent=recurrent,
        )

    return describe


def _hidden(op: Op, states: Sequence[Slots | None], result: int, axis: int) -> Slots:
    """A unit whose gate rows, biases and initial states are zero in all layers and directions stays zero.

    LSTM: g = tanh(0) = 0 keeps c at 0, so h = sigmoid(0) * tanh(0) = 0. GRU: h' = 0 and h mixes zeros. RNN: tanh(0)
    or relu(0).
    """
    return _zero_from(1, op, states)


def _zero_from(first: int, op: Op, states: Sequence[Slots | None]) -> Slots:
    zero = np.array([True])
    for value, state in zip(op.inputs[first:], states[first:], strict=True):
        if value is not None:
            zero = zero & (False if state is None else state == 0)
    return np.where(zero, 0.0, np.nan)


def _products(gates: int) -> tuple[str, ...]:
    """What every step multiplies: gate rows with the input, with the layer below and with the state."""
    rows = "l b gate h" if gates > 1 else "l b h"
    return f"{rows} d i", f"{rows} deep d d kk", f"{rows} y k"


for _name, _count in _GATES.items():
    register(
        f"aten.{_name}",
        Rule(
            _describe(_count),
            _hidden,
            macs=_products(_count),
            text="b l i, y b h, (gate h) i, (gate h) h, (gate h), (gate h) -> b l (d h), y b h",
        ),
    )


_CELLS = {"lstm_cell": 4, "gru_cell": 3, "rnn_tanh_cell": 1, "rnn_relu_cell": 1}


def _describe_cell(gates: int, states: int) -> Describe:
    """One step. The state before it is contracted under a letter of its own: whoever loops ties it to the result.

    Not so in a GRU, h' = (1 - z) * n + z * h, which also carries the state slot by slot: there the columns are tied to
    the slots, and what they read is zero wherever the result is.
    """
    carried = gates == 3

    def describe(op: Op) -> Spec:
        rows: Axis = Product(("gate", "h")) if gates > 1 else Letter("h")
        batch = (Letter("b"),) if len(need_shape(op.inputs[0], op)) == 2 else ()
        biases = [(rows,) for _ in op.inputs[3 + states :]]
        return Spec(
            (
                (*batch, Letter("i")),
                (*batch, Letter("h" if carried else "k")),
                *((*batch, Letter("h")) for _ in range(states - 1)),
                (rows, Letter("i")),
                (rows, Letter("k")),
                *biases,
            ),
            tuple((*batch, Letter("h")) for _ in op.outputs),
            {"gate": gates} if gates > 1 else {},
            reduced={"i": Reduction.SUM, "k": Reduction.SUM},
            frozen={"gate": "the gates stand in a fixed order"},
            ties=((Letter("k"), Letter("h")),) if carried else (),
            recurrent={"k": (0,)} if carried else {},
        )

    return describe


def _hidden_after(first: int) -> Transfer:
    """A unit is zero after the step if its gate rows, its biases and what is carried of its state are; see above."""

    def transfer(op: Op, states: Sequence[Slots | None], result: int, axis: int) -> Slots:
        return _zero_from(first, op, states)

    return transfer


for _name, _count in _CELLS.items():
    _rows = "b gate h" if _count > 1 else "b h"
    register(
        f"aten.{_name}",
        Rule(
            _describe_cell(_count, _STATES.get(_name.removesuffix("_cell"), 1)),
            # Of a GRU the state itself is carried, of an LSTM only the cell, which is the operand after it.
            _hidden_after({"lstm_cell": 2, "gru_cell": 1}.get(_name, 2)),
            macs=(f"{_rows} i", f"{_rows} k"),
            text="b i, b k, (gate h) i, (gate h) k, (gate h) -> b h",
        ),
    )

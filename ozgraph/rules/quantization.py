"""Quantised tensors: integers that stand for numbers, and products of them.

Zero is the zero point. States of integer tensors are those of the stored integers; a contraction over a quantised
operand sees nothing where the stored integer equals the zero point (``Rule.zero_points``).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ozgraph.errors import RuleError
from ozgraph.graph import Op, Value
from ozgraph.rules.lattice import UNKNOWN, ZERO, Slots
from ozgraph.rules.linear import groups
from ozgraph.rules.notation import ONE_AXIS, Axes, Letter, Product, parse
from ozgraph.rules.registry import register
from ozgraph.rules.rule import Describe, Reduction, Rule, Spec, Transfer, attribute, from_pattern, letters, need_shape

_BLOCK = "a block of it shares a scale"


def _along(value: Value | None, op: Op, slots: Axes) -> Axes | None:
    """The axes of a scale or a zero point: none, one of size one, or the slots that have one each."""
    if value is None:
        return None
    shape = need_shape(value, op)
    return (ONE_AXIS,) * len(shape) if all(size == 1 for size in shape) else slots


def _quantized(op: Op) -> Spec:
    """One scale for all, for every slot of an axis, or for every block along an axis."""
    shape, scale = need_shape(op.inputs[0], op), need_shape(op.inputs[1], op)
    names = letters("a", len(shape))
    axis = int(op.attributes.get("axis", 1)) % len(shape) if shape else 0
    block = int(op.attributes.get("block_size", 0))
    if not block:
        if len(scale) > 1 and any(size > 1 for size in scale):
            raise RuleError("its scales have more than one axis")
        return Spec((names, *(_along(value, op, (names[axis],)) for value in op.inputs[1:])), (names,))
    if shape[axis] != block * scale[axis]:
        raise RuleError("its last block is cut short")
    blocks, inside = Letter("block"), Letter("inside")
    whole: Axes = (*names[:axis], Product((blocks.name, inside.name)), *names[axis + 1 :])
    parts: Axes = (*names[:axis], blocks, *names[axis + 1 :])
    operands = (whole, *(None if value is None else parts for value in op.inputs[1:]))
    return Spec(operands, (whole,), {inside.name: block}, frozen={inside.name: _BLOCK})


def _number(op: Op, states: Sequence[Slots | None], position: int) -> Slots:
    """The state of a scale or a zero point, where it is the same for all elements of a slot."""
    value = op.input(position)
    if value is None:
        return ZERO
    state = states[position]
    if state is not None:
        return state
    if value.constant is None:
        return UNKNOWN
    elements = np.asarray(value.constant.numpy()).astype(np.float64).ravel()
    return elements[:1] if elements.size and (elements == elements[0]).all() else UNKNOWN


def _dequantized(op: Op, states: Sequence[Slots | None], result: int, axis: int) -> Slots:
    stored = UNKNOWN if states[0] is None else states[0]
    centred = stored - _number(op, states, 2)
    return np.where(centred == 0, 0.0, centred * _number(op, states, 1))


def _stored_zero(op: Op, states: Sequence[Slots | None], result: int, axis: int) -> Slots:
    """Zero is stored as the zero point."""
    state = UNKNOWN if states[0] is None else states[0]
    return np.where(state == 0, _number(op, states, 2), np.nan)


_SCALES = frozenset({1, 2})

register("DequantizeLinear", Rule(_quantized, _dequantized, statistics=_SCALES, text="n c *s, c, c -> n c *s"))
register("QuantizeLinear", Rule(_quantized, _stored_zero, statistics=_SCALES, text="n c *s, c, c -> n c *s"))


def _dynamic(op: Op) -> Spec:
    """The scale comes from the extremes of all elements and zero, so that zeros do not change it."""
    names = letters("a", len(need_shape(op.inputs[0], op)))
    over = {name.name: Reduction.SUM for name in names}
    return Spec((names,), (names, (), ())[: len(op.outputs)], reduced=over)


def _dynamic_zero(op: Op, states: Sequence[Slots | None], result: int, axis: int) -> Slots:
    """The zero point is computed at run time; contractions look through this operator."""
    return UNKNOWN


register("DynamicQuantizeLinear", Rule(_dynamic, _dynamic_zero, text="*x -> *x, ,"))


def _product(text: str, scales: dict[int, Axes], grouped: bool = False) -> Describe:
    """A product of integers: ``text`` speaks of data, weight and bias, ``scales`` of the operands beside them."""
    pattern = parse(text)

    def describe(op: Op) -> Spec:
        known = {"g": attribute("group", 1)(op)} if grouped else {}
        spec = from_pattern(pattern, op, sizes=known)
        operands = list(spec.operands)
        for position, value in enumerate(op.inputs):
            if position in scales:
                operands[position] = _along(value, op, scales[position])
        return Spec(tuple(operands), spec.results, known)

    return describe


def _produced(weight: int, point: int, result_point: int | None = None, bias: int | None = None) -> Transfer:
    """Weights at their zero point, and a bias at zero, leave the result at its own zero point."""

    def transfer(op: Op, states: Sequence[Slots | None], result: int, axis: int) -> Slots:
        stored = states[weight]
        nothing = (UNKNOWN if stored is None else stored) == _number(op, states, point)
        if bias is not None and op.input(bias) is not None:
            added = states[bias]
            nothing = nothing & (False if added is None else added == 0)
        zero = ZERO if result_point is None else _number(op, states, result_point)
        return np.where(nothing, zero, np.nan)

    return transfer


_ROWS: Axes = (Product(("g", "o")),)

register(
    "QLinearConv",
    Rule(
        _product(
            "n (g i) *s, *a, *b, (g o) i *k, *c, *d, *e, *f, (g o) -> n (g o) *t",
            {1: (), 2: (), 4: _ROWS, 5: _ROWS, 6: (), 7: ()},
            grouped=True,
        ),
        _produced(3, 5, result_point=7, bias=8),
        rewrite=groups,
        macs="n g i o *k *t",
        blocks=frozenset({"g"}),
        statistics=frozenset({1, 2, 4, 5, 6, 7}),
        zero_points={0: 2, 3: 5},
        text="n (g i) *s, (g o) i *k, (g o) -> n (g o) *t",
    ),
)
register(
    "ConvInteger",
    Rule(
        _product("n (g i) *s, (g o) i *k, *a, *b -> n (g o) *t", {2: (), 3: _ROWS}, grouped=True),
        _produced(1, 3),
        rewrite=groups,
        macs="n g i o *k *t",
        blocks=frozenset({"g"}),
        statistics=frozenset({2, 3}),
        zero_points={0: 2, 1: 3},
        text="n (g i) *s, (g o) i *k -> n (g o) *t",
    ),
)

_ROW, _COLUMN = (Letter("m"),), (Letter("n"),)

register(
    "QLinearMatMul",
    Rule(
        _product(
            "... m k, *a, *b, ... k n, *c, *d, *e, *f -> ... m n",
            {1: _ROW, 2: _ROW, 4: _COLUMN, 5: _COLUMN, 6: _ROW, 7: _ROW},
        ),
        _produced(3, 5, result_point=7),
        macs="*",
        statistics=frozenset({1, 2, 4, 5, 6, 7}),
        zero_points={0: 2, 3: 5},
        text="... m k, ... k n -> ... m n",
    ),
)
register(
    "MatMulInteger",
    Rule(
        _product("... m k, ... k n, *a, *b -> ... m n", {2: _ROW, 3: _COLUMN}),
        _produced(1, 3),
        macs="*",
        statistics=frozenset({2, 3}),
        zero_points={0: 2, 1: 3},
        text="... m k, ... k n -> ... m n",
    ),
)

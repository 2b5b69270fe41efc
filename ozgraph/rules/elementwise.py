"""Operators that work element by element, with numpy broadcasting: evaluated on constants, never listed by value."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ozgraph.errors import RuleError
from ozgraph.graph import Op
from ozgraph.rules.evaluate import evaluate
from ozgraph.rules.lattice import UNKNOWN, ByStates, Slots, converted, finite, uniform
from ozgraph.rules.notation import parse
from ozgraph.rules.registry import register
from ozgraph.rules.rule import ByRanks, Reduction, Rule, Spec, from_pattern, known_integers, letters, need_shape


def pointwise(absorbing: Sequence[int] = ()) -> ByStates:
    """Elementwise operators, evaluated on the constants in the tensor's own dtype.

    Args:
        absorbing: operands whose zero makes the result zero whatever the (finite) others are.
    """

    @ByStates
    def transfer(op: Op, states: Sequence[Slots | None], result: int, axis: int) -> Slots:
        operands = [UNKNOWN if state is None else state for state in states]
        unknown = np.zeros(1, dtype=bool)
        for value, state in zip(op.inputs, operands, strict=True):
            if value is not None:
                unknown = unknown | np.isnan(state)
        computed = None if unknown.all() else evaluate(op, operands, result)
        outcome: Slots = np.full(unknown.shape, np.nan)
        if computed is not None:
            # A known operand may still give something that is not finite (0 / 0): infinity says so to the prover.
            outcome = finite(computed)
            outcome = np.where(unknown, np.nan, np.where(np.isnan(outcome), np.inf, outcome))
        if unknown.any():
            exploding = _not_finite_beside(op, operands, unknown, result)
            outcome = np.where(exploding, np.inf, outcome)
        for position in absorbing:
            outcome = np.where(unknown & (operands[position] == 0), 0.0, outcome)
        return outcome

    return transfer


_PROBES = (-1.5, 1.5)


def _not_finite_beside(
    op: Op, operands: Sequence[Slots], unknown: npt.NDArray[np.bool_], result: int
) -> npt.NDArray[np.bool_]:
    """Where a zero gives something that is not finite whatever stands beside it, or for some of it (x / 0, 0 ** x)."""
    zero = np.zeros(1, dtype=bool)
    for value, state in zip(op.inputs, operands, strict=True):
        if value is not None:
            zero = zero | (state == 0)
    asked = unknown & zero
    exploding = np.zeros(asked.shape, dtype=bool)
    for probe in _PROBES if asked.any() else ():
        computed = evaluate(op, [np.where(np.isnan(state), probe, state) for state in operands], result)
        if computed is not None:
            exploding = exploding | (asked & ~np.isfinite(computed))
    return exploding


_PATTERNS = {
    count: parse(", ".join(["..."] * count) + " -> ...") if count else parse("... -> ...") for count in range(1, 33)
}


@ByRanks
def elementwise_spec(op: Op) -> Spec:
    """All operands broadcast to the result."""
    return from_pattern(_PATTERNS[len(op.inputs)], op)


def _elementwise(names: str, absorbing: tuple[int, ...] = ()) -> None:
    register(names, Rule(elementwise_spec, pointwise(absorbing), text="..., ... -> ..."))


_elementwise(
    "Abs Acos Acosh Asin Asinh Atan Atanh Cast Ceil Celu Cos Cosh Elu Erf Exp Floor Gelu HardSigmoid HardSwish "
    "Identity IsInf IsNaN LeakyRelu Log Mish Neg Not Reciprocal Relu Round Selu Shrink Sigmoid Sign Sin Sinh Softplus "
    "Softsign Sqrt Swish Tan Tanh ThresholdedRelu BitCast BitwiseNot Clip"
)
_elementwise(
    "Add Sub Max Min Mean Sum Mod Pow Equal Greater GreaterOrEqual Less LessOrEqual Or Xor BitShift "
    "BitwiseAnd BitwiseOr BitwiseXor Where"
)
_elementwise("Mul And SwiGLU", absorbing=(0, 1))
# The divisor is taken to be non-zero, as it must be for the original to be finite.
_elementwise("Div PRelu", absorbing=(0,))


def _dropout(op: Op) -> Spec:
    training = known_integers(op.input(2))
    if op.input(2) is not None and (training is None or bool(training.any())):
        raise RuleError("dropout in training mode draws random numbers")
    spec = from_pattern(_DROPOUT, op)
    return Spec((spec.operands[0], *(None for _ in op.inputs[1:])), spec.results)


def _kept(op: Op, states: Sequence[Slots | None], result: int, axis: int) -> Slots:
    """What comes in; the mask, the second result, is true whatever that is."""
    return UNKNOWN if result else uniform(op, states, result, axis)


_DROPOUT = parse("... -> ..., ...")
register("Dropout", Rule(_dropout, _kept, text="... -> ..., ..."))


def _cast_like(op: Op) -> Spec:
    """Only the type of the second operand is read."""
    names = letters("a", len(need_shape(op.inputs[0], op)))
    other = letters("b", len(need_shape(op.inputs[1], op)))
    return Spec((names, other), (names,), reduced={name.name: Reduction.UNREAD for name in other})


register("CastLike", Rule(_cast_like, converted, text="..., * -> ..."))

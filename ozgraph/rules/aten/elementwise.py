"""Operators that work element by element: evaluated on constants by torch itself, never listed by value."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ozgraph.graph import Op
from ozgraph.rules.aten.arguments import rank_of
from ozgraph.rules.elementwise import elementwise_spec, pointwise
from ozgraph.rules.lattice import UNKNOWN, Slots, cast, vanishing
from ozgraph.rules.notation import Letter
from ozgraph.rules.registry import register
from ozgraph.rules.rule import Rule, Spec, letters, need_shape


def _elementwise(names: str, absorbing: tuple[int, ...] = ()) -> None:
    qualified = " ".join(f"aten.{name}" for name in names.split())
    register(qualified, Rule(elementwise_spec, pointwise(absorbing), text="..., ... -> ..."))


_elementwise(
    "abs absolute acos acosh asin asinh atan atanh arccos arccosh arcsin arcsinh arctan arctanh bitwise_not ceil celu "
    "clamp clip clamp_min clamp_max cos cosh deg2rad digamma elu erf erfc erfinv exp exp2 expm1 fix floor frac gelu "
    "hardshrink hardsigmoid hardswish hardtanh isfinite isinf isnan isneginf isposinf leaky_relu lgamma log log10 "
    "log1p log2 log_sigmoid logical_not logit mish nan_to_num neg negative positive rad2deg reciprocal relu relu6 "
    "round rsqrt rrelu selu sgn sigmoid sign signbit silu sin sinc sinh softplus softshrink special_expit "
    "sqrt square tan tanh threshold trunc"
)
_elementwise(
    "add sub subtract rsub maximum minimum fmax fmin pow float_power remainder fmod floor_divide atan2 hypot copysign "
    "eq ne lt le gt ge equal not_equal greater greater_equal less less_equal logical_or logical_xor "
    "bitwise_and bitwise_or bitwise_xor bitwise_left_shift bitwise_right_shift __and__ __or__ __xor__ __lshift__ "
    "__rshift__ where masked_fill addcmul addcdiv lerp heaviside xlogy logaddexp logaddexp2"
)
_elementwise("mul multiply logical_and", absorbing=(0, 1))
# The divisor is taken to be non-zero, as it must be for the original to be finite.
_elementwise("div divide true_divide", absorbing=(0,))


def _copy(op: Op, states: Sequence[Slots | None], result: int, axis: int) -> Slots:
    """What is copied in; of the target only the shape is read."""
    return cast(states[1], op.outputs[result])


register("aten.copy", Rule(elementwise_spec, _copy, text="..., ... -> ..."))


def _prelu(op: Op) -> Spec:
    """One slope, or one a channel."""
    names = letters("a", rank_of(op))
    slopes = need_shape(op.inputs[1], op)
    channels = names[1] if len(names) > 1 else names[0]
    return Spec((names, tuple(channels for _ in slopes)), (names,))


def _prelu_value(op: Op, states: Sequence[Slots | None], result: int, axis: int) -> Slots:
    """Slot by slot; torch itself would take the axis of the slots for that of a batch."""
    data, slope = states[0], states[1]
    if data is None:
        return UNKNOWN
    steep = UNKNOWN if slope is None else slope
    return cast(np.where(data == 0, 0.0, np.where(data > 0, data, data * steep)), op.outputs[result])


register("aten.prelu", Rule(_prelu, _prelu_value, text="n c *s, c -> n c *s"))


def _complex(op: Op) -> Spec:
    """Pairs of real numbers as complex ones, or back: the axis of the two belongs to neither."""
    rank = min(rank_of(op), len(need_shape(op.outputs[0], op)))
    names, pair = letters("a", rank), Letter("pair")
    sides = ((*names, pair), names) if op.type == "view_as_complex" else (names, (*names, pair))
    return Spec((sides[0],), (sides[1],), frozen={"pair": "a complex number has two parts"})


register("aten.view_as_complex aten.view_as_real", Rule(_complex, vanishing, text="... 2 -> ..."))
_elementwise("polar complex conj conj_physical angle")

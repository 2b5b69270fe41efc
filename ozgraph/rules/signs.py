"""Which tensors hold no negative number, and which no positive one, proved by what computes them.

Asked only where a maximum or minimum runs over slots, and answered from the nearest operator that settles it. Setting
weights to zero breaks no proof.
"""

from __future__ import annotations

from typing import NamedTuple
from weakref import WeakKeyDictionary

import numpy as np

from ozgraph.graph import Op, Value


class Signs(NamedTuple):
    """What is proved of all elements of a tensor."""

    no_negative: bool = False
    no_positive: bool = False


UNPROVED = Signs()

# Whatever comes in. Numbers that are not finite do not count: nothing is promised of those.
_NEVER_NEGATIVE = {"Relu", "Sigmoid", "HardSigmoid", "Softmax", "Hardmax", "Softplus", "Abs", "Exp", "Sqrt"}
_NEVER_NEGATIVE |= {"ReduceL1", "ReduceL2", "ReduceSumSquare", "LpPool", "GlobalLpPool"}
_NEVER_POSITIVE = {"LogSoftmax"}

# The signs of the first operand: movement, averages, extremes, sums of alike, functions with the sign of their number.
_KEEPS = {"Identity", "Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Expand", "Tile", "Slice", "Split"}
_KEEPS |= {"Gather", "GatherElements", "GatherND", "DepthToSpace", "SpaceToDepth", "Dropout"}
_KEEPS |= {"MaxPool", "AveragePool", "GlobalMaxPool", "GlobalAveragePool"}
_KEEPS |= {"ReduceMax", "ReduceMin", "ReduceMean", "ReduceSum", "CumSum"}
_KEEPS |= {"Ceil", "Floor", "Round", "Sign", "Reciprocal", "Erf", "Tanh", "Atan", "Asinh", "Sinh", "Softsign"}
_KEEPS |= {"Gelu", "HardSwish", "Mish"}
_JOINS = {"Add", "Sum", "Mean", "Concat"}

_ATEN = {
    name: operator
    for operator, names in {
        "Relu": "relu relu6 square norm linalg_vector_norm rsqrt exp2 frobenius_norm",
        "Sigmoid": "sigmoid hardsigmoid special_expit",
        "Softmax": "softmax",
        "Abs": "abs absolute exp sqrt softplus",
        "LogSoftmax": "log_softmax log_sigmoid",
        "Identity": "alias clone contiguous to detach dropout feature_dropout transpose permute t view reshape "
        "flatten unflatten squeeze unsqueeze expand repeat tile slice select narrow index_select flip roll "
        "pixel_shuffle pixel_unshuffle channel_shuffle movedim swapaxes",
        "Split": "split split_with_sizes chunk unbind tensor_split",
        "MaxPool": "max_pool1d max_pool2d max_pool3d adaptive_max_pool2d avg_pool1d avg_pool2d avg_pool3d "
        "adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d",
        "ReduceMax": "amax amin mean sum cumsum",
        "Tanh": "tanh erf atan asinh sinh ceil floor round sign reciprocal hardswish gelu silu mish",
        "Add": "add cat concat stack",
        "Sub": "sub",
        "Mul": "mul multiply",
        "Div": "div divide true_divide",
        "MatMul": "matmul mm bmm",
        "Max": "maximum",
        "Min": "minimum",
        "Neg": "neg negative",
        "Clip": "clamp clip clamp_min",
        "Pow": "pow",
        "Where": "where",
    }.items()
    for name in names.split()
}
"""ATen's names, by an operator of ONNX whose result has the same signs."""


def _type(op: Op) -> str:
    """The operator of ONNX whose signs an operator's result has; empty where there is none."""
    if op.domain in ("", "ai.onnx"):
        return op.type
    if op.domain != "aten":
        return ""
    name, _, overload = op.type.partition(".")
    found = _ATEN.get(name.removesuffix("_"), "")
    if found in ("Add", "Sub") and op.attributes.get("alpha") not in (None, 1):
        return ""
    # With a number in the first place, operands are not where they are otherwise.
    return "" if found in ("Pow", "Where") and overload.startswith("Scalar") else found


def signs(value: Value | None) -> Signs:
    """What is proved of a tensor; constants are read where the question reaches them."""
    if value is None or value.dtype is None:
        return UNPROVED
    if value.dtype.kind in "ub":
        return Signs(no_negative=True)
    if value.constant is not None:
        return _of_constant(value)
    if value.producer is None:
        return UNPROVED
    stack = [value.producer]
    while stack:
        op = stack[-1]
        missing = [
            operand.producer
            for operand in _asked(op)
            if operand.constant is None and operand.producer is not None and operand.producer not in _KNOWN
        ]
        if op in _KNOWN or not missing:
            stack.pop()
            if op not in _KNOWN:
                _KNOWN[op] = _of_result(op)
        else:
            stack.extend(missing)
    # Of several results (the indices of a pool, the mask of a dropout) only splits have the signs of all.
    op = value.producer
    return _KNOWN[op] if value is op.outputs[0] or _type(op) == "Split" else UNPROVED


_KNOWN: WeakKeyDictionary[Op, Signs] = WeakKeyDictionary()


def _asked(op: Op) -> list[Value]:
    """The operands whose signs settle those of the result."""
    kind = _type(op)
    if not kind or kind in _NEVER_NEGATIVE or kind in _NEVER_POSITIVE:
        return []
    if kind in _KEEPS or kind in ("Neg", "Cast", "Clip", "Pow"):
        return [value for value in op.inputs[:1] if value is not None]
    if kind in _JOINS or kind in ("Max", "Min", "Sub", "Mul", "Div", "MatMul"):
        return [value for value in op.inputs if value is not None]
    return [value for value in op.inputs[1:] if value is not None] if kind == "Where" else []


def _of_constant(value: Value) -> Signs:
    assert value.constant is not None and value.dtype is not None
    if (not value.is_float and value.dtype.kind != "i") or not value.readable:
        return UNPROVED
    # What trains may change its signs, and groups are found before it does.
    if type(getattr(value.constant, "tensor", None)).__name__ == "Parameter":
        return UNPROVED
    array = value.constant.numpy()
    return Signs(bool((array >= 0).all()), bool((array <= 0).all())) if array.size else UNPROVED


def _known(value: Value | None) -> Signs:
    """The signs of an operand whose producer is settled."""
    if value is None or value.constant is not None or value.producer is None or value.producer in _KNOWN:
        return signs(value)
    return UNPROVED


def _of_result(op: Op) -> Signs:
    """The signs of an operator's first result, those of its operands being known."""
    kind = _type(op)
    if not kind:
        return UNPROVED
    if kind in _NEVER_NEGATIVE or kind in _NEVER_POSITIVE:
        return Signs(kind in _NEVER_NEGATIVE, kind in _NEVER_POSITIVE)
    found = [_known(value) for value in _asked(op)]
    other = op.attributes.get("other") if op.domain == "aten" else None
    if other is not None:  # a number in place of a tensor
        found.append(Signs(other >= 0, other <= 0) if isinstance(other, (int, float)) else UNPROVED)
    if not found:
        return UNPROVED
    first, last = found[0], found[-1]
    every = Signs(all(one.no_negative for one in found), all(one.no_positive for one in found))
    result = op.outputs[0]
    if kind in _KEEPS or kind in _JOINS or kind == "Where":
        return every
    if kind == "Cast":
        return first if result is not None and result.is_float else UNPROVED
    if kind == "Neg":
        return Signs(first.no_positive, first.no_negative)
    if kind == "Sub":
        return Signs(first.no_negative and last.no_positive, first.no_positive and last.no_negative)
    if kind == "Max":
        return Signs(any(one.no_negative for one in found), every.no_positive)
    if kind == "Min":
        return Signs(every.no_negative, any(one.no_positive for one in found))
    if kind == "Clip":
        low, high = _bound(op, 1, "min", -np.inf), _bound(op, 2, "max", np.inf)
        return Signs(high >= 0 and (low >= 0 or first.no_negative), low <= 0 and (high <= 0 or first.no_positive))
    if kind == "Pow":
        power = _bound(op, 1, "exponent", np.nan)
        return Signs(no_negative=power % 2 == 0 or first.no_negative)
    return _of_product(op, kind, found)


def _of_product(op: Op, kind: str, found: list[Signs]) -> Signs:
    """Mul, Div and MatMul: like signs give no negative number, unlike ones no positive."""
    first, last = found[0], found[-1]
    square = kind in ("Mul", "Div") and len(op.inputs) > 1 and op.inputs[0] is op.inputs[1]
    like = (first.no_negative and last.no_negative) or (first.no_positive and last.no_positive)
    unlike = (first.no_negative and last.no_positive) or (first.no_positive and last.no_negative)
    return Signs(square or like, unlike)


def _bound(op: Op, position: int, attribute: str, default: float) -> float:
    """A number that an operand or, in old opsets, an attribute holds; NaN where it is computed."""
    operand = op.input(position)
    if operand is None:
        given = op.attributes.get(attribute)
        return float(given) if isinstance(given, (int, float)) else default
    if operand.constant is None or operand.size != 1:
        return float("nan")
    return float(np.asarray(operand.constant.numpy()).reshape(()))

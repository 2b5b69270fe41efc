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
    return _KNOWN[op] if value is op.outputs[0] or op.type == "Split" else UNPROVED


_KNOWN: WeakKeyDictionary[Op, Signs] = WeakKeyDictionary()


def _asked(op: Op) -> list[Value]:
    """The operands whose signs settle those of the result."""
    if op.domain not in ("", "ai.onnx") or op.type in _NEVER_NEGATIVE or op.type in _NEVER_POSITIVE:
        return []
    if op.type in _KEEPS or op.type in ("Neg", "Cast", "Clip", "Pow"):
        return [value for value in op.inputs[:1] if value is not None]
    if op.type in _JOINS or op.type in ("Max", "Min", "Sub", "Mul", "Div", "MatMul"):
        return [value for value in op.inputs if value is not None]
    return [value for value in op.inputs[1:] if value is not None] if op.type == "Where" else []


def _of_constant(value: Value) -> Signs:
    assert value.constant is not None and value.dtype is not None
    if not value.is_float and value.dtype.kind != "i":
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
    if op.domain not in ("", "ai.onnx"):
        return UNPROVED
    if op.type in _NEVER_NEGATIVE or op.type in _NEVER_POSITIVE:
        return Signs(op.type in _NEVER_NEGATIVE, op.type in _NEVER_POSITIVE)
    found = [_known(value) for value in _asked(op)]
    if not found:
        return UNPROVED
    first, last = found[0], found[-1]
    every = Signs(all(one.no_negative for one in found), all(one.no_positive for one in found))
    result = op.outputs[0]
    if op.type in _KEEPS or op.type in _JOINS or op.type == "Where":
        return every
    if op.type == "Cast":
        return first if result is not None and result.is_float else UNPROVED
    if op.type == "Neg":
        return Signs(first.no_positive, first.no_negative)
    if op.type == "Sub":
        return Signs(first.no_negative and last.no_positive, first.no_positive and last.no_negative)
    if op.type == "Max":
        return Signs(any(one.no_negative for one in found), every.no_positive)
    if op.type == "Min":
        return Signs(every.no_negative, any(one.no_positive for one in found))
    if op.type == "Clip":
        low, high = _bound(op, 1, "min", -np.inf), _bound(op, 2, "max", np.inf)
        return Signs(high >= 0 and (low >= 0 or first.no_negative), low <= 0 and (high <= 0 or first.no_positive))
    if op.type == "Pow":
        power = _bound(op, 1, "", np.nan)
        return Signs(no_negative=power % 2 == 0 or first.no_negative)
    return _of_product(op, found)


def _of_product(op: Op, found: list[Signs]) -> Signs:
    """Mul, Div and MatMul: like signs give no negative number, unlike ones no positive."""
    first, last = found[0], found[-1]
    square = op.type in ("Mul", "Div") and op.inputs[0] is op.inputs[1]
    like = (first.no_negative and last.no_negative) or (first.no_positive and last.no_positive)
    unlike = (first.no_negative and last.no_positive) or (first.no_positive and last.no_negative)
    return Signs(square or like, unlike)


def _bound(op: Op, position: int, attribute: str, default: float) -> float:
    """A number that an operand or, in old opsets, an attribute holds; NaN where it is computed."""
    operand = op.input(position)
    if operand is None:
        return float(op.attributes.get(attribute, default))
    if operand.constant is None or operand.size != 1:
        return float("nan")
    return float(np.asarray(operand.constant.numpy()).reshape(()))

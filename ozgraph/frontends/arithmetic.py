"""Shape arithmetic: small integer tensors that a model computes from sizes, and which of their elements vary.

Operators are evaluated by onnx's reference implementation, never restated here. Variability follows the data: movement
operators move it, pointwise operators join it, anything else spreads it to every element.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from ozgraph.graph import Array, Integers

MOST_ELEMENTS = 4096

POINTWISE = frozenset(
    [
        "Abs",
        "Add",
        "And",
        "Cast",
        "Ceil",
        "Clip",
        "Div",
        "Equal",
        "Exp",
        "Floor",
        "Greater",
        "GreaterOrEqual",
        "Identity",
        "Less",
        "LessOrEqual",
        "Log",
        "Max",
        "Min",
        "Mod",
        "Mul",
        "Neg",
        "Not",
        "Or",
        "Pow",
        "Reciprocal",
        "Round",
        "Sign",
        "Sqrt",
        "Sub",
        "Sum",
        "Xor",
    ]
)
MOVEMENT = frozenset(
    [
        "Concat",
        "Expand",
        "Flatten",
        "Gather",
        "GatherElements",
        "GatherND",
        "Reshape",
        "Slice",
        "Split",
        "Squeeze",
        "Tile",
        "Transpose",
        "Unsqueeze",
    ]
)
MIXING = frozenset(
    [
        "ArgMax",
        "ArgMin",
        "ConstantOfShape",
        "CumSum",
        "NonZero",
        "OneHot",
        "Range",
        "ReduceMax",
        "ReduceMean",
        "ReduceMin",
        "ReduceProd",
        "ReduceSum",
        "ScatterND",
        "ScatterElements",
        "TopK",
        "Where",
    ]
)
EVALUATED = POINTWISE | MOVEMENT | MIXING


@lru_cache(maxsize=512)
def _implementation(operator: str, version: int) -> Any:
    from onnx.reference.ops import _op_list

    try:
        return _op_list.load_op("", operator, version)
    except Exception:  # the reference evaluator does not implement every operator of every version
        return None


def _output_elements(node: ir.Node, operands: Sequence[Array | None]) -> float:
    """An upper bound of the result's size, so that nothing large is ever computed."""
    sizes = [0 if operand is None else operand.size for operand in operands]
    if node.op_type == "ConstantOfShape":
        return math.prod(int(extent) for extent in operands[0].flat) if operands[0] is not None else math.inf
    if node.op_type in ("Expand", "Tile"):
        assert operands[1] is not None
        return sizes[0] * math.prod(max(int(extent), 1) for extent in operands[1].flat)
    if node.op_type == "Range":
        start, limit, delta = (float(operand) if operand is not None else 0.0 for operand in operands[:3])
        return abs((limit - start) / delta) if delta else math.inf
    if node.op_type == "OneHot":
        assert operands[1] is not None
        return sizes[0] * float(operands[1].reshape(-1)[0])
    if node.op_type in ("Gather", "GatherND"):
        return sizes[0] * max(sizes[1], 1)
    if node.op_type in POINTWISE or node.op_type == "Where":
        shapes = [operand.shape for operand in operands if operand is not None]
        try:
            return math.prod(np.broadcast_shapes(*shapes))
        except ValueError:
            return math.inf
    return sum(sizes)


def evaluate(node: ir.Node, version: int, operands: Sequence[Array | None]) -> list[Array] | None:
    """The results of ``node`` on ``operands``; None where they are too large or the operator cannot be run."""
    if _output_elements(node, operands) > MOST_ELEMENTS:
        return None
    implementation = _implementation(node.op_type, version)
    if implementation is None:
        return None
    parameters = {"verbose": 0, "log": lambda *_: None, "new_ops": None, "opsets": {"": version}}
    try:
        with np.errstate(all="ignore"):
            results = implementation(ir.serde.serialize_node(node), parameters).run(*operands)
    except Exception:  # whatever a reference kernel dislikes, the value is simply not known
        return None
    arrays = [np.asarray(result) for result in results]
    return arrays if all(array.size <= MOST_ELEMENTS for array in arrays) else None


def varying(
    node: ir.Node, version: int, operands: Sequence[Integers | None], results: Sequence[Array]
) -> list[np.ndarray[Any, np.dtype[np.bool_]]]:
    """Which elements of ``results`` follow an element of ``operands`` that varies at run time."""
    masks = [None if operand is None else operand.dynamic for operand in operands]
    anything = any(mask is not None and bool(mask.any()) for mask in masks)
    if not anything:
        return [np.zeros(result.shape, dtype=np.bool_) for result in results]
    spread = [np.ones(result.shape, dtype=np.bool_) for result in results]
    if node.op_type in POINTWISE:
        joined = np.zeros(results[0].shape, dtype=np.bool_)
        for mask in masks:
            if mask is not None:
                joined = joined | mask
        return [joined]
    if node.op_type == "Where" and masks[0] is not None and not masks[0].any():
        condition, first, second = operands[0], masks[1], masks[2]
        assert condition is not None and first is not None and second is not None
        return [np.where(condition.elements, first, second)]
    if node.op_type in MOVEMENT:
        moved = len(operands) if node.op_type == "Concat" else 1
        if any(mask is not None and bool(mask.any()) for mask in masks[moved:]):
            return spread
        replaced: list[Array | None] = [
            mask.astype(np.int64)
            if position < moved and mask is not None
            else (operand.elements if operand is not None else None)
            for position, (mask, operand) in enumerate(zip(masks, operands, strict=True))
        ]
        outcome = evaluate(node, version, replaced)
        if outcome is not None:
            return [array.astype(np.bool_) for array in outcome]
    return spread


def tensor(name: str, elements: Array) -> onnx.TensorProto:
    """``elements`` as the protobuf that onnx's shape inference reads."""
    return onnx.numpy_helper.from_array(np.ascontiguousarray(elements), name)

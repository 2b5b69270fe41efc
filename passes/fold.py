"""Move the effect of a constant slot into the bias of what consumes it."""

from __future__ import annotations

import numpy as np

from ozgraph.graph import Array, Op, Value
from ozgraph.passes.bound import Site
from ozgraph.passes.state import State
from ozgraph.rules.lattice import Slots
from ozgraph.rules.rule import Reduction

_WEIGHT = 1
_BIAS = 2


def folding_operand(site: Site, state: State) -> tuple[Value, int] | None:
    """The (data, axis) of a site whose constants may fold into a bias; None where that is not exact.

    The weight must be a constant of the file, and so must a bias that is already there.
    """
    op = site.op
    rule = state.bound[op].rule
    if site.reduction is not Reduction.SUM or rule.folds is None or not rule.folds(op):
        return None
    data, weight, bias = op.inputs[0], op.input(_WEIGHT), op.input(_BIAS)
    if data is None or weight is None or weight.constant is None or data.constant is not None:
        return None
    if bias is not None and bias.constant is None:
        return None
    if weight.dtype is None or weight.dtype.itemsize < 4:
        return None  # the shifted bias would be rounded to half precision
    if op.type == "MatMul" and weight.rank != 2:
        return None
    axes = [axis for position, axis in site.operands if position == 0]
    return (data, axes[0]) if len(axes) == 1 else None


def bias_shift(op: Op, constants: Slots, weight: Array) -> Array:
    """What constant inputs add to every position of the result.

    Args:
        op: a Conv, Gemm or MatMul.
        constants: [in], zero where the input is not constant.
        weight: the operator's weight, in double precision.

    Returns:
        [out], one number an output channel or column.
    """
    if op.type == "Conv":
        groups = int(op.attributes.get("group", 1))
        taps = weight.reshape(*weight.shape[:2], -1).sum(axis=2)  # [groups * out, in]
        taps = taps.reshape(groups, -1, weight.shape[1])
        shift: Array = np.einsum("goi,gi->go", taps, constants.reshape(groups, -1)).reshape(-1)
        return shift
    if op.type == "Gemm":
        columns = weight.T if op.attributes.get("transB", 0) else weight
        scaled: Array = float(op.attributes.get("alpha", 1.0)) * (constants @ columns)
        return scaled
    product: Array = constants @ weight
    return product

"""Move the effect of a constant slot into the bias of what consumes it."""

from __future__ import annotations

from ozgraph.graph import Value
from ozgraph.passes.bound import Site
from ozgraph.passes.state import State
from ozgraph.rules.rule import Reduction


def folding_operand(site: Site, state: State) -> tuple[Value, int] | None:
    """The (data, axis) of a site whose constants may fold into a bias; None where that is not exact.

    The weight must be a constant of the file, and so must a bias that is already there.
    """
    op = site.op
    folding = state.bound[op].rule.folds
    if site.reduction is not Reduction.SUM or folding is None or not folding.applies(op):
        return None
    data, weight = op.inputs[folding.data], op.input(folding.weight)
    bias = None if folding.bias is None else op.input(folding.bias)
    if data is None or weight is None or weight.constant is None or data.constant is not None:
        return None
    if bias is not None and bias.constant is None:
        return None
    if weight.dtype is None or weight.dtype.itemsize < 4:
        return None  # the shifted bias would be rounded to half precision
    axes = [axis for position, axis in site.operands if position == folding.data]
    return (data, axes[0]) if len(axes) == 1 else None

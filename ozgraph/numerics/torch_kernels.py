"""Operators that torch computes in some precisions only, said with operators that know float64.

Importing this module imports torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor


def grouped_product(
    rows: Tensor,
    matrices: Tensor,
    offs: Tensor | None = None,
    bias: Tensor | None = None,
    out_dtype: torch.dtype | None = None,
) -> Tensor:
    """``torch.nn.functional.grouped_mm``, a group at a time; rows after the last group are zero.

    Args:
        rows: [rows, k], counted off to the groups by ``offs``; or [groups, rows, k].
        matrices: [groups, k, n]; or [k, n], whose columns are counted off.
        offs: [groups], where each group ends.
    """
    if offs is None:
        made = rows @ matrices
    else:
        ends = offs.tolist()
        spans = [slice(start, end) for start, end in zip([0, *ends[:-1]], ends, strict=True)]
        if rows.dim() == 2 and matrices.dim() == 3:
            made = rows.new_zeros(rows.shape[0], matrices.shape[-1])
            for span, matrix in zip(spans, matrices, strict=True):
                made[span] = rows[span] @ matrix
        elif rows.dim() == 3:
            made = rows.new_zeros(rows.shape[1], matrices.shape[-1])
            for span, part in zip(spans, rows, strict=True):
                made[:, span] = part @ matrices[:, span]
        else:
            made = torch.stack([rows[:, span] @ matrices[span] for span in spans])
    made = made if bias is None else made + bias
    return made if out_dtype is None else made.to(out_dtype)


IN_DOUBLE: Mapping[Any, Callable[..., Any]] = {
    operator: function
    for name, function in {"_grouped_mm": grouped_product}.items()
    if (operator := getattr(getattr(torch.ops.aten, name, None), "default", None)) is not None
}
"""Overload -> the same in any precision; those that this version of torch has."""

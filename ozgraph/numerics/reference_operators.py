"""Operators of onnx's reference evaluator, repaired where an exact run meets a gap.

In onnx 1.23: ``Erf`` rounds to float32, ``ConvTranspose`` with groups slices the wrong axis, ``DequantizeLinear``
starts at opset 19, ``Loop`` joins the results of its runs along the first axis that they have instead of a new one,
``Scan`` knows the first axis only.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from onnx.reference.op_run import OpRun
from onnx.reference.ops.op_conv_transpose import ConvTranspose as _ConvTranspose

from ozgraph.graph import Array
from ozgraph.numerics.reference_control import Loop, Scan

_one_group: Any = _ConvTranspose._run


class Erf(OpRun):
    """The error function in double precision."""

    op_domain = ""

    def _run(self, x: Array) -> tuple[Array]:
        return (np.vectorize(math.erf, otypes=[np.float64])(x).astype(x.dtype),)


class ConvTranspose(OpRun):
    """Transposed convolution, a group at a time."""

    op_domain = ""

    def _run(self, X: Array, W: Array, B: Array | None = None, **attributes: Any) -> tuple[Array]:  # noqa: N803
        count = attributes.pop("group", None) or 1
        biases = [None] * count if B is None else np.split(B, count)
        parts = [
            _one_group(self, x, w, b, group=1, **attributes)[0]
            for x, w, b in zip(np.split(X, count, axis=1), np.split(W, count), biases, strict=True)
        ]
        return (np.concatenate(parts, axis=1),)


class DequantizeLinear(OpRun):
    """(x - zero_point) * scale, with a scale for all, one an axis position, or one a block."""

    op_domain = ""

    def _run(self, x: Array, scale: Array, zero_point: Array | None = None, **attributes: Any) -> tuple[Array]:
        axis, block = attributes.get("axis", 1), attributes.get("block_size", 0) or 0

        def fitted(part: Array) -> Array:
            if block:
                return np.repeat(part, block, axis=axis)[tuple(slice(extent) for extent in x.shape)]
            if part.ndim == 1 and part.size > 1:
                return part.reshape([-1 if position == axis % x.ndim else 1 for position in range(x.ndim)])
            return part

        centred = x.astype(scale.dtype)
        if zero_point is not None:
            centred = centred - fitted(zero_point.astype(scale.dtype))
        return (centred * fitted(scale),)


REPAIRED: list[type[OpRun]] = [ConvTranspose, DequantizeLinear, Erf, Loop, Scan]
"""What to pass as ``new_ops``."""

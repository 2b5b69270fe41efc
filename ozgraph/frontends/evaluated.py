"""Which nodes are shape arithmetic, and what they give where their operands are known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir

from ozgraph.frontends import arithmetic
from ozgraph.frontends.known import Inferred
from ozgraph.graph import Array

INTEGERS = (ir.DataType.INT64, ir.DataType.INT32, ir.DataType.BOOL)
INTEGER_CODES = frozenset(dtype.value for dtype in INTEGERS)
MOST_FLOATS = 64
"""Scales of Resize, bounds of Range and Clip: larger tensors of floats decide about no size."""


Elements = Callable[[str, Inferred], Array | None]
"""What a value holds where that is known: a small constant, or what was evaluated before."""


def note(node: ir.Node, known: Inferred, computed: set[str], elements: Elements, version: int) -> None:
    """Record the elements of the outputs of ``node`` where it is shape arithmetic on known elements.

    Args:
        computed: names of what sizes decide; grows.
        version: the opset.
    """
    if node.domain not in ("", "ai.onnx"):
        return
    if node.op_type in ("Shape", "Size"):
        _read_size(node, known, computed)
        return
    if node.op_type not in arithmetic.EVALUATED:
        return
    operands: list[Array | None] = []
    derived = False
    for value in node.inputs:
        if value is None:
            operands.append(None)
            continue
        name = value.name or ""
        found = elements(name, known)
        if found is None:
            return
        if name not in computed and name not in known.floats and found.size > 1 and found.dtype.kind not in "iub":
            return  # a weight, however small, is data even where a size says how it is laid out
        derived = derived or name in computed
        operands.append(found)
    results = arithmetic.evaluate(node, version, operands)
    if results is None or (node.op_type == "ConstantOfShape" and results[0].dtype.kind not in "iub"):
        return  # a float fill is an initial state or a mask, not a size
    if not derived and known.dtypes.get(node.outputs[0].name or "") not in INTEGER_CODES:
        # Arithmetic on weights alone is no shape arithmetic, however small they are.
        pairs = zip(node.outputs, results, strict=False)
        known.floats.update(
            {output.name: result for output, result in pairs if output.name and result.size <= MOST_FLOATS}
        )
        return
    for output, result in zip(node.outputs, results, strict=False):
        if output.name:
            known.elements[output.name] = result
            known.shapes[output.name] = result.shape
            if derived:
                computed.add(output.name)


def _read_size(node: ir.Node, known: Inferred, computed: set[str]) -> None:
    source, result = node.inputs[0], node.outputs[0]
    assert source is not None and source.name is not None and result.name is not None
    shape = known.static_shape(source.name)
    if shape is None:
        return
    sizes: np.ndarray[Any, Any] = np.array(shape, dtype=np.int64)
    sizes = np.array(sizes.prod(), dtype=np.int64) if node.op_type == "Size" else sizes[axes_read(node, len(shape))]
    known.elements[result.name] = sizes
    known.shapes[result.name] = sizes.shape
    computed.add(result.name)


def axes_read(node: ir.Node, rank: int) -> slice:
    """The axes whose sizes a Shape node returns."""
    start, end = node.attributes.get("start"), node.attributes.get("end")
    return slice(start.as_int() if start else 0, end.as_int() if end else rank)

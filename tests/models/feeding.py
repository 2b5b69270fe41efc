"""Inputs that fit a model, and one line to run it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import helper

Array = npt.NDArray[Any]

SAMPLE_SIZES = {"batch": 2, "sequence": 6}


def feeds(model: onnx.ModelProto, seed: int = 0, sizes: Mapping[str, int] | None = None) -> dict[str, Array]:
    """Random inputs: normal for floats, row numbers of the table they index for integers.

    Args:
        seed: other seeds give other inputs.
        sizes: sizes of named dynamic axes; :data:`SAMPLE_SIZES` and then 2 where nothing is given.
    """
    rng = np.random.default_rng(seed)
    given = {**SAMPLE_SIZES, **(sizes or {})}
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    rows: dict[str, int] = {}
    for node in model.graph.node:
        if node.op_type == "Gather" and node.input[0] in weights:
            rows[node.input[1]] = min(weights[node.input[0]].dims[0], rows.get(node.input[1], 1 << 30))
    made: dict[str, Array] = {}
    for info in model.graph.input:
        if info.name in weights:
            continue
        kind = info.type.tensor_type
        shape = [
            size.dim_value if size.HasField("dim_value") else given.get(size.dim_param, 2) for size in kind.shape.dim
        ]
        dtype = helper.tensor_dtype_to_np_dtype(kind.elem_type)
        if dtype.kind in "iu":
            made[info.name] = rng.integers(0, rows.get(info.name, 8), shape).astype(dtype)
        elif dtype.kind == "b":
            made[info.name] = rng.random(shape) < 0.5
        else:
            made[info.name] = rng.standard_normal(shape).astype(dtype)
    return made


def session(model: onnx.ModelProto | str, *, optimize: bool = True) -> onnxruntime.InferenceSession:
    """A quiet single-threaded onnxruntime session, of a model or of a path."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    if not optimize:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    source = model if isinstance(model, str) else model.SerializeToString()
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def run(model: onnx.ModelProto | str, inputs: Mapping[str, Array], *, optimize: bool = True) -> list[Array]:
    """All outputs of one run in onnxruntime."""
    return [np.asarray(result) for result in session(model, optimize=optimize).run(None, dict(inputs))]

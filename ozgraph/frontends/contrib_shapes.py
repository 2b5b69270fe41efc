"""Shapes that onnx does not infer.

Of the com.microsoft operators that onnxruntime's transformer optimizer writes, and of the ai.onnx.ml operators that
converters of estimators put before and behind layers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir

_ML = "ai.onnx.ml"
DOMAINS = frozenset({"com.microsoft", _ML})

Shape = tuple[int, ...]
Infer = Callable[[ir.Node, Sequence[Shape | None]], Sequence[Shape | None]]
"""(node, operand shapes) -> result shapes; None where one is left out or not known."""


def complete(node: ir.Node, shapes: dict[str, tuple[int | str | None, ...]], dtypes: dict[str, int]) -> None:
    """Fill in the shapes and element types of the results of ``node`` that are still open."""
    names = [value.name if value is not None else None for value in node.inputs]
    results = inferred(node, [_static(shapes.get(name or "")) for name in names])
    floating = next((dtypes[name] for name in names if name in dtypes and dtypes[name] in _FLOATS), None)
    for position, (output, shape) in enumerate(zip(node.outputs, results, strict=False)):
        if output.name and shape is not None and _static(shapes.get(output.name)) is None:
            shapes[output.name] = shape
            dtype = _INTEGER_RESULTS.get((node.op_type, position), floating)
            if dtype is not None:
                dtypes.setdefault(output.name, dtype)


def inferred(node: ir.Node, operands: Sequence[Shape | None]) -> Sequence[Shape | None]:
    """Shapes of the results, by those of the operands; empty where nothing is known."""
    infer = (_ML_RULES if node.domain == _ML else _RULES).get(node.op_type)
    if infer is None:
        return ()
    try:
        return infer(node, operands)
    except (IndexError, TypeError, ValueError, ZeroDivisionError):
        return ()  # operands that do not fit


_FLOATS = {ir.DataType.FLOAT.value, ir.DataType.FLOAT16.value, ir.DataType.BFLOAT16.value, ir.DataType.DOUBLE.value}

_INTEGER_RESULTS = {("EmbedLayerNormalization", 1): ir.DataType.INT32.value}


def _static(shape: tuple[int | str | None, ...] | None) -> Shape | None:
    sizes = tuple(size for size in shape or () if isinstance(size, int))
    return sizes if shape is not None and len(sizes) == len(shape) else None


def _known(shape: Shape | None) -> Shape:
    if shape is None:
        raise ValueError("an operand's shape is not known")
    return shape


def _integer(node: ir.Node, name: str, default: int = 0) -> int:
    found = node.attributes.get(name)
    return default if found is None else found.as_int()


def _same(node: ir.Node, operands: Sequence[Shape | None]) -> Sequence[Shape | None]:
    return (operands[0],)


def _skip(node: ir.Node, operands: Sequence[Shape | None]) -> Sequence[Shape | None]:
    source = _known(operands[0])
    statistics = (*source[:-1], 1)
    return (source, statistics, statistics, source)


def _embedding(node: ir.Node, operands: Sequence[Shape | None]) -> Sequence[Shape | None]:
    batch, length = _known(operands[0])
    summed = (batch, length, _known(operands[2])[1])
    return (summed, (batch,), summed)


def _product(node: ir.Node, operands: Sequence[Shape | None]) -> Sequence[Shape | None]:
    left, right = _known(operands[0]), _known(operands[1])
    if _integer(node, "transBatchA") or _integer(node, "transBatchB") or min(len(left), len(right)) < 2:
        raise ValueError("batch axes move")
    rows = left[-1] if _integer(node, "transA") else left[-2]
    columns = right[-2] if _integer(node, "transB") else right[-1]
    return ((*np.broadcast_shapes(left[:-2], right[:-2]), rows, columns),)


def _conv(node: ir.Node, operands: Sequence[Shape | None]) -> Sequence[Shape | None]:
    data, weight = _known(operands[0]), _known(operands[1])
    automatic = node.attributes.get("auto_pad")
    if automatic is not None and automatic.as_string() not in ("NOTSET", ""):
        raise ValueError("padding is computed")
    spatial = len(data) - 2

    def listed(name: str, default: int, count: int) -> list[int]:
        found = node.attributes.get(name)
        return [default] * count if found is None else list(found.as_ints())

    pads, strides = listed("pads", 0, 2 * spatial), listed("strides", 1, spatial)
    dilations = listed("dilations", 1, spatial)
    sizes = tuple(
        (data[2 + i] + pads[i] + pads[i + spatial] - dilations[i] * (weight[2 + i] - 1) - 1) // strides[i] + 1
        for i in range(spatial)
    )
    return ((data[0], weight[0], *sizes),)


def _attention(node: ir.Node, operands: Sequence[Shape | None]) -> Sequence[Shape | None]:
    batch, length, _ = _known(operands[0])
    widths = node.attributes.get("qkv_hidden_sizes")
    width = _known(operands[1])[1] // 3 if widths is None else list(widths.as_ints())[2]
    return ((batch, length, width),)


def _multi_head(node: ir.Node, operands: Sequence[Shape | None]) -> Sequence[Shape | None]:
    queries, keys, values = (_known(shape) for shape in operands[:3])
    if not len(queries) == len(keys) == len(values) == 3:
        raise ValueError("packed operands")
    heads = _integer(node, "num_heads")
    past = operands[6] if len(operands) > 6 else None
    total = keys[1] + (past[2] if past is not None else 0)
    batch, length, _ = queries
    present = [(batch, heads, total, part[2] // heads) for part in (keys, values)]
    return ((batch, length, values[2]), *present, (batch, heads, length, total))


def _grouped_query(node: ir.Node, operands: Sequence[Shape | None]) -> Sequence[Shape | None]:
    queries, keys = _known(operands[0]), _known(operands[1])
    if operands[3] is not None:
        return (queries,)  # how long its cache is, the inputs say
    shared = _integer(node, "kv_num_heads")
    present = (queries[0], shared, queries[1], keys[2] // shared)
    return (queries, present, present)


def _extracted(node: ir.Node, operands: Sequence[Shape | None]) -> Sequence[Shape | None]:
    source, indexes = _known(operands[0]), _known(operands[1])
    return ((*(source[:-1] or (1,)), int(np.prod(indexes))),)


def _packed_product(node: ir.Node, operands: Sequence[Shape | None]) -> Sequence[Shape | None]:
    return ((*_known(operands[0])[:-1], _known(operands[1])[0]),)


def _packed_rows(node: ir.Node, operands: Sequence[Shape | None]) -> Sequence[Shape | None]:
    table, indexes, scales = (_known(shape) for shape in operands[:3])
    if len(table) != 2 or len(scales) != 2 or _integer(node, "gather_axis"):
        raise ValueError("another layout")
    packed = -(-table[1] // _integer(node, "block_size", 128)) < scales[1]
    return ((*indexes, table[1] * 8 // _integer(node, "bits", 4) if packed else table[1]),)


_RULES: dict[str, Infer] = {
    "Attention": _attention,
    "BiasGelu": _same,
    "EmbedLayerNormalization": _embedding,
    "FastGelu": _same,
    "FusedConv": _conv,
    "FusedGemm": _product,
    "FusedMatMul": _product,
    "Gelu": _same,
    "GatherBlockQuantized": _packed_rows,
    "GroupQueryAttention": _grouped_query,
    "MatMulNBits": _packed_product,
    "MultiHeadAttention": _multi_head,
    "QuickGelu": _same,
    "RotaryEmbedding": _same,
    "SkipLayerNormalization": _skip,
    "SkipSimplifiedLayerNormalization": _skip,
    "TransposeMatMul": _product,
}

_ML_RULES: dict[str, Infer] = {
    "ArrayFeatureExtractor": _extracted,
    "Binarizer": _same,
    "Imputer": _same,
    "Normalizer": _same,
    "Scaler": _same,
}

"""Quantised tensors and products of integers."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from applications.application import DOMAIN, Table
from applications.operands import Fixed, Operand, T, floats, indexes, integers, number, stored

TABLE = Table()
use = TABLE.use

_POINT = Fixed(np.array(120, np.uint8))
_POINTS = Fixed(np.array([3, -4, 0, 7], np.int8))
_SCALES = floats(0.02, 0.03, 0.05, 0.01)

for _opset in (10, 13, 19, 21, 23):
    use("QuantizeLinear", T(3, 4, 5), number(0.05), _POINT, form=f"opset {_opset}", opset=_opset)
    use(
        "DequantizeLinear", stored(3, 4, 5, zero=120), number(0.05), _POINT, form=f"opset {_opset}", opset=_opset,
    )  # fmt: skip
use("QuantizeLinear", T(3, 4, 5), number(0.05), form="no zero point")
use("QuantizeLinear", T(3, 4, 5), _SCALES, _POINTS, form="axis", axis=1)
use("QuantizeLinear", T(3, 4, 5), floats(0.05), _POINT, form="one scale in a list")
use("DequantizeLinear", stored(3, 4, 5, dtype="int8"), number(0.05), form="no zero point")
use(
    "DequantizeLinear",
    stored(3, 4, 5, dtype="int8", zero=5),
    _SCALES,
    Fixed(np.full(4, 5, np.int8)),
    form="axis",
    axis=1,
)
use("DequantizeLinear", integers(3, 4, 5), number(0.05), form="32 bits")
use(
    "DequantizeLinear", stored(3, 8, 5, dtype="int8"), Fixed(np.full((3, 2, 5), 0.05, np.float32)), form="blocks",
    axis=1, block_size=4,
)  # fmt: skip
use("QuantizeLinear", T(3, 8, 5), Fixed(np.full((3, 2, 5), 0.05, np.float32)), form="blocks", axis=1, block_size=4,
    output_dtype=TensorProto.INT8)  # fmt: skip
use("DynamicQuantizeLinear", T(3, 4, 5), results=3)

_STEP = number(0.05), _POINT
_IMAGE, _KERNEL = stored(2, 4, 5, 6, zero=120), stored(7, 4, 3, 3, dtype="int8", only="weight")
_SIGNED = number(0.02), Fixed(np.array(0, np.int8))
use("QLinearConv", _IMAGE, *_STEP, _KERNEL, *_SIGNED, *_STEP)
use("QLinearConv", _IMAGE, *_STEP, _KERNEL, *_SIGNED, *_STEP, integers(7), form="bias", pads=[1, 1, 1, 1])
use(
    "QLinearConv", _IMAGE, *_STEP, _KERNEL, floats(*np.linspace(0.01, 0.03, 7)), Fixed(np.zeros(7, np.int8)), *_STEP,
    form="scales of channels",
)  # fmt: skip
use(
    "QLinearConv", stored(2, 6, 5, 7, zero=120), *_STEP, stored(8, 3, 2, 3, dtype="int8", only="weight"), *_SIGNED,
    *_STEP, form="groups", group=2,
)  # fmt: skip
use("QLinearMatMul", stored(3, 4, zero=120), *_STEP, stored(4, 5, zero=120), *_STEP, *_STEP)
use(
    "QLinearMatMul", stored(2, 3, 4, zero=120), *_STEP, stored(4, 5, dtype="int8"), *_SIGNED, *_STEP, form="rows"
)  # fmt: skip
use("ConvInteger", _IMAGE, stored(7, 4, 3, 3, zero=120), _POINT, _POINT)
use("ConvInteger", stored(2, 4, 5, 6), stored(7, 4, 3, 3), form="no zero points")
use("ConvInteger", stored(2, 6, 5, 7), stored(8, 3, 2, 3), form="groups", group=2)
use("MatMulInteger", stored(3, 4, zero=120), stored(4, 5, zero=120), _POINT, _POINT)
use("MatMulInteger", stored(2, 3, 4), stored(4, 5), form="no zero points")

_PACKED = f"{DOMAIN}.MatMulNBits"


def _codes(*shape: int) -> Operand:
    """Weights of a few bits; any byte will do."""
    return stored(*shape, only="weight")


def _points(*shape: int) -> Fixed:
    return Fixed((np.arange(np.prod(shape)) * 37 % 256).astype(np.uint8).reshape(shape))


_SIXTEEN = {"opset": 21, "N": 6, "bits": 4, "block_size": 16}
_BLOCKS = T(6, 4, only="weight")
use(_PACKED, T(3, 64), _codes(6, 4, 8), _BLOCKS, **_SIXTEEN, K=64)
use(_PACKED, T(3, 64), _codes(6, 4, 8), _BLOCKS, _points(6, 2), form="zero points", **_SIXTEEN, K=64)
use(
    _PACKED, T(2, 3, 64), _codes(6, 4, 8), T(24, only="weight"), _points(12), None, T(6, only="weight"),
    form="in one row", **_SIXTEEN, K=64,
)  # fmt: skip
use(_PACKED, T(3, 48), _codes(6, 3, 8), T(6, 3, only="weight"), _points(6, 2), form="odd", **_SIXTEEN, K=48)
use(_PACKED, T(3, 60), _codes(6, 4, 8), _BLOCKS, form="cut short", **_SIXTEEN, K=60)
use(
    _PACKED, T(3, 64), _codes(6, 4, 16), _BLOCKS, _points(6, 4), form="8 bits", opset=21, N=6, K=64, bits=8,
    block_size=16,
)  # fmt: skip
use(
    _PACKED, T(3, 64), _codes(6, 4, 8), _BLOCKS, _points(6, 2), Fixed(np.arange(64, dtype=np.int32)[::-1].copy() // 16),
    form="order of groups", **_SIXTEEN, K=64,
)  # fmt: skip
_TABLE = f"{DOMAIN}.GatherBlockQuantized"
_WHERE = indexes(2, 3, below=6)
use(_TABLE, _codes(6, 32), _WHERE, _BLOCKS, opset=21, quantize_axis=1, block_size=16, bits=4)
use(
    _TABLE, _codes(6, 32), _WHERE, _BLOCKS, _points(6, 2), form="zero points", opset=21, quantize_axis=1, block_size=16,
    bits=4,
)  # fmt: skip
use(
    _TABLE, _codes(6, 64), _WHERE, _BLOCKS, _points(6, 4), form="8 bits", opset=21, quantize_axis=1, block_size=16,
    bits=8,
)  # fmt: skip

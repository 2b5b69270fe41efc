"""Quantised tensors and products of integers."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from applications.application import Table
from applications.operands import Fixed, T, floats, integers, number, stored

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

"""Windows, resampling and pixels."""

from __future__ import annotations

from applications.application import Table
from applications.operands import T, floats, given, indexes, ints

TABLE = Table()
use = TABLE.use

_IMAGE = T(3, 4, 7, 8)

use("MaxPool", _IMAGE, kernel_shape=[3, 2])
use("MaxPool", _IMAGE, form="padded", kernel_shape=[3, 3], pads=[1, 1, 1, 1], dilations=[2, 1], ceil_mode=1)
use("MaxPool", _IMAGE, form="indices", results=2, kernel_shape=[3, 2])
use("MaxPool", _IMAGE, form="opset 8", opset=8, results=2, kernel_shape=[3, 2], storage_order=0)
use("MaxPool", _IMAGE, form="opset 7", opset=7, kernel_shape=[3, 2])
use("MaxPool", T(3, 4, 9), form="one axis", kernel_shape=[2])
use("AveragePool", _IMAGE, kernel_shape=[3, 2])
use("AveragePool", _IMAGE, form="padded", kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1)
use("AveragePool", _IMAGE, form="opset 11", opset=11, kernel_shape=[3, 2], ceil_mode=1)
use("AveragePool", _IMAGE, form="opset 7", opset=7, kernel_shape=[3, 2])
use("LpPool", _IMAGE, kernel_shape=[3, 2])
use("LpPool", _IMAGE, form="opset 11", opset=11, kernel_shape=[3, 2], p=1)
use("GlobalAveragePool", _IMAGE)
use("GlobalMaxPool", _IMAGE)
use("GlobalLpPool", _IMAGE)
use("GlobalAveragePool", T(3, 4, 5), form="one axis")

_WIDER = floats(1, 1, 2, 1.5)
use("Resize", _IMAGE, None, _WIDER, mode="linear")
use("Resize", _IMAGE, None, _WIDER, form="nearest", mode="nearest")
use("Resize", _IMAGE, None, None, ints(3, 4, 9, 8), form="sizes", mode="cubic")
use("Resize", _IMAGE, None, None, ints(9, 12), form="sizes of two axes", axes=[2, 3])
use("Resize", _IMAGE, None, None, ints(3, 9, 9, 8), form="channels too")
use(
    "Resize", _IMAGE, floats(0, 0, 0.1, 0, 1, 1, 0.9, 1), None, ints(3, 4, 9, 8), form="region", opset=13,
    coordinate_transformation_mode="tf_crop_and_resize", extrapolation_value=2.0, mode="linear",
)  # fmt: skip
use("Resize", _IMAGE, None, _WIDER, form="opset 13", opset=13, mode="linear")
use("Resize", _IMAGE, floats(), _WIDER, form="opset 11", opset=11, mode="linear")
use("Resize", _IMAGE, floats(), floats(), ints(3, 4, 9, 8), form="opset 11, sizes", opset=11)
use("Resize", _IMAGE, _WIDER, form="opset 10", opset=10)
use("Upsample", _IMAGE, _WIDER, form="opset 9", opset=9)
use("Upsample", _IMAGE, form="opset 7", opset=7, scales=[1.0, 1.0, 2.0, 2.0], mode="linear")

use("DepthToSpace", T(3, 20, 2, 6), blocksize=2)
use("DepthToSpace", T(3, 20, 2, 6), form="columns first", blocksize=2, mode="CRD")
use("DepthToSpace", T(3, 20, 2, 6), form="opset 10", opset=10, blocksize=2)
use("SpaceToDepth", T(3, 5, 4, 6), blocksize=2)
use("SpaceToDepth", T(3, 5, 4, 6), form="opset 28", opset=28, blocksize=2)

use("GridSample", _IMAGE, T(3, 5, 6, 2, through="Tanh"))
use("GridSample", _IMAGE, T(3, 5, 6, 2, through="Tanh"), form="opset 16", opset=16, mode="bilinear")
use("Col2Im", T(3, 24, 20), ints(6, 5), ints(2, 2))

_BOXES = given([[0, 0, 4, 4], [1, 2, 6, 5], [0, 1, 3, 6], [2, 2, 5, 6], [1, 1, 6, 6]])
_OUTPUT = {"output_height": 2, "output_width": 3}
use("RoiAlign", _IMAGE, _BOXES, ints(0, 1, 2, 0, 1), **_OUTPUT)
use("RoiAlign", _IMAGE, _BOXES, indexes(5, below=3), form="pictures computed", **_OUTPUT)
use("RoiAlign", _IMAGE, T(5, 4, through="Abs"), ints(0, 1, 2, 0, 1), form="boxes computed", sampling_ratio=2, **_OUTPUT)
use("RoiAlign", _IMAGE, _BOXES, ints(0, 1, 2, 0, 1), form="opset 10", opset=10, **_OUTPUT)
_PLACED = given([[0, 0, 0, 4, 4], [1, 1, 2, 6, 5], [2, 0, 1, 3, 6], [1, 2, 2, 5, 6], [0, 1, 1, 6, 6]])
use("MaxRoiPool", _IMAGE, _PLACED, pooled_shape=[2, 3])

_THETA = T(3, 2, 3)
use("AffineGrid", _THETA, ints(3, 1, 4, 5))
use("AffineGrid", T(2, 3, 4), ints(2, 1, 4, 5, 6), form="three axes", align_corners=1)
use("CenterCropPad", T(3, 8, 5), ints(6), axes=[1])
use("CenterCropPad", T(3, 8, 5), ints(11, 2), form="wider", axes=[1, -1])
use("CenterCropPad", T(3, 8, 5), ints(2, 9, 6), form="all axes", opset=18)
use("CenterCropPad", T(3, 8, 5), ints(3, 8, 7), form="one of all axes", opset=18)
_MOVED = T(2, 18, 4, 5, through="Tanh")
use("DeformConv", T(2, 4, 6, 7), T(5, 4, 3, 3), _MOVED, opset=22)
use("DeformConv", T(2, 4, 6, 7), T(6, 2, 3, 3), _MOVED, T(6), T(2, 9, 4, 5), form="groups", group=2, opset=22)
_APART = T(2, 54, 4, 5, through="Tanh"), T(6), T(2, 27, 4, 5)
use("DeformConv", T(2, 12, 6, 7), T(6, 4, 3, 3), _APART[0], *_APART[1:], form="groups of both", group=3, offset_group=3,
    opset=22)  # fmt: skip
use("DeformConv", T(2, 12, 6, 7), T(6, 12, 3, 3), _APART[0], *_APART[1:], form="parts", offset_group=3, opset=22)
use("DeformConv", T(2, 12, 6, 7), T(6, 6, 3, 3), _APART[0], *_APART[1:], form="groups across", group=2, offset_group=3,
    opset=22)  # fmt: skip
use("DeformConv", T(2, 4, 6, 7), T(5, 4, 3, 3), _MOVED, form="opset 19", opset=19)

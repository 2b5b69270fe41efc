"""Reshapes, transposes, concatenations, fills and paddings."""

from __future__ import annotations

import numpy as np
from onnx import numpy_helper

from applications.application import Table
from applications.operands import T, ints, number

TABLE = Table()
use = TABLE.use

use("Reshape", T(3, 20), ints(3, 4, 5), form="split")
use("Reshape", T(3, 4, 5), ints(12, 5), form="merged")
use("Reshape", T(3, 4, 5), ints(0, -1), form="inferred")
use("Reshape", T(6, 4, 5), ints(3, 2, 20), form="split and merged")
use("Reshape", T(6, 10), ints(4, 15), form="across")
use("Reshape", T(4, 4, 4), ints(4, 16), form="equal sizes")
use("Reshape", T(3, 4, 5), ints(3, 4, 1, 5), form="one added")
use("Reshape", T(3, 20), ints(3, 4, 5), form="opset 13", opset=13)
use("Reshape", T(3, 4, 5), ints(3, 20), form="zeros meant", allowzero=1)
use("Flatten", T(3, 4, 5))
use("Flatten", T(3, 4, 5), form="axis 2", axis=2)
use("Flatten", T(3, 4, 5), form="axis 0", axis=0)
use("Transpose", T(3, 4, 5))
use("Transpose", T(3, 4, 5), form="given", perm=[1, 2, 0])

use("Squeeze", T(3, 1, 5), ints(1))
use("Squeeze", T(3, 1, 5), form="all")
use("Squeeze", T(3, 1, 5), form="opset 11", opset=11, axes=[1])
use("Squeeze", T(3, 1, 5), form="opset 11, all", opset=11)
use("Unsqueeze", T(3, 5), ints(0, 2))
use("Unsqueeze", T(3, 5), form="opset 11", opset=11, axes=[1])

use("Concat", T(3, 4, 5), T(3, 2, 5), T(3, 6, 5), axis=1)
use("Concat", T(3, 4), T(3, 4), form="last axis", axis=-1)
use("Concat", T(3, 4), form="one", axis=0)
use("Split", T(3, 11, 5), ints(4, 7), results=2, axis=1)
use("Split", T(3, 8, 5), form="halves", opset=17, results=2, axis=1)
use("Split", T(3, 11, 5), ints(4, 7), form="opset 17", opset=17, results=2, axis=1)
use("Split", T(3, 11, 5), form="count", results=3, axis=1, num_outputs=3)
use("Split", T(3, 11, 5), form="opset 11", opset=11, results=2, axis=1, split=[4, 7])
use("Split", T(3, 8, 5), form="opset 11, halves", opset=11, results=2, axis=1)

use("Expand", T(3, 1, 5), ints(3, 4, 5))
use("Expand", T(5), ints(3, 4, 1), form="axes added")
use("Expand", T(3, 1), ints(1, 4), form="ones asked for")
use("Expand", T(), ints(3, 4), form="number")
use("Tile", T(3, 4, 5), ints(1, 2, 1))
use("Tile", T(3, 4), ints(3, 2), form="both axes")
use("Tile", T(3, 1), ints(1, 4), form="one repeated")
_FILL = numpy_helper.from_array(np.array([0.5], np.float32))
use("ConstantOfShape", ints(3, 4), value=_FILL)

_WIDTHS = ints(0, 1, 0, 0, 2, 0)
use("Pad", T(3, 4, 5), _WIDTHS)
use("Pad", T(3, 4, 5), _WIDTHS, number(0.5), form="value")
use("Pad", T(3, 4, 5), _WIDTHS, T(), form="value computed")
use("Pad", T(3, 4, 5), ints(1, 2), number(0.0), ints(2), form="axes")
use("Pad", T(3, 4, 5), ints(0, -1, 0, 0, 0, 0), form="cropped")
for _mode in ["reflect", "edge", "wrap"]:
    use("Pad", T(3, 4, 5), _WIDTHS, form=_mode, mode=_mode)
use("Pad", T(3, 4, 5), _WIDTHS, number(0.5), form="opset 13", opset=13)
use("Pad", T(3, 4, 5), form="opset 10", opset=10, pads=[0, 1, 0, 0, 2, 0], value=0.5)

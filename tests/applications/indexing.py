"""Slices, gathers, scatters and triangles."""

from __future__ import annotations

import numpy as np

from applications.application import Table
from applications.operands import Fixed, T, floats, indexes, integer, ints

TABLE = Table()
use = TABLE.use

use("Slice", T(3, 9, 5), ints(2), ints(6), ints(1))
use("Slice", T(3, 9, 5), ints(1, -4), ints(3, 9), form="leading axes")
use("Slice", T(3, 9, 5), ints(1), ints(9), ints(1), ints(3), form="stride")
use("Slice", T(3, 9, 5), ints(-1), ints(-100), ints(1), ints(-1), form="reversed")
use("Slice", T(3, 9, 5), ints(1, 0), ints(9, 4), ints(1, 2), ints(2, 1), form="stride and part")
use("Slice", T(3, 9, 5), indexes(1, below=1), ints(6), ints(1), form="start computed", still="rest")
use("Slice", T(3, 9, 5), form="opset 9", opset=9, starts=[2], ends=[6], axes=[1])
use("Slice", T(3, 9, 5), form="opset 9, leading axes", opset=9, starts=[1, 2], ends=[3, 7])

use("Gather", T(6, 4, 5), ints(3, 1, 4), axis=0)
use("Gather", T(3, 4, 5), ints(2, 0, -1, 2), form="repeated", axis=1)
use("Gather", T(3, 4, 5), integer(2), form="one", axis=1)
use("Gather", T(3, 4, 5), Fixed(np.array([[0, 3], [2, 2], [1, 0]])), form="table of constants", axis=1)
use("Gather", T(7, 5), indexes(3, 4, below=7), form="looked up")
use("Gather", T(3, 7, 5), indexes(4, below=7), form="looked up, axis 1", axis=1)
use("GatherElements", T(7, 5), indexes(4, 5, below=7), axis=0)
use("GatherElements", T(3, 7, 5), indexes(3, 4, 2, below=7), form="axis 1", axis=1)
use("GatherElements", T(4, 4), indexes(4, 4, below=4), form="equal sizes", axis=1)
use("GatherND", T(6, 5, 4), indexes(3, 1, below=6))
use("GatherND", T(6, 5, 4), indexes(3, 2, below=5), form="two axes")
use("GatherND", T(3, 6, 4), indexes(3, 5, 1, below=6), form="batches", batch_dims=1)
use("GatherND", T(6, 5, 4), indexes(3, 1, below=6), form="opset 11", opset=11)

for _operator, _opset in (("Scatter", 10), ("ScatterElements", 21), ("ScatterElements", 13)):
    _form = "" if _opset in (10, 21) else f"opset {_opset}"
    use(_operator, T(7, 5), indexes(4, 5, below=7), T(4, 5), form=_form, opset=_opset, axis=0)
use("ScatterElements", T(3, 7), indexes(3, 4, below=7), T(3, 4), form="added", axis=1, reduction="add")
use("ScatterElements", T(7, 5), indexes(4, 3, below=7), T(4, 3), form="part", reduction="max")
use("ScatterND", T(6, 5, 4), indexes(3, 1, below=6), T(3, 5, 4))
use("ScatterND", T(6, 5, 4), indexes(3, 2, below=5), T(3, 4), form="two axes")
use("ScatterND", T(6, 5, 4), indexes(3, 1, below=6), T(3, 5, 4), form="added", reduction="add")
use("ScatterND", T(6, 5, 4), indexes(3, 1, below=6), T(3, 5, 4), form="multiplied", reduction="mul")
use("ScatterND", T(6, 5, 4), indexes(3, 1, below=6), T(3, 5, 4), form="opset 13", opset=13)

use("ScatterElements", T(4, 4), indexes(4, 4, below=4), T(4, 4), form="equal sizes", axis=1)
use("ScatterND", T(4, 4, 4), indexes(4, 1, below=4), T(4, 4, 4), form="equal sizes")
use("Trilu", T(3, 4, 5))
use("Trilu", T(3, 4, 5), integer(-1), form="lower", upper=0)
use("ReverseSequence", T(5, 3, 4), ints(2, 5, 1))
use("ReverseSequence", T(3, 5, 4), ints(2, 5, 1), form="batch first", batch_axis=0, time_axis=1)

use("OneHot", indexes(3, 4, below=6), integer(6), floats(0, 1))
use("OneHot", indexes(3, 4, below=6), ints(6), floats(0.5, 2), form="classes first", axis=0)
use("OneHot", indexes(3, 4, below=6), integer(6), floats(0, 1), form="opset 9", opset=9, axis=1)
use("Compress", T(3, 9, 5), Fixed(np.array([True, False, True, True, False, True, True])), axis=1)
use("Compress", T(3, 4), Fixed(np.array([True, False, True, True])), form="flat")
use("Compress", T(3, 9, 5), Fixed(np.array([False, True, True, False, True])), form="opset 9", opset=9, axis=-1)
use("TensorScatter", T(3, 4, 8, 5), T(3, 4, 2, 5), opset=24)
use("TensorScatter", T(3, 8, 4), T(3, 2, 4), indexes(3, below=6), form="positions", opset=24, axis=1)
use("TensorScatter", T(3, 4, 8, 5), T(3, 4, 2, 5), ints(7, 0, 3), form="circular", opset=24, mode="circular")

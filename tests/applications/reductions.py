"""Reductions, softmax, order and running sums."""

from __future__ import annotations

from applications.application import Table
from applications.operands import T, integer, ints

TABLE = Table()
use = TABLE.use

for _name in ["L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare"]:
    _x = T(3, 4, 5, through="AboveOne" if _name == "LogSum" else "")
    _operator, _old = f"Reduce{_name}", 11 if _name == "Sum" else 17
    use(_operator, _x, ints(1))
    if _name == "LogSum":
        use(_operator, T(3, 4, 5, through="Abs"), ints(1), form="of zero")
    use(_operator, _x, ints(-1, 0), form="two axes", keepdims=0)
    use(_operator, _x, form="all", keepdims=0)
    use(_operator, _x, form="none", noop_with_empty_axes=1)
    use(_operator, _x, form=f"opset {_old}", opset=_old, axes=[2])
    use(_operator, _x, form=f"opset {_old}, all", opset=_old)

for _name in ["Softmax", "LogSoftmax", "Hardmax"]:
    use(_name, T(3, 4, 5))
    use(_name, T(3, 4, 5), form="axis 1", axis=1)
    use(_name, T(3, 4, 5), form="opset 11", opset=11)
    use(_name, T(3, 4, 5), form="opset 11, axis 2", opset=11, axis=2)

for _name in ["ArgMax", "ArgMin"]:
    use(_name, T(3, 4, 5), axis=1)
    use(_name, T(3, 4, 5), form="dropped", axis=-1, keepdims=0)
    use(_name, T(3, 4, 5), form="last", axis=0, select_last_index=1)
    use(_name, T(3, 4, 5), form="opset 11", opset=11, axis=2)

use("LpNormalization", T(3, 4, 5), opset=22)
use("LpNormalization", T(3, 4, 5), form="p 1", axis=1, p=1)

use("CumSum", T(3, 4, 5), integer(1))
use("CumSum", T(3, 4, 5), integer(-1), form="backwards", exclusive=1, reverse=1)
use("CumProd", T(3, 4, 5), integer(1), opset=26)

use("TopK", T(3, 4, 5), ints(2), results=2)
use("TopK", T(3, 4, 5), ints(3), form="smallest", results=2, axis=1, largest=0, sorted=1)
use("TopK", T(3, 4, 5), ints(2), form="axis 0", results=2, axis=0)
use("TopK", T(3, 4, 5), ints(2), form="opset 10", opset=10, results=2)
use("TopK", T(3, 4, 5), form="opset 9", opset=9, results=2, k=2)

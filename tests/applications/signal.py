"""Fourier transforms and losses."""

from __future__ import annotations

from applications.application import Table
from applications.operands import T, floats, indexes, integer

TABLE = Table()
use = TABLE.use

use("DFT", T(3, 8, 1), None, integer(1), opset=20)
use("DFT", T(3, 5, 8, 2), integer(6), integer(-2), form="inverse", opset=20, inverse=1)
use("DFT", T(8, 3, 1), integer(8), integer(0), form="one side", opset=20, onesided=1)
use("DFT", T(3, 8, 5, 1), integer(10), form="opset 17", opset=17, axis=1)
use("STFT", T(3, 16, 1), integer(4), None, integer(8), opset=17, onesided=0)
use("STFT", T(3, 16, 1), integer(4), floats(1, 2, 3, 4, 4, 3, 2, 1), integer(8), form="window", opset=17)

_TARGETS = indexes(3, 4, below=5)
for _loss, _results in (("NegativeLogLikelihoodLoss", 1), ("SoftmaxCrossEntropyLoss", 2)):
    use(_loss, T(3, 5, 4), _TARGETS, results=_results, reduction="none")
    use(_loss, T(3, 5, 4), _TARGETS, T(5, through="Abs"), form="weighted", results=_results, reduction="none")
    use(_loss, T(3, 5, 4), _TARGETS, form="mean", results=_results)
    use(_loss, T(3, 5, 4), _TARGETS, form="opset 12", opset=12, results=_results, reduction="sum")

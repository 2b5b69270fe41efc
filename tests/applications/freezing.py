"""Operators without a rule, on operands that carry slots."""

from __future__ import annotations

import numpy as np

from applications.application import DOMAIN, Table
from applications.operands import Fixed, T, floats, indexes, integer, ints, number

TABLE = Table()
use = TABLE.use

use("NonZero", T(3, 4))
use("Unique", T(3, 4), sorted=1)
use("Compress", T(3, 4, 5), Fixed(np.array([True, False, True, True])), axis=1)
use("NonMaxSuppression", T(1, 6, 4), T(1, 2, 6), integer(2), number(1.0))
use("EyeLike", T(4, 4))
use("RandomNormalLike", T(3, 4), seed=1.0)
use("Bernoulli", T(3, 4, through="Sigmoid"), seed=1.0)
use("DFT", T(3, 8, 1), None, integer(1), opset=20)
use("STFT", T(2, 16, 1), integer(4), None, integer(8))
use("Det", T(3, 4, 4))
use("OneHot", indexes(3, 4, below=6), integer(6), floats(0, 1))
use("AffineGrid", T(2, 2, 3), ints(2, 3, 5, 6))
use("CenterCropPad", T(3, 8, 5), ints(6), axes=[1])
use("DeformConv", T(2, 3, 6, 6), T(4, 3, 3, 3), T(2, 18, 4, 4, through="Tanh"))
use("NegativeLogLikelihoodLoss", T(3, 5), indexes(3, below=5), reduction="none")
use("SoftmaxCrossEntropyLoss", T(3, 5), indexes(3, below=5), reduction="none")
use("TensorScatter", T(2, 4, 8, 3), T(2, 4, 2, 3), ints(3, 1), opset=24, axis=2)
use(f"{DOMAIN}.MatMulNBits", T(3, 32), Fixed(np.arange(80, dtype=np.uint8).reshape(5, 1, 16)), floats(1, 2, 1, 2, 1),
    opset=21, K=32, N=5, bits=4, block_size=32)  # fmt: skip

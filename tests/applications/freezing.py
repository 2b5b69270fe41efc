"""Operators without a rule, on operands that carry slots."""

from __future__ import annotations

import numpy as np

from applications.application import DOMAIN, Table
from applications.operands import Fixed, T, floats, indexes, integer, number

TABLE = Table()
use = TABLE.use

use("NonZero", T(3, 4))
use("Unique", T(3, 4), sorted=1)
use("NonMaxSuppression", T(1, 6, 4), T(1, 2, 6), integer(2), number(1.0))
use("EyeLike", T(4, 4))
use("MaxUnpool", T(3, 4, 3), indexes(3, 4, 3, below=70), kernel_shape=[2], strides=[2])
use("RandomNormalLike", T(3, 4), seed=1.0)
use("Bernoulli", T(3, 4, through="Sigmoid"), seed=1.0)
use(f"{DOMAIN}.MatMulNBits", T(3, 32), Fixed(np.arange(80, dtype=np.uint8).reshape(5, 1, 16)), floats(1, 2, 1, 2, 1),
    opset=21, K=32, N=5, bits=4, block_size=32)  # fmt: skip

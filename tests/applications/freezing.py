"""Operators without a rule, on operands that carry slots."""

from __future__ import annotations

from applications.application import Table
from applications.operands import T, indexes, integer, number

TABLE = Table()
use = TABLE.use

use("NonZero", T(3, 4))
use("Unique", T(3, 4), sorted=1)
use("NonMaxSuppression", T(1, 6, 4), T(1, 2, 6), integer(2), number(1.0))
use("EyeLike", T(4, 4))
use("MaxUnpool", T(3, 4, 3), indexes(3, 4, 3, below=70), kernel_shape=[2], strides=[2])
use("RandomNormalLike", T(3, 4), seed=1.0)
use("Bernoulli", T(3, 4, through="Sigmoid"), seed=1.0)

"""Normalisations."""

from __future__ import annotations

from applications.application import DOMAIN, Table
from applications.operands import T, indexes

TABLE = Table()
use = TABLE.use

_CHANNELS = (T(4), T(4), T(4), T(4, through="AboveOne"))

use("BatchNormalization", T(3, 4, 5, 6), *_CHANNELS)
use("BatchNormalization", T(3, 4), *_CHANNELS, form="two axes")
use("BatchNormalization", T(3, 4, 5, 6), *_CHANNELS, form="opset 9", opset=9)
use("BatchNormalization", T(3, 4, 5, 6), *_CHANNELS, form="opset 8", opset=8)
use("BatchNormalization", T(3, 4, 5, 6), *_CHANNELS, form="training", results=3, training_mode=1)

use("InstanceNormalization", T(3, 4, 5, 6), T(4), T(4))
use("InstanceNormalization", T(3, 4, 5), T(4), T(4), form="one axis")

use("LayerNormalization", T(3, 4, 5), T(5), T(5))
use("LayerNormalization", T(3, 4, 5), T(5), form="no bias", epsilon=1e-3)
use("LayerNormalization", T(3, 4, 5), T(4, 5), T(4, 5), form="two axes", axis=1)
use("LayerNormalization", T(3, 4, 5), T(5), T(5), form="axis 1, short scale", axis=1)
use("LayerNormalization", T(3, 4, 5), T(5), T(5), form="statistics", results=3)
use("RMSNormalization", T(3, 4, 5), T(5), opset=23)
use("RMSNormalization", T(3, 4, 5), T(4, 5), form="two axes", opset=23, axis=1)
use("SimplifiedLayerNormalization", T(3, 4, 5), T(5), opset=17)
use("SimplifiedLayerNormalization", T(3, 4, 5), T(5), form="statistics", opset=17, results=2)

use("GroupNormalization", T(3, 6, 5, 4), T(6), T(6), num_groups=2)
use("GroupNormalization", T(3, 6, 5, 4), T(6), T(6), form="one channel each", num_groups=6)
use("GroupNormalization", T(3, 6, 5), T(6), T(6), form="one group", num_groups=1)

use("MeanVarianceNormalization", T(3, 4, 5, 6))
use("MeanVarianceNormalization", T(3, 4, 5, 6), form="channels too", axes=[1, 2, 3])
use("LRN", T(3, 4, 5, 6), size=3)

_SKIP, _SKIP_RMS = f"{DOMAIN}.SkipLayerNormalization", f"{DOMAIN}.SkipSimplifiedLayerNormalization"
use(_SKIP, T(3, 4, 5), T(3, 4, 5), T(5), T(5), T(5), opset=17)
use(_SKIP, T(3, 4, 5), T(3, 4, 5), T(5), form="scale alone", opset=17)
use(_SKIP, T(3, 4, 5), T(1, 4, 5), T(5), T(5), form="one skip for all", opset=17)
use(_SKIP, T(3, 4, 5), T(4, 5), T(5), T(5), form="skip of two axes", opset=17)
use(_SKIP, T(3, 4, 5), T(3, 4, 5), T(5), T(5), form="sum taken along", opset=17, results=4, unused=(1, 2))
use(_SKIP_RMS, T(3, 4, 5), T(3, 4, 5), T(5), T(5), opset=17)
use(_SKIP_RMS, T(3, 4, 5), T(3, 4, 5), T(5), form="no bias", opset=17)
use(_SKIP_RMS, T(3, 4, 5), T(3, 4, 5), T(5), T(5), form="sum taken along", opset=17, results=4, unused=(1, 2))

_EMBED = f"{DOMAIN}.EmbedLayerNormalization"
_TOKENS, _SEGMENTS = indexes(2, 4, below=7, dtype="int32"), indexes(2, 4, below=3, dtype="int32")
_TABLES = T(7, 5), T(6, 5), T(3, 5)
use(_EMBED, _TOKENS, _SEGMENTS, *_TABLES, T(5), T(5), opset=17, results=2)
use(_EMBED, _TOKENS, _SEGMENTS, *_TABLES, T(5), T(5), form="sum taken along", opset=17, results=3)
use(_EMBED, _TOKENS, None, T(7, 5), T(6, 5), None, T(5), T(5), form="no segments", opset=17, results=2)
use(
    _EMBED, _TOKENS, _SEGMENTS, *_TABLES, T(5), T(5), indexes(2, 4, below=2, dtype="int32"),
    indexes(2, 4, below=6, dtype="int32"), form="mask and positions", opset=17, results=2,
)  # fmt: skip

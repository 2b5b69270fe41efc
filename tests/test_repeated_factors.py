"""An axis whose factors share a dim: a position may need a slot through either factor."""

from __future__ import annotations

import numpy as np
import onnx

from models.building import Net
from models.zeroing import pruned


def tiled_beside_a_depthwise_convolution() -> onnx.ModelProto:
    """Channels (t c) of a Tile added to channels (c m) of a depthwise convolution: 2 * 8 against 8 * 2."""
    net = Net("tiled")
    x = net.conv(net.input("x", (2, 3, 6, 6)), 3, 8, 1, name="conv1")
    y = net.op("Tile", x, net.const(np.array([1, 2, 1, 1], dtype=np.int64), "repeats"))
    z = net.conv(x, 8, 16, 3, group=8, name="dw")
    return net.build(net.conv(net.op("Add", z, y), 16, 3, 1, name="conv2"))


def test_a_tiled_channel_is_not_taken_for_zero_where_only_the_copy_goes() -> None:
    pruned(tiled_beside_a_depthwise_convolution(), ("conv1.weight", 2, "consumers"))

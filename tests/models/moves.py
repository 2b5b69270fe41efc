"""Models whose dims meet through data movement: adds, concats, splits, reshapes, shuffles, grouped convolutions."""

from __future__ import annotations

import numpy as np
import onnx

from models.building import Builder, Net, registrar

MODELS: dict[str, Builder] = {}
row = registrar(MODELS)


def image(net: Net, channels: int = 3, side: int = 8) -> str:
    """The usual input of the models here."""
    return net.input("x", (2, channels, side, side))


def head(net: Net, x: str, channels: int, classes: int = 5) -> onnx.ModelProto:
    """Global average pooling and a linear classifier."""
    pooled = net.op("Flatten", net.op("GlobalAveragePool", x), axis=1)
    return net.build(net.linear(pooled, channels, classes, name="head"))


@row
def residual_add() -> onnx.ModelProto:
    """Two blocks add to one stream: stem and both second convolutions share a dim."""
    net = Net("residual_add")
    x = net.conv_bn_relu(image(net), 3, 8, name="stem")
    for block in ("layer1", "layer2"):
        y = net.conv_bn_relu(x, 8, 12, name=f"{block}.conv1")
        y = net.batch_norm(net.conv(y, 12, 8, bias=False, name=f"{block}.conv2"), 8)
        x = net.op("Relu", net.op("Add", x, y))
    return head(net, x, 8)


@row
def residual_sum_of_three() -> onnx.ModelProto:
    """Sum with three operands ties three producers."""
    net = Net("residual_sum_of_three")
    x = image(net)
    x = net.op("Sum", *(net.conv(x, 3, 8, k, name=f"branch{k}") for k in (1, 3, 5)))
    return head(net, net.conv(net.op("Relu", x), 8, 6), 6)


@row
def residual_from_input() -> onnx.ModelProto:
    """A residual around layers from the model's input: the stream cannot be pruned, the inside can."""
    net = Net("residual_from_input")
    x = image(net, 6)
    y = net.conv(net.op("Relu", net.conv(x, 6, 10)), 10, 6)
    return net.build(net.op("Add", x, y))


@row
def concat() -> onnx.ModelProto:
    """Branches of different widths, as in Inception; then a batch norm over the whole."""
    net = Net("concat")
    x = net.op("Relu", net.conv(image(net), 3, 8, name="stem"))
    branches = [net.conv(x, 8, width, k, name=f"branch{k}") for width, k in ((4, 1), (6, 3), (5, 5))]
    y = net.op("Relu", net.batch_norm(net.op("Concat", *branches, axis=1), 15))
    return head(net, net.conv(y, 15, 7, 1, name="mix"), 7)


@row
def concat_dense() -> onnx.ModelProto:
    """Dense connections: every layer reads all earlier ones, each through its own batch norm."""
    net = Net("concat_dense")
    features = [net.conv(image(net), 3, 6, name="stem")]
    width = 6
    for index in range(3):
        x = net.op("Concat", *features, axis=1) if len(features) > 1 else features[0]
        x = net.op("Relu", net.batch_norm(x, width))
        features.append(net.conv(x, width, 4, bias=False, name=f"dense{index}"))
        width += 4
    return head(net, net.op("Relu", net.batch_norm(net.op("Concat", *features, axis=1), width)), width)


@row
def concat_with_itself() -> onnx.ModelProto:
    """[x, x] and [x, relu(-x)]: one producer slot has two places in the consumer."""
    net = Net("concat_with_itself")
    x = net.conv(image(net), 3, 6, name="stem")
    y = net.conv(net.op("Concat", x, x, axis=1), 12, 8, name="twice")
    z = net.op("Concat", net.op("Relu", y), net.op("Relu", net.op("Neg", y)), axis=1)
    return head(net, net.conv(z, 16, 6, name="crelu"), 6)


@row
def concat_with_input() -> onnx.ModelProto:
    """Concatenated with the model's input: part of the dim is frozen, the rest is free."""
    net = Net("concat_with_input")
    x = image(net)
    y = net.op("Relu", net.conv(x, 3, 6, name="stem"))
    return head(net, net.conv(net.op("Concat", x, y, axis=1), 9, 8, name="mix"), 8)


@row
def split() -> onnx.ModelProto:
    """Uneven split, each part through its own path, joined again: slots keep their identity."""
    net = Net("split")
    x = net.op("Relu", net.conv(image(net), 3, 12, name="stem"))
    a, b, c = net.split(x, [3, 5, 4], 1)
    y = net.op("Concat", net.conv(a, 3, 6, name="left"), b, net.op("Sigmoid", c), axis=1)
    return head(net, net.conv(y, 15, 6, name="mix"), 6)


@row
def split_gate() -> onnx.ModelProto:
    """A gated linear unit: two halves of one layer multiply, so slots i and i + n/2 are tied."""
    net = Net("split_gate")
    x = net.input("x", (4, 6))
    value, gate = net.split(net.linear(x, 6, 16, name="fc1"), [8, 8], 1)
    return net.build(net.linear(net.op("Mul", value, net.op("Sigmoid", gate)), 8, 5, name="fc2"))


@row
def slice_halves() -> onnx.ModelProto:
    """Slices instead of a split; one with negative bounds, one that overlaps, added to a projection."""
    net = Net("slice_halves")
    x = net.op("Relu", net.conv(image(net), 3, 12, name="stem"))
    low = net.slice(x, 0, 6, 1)
    high = net.slice(x, -6, np.iinfo(np.int64).max, 1)
    middle = net.slice(x, 3, 9, -3)
    y = net.op("Add", net.conv(low, 6, 6, name="low"), high)
    return head(net, net.conv(net.op("Concat", y, middle, axis=1), 12, 7, name="mix"), 7)


@row
def slice_strided() -> onnx.ModelProto:
    """Even and odd channels go different ways."""
    net = Net("slice_strided")
    x = net.op("Relu", net.conv(image(net), 3, 12, name="stem"))
    even, odd = net.slice(x, 0, 12, 1, 2), net.slice(x, 1, 12, 1, 2)
    y = net.op("Add", net.conv(even, 6, 8, name="even"), net.conv(odd, 6, 8, name="odd"))
    return head(net, net.op("Relu", y), 8)


@row
def slice_reversed() -> onnx.ModelProto:
    """x + flip(x): slots i and n - 1 - i are tied."""
    net = Net("slice_reversed")
    x = net.op("Relu", net.conv(image(net), 3, 8, name="stem"))
    flipped = net.slice(x, -1, np.iinfo(np.int64).min, 1, -1)
    return head(net, net.conv(net.op("Add", x, flipped), 8, 6, name="mix"), 6)


@row
def slice_frozen_part() -> onnx.ModelProto:
    """The first four channels are an output: only those are frozen, not the other eight."""
    net = Net("slice_frozen_part")
    x = net.op("Relu", net.conv(image(net), 3, 12, name="stem"))
    y = net.conv(x, 12, 6, name="mix")
    return net.build(net.slice(x, 0, 4, 1), net.op("GlobalAveragePool", y))


@row
def gather_channels() -> onnx.ModelProto:
    """A constant permutation of the channels, by Gather, added to its own input."""
    net = Net("gather_channels")
    x = net.op("Relu", net.conv(image(net), 3, 8, name="stem"))
    order = net.const(np.array([1, 2, 3, 0, 5, 4, 7, 6]), "order")
    y = net.op("Add", x, net.op("Gather", x, order, axis=1))
    return head(net, net.conv(y, 8, 6, name="mix"), 6)


@row
def roll_channels() -> onnx.ModelProto:
    """A roll of the channels, as Slice and Concat, into the next layer."""
    net = Net("roll_channels")
    x = net.op("Relu", net.conv(image(net), 3, 9, name="stem"))
    rolled = net.op("Concat", net.slice(x, 4, 9, 1), net.slice(x, 0, 4, 1), axis=1)
    return head(net, net.conv(rolled, 9, 6, name="mix"), 6)


@row
def flatten_linear() -> onnx.ModelProto:
    """Removing channel c removes its H * W columns of the linear layer."""
    net = Net("flatten_linear")
    x = net.op("Relu", net.conv(image(net, side=4), 3, 6, name="conv1"))
    x = net.op("Relu", net.conv(x, 6, 5, name="conv2"))
    x = net.op("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    x = net.op("Relu", net.linear(net.op("Flatten", x, axis=1), 5 * 4, 10, name="fc1"))
    return net.build(net.linear(x, 10, 4, name="fc2"))


@row
def reshape_linear() -> onnx.ModelProto:
    """Flatten by Reshape, once with -1, once with 0 and a product, once from channels-last."""
    net = Net("reshape_linear")
    x = net.op("Relu", net.conv(image(net, side=2), 3, 6, name="conv1"))
    a = net.linear(net.reshape(x, 2, -1), 24, 8, name="minus_one")
    b = net.linear(net.reshape(x, 0, 24), 24, 8, name="zero")
    c = net.linear(net.reshape(net.transpose(x, 0, 2, 3, 1), -1, 24), 24, 8, name="last")
    return net.build(net.linear(net.op("Relu", net.op("Sum", a, b, c)), 8, 4, name="head"))


@row
def reshape_shared_shape() -> onnx.ModelProto:
    """Two Reshapes read one shape constant, and only one of the two tensors may shrink."""
    net = Net("reshape_shared_shape")
    x = net.input("x", (2, 6, 4))
    shape = net.ints(2, 24, hint="shape")
    a = net.op("Reshape", x, shape)
    hidden = net.transpose(net.dense(net.transpose(x, 0, 2, 1), 6, 6, name="inner"), 0, 2, 1)
    b = net.op("Reshape", net.op("Relu", hidden), shape)
    return net.build(net.op("Add", net.linear(a, 24, 5, name="left"), net.linear(b, 24, 5, name="right")))


@row
def regroup_4x6_to_6x4() -> onnx.ModelProto:
    """[4, 6] read as [6, 4]: only what both grids agree on can go."""
    net = Net("regroup_4x6_to_6x4")
    x = net.reshape(net.op("Relu", net.linear(net.input("x", (3, 5)), 5, 24, name="fc1")), 3, 4, 6)
    x = net.op("Mul", x, net.const(net.normal(4, 6), "scale"))
    x = net.op("Mul", net.reshape(x, 3, 6, 4), net.const(net.normal(6, 4), "scale"))
    return net.build(net.linear(net.reshape(x, 3, 24), 24, 4, name="fc2"))


@row
def grouped_conv() -> onnx.ModelProto:
    """ResNeXt-like: channels go inside the groups, or whole groups go."""
    net = Net("grouped_conv")
    x = net.conv_bn_relu(image(net), 3, 12, 1, name="reduce")
    x = net.conv_bn_relu(x, 12, 12, group=3, name="grouped")
    return head(net, net.op("Relu", net.conv(x, 12, 8, 1, name="expand")), 8)


@row
def grouped_conv_uneven() -> onnx.ModelProto:
    """Two grouped convolutions with different groups in a row: 2 groups of 6, then 4 groups of 3."""
    net = Net("grouped_conv_uneven")
    x = net.op("Relu", net.conv(image(net), 3, 12, 1, name="reduce"))
    x = net.op("Relu", net.conv(x, 12, 12, group=2, name="two"))
    x = net.op("Relu", net.conv(x, 12, 8, group=4, name="four"))
    return head(net, net.conv(x, 8, 6, 1, name="expand"), 6)


@row
def grouped_conv_residual() -> onnx.ModelProto:
    """The stream around a grouped convolution is one dim with what goes in and out of the groups."""
    net = Net("grouped_conv_residual")
    x = net.op("Relu", net.conv(image(net), 3, 12, name="stem"))
    x = net.op("Add", x, net.op("Relu", net.conv(x, 12, 12, group=3, name="grouped")))
    return head(net, net.op("Relu", x), 12)


@row
def depthwise_conv() -> onnx.ModelProto:
    """MobileNet-like: in, depthwise weight and out are one dim."""
    net = Net("depthwise_conv")
    x = net.conv_bn_relu(image(net), 3, 8, name="stem")
    y = net.conv_bn_relu(x, 8, 16, 1, name="expand")
    y = net.conv_bn_relu(y, 16, 16, group=16, name="depthwise")
    y = net.batch_norm(net.conv(y, 16, 8, 1, bias=False, name="project"), 8)
    return head(net, net.op("Add", x, y), 8)


@row
def depthwise_multiplier() -> onnx.ModelProto:
    """A depthwise convolution with two outputs a channel."""
    net = Net("depthwise_multiplier")
    x = net.op("Relu", net.conv(image(net), 3, 6, 1, name="expand"))
    x = net.op("Relu", net.conv(x, 6, 12, group=6, name="depthwise"))
    return head(net, net.conv(x, 12, 5, 1, name="project"), 5)


@row
def depthwise_on_input() -> onnx.ModelProto:
    """A depthwise convolution on the model's input: frozen, with a reason."""
    net = Net("depthwise_on_input")
    x = net.op("Relu", net.conv(image(net, 4), 4, 4, group=4, name="depthwise"))
    x = net.op("Relu", net.conv(x, 4, 10, 1, name="expand"))
    return head(net, net.conv(x, 10, 6, 1, name="project"), 6)


@row
def channel_shuffle() -> onnx.ModelProto:
    """ShuffleNetV2: split, a branch, concat, [2, C] -> [C, 2]; two units, so that the shuffle is split again."""
    net = Net("channel_shuffle")
    x = net.op("Relu", net.conv(image(net), 3, 16, name="stem"))
    for unit in ("unit1", "unit2"):
        a, b = net.split(x, [8, 8], 1)
        b = net.conv_bn_relu(b, 8, 8, 1, name=f"{unit}.pw1")
        b = net.batch_norm(net.conv(b, 8, 8, group=8, bias=False, name=f"{unit}.dw"), 8)
        b = net.conv_bn_relu(b, 8, 8, 1, name=f"{unit}.pw2")
        x = net.op("Concat", a, b, axis=1)
        x = net.reshape(net.transpose(net.reshape(x, 2, 2, 8, 8, 8), 0, 2, 1, 3, 4), 2, 16, 8, 8)
    return head(net, net.op("Relu", net.conv(x, 16, 10, 1, name="last")), 10)


@row
def channel_shuffle_groups() -> onnx.ModelProto:
    """ShuffleNet: grouped 1x1, shuffle over the groups, depthwise, grouped 1x1, residual."""
    net = Net("channel_shuffle_groups")
    x = net.op("Relu", net.conv(image(net), 3, 12, name="stem"))
    y = net.op("Relu", net.conv(x, 12, 12, 1, group=3, name="compress"))
    y = net.reshape(net.transpose(net.reshape(y, 2, 3, 4, 8, 8), 0, 2, 1, 3, 4), 2, 12, 8, 8)
    y = net.conv(net.conv(y, 12, 12, group=12, name="depthwise"), 12, 12, 1, group=3, name="expand")
    return head(net, net.op("Relu", net.op("Add", x, y)), 12)


@row
def squeeze_excite() -> onnx.ModelProto:
    """The gate is made from the channels it multiplies; it broadcasts over space."""
    net = Net("squeeze_excite")
    x = net.op("Relu", net.conv(image(net), 3, 12, name="stem"))
    gate = net.op("Relu", net.conv(net.mean(x, 2, 3), 12, 4, 1, name="squeeze"))
    gate = net.op("HardSigmoid", net.conv(gate, 4, 12, 1, name="excite"), alpha=1 / 6, beta=0.5)
    return head(net, net.conv(net.op("Mul", x, gate), 12, 8, name="project"), 8)


@row
def layer_scale_and_broadcasts() -> onnx.ModelProto:
    """A 1-D layer scale, a [C, 1, 1] bias, a scalar, and a [1, 1, 1, 1] gate from one channel."""
    net = Net("layer_scale_and_broadcasts")
    x = net.op("Relu", net.conv(image(net), 3, 8, name="stem"))
    y = net.op("Mul", net.transpose(x, 0, 2, 3, 1), net.const(net.normal(8), "layer_scale"))
    y = net.op("Add", net.transpose(y, 0, 3, 1, 2), net.const(net.normal(8, 1, 1), "offset"))
    y = net.op("Mul", y, net.number(1.5))
    gate = net.op("Sigmoid", net.conv(x, 8, 1, name="gate"))
    return head(net, net.conv(net.op("Mul", y, gate), 8, 6, name="mix"), 6)


@row
def outer_product() -> onnx.ModelProto:
    """[C, 1] * [1, D] flattened: a product of two pruned dims, both free."""
    net = Net("outer_product")
    x = net.input("x", (3, 5))
    a = net.unsqueeze(net.linear(x, 5, 4, name="a"), 2)
    b = net.unsqueeze(net.linear(x, 5, 6, name="b"), 1)
    y = net.reshape(net.op("Mul", a, b), 3, 24)
    return net.build(net.linear(net.op("Tanh", y), 24, 4, name="head"))


@row
def conv_transpose() -> onnx.ModelProto:
    """Up-sampling by ConvTranspose ([in, out, k, k]), plain and grouped, with a skip by concat."""
    net = Net("conv_transpose")
    x = net.op("Relu", net.conv(image(net), 3, 6, name="enc1"))
    y = net.op("Relu", net.conv(x, 6, 8, stride=2, name="enc2"))
    up = net.op(
        "ConvTranspose", y, net.weight(8, 6, 2, 2, fan=8, hint="up.weight"), net.bias(6, "up.bias"),
        kernel_shape=[2, 2], strides=[2, 2],
    )  # fmt: skip
    z = net.op("Relu", net.conv(net.op("Concat", x, up, axis=1), 12, 8, name="dec1"))
    grouped = net.op(
        "ConvTranspose", z, net.weight(8, 3, 2, 2, fan=4, hint="up2.weight"), net.bias(6, "up2.bias"),
        kernel_shape=[2, 2], strides=[2, 2], group=2,
    )  # fmt: skip
    return net.build(net.conv(net.op("Relu", grouped), 6, 2, name="dec2"))


@row
def pixel_shuffle() -> onnx.ModelProto:
    """DepthToSpace in both modes, and SpaceToDepth."""
    net = Net("pixel_shuffle")
    x = net.op("Relu", net.conv(image(net, side=4), 3, 16, name="stem"))
    crd = net.op("DepthToSpace", x, blocksize=2, mode="CRD")
    dcr = net.op("DepthToSpace", x, blocksize=2, mode="DCR")
    y = net.op("Add", net.conv(crd, 4, 6, name="crd"), net.conv(dcr, 4, 6, name="dcr"))
    z = net.op("SpaceToDepth", net.op("Relu", y), blocksize=2)
    return net.build(net.conv(z, 24, 5, name="last"))


@row
def pixel_shuffle_reshaped() -> onnx.ModelProto:
    """Pixel shuffle as Reshape, Transpose, Reshape."""
    net = Net("pixel_shuffle_reshaped")
    x = net.op("Relu", net.conv(image(net, side=4), 3, 12, name="stem"))
    x = net.transpose(net.reshape(x, 2, 3, 2, 2, 4, 4), 0, 1, 4, 2, 5, 3)
    return net.build(net.conv(net.reshape(x, 2, 3, 8, 8), 3, 4, name="last"))


@row
def pad_resize_tile() -> onnx.ModelProto:
    """Pad (space and channels), Resize, Tile over channels, Expand."""
    net = Net("pad_resize_tile")
    x = net.op("Relu", net.conv(image(net), 3, 6, name="stem"))
    padded = net.op("Pad", x, net.ints(0, 0, 1, 1, 0, 2, 1, 1, hint="pads"))
    y = net.op("Relu", net.conv(padded, 8, 4, pad=0, name="after_pad"))
    y = net.op("Resize", y, "", net.const(np.array([1, 1, 2, 2], np.float32), "scales"), mode="nearest")
    y = net.op("Tile", y, net.ints(1, 2, 1, 1, hint="repeats"))
    pooled = net.op("GlobalAveragePool", net.conv(y, 8, 6, name="after_tile"))
    grown = net.op("Expand", pooled, net.ints(2, 6, 3, 1, hint="shape"))
    return net.build(net.conv(grown, 6, 4, 1, name="last"))


@row
def einsum() -> onnx.ModelProto:
    """Einsum contractions over pruned dims."""
    net = Net("einsum")
    x = net.input("x", (2, 4, 5))
    q = net.op("Einsum", x, net.const(net.normal(5, 3, 6), "wq"), equation="bsd,dhk->bshk")
    k = net.op("Einsum", x, net.const(net.normal(5, 3, 6), "wk"), equation="bsd,dhk->bshk")
    v = net.op("Einsum", x, net.const(net.normal(5, 3, 4), "wv"), equation="bsd,dhk->bshk")
    scores = net.op("Softmax", net.op("Einsum", q, k, equation="bshk,bthk->bhst"), axis=-1)
    y = net.op("Einsum", scores, v, equation="bhst,bthk->bshk")
    return net.build(net.op("Einsum", y, net.const(net.normal(3, 4, 5), "wo"), equation="bshk,hkd->bsd"))


@row
def reduce_over_channels() -> onnx.ModelProto:
    """Sum, mean, max, L2 and softmax over pruned channels: each has its own rule for what is dead."""
    net = Net("reduce_over_channels")
    x = image(net)
    parts = [
        net.sum(net.op("Relu", net.conv(x, 3, 8, name="for_sum")), 1),
        net.mean(net.op("Relu", net.conv(x, 3, 8, name="for_mean")), 1),
        net.reduce("ReduceMax", net.op("Relu", net.conv(x, 3, 8, name="for_max")), 1),
        net.reduce("ReduceMax", net.conv(x, 3, 8, name="for_signed_max"), 1),
        net.reduce("ReduceL2", net.conv(x, 3, 8, name="for_norm"), 1),
        net.reduce("ReduceMax", net.op("Softmax", net.conv(x, 3, 8, name="for_softmax"), axis=1), 1),
    ]
    y = net.op("Concat", *parts, axis=1)
    return net.build(net.conv(y, 6, 4, name="last"))


@row
def observed_channels() -> onnx.ModelProto:
    """Order matters along the channels: LRN, CumSum, TopK, ArgMax; frozen, with reasons."""
    net = Net("observed_channels")
    x = image(net)
    lrn = net.op("LRN", net.conv(x, 3, 6, name="for_lrn"), size=3, alpha=0.5)
    cumsum = net.op("CumSum", net.conv(x, 3, 6, name="for_cumsum"), net.integer(1))
    top, _ = net.ops("TopK", net.conv(x, 3, 6, name="for_topk"), net.ints(2), outputs=2, axis=1)
    best = net.op("Cast", net.op("ArgMax", net.conv(x, 3, 6, name="for_argmax"), axis=1), to=onnx.TensorProto.FLOAT)
    y = net.op("Concat", lrn, cumsum, top, best, axis=1)
    return net.build(net.conv(y, 15, 4, name="last"))

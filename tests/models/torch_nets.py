"""Small torch networks, made to be exported: the architectures of the papers and of torchvision, a few layers each.

:func:`sample` gives a module in eval mode, its sample inputs (batch first) and the axes that vary.
"""

# Modules called and attributes of modules are untyped in torch.
# mypy: disable-error-code="no-any-return, index"

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Sample(NamedTuple):
    """A module ready for export.

    Attributes:
        inputs: sample inputs by name.
        dynamic: per input, the names of the axes that vary in a dynamic export.
    """

    module: nn.Module
    inputs: dict[str, Tensor]
    dynamic: dict[str, dict[int, str]]


def perturbed(module: nn.Module, inputs: dict[str, Tensor], seed: int) -> nn.Module:
    """Move every parameter away from its neutral initial value, give batch norms statistics of real activations."""
    generator = torch.Generator().manual_seed(seed)

    def noise(like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=generator)

    with torch.no_grad():
        for name, parameter in module.named_parameters():
            leaf = name.rsplit(".", 1)[-1]
            if leaf == "layer_scale":
                parameter.copy_(0.6 + 0.2 * noise(parameter))
            elif parameter.ndim <= 1:
                parameter.add_(0.2 * noise(parameter))
            elif not parameter.std() > 0:
                parameter.add_(noise(parameter) * parameter.shape[-1] ** -0.5)
            else:
                parameter.add_(0.1 * parameter.std() * noise(parameter))
        norms = [layer for layer in module.modules() if isinstance(layer, nn.BatchNorm2d)]
        module.eval()
        for layer in norms:
            layer.train()
            layer.momentum = None
        if norms:
            # A larger batch than the sample: with few images the statistics of late layers say little.
            module(*(torch.randn(8, *x.shape[1:], generator=generator) for x in inputs.values()))
        for layer in norms:
            layer.eval()
            layer.momentum = 0.1
            assert layer.running_mean is not None
            assert layer.running_var is not None
            layer.running_mean.add_(0.1 * layer.running_var.sqrt() * noise(layer.running_mean))
            layer.running_var.mul_(1 + 0.3 * torch.rand(layer.running_var.shape, generator=generator))
        head = [layer for layer in module.modules() if isinstance(layer, nn.Linear)][-1:]
        if head and all(x.is_floating_point() for x in inputs.values()):
            # Pooled features of noise images hardly differ; the classifier brings the difference out.
            logits = module(*(torch.randn(8, *x.shape[1:], generator=generator) for x in inputs.values()))
            gain = 1 / logits.std(0).mean()
            head[0].weight.mul_(gain)
            head[0].bias.sub_(logits.mean(0)).mul_(gain).add_(noise(head[0].bias))
    return module.requires_grad_(False).eval()


def images(side: int = 32, batch: int = 2) -> tuple[dict[str, Tensor], dict[str, dict[int, str]]]:
    """Sample images, and the batch as the axis that varies."""
    x = torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(0))
    return {"x": x}, {"x": {0: "batch"}}


def tokens(vocabulary: int, length: int = 8, batch: int = 2) -> tuple[dict[str, Tensor], dict[str, dict[int, str]]]:
    """Sample token numbers; batch and sequence vary."""
    x = torch.randint(0, vocabulary, (batch, length), generator=torch.Generator().manual_seed(0))
    return {"tokens": x}, {"tokens": {0: "batch", 1: "sequence"}}


# -- image networks --------------------------------------------------------------------------------------------------


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, as in ResNet-18."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(c_out)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(c_out)
        self.downsample: nn.Module | None = None
        if stride != 1 or c_in != c_out:
            self.downsample = nn.Sequential(nn.Conv2d(c_in, c_out, 1, stride, bias=False), nn.BatchNorm2d(c_out))

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + shortcut)


class Bottleneck(nn.Module):
    """1x1, grouped 3x3, 1x1 and a shortcut, as in ResNeXt."""

    def __init__(self, c_in: int, width: int, c_out: int, stride: int, groups: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, groups=groups, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, c_out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(c_out)
        self.downsample = nn.Sequential(nn.Conv2d(c_in, c_out, 1, stride, bias=False), nn.BatchNorm2d(c_out))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        return F.relu(self.bn3(self.conv3(y)) + self.downsample(x))


class ResNet(nn.Module):
    """A stem, blocks in stages, average pooling, a classifier."""

    def __init__(self, stages: list[nn.Module], stem: int, width: int, classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, stem, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.layers = nn.Sequential(*stages)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layers(self.maxpool(F.relu(self.bn1(self.conv1(x)))))
        return self.fc(torch.flatten(self.avgpool(x), 1))


def resnet() -> nn.Module:
    """ResNet-18 with an eighth of its width: two blocks in each of four stages."""
    widths = (16, 24, 40, 64)
    stages: list[nn.Module] = []
    c_in = 16
    for index, width in enumerate(widths):
        stages += [BasicBlock(c_in, width, 1 if index == 0 else 2), BasicBlock(width, width, 1)]
        c_in = width
    return ResNet(stages, 16, 64)


def resnext() -> nn.Module:
    """Grouped bottlenecks."""
    return ResNet([Bottleneck(16, 24, 48, 1, 4), Bottleneck(48, 32, 64, 2, 4)], 16, 64)


class SqueezeExcite(nn.Module):
    """Channels gated by their own means."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc1 = nn.Conv2d(width, hidden, 1)
        self.fc2 = nn.Conv2d(hidden, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * F.hardsigmoid(self.fc2(F.relu(self.fc1(self.avgpool(x)))))


class InvertedResidual(nn.Module):
    """MobileNetV3's block: expand, depthwise, squeeze-excite, project, and a shortcut where shapes allow."""

    def __init__(self, c_in: int, k: int, hidden: int, c_out: int, excite: bool, swish: bool, stride: int) -> None:
        super().__init__()
        act: type[nn.Module] = nn.Hardswish if swish else nn.ReLU
        layers: list[nn.Module] = []
        if hidden != c_in:
            layers += [nn.Conv2d(c_in, hidden, 1, bias=False), nn.BatchNorm2d(hidden), act()]
        depthwise = nn.Conv2d(hidden, hidden, k, stride, k // 2, groups=hidden, bias=False)
        layers += [depthwise, nn.BatchNorm2d(hidden), act()]
        if excite:
            layers.append(SqueezeExcite(hidden, 8))
        layers += [nn.Conv2d(hidden, c_out, 1, bias=False), nn.BatchNorm2d(c_out)]
        self.block = nn.Sequential(*layers)
        self.shortcut = stride == 1 and c_in == c_out

    def forward(self, x: Tensor) -> Tensor:
        y = self.block(x)
        return x + y if self.shortcut else y


def mobilenet_v3() -> nn.Module:
    """MobileNetV3: inverted residuals with squeeze-excite and hard swish; five blocks."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.Hardswish(),
        InvertedResidual(16, 3, 16, 16, True, False, 1),
        InvertedResidual(16, 3, 40, 24, False, False, 2),
        InvertedResidual(24, 3, 56, 24, False, False, 1),
        InvertedResidual(24, 5, 64, 32, True, True, 2),
        InvertedResidual(32, 5, 72, 32, True, True, 1),
        nn.Conv2d(32, 80, 1, bias=False), nn.BatchNorm2d(80), nn.Hardswish(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(1),
        nn.Linear(80, 96), nn.Hardswish(), nn.Dropout(0.2), nn.Linear(96, 10),
    )  # fmt: skip


def channel_shuffle(x: Tensor, groups: int) -> Tensor:
    """[groups, c] -> [c, groups] along the channels."""
    batch, channels, height, width = x.size()
    x = x.view(batch, groups, channels // groups, height, width)
    return torch.transpose(x, 1, 2).contiguous().view(batch, channels, height, width)


class ShuffleUnit(nn.Module):
    """ShuffleNetV2's unit: half of the channels pass, or both halves are made anew where the stride is two."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.stride, half = stride, c_out // 2
        self.branch1 = nn.Sequential()
        if stride == 2:
            self.branch1 = nn.Sequential(
                nn.Conv2d(c_in, c_in, 3, 2, 1, groups=c_in, bias=False), nn.BatchNorm2d(c_in),
                nn.Conv2d(c_in, half, 1, bias=False), nn.BatchNorm2d(half), nn.ReLU(),
            )  # fmt: skip
        self.branch2 = nn.Sequential(
            nn.Conv2d(c_in if stride == 2 else half, half, 1, bias=False), nn.BatchNorm2d(half), nn.ReLU(),
            nn.Conv2d(half, half, 3, stride, 1, groups=half, bias=False), nn.BatchNorm2d(half),
            nn.Conv2d(half, half, 1, bias=False), nn.BatchNorm2d(half), nn.ReLU(),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        if self.stride == 1:
            passed, worked = x.chunk(2, dim=1)
            y = torch.cat((passed, self.branch2(worked)), dim=1)
        else:
            y = torch.cat((self.branch1(x), self.branch2(x)), dim=1)
        return channel_shuffle(y, 2)


class SpatialMean(nn.Module):
    """Mean over height and width."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean([2, 3])


def shufflenet_v2() -> nn.Module:
    """ShuffleNetV2 with two narrow stages."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        ShuffleUnit(16, 24, 2), ShuffleUnit(24, 24, 1), ShuffleUnit(24, 24, 1),
        ShuffleUnit(24, 48, 2), ShuffleUnit(48, 48, 1),
        nn.Conv2d(48, 64, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU(), SpatialMean(), nn.Linear(64, 10),
    )  # fmt: skip


class DenseBlock(nn.Module):
    """Layers that each read everything before them."""

    def __init__(self, c_in: int, growth: int, count: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.BatchNorm2d(c_in + index * growth), nn.ReLU(),
                nn.Conv2d(c_in + index * growth, 2 * growth, 1, bias=False), nn.BatchNorm2d(2 * growth), nn.ReLU(),
                nn.Conv2d(2 * growth, growth, 3, 1, 1, bias=False),
            )
            for index in range(count)
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        features = [x]
        for layer in self.layers:
            features.append(layer(torch.cat(features, 1)))
        return torch.cat(features, 1)


def densenet() -> nn.Module:
    """DenseNet with three dense blocks and transitions."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(3, 2, 1),
        DenseBlock(16, 8, 2),
        nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 16, 1, bias=False), nn.AvgPool2d(2, 2),
        DenseBlock(16, 8, 3),
        nn.BatchNorm2d(40), nn.ReLU(), nn.Conv2d(40, 20, 1, bias=False), nn.AvgPool2d(2, 2),
        DenseBlock(20, 8, 2),
        nn.BatchNorm2d(36), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(1), nn.Linear(36, 10),
    )  # fmt: skip


class EncoderBlock(nn.Module):
    """ViT's block on torch's own multi-head attention."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width, eps=1e-6)
        self.self_attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.ln_2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(self, x: Tensor) -> Tensor:
        y = self.ln_1(x)
        y, _ = self.self_attention(y, y, y, need_weights=False)
        x = x + y
        return x + self.mlp(self.ln_2(x))


class ViT(nn.Module):
    """A vision transformer with a class token."""

    def __init__(self, side: int = 32, patch: int = 8, width: int = 48, heads: int = 4, depth: int = 3) -> None:
        super().__init__()
        self.conv_proj = nn.Conv2d(3, width, patch, patch)
        self.class_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embedding = nn.Parameter(torch.empty(1, (side // patch) ** 2 + 1, width).normal_(std=0.02))
        self.encoder = nn.Sequential(*(EncoderBlock(width, heads, 2 * width) for _ in range(depth)))
        self.ln = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        batch = x.shape[0]
        x = self.conv_proj(x).flatten(2).permute(0, 2, 1)
        x = torch.cat([self.class_token.expand(batch, -1, -1), x], dim=1) + self.pos_embedding
        return self.head(self.ln(self.encoder(x))[:, 0])


class WindowAttention(nn.Module):
    """Swin's attention: windows of a rolled image, fused qkv, a table of relative positions, a mask where it rolled."""

    def __init__(self, width: int, heads: int, window: int, shift: int, side: int) -> None:
        super().__init__()
        self.heads, self.window, self.shift = heads, window, shift
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.relative_position_bias_table = nn.Parameter(torch.randn((2 * window - 1) ** 2, heads) * 0.5)
        coords = torch.stack(torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")).flatten(1)
        relative = (coords[:, :, None] - coords[:, None, :]) + window - 1
        self.register_buffer("relative_position_index", (relative[0] * (2 * window - 1) + relative[1]).flatten())
        # Which of the pieces that the roll brings together a position comes from, [windows, window * window].
        edges = torch.arange(side)
        piece = (edges >= side - window).int() + (edges >= side - shift).int()
        pieces = (3 * piece[:, None] + piece[None, :]).view(side // window, window, side // window, window)
        pieces = pieces.permute(0, 2, 1, 3).reshape(-1, window * window)
        self.register_buffer("mask", (pieces[:, None, :] != pieces[:, :, None]).float() * -100.0)

    def forward(self, x: Tensor) -> Tensor:
        batch, height, width, channels = x.shape
        win = self.window
        if self.shift:
            x = torch.roll(x, shifts=(-self.shift, -self.shift), dims=(1, 2))
        windows = (height // win) * (width // win)
        x = x.view(batch, height // win, win, width // win, win, channels)
        x = x.permute(0, 1, 3, 2, 4, 5).reshape(batch * windows, win * win, channels)
        qkv = self.qkv(x).reshape(x.size(0), x.size(1), 3, self.heads, channels // self.heads).permute(2, 0, 3, 1, 4)
        q, k, v = qkv[0], qkv[1], qkv[2]
        q = q * (channels // self.heads) ** -0.5
        bias = self.relative_position_bias_table[self.relative_position_index]
        scores = q.matmul(k.transpose(-2, -1)) + bias.view(win * win, win * win, -1).permute(2, 0, 1).unsqueeze(0)
        if self.shift:
            scores = scores.view(batch, windows, self.heads, win * win, win * win)
            scores = (scores + self.mask[None, :, None]).view(-1, self.heads, win * win, win * win)
        y = scores.softmax(dim=-1).matmul(v).transpose(1, 2).reshape(batch * windows, win * win, channels)
        y = self.proj(y).view(batch, height // win, width // win, win, win, channels)
        y = y.permute(0, 1, 3, 2, 4, 5).reshape(batch, height, width, channels)
        return torch.roll(y, shifts=(self.shift, self.shift), dims=(1, 2)) if self.shift else y


class SwinBlock(nn.Module):
    """Pre-norm window attention and MLP, channels last."""

    def __init__(self, width: int, heads: int, window: int, shift: int, side: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn = WindowAttention(width, heads, window, shift, side)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class PatchMerging(nn.Module):
    """Four neighbours, by strided slices, become one position of twice the width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * width)
        self.reduction = nn.Linear(4 * width, 2 * width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        corners = [x[..., 0::2, 0::2, :], x[..., 1::2, 0::2, :], x[..., 0::2, 1::2, :], x[..., 1::2, 1::2, :]]
        return self.reduction(self.norm(torch.cat(corners, -1)))


class Swin(nn.Module):
    """Shifted windows of four in two stages."""

    def __init__(self, width: int = 24, side: int = 16) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, width, 2, 2)
        self.norm0 = nn.LayerNorm(width)
        self.stage1 = nn.Sequential(SwinBlock(width, 2, 4, 0, side), SwinBlock(width, 2, 4, 2, side))
        self.merge = PatchMerging(width)
        self.stage2 = nn.Sequential(SwinBlock(2 * width, 4, 4, 0, side // 2), SwinBlock(2 * width, 4, 4, 2, side // 2))
        self.norm = nn.LayerNorm(2 * width)
        self.head = nn.Linear(2 * width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm0(self.embed(x).permute(0, 2, 3, 1))
        x = self.norm(self.stage2(self.merge(self.stage1(x))))
        return self.head(x.permute(0, 3, 1, 2).mean([2, 3]))


class LayerNorm2d(nn.LayerNorm):
    """LayerNorm over the channels of an image."""

    def forward(self, x: Tensor) -> Tensor:
        x = F.layer_norm(x.permute(0, 2, 3, 1), self.normalized_shape, self.weight, self.bias, self.eps)
        return x.permute(0, 3, 1, 2)


class ConvNeXtBlock(nn.Module):
    """Depthwise 7x7, LayerNorm, MLP channels last, layer scale, shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.pwconv1 = nn.Linear(width, 3 * width)
        self.pwconv2 = nn.Linear(3 * width, width)
        self.layer_scale = nn.Parameter(torch.ones(width, 1, 1) * 1e-6)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.dwconv(x).permute(0, 2, 3, 1))
        y = self.pwconv2(F.gelu(self.pwconv1(y))).permute(0, 3, 1, 2)
        return x + self.layer_scale * y


def convnext() -> nn.Module:
    """ConvNeXt: two stages."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 4, 4), LayerNorm2d(16, eps=1e-6), ConvNeXtBlock(16), ConvNeXtBlock(16),
        LayerNorm2d(16, eps=1e-6), nn.Conv2d(16, 32, 2, 2), ConvNeXtBlock(32),
        nn.AdaptiveAvgPool2d(1), LayerNorm2d(32, eps=1e-6), nn.Flatten(1), nn.Linear(32, 10),
    )  # fmt: skip


# -- decoders --------------------------------------------------------------------------------------------------------


class RMSNorm(nn.Module):
    """x / rms(x) * weight, written out as in Llama."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))


def rotate_half(x: Tensor) -> Tensor:
    """[a, b] -> [-b, a] along the last axis."""
    half = x.shape[-1] // 2
    return torch.cat((-x[..., half:], x[..., :half]), dim=-1)


class GroupedQueryAttention(nn.Module):
    """Causal attention with rotary embedding; a key head serves several query heads."""

    def __init__(self, width: int, heads: int, kv_heads: int, head_width: int) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_width = heads, kv_heads, head_width
        self.q_proj = nn.Linear(width, heads * head_width, bias=False)
        self.k_proj = nn.Linear(width, kv_heads * head_width, bias=False)
        self.v_proj = nn.Linear(width, kv_heads * head_width, bias=False)
        self.o_proj = nn.Linear(heads * head_width, width, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        batch, length, _ = x.shape
        q = self.q_proj(x).view(batch, length, self.heads, self.head_width).transpose(1, 2)
        k = self.k_proj(x).view(batch, length, self.kv_heads, self.head_width).transpose(1, 2)
        v = self.v_proj(x).view(batch, length, self.kv_heads, self.head_width).transpose(1, 2)
        q, k = q * cos + rotate_half(q) * sin, k * cos + rotate_half(k) * sin
        repeats = self.heads // self.kv_heads
        shape = (batch, self.kv_heads, repeats, length, self.head_width)
        k = k[:, :, None].expand(shape).reshape(batch, self.heads, length, self.head_width)
        v = v[:, :, None].expand(shape).reshape(batch, self.heads, length, self.head_width)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.o_proj(y.transpose(1, 2).reshape(batch, length, -1))


class SwiGLU(nn.Module):
    """down(silu(gate(x)) * up(x))."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(width, hidden, bias=False)
        self.up_proj = nn.Linear(width, hidden, bias=False)
        self.down_proj = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class DecoderLayer(nn.Module):
    """Pre-norm attention and MLP."""

    def __init__(self, width: int, heads: int, kv_heads: int, head_width: int, hidden: int) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(width)
        self.self_attn = GroupedQueryAttention(width, heads, kv_heads, head_width)
        self.post_attention_layernorm = RMSNorm(width)
        self.mlp = SwiGLU(width, hidden)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), cos, sin)
        return x + self.mlp(self.post_attention_layernorm(x))


class Decoder(nn.Module):
    """A Llama-like decoder: tokens in, logits out."""

    def __init__(self, vocabulary: int = 96, width: int = 48, heads: int = 6, kv_heads: int = 2) -> None:
        super().__init__()
        head_width = 8
        self.embed_tokens = nn.Embedding(vocabulary, width)
        self.layers = nn.ModuleList(DecoderLayer(width, heads, kv_heads, head_width, 80) for _ in range(2))
        self.norm = RMSNorm(width)
        self.lm_head = nn.Linear(width, vocabulary, bias=False)
        frequency = 1.0 / 10000 ** (torch.arange(0, head_width, 2) / head_width)
        self.register_buffer("inv_freq", frequency, persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed_tokens(tokens)
        angle = torch.arange(tokens.shape[1], device=x.device)[:, None] * self.inv_freq[None, :]
        angle = torch.cat((angle, angle), dim=-1)
        cos, sin = angle.cos(), angle.sin()
        for layer in self.layers:
            x = layer(x, cos, sin)
        return self.lm_head(self.norm(x))


class FusedAttention(nn.Module):
    """GPT-2's attention: one projection for q, k and v; scores, mask and softmax written out."""

    def __init__(self, width: int, heads: int, positions: int) -> None:
        super().__init__()
        self.heads = heads
        self.c_attn = nn.Linear(width, 3 * width)
        self.c_proj = nn.Linear(width, width)
        self.register_buffer("bias", torch.ones(positions, positions).tril().bool()[None, None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        q, k, v = (
            part.view(batch, length, self.heads, -1).transpose(1, 2) for part in self.c_attn(x).split(width, dim=2)
        )
        scores = q @ k.transpose(-2, -1) / (k.shape[-1] ** 0.5)
        scores = scores.masked_fill(~self.bias[:, :, :length, :length], torch.finfo(scores.dtype).min)
        y = scores.softmax(dim=-1) @ v
        return self.c_proj(y.transpose(1, 2).reshape(batch, length, width))


class GPT2Block(nn.Module):
    """Pre-norm attention and MLP with biases and LayerNorm."""

    def __init__(self, width: int, heads: int, positions: int) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.attn = FusedAttention(width, heads, positions)
        self.ln_2 = nn.LayerNorm(width)
        self.c_fc = nn.Linear(width, 2 * width)
        self.c_proj = nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln_1(x))
        return x + self.c_proj(F.gelu(self.c_fc(self.ln_2(x)), approximate="tanh"))


class GPT2(nn.Module):
    """A GPT-2-like decoder whose head is the token table."""

    def __init__(self, vocabulary: int = 96, width: int = 48, heads: int = 4, positions: int = 32) -> None:
        super().__init__()
        self.wte = nn.Embedding(vocabulary, width)
        self.wpe = nn.Embedding(positions, width)
        self.h = nn.ModuleList(GPT2Block(width, heads, positions) for _ in range(2))
        self.ln_f = nn.LayerNorm(width)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.wte(tokens) + self.wpe(torch.arange(tokens.shape[1], device=tokens.device))
        for block in self.h:
            x = block(x)
        return F.linear(self.ln_f(x), self.wte.weight)


# -- others ----------------------------------------------------------------------------------------------------------


class Recurrent(nn.Module):
    """A bidirectional LSTM over the sequence, a GRU over that, a classifier on the last step."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(12, 16, batch_first=True, bidirectional=True)
        self.gru = nn.GRU(32, 20, batch_first=True)
        self.head = nn.Linear(20, 6)

    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.lstm(x)
        y, _ = self.gru(y)
        return self.head(y[:, -1])


def sequences() -> tuple[dict[str, Tensor], dict[str, dict[int, str]]]:
    """Sample feature sequences [batch, time, features]."""
    return {"x": torch.randn(2, 7, 12, generator=torch.Generator().manual_seed(0))}, {"x": {0: "batch"}}


class UNet(nn.Module):
    """Down, up by ConvTranspose, skip by concat; GroupNorm and SiLU as in diffusion models."""

    def __init__(self) -> None:
        super().__init__()
        self.enc1 = nn.Sequential(nn.Conv2d(3, 16, 3, 1, 1), nn.GroupNorm(4, 16), nn.SiLU())
        self.enc2 = nn.Sequential(nn.Conv2d(16, 24, 3, 2, 1), nn.GroupNorm(4, 24), nn.SiLU())
        self.mid = nn.Sequential(nn.Conv2d(24, 24, 3, 1, 1), nn.BatchNorm2d(24), nn.SiLU())
        self.up = nn.ConvTranspose2d(24, 16, 2, 2)
        self.dec = nn.Sequential(nn.Conv2d(32, 16, 3, 1, 1), nn.GroupNorm(4, 16), nn.SiLU())
        self.last = nn.Sequential(nn.Conv2d(16, 12, 3, 1, 1), nn.PixelShuffle(2))

    def forward(self, x: Tensor) -> Tensor:
        a = self.enc1(x)
        b = self.enc2(a)
        b = b + self.mid(b)
        return self.last(self.dec(torch.cat((a, self.up(b)), dim=1)))


Inputs = Callable[[], tuple[dict[str, Tensor], dict[str, dict[int, str]]]]

_NETS: dict[str, tuple[Callable[[], nn.Module], Inputs]] = {
    "resnet": (resnet, images),
    "resnext": (resnext, images),
    "mobilenet_v3": (mobilenet_v3, images),
    "shufflenet_v2": (shufflenet_v2, images),
    "densenet": (densenet, images),
    "vit": (ViT, images),
    "swin": (Swin, images),
    "convnext": (convnext, images),
    "gqa_decoder": (Decoder, partial(tokens, 96)),
    "gpt2": (GPT2, partial(tokens, 96)),
    "recurrent": (Recurrent, sequences),
    "unet": (UNet, images),
}


def sample(name: str, seed: int = 0) -> Sample:
    """The network ``name``, seeded and perturbed, with its sample inputs."""
    make, make_inputs = _NETS[name]
    state: Any = torch.random.get_rng_state()
    torch.manual_seed(seed)
    try:
        module = make()
    finally:
        torch.random.set_rng_state(state)
    inputs, dynamic = make_inputs()
    return Sample(perturbed(module, inputs, seed), inputs, dynamic)

"""Small convolutional networks: ResNet, ResNeXt, MobileNetV3, ShuffleNetV2, DenseNet, ConvNeXt, UNet."""

# Modules called and attributes of modules are untyped in torch.
# mypy: disable-error-code="no-any-return, index"

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


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

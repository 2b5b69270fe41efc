"""Networks for CIFAR-10: ResNet-18 and VGG16-BN for 32x32 images, and the ResNets of 2015. All come in any width."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def scaled(channels: int, width: float) -> int:
    """A share of so many channels: at least one."""
    return max(round(width * channels), 1)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut: a 1x1 convolution, or subsampling and zero channels (``option_a``)."""

    def __init__(self, inputs: int, width: int, stride: int, *, option_a: bool = False) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        front = (width - inputs) // 2
        self.fill = (front, width - inputs - front) if option_a else (0, 0)
        self.shortcut: nn.Module = nn.Identity()
        if not option_a and (stride != 1 or inputs != width):
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if any(self.fill):
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, *self.fill))
        return F.relu(y + self.shortcut(x))


class ResNet18(nn.Module):
    """ResNet-18 with a 3x3 stem and no pooling before the stages."""

    def __init__(self, classes: int = 10, width: float = 1.0) -> None:
        super().__init__()
        inputs = scaled(64, width)
        self.conv1, self.bn1 = nn.Conv2d(3, inputs, 3, 1, 1, bias=False), nn.BatchNorm2d(inputs)
        blocks = []
        for stage in range(4):
            outputs = scaled(64 << stage, width)
            for number in range(2):
                blocks.append(BasicBlock(inputs, outputs, 2 if stage and not number else 1))
                inputs = outputs
        self.blocks, self.linear = nn.Sequential(*blocks), nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.blocks(F.relu(self.bn1(self.conv1(x)))).mean((2, 3)))


class CifarResNet(nn.Module):
    """6n + 2 layers in three stages of 16, 32 and 64 channels (arXiv 1512.03385), shortcuts of option A."""

    def __init__(self, depth: int, classes: int = 10, width: float = 1.0) -> None:
        super().__init__()
        inputs = scaled(16, width)
        self.conv1, self.bn1 = nn.Conv2d(3, inputs, 3, 1, 1, bias=False), nn.BatchNorm2d(inputs)
        for stage in range(3):
            blocks, outputs = [], scaled(16 << stage, width)
            for number in range((depth - 2) // 6):
                stride = 2 if stage and not number else 1
                blocks.append(BasicBlock(inputs, outputs, stride, option_a=True))
                inputs = outputs
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
        self.linear = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        for stage in (self.layer1, self.layer2, self.layer3):
            x = stage(x)
        return self.linear(x.mean((2, 3)))


class VGG16BN(nn.Module):
    """Thirteen convolutions with batch norm and one linear layer."""

    def __init__(self, classes: int = 10, width: float = 1.0) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 3
        for size in (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0):
            if size:
                outputs = scaled(size, width)
                layers += [nn.Conv2d(inputs, outputs, 3, 1, 1), nn.BatchNorm2d(outputs), nn.ReLU()]
                inputs = outputs
            else:
                layers.append(nn.MaxPool2d(2))
        self.features, self.classifier = nn.Sequential(*layers), nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(torch.flatten(self.features(x), 1))


NETS: dict[str, Callable[..., nn.Module]] = {
    "resnet18": ResNet18,
    "resnet8": partial(CifarResNet, 8),
    "resnet20": partial(CifarResNet, 20),
    "resnet56": partial(CifarResNet, 56),
    "vgg16_bn": VGG16BN,
}
"""Name -> constructor; ``width`` scales the channels of all layers."""

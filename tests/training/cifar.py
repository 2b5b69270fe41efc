"""The ResNets for CIFAR-10 of He et al. (2015), section 4.2, with shortcuts of option A, and the data for them.

Weights and images are read from the folder that the environment variable OZGRAPH_DATA names:
``cifar10-resnet/resnet56.safetensors`` and ``cifar10/test.npz`` (lossless WebP images, end to end).
"""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Block(nn.Module):
    def __init__(self, fan_in: int, planes: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(fan_in, planes, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.padding = (planes - fan_in) // 2

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.padding:
            # Option A: every other pixel, and channels of zeros on both sides.
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.padding, self.padding))
        return F.relu(y + x)


class ResNet(nn.Module):
    """6 n + 2 layers: three stages of n blocks, 16, 32 and 64 channels wide."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        self.layer1, self.layer2, self.layer3 = (
            nn.Sequential(*(Block(fan_in if k == 0 else planes, planes, stride if k == 0 else 1) for k in range(n)))
            for fan_in, planes, stride in ((16, 16, 1), (16, 32, 2), (32, 64, 2))
        )
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(F.avg_pool2d(x, 8).flatten(1))


def folder() -> Path:
    """The folder with the data; skips the test where there is none."""
    named = os.environ.get("OZGRAPH_DATA")
    if not named or not (Path(named) / "cifar10" / "test.npz").exists():
        pytest.skip("OZGRAPH_DATA names no folder with cifar10/test.npz and cifar10-resnet/resnet56.safetensors")
    return Path(named)


def resnet56() -> ResNet:
    """With the weights of the folder, in eval mode."""
    safetensors = pytest.importorskip("safetensors.torch")
    module = ResNet(9)
    weights = safetensors.load_file(folder() / "cifar10-resnet" / "resnet56.safetensors")
    found = module.load_state_dict(weights, strict=False)
    assert not found.unexpected_keys
    assert all(key.endswith("num_batches_tracked") for key in found.missing_keys)
    return module.eval()


def test_images(count: int) -> tuple[Tensor, Tensor]:
    """The first ``count`` test images, [count, 3, 32, 32] and normalised, with their labels."""
    image = pytest.importorskip("PIL.Image")
    with np.load(folder() / "cifar10" / "test.npz") as data:
        stream, offsets, labels = data["webp"], data["offsets"], data["labels"]
    count = min(count, len(labels))
    pixels = np.stack(
        [
            np.asarray(image.open(io.BytesIO(stream[offsets[k] : offsets[k + 1]].tobytes())).convert("RGB"))
            for k in range(count)
        ]
    )
    x = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    x = (x - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    return x, torch.from_numpy(labels[:count].astype(np.int64))


test_images.__test__ = False  # type: ignore[attr-defined]

"""The two networks of the reference runs, and further small ones."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Plain(nn.Module):
    """Three convolutions and two linear layers in a row."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.conv2 = nn.Conv2d(16, 24, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(24)
        self.conv3 = nn.Conv2d(24, 32, 3, padding=1)
        self.fc1 = nn.Linear(32, 20)
        self.fc2 = nn.Linear(20, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.max_pool2d(F.relu(self.bn2(self.conv2(x))), 2)
        x = F.relu(self.conv3(x)).mean((2, 3))
        return self.fc2(F.relu(self.fc1(x)))


def _conv(fan_in: int, fan_out: int, kernel: int, stride: int = 1, padding: int = 0) -> nn.Conv2d:
    return nn.Conv2d(fan_in, fan_out, kernel, stride, padding, bias=False)


class Residual(nn.Module):
    """A stem, a residual block, and two strided branches that are added."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.bn0 = _conv(3, 16, 3, 1, 1), nn.BatchNorm2d(16)
        self.conv1, self.bn1 = _conv(16, 12, 3, 1, 1), nn.BatchNorm2d(12)
        self.conv2, self.bn2 = _conv(12, 16, 3, 1, 1), nn.BatchNorm2d(16)
        self.down, self.bn3 = _conv(16, 24, 1, 2), nn.BatchNorm2d(24)
        self.conv3, self.bn4 = _conv(16, 24, 3, 2, 1), nn.BatchNorm2d(24)
        self.fc = nn.Linear(24, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn0(self.stem(x)))
        x = F.relu(x + self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))
        x = F.relu(self.bn3(self.down(x)) + self.bn4(self.conv3(x)))
        return self.fc(x.mean((2, 3)))


NETS: dict[str, type[nn.Module]] = {"plain": Plain, "residual": Residual}


def images(seed: int = 0, batch: int = 8) -> tuple[Tensor, Tensor]:
    """A batch of random images and labels."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, 3, 8, 8, generator=generator), torch.randint(0, 10, (batch,), generator=generator)

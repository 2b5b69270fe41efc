"""Peers of the zoo are called as a plain user would: with all of a model's inputs."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402

sys.path.append(str(Path(__file__).parents[1] / "benchmarks" / "zoo"))

import peers  # noqa: E402
from sources import Made  # noqa: E402


class Flow(nn.Module):
    """Two images by position and an option by name."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 1)

    def forward(self, first: Tensor, second: Tensor, *, updates: int) -> list[Tensor]:
        return [self.layer(first) - self.layer(second)] * updates


def test_inputs_by_position_and_by_name_reach_the_module() -> None:
    images = torch.rand(2, 1, 3, 8, 8)
    made = Made(Flow(), (images[0], images[1]), {"updates": 3})
    assert [tensor.shape for tensor in peers._forward(made)(made.module, None)] == [(1, 4, 8, 8)] * 3

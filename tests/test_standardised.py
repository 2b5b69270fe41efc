"""Weights that are standardised at every run lose input channels too, and keep the statistics of the whole."""

# mypy: ignore-errors

from __future__ import annotations

import pytest

import ozgraph
from models.halving import NOTHING, HalfOfEveryFamily

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402  (needs torch)
from torch.nn import functional as F  # noqa: E402


class Net(nn.Module):
    """Two convolutions whose weights are standardised by a batch norm, as timm and transformers spell it."""

    def __init__(self, *, gain: bool, shift: bool, rank: int = 3) -> None:
        super().__init__()
        self.rank = rank
        self.stem = nn.Conv2d(3, 7, 3, padding=1)  # of seven, what goes and what stays differ
        self.conv = nn.Conv2d(7, 6, 3, padding=1)
        self.gain = nn.Parameter(torch.rand(6) + 0.5) if gain else None
        self.shift = nn.Parameter(torch.randn(6)) if shift else None
        self.head = nn.Conv2d(6, 4, 1)

    def forward(self, x):
        x = F.relu(self.stem(x))
        rows = self.conv.weight.reshape((1, 6, -1) if self.rank == 3 else (1, 6, 7, 9))
        weight = F.batch_norm(rows, None, None, self.gain, self.shift, training=True, momentum=0.0, eps=1e-5)
        return self.head(F.relu(F.conv2d(x, weight.reshape_as(self.conv.weight), self.conv.bias, padding=1)))


@pytest.mark.parametrize(
    ("gain", "shift", "rank"), [(False, False, 3), (True, False, 3), (True, True, 3), (False, True, 4)]
)
def test_input_channels_of_a_standardised_convolution_go(gain: bool, shift: bool, rank: int) -> None:
    torch.manual_seed(0)
    graph = ozgraph.capture(Net(gain=gain, shift=shift, rank=rank).eval(), (torch.randn(2, 3, 6, 6),))
    families = {family.dim: family.exactness for family in ozgraph.analyze(graph, rescale=True).report.families}
    assert families == {"stem.weight": "rescaled", "conv.weight": "exact"}
    result = ozgraph.prune(graph, target=NOTHING, passes=[HalfOfEveryFamily(everything=True)], rescale=True)
    assert not result.report.frozen_by_verification
    assert result.report.removed_slots == 3 + 3
    assert result.report.max_relative_error < 1e-12


def test_the_zeros_of_the_consumers_columns_belong_to_the_group() -> None:
    graph = ozgraph.capture(Net(gain=True, shift=False).eval(), (torch.randn(2, 3, 6, 6),))
    families = {family.dim: family for family in ozgraph.analyze(graph, rescale=True).report.families}
    members = {(member.tensor, member.axis, member.role) for member in families["stem.weight"].members}
    assert ("conv.weight", 1, "consumer") in members


def test_statistics_of_data_over_the_batch_stay_whole() -> None:
    """The batch is nobody's to cut, and neither are the positions of an image."""

    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 1)

        def forward(self, x):
            return self.last(F.relu(F.batch_norm(self.first(x), None, None, training=True)))

    graph = ozgraph.capture(Plain().eval(), (torch.randn(4, 3, 6, 6),))
    result = ozgraph.prune(graph, target=NOTHING, passes=[HalfOfEveryFamily(everything=True)], rescale=True)
    assert result.report.removed_slots == 4
    assert result.report.max_relative_error < 1e-12

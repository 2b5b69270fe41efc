"""Maxima over channels in captured modules: prunable where no number is proved to be negative, else not."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import ozgraph
from models.halving import NOTHING, HalfOfEveryFamily

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

Function = Callable[[Tensor], Tensor]


class Highest(nn.Module):
    """Eight channels, and the largest of them beside what is made of all."""

    def __init__(self, function: Function) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last, self.scale = nn.Linear(6, 8), nn.Linear(8, 3), nn.Parameter(torch.rand(8) + 1)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        y = self.function(self.first(x))
        return self.last(y) + y.amax(-1, keepdim=True) - (-y).amin(-1, keepdim=True) + self.last(y * self.scale)


NO_NEGATIVE: dict[str, Function] = {
    "a rectifier": F.relu,
    "a rectifier in place": lambda x: F.relu_(x + 0),
    "a square": lambda x: x * x,
    "a power of two": lambda x: x.pow(2),
    "a magnitude": lambda x: x.abs(),
    "a product of both": lambda x: F.relu(x) * torch.sigmoid(x),
    "a positive factor": lambda x: F.relu(x) * 0.5 / 3,
    "a maximum with zero": lambda x: x.clamp(min=0),
    "a negative number negated": lambda x: -x.clamp(max=0),
    "a sum": lambda x: torch.add(F.relu(x), x * x),
    "a choice": lambda x: torch.where(x > 0, F.relu(x), x * x),
    "movement": lambda x: F.relu(x).t().contiguous().t().reshape(-1, 8),
}

PERHAPS_NEGATIVE: dict[str, Function] = {
    "as it comes": lambda x: x,
    "a tangent": torch.tanh,
    "a negative factor": lambda x: F.relu(x) * -0.5,
    "a difference": lambda x: F.relu(x) - x * x,
    "a weighted sum": lambda x: torch.add(F.relu(x), x * x, alpha=-1),
    "a clip from above": lambda x: x.clamp(max=1),
    "a cube": lambda x: x.pow(3),
}


@pytest.mark.parametrize("name", NO_NEGATIVE)
def test_channels_go_where_no_number_is_negative(name: str) -> None:
    graph = ozgraph.capture(Highest(NO_NEGATIVE[name]), torch.randn(5, 6))
    result = ozgraph.prune(graph, target=NOTHING, passes=[HalfOfEveryFamily()])
    assert result.report.frozen_by_verification == ()
    assert result.report.removed_slots == 4


@pytest.mark.parametrize("name", PERHAPS_NEGATIVE)
def test_channels_stay_where_a_number_may_be_negative(name: str) -> None:
    report = ozgraph.analyze(ozgraph.capture(Highest(PERHAPS_NEGATIVE[name]), torch.randn(5, 6))).report
    assert report.families == ()
    assert any("maximum" in row.reason for row in report.frozen)


def test_what_trains_proves_no_sign() -> None:
    module = Highest(lambda x: x)
    module.function = lambda x: F.relu(x) * module.scale
    report = ozgraph.analyze(ozgraph.capture(module, torch.randn(5, 6))).report
    assert report.families == ()


class Frozen(dict):  # type: ignore[type-arg]
    """A dictionary that refuses to be written to."""

    def update(self, *_: object, **__: object) -> None:
        raise TypeError("frozen")

    __setitem__ = clear = pop = update  # type: ignore[assignment]


def test_containers_that_refuse_to_be_written_to_are_left_alone() -> None:
    module = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    module.config = Frozen(width=6)  # type: ignore[assignment]
    assert ozgraph.analyze(ozgraph.capture(module, torch.randn(2, 4))).families
    assert module.config == {"width": 6}

"""What verification of captured modules calls a difference: more than rounding moves the original itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402

import ozgraph  # noqa: E402
from models.halving import NOTHING, HalfOfEveryFamily  # noqa: E402
from ozgraph.api import PruneResult  # noqa: E402
from ozgraph.errors import UsageError  # noqa: E402
from ozgraph.graph import Op  # noqa: E402
from ozgraph.numerics import torch_compare  # noqa: E402
from ozgraph.rules.registry import RULES  # noqa: E402
from ozgraph.rules.table import registered  # noqa: E402


def halved(module: nn.Module, *inputs: Tensor) -> PruneResult:
    graph = ozgraph.capture(module.eval(), inputs)
    return ozgraph.prune(graph, target=NOTHING, passes=[HalfOfEveryFamily()], rescale=True)


class Cancelled(nn.Module):
    """Two layers that hardly differ: what is left of them is a millionth of what rounding is relative to."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.left, self.right = nn.Linear(6, 64), nn.Linear(64, 3), nn.Linear(64, 3)
        with torch.no_grad():
            self.right.weight.copy_(self.left.weight * (1 + 1e-6 * torch.randn(3, 64)))
            self.right.bias.copy_(self.left.bias)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x).tanh()
        return self.left(y) - self.right(y)


def test_what_rounding_moves_is_no_difference() -> None:
    result = halved(Cancelled(), torch.randn(4, 6))
    report = result.report
    assert report.frozen_by_verification == ()
    assert report.removed_slots == 32
    assert 1e-12 < report.max_relative_error <= report.limit < 1e-7
    assert report.limit == pytest.approx(3 * report.noise_floor)


class Normed(nn.Module):
    """The norm's epsilon is that of its precision, and large beside what it norms."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.norm, self.last = nn.Linear(6, 12), nn.RMSNorm(12), nn.Linear(12, 3)
        with torch.no_grad():
            self.first.weight *= 1e-4
            self.first.bias *= 1e-4

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.norm(self.first(x)))


def test_an_epsilon_that_nobody_gave_is_that_of_the_modules_precision() -> None:
    result = halved(Normed(), torch.randn(4, 6))
    assert result.report.frozen_by_verification == ()
    assert [family.exactness for family in result.state.families] == ["rescaled"]
    assert result.report.removed_slots == 6


def test_slopes_of_channels_are_proved_channel_by_channel() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 8, 3), nn.PReLU(8), nn.Conv2d(8, 2, 3))
    result = halved(module, torch.randn(2, 3, 8, 8))
    assert result.report.removed_slots == 4


class Extremes(nn.Module):
    """The larger of two results, slot by slot."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.last = nn.Linear(6, 8), nn.Linear(6, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        low = torch.min(self.a(x), self.b(x))
        return self.last(torch.max(torch.max(self.a(x), self.b(x)), torch.tensor(-0.5)) + low)


def test_the_extreme_of_two_tensors_is_proved_slot_by_slot() -> None:
    result = halved(Extremes(), torch.randn(4, 6))
    assert result.report.frozen_by_verification == ()
    assert result.report.removed_slots == 4


@pytest.fixture
def a_rule_that_doubts_many() -> Iterator[None]:
    """PReLU says what becomes of one slot, and nothing of several."""
    right = registered()["aten.prelu"]

    def doubting(op: Op, states: Any, result: int, axis: int) -> Any:
        found = right.transfer(op, states, result, axis)
        return found if found.size == 1 else np.full(found.size, np.nan)

    RULES["aten.prelu"] = replace(right, transfer=doubting)
    yield
    RULES["aten.prelu"] = right


def test_slots_that_are_chosen_but_not_dead_stay_with_their_weights(a_rule_that_doubts_many: None) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(5, 8), nn.PReLU(8), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 2))
    result = halved(module, torch.randn(4, 5))
    assert result.report.frozen_by_verification == ()
    assert result.report.removed_slots == 3
    assert result.state.chosen.total == 3


def test_noise_that_one_rounding_does_not_show_another_may() -> None:
    """Drawn as often as the difference asks for, and no more than a few times."""
    originals = [[np.linspace(-1, 1, 9) * run] for run in (1.0, 2.0, 3.0)]
    others = [[row[0] * (1 + 1e-11)] for row in originals]
    drawn: list[int] = []

    def rounded(draw: int) -> list[list[Any]]:
        drawn.append(draw)
        return [[row[0] * (1 + (1e-11 if draw == 1 else 0.0))] for row in originals]

    assert not torch_compare.compared(originals, others, 1e-12).equal
    assert torch_compare.compared(originals, others, 1e-12, rounded).equal
    assert drawn == [0, 1]
    drawn.clear()
    assert not torch_compare.compared(originals, [[2 * row[0]] for row in originals], 1e-12, rounded).equal
    assert len(drawn) == 4


class Lifted(nn.Module):
    """What is pruned is far from zero, so that the bias that takes its place is stored with a rounding that shows."""

    def __init__(self, height: float) -> None:
        super().__init__()
        self.first, self.second, self.height = nn.Linear(4, 16), nn.Linear(16, 3), height

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.second(torch.relu(self.first(x)) + self.height)
        return found


def test_rounding_of_what_pruning_stores_may_reach_further_than_its_own_size() -> None:
    torch.manual_seed(0)
    result = halved(Lifted(30.0), torch.randn(2, 4))
    assert result.report.frozen_by_verification == () and result.to_module().first.weight.shape[0] == 8
    four_roundings = 4 * float(torch.finfo(torch.float32).eps)
    assert four_roundings < result.report.max_relative_error <= result.report.limit <= 1e-5
    assert 3 * result.report.noise_floor == pytest.approx(result.report.limit)


def test_rounding_of_what_pruning_stores_excuses_no_more_than_files_may_differ_by() -> None:
    torch.manual_seed(0)
    result = halved(Lifted(3000.0), torch.randn(2, 4))
    assert result.report.frozen_by_verification and result.report.removed_slots == 0


def test_in_float64_nothing_that_is_stored_excuses_a_difference() -> None:
    torch.manual_seed(0)
    result = halved(Lifted(30.0).double(), torch.randn(2, 4, dtype=torch.float64))
    assert result.report.frozen_by_verification == ()
    assert result.report.max_relative_error <= result.report.limit < 1e-11


class Large(nn.Module):
    """Needs more memory in float64 than there is."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        if x.dtype == torch.float64:
            torch.empty(1 << 50)
        return self.last(self.first(x).relu())


def test_memory_that_does_not_suffice_is_called_so() -> None:
    with pytest.raises(UsageError, match="not enough memory to verify Large"):
        halved(Large(), torch.randn(2, 4))


@pytest.mark.parametrize("when", ["the pruned module runs", "noise is measured"])
def test_memory_that_ends_later_is_called_so_and_gives_nothing_back(when: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = torch_compare.run

    def run(module: nn.Module, *args: Any, **more: Any) -> Any:
        pruned = isinstance(module, torch.fx.GraphModule)
        if pruned if when == "the pruned module runs" else more.get("rounding") is not None:
            torch.empty(1 << 50)
        return plain(module, *args, **more)

    monkeypatch.setattr(torch_compare, "run", run)
    with pytest.raises(UsageError, match="not enough memory to verify Cancelled"):
        halved(Cancelled(), torch.randn(4, 6))

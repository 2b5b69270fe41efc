"""Random weights of the zoo: nothing stays hidden, and of several starts of norms a calm one is taken."""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402

sys.path.append(str(Path(__file__).parents[1] / "benchmarks" / "zoo"))

import perturb  # noqa: E402
from conditioning import Inputs, rounding, thinned  # noqa: E402

torch.set_num_threads(1)


def inputs(seed: int) -> Inputs:
    return (torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(seed)),), {}


class Scaled(nn.Module):
    """A branch that a scale of a millionth hides."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.branch = nn.Conv2d(3, 12, 3, padding=1), nn.Conv2d(12, 12, 3, padding=1)
        self.norm, self.scale = nn.BatchNorm2d(12), nn.Parameter(torch.full((12,), 1e-6))

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return x + self.scale[:, None, None] * self.norm(self.branch(x)).relu()


def test_a_branch_behind_a_tiny_scale_is_seen_afterwards() -> None:
    torch.manual_seed(0)
    assert float(Scaled().scale.detach().std()) > 0, "a computed spread of what is constant is some rounding"
    module = perturb.perturb(Scaled(), *inputs(0))
    assert not module.training
    (x,), _ = inputs(1)
    before = module(x).detach()
    with torch.no_grad():
        module.branch.weight.zero_()
        moved = module(x) - before
    assert float(moved.abs().max()) > 1e-2 * float(before.std())
    assert module.norm.running_mean.abs().min() > 0


class Chaotic(nn.Module):
    """Multiplies what tells two inputs apart from rounding by nothing, or by ``factor`` over and over."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.first, self.last, self.factor = nn.Conv2d(3, 8, 1), nn.Linear(8, 4), factor

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).mean((2, 3))
        for _ in range(6):
            x = torch.sin(self.factor * x)
        return self.last(x)


def test_rounding_tells_a_calm_network_from_a_chaotic_one_and_leaves_it_as_it_was() -> None:
    torch.manual_seed(0)
    calm, wild = Chaotic(1.0), Chaotic(30.0)
    kept = copy.deepcopy(calm.state_dict())
    low, high = rounding(calm, inputs(0), inputs(1)), rounding(wild, inputs(0), inputs(1))
    assert low is not None and high is not None
    assert low < 1e-5 < 1e-2 < high
    assert all(
        torch.equal(tensor, kept[name]) and tensor.dtype is torch.float32 for name, tensor in calm.state_dict().items()
    )
    assert rounding(calm.double(), inputs(0), inputs(1)) is None, "it is not in float32"


class Choosing(nn.Module):
    """Returns an order of what it computes, which rounding turns around."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return (1e7 * self.first(x)).frac().flatten().argsort().to(x.dtype)


def test_results_that_are_chosen_are_judged_by_the_layers_before() -> None:
    torch.manual_seed(0)
    found = rounding(Choosing(), inputs(0), inputs(1))
    assert found is not None and 0 < found < 1e-4


def test_the_same_channels_are_left_out_in_every_run() -> None:
    layer, x = nn.Linear(8, 8, bias=False), torch.ones(1, 8)
    with torch.no_grad():
        layer.weight.copy_(torch.eye(8))
        with thinned(layer, 0.5):
            once = layer(x)
        with thinned(layer, 0.5):
            again = layer(x)
    assert torch.equal(once, again) and int(once.sum()) == 4
    assert torch.equal(layer(x), x), "and none outside"


@pytest.mark.parametrize(("far", "taken"), [(1e-6, 2), (1.9e-7, 4)])
def test_the_calmest_start_is_taken_and_one_on_which_nothing_runs_is_passed_over(
    far: float, taken: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worst of three draws counts, and one well above zero must be a hundred times calmer."""
    torch.manual_seed(0)
    module = Scaled()
    tried: list[float] = []

    def measured(part: nn.Module, norms: list[Any], batch: Inputs, centre: float) -> None:
        tried.append(float(norms[0].bias.mean()))
        norms[0].running_mean.fill_(tried[-1])
        if len(tried) == 1:
            raise ValueError("finds nothing")

    found = iter([1e-5, 3e-5, 1e-5, 2e-5, 1e-5, 1e-5, 1e-5, 1e-5, 4e-5, far, far, far])

    def judged(part: nn.Module, *_: Inputs, seed: int = 1) -> float:
        part.double().float()  # as in earnest: buffers are other tensors afterwards
        return next(found)

    monkeypatch.setattr(perturb, "_measure", measured)
    monkeypatch.setattr(perturb, "rounding", judged)
    monkeypatch.setattr(perturb, "STARTS", tuple(perturb.Start(shift, 1.0, 1.0) for shift in (9.0, 1.0, 2.0, 3.0)))
    monkeypatch.setattr(perturb, "FAR", perturb.Start(4.0, 1.0, 1.0))
    perturb.perturb(module, *inputs(0))
    assert [round(shift) for shift in tried] == [9, 1, 2, 3, 4]
    assert round(float(module.norm.bias.mean())) == round(float(module.norm.running_mean.mean())) == taken

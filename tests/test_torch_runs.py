"""Modules run in float64 without a second copy of their large parameters, and stay as they were."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Callable

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402

from ozgraph.numerics import torch_runs  # noqa: E402
from ozgraph.numerics.torch_runs import run  # noqa: E402

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _small_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_runs, "_LARGE", 1)


class Layers(nn.Module):
    """What most networks are made of, and a parameter that is cast, viewed and returned."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.conv = nn.Embedding(20, 16), nn.Conv1d(16, 16, 3, padding=1)
        self.norm, self.attention = nn.LayerNorm(16), nn.MultiheadAttention(16, 2, batch_first=True)
        self.batch = nn.BatchNorm1d(16)
        self.token = nn.Parameter(torch.randn(1, 1, 16))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.norm(self.table(x)) + self.token.half().float()
        y = self.batch(self.conv(y.transpose(1, 2))).transpose(1, 2)
        return self.attention(y, y, y)[0], self.token


class Recurrent(nn.Module):
    """Its weights must have the precision of its input."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.lstm = nn.Embedding(20, 8), nn.LSTM(8, 8, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.lstm(self.table(x))[0]


class Written(nn.Module):
    """Writes to a parameter, and through a view of one."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.randn(3, 4))

    def forward(self, x: Tensor) -> Tensor:
        self.scale.mul_(2.0)
        self.scale[0].add_(1.0)
        return x[:, :1].float() * self.scale[1]


class Filled(nn.Module):
    """Writes parameters into a tensor that it makes."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = nn.Parameter(torch.randn(2, 4))

    def forward(self, x: Tensor) -> Tensor:
        made = x.new_zeros(3, 4, dtype=torch.float32)
        made[:2] = self.rows
        made.index_put_((torch.tensor([2]),), self.rows[0])
        return made.addmm_(self.rows.t()[:3], self.rows, alpha=0.5)


def in_double(module: nn.Module, x: Tensor) -> list[Tensor]:
    twin = copy.deepcopy(module).double().eval()
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with torch.no_grad():
            made = twin(x)
    finally:
        torch.set_default_dtype(default)
    return list(made) if isinstance(made, tuple) else [made]


@pytest.mark.parametrize("kind", [Recurrent, Written])
def test_what_needs_its_parameters_in_one_precision_or_writes_to_them_gets_copies(
    kind: Callable[[], nn.Module],
) -> None:
    torch.manual_seed(0)
    module, x = kind(), torch.randint(0, 20, (2, 5))
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    for found, expected in zip(run(module, ((x,), {})), in_double(module, x), strict=True):
        assert found.dtype is torch.float64
        torch.testing.assert_close(found, expected, rtol=1e-14, atol=1e-14)
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_layers_compute_as_in_float64() -> None:
    torch.manual_seed(0)
    module, x = Layers().eval(), torch.randint(0, 20, (2, 5))
    with torch.no_grad():  # so that a cast to half precision, which is none in float64, changes nothing
        module.token.copy_(module.token.half().float())
    for found, expected in zip(run(module, ((x,), {})), in_double(module, x), strict=True):
        assert found.dtype is torch.float64
        torch.testing.assert_close(found, expected.double(), rtol=1e-13, atol=1e-13)


def test_parameters_that_are_written_elsewhere_are_widened_first() -> None:
    torch.manual_seed(0)
    module, x = Filled(), torch.zeros(1)
    (found,) = run(module, ((x,), {}))
    rows = module.rows.detach().double()
    torch.testing.assert_close(found[2], rows[0] + 0.5 * rows.t()[2] @ rows, rtol=1e-15, atol=1e-15)


def test_a_rounding_moves_large_parameters_alike_wherever_they_are_read() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rows = nn.Parameter(torch.randn(4, 4))

        def forward(self, x: Tensor) -> Tensor:
            return self.rows.t().clone() - self.rows.clone().t() + x

    module, x = Twice(), torch.zeros(4, 4)
    (apart,) = run(module, ((x,), {}), rounding=1)
    assert not apart.any()
    layers, indexes = Layers().eval(), torch.randint(0, 20, (2, 5))
    exact, first, again, second = (run(layers, ((indexes,), {}), rounding=seed)[0] for seed in (None, 1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, second)
    assert 0 < float((first - exact).abs().max()) < 1e-13


@pytest.mark.slow
@pytest.mark.parametrize("rounding", ["None", "1"])
def test_large_parameters_are_not_held_twice(rounding: str) -> None:
    code = """
import resource, torch
from torch import nn
from ozgraph.numerics.torch_runs import run
torch.set_num_threads(1)
module = nn.Sequential(*(nn.Linear(2048, 2048) for _ in range(16)))
x = torch.randn(2, 2048)
run(nn.Sequential(*module[:2]), ((x,), {}))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
run(module, ((x,), {}), rounding=ROUNDING)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""
    code = code.replace("ROUNDING", rounding)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 200, "MiB; 16 layers are 256 in float32 and 512 in float64"

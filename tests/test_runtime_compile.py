"""Step hooks under ``torch.compile``: of the model, and of the model and the optimizer's step."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402
from training.loops import groups_of, net  # noqa: E402

from ozgraph.groups import Groups  # noqa: E402
from ozgraph.runtime import HESSO, Target  # noqa: E402

STEPS = 12
COMPILER = pytest.mark.skipif(
    not any(map(shutil.which, ("g++", "c++", "clang++"))), reason="inductor needs a C++ compiler, and there is none"
)
BACKENDS = ["aot_eager", pytest.param("inductor", marks=[pytest.mark.slow, COMPILER])]


def perceptron() -> nn.Module:
    """As few kernels as there can be: compiling is what takes the time here."""
    return nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 4))


@pytest.fixture(scope="module")
def found() -> Groups:
    return groups_of(net(0, perceptron), torch.zeros(3, 12))


@pytest.fixture(autouse=True)
def _nothing_compiled_before() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def trained(found: Groups, *, model: str | None, step: str | None) -> tuple[nn.Module, Any]:
    """A network and its pruner after a run; backends that compile the model and the optimizer's step."""
    module = net(1, perceptron)
    optimizer = torch.optim.AdamW(module.parameters(), lr=2e-3, weight_decay=0.05, foreach=True)
    pruner = HESSO(
        optimizer, found.bind(module), target=Target(groups=0.5), steps=STEPS, start=1, end=9, periods=2,
        saliency="magnitude",
    )  # fmt: skip
    forward = torch.compile(module, backend=model) if model else module
    take = torch.compile(optimizer.step, backend=step) if step else optimizer.step
    for number in range(STEPS):
        x, y = torch.randn(8, 12, generator=torch.Generator().manual_seed(number)), torch.arange(8) % 4
        optimizer.zero_grad()
        F.cross_entropy(forward(x), y).backward()
        take()
    return module, pruner


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_compiled_model_and_step_prune_like_eager_ones(backend: str, found: Groups) -> None:
    eager, plain = trained(found, model=None, step=None)
    for step in (None, backend):
        module, pruner = trained(found, model=backend, step=step)
        assert pruner.step == STEPS and pruner.finished
        assert (pruner.gone == plain.gone).all()
        for name, tensor in module.named_parameters():
            torch.testing.assert_close(tensor, eager.get_parameter(name), rtol=1e-3, atol=1e-4)
        for family, span in pruner.layout.spans():
            gone = torch.from_numpy(pruner.gone[span])
            assert gone.any() and module.get_parameter(family.dim).detach()[gone].abs().sum() == 0

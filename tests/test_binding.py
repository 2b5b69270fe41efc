"""Groups find the model that they are of inside whatever holds it."""

from __future__ import annotations

import copy

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper  # noqa: E402
from torch.optim.swa_utils import AveragedModel  # noqa: E402
from training.hand_made import Loose, family, groups, occurrence  # noqa: E402

from ozgraph.errors import UsageError  # noqa: E402
from ozgraph.groups import Groups  # noqa: E402


class Holds(nn.Module):
    def __init__(self, **modules: nn.Module) -> None:
        super().__init__()
        for name, module in modules.items():
            self.add_module(name, module)


@pytest.fixture
def module() -> Loose:
    return Loose(weight=torch.ones(4, 3), bias=torch.ones(4))


@pytest.fixture
def found(module: Loose) -> Groups:
    slots = [0, 1, 2, 3]
    return groups(module, family(0, 4, occurrence("weight", 0, slots), occurrence("bias", 0, slots)))


@pytest.mark.parametrize(
    "held",
    [
        lambda m: m,
        lambda m: Holds(module=m),
        lambda m: Holds(task=Holds(network=m), head=nn.Linear(2, 2)),
        torch.compile,
        lambda m: Holds(module=torch.compile(m)),
        checkpoint_wrapper,
        AveragedModel,
    ],
)
def test_the_model_inside_is_found(held: object, module: Loose, found: Groups) -> None:
    bound = found.bind(held(module))  # type: ignore[operator]
    names = {name.rpartition(".")[2] for name, _ in bound.module.named_parameters()}
    assert names == {"weight", "bias"} and bound.fingerprint == found.fingerprint


def test_two_models_that_fit_are_named(module: Loose, found: Groups) -> None:
    with pytest.raises(UsageError, match=r"2 models that fit these groups \(average, network\)"):
        found.bind(Holds(average=copy.deepcopy(module), network=module))
    assert found.bind(Holds(average=copy.deepcopy(module), network=module).network).module is module


def test_none_that_fits_is_said(found: Groups) -> None:
    with pytest.raises(UsageError, match="'bias' is not in the module"):
        found.bind(Holds(other=nn.Linear(3, 4, bias=False)))

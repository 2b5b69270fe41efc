"""Two frontends, one answer: what may go together is the same through torch.fx and through ONNX, name by name.

The command ``python -m networks.campaign`` compares all networks of :mod:`models.zoo`; some of them are compared here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import ozgraph
from models.partition import names_of, partition
from models.zoo import REWRITTEN, ZOO, Made

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")

from models import torch_nets  # noqa: E402  (needs torch)
from models.exported import NETS  # noqa: E402
from models.small_nets import SMALL  # noqa: E402
from networks.agree import backends, frontends, through_onnx  # noqa: E402

torch.set_num_threads(1)

SLICE = ("resnet18", "squeezenet1_1", "timm_convnext", "bert", "clip", "llama", "t5", "whisper")
"""Networks of every library, of different kinds."""


def _net(name: str) -> Made:
    sample = torch_nets.sample(name)
    return sample.module, tuple(sample.inputs.values()), {}


MODELS: dict[str, Callable[[], Made]] = {
    **{name: (lambda name=name: _net(name)) for name in NETS},
    **{f"small_{name}": (lambda make=make: (*make(), {})) for name, make in SMALL.items()},
    **{name: ZOO[name] for name in SLICE},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_the_same_slices_go_together(name: str) -> None:
    found = frontends(MODELS[name]())
    assert found.groups
    assert found.difference == ""


@pytest.mark.slow
@pytest.mark.parametrize("name", SLICE)
def test_everything_that_goes_out_is_the_zeroed_original(name: str) -> None:
    found = backends(ZOO[name]())
    assert found.failures == []
    assert found.removed == found.free // 2 or found.removed > 0.4 * found.free
    assert found.shrunk is not None and found.shrunk_by > 0


def test_at_least_forty_networks_are_known_and_three_at_most_differ() -> None:
    assert len(ZOO) >= 40
    assert len(REWRITTEN) <= 3 and set(REWRITTEN.values()) <= {"ScatterND"}


class _ZeroedBias(torch.nn.Module):
    """As in torchvision's Swin v2, where keys have no bias: a part of a parameter's copy is set to zero in place."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(6, 4))
        self.bias = torch.nn.Parameter(torch.randn(6))
        self.head = torch.nn.Linear(6, 3)

    def forward(self, x: Any) -> Any:
        bias = self.bias.clone()
        bias[2:4].zero_()
        return self.head(torch.relu(torch.nn.functional.linear(x, self.weight, bias)))


def test_a_write_in_place_is_a_scatter_in_onnx() -> None:
    """The one way in which the frontends differ: the exporter writes ScatterND, whose indexes hold the slots back."""
    module, args = _ZeroedBias().eval(), (torch.randn(2, 4),)
    ours = ozgraph.analyze(ozgraph.capture(module, args))
    theirs = ozgraph.analyze(through_onnx(module, args, {}))
    names = names_of(module)
    assert sum(family.atom.size for family in ours.families) == 6
    assert "ScatterND" in {op.type for op in theirs.state.graph.ops}
    assert partition(theirs.state, names) == set()

"""Two frontends, one answer: what may go together is the same through torch.fx and through ONNX, name by name."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable
from typing import Any

import pytest

import ozgraph
from models.partition import difference, names_of, partition
from models.zoo import ZOO

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")

from models import torch_nets  # noqa: E402  (needs torch)
from models.exported import NETS  # noqa: E402
from models.small_nets import SMALL  # noqa: E402

_OPSET = 21
"""The first in which GroupNormalization has one scale a channel; before, the exporter writes other operators."""

Made = tuple[Any, tuple[Any, ...], dict[str, Any]]


def _net(name: str) -> Made:
    sample = torch_nets.sample(name)
    return sample.module, tuple(sample.inputs.values()), {}


MODELS: dict[str, Callable[[], Made]] = {
    **{name: (lambda name=name: _net(name)) for name in NETS},
    **{f"small_{name}": (lambda make=make: (*make(), {})) for name, make in SMALL.items()},
    **{f"zoo_{name}": make for name, make in ZOO.items()},
}


def through_onnx(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The module as torch's exporter writes it, unoptimised, so that names stay."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), torch.no_grad(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                module, args, kwargs=kwargs, dynamo=True, optimize=False, verbose=False, opset_version=_OPSET
            )
    finally:
        logging.disable(logging.NOTSET)
        torch.backends.mha.set_fastpath_enabled(fast)
    assert program is not None
    return program.model_proto


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_the_same_slices_go_together(name: str) -> None:
    module, args, kwargs = MODELS[name]()
    names = names_of(module)
    ours = ozgraph.analyze(ozgraph.capture(module, args, kwargs))
    theirs = ozgraph.analyze(through_onnx(module, args, kwargs))
    assert not ours.state.unknown
    expected = partition(theirs.state, names)
    assert expected
    assert difference(partition(ours.state, names), expected) == ""


def test_at_least_forty_models_are_compared() -> None:
    assert len(MODELS) >= 40


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

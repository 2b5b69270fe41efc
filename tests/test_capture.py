"""Capture: a PyTorch module becomes a graph with the module's own names, and the module stays as it was."""

from __future__ import annotations

import subprocess
import sys

import pytest

import ozgraph
from models.exported import exported
from models.partition import difference, partition
from ozgraph.rules.table import registered, registered_freezing

torch = pytest.importorskip("torch")


def test_import_is_without_torch() -> None:
    code = "import sys, ozgraph, ozgraph.rules.table; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("name", ["resnet", "mobilenet_v3", "densenet", "vit", "swin", "gqa_decoder", "recurrent"])
def test_same_groups_as_through_onnx(name: str) -> None:
    from models import torch_nets

    module, inputs, _ = torch_nets.sample(name)
    names = set(module.state_dict())
    ours = partition(ozgraph.analyze(ozgraph.capture(module, tuple(inputs.values()))).state, names)
    theirs = partition(ozgraph.analyze(exported(name, optimize=False)).state, names)
    assert theirs
    assert difference(ours, theirs) == ""


def test_the_table_names_only_aten_operators_that_exist() -> None:
    named = {
        name.removeprefix("aten.")
        for name in registered().keys() | registered_freezing().keys()
        if name.startswith("aten.")
    }
    assert named
    missing = {name for name in named if not _exists(*name.split("."))}
    assert missing == set()


def _exists(name: str, overload: str | None = None) -> bool:
    packet = getattr(torch.ops.aten, name, None)
    return packet is not None and (overload is None or overload in packet.overloads())

"""Trained with HESSO on networks of every kind: exact zeros, and a small file that equals the trained module."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from torch import Tensor  # noqa: E402
from torch.nn import functional as F  # noqa: E402
from training.finished import difference  # noqa: E402
from training.loops import groups_of  # noqa: E402

import ozgraph  # noqa: E402
from models.torch_nets import sample  # noqa: E402
from ozgraph.runtime import HESSO, Measure, Target  # noqa: E402

STEPS = 24
NETS = {"resnet": 0.4, "vit": 0.3, "gqa_decoder": 0.4, "recurrent": 0.4}
"""Network -> share of the groups to remove."""


def batch(like: Tensor, number: int, size: int = 4) -> Tensor:
    generator = torch.Generator().manual_seed(number)
    shape = (size, *like.shape[1:])
    if like.is_floating_point():
        return torch.randn(shape, generator=generator)
    return torch.randint(0, 96, shape, generator=generator)


def by_rank(measure: Measure) -> Tensor:
    """Where a slot stands in its own family by magnitude, so that every family loses its share, heads too."""
    scores = torch.empty_like(measure.norms)
    for family, span in measure.layout.spans():
        scores[span] = (measure.norms[span].argsort().argsort() + 0.5) / family.size
    return scores


@pytest.mark.slow
@pytest.mark.parametrize("name", NETS)
def test_a_trained_network_is_written_small_and_equal(name: str, tmp_path: Path) -> None:
    module, inputs, _ = sample(name)
    (like,) = inputs.values()
    module.requires_grad_(True).train()
    groups = groups_of(module, like)
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3, weight_decay=0.1)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=STEPS)
    pruner = HESSO(
        optimizer, groups, target=Target(groups=NETS[name]), steps=STEPS, start=2, end=16, periods=2, saliency=by_rank
    )
    for step in range(STEPS):
        out = module(batch(like, step))
        labels = torch.arange(out.numel() // out.shape[-1]) % out.shape[-1]
        optimizer.zero_grad()
        F.cross_entropy(out.flatten(0, -2), labels).backward()
        optimizer.step()
        scheduler.step()

    assert pruner.finished and pruner.metrics()["redundant_norm"] == 0.0
    tensors = dict(module.named_parameters()) | dict(module.named_buffers())
    for family, span in pruner.layout.spans():
        gone = np.flatnonzero(pruner.gone[span])
        for occurrence in family.zeroed:
            there = torch.from_numpy(np.isin(occurrence.slots(), gone))
            assert tensors[occurrence.tensor].detach().movedim(occurrence.axis, 0)[there].abs().sum() == 0.0

    assert all(pruner.gone[span].any() for _, span in pruner.layout.spans())
    small = tmp_path / "small.onnx"
    report = ozgraph.export(module, (like,), small)
    assert difference(small, module, batch(like, 1000, len(like))) < 1e-5
    # What the pruner counts on is what the file has: all that it zeroed went.
    gone = pruner.groups.parameters - pruner.selection.left(pruner.gone)[0]
    assert report.parameters_before - report.parameters_after == gone > 0
    assert report.removed_slots == pruner.gone.sum()

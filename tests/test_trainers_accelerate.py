"""In a loop written with accelerate, groups end at exactly zero and the file is small and equal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
accelerate = pytest.importorskip("accelerate")

from torch.nn import functional as F  # noqa: E402
from training.finished import difference  # noqa: E402
from training.loops import groups_of, net  # noqa: E402
from training.nets import images  # noqa: E402

import ozgraph  # noqa: E402
from ozgraph.runtime import HESSO, Target  # noqa: E402

pytestmark = pytest.mark.slow
STEPS = 20


def trained(*, inner: bool) -> tuple[Any, Any, Any]:
    """Accelerator, model and pruner at the end; ``inner`` gives the pruner torch's own optimizer."""
    accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=2)
    module = net(6)
    groups = groups_of(module)
    torch_optimizer = torch.optim.AdamW(module.parameters(), lr=2e-3)
    model, optimizer = accelerator.prepare(module, torch_optimizer)
    given = torch_optimizer if inner else optimizer
    pruner = HESSO(given, groups.bind(model), target=Target(macs=0.5), steps=STEPS, start=2, end=16, periods=2)
    accelerator.register_for_checkpointing(pruner)
    for number in range(2 * STEPS):
        with accelerator.accumulate(model):
            x, y = images(1000 + number)
            accelerator.backward(F.cross_entropy(model(x), y))
            accelerator.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
    return accelerator, model, pruner


def test_accelerate_ends_in_exact_zeros_and_a_verified_file(tmp_path: Path) -> None:
    # The optimizer that accelerate hands out runs no hooks of its own.
    accelerator, model, pruner = trained(inner=False)
    assert pruner.step == STEPS, "a step is the optimizer's, not a batch"
    assert pruner.finished and pruner.metrics()["redundant_norm"] == 0.0

    whole, small = accelerator.unwrap_model(model), tmp_path / "small.onnx"
    report = ozgraph.export(whole, (images()[0],), small)
    assert report.macs_after <= 0.5 * report.macs_before and report.removed_slots == pruner.gone.sum()
    assert difference(small, whole, images(99)[0]) < 1e-5


def test_its_checkpoints_hold_the_pruner_and_torchs_own_optimizer_does_as_well(tmp_path: Path) -> None:
    accelerator, _, pruner = trained(inner=True)
    assert pruner.finished
    accelerator.save_state(str(tmp_path))
    gone = pruner.gone.copy()
    pruner.set_gone(gone & False)
    pruner.step = 0
    accelerator.load_state(str(tmp_path))
    assert pruner.step == STEPS and (pruner.gone == gone).all()

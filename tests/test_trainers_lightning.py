"""Trained by Lightning, groups end at exactly zero and the file is small and equal."""

from __future__ import annotations

import unittest
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from models.zoo import torchvision_library  # noqa: E402

# torchmetrics imports it, where it is installed, and some builds lack operators that the import asks for.
with suppress(unittest.SkipTest):
    torchvision_library()

lightning = pytest.importorskip("lightning.pytorch")

from torch import Tensor, nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402
from training.finished import difference  # noqa: E402
from training.loops import groups_of, net  # noqa: E402
from training.nets import images  # noqa: E402

import ozgraph  # noqa: E402
from ozgraph.errors import UsageError  # noqa: E402
from ozgraph.runtime import HESSO, HESSOCRIC, Target  # noqa: E402
from ozgraph.runtime.trainers.lightning import PruningCallback  # noqa: E402

pytestmark = pytest.mark.slow
STEPS, EPOCHS = 24, 2


class Batches(torch.utils.data.Dataset[tuple[Tensor, Tensor]]):
    def __len__(self) -> int:
        return STEPS // EPOCHS

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        return images(1000 + number)


class Task(lightning.LightningModule):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        return F.cross_entropy(self.network(batch[0]), batch[1])

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), lr=2e-3)
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=STEPS + 1)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def fit(task: Task, callback: PruningCallback, folder: Path, *others: Any, resume: Path | None = None) -> None:
    trainer = lightning.Trainer(
        max_epochs=EPOCHS, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        default_root_dir=folder, callbacks=[callback, *others], gradient_clip_val=1.0,
        enable_checkpointing=bool(others),
    )  # fmt: skip
    data = torch.utils.data.DataLoader(Batches(), batch_size=None)
    trainer.fit(task, data, ckpt_path=resume)


def pruning() -> PruningCallback:
    # The groups are those of the network alone; the trainer has the module that holds it.
    return PruningCallback(groups_of(net(3)), HESSO, target=Target(macs=0.5), start=3, end=20, periods=2)


def test_lightning_ends_in_exact_zeros_and_a_verified_file_and_resumes(tmp_path: Path) -> None:
    task, callback = Task(net(4)), pruning()
    saving = lightning.callbacks.ModelCheckpoint(tmp_path, every_n_epochs=1, save_top_k=-1)
    fit(task, callback, tmp_path, saving)
    pruner = callback.pruner
    assert pruner.step == STEPS and pruner.finished and pruner.metrics()["redundant_norm"] == 0.0

    again, resumed = Task(net(5)), pruning()
    # Inside the second period.
    (checkpoint,) = tmp_path.glob(f"*step={STEPS // EPOCHS}.ckpt")
    fit(again, resumed, tmp_path, resume=checkpoint)
    assert resumed.pruner.step == STEPS and (resumed.pruner.gone == pruner.gone).all()
    for name, tensor in task.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name

    small = tmp_path / "small.onnx"
    report = ozgraph.export(task.network, (images()[0],), small)
    assert report.macs_after <= 0.5 * report.macs_before and report.removed_slots == pruner.gone.sum()
    assert difference(small, task.network, images(99)[0]) < 1e-5


def test_a_method_that_probes_hears_the_losses(tmp_path: Path) -> None:
    callback = PruningCallback(
        groups_of(net(3)), HESSOCRIC, target=Target(groups=0.4), start=2, cycle_steps=2, cycles=2, leave_steps=4,
        probes=(0.5,),
    )  # fmt: skip
    fit(Task(net(4)), callback, tmp_path)
    assert callback.pruner.finished and len(callback.pruner._losses) == 1 + len(callback.pruner.layout.families)


def test_a_run_of_unknown_length_is_refused(tmp_path: Path) -> None:
    trainer = lightning.Trainer(
        max_epochs=-1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=[pruning()],
    )  # fmt: skip
    with pytest.raises(UsageError, match="max_steps or max_epochs"):
        trainer.fit(Task(net(4)), torch.utils.data.DataLoader(Batches(), batch_size=None))

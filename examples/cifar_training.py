"""Training on CIFAR-10 in pieces: every batch follows from the seed and its number, and checkpoints hold the rest."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cifar_data
import torch
from recorded_step import RecordedStep, cross_entropy
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from ozgraph.runtime import HESSOCRIC


class Batches:
    """Shuffled, shifted and mirrored batches; batch ``step`` is the same however often a run is stopped before it."""

    def __init__(self, images: Tensor, labels: Tensor, size: int, seed: int) -> None:
        self.images, self.labels, self.size, self.seed = images, labels, size, seed
        self.per_epoch = len(images) // size
        self._epoch, self._order = -1, torch.empty(0)

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        """Images [size, 3, 32, 32], normalised, and labels [size]."""
        epoch, number = divmod(step, self.per_epoch)
        device = self.images.device
        if epoch != self._epoch:
            generator = torch.Generator(device).manual_seed(self.seed * 1_000_003 + epoch)
            self._epoch, self._order = epoch, torch.randperm(len(self.images), generator=generator, device=device)
        rows = self._order[number * self.size : (number + 1) * self.size]
        generator = torch.Generator(device).manual_seed((self.seed + 1) * 1_000_000_007 + step)
        return cifar_data.normalised(cifar_data.augmented(self.images[rows], generator)), self.labels[rows]


def accuracy(module: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Share of correct answers, in per cent."""
    training = module.training
    module.eval()
    with torch.no_grad(), torch.autocast(images.device.type, torch.bfloat16, enabled=images.is_cuda):
        right = sum(
            (module(cifar_data.normalised(images[start : start + 500])).argmax(1) == labels[start : start + 500]).sum()
            for start in range(0, len(images), 500)
        )
    module.train(training)
    return 100 * float(right) / len(images)


@dataclass
class Run:
    """What is trained, and by what.

    Attributes:
        pruner: attached to the optimizer, or None.
        average: of the weights, updated after every step, or None.
    """

    network: nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler
    pruner: Any = None
    average: AveragedModel | None = None

    @property
    def module(self) -> nn.Module:
        """The network as it is now: a pruner may have made it another one."""
        module: nn.Module = self.network if self.pruner is None else self.pruner.module
        return module

    @property
    def parts(self) -> dict[str, Any]:
        """Everything with a state, by name."""
        parts = {"module": self.module, "optimizer": self.optimizer, "scheduler": self.scheduler}
        more = {"pruner": self.pruner, "average": self.average}
        return parts | {name: part for name, part in more.items() if part is not None}


class Checkpoint:
    """A file that a run is saved to, whole or not at all, and goes on from."""

    def __init__(self, path: Path | None, run: Run, settings: Mapping[str, Any]) -> None:
        """``settings`` are what must be the same when going on."""
        self.path, self.run, self.settings = path, run, dict(settings)

    def save(self, step: int, seconds: float) -> None:
        """Everything that step ``step`` needs, and the seconds spent before it."""
        if self.path is None:
            return
        states = {name: part.state_dict() for name, part in self.run.parts.items()}
        partial = self.path.with_suffix(".partial")
        torch.save({"step": step, "seconds": seconds, "settings": self.settings, "states": states}, partial)
        partial.replace(self.path)

    def load(self, device: torch.device) -> tuple[int, float]:
        """The step to go on with, and the seconds spent before it; (0, 0) where there is no file.

        Raises:
            SystemExit: the file is of a run with other settings.
        """
        if self.path is None or not self.path.exists():
            return 0, 0.0
        saved = torch.load(self.path, map_location=device, weights_only=True)
        if saved["settings"] != self.settings:
            raise SystemExit(f"{self.path} is of a run with other settings ({saved['settings']}); name another file")
        # The pruner comes first: after a cut it makes the fresh network small, and only then do the others fit.
        for name in sorted(saved["states"], key=lambda name: name != "pruner"):
            self.run.parts[name].load_state_dict(saved["states"][name])
        return int(saved["step"]), float(saved["seconds"])


def train(
    run: Run,
    batches: Batches,
    steps: int,
    checkpoint: Checkpoint,
    *,
    save_minutes: float = 5.0,
    minutes: float = float("inf"),
    record: bool = True,
    watch: Callable[[float | None], None] = lambda loss: None,
) -> float | None:
    """Train up to ``steps``, from wherever the checkpoint is, and save the end.

    Args:
        save_minutes: at most so much work is lost when the run is killed; the ends of epochs are saved too.
        minutes: save and stop once so much time has passed.
        record: on CUDA, replay forward and backward from a graph.
        watch: called after every step, now and then with the loss.

    Returns:
        Seconds of training, those of earlier pieces too; None where it was stopped.
    """
    device = batches.images.device
    first, before = checkpoint.load(device)
    if first:
        print(f"{checkpoint.path}: going on from step {first} of {steps}")
    recorded = RecordedStep() if record and device.type == "cuda" else None
    if recorded is not None and run.pruner is not None and run.pruner.compaction is not None:
        run.pruner.follow(recorded.forget)
    begun = saved = time.monotonic()
    for step in range(first, steps):
        x, labels = batches(step)
        if recorded is not None:
            loss = recorded(run.module, x, labels)
        else:
            loss = cross_entropy(run.module, x, labels)
            run.optimizer.zero_grad()
            loss.backward()
        if isinstance(run.pruner, HESSOCRIC):
            run.pruner.record(loss)
        run.optimizer.step()
        run.scheduler.step()
        if run.average is not None:
            run.average.update_parameters(run.module)
        watch(loss.item() if step % 50 == 0 else None)
        now, done = time.monotonic(), step + 1
        over = now - begun > 60 * minutes
        if over or done == steps or done % batches.per_epoch == 0 or now - saved > 60 * save_minutes:
            checkpoint.save(done, before + now - begun)
            saved = now
        if over and done < steps:
            print(f"stopped after step {done} of {steps}; start again to go on")
            return None
    return before + time.monotonic() - begun

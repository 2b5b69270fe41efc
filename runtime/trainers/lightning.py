"""Training with Lightning, under either of its names."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from ozgraph.errors import UsageError
from ozgraph.groups import Groups
from ozgraph.runtime.hesso import HESSO
from ozgraph.runtime.pruner import Pruner
from ozgraph.runtime.trainers.recipe import Recipe


def _callback() -> Any:
    """The base class of the package whose trainer is used, where both are installed."""
    names = ["lightning.pytorch", "pytorch_lightning"]
    for name in sorted(names, key=lambda name: name not in sys.modules):
        try:
            return import_module(name).Callback
        except ImportError:
            continue
    raise ImportError("lightning is needed to train with Lightning: pip install lightning")


_Base: Any = _callback()


class PruningCallback(_Base):  # type: ignore[misc]  # lightning need not be installed where types are checked
    """``Trainer(..., callbacks=[PruningCallback(groups, target=Target(macs=0.5))])``.

    The pruner attaches when training starts, to the optimizer that the module configured, whatever strategy and
    precision the trainer has. Checkpoints hold its state.

    Args:
        groups: of :func:`ozgraph.find_groups`, on the ``LightningModule`` or on a network that it holds.
        method: which pruner.
        optimizer: position of the optimizer among those that the module configured.
        options: further arguments of the pruner; the steps are the trainer's.

    Raises:
        UsageError: as for the pruner, and where the trainer does not say how long it will train.
    """

    def __init__(self, groups: Groups, method: type[Pruner] = HESSO, *, optimizer: int = 0, **options: Any) -> None:
        super().__init__()
        self._recipe, self._optimizer = Recipe(groups, method, options), optimizer
        self._saved: Mapping[str, Any] | None = None

    @property
    def pruner(self) -> Pruner:
        """The pruner at work.

        Raises:
            UsageError: training has not begun.
        """
        if self._recipe.pruner is None:
            raise UsageError("there is no pruner before training begins; call trainer.fit(module) first")
        return self._recipe.pruner

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Attach to the optimizer, and go on where a checkpoint left off."""
        steps = trainer.estimated_stepping_batches
        if not math.isfinite(steps):
            raise UsageError(
                "a pruner's schedule needs the length of the run; give the trainer max_steps or max_epochs"
            )
        pruner = self._recipe.attach(trainer.optimizers[self._optimizer], pl_module, int(steps))
        if self._saved is not None:
            pruner.load_state_dict(self._saved)
            self._saved = None

    def on_before_backward(self, trainer: Any, pl_module: Any, loss: Any) -> None:
        """Hear what a batch lost."""
        if self._recipe.wants_losses:
            self._recipe.heard(loss)

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        """Tell a pruner that probes what the batch lost."""
        self._recipe.record()

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Let go of the optimizer; the groups are zero in the model."""
        self._recipe.detach()

    def state_dict(self) -> dict[str, Any]:
        """The pruner's state, for Lightning's checkpoints."""
        return {} if self._recipe.pruner is None else self._recipe.pruner.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep a state until the pruner is built."""
        self._saved = state_dict or None

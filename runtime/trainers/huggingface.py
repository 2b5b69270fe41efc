"""Training with the ``Trainer`` of Hugging Face transformers."""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from ozgraph.errors import UsageError
from ozgraph.groups import Groups
from ozgraph.runtime.hesso import HESSO
from ozgraph.runtime.pruner import Pruner
from ozgraph.runtime.trainers.recipe import Recipe

try:
    _Base: Any = import_module("transformers.trainer_callback").TrainerCallback
except ImportError as error:
    raise ImportError(
        f"{error.name} is needed to train with transformers: pip install transformers accelerate"
    ) from None

_FILE = "pruner.pt"


class PruningCallback(_Base):  # type: ignore[misc]  # transformers need not be installed where types are checked
    """``Trainer(..., callbacks=[PruningCallback(groups, target=Target(macs=0.5))])``.

    The pruner attaches when training begins, to whatever optimizer the trainer has made and on all its processes. Every
    checkpoint holds its state, and a run that is resumed goes on with it. Logs say how far it is.

    Args:
        groups: of :func:`ozgraph.find_groups`, on the model that the trainer gets.
        method: which pruner.
        resume: the checkpoint that a run is resumed from, where it does not lie in the trainer's ``output_dir``.
        options: further arguments of the pruner; the steps are the trainer's.

    Raises:
        UsageError: as for the pruner; the run is resumed from a checkpoint without a pruner's state; the trainer
            would end with an earlier checkpoint (``load_best_model_at_end``), in which groups are not zero yet.
    """

    def __init__(
        self,
        groups: Groups,
        method: type[Pruner] = HESSO,
        *,
        resume: str | os.PathLike[str] | None = None,
        **options: Any,
    ) -> None:
        self._recipe, self._resume = Recipe(groups, method, options), resume
        self._hook: Any = None

    @property
    def pruner(self) -> Pruner:
        """The pruner at work.

        Raises:
            UsageError: training has not begun.
        """
        if self._recipe.pruner is None:
            raise UsageError("there is no pruner before training begins; call trainer.train() first")
        return self._recipe.pruner

    def on_train_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """Attach to the optimizer, and go on where a checkpoint left off."""
        if args.load_best_model_at_end:
            raise UsageError(
                "load_best_model_at_end may go back to weights in which groups are not zero yet; leave it off, and "
                "choose among the checkpoints that were saved after pruning ended"
            )
        pruner = self._recipe.attach(more["optimizer"], more["model"], state.max_steps)
        if state.global_step:
            pruner.load_state_dict(self._saved(args, state))
        if self._recipe.wants_losses:
            self._hook = more["model"].register_forward_hook(self._hear)

    def _saved(self, args: Any, state: Any) -> Mapping[str, Any]:
        folder = Path(self._resume or _checkpoint(args, state))
        try:
            found: Mapping[str, Any] = torch.load(folder / _FILE, weights_only=True, map_location="cpu")
        except OSError as error:
            raise UsageError(
                f"{folder / _FILE}: cannot be read ({error.strerror}); give the checkpoint that the run is resumed "
                "from as resume=..., and resume from one that was saved with this callback"
            ) from None
        return found

    def _hear(self, model: Any, args: Any, output: Any) -> None:
        loss = output.get("loss") if isinstance(output, Mapping) else None
        if model.training and loss is not None:
            self._recipe.heard(loss)

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """Tell a pruner that probes what the batch lost."""
        self._recipe.record()

    def on_save(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """Write the pruner's state into the checkpoint."""
        if state.is_world_process_zero:
            path = _checkpoint(args, state) / _FILE
            partial = path.with_suffix(".partial")
            torch.save(self.pruner.state_dict(), partial)
            partial.replace(path)

    def on_log(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """Add what is zero so far to the log: for callbacks after this one, and to the trainer's history."""
        pruner = self._recipe.pruner
        if pruner is None:
            return
        parameters, macs = pruner.selection.left(pruner.gone)
        said = {
            "groups_zero": int(pruner.gone.sum()),
            "parameters_share": round(parameters / max(pruner.groups.parameters, 1), 4),
            "macs_share": round(macs / max(pruner.groups.macs, 1), 4),
        }
        for log in (more.get("logs"), *state.log_history[-1:]):
            if log is not None:
                log.update(said)

    def on_train_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """Let go of the optimizer; the groups are zero in the model."""
        self._recipe.detach()
        if self._hook is not None:
            self._hook.remove()


def _checkpoint(args: Any, state: Any) -> Path:
    return Path(args.output_dir) / f"checkpoint-{state.global_step}"

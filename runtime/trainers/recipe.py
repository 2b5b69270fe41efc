"""How a pruner is built once a trainer has its optimizer: what all callbacks share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ozgraph.groups import Groups
from ozgraph.runtime.pruner import Pruner


@dataclass
class Recipe:
    """A pruner in the making.

    Attributes:
        groups: of the model, found before or after the trainer has wrapped it.
        method: a pruner's class.
        options: its arguments, without the optimizer, the groups and the steps.
        pruner: the one that is at work; None before training.
    """

    groups: Groups
    method: type[Pruner]
    options: Mapping[str, Any]
    pruner: Pruner | None = None
    _losses: list[Any] = field(default_factory=list)

    def attach(self, optimizer: Any, model: Any, steps: int) -> Pruner:
        """Build the pruner for the optimizer of a run of ``steps``; one that was at work before lets go."""
        self.detach()
        made: Any = self.method
        pruner: Pruner = made(optimizer, self.groups.bind(model), steps=steps, **self.options)
        self.pruner = pruner
        return pruner

    def detach(self) -> None:
        """Let go of the optimizer; the pruner stays to be asked what it did."""
        if self.pruner is not None:
            self.pruner.remove()

    @property
    def wants_losses(self) -> bool:
        """Whether the pruner reads the loss of a step, as HESSO-CRIC does while it probes."""
        return hasattr(self.pruner, "record")

    def heard(self, loss: Any) -> None:
        """The loss of a batch, or of one of those whose gradients are accumulated for a step."""
        self._losses.append(loss.detach())

    def record(self) -> None:
        """Before the optimizer's step: tell the pruner what its batches lost on average."""
        if self._losses:
            taught: Any = self.pruner
            taught.record(sum(self._losses) / len(self._losses))
            self._losses.clear()

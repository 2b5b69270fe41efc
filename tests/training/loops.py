"""Training loops and the groups of a module."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import ozgraph
from ozgraph.groups import Groups
from training.nets import Plain, images

# Networks this small only lose time on several threads.
torch.set_num_threads(1)


def groups_of(module: nn.Module, *args: Tensor) -> Groups:
    """The groups of a module, found on its own parameters."""
    return ozgraph.find_groups(module, args or (images()[0],))


def net(seed: int = 0, kind: Callable[[], nn.Module] = Plain) -> nn.Module:
    """A network whose every parameter is away from its start: nothing is zero by chance."""
    torch.manual_seed(seed)
    module = kind()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return module.train()


def batch(step: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """The batch of a step, as numbers like these and beside them."""
    x, y = images(1000 + step)
    return x.to(like), y.to(like.device)


def train(module: nn.Module, optimizer: torch.optim.Optimizer, steps: Iterable[int], pruner: Any = None) -> list[float]:
    """Steps on batches that depend on their number alone, where the module lies and as it counts; the losses."""
    losses = []
    for step in steps:
        x, y = batch(step, next(module.parameters()))
        loss = F.cross_entropy(module(x), y)
        optimizer.zero_grad()
        loss.backward()
        if pruner is not None and hasattr(pruner, "record"):
            pruner.record(loss)
        optimizer.step()
        losses.append(loss.item())
    return losses


def exactly_zero(pruner: Any) -> None:
    """Every element of every group that is gone is 0.0, and the target is met."""
    assert pruner.finished
    tensors = dict(pruner.module.named_parameters()) | dict(pruner.module.named_buffers())
    for family, span in pruner.layout.spans():
        gone = np.flatnonzero(pruner.gone[span])
        assert len(gone) < family.size
        for occurrence in family.zeroed:
            positions = torch.from_numpy(np.isin(occurrence.slots(), gone))
            slices = tensors[occurrence.tensor].detach().cpu().movedim(occurrence.axis, 0)[positions]
            assert slices.abs().sum() == 0.0

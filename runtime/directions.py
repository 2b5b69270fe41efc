"""The direction that an optimizer has just stepped along, from its own state where that is known.

For SGD that is the momentum buffer, for the Adam family m / (sqrt(v) + eps). For any other optimizer it is what the
weights moved by, over the learning rate: the same thing, but for the rounding of the weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from ozgraph.runtime.places import Occupied
from ozgraph.runtime.shards import local, local_gradient

Direction = Callable[[Mapping[str, Any], Mapping[str, Any], Tensor, Tensor], Tensor | None]
"""(param group, state of the parameter, gradient, weights before) -> the direction; None where the state has none."""


def _number(value: Any) -> Any:
    return value.item() if isinstance(value, Tensor) and value.device.type == "cpu" else value


def _sgd(group: Mapping[str, Any], state: Mapping[str, Any], gradient: Tensor, before: Tensor) -> Tensor | None:
    if group.get("maximize"):
        return None
    momentum = _number(group.get("momentum", 0))
    buffer = state.get("momentum_buffer")
    if momentum and not group.get("nesterov"):
        return buffer if isinstance(buffer, Tensor) else None
    decayed = gradient.add(before, alpha=_number(group.get("weight_decay", 0)))
    if not momentum:
        return decayed
    return decayed.add(buffer, alpha=momentum) if isinstance(buffer, Tensor) else None


def _adam(group: Mapping[str, Any], state: Mapping[str, Any], gradient: Tensor, before: Tensor) -> Tensor | None:
    if not {"exp_avg", "exp_avg_sq", "step"} <= state.keys() or group.get("amsgrad") or group.get("maximize"):
        return None
    first, second = group["betas"]
    step = _number(state["step"])
    mean: Tensor = state["exp_avg"] / (1 - first**step)
    spread: Tensor = (state["exp_avg_sq"] / (1 - second**step)).sqrt_()
    return mean.div_(spread.add_(group["eps"]))


def direction(optimizer: Optimizer, group: Mapping[str, Any], parameter: Tensor, before: Tensor) -> Tensor | None:
    """What ``parameter`` was stepped along, where it lies here; None where it had no gradient.

    Args:
        optimizer: after its step.
        group: the parameter's group of options.
        before: the weights as they were.
    """
    gradient = local_gradient(parameter)
    if gradient is None:
        return None
    state = {
        key: local(item) if isinstance(item, Tensor) else item
        for key, item in optimizer.state.get(parameter, {}).items()
    }
    known: Direction | None = None
    if isinstance(optimizer, torch.optim.SGD):
        known = _sgd
    elif isinstance(optimizer, (torch.optim.Adam, torch.optim.AdamW)):
        known = _adam
    found = known(group, state, gradient, before) if known is not None else None
    if found is not None:
        return found
    rate = _number(group["lr"])
    moved: Tensor = (before - local(parameter).detach()) / rate
    return moved


class Directions(Mapping[str, Tensor]):
    """The direction of everything that has one, worked out when it is asked for and kept nowhere.

    So a step that selects holds one direction at a time, and not a second copy of the model. A weight with low-rank
    factors beside it has the direction in which these moved it.

    Args:
        optimizer: after its step.
        options: the group of options that holds what trains each of them, by name.
        moved: those with a gradient.
        before: all of them as they were.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        options: Mapping[str, Mapping[str, Any]],
        moved: Iterable[Occupied],
        before: Mapping[str, Tensor],
    ) -> None:
        self._optimizer, self._options, self._before = optimizer, options, before
        self._moved = {entry.name: entry for entry in moved}

    def __getitem__(self, name: str) -> Tensor:
        entry, options = self._moved[name], self._options[name]
        if entry.low_rank is not None:
            moved: Tensor = (self._before[name] - entry.value()) / _number(options["lr"])
            return moved
        found = direction(self._optimizer, options, entry.parameter, self._before[name])
        if found is None:
            raise KeyError(name)
        return found

    def __contains__(self, name: object) -> bool:
        return name in self._moved

    def __iter__(self) -> Iterator[str]:
        return iter(self._moved)

    def __len__(self) -> int:
        return len(self._moved)


class Gradients(Mapping[str, Tensor]):
    """The gradient of everything that has one, where it lies here.

    That of a weight with low-rank factors is what a plain gradient step of these moves it along, s (dB A + B dA): the
    part of its gradient that they can follow.
    """

    def __init__(self, moved: Iterable[Occupied]) -> None:
        self._moved = {entry.name: entry for entry in moved}

    def __getitem__(self, name: str) -> Tensor:
        entry = self._moved[name]
        found = local_gradient(entry.parameter) if entry.low_rank is None else entry.low_rank.gradient()
        if found is None:
            raise KeyError(name)
        return found

    def __contains__(self, name: object) -> bool:
        return name in self._moved

    def __iter__(self) -> Iterator[str]:
        return iter(self._moved)

    def __len__(self) -> int:
        return len(self._moved)

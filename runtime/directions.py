"""The direction that an optimizer has just stepped along, from its own state where that is known.

For SGD that is the momentum buffer, for the Adam family m / (sqrt(v) + eps). For any other optimizer it is what the
weights moved by, over the learning rate: the same thing, but for the rounding of the weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

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
    """What ``parameter`` was stepped along; None where it had no gradient.

    Args:
        optimizer: after its step.
        group: the parameter's group of options.
        before: the weights as they were.
    """
    gradient = parameter.grad
    if gradient is None:
        return None
    state = optimizer.state.get(parameter, {})
    known: Direction | None = None
    if isinstance(optimizer, torch.optim.SGD):
        known = _sgd
    elif isinstance(optimizer, (torch.optim.Adam, torch.optim.AdamW)):
        known = _adam
    found = known(group, state, gradient, before) if known is not None else None
    if found is not None:
        return found
    rate = _number(group["lr"])
    moved: Tensor = (before - parameter.detach()) / rate
    return moved


class Directions(Mapping[str, Tensor]):
    """The direction of every parameter that has one, worked out when it is asked for and kept nowhere.

    So a step that selects holds one direction at a time, and not a second copy of the model.

    Args:
        optimizer: after its step.
        options: the group of options that holds each parameter, by name.
        parameters: those with a gradient, by name.
        before: all of them as they were.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        options: Mapping[str, Mapping[str, Any]],
        parameters: Mapping[str, Tensor],
        before: Mapping[str, Tensor],
    ) -> None:
        self._optimizer, self._options = optimizer, options
        self._parameters, self._before = parameters, before

    def __getitem__(self, name: str) -> Tensor:
        found = direction(self._optimizer, self._options[name], self._parameters[name], self._before[name])
        if found is None:
            raise KeyError(name)
        return found

    def __contains__(self, name: object) -> bool:
        return name in self._parameters

    def __iter__(self) -> Iterator[str]:
        return iter(self._parameters)

    def __len__(self) -> int:
        return len(self._parameters)

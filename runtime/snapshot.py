"""A model and its optimizer at one moment, to go back to; of what is sharded, the part that lies here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from ozgraph.runtime.shards import as_sharded, local


def _tensors(module: Any) -> dict[str, Tensor]:
    return dict(module.named_parameters()) | dict(module.named_buffers())


class Snapshot:
    """Copies of every parameter, every buffer (batch norm statistics too) and the optimizer's tensors.

    Args:
        device: where the copies live; the processor by default, so that a model may fill the accelerator.
    """

    def __init__(self, module: Any, optimizer: Optimizer, device: torch.device | str = "cpu") -> None:
        self._module, self._optimizer = module, optimizer
        self.tensors = {name: _copy(tensor, device) for name, tensor in _tensors(module).items()}
        self.state: dict[tuple[int, int], dict[str, Any]] = {
            place: {key: _copy(item, device) if isinstance(item, Tensor) else item for key, item in entry.items()}
            for place, entry in self._states().items()
        }

    def _states(self) -> dict[tuple[int, int], dict[str, Any]]:
        """The optimizer's state by the place of its parameter: (group, position)."""
        return {
            (number, position): self._optimizer.state[parameter]
            for number, options in enumerate(self._optimizer.param_groups)
            for position, parameter in enumerate(options["params"])
            if parameter in self._optimizer.state
        }

    @torch.no_grad()
    def restore(self) -> None:
        """Write everything back in place."""
        for name, tensor in _tensors(self._module).items():
            local(tensor).copy_(self.tensors[name])
        now = self._states()
        for place, entry in self.state.items():
            for key, item in entry.items():
                current = now[place].get(key)
                if isinstance(item, Tensor) and isinstance(current, Tensor):
                    local(current).copy_(item)
                else:
                    now[place][key] = item.clone() if isinstance(item, Tensor) else item
        for place, state in now.items():
            for key in state.keys() - self.state.get(place, {}).keys():
                # What the optimizer has begun to keep since starts again from nothing.
                item = state[key]
                if isinstance(item, Tensor):
                    local(item).zero_()

    def state_dict(self) -> dict[str, Any]:
        """Plain data and tensors; of what is sharded, sharded tensors again."""
        live, now = _tensors(self._module), self._states()
        return {
            "tensors": {name: _as(live[name], part) for name, part in self.tensors.items()},
            "state": [
                [list(place), {key: _as(now[place].get(key), item) for key, item in entry.items()}]
                for place, entry in self.state.items()
            ],
        }

    @classmethod
    def from_state_dict(cls, module: Any, optimizer: Optimizer, data: Mapping[str, Any]) -> Snapshot:
        """What :meth:`state_dict` gave, for the same module and optimizer."""
        made = cls.__new__(cls)
        made._module, made._optimizer = module, optimizer
        made.tensors = {name: local(tensor) for name, tensor in data["tensors"].items()}
        made.state = {
            (int(place[0]), int(place[1])): {
                key: local(item) if isinstance(item, Tensor) else item for key, item in entry.items()
            }
            for place, entry in data["state"]
        }
        return made


def _as(live: Any, part: Any) -> Any:
    """The copy of what lies here as a tensor that is sharded as the live one."""
    return as_sharded(part, live) if isinstance(live, Tensor) and isinstance(part, Tensor) else part


def _copy(tensor: Tensor, device: torch.device | str) -> Tensor:
    return local(tensor).detach().to(device, copy=True)

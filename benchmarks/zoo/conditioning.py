"""How much of what a random network returns is rounding, with parts of its layers' inputs left out as pruning does."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

Inputs = tuple[tuple[Any, ...], dict[str, Any]]

FEWEST = 4
"""Channels that an input has at least for some of them to be left out."""

CHOSEN = 0.1
"""Rounding of results from which on they are taken for chosen (the best boxes) rather than computed."""

LAST = 8
"""Layers that are looked at instead, as called from the end."""


def rounding(module: nn.Module, first: Inputs, second: Inputs, seed: int = 1) -> float | None:
    """The largest difference between float32 and float64 over what two inputs differ by, the worse of two cases.

    Every layer meets a half of its input, or half of the layers do: verification compares halves of all families,
    and of half of them.

    Args:
        module: in eval mode and float32, and so again afterwards; its buffers are other tensors then.
        seed: of what is left out.

    Returns:
        None where that cannot be told: it is not of one precision, does not run in float64, or returns nothing that
        varies.
    """
    if any(tensor.dtype is not torch.float32 for tensor in _tensors(module) if tensor.is_floating_point()):
        return None
    found = []
    for layers in (1.0, 0.5):
        try:
            with torch.no_grad(), thinned(module, 0.5, layers, seed):
                narrow = [_results(module, each) for each in (first, second)]
            with torch.no_grad(), thinned(module.double(), 0.5, layers, seed):
                wide = [_results(module, tree_map(_widened, each)) for each in (first, second)]
        except Exception:  # whatever it says: it is not run this way
            return None
        finally:
            module.float()
        parts = [_errors([*(row[part] for row in narrow), *(row[part] for row in wide)]) for part in (0, 1)]
        if parts[0] and max(parts[0]) < CHOSEN:
            found.append(max(parts[0]))
        elif parts[1]:
            found.append(sorted(parts[1])[len(parts[1]) // 2])
    return max(found, default=None)


def _tensors(module: nn.Module) -> Iterator[Tensor]:
    yield from module.parameters()
    yield from module.buffers()


def _errors(runs: list[list[Tensor]]) -> list[float]:
    """Per tensor: the difference of the first two runs from the last two, over what these differ by."""
    found = []
    for rows in zip(*runs, strict=False):
        if len({row.shape for row in rows}) == 1 and rows[0].numel():
            spread = float((rows[2] - rows[3]).square().mean().sqrt())
            error = max(float((rows[k].double() - rows[k + 2]).abs().max()) for k in (0, 1))
            if spread > 0:
                found.append(error / spread if error / spread < float("inf") else float("inf"))
    return found


@contextmanager
def thinned(module: nn.Module, part: float, layers: float = 1.0, seed: int = 1) -> Iterator[None]:
    """Inside, layers meet zeros in a part of the channels of their inputs, the same in every such run.

    Args:
        part: of the channels, to be left out.
        layers: the share of them, drawn, that meet any.
    """
    generator = torch.Generator().manual_seed(seed)

    def thin(layer: Any, inputs: tuple[Any, ...]) -> Any:
        data, axis = inputs[0] if inputs else None, -1 if layer.weight.ndim == 2 else 1
        if not is_real(data) or data.ndim < layer.weight.ndim:
            return None
        size = data.shape[axis]
        if layer.weight.shape[1] == 1 or size < FEWEST:  # a channel of its own for each filter, or an image
            return None
        if layers < 1 and float(torch.rand(1, generator=generator)) >= layers:
            return None
        mask = data.new_ones(size)
        mask[torch.randperm(size, generator=generator)[: int(size * part)]] = 0
        return (data * mask.reshape([-1 if k == axis % data.ndim else 1 for k in range(data.ndim)]), *inputs[1:])

    hooks = [layer.register_forward_pre_hook(thin) for layer in module.modules() if is_product(layer)]
    try:
        yield
    finally:
        for handle in hooks:
            handle.remove()


def is_product(part: nn.Module) -> bool:
    """A layer that multiplies by a matrix, or looks rows of it up."""
    weight = getattr(part, "weight", None)
    return isinstance(weight, nn.Parameter) and weight.ndim > 1 and weight.is_floating_point()


def is_real(leaf: Any) -> bool:
    """A tensor of floating numbers."""
    return isinstance(leaf, Tensor) and leaf.is_floating_point()


def _results(module: nn.Module, inputs: Inputs) -> tuple[list[Tensor], list[Tensor]]:
    """What a module returns, and what its last layers do."""
    args, kwargs = inputs
    last: deque[Tensor] = deque(maxlen=LAST)

    def keep(_: nn.Module, __: Any, result: Any) -> None:
        if is_real(result):
            last.append(result)

    hooks = [layer.register_forward_hook(keep) for layer in module.modules() if is_product(layer)]
    try:
        return [leaf for leaf in tree_leaves(module(*args, **kwargs)) if is_real(leaf)], list(last)
    finally:
        for handle in hooks:
            handle.remove()


def _widened(leaf: Any) -> Any:
    return leaf.double() if is_real(leaf) else leaf

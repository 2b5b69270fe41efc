"""Random weights that hide nothing: no scale at zero or one, no statistics at their initial values, no faded signal."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils._pytree import tree_leaves, tree_map

from ozgraph.numerics.inputs import at_all_scales

Inputs = tuple[tuple[Any, ...], dict[str, Any]]

LOWEST, HIGHEST = 0.25, 4.0
"""Spreads of a layer's results that are left as they are."""

SHIFT = 0.1
"""What biases of batch norms start at. Around zero, a rectifier behind a norm makes two nearby signals part by a fifth
more in every layer (Yang et al. 2019, arXiv:1902.08129): after fifty layers nothing but rounding would be compared.
Well above it, what all inputs have in common grows instead, beside which what tells them apart is rounding again."""

INPUTS = 3
"""How many inputs statistics are taken over: within a single one, what tells inputs apart is not seen."""

FEWEST = 4
"""Channels that an input has at least for some of them to be left out."""


def perturb(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], seed: int = 0) -> nn.Module:
    """Move every parameter a little, scale layers, draw batch norm statistics; in eval mode, in place.

    Signals that fade or grow from layer to layer end as rounding: what a wrong pruning changes of them is not seen. So
    layers get the scale at which activations spread by about one, as in a trained network, and batch norms the
    statistics of these activations over several inputs, moved; where there are none, they are drawn.
    """
    generator = torch.Generator().manual_seed(seed)

    def noise(like: torch.Tensor) -> torch.Tensor:
        return torch.randn(like.shape, generator=generator).to(like.dtype)

    module.eval()
    norms = [layer for layer in module.modules() if _is_batch_norm(layer)]
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.is_floating_point() and parameter.numel():
                scale = float(parameter.float().std()) if parameter.numel() > 1 else 0.0
                parameter.add_((0.1 * scale if scale > 0 else 0.02 if parameter.ndim > 1 else 0.1) * noise(parameter))
        for layer in norms:
            layer.running_mean.copy_(0.1 * noise(layer.running_mean))
            layer.running_var.copy_(0.75 + 0.5 * torch.rand(layer.running_var.shape, generator=generator))
            if layer.bias is not None:
                layer.bias.add_(SHIFT)
        _measure(module, norms, (norms and _together(module, _others(args, kwargs))) or (args, kwargs))
    return module


def _others(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Inputs]:
    """Inputs of the same shapes with other real numbers."""
    random = np.random.default_rng(1)

    def other(tensor: Any) -> Any:
        if not _is_real(tensor):
            return tensor
        return torch.from_numpy(at_all_scales(tuple(tensor.shape), random)).to(tensor.dtype)

    return [tree_map(other, (args, kwargs)) for _ in range(INPUTS)]


def _together(module: nn.Module, inputs: list[Inputs]) -> Inputs | None:
    """Inputs as one batch, for statistics across them; None where a module takes no such batch."""

    def joined(*tensors: Any) -> Any:
        stackable = isinstance(tensors[0], torch.Tensor) and tensors[0].ndim
        return torch.cat(tensors) if stackable else tensors[0]

    batch: Inputs = tree_map(joined, *inputs)
    try:
        results = tree_leaves(module(*batch[0], **batch[1]))
    except Exception:  # whatever a module says to a batch, it is not for it
        return None
    return batch if all(bool(leaf.isfinite().all()) for leaf in results if _is_real(leaf)) else None


def _is_real(leaf: Any) -> bool:
    return isinstance(leaf, torch.Tensor) and leaf.is_floating_point()


def _measure(module: nn.Module, norms: list[Any], inputs: Inputs) -> None:
    """One run: scales of layers and statistics of norms by the activations that meet them, layer by layer.

    What was drawn for a norm is how far it is off: later layers see what comes of that. Every layer meets a random
    two thirds of its input, for in what is verified it meets a half or all of it: with the statistics of the whole,
    signals fade over many halves, and with those of a half they grow without end over many wholes.
    """
    seen: set[int] = set()
    generator = torch.Generator().manual_seed(1)

    def thin(layer: Any, inputs: tuple[Any, ...]) -> Any:
        data, axis = inputs[0] if inputs else None, -1 if layer.weight.ndim == 2 else 1
        if not _is_real(data) or data.ndim < layer.weight.ndim:
            return None
        size = data.shape[axis]
        if layer.weight.shape[1] == 1 or size < FEWEST:  # a channel of its own for each filter, or an image
            return None
        mask = data.new_ones(size)
        mask[torch.randperm(size, generator=generator)[: size // 3]] = 0
        return (data * mask.reshape([-1 if k == axis % data.ndim else 1 for k in range(data.ndim)]), *inputs[1:])

    def measure(layer: Any, inputs: tuple[torch.Tensor, ...]) -> None:
        data = inputs[0].transpose(0, 1).flatten(1)
        if data.shape[1] > 1 and id(layer) not in seen:
            seen.add(id(layer))
            middle = data.mean(1) / 2
            spread = (data - middle[:, None]).square().mean() + 1e-8
            layer.running_mean.mul_(spread.sqrt()).add_(middle)
            layer.running_var.mul_(spread).add_(1e-3)

    def scale(layer: Any, _: Any, result: Any) -> Any:
        if not _is_real(result) or id(layer.weight) in seen:
            return result
        spread = float(result.double().std()) if result.numel() > 1 else 0.0
        if not 0 < spread < float("inf") or LOWEST <= spread <= HIGHEST:
            return result
        seen.add(id(layer.weight))
        for tensor in (layer.weight, getattr(layer, "bias", None)):
            if isinstance(tensor, nn.Parameter):
                tensor.div_(spread)
        return result / spread

    hooks = [layer.register_forward_pre_hook(measure) for layer in norms]
    hooks += [part.register_forward_pre_hook(thin) for part in module.modules() if _is_product(part)]
    hooks += [part.register_forward_hook(scale) for part in module.modules() if _is_product(part)]
    try:
        args, kwargs = inputs
        module(*args, **kwargs)
    finally:
        for handle in hooks:
            handle.remove()


def _is_batch_norm(part: nn.Module) -> bool:
    """A layer that holds statistics of channels, trained or frozen."""
    return all(isinstance(getattr(part, name, None), torch.Tensor) for name in ("running_mean", "running_var"))


def _is_product(part: nn.Module) -> bool:
    """A layer that multiplies by a matrix, or looks rows of it up."""
    weight = getattr(part, "weight", None)
    return isinstance(weight, nn.Parameter) and weight.ndim > 1 and weight.is_floating_point()

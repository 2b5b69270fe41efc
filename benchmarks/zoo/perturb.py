"""Random weights that hide nothing: no scale is left at zero or one, no statistics at their initial values."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


def perturb(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], seed: int = 0) -> nn.Module:
    """Move every parameter a little, draw batch norm statistics; in eval mode, in place.

    Statistics are those of the example's activations, moved: with others, signals would fade or grow from layer to
    layer until rounding is all that is left of them. Where a layer has no statistics of one example, they are drawn.
    """
    generator = torch.Generator().manual_seed(seed)

    def noise(like: torch.Tensor) -> torch.Tensor:
        return torch.randn(like.shape, generator=generator).to(like.dtype)

    norms = [
        layer
        for layer in module.modules()
        if isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.running_mean is not None
    ]
    module.eval()
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.is_floating_point() and parameter.numel():
                scale = float(parameter.float().std()) if parameter.numel() > 1 else 0.0
                parameter.add_((0.1 * scale if scale > 0 else 0.02 if parameter.ndim > 1 else 0.1) * noise(parameter))
        for layer in norms:
            layer.running_mean.zero_()
            layer.running_var.fill_(1)
        _measure(module, norms, args, kwargs)
        for layer in norms:
            layer.running_mean.add_(0.1 * layer.running_var.sqrt() * noise(layer.running_mean))
            layer.running_var.mul_(0.75 + 0.5 * torch.rand(layer.running_var.shape, generator=generator)).add_(1e-3)
    return module


def _measure(module: nn.Module, norms: list[Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Statistics of the activations of one run, layer by layer, where there are several numbers a channel."""

    def hook(layer: Any, inputs: tuple[torch.Tensor, ...]) -> None:
        data = inputs[0].transpose(0, 1).flatten(1)
        if data.shape[1] > 1:
            layer.running_mean.copy_(data.mean(1))
            layer.running_var.copy_(data.var(1) + 1e-3 * data.var() + 1e-8)

    hooks = [layer.register_forward_pre_hook(hook) for layer in norms]
    try:
        if norms:
            module(*args, **kwargs)
    finally:
        for handle in hooks:
            handle.remove()

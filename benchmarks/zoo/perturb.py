"""Random weights that hide nothing: no scale is left at zero or one, no statistics at their initial values."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


def perturb(module: nn.Module, seed: int = 0) -> Any:
    """Move every parameter a little, draw batch norm statistics; in eval mode, in place."""
    generator = torch.Generator().manual_seed(seed)

    def noise(like: torch.Tensor) -> torch.Tensor:
        return torch.randn(like.shape, generator=generator).to(like.dtype)

    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.is_floating_point() and parameter.numel():
                scale = float(parameter.float().std()) if parameter.numel() > 1 else 0.0
                parameter.add_((0.1 * scale if scale > 0 else 0.02 if parameter.ndim > 1 else 0.1) * noise(parameter))
        for layer in module.modules():
            if isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.running_mean is not None:
                layer.running_mean.copy_(0.1 * noise(layer.running_mean))
                layer.running_var.copy_(0.75 + 0.5 * torch.rand(layer.running_var.shape, generator=generator))
    return module.eval()

"""Small torch networks, made to be exported: the architectures of the papers and of torchvision, a few layers each.

:func:`sample` gives a module in eval mode, its sample inputs (batch first) and the axes that vary.
"""

# Modules called and attributes of modules are untyped in torch.
# mypy: disable-error-code="no-any-return, index"

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from models.convolutional_nets import UNet, convnext, densenet, mobilenet_v3, resnet, resnext, shufflenet_v2
from models.transformer_nets import GPT2, Decoder, Swin, ViT


class Sample(NamedTuple):
    """A module ready for export.

    Attributes:
        inputs: sample inputs by name.
        dynamic: per input, the names of the axes that vary in a dynamic export.
    """

    module: nn.Module
    inputs: dict[str, Tensor]
    dynamic: dict[str, dict[int, str]]


def perturbed(module: nn.Module, inputs: dict[str, Tensor], seed: int) -> nn.Module:
    """Move every parameter away from its neutral initial value, give batch norms statistics of real activations."""
    generator = torch.Generator().manual_seed(seed)

    def noise(like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=generator)

    with torch.no_grad():
        for name, parameter in module.named_parameters():
            leaf = name.rsplit(".", 1)[-1]
            if leaf == "layer_scale":
                parameter.copy_(0.6 + 0.2 * noise(parameter))
            elif parameter.ndim <= 1:
                parameter.add_(0.2 * noise(parameter))
            elif not parameter.std() > 0:
                parameter.add_(noise(parameter) * parameter.shape[-1] ** -0.5)
            else:
                parameter.add_(0.1 * parameter.std() * noise(parameter))
        norms = [layer for layer in module.modules() if isinstance(layer, nn.BatchNorm2d)]
        module.eval()
        for layer in norms:
            layer.train()
            layer.momentum = None
        if norms:
            # A larger batch than the sample: with few images the statistics of late layers say little.
            module(*(torch.randn(8, *x.shape[1:], generator=generator) for x in inputs.values()))
        for layer in norms:
            layer.eval()
            layer.momentum = 0.1
            assert layer.running_mean is not None
            assert layer.running_var is not None
            layer.running_mean.add_(0.1 * layer.running_var.sqrt() * noise(layer.running_mean))
            layer.running_var.mul_(1 + 0.3 * torch.rand(layer.running_var.shape, generator=generator))
        head = [layer for layer in module.modules() if isinstance(layer, nn.Linear)][-1:]
        if head and all(x.is_floating_point() for x in inputs.values()):
            # Pooled features of noise images hardly differ; the classifier brings the difference out.
            logits = module(*(torch.randn(8, *x.shape[1:], generator=generator) for x in inputs.values()))
            gain = 1 / logits.std(0).mean()
            head[0].weight.mul_(gain)
            head[0].bias.sub_(logits.mean(0)).mul_(gain).add_(noise(head[0].bias))
    return module.requires_grad_(False).eval()


def images(side: int = 32, batch: int = 2) -> tuple[dict[str, Tensor], dict[str, dict[int, str]]]:
    """Sample images, and the batch as the axis that varies."""
    x = torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(0))
    return {"x": x}, {"x": {0: "batch"}}


def tokens(vocabulary: int, length: int = 8, batch: int = 2) -> tuple[dict[str, Tensor], dict[str, dict[int, str]]]:
    """Sample token numbers; batch and sequence vary."""
    x = torch.randint(0, vocabulary, (batch, length), generator=torch.Generator().manual_seed(0))
    return {"tokens": x}, {"tokens": {0: "batch", 1: "sequence"}}


class Recurrent(nn.Module):
    """A bidirectional LSTM over the sequence, a GRU over that, a classifier on the last step."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(12, 16, batch_first=True, bidirectional=True)
        self.gru = nn.GRU(32, 20, batch_first=True)
        self.head = nn.Linear(20, 6)

    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.lstm(x)
        y, _ = self.gru(y)
        return self.head(y[:, -1])


def sequences() -> tuple[dict[str, Tensor], dict[str, dict[int, str]]]:
    """Sample feature sequences [batch, time, features]."""
    return {"x": torch.randn(2, 7, 12, generator=torch.Generator().manual_seed(0))}, {"x": {0: "batch"}}


Inputs = Callable[[], tuple[dict[str, Tensor], dict[str, dict[int, str]]]]

_NETS: dict[str, tuple[Callable[[], nn.Module], Inputs]] = {
    "resnet": (resnet, images),
    "resnext": (resnext, images),
    "mobilenet_v3": (mobilenet_v3, images),
    "shufflenet_v2": (shufflenet_v2, images),
    "densenet": (densenet, images),
    "vit": (ViT, images),
    "swin": (Swin, images),
    "convnext": (convnext, images),
    "gqa_decoder": (Decoder, partial(tokens, 96)),
    "gpt2": (GPT2, partial(tokens, 96)),
    "recurrent": (Recurrent, sequences),
    "unet": (UNet, images),
}


def sample(name: str, seed: int = 0) -> Sample:
    """The network ``name``, seeded and perturbed, with its sample inputs."""
    make, make_inputs = _NETS[name]
    state: Any = torch.random.get_rng_state()
    torch.manual_seed(seed)
    try:
        module = make()
    finally:
        torch.random.set_rng_state(state)
    inputs, dynamic = make_inputs()
    return Sample(perturbed(module, inputs, seed), inputs, dynamic)

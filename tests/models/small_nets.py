"""Tiny torch networks, one for each thing that modules do with their weights; a second or less to export.

``SMALL[name]()`` gives a module in eval mode and its example inputs.
"""

# Modules called and attributes of modules are untyped in torch.
# mypy: ignore-errors

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations


class SharedTower(nn.Module):
    """One tower called on both halves of the input; the halves are compared by their product."""

    def __init__(self) -> None:
        super().__init__()
        self.tower = nn.Sequential(nn.Linear(6, 10), nn.ReLU(), nn.Linear(10, 8))
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        left, right = x.chunk(2, dim=1)
        return self.head(self.tower(left) * self.tower(right))


class TiedDecoder(nn.Module):
    """The embedding is the output layer too, and one weight is read in parts."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 12)
        self.both = nn.Parameter(torch.randn(16, 12))
        self.norm = nn.LayerNorm(12)
        self.down = nn.Linear(8, 12)
        self.out = nn.Linear(12, 20, bias=False)
        self.out.weight = self.embed.weight

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        gate, up = F.linear(self.norm(x), self.both[:8]), F.linear(self.norm(x), self.both[8:])
        return self.out(x + self.down(F.silu(gate) * up))


class CrossAttention(nn.Module):
    """Packed multi-head attention of a sequence to another of another width, then einsum attention to itself."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(7, 12)
        self.cross = nn.MultiheadAttention(12, 3, kdim=10, vdim=10, batch_first=True)
        self.q, self.k, self.v = (nn.Linear(12, 12) for _ in range(3))
        self.head = nn.Linear(12, 4)

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        x = self.inner(x)
        x = x + self.cross(x, memory, memory, need_weights=False)[0]
        q, k, v = (layer(x).unflatten(-1, (3, 4)) for layer in (self.q, self.k, self.v))
        weights = torch.einsum("bqhd,bkhd->bhqk", q, k).div(2).softmax(-1)
        return self.head(x + torch.einsum("bhqk,bkhd->bqhd", weights, v).flatten(2))


class RelativeDecoder(nn.Module):
    """As T5: no scale, a table of relative positions shared by layers, RMS norms, gated hidden layers."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 16)
        self.table = nn.Embedding(9, 2)
        self.qkv = nn.ModuleList(nn.Linear(16, 48, bias=False) for _ in range(2))
        self.out = nn.ModuleList(nn.Linear(16, 16, bias=False) for _ in range(2))
        self.norms = nn.ModuleList(nn.RMSNorm(16, eps=1e-6) for _ in range(3))
        self.wi = nn.Linear(16, 40, bias=False)
        self.wo = nn.Linear(20, 16, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        at = torch.arange(tokens.shape[1])
        bias = self.table((at[:, None] - at[None, :]).clamp(-4, 4) + 4).permute(2, 0, 1)[None]
        for number, (qkv, out) in enumerate(zip(self.qkv, self.out, strict=True)):
            q, k, v = qkv(self.norms[number](x)).view(*tokens.shape, 3, 2, 8).permute(2, 0, 3, 1, 4).unbind(0)
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=1.0)
            x = x + out(y.transpose(1, 2).reshape(*tokens.shape, 16))
        return self.wo(F.glu(self.wi(self.norms[2](x)), -1))


class Encoder(nn.Module):
    """torch's own transformer encoder, pooled by its first position, as BERT."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 12)
        self.position = nn.Parameter(torch.randn(1, 6, 12))
        layer = nn.TransformerEncoderLayer(12, 3, 18, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(12, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.encoder(self.embed(tokens) + self.position)[:, 0].tanh())


class Mixer(nn.Module):
    """Hidden layers along the tokens and along the channels in turn."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 4, 4)
        self.tokens = nn.Sequential(nn.Linear(4, 6), nn.GELU(), nn.Linear(6, 4))
        self.channels = nn.Sequential(nn.Linear(12, 20), nn.GELU(), nn.Linear(20, 12))
        self.norm = nn.LayerNorm(12)
        self.head = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).flatten(2).transpose(1, 2)
        x = x + self.tokens(self.norm(x).transpose(1, 2)).transpose(1, 2)
        return self.head((x + self.channels(x)).mean(1))


class Stacked(nn.Module):
    """Two bidirectional LSTM layers and a GRU whose last state is read."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(5, 6, num_layers=2, bidirectional=True)
        self.gru = nn.GRU(12, 7, bias=False)
        self.head = nn.Linear(7, 3)

    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.lstm(x)
        _, last = self.gru(y)
        return self.head(last[0])


class Waves(nn.Module):
    """Dilated convolutions over time with gates and skips, normalised weights, causal padding."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = parametrizations.weight_norm(nn.Conv1d(2, 8, 1))
        self.dilated = nn.ModuleList(nn.Conv1d(8, 16, 2, dilation=2**n) for n in range(2))
        self.skips = nn.ModuleList(nn.Conv1d(8, 6, 1) for _ in range(2))
        self.back = nn.Conv1d(8, 8, 1)
        self.head = nn.Sequential(nn.PReLU(6), nn.Conv1d(6, 4, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        total = 0
        for number, layer in enumerate(self.dilated):
            a, b = layer(F.pad(x, (2**number, 0))).chunk(2, 1)
            y = a.tanh() * b.sigmoid()
            total = total + self.skips[number](y)
            if number == 0:
                x = x + self.back(y)
        return self.head(total)


class UpScaler(nn.Module):
    """Sub-pixel convolution, transposed convolution and nearest resampling, joined."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding="same")
        self.shuffle = nn.Sequential(nn.Conv2d(8, 16, 3, padding=1), nn.PixelShuffle(2))
        self.transposed = nn.ConvTranspose2d(8, 4, 2, 2)
        self.norm = nn.InstanceNorm2d(12, affine=True)
        self.last = nn.Conv2d(16, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.leaky_relu(self.stem(x))
        wide = F.interpolate(x, scale_factor=2, mode="nearest")
        y = torch.cat((self.shuffle(x), wide), 1)
        return self.last(torch.cat((self.norm(y), self.transposed(x)), 1))


class Standardised(nn.Module):
    """Convolutions with standardised weights and group norm, a spectral norm in the head."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 12, 3, padding=1, bias=False)
        self.norm = nn.GroupNorm(3, 12)
        self.head = parametrizations.spectral_norm(nn.Linear(12, 5))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.first(x))
        weight = self.second.weight
        weight = weight - weight.mean((1, 2, 3), keepdim=True)
        x = F.conv2d(x, weight, padding=1)
        return self.head(F.relu(self.norm(x)).amax((2, 3)))


class Unbiased(nn.Conv2d):
    """A convolution whose weights lose mean and scale at every run, by the batch norm of the weight itself."""

    def forward(self, x: Tensor) -> Tensor:
        rows = self.weight.reshape(1, self.out_channels, -1)
        weight = F.batch_norm(rows, None, None, training=True, momentum=0.0, eps=1e-5).reshape_as(self.weight)
        return F.conv2d(x, weight, self.bias, padding=self.padding)


class StandardisedByBatchNorm(nn.Module):
    """Convolutions of standardised weights, one of them around a residual."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = Unbiased(3, 8, 3, padding=1)
        self.block = Unbiased(8, 8, 3, padding=1, bias=False)
        self.last = Unbiased(8, 12, 1)
        self.head = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        x = F.relu(x + self.block(x))
        return self.head(F.relu(self.last(x)).amax((2, 3)))


class Gated(nn.Module):
    """A mixture whose experts are one weight with an axis for the expert, chosen softly."""

    def __init__(self) -> None:
        super().__init__()
        self.router = nn.Linear(6, 3)
        self.up = nn.Parameter(torch.randn(3, 6, 10) * 0.3)
        self.down = nn.Parameter(torch.randn(3, 10, 6) * 0.3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.relu(torch.einsum("bi,eih->beh", x, self.up))
        each = torch.einsum("beh,eho->beo", hidden, self.down)
        return (self.router(x).softmax(-1).unsqueeze(-1) * each).sum(1)


class Channels(nn.Module):
    """Squeeze and excitation, a channel shuffle, split branches, a flattened map."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 12, 3, 2, 1, bias=False), nn.BatchNorm2d(12), nn.ReLU6(inplace=True))
        self.squeeze = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(12, 4, 1), nn.SiLU(), nn.Conv2d(4, 12, 1))
        self.branch = nn.Conv2d(6, 6, 3, padding=1, groups=2)
        self.head = nn.Linear(12 * 16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x * F.hardsigmoid(self.squeeze(x))
        a, b = torch.split(F.channel_shuffle(x, 2), [6, 6], dim=1)
        return self.head(torch.cat((a, F.elu(self.branch(b))), 1).flatten(1))


def _made(kind: type[nn.Module], *inputs: Tensor) -> tuple[nn.Module, tuple[Tensor, ...]]:
    state = torch.random.get_rng_state()
    torch.manual_seed(0)
    try:
        module = kind().eval().requires_grad_(False)
        for parameter in module.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape))
    finally:
        torch.random.set_rng_state(state)
    return module, inputs


def _numbers(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


_TOKENS = torch.arange(12).reshape(2, 6)
_IMAGE = (2, 3, 8, 8)

SMALL: dict[str, Callable[[], Any]] = {
    "shared_tower": lambda: _made(SharedTower, _numbers(2, 12)),
    "tied_decoder": lambda: _made(TiedDecoder, _TOKENS),
    "cross_attention": lambda: _made(CrossAttention, _numbers(2, 5, 7), _numbers(2, 6, 10)),
    "relative_decoder": lambda: _made(RelativeDecoder, _TOKENS),
    "encoder": lambda: _made(Encoder, _TOKENS),
    "mixer": lambda: _made(Mixer, _numbers(*_IMAGE)),
    "stacked": lambda: _made(Stacked, _numbers(4, 2, 5)),
    "waves": lambda: _made(Waves, _numbers(2, 2, 9)),
    "up_scaler": lambda: _made(UpScaler, _numbers(*_IMAGE)),
    "standardised": lambda: _made(Standardised, _numbers(*_IMAGE)),
    "standardised_by_batch_norm": lambda: _made(StandardisedByBatchNorm, _numbers(*_IMAGE)),
    "gated": lambda: _made(Gated, _numbers(4, 6)),
    "channels": lambda: _made(Channels, _numbers(*_IMAGE)),
}
"""Name -> a function that makes the network and its inputs."""

"""Small networks, one for each way in which deployed models tie their channels; a second or so to capture.

``MIXED_BAG[name]()`` gives a module in eval mode, perturbed, and its example inputs. Together with those of
:mod:`models.small_nets`, which are about parameters, these are about architectures.
"""

# Modules called and attributes of modules are untyped in torch.
# mypy: ignore-errors

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def _conv(inner: int, outer: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(inner, outer, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outer), nn.SiLU())


class CrossStage(nn.Module):
    """As in YOLO: halves of a convolution, each further bottleneck's result kept, all joined."""

    def __init__(self, inner: int, outer: int, repeats: int = 2) -> None:
        super().__init__()
        self.first, self.width = _conv(inner, outer, 1), outer // 2
        self.blocks = nn.ModuleList(nn.Sequential(_conv(outer // 2, 6), _conv(6, outer // 2)) for _ in range(repeats))
        self.last = _conv((2 + repeats) * (outer // 2), outer, 1)

    def forward(self, x: Tensor) -> Tensor:
        parts = list(self.first(x).chunk(2, 1))
        for block in self.blocks:
            parts.append(parts[-1] + block(parts[-1]))
        return self.last(torch.cat(parts, 1))


class Detector(nn.Module):
    """A pyramid with pooling of several sizes, two scales, boxes as expectations over bins, anchors from sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.low = _conv(3, 8, 3, 2), CrossStage(8, 12)
        self.down, self.high = _conv(12, 16, 3, 2), CrossStage(16, 16)
        self.pool_in, self.pool_out = _conv(16, 8, 1), _conv(32, 16, 1)
        self.merge = CrossStage(28, 12)
        self.boxes = nn.ModuleList(nn.Sequential(_conv(width, 10), nn.Conv2d(10, 4 * 5, 1)) for width in (12, 16))
        self.classes = nn.ModuleList(nn.Sequential(_conv(width, 9), nn.Conv2d(9, 3, 1)) for width in (12, 16))
        for head in (*self.boxes, *self.classes):
            head[-1].weight.data *= 8  # trained heads are sure of something

    def forward(self, x: Tensor) -> Tensor:
        low = self.low(self.stem(x))
        pooled = [self.pool_in(self.high(self.down(low)))]
        for _ in range(3):
            pooled.append(F.max_pool2d(pooled[-1], 3, 1, 1))
        high = self.pool_out(torch.cat(pooled, 1))
        low = self.merge(torch.cat((F.interpolate(high, scale_factor=2), low), 1))
        found = []
        for scale, boxes, classes in zip((low, high), self.boxes, self.classes, strict=True):
            bins = boxes(scale).flatten(2).unflatten(1, (4, 5)).softmax(2)
            distances = (bins * torch.arange(5.0)[:, None]).sum(2)
            height, width = scale.shape[2:]
            rows, columns = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
            centres = torch.stack((columns.flatten(), rows.flatten()))
            corners = torch.cat((centres - distances[:, :2], centres + distances[:, 2:]), 1)
            found.append(torch.cat((corners, classes(scale).flatten(2).sigmoid()), 1))
        return torch.cat(found, 2)


class SuperResolution(nn.Module):
    """Residual blocks, a pixel shuffle and a skip from the image itself."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 10, 3, padding=1)
        self.body = nn.ModuleList(
            nn.Sequential(nn.Conv2d(10, 14, 3, padding=1), nn.PReLU(14), nn.Conv2d(14, 10, 3, padding=1)) for _ in "ab"
        )
        self.up = nn.Sequential(nn.Conv2d(10, 40, 3, padding=1), nn.PixelShuffle(2), nn.Conv2d(10, 3, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x)
        for block in self.body:
            y = y + 0.2 * block(y)
        return self.up(y) + F.interpolate(x, scale_factor=2, mode="bilinear")


class UNet(nn.Module):
    """Skips of several depths joined on the way up, an attention gate on one of them."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.three = _conv(3, 8), _conv(8, 12), _conv(12, 16)
        self.up_two, self.up_one = nn.ConvTranspose2d(16, 12, 2, 2), nn.ConvTranspose2d(14, 8, 2, 2)
        self.gate_a, self.gate_b, self.gate = nn.Conv2d(12, 6, 1), nn.Conv2d(12, 6, 1), nn.Conv2d(6, 1, 1)
        self.merge_two, self.merge_one, self.head = _conv(24, 14), _conv(16, 10), nn.Conv2d(10, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        one = self.one(x)
        two = self.two(F.max_pool2d(one, 2))
        up = self.up_two(self.three(F.max_pool2d(two, 2)))
        two = two * self.gate(F.relu(self.gate_a(two) + self.gate_b(up))).sigmoid()
        up = self.merge_two(torch.cat((two, up), 1))
        return self.head(self.merge_one(torch.cat((one, self.up_one(up)), 1)))


class Dense(nn.Module):
    """Every layer reads what all before it made."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.layers = nn.ModuleList(
            nn.Sequential(nn.BatchNorm2d(8 + 6 * n), nn.ReLU(), nn.Conv2d(8 + 6 * n, 6, 3, padding=1)) for n in range(3)
        )
        self.head = nn.Sequential(
            nn.BatchNorm2d(26), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(26, 4)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for layer in self.layers:
            x = torch.cat((x, layer(x)), 1)
        return self.head(x)


class Inverted(nn.Module):
    """Narrow, wide, depthwise, squeezed, narrow again."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.wide, self.depthwise = _conv(3, 8, 3, 2), _conv(8, 24, 1), _conv(24, 24, 5, 1, 24)
        self.squeeze = nn.Sequential(nn.Conv2d(24, 6, 1), nn.ReLU(), nn.Conv2d(6, 24, 1), nn.Hardsigmoid())
        self.narrow = nn.Sequential(nn.Conv2d(24, 8, 1, bias=False), nn.BatchNorm2d(8))
        self.head = nn.Sequential(_conv(8, 20, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(20, 4))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.depthwise(self.wide(x))
        return self.head(x + self.narrow(y * self.squeeze(y.mean((2, 3), keepdim=True))))


class Modern(nn.Module):
    """Depthwise, channels last, a norm, wide linear layers with a response normalisation, a scale per channel."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 10, 4, 4)
        self.depthwise, self.norm = nn.Conv2d(10, 10, 3, padding=1, groups=10), nn.LayerNorm(10)
        self.wide, self.narrow = nn.Linear(10, 24), nn.Linear(24, 10)
        self.gamma, self.beta = nn.Parameter(torch.zeros(1, 1, 1, 24)), nn.Parameter(torch.zeros(1, 1, 1, 24))
        self.scale, self.head = nn.Parameter(torch.ones(10) * 1e-2), nn.Linear(10, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = F.gelu(self.wide(self.norm(self.depthwise(x).permute(0, 2, 3, 1))))
        strength = torch.linalg.vector_norm(y, dim=(1, 2), keepdim=True)
        y = self.gamma * (y * (strength / (strength.mean(-1, keepdim=True) + 1e-6))) + self.beta + y
        x = x + (self.scale * self.narrow(y)).permute(0, 3, 1, 2)
        return self.head(x.mean((2, 3)))


class Windows(nn.Module):
    """Attention in shifted windows with a table of relative positions, then patches merged."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 12, 2, 2), nn.LayerNorm(12)
        self.qkv, self.out = nn.Linear(12, 36), nn.Linear(12, 12)
        self.table = nn.Parameter(torch.randn(9, 3))
        steps = torch.stack(torch.meshgrid(torch.arange(2), torch.arange(2), indexing="ij")).flatten(1)
        apart = (steps[:, :, None] - steps[:, None, :]) + 1
        self.register_buffer("offsets", apart[0] * 3 + apart[1])
        self.merge_norm, self.merge, self.head = nn.LayerNorm(48), nn.Linear(48, 20, bias=False), nn.Linear(20, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).permute(0, 2, 3, 1)
        batch, height, width, channels = x.shape
        y = torch.roll(self.norm(x), (-1, -1), (1, 2)).view(batch, height // 2, 2, width // 2, 2, channels)
        y = y.permute(0, 1, 3, 2, 4, 5).reshape(-1, 4, channels)
        q, k, v = self.qkv(y).reshape(-1, 4, 3, 3, 4).permute(2, 0, 3, 1, 4)
        bias = self.table[self.offsets.view(-1)].view(4, 4, 3).permute(2, 0, 1)
        y = ((q * 0.5) @ k.transpose(-2, -1) + bias).softmax(-1) @ v
        y = self.out(y.transpose(1, 2).reshape(-1, 4, channels))
        y = y.view(batch, height // 2, width // 2, 2, 2, channels).permute(0, 1, 3, 2, 4, 5)
        x = x + torch.roll(y.reshape(batch, height, width, channels), (1, 1), (1, 2))
        x = torch.cat((x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]), -1)
        return self.head(self.merge(self.merge_norm(x)).mean((1, 2)))


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    a, b = x.chunk(2, -1)
    return x * cos + torch.cat((-b, a), -1) * sin


class Grouped(nn.Module):
    """A decoder: two query heads to a key-value head, rotary positions, RMS norms of queries and keys, SwiGLU."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.norm, self.last = nn.Embedding(20, 16), nn.RMSNorm(16), nn.RMSNorm(16)
        self.q, self.k, self.v = nn.Linear(16, 32), nn.Linear(16, 16), nn.Linear(16, 16)
        self.q_norm, self.k_norm, self.out = nn.RMSNorm(8), nn.RMSNorm(8), nn.Linear(32, 16, bias=False)
        self.gate, self.up, self.down = nn.Linear(16, 24), nn.Linear(16, 24), nn.Linear(24, 16)
        self.head = nn.Linear(16, 20, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        batch, length = tokens.shape
        angles = torch.arange(length)[:, None] * (100.0 ** -(torch.arange(4.0) / 4))[None, :]
        cos, sin = torch.cat((angles, angles), -1).cos(), torch.cat((angles, angles), -1).sin()
        y = self.norm(x)
        q = _rotated(self.q_norm(self.q(y).view(batch, length, 4, 8)).transpose(1, 2), cos, sin)
        k = _rotated(self.k_norm(self.k(y).view(batch, length, 2, 8)).transpose(1, 2), cos, sin)
        v = self.v(y).view(batch, length, 2, 8).transpose(1, 2)
        k, v = (t[:, :, None].expand(-1, -1, 2, -1, -1).reshape(batch, 4, length, 8) for t in (k, v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).reshape(batch, length, 32))
        y = self.last(x)
        return self.head(x + self.down(F.silu(self.gate(y)) * self.up(y)))


class Sloped(nn.Module):
    """Attention with a linear bias of distance, within a sliding window, in parallel with the hidden layer."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.norm = nn.Embedding(20, 12), nn.LayerNorm(12)
        self.qkv, self.out = nn.Linear(12, 36), nn.Linear(12, 12)
        self.up, self.down, self.head = nn.Linear(12, 30), nn.Linear(30, 12), nn.Linear(12, 20)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        y = self.norm(x)
        q, k, v = self.qkv(y).view(*tokens.shape, 3, 3, 4).permute(2, 0, 3, 1, 4)
        at = torch.arange(tokens.shape[1])
        apart = at[:, None] - at[None, :]
        slopes = torch.tensor([0.5, 0.25, 0.125])[:, None, None]
        scores = q @ k.transpose(-1, -2) / 2 - slopes * apart.abs()
        scores = scores.masked_fill((apart < 0) | (apart > 3), float("-inf"))
        y2 = self.out((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))
        return self.head(x + y2 + self.down(F.gelu(self.up(y), approximate="tanh")))


class Experts(nn.Module):
    """Two of four experts a token, weighted; every expert runs on every token, as exports write it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.router = nn.Linear(6, 12), nn.Linear(12, 4)
        self.experts = nn.ModuleList(nn.Sequential(nn.Linear(12, 10), nn.SiLU(), nn.Linear(10, 12)) for _ in range(4))
        self.shared, self.head = nn.Sequential(nn.Linear(12, 14), nn.ReLU(), nn.Linear(14, 12)), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        weights, chosen = self.router(x).softmax(-1).topk(2, -1)
        total = self.shared(x)
        for number, expert in enumerate(self.experts):
            total = total + expert(x) * (weights * (chosen == number)).sum(-1, keepdim=True)
        return self.head(x + total)


class StateSpace(nn.Module):
    """As Mamba: a short causal convolution, a selective scan over time, a gate."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Linear(4, 10), nn.RMSNorm(10)
        self.inner, self.conv = nn.Linear(10, 32), nn.Conv1d(16, 16, 3, padding=2, groups=16)
        self.parts, self.step = nn.Linear(16, 2 + 2 * 3), nn.Linear(2, 16)
        self.rates, self.skip = nn.Parameter(torch.rand(16, 3)), nn.Parameter(torch.ones(16))
        self.out, self.head = nn.Linear(16, 10), nn.Linear(10, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        length = x.shape[1]
        y, gate = self.inner(self.norm(x)).chunk(2, -1)
        y = F.silu(self.conv(y.transpose(1, 2))[..., :length]).transpose(1, 2)
        low, b, c = self.parts(y).split((2, 3, 3), -1)
        step = F.softplus(self.step(low))
        kept = torch.exp(-step[..., None] * self.rates.exp())
        new = step[..., None] * b[:, :, None, :] * y[..., None]
        state, results = torch.zeros(x.shape[0], 16, 3), []
        for t in range(length):
            state = kept[:, t] * state + new[:, t]
            results.append((state * c[:, t, None, :]).sum(-1))
        y = torch.stack(results, 1) + y * self.skip
        return self.head(x + self.out(y * F.silu(gate)))


class Translator(nn.Module):
    """A recurrent encoder and decoder, attention between them."""

    def __init__(self) -> None:
        super().__init__()
        self.source, self.target = nn.Embedding(20, 8), nn.Embedding(20, 8)
        self.encoder = nn.LSTM(8, 6, batch_first=True, bidirectional=True)
        self.decoder = nn.GRU(8, 10, batch_first=True)
        self.bridge, self.score, self.head = nn.Linear(12, 10), nn.Linear(10, 12), nn.Linear(22, 20)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        memory, _ = self.encoder(self.source(source))
        state = torch.tanh(self.bridge(memory[:, -1]))[None]
        y, _ = self.decoder(self.target(target), state)
        weights = (self.score(y) @ memory.transpose(1, 2)).softmax(-1)
        return self.head(torch.cat((y, weights @ memory), -1))


class Cell(nn.Module):
    """A recurrent cell written out, and its state carried over three steps by convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.gates, self.new = nn.Conv2d(14, 16, 3, padding=1), nn.Conv2d(14, 8, 3, padding=1)
        self.first, self.head = nn.Conv2d(6, 8, 1), nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        h = torch.tanh(self.first(x))
        for _ in range(3):
            z, r = self.gates(torch.cat((h, x), 1)).sigmoid().chunk(2, 1)
            h = (1 - z) * h + z * torch.tanh(self.new(torch.cat((r * h, x), 1)))
        return self.head(h)


class MessagePassing(nn.Module):
    """Nodes gather from their neighbours by edges that are inputs, messages are added up where they arrive."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(5, 12)
        self.message = nn.Sequential(nn.Linear(24, 16), nn.ReLU(), nn.Linear(16, 10))
        self.update, self.head = nn.Linear(22, 12), nn.Linear(12, 3)

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        for _ in range(2):
            messages = self.message(torch.cat((x[edges[0]], x[edges[1]]), -1))
            arrived = torch.zeros(x.shape[0], 10).index_add(0, edges[1], messages)
            x = x + self.update(torch.cat((x, arrived), -1))
        return self.head(x)


class Flow(nn.Module):
    """A normalising flow: halves scale and shift each other, reversed in between, mixed by a matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.nets = nn.ModuleList(nn.Sequential(nn.Linear(4, 14), nn.Tanh(), nn.Linear(14, 8)) for _ in range(3))
        self.mix = nn.Linear(8, 8, bias=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        total = torch.zeros(x.shape[0])
        for net in self.nets:
            a, b = x.chunk(2, 1)
            scale, shift = net(a).chunk(2, 1)
            x = torch.cat((a, b * scale.tanh().exp() + shift), 1).flip(1)
            total = total + scale.tanh().sum(1)
        return self.mix(x), total


class Shuffled(nn.Module):
    """Grouped convolutions with shuffles between, a stride with both branches joined."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.one, self.two = _conv(3, 12), _conv(12, 12, 1, 1, 2), _conv(12, 12, 3, 1, 12)
        self.three, self.left, self.right = _conv(12, 12, 1, 1, 2), _conv(12, 8, 3, 2), _conv(12, 12, 3, 2, 2)
        self.head = nn.Linear(20, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.three(F.channel_shuffle(self.two(self.one(x)), 2))
        x = torch.cat((self.left(x), self.right(x)), 1)
        return self.head(F.channel_shuffle(x, 2).mean((2, 3)))


class Autoencoder(nn.Module):
    """A variational autoencoder: mean and spread of a code from one layer, decoded by transposed convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.GroupNorm(2, 8), nn.SiLU(), nn.Conv2d(8, 12, 3, 2, 1))
        self.latent, self.back = nn.Linear(12 * 4, 10), nn.Linear(5, 12 * 4)
        self.decoder = nn.Sequential(
            nn.ConvTranspose2d(12, 8, 4, 2, 1), nn.LeakyReLU(0.1), nn.ConvTranspose2d(8, 3, 4, 2, 1)
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean, spread = self.latent(F.silu(self.encoder(x)).flatten(1)).chunk(2, 1)
        code = mean + 0.1 * (0.5 * spread.clamp(-3, 3)).exp()
        return self.decoder(self.back(code).unflatten(1, (12, 2, 2))), (mean.pow(2) + spread.exp()).sum(1)


class Warped(nn.Module):
    """Features sampled where a small network points to."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.where = nn.Conv2d(3, 8, 3, padding=1), nn.Sequential(nn.Conv2d(8, 6, 3, padding=1), nn.ReLU())
        self.flow, self.after = nn.Conv2d(6, 2, 1), nn.Sequential(nn.Conv2d(8, 10, 3, padding=1), nn.ReLU())
        self.head = nn.Conv2d(10, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x)
        rows, columns = torch.meshgrid(torch.linspace(-1, 1, 8), torch.linspace(-1, 1, 8), indexing="ij")
        grid = torch.stack((columns, rows), -1) + 0.1 * self.flow(self.where(y)).permute(0, 2, 3, 1)
        return self.head(self.after(F.grid_sample(y, grid, align_corners=True)))


class TwoTowers(nn.Module):
    """Images and tokens meet as unit vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.image = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 12)
        )
        self.embed, self.text = nn.Embedding(20, 10), nn.Sequential(nn.Linear(10, 16), nn.GELU(), nn.Linear(16, 12))
        self.scale = nn.Parameter(torch.tensor(1.5))

    def forward(self, image: Tensor, tokens: Tensor) -> Tensor:
        a = F.normalize(self.image(image), dim=-1)
        b = self.text(self.embed(tokens).mean(1))
        return self.scale.exp() * a @ (b / b.norm(dim=-1, keepdim=True)).t()


class Latents(nn.Module):
    """Learned queries read a sequence, talk to each other, and are read by the output's own query."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.latents, self.query = (
            nn.Linear(5, 12),
            nn.Parameter(torch.randn(4, 12)),
            nn.Parameter(torch.randn(2, 12)),
        )
        self.read = nn.MultiheadAttention(12, 3, batch_first=True)
        self.think = nn.TransformerEncoderLayer(12, 2, 18, batch_first=True, norm_first=True, activation="gelu")
        self.write, self.head = nn.MultiheadAttention(12, 2, batch_first=True), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        latents = self.latents.expand(x.shape[0], -1, -1)
        latents = latents + self.read(latents, x, x, need_weights=False)[0]
        latents = self.think(latents)
        return self.head(self.write(self.query.expand(x.shape[0], -1, -1), latents, latents, need_weights=False)[0])


class Attended(nn.Module):
    """Attention over channels by their means and maxima, then over places by theirs over channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = _conv(3, 12)
        self.body = nn.Sequential(nn.Conv2d(12, 12, 3, padding=1), nn.ReLU())
        self.channels = nn.Sequential(nn.Linear(12, 5), nn.ReLU(), nn.Linear(5, 12))
        self.places, self.head = nn.Conv2d(2, 1, 3, padding=1), nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.body(x)
        y = y * (self.channels(y.mean((2, 3))) + self.channels(y.amax((2, 3)))).sigmoid()[:, :, None, None]
        y = y * self.places(torch.cat((y.mean(1, True), y.amax(1, True)), 1)).sigmoid()
        return self.head((x + y).mean((2, 3)))


class Points(nn.Module):
    """Clouds of points: a learned rotation, shared layers, the maximum over points given back to each."""

    def __init__(self) -> None:
        super().__init__()
        self.turn = nn.Sequential(nn.Conv1d(3, 8, 1), nn.ReLU(), nn.AdaptiveMaxPool1d(1), nn.Flatten(), nn.Linear(8, 9))
        self.first = nn.Sequential(nn.Conv1d(3, 10, 1), nn.BatchNorm1d(10), nn.ReLU())
        self.second, self.third = (
            nn.Conv1d(10, 16, 1),
            nn.Sequential(nn.Conv1d(26, 12, 1), nn.ReLU(), nn.Conv1d(12, 4, 1)),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = torch.bmm(self.turn(x).view(-1, 3, 3) + torch.eye(3), x)
        x = self.first(x)
        whole = F.relu(self.second(x)).amax(2, keepdim=True).expand(-1, -1, x.shape[2])
        return self.third(torch.cat((x, whole), 1))


class Matched(nn.Module):
    """As in optical flow: all pairs of two maps compared, looked up around the diagonal, refined."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 10, 3, padding=1), nn.InstanceNorm2d(10), nn.ReLU(), nn.Conv2d(10, 8, 1)
        )
        self.mix, self.head = nn.Conv2d(8 + 64, 12, 3, padding=1), nn.Conv2d(12, 2, 1)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        a, b = self.features(a), self.features(b)
        pairs = torch.einsum("bcn,bcm->bnm", a.flatten(2), b.flatten(2)) / math.sqrt(8)
        return self.head(F.relu(self.mix(torch.cat((a, pairs.transpose(1, 2).unflatten(2, a.shape[2:])), 1))))


class Conditioned(nn.Module):
    """A denoiser's block: a time embedding scales and shifts each block's channels."""

    def __init__(self) -> None:
        super().__init__()
        self.time = nn.Sequential(nn.Linear(8, 14), nn.SiLU(), nn.Linear(14, 14))
        self.stem, self.norm, self.to_scale = nn.Conv2d(4, 12, 3, padding=1), nn.GroupNorm(3, 12), nn.Linear(14, 24)
        self.first, self.second, self.head = (
            nn.Conv2d(12, 16, 3, padding=1),
            nn.Conv2d(16, 12, 3, padding=1),
            nn.Conv2d(12, 4, 1),
        )

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        angles = time[:, None] * torch.exp(-torch.arange(4.0))
        scale, shift = self.to_scale(self.time(torch.cat((angles.cos(), angles.sin()), -1))).chunk(2, 1)
        x = self.stem(x)
        y = self.norm(x) * (1 + scale[:, :, None, None]) + shift[:, :, None, None]
        return self.head(x + self.second(F.silu(self.first(F.silu(y)))))


class Split(nn.Module):
    """Convolutions of several sizes on uneven parts of the channels, a softmax that weighs two branches."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = _conv(3, 14)
        self.parts = nn.ModuleList(
            nn.Conv2d(width, width, size, padding=size // 2, groups=width) for width, size in ((6, 3), (8, 5))
        )
        self.left, self.right, self.weigh = _conv(14, 10), _conv(14, 10), nn.Linear(10, 20)
        self.head = nn.Linear(10, 4)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.stem(x).split((6, 8), 1)
        x = torch.cat((self.parts[0](a), self.parts[1](b)), 1)
        branches = torch.stack((self.left(x), self.right(x)), 1)
        weights = self.weigh(branches.sum(1).mean((2, 3))).view(-1, 2, 10).softmax(1)
        return self.head((branches * weights[..., None, None]).sum(1).mean((2, 3)))


def _made(kind: type[nn.Module], *inputs: Tensor) -> tuple[nn.Module, tuple[Tensor, ...]]:
    state = torch.random.get_rng_state()
    torch.manual_seed(0)
    try:
        module = kind().eval().requires_grad_(False)
        for parameter in module.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape))
        norms = [layer for layer in module.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
        for layer in norms:
            layer.train().momentum = None
        if norms:  # statistics of real activations, so that signals neither fade nor grow; then moved a little
            module(*inputs)
        for layer in norms:
            layer.eval()
            layer.running_mean.add_(0.1 * layer.running_var.sqrt() * torch.randn(layer.running_mean.shape))
            layer.running_var.mul_(0.75 + 0.5 * torch.rand(layer.running_var.shape))
    finally:
        torch.random.set_rng_state(state)
    return module, inputs


def _numbers(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


_IMAGE = (2, 3, 8, 8)
_TOKENS = torch.arange(12).reshape(2, 6)
_EDGES = torch.tensor([[0, 1, 2, 3, 4, 5, 0], [1, 2, 3, 4, 5, 0, 3]])

MIXED_BAG: dict[str, Callable[[], Any]] = {
    "detector": lambda: _made(Detector, _numbers(1, 3, 16, 16)),
    "super_resolution": lambda: _made(SuperResolution, _numbers(*_IMAGE)),
    "unet": lambda: _made(UNet, _numbers(*_IMAGE)),
    "dense": lambda: _made(Dense, _numbers(*_IMAGE)),
    "inverted": lambda: _made(Inverted, _numbers(*_IMAGE)),
    "modern": lambda: _made(Modern, _numbers(*_IMAGE)),
    "windows": lambda: _made(Windows, _numbers(*_IMAGE)),
    "grouped_queries": lambda: _made(Grouped, _TOKENS),
    "sloped": lambda: _made(Sloped, _TOKENS),
    "experts": lambda: _made(Experts, _numbers(5, 6)),
    "state_space": lambda: _made(StateSpace, _numbers(2, 5, 4)),
    "translator": lambda: _made(Translator, _TOKENS, _TOKENS[:, :4]),
    "cell": lambda: _made(Cell, _numbers(*_IMAGE)),
    "message_passing": lambda: _made(MessagePassing, _numbers(6, 5), _EDGES),
    "flow": lambda: _made(Flow, _numbers(4, 8)),
    "shuffled": lambda: _made(Shuffled, _numbers(*_IMAGE)),
    "autoencoder": lambda: _made(Autoencoder, _numbers(*_IMAGE)),
    "warped": lambda: _made(Warped, _numbers(*_IMAGE)),
    "two_towers": lambda: _made(TwoTowers, _numbers(*_IMAGE), _TOKENS[:, :4]),
    "latents": lambda: _made(Latents, _numbers(2, 6, 5)),
    "attended": lambda: _made(Attended, _numbers(*_IMAGE)),
    "points": lambda: _made(Points, _numbers(2, 3, 9)),
    "matched": lambda: _made(Matched, _numbers(*_IMAGE), _numbers(*_IMAGE).flip(2)),
    "conditioned": lambda: _made(Conditioned, _numbers(2, 4, 8, 8), torch.tensor([0.3, 0.8])),
    "split": lambda: _made(Split, _numbers(*_IMAGE)),
}
"""Name -> a function that makes the network and its inputs."""

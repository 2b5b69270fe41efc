"""A small vision transformer and a small decoder with grouped-query attention."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Encoder(nn.Module):
    """Pre-norm attention and MLP."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.head_width = width // heads
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.q, self.k, self.v, self.out = (nn.Linear(width, width) for _ in range(4))
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        y = self.ln_1(x)
        q, k, v = (part(y).unflatten(-1, (-1, self.head_width)).transpose(1, 2) for part in (self.q, self.k, self.v))
        x = x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return x + self.down(F.gelu(self.up(self.ln_2(x))))


class VisionTransformer(nn.Module):
    """Patches of 4x4, a class token, positions, two blocks."""

    def __init__(self) -> None:
        super().__init__()
        width = 16
        self.patches = nn.Conv2d(3, width, 4, 4)
        self.token, self.positions = nn.Parameter(torch.randn(1, 1, width)), nn.Parameter(torch.randn(1, 5, width))
        self.blocks = nn.Sequential(Encoder(width, 4), Encoder(width, 4))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat((self.token.expand(x.shape[0], -1, -1), x), 1) + self.positions
        return self.head(self.norm(self.blocks(x))[:, 0])


class Decoder(nn.Module):
    """RMSNorm, rotary grouped-query attention and a gated MLP, without biases."""

    def __init__(self, width: int, heads: int, shared: int, head_width: int) -> None:
        super().__init__()
        self.repeats, self.head_width = heads // shared, head_width
        self.norm_1, self.norm_2 = nn.RMSNorm(width, eps=1e-5), nn.RMSNorm(width, eps=1e-5)
        self.q = nn.Linear(width, heads * head_width, bias=False)
        self.k, self.v = (nn.Linear(width, shared * head_width, bias=False) for _ in range(2))
        self.out = nn.Linear(heads * head_width, width, bias=False)
        self.gate, self.up = (nn.Linear(width, 2 * width, bias=False) for _ in range(2))
        self.down = nn.Linear(2 * width, width, bias=False)

    def _turned(self, x: Tensor) -> Tensor:
        half = self.head_width // 2
        angles = torch.arange(x.shape[2], dtype=x.dtype)[:, None] / 10 ** torch.arange(half, dtype=x.dtype)
        cos, sin = angles.cos(), angles.sin()
        a, b = x[..., :half], x[..., half:]
        return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm_1(x)
        q, k, v = (part(y).unflatten(-1, (-1, self.head_width)).transpose(1, 2) for part in (self.q, self.k, self.v))
        q, k = self._turned(q), self._turned(k)
        k, v = k.repeat_interleave(self.repeats, 1), v.repeat_interleave(self.repeats, 1)
        x = x + self.out(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2))
        y = self.norm_2(x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y))


class GroupedQuery(nn.Module):
    """Two decoder blocks: four query heads share each of two key-value heads by twos."""

    def __init__(self) -> None:
        super().__init__()
        width = 12
        self.table = nn.Embedding(20, width)
        self.blocks = nn.Sequential(*(Decoder(width, 4, 2, 4) for _ in range(2)))
        self.norm, self.head = nn.RMSNorm(width, eps=1e-5), nn.Linear(width, 20, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.norm(self.blocks(self.table(tokens))))


def tokens(seed: int = 0) -> tuple[Tensor, Tensor]:
    """A batch of token sequences and what follows each token."""
    drawn = torch.randint(20, (4, 7), generator=torch.Generator().manual_seed(seed))
    return drawn[:, :-1], drawn[:, 1:]

"""A decoder of the shape of Llama 2 7B, by default at its full size: make it on the meta device."""

# Modules called are untyped in torch.
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.transformer_nets import GroupedQueryAttention, RMSNorm, SwiGLU


class _Layer(nn.Module):
    def __init__(self, width: int, heads: int, kv_heads: int, hidden: int) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(width)
        self.self_attn = GroupedQueryAttention(width, heads, kv_heads, width // heads)
        self.post_attention_layernorm = RMSNorm(width)
        self.mlp = SwiGLU(width, hidden)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), cos, sin)
        return x + self.mlp(self.post_attention_layernorm(x))


class Llama(nn.Module):
    """Tokens [batch, length] in, logits out."""

    def __init__(
        self,
        vocabulary: int = 32000,
        width: int = 4096,
        heads: int = 32,
        kv_heads: int = 32,
        hidden: int = 11008,
        depth: int = 32,
    ) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(vocabulary, width)
        self.layers = nn.ModuleList(_Layer(width, heads, kv_heads, hidden) for _ in range(depth))
        self.norm = RMSNorm(width)
        self.lm_head = nn.Linear(width, vocabulary, bias=False)
        head_width = width // heads
        frequency = 1.0 / 10000 ** (torch.arange(0, head_width, 2) / head_width)
        self.register_buffer("inv_freq", frequency, persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed_tokens(tokens)
        angle = torch.arange(tokens.shape[1], device=x.device)[:, None] * self.inv_freq[None, :]
        angle = torch.cat((angle, angle), dim=-1)
        cos, sin = angle.cos(), angle.sin()
        for layer in self.layers:
            x = layer(x, cos, sin)
        return self.lm_head(self.norm(x))

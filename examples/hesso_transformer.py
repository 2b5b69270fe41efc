"""Train a small language model to fewer heads and narrower MLPs, and write it as a small ONNX file.

    pip install "ozgraph[torch,onnxruntime]"
    python examples/hesso_transformer.py [--text FILE] [--output small_lm.onnx]

A decoder with grouped-query attention, rotary positions, RMSNorm and SwiGLU learns characters: those of a text that is
given, or of sentences made here by a small grammar. HESSO removes key heads, each with the query heads that it serves,
and channels of the MLPs. With its defaults the script takes about a minute on one core.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import small_file
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import ozgraph
from ozgraph.runtime import HESSO, ProgressLine, Target

LENGTH = 48
ALPHABET = "\n abcdefghijklmnopqrstuvwxyz.,"


class RMSNorm(nn.Module):
    """x / rms(x) * weight."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))


class Attention(nn.Module):
    """Causal attention with rotary positions; every key head serves several query heads."""

    def __init__(self, width: int, heads: int, kv_heads: int, head_width: int) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_width = heads, kv_heads, head_width
        self.q_proj = nn.Linear(width, heads * head_width, bias=False)
        self.k_proj = nn.Linear(width, kv_heads * head_width, bias=False)
        self.v_proj = nn.Linear(width, kv_heads * head_width, bias=False)
        self.o_proj = nn.Linear(heads * head_width, width, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        batch, length, _ = x.shape
        q = self.q_proj(x).view(batch, length, self.heads, self.head_width).transpose(1, 2)
        k = self.k_proj(x).view(batch, length, self.kv_heads, self.head_width).transpose(1, 2)
        v = self.v_proj(x).view(batch, length, self.kv_heads, self.head_width).transpose(1, 2)
        q, k = (part * cos + turned(part) * sin for part in (q, k))
        shape = (batch, self.kv_heads, self.heads // self.kv_heads, length, self.head_width)
        whole = (batch, self.heads, length, self.head_width)
        k, v = (part[:, :, None].expand(shape).reshape(whole) for part in (k, v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.o_proj(y.transpose(1, 2).reshape(batch, length, -1))


def turned(x: Tensor) -> Tensor:
    """[a, b] -> [-b, a] along the last axis."""
    half = x.shape[-1] // 2
    return torch.cat((-x[..., half:], x[..., :half]), dim=-1)


class Layer(nn.Module):
    """Pre-norm attention and a gated MLP."""

    def __init__(self, width: int, heads: int, kv_heads: int, head_width: int, hidden: int) -> None:
        super().__init__()
        self.norm_1, self.norm_2 = RMSNorm(width), RMSNorm(width)
        self.attention = Attention(width, heads, kv_heads, head_width)
        self.gate_proj, self.up_proj = nn.Linear(width, hidden, bias=False), nn.Linear(width, hidden, bias=False)
        self.down_proj = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x = x + self.attention(self.norm_1(x), cos, sin)
        y = self.norm_2(x)
        return x + self.down_proj(F.silu(self.gate_proj(y)) * self.up_proj(y))


class LanguageModel(nn.Module):
    """Tokens in, logits out."""

    def __init__(self, vocabulary: int, width: int = 64, layers: int = 2) -> None:
        super().__init__()
        head_width = 16
        self.table = nn.Embedding(vocabulary, width)
        self.layers = nn.ModuleList(Layer(width, 8, 4, head_width, 3 * width) for _ in range(layers))
        self.norm, self.head = RMSNorm(width), nn.Linear(width, vocabulary, bias=False)
        frequency = 1.0 / 10000 ** (torch.arange(0, head_width, 2) / head_width)
        self.register_buffer("frequency", frequency, persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.table(tokens)
        angle = torch.arange(tokens.shape[1], device=x.device)[:, None] * self.frequency[None, :]
        angle = torch.cat((angle, angle), dim=-1)
        cos, sin = angle.cos(), angle.sin()
        for layer in self.layers:
            x = layer(x, cos, sin)
        return self.head(self.norm(x))


def sentences(number: int, seed: int) -> str:
    """Sentences whose verbs agree with their subjects."""
    draw = random.Random(seed)
    animals = ("fox", "bird", "cat", "horse", "frog", "bear")
    places = ("lake", "hill", "barn", "old road", "green wood")
    verbs, adjectives = ("see", "follow", "like", "hear", "meet"), ("red", "small", "quiet", "hungry", "old", "quick")
    lines = []
    for _ in range(number):
        many = draw.random() < 0.5
        subject = f"{draw.choice(adjectives)} {draw.choice(animals)}{'s' if many else ''}"
        verb = draw.choice(verbs) + ("" if many else "s")
        where = f", near the {draw.choice(places)}" if draw.random() < 0.5 else ""
        lines.append(f"the {subject} {verb} a {draw.choice(adjectives)} {draw.choice(animals)}{where}.")
    return "\n".join(lines)


def encoded(text: str) -> Tensor:
    """Characters as numbers; what the alphabet lacks is a space."""
    return torch.tensor([max(ALPHABET.find(letter), 1 - (letter == "\n")) for letter in text.lower()])


def batch(text: Tensor, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Random stretches of a text, and what follows each character."""
    starts = torch.randint(len(text) - LENGTH - 1, (size, 1), generator=generator)
    stretch = text[starts + torch.arange(LENGTH + 1)]
    return stretch[:, :-1], stretch[:, 1:]


def loss_of(module: nn.Module, tokens: Tensor, following: Tensor) -> Tensor:
    """Cross entropy a character."""
    return F.cross_entropy(module(tokens).flatten(0, 1), following.flatten())


def main() -> None:
    """Train, report, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--text", type=Path, help="a text file to learn; sentences are made where there is none")
    parser.add_argument("--steps", type=int, default=600, help="optimizer steps (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=24, help="stretches a step (default: %(default)s)")
    parser.add_argument("--target", type=float, default=0.5, help="share of the MACs to remove (default: %(default)s)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--output", type=Path, default=Path("small_lm.onnx"))
    options = parser.parse_args()

    text = encoded(options.text.read_text(encoding="utf-8") if options.text else sentences(4000, seed=0))
    learnt, held_out = text[: len(text) * 9 // 10], text[len(text) * 9 // 10 :]
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    module = LanguageModel(len(ALPHABET)).to(options.device)

    example = batch(learnt, 2, generator)[0].to(options.device)
    groups = ozgraph.find_groups(module, example)
    print(groups)
    optimizer = torch.optim.AdamW(module.parameters(), lr=3e-3, weight_decay=0.05)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=options.steps)
    pruner = HESSO(
        optimizer,
        groups,
        target=Target(macs=options.target),
        steps=options.steps,
        end=0.5,
        periods=5,
        # Heads and MLP widths: the width that all layers share stays as it is.
        include=["*.k_proj.weight", "*.gate_proj.weight"],
        min_kept=0.25,
    )
    with ProgressLine(pruner, options.steps) as line:
        for step in range(options.steps):
            tokens, following = (part.to(options.device) for part in batch(learnt, options.batch, generator))
            loss = loss_of(module, tokens, following)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
            optimizer.step()
            scheduler.step()
            line.update(loss.item() if step % 50 == 0 else None)

    tokens, following = batch(held_out, 64, torch.Generator().manual_seed(1))
    with torch.no_grad():
        loss = loss_of(module, tokens.to(options.device), following.to(options.device))
    print(f"held-out loss a character: {loss.item():.3f}")
    # Attention heads are followed through reshapes of known sizes, so the file takes batches of this one.
    small_file.write(module, tokens[:2], options.output, tokens[2:4], batch_varies=False)


if __name__ == "__main__":
    main()

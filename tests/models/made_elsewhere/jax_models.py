"""Networks of JAX through jax2onnx: flax (NNX) and equinox, as primitives of JAX."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import equinox
import jax
import numpy as np
from flax import nnx
from jax import numpy as jnp
from jax2onnx import to_onnx


class Mixer(nnx.Module):
    """Patches, two blocks that mix tokens and then channels, a mean over tokens."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.patches = nnx.Conv(3, 16, (4, 4), strides=(4, 4), rngs=rngs)
        self.norms = nnx.List([nnx.LayerNorm(16, rngs=rngs) for _ in range(5)])
        self.tokens = nnx.List([nnx.List([nnx.Linear(16, 12, rngs=rngs), nnx.Linear(12, 16, rngs=rngs)]) for _ in "12"])
        self.widths = nnx.List([nnx.List([nnx.Linear(16, 20, rngs=rngs), nnx.Linear(20, 16, rngs=rngs)]) for _ in "12"])
        self.head = nnx.Linear(16, 4, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.patches(x)
        x = x.reshape(x.shape[0], 16, 16)
        for block in range(2):
            y = self.norms[2 * block](x).transpose(0, 2, 1)
            up, down = self.tokens[block]
            x = x + down(nnx.gelu(up(y))).transpose(0, 2, 1)
            up, down = self.widths[block]
            x = x + down(nnx.gelu(up(self.norms[2 * block + 1](x))))
        return self.head(self.norms[4](x).mean(axis=1))


class Convolutions(nnx.Module):
    """A residual network, channels last, with batch norms, a depthwise layer and a join."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.stem = nnx.Conv(3, 12, (3, 3), rngs=rngs)
        self.wide, self.narrow = nnx.Conv(12, 20, (1, 1), rngs=rngs), nnx.Conv(20, 12, (1, 1), rngs=rngs)
        self.depthwise = nnx.Conv(20, 20, (3, 3), feature_group_count=20, rngs=rngs)
        self.norms = nnx.List([nnx.BatchNorm(n, use_running_average=True, rngs=rngs) for n in (12, 20, 20)])
        self.side, self.head = nnx.Conv(12, 6, (3, 3), rngs=rngs), nnx.Linear(18, 4, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = nnx.relu(self.norms[0](self.stem(x)))
        y = nnx.silu(self.norms[1](self.wide(x)))
        x = x + self.narrow(nnx.relu(self.norms[2](self.depthwise(y))))
        x = jnp.concatenate((x, nnx.sigmoid(self.side(x))), axis=-1)
        return self.head(nnx.avg_pool(x, window_shape=(2, 2), strides=(2, 2)).mean(axis=(1, 2)))


class Encoder(nnx.Module):
    """An encoder block around flax's attention."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.attention = nnx.MultiHeadAttention(4, 16, decode=False, rngs=rngs)
        self.norms = nnx.List([nnx.LayerNorm(16, rngs=rngs), nnx.LayerNorm(16, rngs=rngs)])
        self.up, self.down = nnx.Linear(16, 24, rngs=rngs), nnx.Linear(24, 16, rngs=rngs)
        self.first, self.head = nnx.Linear(6, 16, rngs=rngs), nnx.Linear(16, 3, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.first(x)
        x = self.norms[0](x + self.attention(x))
        x = self.norms[1](x + self.down(nnx.gelu(self.up(x))))
        return self.head(x.mean(axis=1))


class Perceptron(equinox.Module):
    """Equinox's MLP over a batch, with layer norm and a gate."""

    first: equinox.nn.MLP
    norm: equinox.nn.LayerNorm
    gate: equinox.nn.Linear
    head: equinox.nn.Linear

    def __init__(self, key: jax.Array) -> None:
        keys = jax.random.split(key, 3)
        self.first = equinox.nn.MLP(6, 16, 24, 2, key=keys[0])
        self.norm = equinox.nn.LayerNorm(16)
        self.gate, self.head = equinox.nn.Linear(16, 16, key=keys[1]), equinox.nn.Linear(16, 3, key=keys[2])

    def __call__(self, x: jax.Array) -> jax.Array:
        y = self.norm(self.first(x))
        return self.head(y * jax.nn.sigmoid(self.gate(y)))


def flax(network: type[nnx.Module]) -> Any:
    """An instance whose weights have all moved from where they start."""
    model = network(nnx.Rngs(0))
    draw = np.random.default_rng(0)

    def moved(path: Any, leaf: Any) -> Any:
        if not isinstance(leaf, jax.Array) or not jnp.issubdtype(leaf.dtype, jnp.floating):
            return leaf
        noise = draw.normal(scale=0.1, size=leaf.shape).astype("float32")
        return leaf + (abs(noise) if "var" in str(path) else noise)

    nnx.update(model, jax.tree_util.tree_map_with_path(moved, nnx.state(model)))
    return model


def main(folder: Path) -> None:
    perceptron = jax.vmap(Perceptron(jax.random.key(0)))
    for name, function, shape in (
        ("flax_mixer", flax(Mixer), (2, 16, 16, 3)),
        ("flax_convolutions", flax(Convolutions), ("B", 8, 8, 3)),
        ("flax_encoder", flax(Encoder), ("B", 10, 6)),
        ("equinox_perceptron", perceptron, ("B", 6)),
    ):
        proto = to_onnx(function, inputs=[shape], model_name=name)
        (folder / "networks" / f"{name}.onnx").write_bytes(proto.SerializeToString())


if __name__ == "__main__":
    main(Path(sys.argv[1]))

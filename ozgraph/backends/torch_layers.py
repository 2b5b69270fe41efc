"""What the layers of ``torch.nn`` remember of their own sizes, put right after their tensors were sliced.

Importing this module imports torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

Attributes = Mapping[str, Any]
"""New arguments of the operators that a layer calls, by their name in the schema."""

Shapes = Sequence[tuple[int, ...]]
"""Shapes of the first operand of the attention operators that a layer calls."""

_GATES = {"LSTM": 4, "GRU": 3, "RNN_TANH": 1, "RNN_RELU": 1}


def fit(layer: nn.Module, changed: Attributes, heads: int | None = None) -> None:
    """Let a layer's attributes say what its tensors are; a layer of another kind is left alone.

    Args:
        changed: what the plan rewrote of the operators that the layer calls.
        heads: number of heads that attention in this layer has now, where it is known.
    """
    for kind, put_right in _KINDS.items():
        if isinstance(layer, kind):
            put_right(layer, changed)
            break
    if isinstance(layer, nn.MultiheadAttention):
        _attention(layer, heads)


def _linear(layer: Any, changed: Attributes) -> None:
    layer.out_features, layer.in_features = layer.weight.shape


def _bilinear(layer: Any, changed: Attributes) -> None:
    layer.out_features, layer.in1_features, layer.in2_features = layer.weight.shape


def _convolution(layer: Any, changed: Attributes) -> None:
    layer.groups = int(changed.get("groups", layer.groups))
    first, second = layer.weight.shape[:2]
    if isinstance(layer, _ConvTransposeNd):
        layer.in_channels, layer.out_channels = first, second * layer.groups
    else:
        layer.out_channels, layer.in_channels = first, second * layer.groups


def _batch_norm(layer: Any, changed: Attributes) -> None:
    held: Tensor | None = layer.weight if layer.weight is not None else layer.running_mean
    if held is not None:
        layer.num_features = held.shape[0]


def _group_norm(layer: Any, changed: Attributes) -> None:
    before = layer.num_channels // layer.num_groups
    layer.num_groups = int(changed.get("num_groups", layer.num_groups))
    layer.num_channels = layer.num_groups * before if layer.weight is None else layer.weight.shape[0]


def _last_axes_norm(layer: Any, changed: Attributes) -> None:
    if layer.weight is not None:
        layer.normalized_shape = tuple(layer.weight.shape)
    elif "normalized_shape" in changed:
        layer.normalized_shape = tuple(changed["normalized_shape"])
    if "eps" in changed:
        layer.eps = float(changed["eps"])


def _embedding(layer: Any, changed: Attributes) -> None:
    layer.num_embeddings, layer.embedding_dim = layer.weight.shape


def _recurrent(layer: Any, changed: Attributes) -> None:
    layer.hidden_size = layer.weight_ih_l0.shape[0] // _GATES[layer.mode]
    layer.input_size = layer.weight_ih_l0.shape[1]
    if layer.proj_size:
        layer.proj_size = layer.weight_hr_l0.shape[0]


def _cell(layer: Any, changed: Attributes) -> None:
    layer.hidden_size, layer.input_size = layer.weight_hh.shape[1], layer.weight_ih.shape[1]


def _slopes(layer: Any, changed: Attributes) -> None:
    layer.num_parameters = layer.weight.numel()


def _attention(layer: nn.MultiheadAttention, heads: int | None) -> None:
    if layer.in_proj_weight is not None:
        layer.embed_dim = layer.kdim = layer.vdim = layer.in_proj_weight.shape[1]
    else:
        layer.embed_dim = layer.q_proj_weight.shape[1]
        layer.kdim, layer.vdim = layer.k_proj_weight.shape[1], layer.v_proj_weight.shape[1]
    if heads is not None:
        layer.num_heads = heads
    layer.head_dim = layer.embed_dim // layer.num_heads


_KINDS: dict[type[nn.Module], Callable[[Any, Attributes], None]] = {
    nn.Linear: _linear,
    nn.Bilinear: _bilinear,
    _ConvNd: _convolution,
    _NormBase: _batch_norm,
    nn.GroupNorm: _group_norm,
    nn.LayerNorm: _last_axes_norm,
    nn.RMSNorm: _last_axes_norm,
    nn.Embedding: _embedding,
    nn.EmbeddingBag: _embedding,
    nn.RNNBase: _recurrent,
    nn.RNNCellBase: _cell,
    nn.PReLU: _slopes,
}

"""One call of each ATen operator that a rule speaks for: name -> (function of tensors, shapes of its tensors)."""

# mypy: ignore-errors

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional as F

Call = tuple[Callable[..., Any], tuple[tuple[int, ...], ...]]

_INDEX = torch.tensor([2, 0, 1])


def _in_place(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    x = x * 1
    x[:, 1:3] = y
    return x * 2


def _through_a_view(x: torch.Tensor) -> torch.Tensor:
    x = x * 1
    x.view(4, 6)[:, :3].mul_(2)
    return x + 1


CALLS: dict[str, Call] = {
    "conv1d": (lambda x, w, b: F.conv1d(x, w, b), ((2, 6, 5), (4, 6, 3), (4,))),
    "conv2d grouped": (lambda x, w: F.conv2d(x, w, groups=2, padding="same"), ((2, 6, 5, 5), (4, 3, 3, 3))),
    "conv2d depthwise": (lambda x, w: F.conv2d(x, w, groups=6, padding=1), ((2, 6, 5, 5), (6, 1, 3, 3))),
    "conv3d": (F.conv3d, ((1, 3, 4, 4, 4), (2, 3, 2, 2, 2))),
    "conv2d without a batch": (F.conv2d, ((3, 5, 5), (2, 3, 3, 3))),
    "conv_transpose2d": (lambda x, w, b: F.conv_transpose2d(x, w, b, groups=2), ((2, 6, 4, 4), (6, 2, 2, 2), (4,))),
    "linear": (F.linear, ((2, 3, 5), (4, 5), (4,))),
    "addmm": (lambda b, x, w: torch.addmm(b, x, w, beta=0.5, alpha=2), ((4,), (3, 5), (5, 4))),
    "baddbmm": (torch.baddbmm, ((2, 3, 4), (2, 3, 5), (2, 5, 4))),
    "matmul": (torch.matmul, ((2, 1, 3, 5), (4, 5, 6))),
    "mv": (torch.mv, ((3, 5), (5,))),
    "outer": (torch.outer, ((3,), (4,))),
    "einsum": (lambda x, y: torch.einsum("bhid,bhjd->bhij", x, y), ((2, 2, 3, 4), (2, 2, 5, 4))),
    "tensordot": (lambda x, y: torch.tensordot(x, y, dims=([1], [0])), ((3, 4), (4, 5))),
    "bilinear": (F.bilinear, ((3, 4), (3, 5), (2, 4, 5), (2,))),
    "relu": (F.relu, ((3, 4),)),
    "relu_": (lambda x: F.relu_(x + 1), ((3, 4),)),
    "gelu": (lambda x: F.gelu(x, approximate="tanh"), ((3, 4),)),
    "hardswish": (F.hardswish, ((3, 4),)),
    "leaky_relu": (F.leaky_relu, ((3, 4),)),
    "prelu": (F.prelu, ((2, 4, 3), (4,))),
    "glu": (lambda x: F.glu(x, 1), ((2, 6, 3),)),
    "clamp": (lambda x: x.clamp(-0.5, 0.5), ((3, 4),)),
    "add with alpha": (lambda x, y: torch.add(x, y, alpha=2), ((3, 4), (4,))),
    "mul broadcast": (torch.mul, ((2, 1, 4), (3, 1))),
    "pow": (lambda x: x.pow(2), ((3, 4),)),
    "rsub": (lambda x: 1 - x, ((3, 4),)),
    "where": (lambda x, y: torch.where(x > 0, x, y), ((3, 4), (4,))),
    "masked_fill": (lambda x: x.masked_fill(x > 0, 0.0), ((3, 4),)),
    "addcmul": (torch.addcmul, ((3, 4), (3, 4), (4,))),
    "type cast": (lambda x: x.to(torch.float64), ((3, 4),)),
    "complex numbers": (
        lambda x, y: torch.view_as_real(torch.view_as_complex(x) * torch.view_as_complex(y)), ((3, 4, 2), (4, 2)),
    ),
    "index_fill": (lambda x: x.index_fill(0, _INDEX, 2.0), ((4, 5),)),
    "dropout": (lambda x: F.dropout(x, 0.5, training=False), ((3, 4),)),
    "batch_norm": (
        lambda x, g, b, m, v: F.batch_norm(x, m, v.abs() + 1, g, b), ((2, 4, 3), (4,), (4,), (4,), (4,)),
    ),
    "batch_norm of the batch": (lambda x: F.batch_norm(x, None, None, training=True), ((3, 4, 2),)),
    "layer_norm": (lambda x, g, b: F.layer_norm(x, (4,), g, b), ((2, 3, 4), (4,), (4,))),
    "group_norm": (lambda x, g, b: F.group_norm(x, 2, g, b), ((2, 6, 3), (6,), (6,))),
    "instance_norm": (lambda x, g, b: F.instance_norm(x, weight=g, bias=b), ((2, 4, 5), (4,), (4,))),
    "rms_norm": (lambda x, g: F.rms_norm(x, (4,), g), ((2, 3, 4), (4,))),
    "weight_norm": (lambda v, g: torch._weight_norm(v, g, 0), ((4, 3, 2), (4, 1, 1))),
    "attention": (F.scaled_dot_product_attention, ((2, 3, 4, 5), (2, 3, 6, 5), (2, 3, 6, 7))),
    "attention causal": (
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True),
        ((2, 3, 4, 5), (2, 3, 4, 5), (2, 3, 4, 5)),
    ),
    "attention masked": (
        lambda q, k, v, m: F.scaled_dot_product_attention(q, k, v, m), ((2, 4, 5), (2, 6, 5), (2, 6, 7), (4, 6)),
    ),
    "attention grouped": (
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, enable_gqa=True),
        ((1, 6, 4, 5), (1, 2, 4, 5), (1, 2, 4, 3)),
    ),
    "embedding": (lambda w: F.embedding(_INDEX, w), ((5, 4),)),
    "max_pool2d": (lambda x: F.max_pool2d(x, 2), ((2, 3, 4, 4),)),
    "avg_pool2d": (lambda x: F.avg_pool2d(x, 3, 1, 1), ((2, 3, 4, 4),)),
    "adaptive_avg_pool2d": (lambda x: F.adaptive_avg_pool2d(x, 2), ((2, 3, 4, 4),)),
    "adaptive_max_pool1d": (lambda x: F.adaptive_max_pool1d(x, 2), ((2, 3, 4),)),
    "softmax": (lambda x: x.softmax(1), ((2, 3, 4),)),
    "log_softmax": (lambda x: x.log_softmax(-1), ((2, 3, 4),)),
    "sum": (lambda x: x.sum((1,), keepdim=True), ((2, 3, 4),)),
    "sum of all": (lambda x: x.sum(), ((2, 3, 4),)),
    "mean": (lambda x: x.mean((-1,)), ((2, 3, 4),)),
    "amax": (lambda x: x.amax(1), ((2, 3, 4),)),
    "max": (lambda x: x.max(1).values, ((2, 3, 4),)),
    "var": (lambda x: x.var(1), ((2, 3, 4),)),
    "norm": (lambda x: torch.linalg.vector_norm(x, dim=1), ((2, 3, 4),)),
    "prod": (lambda x: x.prod(1), ((2, 3, 4),)),
    "logsumexp": (lambda x: x.logsumexp(1), ((2, 3, 4),)),
    "cumsum": (lambda x: x.cumsum(1), ((2, 3, 4),)),
    "diff": (lambda x, y: torch.diff(x, dim=1, prepend=y), ((2, 4), (2, 1))),
    "topk": (lambda x: x.topk(2, 1).values, ((2, 3, 4),)),
    "sort": (lambda x: x.sort(1).values, ((2, 3, 4),)),
    "view": (lambda x: x.view(2, 12), ((2, 3, 4),)),
    "reshape": (lambda x: x.reshape(-1, 2, 2), ((2, 3, 4),)),
    "reshape apart": (lambda x: x.reshape(3, 4), ((2, 6),)),
    "flatten": (lambda x: x.flatten(1), ((2, 3, 4),)),
    "unflatten": (lambda x: x.unflatten(1, (2, 3)), ((2, 6, 4),)),
    "view_as": (lambda x, y: x.view_as(y), ((2, 6), (3, 4))),
    "permute": (lambda x: x.permute(2, 0, 1), ((2, 3, 4),)),
    "transpose": (lambda x: x.transpose(-1, 0), ((2, 3, 4),)),
    "t": (lambda x: x.t(), ((2, 3),)),
    "mT": (lambda x: x.mT, ((2, 3, 4),)),
    "movedim": (lambda x: x.movedim(0, 2), ((2, 3, 4),)),
    "squeeze": (lambda x: x.squeeze(), ((2, 1, 4),)),
    "squeeze of an axis": (lambda x: x.squeeze(1).squeeze(0), ((2, 1, 4),)),
    "unsqueeze": (lambda x: x.unsqueeze(-1), ((2, 3),)),
    "expand": (lambda x: x.expand(3, -1, 4), ((2, 1),)),
    "expand_as": (lambda x, y: x.expand_as(y), ((2, 1), (3, 2, 4))),
    "repeat": (lambda x: x.repeat(2, 1, 3), ((2, 4),)),
    "tile": (lambda x: x.tile(3), ((2, 4),)),
    "repeat_interleave": (lambda x: x.repeat_interleave(3, 1), ((2, 4),)),
    "pad": (lambda x: F.pad(x, (1, 2, 0, 1)), ((2, 3, 4),)),
    "reflection pad": (lambda x: F.pad(x, (1, 2), mode="reflect"), ((2, 3, 4),)),
    "replication pad": (lambda x: F.pad(x, (1, 2), mode="replicate"), ((2, 3, 4),)),
    "cat": (lambda x, y: torch.cat((x, y), 1), ((2, 3), (2, 4))),
    "stack": (lambda x, y: torch.stack((x, y), 1), ((2, 3), (2, 3))),
    "split": (lambda x: [part * 1 for part in x.split(3, 1)], ((2, 7),)),
    "split_with_sizes": (lambda x: [part * 1 for part in x.split([3, 4], 1)], ((2, 7),)),
    "chunk": (lambda x: [part * 1 for part in x.chunk(2, 1)], ((2, 6),)),
    "tensor_split": (lambda x: [part * 1 for part in x.tensor_split(2, 1)], ((2, 7),)),
    "unbind": (lambda x: [part * 1 for part in x.unbind(1)], ((2, 3, 4),)),
    "slice": (lambda x: x[:, 1:3], ((2, 4),)),
    "slice with steps": (lambda x: x[:, 1::2], ((2, 5),)),
    "narrow": (lambda x: x.narrow(1, 1, 2), ((2, 4),)),
    "select": (lambda x: x[:, -1], ((2, 3, 4),)),
    "index": (lambda x: x[:, _INDEX], ((2, 4, 3),)),
    "index twice": (lambda x: x[_INDEX, :, _INDEX], ((3, 2, 4),)),
    "index with a table": (lambda x: x[:, _INDEX.view(3, 1)], ((2, 4, 3),)),
    "index_select": (lambda x: x.index_select(1, _INDEX), ((2, 4),)),
    "gather": (lambda x: x.gather(1, _INDEX.expand(2, 3)), ((2, 4),)),
    "roll": (lambda x: x.roll((1, 2), (0, 1)), ((3, 5),)),
    "flip": (lambda x: x.flip(1), ((2, 4),)),
    "tril": (torch.tril, ((2, 4, 4),)),
    "unfold": (lambda x: x.unfold(1, 2, 1), ((2, 4, 3),)),
    "im2col": (lambda x: F.unfold(x, 2), ((2, 3, 4, 4),)),
    "col2im": (lambda x: F.fold(x, (4, 4), 2, stride=2), ((2, 12, 4),)),
    "pixel_shuffle": (lambda x: F.pixel_shuffle(x, 2), ((2, 8, 2, 3),)),
    "pixel_unshuffle": (lambda x: F.pixel_unshuffle(x, 2), ((2, 2, 4, 6),)),
    "channel_shuffle": (lambda x: F.channel_shuffle(x, 2), ((2, 6, 2, 2),)),
    "upsample nearest": (lambda x: F.interpolate(x, scale_factor=2), ((2, 3, 2, 2),)),
    "upsample bilinear": (lambda x: F.interpolate(x, size=(5, 3), mode="bilinear"), ((2, 3, 4, 4),)),
    "grid_sample": (lambda x, g: F.grid_sample(x, g, align_corners=False), ((2, 3, 4, 4), (2, 2, 3, 2))),
    "index_put": (lambda x, y: (x * 1).index_put((_INDEX,), y), ((4, 5), (3, 5))),
    "index_add": (lambda x, y: x.index_add(0, _INDEX, y), ((4, 5), (3, 5))),
    "scatter": (lambda x, y: x.scatter(0, _INDEX.view(3, 1).expand(3, 5), y), ((4, 5), (3, 5))),
    "meshgrid": (lambda x, y: [part * 1 for part in torch.meshgrid(x, y, indexing="ij")], ((2,), (3,))),
    "zeros_like": (lambda x: torch.zeros_like(x) + x, ((2, 3),)),
    "slice written": (_in_place, ((2, 5), (2, 2))),
    "view written": (_through_a_view, ((2, 2, 6),)),
    "copied": (lambda x, y: (x * 1).copy_(y) + 1, ((2, 3), (3,))),
    "diagonal": (lambda x: x.diagonal(), ((3, 3),)),
}  # fmt: skip

"""Forward and backward of a training step as one launch: recorded once as a CUDA graph, replayed with every batch.

A network of many small layers spends its time on launching kernels: a step of ResNet-56 on batches of 128 has well
over a thousand of them. A recording has to be made anew when the network is cut: ``pruner.follow(step.forget)``.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_WARM_UP = 3


def cross_entropy(module: nn.Module, x: Tensor, labels: Tensor) -> Tensor:
    """The loss of a batch, in bfloat16 on CUDA."""
    with torch.autocast(x.device.type, torch.bfloat16, enabled=x.is_cuda):
        return F.cross_entropy(module(x), labels)


class RecordedStep:
    """Loss and gradients of a batch, from a CUDA graph; gradients lie in the same memory in every step."""

    def __init__(self, loss_of: Callable[[nn.Module, Tensor, Tensor], Tensor] = cross_entropy) -> None:
        self._loss_of = loss_of
        self._graph: torch.cuda.CUDAGraph | None = None
        self._read: tuple[Tensor, Tensor] | None = None
        self._loss = torch.empty(0)

    def __call__(self, module: nn.Module, x: Tensor, labels: Tensor) -> Tensor:
        """The loss, a scalar that the next call overwrites; all batches have one shape."""
        if self._graph is None or self._read is None:
            self._record(module, x, labels)
        assert self._graph is not None and self._read is not None
        for kept, given in zip(self._read, (x, labels), strict=True):
            kept.copy_(given)
        self._graph.replay()
        return self._loss

    def forget(self, module: nn.Module | None = None) -> None:
        """Record anew at the next call: the network has become another."""
        self._graph = self._read = None

    def _record(self, module: nn.Module, x: Tensor, labels: Tensor) -> None:
        x, labels = x.clone(), labels.clone()
        # Warming up must leave no trace in the statistics of batch norms.
        buffers = {buffer: buffer.clone() for buffer in module.buffers()}
        aside = torch.cuda.Stream(x.device)
        aside.wait_stream(torch.cuda.current_stream(x.device))
        with torch.cuda.stream(aside):
            for _ in range(_WARM_UP):
                self._gradients(module, x, labels)
        torch.cuda.current_stream(x.device).wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        module.zero_grad(set_to_none=True)
        with torch.cuda.graph(graph):
            self._loss = self._gradients(module, x, labels).detach()
        for buffer, before in buffers.items():
            buffer.copy_(before)
        self._graph, self._read = graph, (x, labels)

    def _gradients(self, module: nn.Module, x: Tensor, labels: Tensor) -> Tensor:
        module.zero_grad(set_to_none=True)
        loss = self._loss_of(module, x, labels)
        loss.backward()
        return loss

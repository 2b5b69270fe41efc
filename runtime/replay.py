"""Many small launches on CUDA as one: recorded once as a graph, replayed every step."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


class Replay:
    """Runs the same in-place work again and again, from a CUDA graph where it can.

    The work must read and write the same memory each time. Where tensors have moved since it was recorded it is
    recorded anew; where the processor does the work, or recording fails, or somebody else records (a whole step in a
    graph of its own), it just runs.
    """

    def __init__(self) -> None:
        self._graph: torch.cuda.CUDAGraph | None = None
        self._addresses: list[int] = []
        self._refused = False

    def __call__(self, work: Callable[[], None], tensors: Sequence[Tensor]) -> None:
        """Do ``work``, which changes ``tensors``."""
        if not tensors:
            return
        on_one = tensors[0].is_cuda and all(tensor.device == tensors[0].device for tensor in tensors)
        if self._refused or not on_one or torch.cuda.is_current_stream_capturing():
            work()
            return
        addresses = [tensor.data_ptr() for tensor in tensors]
        if self._graph is None or addresses != self._addresses:
            self._graph, self._addresses = self._recorded(work, tensors[0].device), addresses
        if self._graph is None:
            self._refused = True
            work()
        else:
            with torch.cuda.device(tensors[0].device):
                self._graph.replay()

    @staticmethod
    def _recorded(work: Callable[[], None], device: torch.device) -> torch.cuda.CUDAGraph | None:
        """The work as a graph; nothing of it is done yet. None where it cannot be recorded."""
        graph = torch.cuda.CUDAGraph()
        try:
            # Another thread (a data loader that pins memory) may go on allocating meanwhile.
            with torch.cuda.device(device), torch.cuda.graph(graph, capture_error_mode="thread_local"):
                work()
        except RuntimeError:
            return None
        return graph

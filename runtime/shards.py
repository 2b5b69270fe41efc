"""Models on several processes: the part of a parameter that lies here, and what all of them must agree on."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any
from zlib import crc32

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ozgraph.errors import UsageError


def is_sharded(tensor: Tensor) -> bool:
    """Whether it is a ``DTensor``, of FSDP2 or of tensor parallelism."""
    # Whoever has made one has imported the module, which takes too long to do so for everybody.
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(tensor, module.DTensor)


def local(tensor: Tensor) -> Tensor:
    """The part of a tensor that lies here, sharing memory with it: all of it, unless it is a ``DTensor``."""
    if not is_sharded(tensor):
        return tensor
    with torch.no_grad():
        part: Tensor = tensor.to_local()  # type: ignore[attr-defined]
    return part


def as_sharded(part: Tensor, like: Tensor) -> Tensor:
    """The part that lies here as a ``DTensor`` that is laid out as another; itself, where that one is none."""
    if not is_sharded(like):
        return part
    from torch.distributed.tensor import DTensor

    whole: Any = like
    made: Tensor = DTensor.from_local(
        part.to(whole.device_mesh.device_type),
        whole.device_mesh,
        whole.placements,
        run_check=False,
        shape=whole.shape,
        stride=whole.stride(),
    )
    return made


def local_gradient(parameter: Tensor) -> Tensor | None:
    """The gradient of what lies here."""
    gradient = parameter.grad
    if gradient is None or not is_sharded(gradient):
        return gradient
    there: Any = gradient
    if is_sharded(parameter) and there.placements != parameter.placements:  # type: ignore[attr-defined]
        # Tensor parallelism may leave sums that are still to be added up.
        there = there.redistribute(placements=parameter.placements)  # type: ignore[attr-defined]
    return local(there)


def positions(tensor: Tensor, axis: int) -> npt.NDArray[np.int64]:
    """Which positions of an axis of the whole tensor lie here: [positions of the local part]."""
    every = torch.arange(tensor.shape[axis])
    if not is_sharded(tensor):
        return every.numpy()
    from torch.distributed.tensor import Replicate, Shard, distribute_tensor

    whole: Any = tensor
    mesh = whole.device_mesh
    along = [Shard(0) if _on(placement, axis) else Replicate() for placement in whole.placements]
    if all(type(placement) is Shard or not _on(placement, axis) for placement in whole.placements):
        # As Shard is defined: mesh dimensions from left to right, each by torch.chunk; late ones may stay empty.
        for number, placement in enumerate(along):
            if isinstance(placement, Shard):
                parts = every.chunk(mesh.size(number)) if len(every) else ()
                here = mesh.get_local_rank(number)
                every = parts[here] if here < len(parts) else every[:0]
    else:  # sharded over again by FSDP2 after tensor parallelism: parts of parts
        for number, placement in enumerate(whole.placements):
            if _on(placement, axis) and type(placement) is not Shard:
                along[number] = type(placement)(0, split_factor=placement.split_factor)
        there = distribute_tensor(every.to(mesh.device_type), mesh, along, src_data_rank=None)
        every = local(there).cpu()
    found: npt.NDArray[np.int64] = every.numpy()
    if len(found) != local(tensor).shape[axis]:
        raise UsageError(
            f"cannot follow how {list(tensor.shape)} is laid out ({whole.placements}); shard it with Shard placements"
        )
    return found


def _on(placement: Any, axis: int) -> bool:
    """Whether a placement shards this axis; further kinds of shards have a ``dim`` as well."""
    return getattr(placement, "dim", None) == axis and not placement.is_replicate() and not placement.is_partial()


def owners(tensor: Tensor) -> tuple[Any, ...]:
    """The process groups over which sums of a tensor's elements add up; none where the whole tensor lies here."""
    if not is_sharded(tensor):
        return ()
    whole: Any = tensor
    return tuple(
        whole.device_mesh.get_group(number)
        for number, placement in enumerate(whole.placements)
        if not placement.is_replicate()
    )


def add_up(totals: Tensor, groups: Sequence[Any]) -> Tensor:
    """The sum of ``totals`` over process groups."""
    for group in groups:
        totals = _reduced(totals, group, "SUM")
    return totals


def _reduced(tensor: Tensor, group: Any, how: str) -> Tensor:
    import torch.distributed as dist

    # Parameters may be offloaded to the processor while processes only talk from device to device.
    lifted = tensor.cuda() if tensor.device.type == "cpu" and dist.get_backend(group) == "nccl" else tensor
    dist.all_reduce(lifted, op=getattr(dist.ReduceOp, how), group=group)
    return lifted.to(tensor.device)


class Processes:
    """The processes that train one model together.

    Args:
        group: a process group; where there is none, all that ``torch.distributed`` was initialised with.
    """

    def __init__(self, group: Any = None) -> None:
        self._group = group

    @property
    def size(self) -> int:
        """How many; 1 where nothing is distributed."""
        if not torch.distributed.is_available() or not torch.distributed.is_initialized():
            return 1
        return int(torch.distributed.get_world_size(self._group))

    def mean(self, tensor: Tensor) -> Tensor:
        """The mean over all processes, the same bits on each."""
        if self.size == 1:
            return tensor
        return _reduced(tensor.clone(), self._group, "SUM") / self.size

    def agree(self, said: str, device: torch.device) -> None:
        """See that all processes say the same.

        Raises:
            UsageError: they do not; on all of them.
        """
        if self.size == 1:
            return
        number = crc32(said.encode())
        both = torch.tensor([number, -number], dtype=torch.int64, device=device)
        largest, smallest = _reduced(both, self._group, "MAX").tolist()
        if largest != -smallest:
            raise UsageError(
                "the processes of this run do not prune alike; build the pruner on the same model with the same "
                f"arguments in each of them, and load the same state (here: {said})"
            )

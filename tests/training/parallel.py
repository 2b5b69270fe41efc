"""Two processes train one network in parallel and cut it; ``python -m training.parallel FOLDER RANK`` in tests."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import distributed
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

import ozgraph
from ozgraph.runtime import OneCycle, Target
from training.loops import groups_of, net
from training.nets import Residual, images


def run(folder: Path, rank: int) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    module = net(1, Residual)
    x = images()[0]
    optimizer = torch.optim.SGD(module.parameters(), lr=0.05, momentum=0.9)
    groups = groups_of(module, x)
    parallel = DistributedDataParallel(module, broadcast_buffers=False)
    pruner = OneCycle(
        optimizer, groups, target=Target(macs=0.5), steps=20, every=1, latest=2, stop="latest", finish_steps=2,
        compactor=ozgraph.Compactor(parallel, x), follow=[parallel],
    )  # fmt: skip
    buckets = parallel.reducer
    for step in range(8):
        x, y = images(10 * step + rank)
        loss = F.cross_entropy(parallel(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert pruner.compaction is not None and len(pruner.compaction.cuts) == 1 and module.conv1.out_channels < 12
    assert parallel.reducer is not buckets
    torch.save({name: tensor.detach() for name, tensor in module.named_parameters()}, folder / f"rank{rank}.pt")
    distributed.destroy_process_group()


if __name__ == "__main__":
    run(Path(sys.argv[1]), int(sys.argv[2]))

"""Which positions of a parameter lie with a process, however it is laid out over a mesh."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

torch = pytest.importorskip("torch")
if not torch.distributed.is_available() or sys.platform == "win32":
    pytest.skip("torch was built without torch.distributed", allow_module_level=True)

import numpy as np  # noqa: E402
import torch.distributed as dist  # noqa: E402
from torch import nn  # noqa: E402
from torch.distributed.device_mesh import init_device_mesh  # noqa: E402
from torch.distributed.fsdp import fully_shard  # noqa: E402
from torch.distributed.tensor import Replicate, Shard, distribute_tensor  # noqa: E402
from torch.distributed.tensor.placement_types import _StridedShard  # noqa: E402
from torch.testing._internal.distributed.fake_pg import FakeStore  # noqa: E402
from training.hand_made import Loose, family, groups, occurrence  # noqa: E402

import ozgraph  # noqa: E402
from ozgraph.errors import UsageError  # noqa: E402
from ozgraph.runtime.places import layout  # noqa: E402
from ozgraph.runtime.saliency import squares  # noqa: E402
from ozgraph.runtime.shards import local, owners, positions  # noqa: E402
from ozgraph.runtime.zeroing import Zeroing  # noqa: E402


@contextmanager
def process(rank: int, world: int) -> Iterator[None]:
    """One of several processes that exist in name only: nothing is sent."""
    dist.init_process_group("fake", rank=rank, world_size=world, store=FakeStore())
    try:
        yield
    finally:
        dist.destroy_process_group()


LAYOUTS = {
    "rows": ((4,), (Shard(0),), 1),
    "columns": ((4,), (Shard(1),), 1),
    "copies of rows": ((2, 2), (Replicate(), Shard(0)), 1),
    "rows twice": ((2, 2), (Shard(0), Shard(0)), 2),
    "rows and columns": ((2, 2), (Shard(0), Shard(1)), 2),
    # As FSDP2 shards what tensor parallelism has sharded before.
    "rows of rows": ((2, 2), (_StridedShard(0, split_factor=2), Shard(0)), 2),
}


@pytest.mark.parametrize("laid_out", LAYOUTS)
@pytest.mark.parametrize("rows", [2, 5, 9])
def test_positions_are_those_of_the_part_that_lies_here(rows: int, laid_out: str) -> None:
    shape, placements, reduced = LAYOUTS[laid_out]
    whole = torch.arange(rows * 7).view(rows, 7)
    for rank in range(4):
        with process(rank, 4):
            mesh = init_device_mesh("cpu", shape)
            part = distribute_tensor(whole, mesh, placements, src_data_rank=None)
            here = whole[torch.from_numpy(positions(part, 0))][:, torch.from_numpy(positions(part, 1))]
            assert torch.equal(here, local(part)), rank
            assert len(owners(part)) == reduced, "sums add up over the mesh dimensions that shard"


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("rows", [2, 5, 9])  # two rows leave two of four processes with nothing
def test_what_each_process_adds_and_zeroes_makes_up_the_whole(rows: int, axis: int) -> None:
    generator = torch.Generator().manual_seed(rows)
    first, second = torch.randn(rows, 6, generator=generator), torch.randn(5, rows, generator=generator)
    rows_of, columns_of = list(range(rows)), [0, 0, 1, 1, 2, 2]
    families = (
        family(0, rows, occurrence("first", 0, rows_of), occurrence("second", 1, rows_of[::-1])),
        family(1, 3, occurrence("first", 1, columns_of)),
    )
    gone = np.zeros(rows + 3, dtype=bool)
    gone[[1, rows]] = True

    def held(module: Loose) -> tuple[torch.Tensor, list[torch.Tensor]]:
        placed = layout(groups(module, *families), families)
        sums = placed.sums(squares, placed.weights(), together=False).detach()
        zeroing = Zeroing(placed)
        zeroing.decay_only(gone)
        zeroing.decay(0.25)
        quarter = [local(tensor).detach().clone() for tensor in module.parameters()]
        zeroing.hold_only(gone)
        zeroing.hold()
        return sums, [*quarter, *(local(tensor).detach() for tensor in module.parameters())]

    wanted, whole = held(Loose(first=first.clone(), second=second.clone()))
    found = torch.zeros_like(wanted)
    for rank in range(4):
        with process(rank, 4):
            mesh = init_device_mesh("cpu", (4,))
            cut = [distribute_tensor(t, mesh, (Shard(axis),), src_data_rank=None) for t in (first, second)]
            here = [torch.from_numpy(positions(tensor, axis)) for tensor in cut]
            sums, parts = held(Loose(**dict(zip(("first", "second"), (part.clone() for part in cut), strict=True))))
        found += sums
        for part, full, places in zip(parts, whole, here * 2, strict=True):
            assert torch.equal(part, full.index_select(axis, places)), rank
    torch.testing.assert_close(found, wanted)


def test_a_plain_tensor_lies_here_whole() -> None:
    tensor = torch.zeros(3, 2)
    assert local(tensor) is tensor and owners(tensor) == () and positions(tensor, 0).tolist() == [0, 1, 2]


def test_groups_of_a_sharded_module_are_refused_with_what_to_do() -> None:
    with process(0, 2):
        module = fully_shard(nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2)))
        with pytest.raises(UsageError, match="before it is wrapped"):
            ozgraph.find_groups(module, torch.zeros(1, 4))

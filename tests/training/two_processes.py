"""One of two processes that train together; ``python -m training.two_processes FOLDER RANK`` from the tests folder.

FOLDER holds the groups of the networks, as found by a process alone, and a checkpoint that this process saved. Every
run leaves what it ended with; the file that the processes find each other by is there too.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.fsdp import fully_shard
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from ozgraph.errors import UsageError
from ozgraph.groups import Groups
from ozgraph.runtime import DHSPG, HESSO, HESSOCRIC, LHSPG, Target
from training.loops import net
from training.nets import Plain, images

WORLD = 2
STEPS, SAVED = 24, 11
"""Steps of a run, and after how many a checkpoint is saved: inside a period."""
PROBED = 4
"""Steps after which HESSO-CRIC holds a copy of the model."""


class Uneven(nn.Module):
    """No batch norm, and hardly a width that two processes share fairly."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 9, 3, padding=1)
        self.conv2 = nn.Conv2d(9, 9, 3, padding=1)
        self.conv3 = nn.Conv2d(9, 13, 3, padding=1)
        self.fc1 = nn.Linear(13, 7)
        self.fc2 = nn.Linear(7, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv1(x))
        x = F.relu(x + self.conv2(x))
        x = F.relu(self.conv3(x)).mean((2, 3))
        return self.fc2(F.relu(self.fc1(x)))


class Adapted(nn.Module):
    """A frozen linear layer with low-rank factors beside it, as peft names them."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base_layer = base.requires_grad_(False)
        self.lora_A = nn.ModuleDict({"default": nn.Linear(base.in_features, 3, bias=False)})
        self.lora_B = nn.ModuleDict({"default": nn.Linear(3, base.out_features, bias=False)})
        self.scaling, self.active_adapters = {"default": 1.5}, ["default"]

    def get_base_layer(self) -> nn.Linear:
        return self.base_layer

    def forward(self, x: Tensor) -> Tensor:
        return self.base_layer(x) + self.lora_B["default"](self.lora_A["default"](x)) * self.scaling["default"]


class UnevenAdapted(Uneven):
    """Its linear layers train through adapters; the rest trains as it is."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2 = Adapted(self.fc1), Adapted(self.fc2)


NETS: dict[str, Callable[[], nn.Module]] = {"uneven": Uneven, "adapted": UnevenAdapted, "plain": Plain}
METHODS: dict[str, tuple[Callable[[Any], torch.optim.Optimizer], Callable[[Any, Groups], Any]]] = {
    "hesso": (
        lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=1e-3),
        lambda o, g: HESSO(o, g, target=Target(macs=0.5), steps=STEPS, start=2, end=20, periods=3, average=0.5),
    ),
    "dhspg": (
        lambda p: torch.optim.AdamW(p, lr=2e-3),
        lambda o, g: DHSPG(o, g, target=Target(groups=0.5), steps=STEPS, start=2, end=20, penalty=1e-1),
    ),
    "grasp": (
        lambda p: torch.optim.SGD(p, lr=0.05),
        lambda o, g: HESSO(o, g, target=Target(groups=0.5), steps=STEPS, start=2, end=20, periods=3, saliency="grasp"),
    ),
    "lhspg": (
        lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9),
        lambda o, g: LHSPG(
            o, g, target=Target(groups=0.5), steps=STEPS, start=2, end=20, periods=2, penalty=1e-1, include=["fc1.*"]
        ),
    ),
    "cric": (
        lambda p: torch.optim.AdamW(p, lr=2e-3),
        lambda o, g: HESSOCRIC(
            o, g, target=Target(groups=0.4), steps=STEPS, start=1, cycle_steps=3, cycles=2, leave_steps=6, probes=(0.5,)
        ),
    ),
}
WRAPPERS = ("ddp", "fsdp")
RUNS = [
    (name, method, wrapper)
    for name, methods in (("uneven", ["hesso", "dhspg", "cric"]), ("adapted", ["lhspg"]), ("plain", ["hesso"]))
    for method in methods
    for wrapper in WRAPPERS
] + [("uneven", "grasp", "ddp")]  # which sharded parameters do not allow


def made(name: str, method: str, wrapper: str | None, folder: Path) -> tuple[nn.Module, Any, Any]:
    """The network, wrapped or not, its optimizer and its pruner."""
    module = net(5, NETS[name])
    # Groups are found before adapters come in.
    groups = Groups.load(folder / f"{'uneven' if name == 'adapted' else name}.json")
    if wrapper == "ddp":
        module = DistributedDataParallel(module)
    elif wrapper == "fsdp":
        for child in list(module.children())[:2]:
            fully_shard(child)
        fully_shard(module)
    optimizer, pruner = METHODS[method]
    made_optimizer = optimizer([parameter for parameter in module.parameters() if parameter.requires_grad])
    return module, made_optimizer, pruner(made_optimizer, groups.bind(module))


def step(module: nn.Module, optimizer: torch.optim.Optimizer, pruner: Any, number: int, rank: int, world: int) -> None:
    """A step on this process's part of a batch."""
    x, y = images(1000 + number)
    loss = F.cross_entropy(module(x[rank::world]), y[rank::world])
    optimizer.zero_grad()
    if getattr(pruner.saliency, "weights", {}).keys() == {"grasp"}:
        pruner.record_hessian_gradient(loss)
    loss.backward()
    if hasattr(pruner, "record"):
        pruner.record(loss)
    optimizer.step()


def run(module: nn.Module, optimizer: Any, pruner: Any, first: int, rank: int = 0, world: int = 1) -> Iterator[int]:
    """From a step to the end; gives the number of steps taken after each."""
    for number in range(first, STEPS):
        step(module, optimizer, pruner, number, rank, world)
        yield number + 1


def whole(module: nn.Module) -> dict[str, Tensor]:
    """Parameters by their own names, gathered from where they lie."""
    found = {}
    for name, parameter in module.named_parameters():
        full = parameter.full_tensor() if hasattr(parameter, "full_tensor") else parameter  # type: ignore[operator]
        found[name.removeprefix("module.")] = full.detach().clone()
    return found


def save(folder: Path, module: nn.Module, optimizer: Any, pruner: Any) -> None:
    """Model, optimizer and pruner, as torch.distributed.checkpoint writes them."""
    weights, state = get_state_dict(module, optimizer)
    dcp.save({"model": weights, "optimizer": state, "pruner": pruner}, checkpoint_id=folder)


def load(folder: Path, module: nn.Module, optimizer: Any, pruner: Any) -> None:
    """What :func:`save` wrote, whatever number of processes wrote it."""
    weights, state = get_state_dict(module, optimizer)
    dcp.load({"model": weights, "optimizer": state, "pruner": pruner}, checkpoint_id=folder)
    set_state_dict(module, optimizer, model_state_dict=weights, optim_state_dict=state)


def main(folder: Path, rank: int) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=WORLD)
    ended: dict[str, Any] = {}
    for name, method, wrapper in RUNS:
        module, optimizer, pruner = made(name, method, wrapper, folder)
        gone = []
        for taken in run(module, optimizer, pruner, 0, rank, WORLD):
            gone.append(torch.from_numpy(pruner.gone | pruner.decaying))
            if (method, wrapper, name, taken) == ("hesso", "fsdp", "uneven", SAVED):
                save(folder / "saved by two", module, optimizer, pruner)
            if (method, wrapper, name, taken) == ("cric", "fsdp", "uneven", PROBED):
                copied = pruner.state_dict()["snapshot"]["tensors"]
                ended["snapshot"] = {key: tensor.full_tensor().clone() for key, tensor in copied.items()}
        if rank == 0:
            pruner.metrics()  # who logs waits for nobody
        norm = pruner.metrics()["redundant_norm"]
        ended[f"{name} {method} {wrapper}"] = {
            "gone": torch.stack(gone), "weights": whole(module), "norm": norm, "finished": pruner.finished
        }  # fmt: skip

    for wrapper in WRAPPERS:
        module, optimizer, pruner = made("uneven", "hesso", wrapper, folder)
        load(folder / "saved by one", module, optimizer, pruner)
        list(run(module, optimizer, pruner, SAVED, rank, WORLD))
        ended[f"going on {wrapper}"] = {"gone": torch.from_numpy(pruner.gone), "weights": whole(module)}

    module = DistributedDataParallel(net(5, Uneven))
    optimizer = torch.optim.SGD(module.parameters(), lr=0.05)
    groups = Groups.load(folder / "uneven.json").bind(module)
    apart = HESSO(optimizer, groups, target=Target(groups=0.2 + 0.1 * rank), steps=4, start=0, end=2, periods=1)
    try:
        step(module, optimizer, apart, 0, rank, WORLD)
    except UsageError as error:
        ended["apart"] = str(error)
    torch.save(ended, folder / f"rank{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]), int(sys.argv[2]))

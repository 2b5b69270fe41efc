"""Train the small language model of ``hesso_transformer.py`` on several devices, and write it as a small ONNX file.

    pip install "ozgraph[torch,onnxruntime]"
    torchrun --nproc-per-node 2 examples/hesso_ddp.py [--sharded] [--checkpoint FOLDER] [--smoke]

Every process has a copy of the model (DDP), or a part of every parameter (``--sharded``, FSDP2), and its own part of
each batch; gloo joins processors, nccl GPUs. All of them take the same groups. With ``--checkpoint`` the run is saved
now and then and goes on from there when it is started again, on as many processes as there are then.
"""

from __future__ import annotations

import argparse
import os
from contextlib import nullcontext
from pathlib import Path

import small_file
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from hesso_transformer import ALPHABET, LanguageModel, batch, encoded, loss_of, sentences
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_state_dict,
    set_state_dict,
)
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

import ozgraph
from ozgraph.runtime import HESSO, ProgressLine, Target

EVERY = 100
"""Steps between two checkpoints."""


class Run:
    """What is saved, and goes on: model, optimizer, scheduler and pruner."""

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, scheduler: object, pruner: HESSO) -> None:
        self.model, self.optimizer, self.scheduler, self.pruner = model, optimizer, scheduler, pruner

    def _state(self) -> dict[str, object]:
        weights, state = get_state_dict(self.model, self.optimizer)
        return {"model": weights, "optimizer": state, "scheduler": self.scheduler, "pruner": self.pruner}

    def save(self, folder: Path) -> None:
        """Every process writes its part; a checkpoint without ``.metadata`` is not finished."""
        dcp.save(self._state(), checkpoint_id=folder / f"step-{self.pruner.step}")

    def load(self, folder: Path) -> None:
        """Go on from the last finished checkpoint, if there is one."""
        finished = [path.parent for path in folder.glob("step-*/.metadata")]
        if finished:
            state = self._state()
            dcp.load(state, checkpoint_id=max(finished, key=lambda path: int(path.name.removeprefix("step-"))))
            set_state_dict(
                self.model, self.optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"]
            )


def wrapped(module: LanguageModel, device: torch.device, sharded: bool) -> nn.Module:
    """The model on all processes."""
    if not sharded:
        return DistributedDataParallel(module, device_ids=[device.index] if device.type == "cuda" else None)
    for layer in module.layers:
        fully_shard(layer)
    return fully_shard(module)


def main() -> None:
    """Train, report, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sharded", action="store_true", help="shard parameters (FSDP2) instead of copying them (DDP)")
    parser.add_argument("--steps", type=int, default=600, help="optimizer steps (default: %(default)s)")
    parser.add_argument(
        "--batch", type=int, default=24, help="stretches a step, of all processes (default: %(default)s)"
    )
    parser.add_argument("--target", type=float, default=0.5, help="share of the MACs to remove (default: %(default)s)")
    parser.add_argument("--checkpoint", type=Path, help="folder that the run is saved to and resumed from")
    parser.add_argument("--stop", type=int, help="save after this step and end, to go on another time")
    parser.add_argument("--output", type=Path, default=Path("small_lm.onnx"))
    parser.add_argument("--smoke", action="store_true", help="a few steps, to see that everything works")
    options = parser.parse_args()
    if options.smoke:
        options.steps, options.batch = 24, 8
    if options.stop and not options.checkpoint:
        parser.error("--stop needs --checkpoint, the folder to save the run to")

    cuda = torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0))) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if cuda else "gloo")
    rank, world = dist.get_rank(), dist.get_world_size()

    torch.manual_seed(0)
    module = LanguageModel(len(ALPHABET)).to(device)
    text = encoded(sentences(200 if options.smoke else 4000, seed=0))
    # The groups are found before the model is wrapped; they bind to what it becomes.
    groups = ozgraph.find_groups(module, batch(text, 2, torch.Generator().manual_seed(0))[0].to(device))
    model = wrapped(module, device, options.sharded)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.05)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=options.steps + 1)
    pruner = HESSO(
        optimizer,
        groups.bind(model),
        target=Target(macs=options.target),
        steps=options.steps,
        end=0.5,
        periods=min(5, options.steps // 4),
        include=["*.k_proj.weight", "*.gate_proj.weight"],
        min_kept=0.25,
    )
    run = Run(model, optimizer, scheduler, pruner)
    if options.checkpoint:
        run.load(options.checkpoint)
    with ProgressLine(pruner, options.steps) if rank == 0 else nullcontext() as line:
        while pruner.step < options.steps:
            # Each process draws its own part of the batch.
            draw = torch.Generator().manual_seed(pruner.step * world + rank)
            tokens, following = (part.to(device) for part in batch(text, max(options.batch // world, 1), draw))
            loss = loss_of(model, tokens, following)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            scheduler.step()
            if line is not None:
                line.update(loss.item() if pruner.step % 50 == 0 else None)
            stopping = pruner.step in (options.stop, options.steps)
            if options.checkpoint and (stopping or pruner.step % EVERY == 0):
                run.save(options.checkpoint)
            if stopping:
                break

    if pruner.step < options.steps:
        if rank == 0:
            print(f"stopped after step {pruner.step} of {options.steps}")
    else:
        weights = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
        if rank == 0:
            print(f"{world} processes, {'sharded' if options.sharded else 'copied'}: {pruner}")
            trained = LanguageModel(len(ALPHABET))
            trained.load_state_dict(weights)
            example, held_out = (batch(text, 2, torch.Generator().manual_seed(seed))[0] for seed in (1, 2))
            small_file.write(trained, example, options.output, held_out, batch_varies=False)
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()

"""A run that saves itself every few steps; ``python -m training.killed FOLDER METHOD [STOP]`` from the tests folder.

With STOP it kills itself (SIGKILL) when it has taken that many steps in this process; where a checkpoint is there it
goes on from it. At the end it writes the final weights.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ozgraph.groups import Groups
from ozgraph.runtime import HESSO, HESSOCRIC, Target
from training.loops import net, train

STEPS = 60
EVERY = 7


def pruner_of(method: str, optimizer: torch.optim.Optimizer, groups: Groups) -> Any:
    if method == "hesso":
        return HESSO(optimizer, groups, target=Target(groups=0.5), steps=STEPS, start=10, end=40, periods=3)
    return HESSOCRIC(
        optimizer, groups, target=Target(groups=0.5), steps=STEPS, start=4, cycle_steps=6, cycles=3, leave_steps=8,
        probes=(0.5,),
    )  # fmt: skip


def run(folder: Path, method: str, stop: int | None) -> nn.Module:
    module = net(21)
    optimizer = torch.optim.AdamW(module.parameters(), lr=2e-3, weight_decay=0.05)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=STEPS + 1)
    pruner = pruner_of(method, optimizer, Groups.load(folder / "groups.json").bind(module))
    parts = {"module": module, "optimizer": optimizer, "scheduler": scheduler, "pruner": pruner}
    checkpoint = folder / "checkpoint.pt"
    begin = 0
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        begin = saved.pop("step")
        for name, state in saved.items():
            parts[name].load_state_dict(state)
    for taken, step in enumerate(range(begin, STEPS)):
        if taken == stop:
            os.kill(os.getpid(), signal.SIGKILL)
        train(module, optimizer, [step], pruner)
        scheduler.step()
        if (step + 1) % EVERY == 0:
            # A file is there whole or not at all, whenever the process dies.
            partial = checkpoint.with_suffix(".partial")
            torch.save({"step": step + 1} | {name: part.state_dict() for name, part in parts.items()}, partial)
            partial.replace(checkpoint)
    assert pruner.finished
    return module


if __name__ == "__main__":
    where, which, *killed_at = sys.argv[1:]
    trained = run(Path(where), which, int(killed_at[0]) if killed_at else None)
    torch.save(trained.state_dict(), Path(where) / "final.pt")

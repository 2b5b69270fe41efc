"""What a cut in the middle of training saves: time of a step after it, and of the whole run, beside dense training.

    python benchmarks/one_cycle.py [step] [training] --device cpu [--net vgg16_bn] [--batch 128] [--round-to 8]
    python benchmarks/one_cycle.py --device cuda

1. *Step.* A network is cut to half of its MACs, and steps of training (forward, backward, SGD with momentum) of the
   dense and of the small one take turns on batches of ``--batch``. The median ratio of neighbouring steps may be at
   most 1.15 times the share of MACs kept.
2. *Training.* The same steps with and without OneCycle, whose groups are final at a fifth of the run, decay, and are
   cut at a quarter of it. The run with OneCycle may take at most 0.75 of the dense one. That counts everything in the
   loop: looks, the decay, and the cut with its verification. What comes before the loop (finding groups, rehearsing the
   cut) is given apart.

On the processor times are those that the process spent computing, so that other programs weigh less; on CUDA they are
read from the clock. Images are made up: they do not change what a step costs. The status is 1 where a limit is passed.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch
from hesso_step import processor
from torch import Tensor, nn

import ozgraph
from ozgraph.runtime import OneCycle, Target

sys.path.append(str(Path(__file__).parents[1] / "examples"))
from cifar_nets import NETS
from recorded_step import RecordedStep, cross_entropy

STEP_LIMIT, RUN_LIMIT = 1.15, 0.75
REMOVED = 0.5


def clock(device: torch.device) -> float:
    """Seconds until now, once the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


class Training:
    """One network's steps: forward, backward and the optimizer; on CUDA the first two from a graph."""

    def __init__(self, module: nn.Module, device: torch.device) -> None:
        self.module = module
        self.optimizer = torch.optim.SGD(
            module.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4, fused=device.type == "cuda"
        )
        self.recorded = RecordedStep() if device.type == "cuda" else None

    def step(self, x: Tensor, labels: Tensor) -> None:
        if self.recorded is not None:
            self.recorded(self.module, x, labels)
        else:
            loss = cross_entropy(self.module, x, labels)
            self.optimizer.zero_grad()
            loss.backward()
        self.optimizer.step()

    def follow(self, pruner: OneCycle) -> None:
        """Let the recording follow a cut."""
        if self.recorded is not None:
            pruner.follow(self.recorded.forget)


def batch(size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    x = torch.randn(size, 3, 32, 32, device=device).contiguous(memory_format=torch.channels_last)
    return x, torch.randint(10, (size,), device=device)


def made(net: str, device: torch.device) -> nn.Module:
    torch.manual_seed(0)
    return NETS[net]().to(device, memory_format=torch.channels_last).train()


def steps_after_a_cut(options: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """Time of a step of the small network over one of the dense one, measured in turns."""
    dense = made(options.net, device)
    small = copy.deepcopy(dense)
    x, labels = batch(options.batch, device)
    ours, theirs = Training(small, device), Training(dense, device)
    pruner = OneCycle(
        ours.optimizer, ozgraph.find_groups(small, x[:1]), target=Target(macs=REMOVED), steps=100, stop="latest",
        latest=0, finish="cut", round_to=options.round_to, compactor=ozgraph.Compactor(small, x[:1]),
    )  # fmt: skip
    ours.follow(pruner)
    for training in (ours, theirs):  # the first small step is followed by the cut
        for _ in range(2):
            training.step(x, labels)
    times: dict[str, list[float]] = {"dense": [], "small": []}
    for _ in range(options.repeats):
        for name, training in (("dense", theirs), ("small", ours)):
            begun = clock(device)
            training.step(x, labels)
            times[name].append(clock(device) - begun)
    ratio = statistics.median(a / b for a, b in zip(times["small"], times["dense"], strict=True))
    kept = pruner.metrics()["macs_share"]
    return {
        "part": "step",
        "net": options.net,
        "batch": options.batch,
        "dense_s": round(statistics.median(times["dense"]), 4),
        "small_s": round(statistics.median(times["small"]), 4),
        "ratio": round(ratio, 4),
        "macs_kept": round(kept, 4),
        "over_macs_kept": round(ratio / kept, 3),
        "limit": STEP_LIMIT,
    }


def whole_runs(options: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """Time of a run with a cut in its first third over that of a dense one."""
    x, labels = batch(options.training_batch, device)
    dense = Training(made(options.net, device), device)
    dense.step(x, labels)
    whole = 0.0
    for _ in range(options.steps):
        begun = clock(device)
        dense.step(x, labels)
        whole += clock(device) - begun

    module = made(options.net, device)
    training = Training(module, device)
    training.step(x, labels)
    begun = clock(device)
    pruner = OneCycle(
        training.optimizer, ozgraph.find_groups(module, x[:1]), target=Target(macs=REMOVED), steps=options.steps,
        every=0.02, latest=0.2, stop="latest", finish_steps=0.05, round_to=options.round_to,
        compactor=ozgraph.Compactor(module, x[:1]),
    )  # fmt: skip
    training.follow(pruner)
    before = clock(device) - begun
    each = []
    for _ in range(options.steps):
        begun = clock(device)
        training.step(x, labels)
        each.append(clock(device) - begun)
    assert pruner.compaction is not None
    cut = pruner.compaction.cuts[0]
    mine = sum(each)
    return {
        "part": "training",
        "net": options.net,
        "batch": options.training_batch,
        "steps": options.steps,
        "cut_at": cut.step,
        "cut_error": cut.error,
        "cut_s": round(each[cut.step - 1], 2),
        "before_s": round(before, 2),
        "dense_s": round(whole, 2),
        "one_cycle_s": round(mine, 2),
        "ratio": round(mine / whole, 4),
        "macs_kept": round(pruner.metrics()["macs_share"], 4),
        "limit": RUN_LIMIT,
    }


def main() -> int:
    """Print both parts as lines and as JSON; 1 where a limit is passed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("parts", nargs="*", default=["step", "training"], help="step, training (default: both)")
    parser.add_argument("--net", choices=tuple(NETS), default="vgg16_bn")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--batch", type=int, default=128, help="of the timed steps (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="timed steps of each kind (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=300, help="of the timed runs (default: %(default)s)")
    parser.add_argument("--training-batch", type=int, default=128, help="of the timed runs (default: %(default)s)")
    parser.add_argument("--round-to", type=int, default=1, help="kept slots are a multiple (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="on the processor (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print one JSON object a line only")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    torch.backends.cudnn.benchmark = device.type == "cuda"
    if not options.json:
        print(
            f"{processor(device)}, torch {torch.__version__}, {options.device}, {options.threads} thread(s)", flush=True
        )
    failed = False
    parts = {"step": (steps_after_a_cut, "over_macs_kept"), "training": (whole_runs, "ratio")}
    for name in options.parts:
        part, value = parts[name]
        found = part(options, device)
        passed = found[value] <= found["limit"]
        failed |= not passed
        if not options.json:
            said = f"{found['ratio']:.3f} of dense training"
            if found["part"] == "step":
                said += f", {found['over_macs_kept']:.2f} times the MACs kept ({found['macs_kept']:.3f})"
            else:
                said += f" for {found['steps']} steps with a cut after {found['cut_at']}, which took {found['cut_s']} s"
            print(f"{'ok  ' if passed else 'FAIL'} {found['part']}: {said}; limit {found['limit']}", flush=True)
        print(json.dumps(found), flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())

"""What HESSO adds to the optimizer's step and to the whole training step, phase by phase.

    python benchmarks/hesso_step.py --device cpu [--small] [--repeats 9] [--json]
    python benchmarks/hesso_step.py --device cuda

For ResNet-18 and VGG16-BN (batch 128, 32x32) and a transformer of 100M parameters (4 x 256 tokens), under SGD with
momentum and AdamW (fused where the device has it): the bare optimizer's step, and the same with HESSO attached, before
it starts, while it selects, while groups decay (half of them in the last period) and while they are held at zero (half
of all). Bare and pruned steps take turns on the same weights, gradients and optimizer, so that whatever else the
machine does meets both; figures are medians. A whole step is forward, backward and the optimizer's step: the first two
(``rest``) are the same with and without HESSO and are timed three times for each network.

On CUDA the profiler counts copies from the device to the host in a step of every phase; outside selection there must
be none, or the script fails. ``--small`` measures the same on small networks.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

import ozgraph
from ozgraph.groups import Groups
from ozgraph.runtime import HESSO, Target

sys.path.append(str(Path(__file__).parents[1] / "examples"))
from cifar_nets import NETS

PHASES = ("before", "selecting", "decaying", "holding")
LIMITS = {"before": 1.05, "selecting": 2.0, "decaying": 1.05, "holding": 1.05}
"""On the processor, of the whole step."""
PERIOD = 1000


class Block(nn.Module):
    """Pre-norm causal attention and MLP."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        q, k, v = (
            part.view(batch, length, self.heads, -1).transpose(1, 2) for part in self.qkv(self.ln_1(x)).chunk(3, -1)
        )
        y = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).reshape(batch, length, width))
        return x + self.down(nn.functional.gelu(self.up(self.ln_2(x))))


class Transformer(nn.Module):
    """A decoder: tokens in, logits out."""

    def __init__(self, vocabulary: int, width: int, heads: int, layers: int) -> None:
        super().__init__()
        self.table = nn.Embedding(vocabulary, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.table(tokens)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


class Task(NamedTuple):
    """A network and its batch; ``example`` is a small one to find the groups with."""

    module: nn.Module
    inputs: Tensor
    labels: Tensor
    example: Tensor


def images(name: str, small: bool, device: torch.device) -> Task:
    batch = 8 if small else 128
    module = NETS[name]().to(device)
    x = torch.randn(batch, 3, 32, 32, device=device)
    return Task(module, x, torch.randint(10, (batch,), device=device), x[:2])


def text(small: bool, device: torch.device) -> Task:
    # 12 layers of 768 and two tables of 768 x 10,000: 100.4M parameters.
    vocabulary, width, heads, layers = (256, 64, 4, 2) if small else (10_000, 768, 12, 12)
    module = Transformer(vocabulary, width, heads, layers).to(device)
    x = torch.randint(vocabulary, (4, 32 if small else 256), device=device)
    return Task(module, x, x.roll(-1, 1), x[:2, :16])


TASKS: dict[str, Callable[[bool, torch.device], Task]] = {
    "resnet18": lambda small, device: images("resnet18", small, device),
    "vgg16_bn": lambda small, device: images("vgg16_bn", small, device),
    "transformer": text,
}
OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=1e-4, momentum=0.9, weight_decay=1e-4, fused=True),
    "adamw": lambda p: torch.optim.AdamW(p, lr=1e-5, fused=True),
}


def timed(work: Callable[[], object], device: torch.device) -> float:
    """Milliseconds that some work takes until the device is done."""
    wait(device)
    start = time.perf_counter()
    work()
    wait(device)
    return 1e3 * (time.perf_counter() - start)


def wait(device: torch.device) -> None:
    """Until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def backward(task: Task) -> None:
    """Forward and backward, which leave gradients."""
    kind = task.inputs.device.type
    task.module.zero_grad(set_to_none=False)
    with torch.autocast(kind, torch.bfloat16, enabled=kind == "cuda"):
        out = task.module(task.inputs)
        loss = nn.functional.cross_entropy(out.flatten(0, -2).float(), task.labels.flatten())
    loss.backward()


class Case:
    """One network with its gradients under one optimizer, and a pruner that comes and goes."""

    def __init__(self, task: Task, groups: Groups, make: Callable[[Any], torch.optim.Optimizer]) -> None:
        self.groups = groups
        self.device = task.inputs.device
        self.optimizer = make(task.module.parameters())
        self.optimizer.step()  # which makes the optimizer's state

    def attached(self, phase: str) -> HESSO:
        """A pruner whose next step is one of ``phase``; half of the groups are its target."""
        pruner = HESSO(
            self.optimizer, self.groups, target=Target(groups=0.5), steps=4 * PERIOD, start=PERIOD, end=3 * PERIOD,
            periods=2,
        )  # fmt: skip
        scores = torch.rand(pruner.layout.total, dtype=torch.float64).numpy()
        half = pruner.selection.choose(scores, pruner.gone, 0.25 * len(pruner.gone))
        more = pruner.selection.choose(scores, half, 0.5 * len(pruner.gone))
        if phase == "before":
            pruner.step = 1
        elif phase == "selecting":
            pruner.step = PERIOD
        elif phase == "decaying":
            pruner.step = 2 * PERIOD + 1
            pruner.set_gone(half)
            pruner.set_decaying(more)
        else:
            pruner.step = 3 * PERIOD + 1
            pruner.set_gone(half | more)
        return pruner

    def row(self, phase: str, rest: float, repeats: int) -> dict[str, float]:
        """Median milliseconds of bare and pruned steps, and what both come to after ``rest`` of the whole step."""
        pruner = self.attached(phase)
        at = pruner.step
        if phase != "selecting":
            self.optimizer.step()  # what is set up once
        bare, pruned, more = [], [], []
        for _ in range(repeats):
            pruner.remove()
            bare.append(timed(self.optimizer.step, self.device))
            pruner.attach()
            if phase == "selecting":
                pruner.step = at
                pruner.set_decaying(pruner.gone)
            pruned.append(timed(self.optimizer.step, self.device))
            more.append(pruned[-1] - bare[-1])
        pruner.remove()
        plain, extra = statistics.median(bare), statistics.median(more)
        return {
            "rest_ms": round(rest, 3),
            "bare_ms": round(plain, 3),
            "pruned_ms": round(statistics.median(pruned), 3),
            "step": round((plain + extra) / plain, 3),
            "whole": round((rest + plain + extra) / (rest + plain), 4),
        }

    def copies(self, phase: str) -> int:
        """Copies from the device to the host in a step of a phase, seen by the profiler."""
        pruner = self.attached(phase)
        if phase != "selecting":
            self.optimizer.step()
        kinds = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
        with torch.profiler.profile(activities=kinds) as profile:
            self.optimizer.step()
            wait(self.device)
        pruner.remove()
        return sum("Memcpy DtoH" in event.name for event in profile.events())


def processor(device: torch.device) -> str:
    """The device's name."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def main() -> int:
    """Print a table and JSON lines; 1 where a limit is passed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("models", nargs="*", default=list(TASKS), help="of resnet18, vgg16_bn, transformer")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--optimizer", choices=tuple(OPTIMIZERS), action="append", help="default: both")
    parser.add_argument(
        "--repeats", type=int, default=9, help="steps of each kind in each phase (default: %(default)s)"
    )
    parser.add_argument("--threads", type=int, default=1, help="on the processor (default: %(default)s)")
    parser.add_argument("--small", action="store_true", help="small batches and a small transformer")
    parser.add_argument("--json", action="store_true", help="print one JSON object a line only")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    device = torch.device(options.device)
    if not options.json:
        print(f"{processor(device)}, torch {torch.__version__}, {options.device}, {options.threads} thread(s)")
        print("milliseconds; step and whole: with HESSO over without\n")
        titles = ("rest", "bare", "pruned", "step", "whole")
        print(f"{'model':<12} {'optimizer':<9} {'phase':<10}", *(f"{title:>9}" for title in titles))
    failed = False
    rows = []
    for name in options.models:
        task = TASKS[name](options.small, device)
        groups = ozgraph.find_groups(task.module, (task.example,))
        backward(task)
        rest = statistics.median(timed(lambda: backward(task), device) for _ in range(3))  # noqa: B023
        for kind in options.optimizer or OPTIMIZERS:
            case = Case(task, groups, OPTIMIZERS[kind])
            for phase in PHASES:
                row: dict[str, Any] = {"model": name, "optimizer": kind, "phase": phase}
                row |= case.row(phase, rest, options.repeats)
                if device.type == "cuda":
                    row["device_to_host"] = case.copies(phase)
                    failed |= phase != "selecting" and row["device_to_host"] > 0
                elif not options.small:
                    failed |= row["whole"] > LIMITS[phase]
                rows.append(row)
                if not options.json:
                    print(
                        f"{name:<12} {kind:<9} {phase:<10} {row['rest_ms']:>9.1f} {row['bare_ms']:>9.2f} "
                        f"{row['pruned_ms']:>9.2f} {row['step']:>9.2f} {row['whole']:>9.3f}",
                        flush=True,
                    )
            del case
    print("" if options.json else "\nas JSON:")
    for row in rows:
        print(json.dumps(row))
    if failed:
        print("a limit is passed", file=sys.stderr)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())

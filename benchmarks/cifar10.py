"""Train CIFAR-10 networks, pruned and not, under the same budget, and note what the last epoch gives on the test set.

    python benchmarks/cifar10.py --row resnet18-hesso --seed 0 --data FOLDER --checkpoint FOLDER [--minutes 9]
    python benchmarks/cifar10.py --row resnet20-hesso --seed 0 1 --data FOLDER --pretrained FILE --device cpu
    python benchmarks/cifar10.py --list
    python benchmarks/cifar10.py --report docs/results.md

Rows are declared in ``cifar_rows.py``. A run is saved every few minutes and at the end of epochs into the folder of
checkpoints; the same command goes on from there, and ``--minutes`` ends it in time, with status 3 while rows are left.
With ``--jobs`` several run at a time, each in a process of its own; on a GPU they can share it by NVIDIA's MPS
(``nvidia-cuda-mps-control -d``).
A finished row appends one line to ``benchmarks/results/cifar10.jsonl``; what is in there already is not run again.
Nothing is chosen by looking at test images: they are read once, after the last epoch. ``--report`` writes the page from
the lines. FOLDER holds CIFAR-10 as ``examples/cifar_data.py`` says; ``--pretrained`` names a safetensors file.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from cifar_report import page
from cifar_rows import ROWS, TABLES, Row
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import ozgraph
from ozgraph.runtime import HESSO, HESSO_MIX, HESSOCRIC, Mix, OneCycle, Target

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "examples"))
import cifar_data  # noqa: E402
from cifar_nets import NETS  # noqa: E402
from cifar_training import Batches, Checkpoint, Run, accuracy, train  # noqa: E402

UNFINISHED = 3


def counted(module: nn.Module) -> tuple[int, int]:
    """Parameters, and multiply-accumulates for one image."""
    device = next(module.parameters()).device
    training = module.training
    module.eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(torch.zeros(1, 3, 32, 32, device=device))
    module.train(training)
    return sum(parameter.numel() for parameter in module.parameters()), counter.get_total_flops() // 2


def small(module: nn.Module, example: Tensor, **target: Any) -> nn.Module:
    """A copy without what is zero; with a target, without the groups of smallest norm."""
    captured = ozgraph.capture(module, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    if target:
        return ozgraph.prune(captured, criterion="l2", **target).to_module()
    return ozgraph.eliminate(captured).to_module()


def thin(net: str, macs: float) -> nn.Module:
    """The network, all layers narrower by one factor: the widest with at most so many MACs."""
    low, high = 0.02, 1.0
    for _ in range(12):
        middle = (low + high) / 2
        low, high = (middle, high) if counted(NETS[net](width=middle))[1] <= macs else (low, middle)
    module: nn.Module = NETS[net](width=low)
    return module


class Results:
    """Lines of JSON, one for each finished row and seed; other runs may add theirs at any time."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def lines(self) -> list[dict[str, Any]]:
        """All of them, as of now."""
        return [json.loads(line) for line in self.path.read_text().splitlines()] if self.path.exists() else []

    def find(self, row: str, seed: int) -> dict[str, Any] | None:
        """What a row gave."""
        return next((line for line in self.lines if line["row"] == row and line["seed"] == seed), None)

    def append(self, line: dict[str, Any]) -> None:
        """One write, so that rows which finish at the same time do not mix."""
        with self.path.open("ab", buffering=0) as file:
            file.write((json.dumps(line) + "\n").encode())


def built(row: Row, seed: int, options: argparse.Namespace, results: Results, example: Tensor) -> nn.Module:
    """The network as training begins."""
    whole: nn.Module = NETS[row.net]()
    if row.method == "thin":
        other = results.find(row.same_macs_as, seed) if row.same_macs_as else None
        if other is None and "macs" not in row.removes:
            raise SystemExit(f"{row.name}, seed {seed}: run {row.same_macs_as} first, whose MACs it gets")
        return thin(row.net, other["macs"] if other else (1 - row.removes["macs"]) * counted(whole)[1])
    if row.pretrained and not options.smoke:
        from safetensors.torch import load_file

        if options.pretrained is None:
            raise SystemExit(f"{row.name} starts from trained weights: name their file with --pretrained")
        found = whole.load_state_dict(load_file(options.pretrained), strict=False)
        odd = [*found.unexpected_keys, *(k for k in found.missing_keys if not k.endswith("num_batches_tracked"))]
        if odd:
            raise SystemExit(f"{options.pretrained}: not the weights of {row.net} ({', '.join(odd[:4])})")
    if row.method == "one-shot":
        return small(whole.train(), example, target=Target(**row.removes), round_to=1)
    return whole


def pruner(row: Row, module: nn.Module, optimizer: torch.optim.Optimizer, example: Tensor, steps: int) -> Any:
    """Of the row, attached to the optimizer; None where nothing is pruned in training."""
    sizes = ({0: torch.export.Dim("batch")},)
    groups = ozgraph.find_groups(module, example, dynamic_shapes=sizes)
    compactor = ozgraph.Compactor(module, example, dynamic_shapes=sizes, into="either")
    chosen: dict[str, Any] = {"target": Target(**row.removes), "steps": steps, "compactor": compactor, **row.options}
    if row.method in ("hesso", "cric"):
        mix = {key: chosen.pop(key) for key in ("per", "weights") if key in chosen}
        saliency = replace(HESSO_MIX, **mix)
        if row.method == "cric":
            return HESSOCRIC(optimizer, groups, saliency=saliency, **chosen)
        return HESSO(optimizer, groups, saliency=saliency, cut="end", **chosen)
    if row.method in ("ocspruner", "one-cycle"):
        if "per" in chosen:
            chosen["saliency"] = Mix({"coupled": 1.0}, per=chosen.pop("per"))
        return OneCycle(optimizer, groups, finish="cut" if row.method == "ocspruner" else "decay", **chosen)
    return None


def train_row(row: Row, seed: int, options: argparse.Namespace, data: Any, results: Results, deadline: float) -> bool:
    """Train one row with one seed, or go on with it; whether it is finished."""
    (images, labels), (test_images, test_labels) = data
    device = images.device
    example = cifar_data.normalised(images[:2])
    torch.manual_seed(seed)
    module = built(row, seed, options, results, example.cpu()).to(device, memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(
        module.parameters(), lr=row.rate, momentum=0.9, weight_decay=row.weight_decay, nesterov=True
    )
    batches = Batches(images, labels, row.batch, seed)
    steps = batches.per_epoch * row.epochs
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, row.rate, total_steps=steps, pct_start=0.1)
    run = Run(module, optimizer, scheduler, pruner(row, module, optimizer, example, steps) if row.removes else None)
    path = options.checkpoint / f"{row.name}-seed{seed}.pt" if options.checkpoint else None
    losses: list[float] = []

    def watch(loss: float | None) -> None:
        if loss is not None:
            losses.append(loss)
            if len(losses) % 5 == 0 and options.verbose:
                phase = run.pruner.phase if run.pruner else ""
                print(f"{row.name} seed {seed}: loss {sum(losses[-5:]) / 5:.4f} {phase}", flush=True)

    checkpoint = Checkpoint(path, run, json.loads(json.dumps(row.settings)) | {"seed": seed})
    seconds = train(run, batches, steps, checkpoint, minutes=(deadline - time.monotonic()) / 60, watch=watch)
    if seconds is None:
        return False
    module = run.module
    if run.pruner is not None and not run.pruner.finished:
        raise SystemExit(f"{row.name}, seed {seed}: the target was not reached; see the row's schedule")
    parameters, macs = counted(module)
    all_parameters, all_macs = counted(NETS[row.net]())
    line = {
        "row": row.name,
        "seed": seed,
        "accuracy": round(accuracy(module, test_images, test_labels), 2),
        "parameters": parameters,
        "macs": macs,
        "parameters_whole": all_parameters,
        "macs_whole": all_macs,
        "seconds": round(seconds, 1),
        "steps": steps,
        "settings": row.settings,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else f"{platform.machine()} CPU",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    if isinstance(run.pruner, OneCycle):
        line["final_at"] = run.pruner.stable_at
    results.append(line)
    print(f"{row.name} seed {seed}: {line['accuracy']:.2f} % with {macs / all_macs:.1%} of the MACs", flush=True)
    return True


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--row", nargs="+", choices=tuple(ROWS), metavar="NAME", default=[], help="see --list")
    parser.add_argument("--seed", nargs="+", type=int, default=[0])
    parser.add_argument("--data", type=Path, help="folder with CIFAR-10")
    parser.add_argument("--cache", type=Path, help="file that keeps the decoded images")
    parser.add_argument("--pretrained", type=Path, help="safetensors file to start from")
    parser.add_argument("--checkpoint", type=Path, help="folder that runs are saved to and resumed from")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="save and stop after so long")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time (default: %(default)s)")
    parser.add_argument("--threads", type=int, help="of the processor")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results" / "cifar10.jsonl")
    parser.add_argument("--report", type=Path, metavar="FILE", help="write the page from the results, and run nothing")
    parser.add_argument("--list", action="store_true", help="name the rows")
    parser.add_argument("--smoke", action="store_true", help="two short epochs on made-up images; needs --results")
    parser.add_argument("--verbose", action="store_true", help="say the loss every 250 steps")
    options = parser.parse_args()
    if options.smoke and options.results == parser.get_default("results"):
        parser.error("a dry run does not belong into the results: name another file with --results")
    if options.row and options.data is None and not options.smoke:
        parser.error("--data is needed: a folder with CIFAR-10, or --smoke for a dry run")
    if not (options.row or options.report or options.list):
        parser.error("give --row, --list or --report")
    return options


def side_by_side(options: argparse.Namespace, deadline: float) -> int:
    """Every row and seed in a process of its own, so many at a time in their order; the status of the worst."""

    def run(job: tuple[int, str]) -> int:
        seed, row = job
        minutes = (deadline - time.monotonic()) / 60
        if minutes <= 0:
            return UNFINISHED
        # Of options that are given twice the last counts.
        only = ["--row", row, "--seed", str(seed), "--jobs", "1", "--minutes", str(minutes)]
        return subprocess.run([sys.executable, __file__, *sys.argv[1:], *only], check=False).returncode

    with ThreadPoolExecutor(options.jobs) as pool:
        statuses = list(pool.map(run, [(seed, row) for seed in options.seed for row in options.row]))
    return next((status for status in statuses if status not in (0, UNFINISHED)), max(statuses))


def main() -> None:
    """Run rows in turn, or list them, or write the page."""
    options = arguments()
    deadline = time.monotonic() + 60 * options.minutes
    results = Results(options.results)
    if options.list:
        for table in TABLES:
            print(f"{table.title} ({table.device})")
            for row in table.rows:
                done = [seed for seed in row.seeds if results.find(row.name, seed)]
                print(f"  {row.name:28} seeds {row.seeds}, finished {done}")
        return
    if options.report:
        partial = options.report.with_suffix(".partial")
        partial.write_text(page(results.lines), encoding="utf-8")
        partial.replace(options.report)
        return
    if options.jobs > 1:
        sys.exit(side_by_side(options, deadline))
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.checkpoint:
        options.checkpoint.mkdir(parents=True, exist_ok=True)
    training, test = cifar_data.load(None if options.smoke else options.data, options.cache)
    if options.smoke:
        training, test = tuple(part[:256] for part in training), tuple(part[:100] for part in test)
    device = torch.device(options.device)
    torch.backends.cudnn.benchmark = device.type == "cuda"  # shapes are the same in every step
    data = (tuple(part.to(device) for part in training), tuple(part.to(device) for part in test))
    for seed in options.seed:
        for name in options.row:
            row = ROWS[name].short() if options.smoke else ROWS[name]
            if results.find(name, seed):
                print(f"{name} seed {seed}: measured before, see {options.results}")
            elif not train_row(row, seed, options, data, results, deadline):
                sys.exit(UNFINISHED)


if __name__ == "__main__":
    main()

"""Is a pruned file faster by what it saves? onnxruntime's latency before and after, beside the ratio of MACs.

    python benchmarks/latency.py [--net vgg16_bn] [--threads 1] [--seconds 20] [--profile]

Networks for CIFAR-10 get the targets of the rows of ``cifar10.py``, with kept channels a multiple of 8. Their weights
are random: latency depends on shapes alone. Each is exported, pruned by l2 norm, and both files are timed in turns by
``ozgraph bench`` at batch 1 and 8. ``share`` is the speed-up over the ratio of MACs: 1 where every saved MAC saves its
part of the time. ``--profile`` adds where onnxruntime spends it, operator by operator, with the rate at which each
does its MACs.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

import numpy as np
import onnxruntime
import torch

import ozgraph
from ozgraph import Target

sys.path.append(str(Path(__file__).parents[1] / "examples"))
from cifar_nets import NETS  # noqa: E402

TARGETS = {
    "resnet18": Target(parameters=0.92),
    "vgg16_bn": Target(macs=0.74),
    "resnet56": Target(macs=0.5),
    "resnet20": Target(macs=0.5),
}
BATCHES = (1, 8)


def exported(net: str, path: Path) -> Path:
    """The network with random weights as a file that takes any batch."""
    torch.manual_seed(0)
    module = NETS[net]().eval()
    for part in module.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(part.weight, 0.5, 1.5)
            torch.nn.init.normal_(part.bias, std=0.2)
    torch.onnx.export(
        module,
        (torch.randn(2, 3, 32, 32),),
        path,
        input_names=["image"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        dynamo=True,
        optimize=False,
        verbose=False,
    )
    return path


def profile(path: Path, batch: int, threads: int, runs: int = 30) -> list[tuple[str, str, float]]:
    """(operator, its shapes, mean microseconds a run), slowest first."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.enable_profiling = True
    options.profile_file_prefix = str(path.with_suffix(""))
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    image = np.random.default_rng(0).standard_normal((batch, 3, 32, 32), dtype=np.float32)
    for _ in range(runs):
        session.run(None, {"image": image})
    events = json.loads(Path(session.end_profiling()).read_text())
    spent: dict[tuple[str, str], list[float]] = defaultdict(list)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            said = event["args"]
            shapes = " ".join("x".join(map(str, *shape.values())) for shape in said.get("input_type_shape", []))
            spent[said["op_name"], f"{event['name'].removesuffix('_kernel_time')} {shapes}"].append(event["dur"])
    # A run's time is the median: other work on the machine makes some of them long.
    rows = [(op, shapes, float(np.median(times))) for (op, shapes), times in spent.items()]
    return sorted(rows, key=lambda row: -row[2])


def main() -> None:
    """Export, prune, time, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--net", nargs="+", choices=tuple(TARGETS), default=list(TARGETS))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--seconds", type=float, default=20, help="about how long to time one pair of files")
    parser.add_argument("--round-to", type=int, default=8)
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    print(f"onnxruntime {onnxruntime.__version__}, {platform.machine()}, {options.threads} thread(s)")
    print(f"{'network':10} {'batch':>5} {'MACs':>7} {'before':>9} {'after':>9} {'faster':>7} {'5-95 %':>13} {'share':>6}")
    with tempfile.TemporaryDirectory(prefix="ozgraph-latency-") as name:
        for net in options.net:
            whole, small = exported(net, Path(name) / f"{net}.onnx"), Path(name) / f"{net}.small.onnx"
            report = ozgraph.prune(whole, small, target=TARGETS[net], round_to=options.round_to).report
            ratio = report.macs_before / report.macs_after
            for batch in BATCHES:
                timed = ozgraph.bench(
                    whole,
                    small,
                    shapes={"image": (batch, 3, 32, 32)},
                    threads=options.threads,
                    rounds=options.rounds,
                    seconds=options.seconds,
                )
                spread = f"{timed.ratio_low:.2f}-{timed.ratio_high:.2f}"
                print(
                    f"{net:10} {batch:5} {ratio:6.2f}x {timed.first_ms:6.2f} ms {timed.second_ms:6.2f} ms "
                    f"{timed.ratio:6.2f}x {spread:>13} {timed.ratio / ratio:6.2f}",
                    flush=True,
                )
                if options.profile:
                    for which, path in (("before", whole), ("after", small)):
                        rows = profile(path, batch, options.threads)
                        total = sum(time for _, _, time in rows)
                        print(f"  {which}: {total / 1e3:.2f} ms in operators")
                        for operator, shapes, time in rows[:12]:
                            print(f"    {time / total:5.1%} {time / 1e3:8.3f} ms  {operator} {shapes}")


if __name__ == "__main__":
    main()

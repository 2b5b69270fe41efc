"""Is a pruned file faster by what it saves? onnxruntime's latency before and after, beside the ratio of MACs.

    python benchmarks/latency.py [--net vgg16_bn] [--threads 1] [--seconds 20] [--profile]

Networks for CIFAR-10 get the targets of the rows of ``cifar10.py``, with kept channels a multiple of 8. Their weights
are random: latency depends on shapes alone. Each is exported, pruned by l2 norm, and both files are timed in turns by
``ozgraph bench`` at batch 1 and 8. ``share`` is the speed-up over the ratio of MACs: 1 where every saved MAC saves its
part of the time. ``--profile`` adds the same from the fastest run of every one of onnxruntime's operators, which other
work on the machine hardly touches, the rate at which they do their MACs, and which of them keep more of their time than
of the network's MACs: those are why a file falls short.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnxruntime
import torch

import ozgraph
from ozgraph import Target

sys.path.append(str(Path(__file__).parents[1] / "examples"))
from cifar_nets import NETS

TARGETS = (
    ("resnet18", Target(parameters=0.92)),
    ("resnet18", Target(macs=0.8)),
    ("vgg16_bn", Target(macs=0.74)),
    ("resnet56", Target(macs=0.5)),
    ("resnet20", Target(macs=0.5)),
)
"""Of the rows of ``cifar10.py``; with random weights few MACs go with 92 % of the parameters, so both are here."""
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


class Spent(NamedTuple):
    """One operator's part of a run."""

    microseconds: float
    macs: int

    def __str__(self) -> str:
        """Time, and the rate of its MACs."""
        return f"{self.microseconds / 1e3:8.3f} ms {self.macs / max(self.microseconds, 1e-9) / 1e3:6.1f} GMAC/s"


def profile(path: Path, batch: int, threads: int, runs: int = 40) -> dict[str, Spent]:
    """What each operator of onnxruntime's optimised graph takes in its fastest run, by name."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.enable_profiling = True
    options.profile_file_prefix = str(path.with_suffix(""))
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    image = np.random.default_rng(0).standard_normal((batch, 3, 32, 32), dtype=np.float32)
    for _ in range(runs):
        session.run(None, {"image": image})
    found: dict[str, Spent] = {}
    for event in json.loads(Path(session.end_profiling()).read_text()):
        if event.get("cat") != "Node" or not event["name"].endswith("_kernel_time"):
            continue
        told, name = event["args"], event["name"].removesuffix("_kernel_time").removesuffix("_nchwc")
        inputs, outputs = (
            [next(iter(shape.values())) for shape in told.get(f"{way}_type_shape", [])] for way in ("input", "output")
        )
        macs = 0
        if told["op_name"] in ("Conv", "FusedConv", "Gemm"):
            macs = math.prod(outputs[0]) * math.prod(inputs[1][1:])
        # The fastest run: other work on the machine makes some of them long, and none short.
        if name not in found or event["dur"] < found[name].microseconds:
            found[name] = Spent(event["dur"], macs)
    return found


def show_profile(whole: dict[str, Spent], small: dict[str, Spent], ratio: float) -> None:
    """What operators take, and which keep more of their time than of their MACs, the most first."""
    before, after = (
        Spent(sum(each.microseconds for each in part.values()), sum(each.macs for each in part.values()))
        for part in (whole, small)
    )
    faster = before.microseconds / after.microseconds
    print(f"  fastest runs: before {before}, after {after}, {faster:.2f}x faster, share {faster / ratio:.2f}")
    nothing = Spent(0.0, 0)
    over = {name: each.microseconds - whole.get(name, nothing).microseconds / ratio for name, each in small.items()}
    for name in sorted(over, key=lambda name: -over[name])[:6]:
        was = whole.get(name, nothing)
        print(
            f"    {over[name] / 1e3:+7.3f} ms over its share: {name:20} before {was}, after {small[name]}", flush=True
        )


def main() -> None:
    """Export, prune, time, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    names = sorted({net for net, _ in TARGETS})
    parser.add_argument("--net", nargs="+", choices=names, default=names)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--seconds", type=float, default=20, help="about how long to time one pair of files")
    parser.add_argument("--round-to", type=int, default=8)
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    print(f"onnxruntime {onnxruntime.__version__}, {platform.machine()}, {options.threads} thread(s)")
    print(
        f"{'network':10} {'batch':>5} {'MACs':>7} {'before':>9} {'after':>9} {'faster':>7} {'5-95 %':>13} {'share':>6}"
    )
    with tempfile.TemporaryDirectory(prefix="ozgraph-latency-") as name:
        for net, target in TARGETS:
            if net not in options.net:
                continue
            whole, small = exported(net, Path(name) / f"{net}.onnx"), Path(name) / f"{net}.small.onnx"
            report = ozgraph.prune(whole, small, target=target, round_to=options.round_to).report
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
                    show_profile(*(profile(path, batch, options.threads) for path in (whole, small)), ratio)


if __name__ == "__main__":
    main()

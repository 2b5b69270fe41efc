"""CPU seconds from a model in memory to its groups, beside Torch-Pruning, in one run.

    python benchmarks/analysis.py --exports exports [--repeats 5] [--json] [model ...]

Theirs: the dependency graph of a module, then every group of it, only the output layer ignored. Ours: shape inference,
dims, certificate, and groups with their proofs, of the same module's ONNX export. ``load`` is all of reading a model
that is in memory (a copy, checks, shape inference once more). ``file`` is all of ``ozgraph analyze`` in a process of
its own: interpreter, imports, reading, checking, analysis, report. Every time is CPU time on one thread, the least of
the repeats on either side: whatever else runs only ever adds to it. Needs torch, torchvision, onnxscript and
torch-pruning 1.6.1.

Beside that, what onnxsim's own structured pruning does with the same files and how long it takes, and ``ozgraph
eliminate``; see ``benchmarks/onnxsim_pruning.py``. ``--onnxsim PYTHON`` names an interpreter that has onnxsim where
this one has not.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import onnx_ir as ir
import onnxsim_pruning

from ozgraph.frontends import onnx as frontend
from ozgraph.frontends.shapes import Skeleton
from ozgraph.passes.cost import Cost
from ozgraph.passes.freeze import Freeze
from ozgraph.passes.group import Group
from ozgraph.passes.infer_dims import InferDims
from ozgraph.passes.manager import Pipeline
from ozgraph.passes.normalize import Normalize
from ozgraph.passes.state import State

try:
    import torch

    # torchvision registers fake kernels for compiled operators that builds without them lack; no classifier uses them.
    absent = torch.library.Library("torchvision", "FRAGMENT")
    for schema in (
        "nms(Tensor dets, Tensor scores, float threshold) -> Tensor",
        "qnms(Tensor dets, Tensor scores, float threshold) -> Tensor",
    ):
        with suppress(RuntimeError):  # it is there
            absent.define(schema)
    import torch_pruning
    import torchvision
except ImportError as missing:
    sys.exit(f"benchmarks/analysis.py: {missing}; install the peer with: pip install torchvision torch-pruning==1.6.1")

MODELS = ("resnet18", "resnet50", "densenet121", "mobilenet_v3_large", "regnet_y_400mf", "vit_b_16", "convnext_tiny")
OURS = ("shapes", "infer_dims", "freeze", "group")
PACKAGES = ("torch-pruning", "onnxsim", "torch", "onnx", "onnx-ir", "numpy")
IMAGE = torch.zeros(1, 3, 224, 224)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("models", nargs="*", default=MODELS, help="torchvision classifiers (default: %(default)s)")
    parser.add_argument("--exports", type=Path, required=True, help="folder that keeps the ONNX exports between runs")
    parser.add_argument("--repeats", type=int, default=5, help="how often each is timed (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print one JSON object a line")
    parser.add_argument(
        "--onnxsim",
        metavar="PYTHON",
        default=sys.executable,
        help="an interpreter that has onnxsim (default: this one)",
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_grad_enabled(True)  # their dependency graph is traced through autograd
    rows = []
    if not options.json:
        print("python", *sys.argv)
        print(f"{processor()}, one thread; {', '.join(map(versioned, PACKAGES))}\n", flush=True)
    for name in options.models:
        rows.append(compared(name, options.exports, options.repeats))
        rows[-1]["onnxsim"] = onnxsim_pruning.removals(options.exports / f"{name}.onnx", options.onnxsim)
        print(json.dumps(rows[-1]) if options.json else "\n".join(lines(rows[-1])), flush=True)
    ratios = [row["ratio"] for row in rows]
    whole = [row["ratio_with_loading"] for row in rows]
    summary = {
        "ratio_median": statistics.median(ratios),
        "ratio_min": min(ratios),
        "ratio_with_loading_median": statistics.median(whole),
        "ratio_with_loading_min": min(whole),
    }
    if options.json:
        print(json.dumps(summary))
    else:
        print(f"theirs / ours: median {summary['ratio_median']:.1f}, least {summary['ratio_min']:.1f}")
        print(
            f"theirs / ours with loading: median {summary['ratio_with_loading_median']:.1f}, "
            f"least {summary['ratio_with_loading_min']:.1f}"
        )


def processor() -> str:
    """What the machine calls its processor."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def versioned(package: str) -> str:
    """A package and its version."""
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return f"no {package}"


def compared(name: str, exports: Path, repeats: int) -> dict[str, Any]:
    """All times of one model, in seconds."""
    module = torchvision.models.get_model(name, weights=None).eval()
    path = exported(name, module, exports)
    theirs = least(lambda: peer(module), repeats)
    ours = least(lambda: analysis(path), repeats)
    file = least(lambda: command(path), repeats)
    total, peer_total = sum(ours[stage] for stage in OURS), theirs["build"] + theirs["groups"]
    return {
        "model": name,
        "theirs": theirs,
        "ours": ours,
        "file": file["file"],
        "file_wall": file["wall"],
        "theirs_total": peer_total,
        "ours_total": total,
        "ratio": peer_total / total,
        "ratio_with_loading": peer_total / (ours["load"] + total - ours["shapes"]),
    }


def least(measure: Callable[[], dict[str, float]], repeats: int) -> dict[str, float]:
    """The least of every number, after one run that is not counted."""
    measure()
    runs = [measure() for _ in range(repeats)]
    return {key: min(run[key] for run in runs) for key in runs[0]}


class Clock:
    """CPU seconds of this process, stage by stage."""

    def __init__(self) -> None:
        gc.collect()
        self.stages: dict[str, float] = {}
        self._last = time.process_time()

    def done(self, stage: str) -> None:
        """Charge the time since the last stage to ``stage``."""
        now = time.process_time()
        self.stages[stage], self._last = now - self._last, now


def peer(module: torch.nn.Module) -> dict[str, float]:
    """Torch-Pruning's dependency graph and all of its groups."""
    output = [layer for layer in module.modules() if isinstance(layer, torch.nn.Linear)][-1]
    clock = Clock()
    graph = torch_pruning.DependencyGraph().build_dependency(module, example_inputs=IMAGE)
    clock.done("build")
    for _ in graph.get_all_groups(ignored_layers=[output]):
        pass
    clock.done("groups")
    return clock.stages


def analysis(path: Path) -> dict[str, float]:
    """Our stages. ``load`` holds ``shapes``, which is timed once more by itself."""
    model = ir.load(path)
    clock = Clock()
    graph = frontend.load(model)
    clock.done("load")
    sizes = {value.name: value.shape for value in graph.inputs if value.shape is not None}
    clock.done("setup")
    Skeleton(graph.origin.model).infer(sizes)
    clock.done("shapes")
    state = State(graph)
    for step in (Normalize(), InferDims(), Freeze(), Group(), Cost()):
        Pipeline([step]).run(state)
        clock.done(step.name)
    del clock.stages["setup"]
    return clock.stages


def command(path: Path) -> dict[str, float]:
    """``ozgraph analyze`` on the file: CPU seconds of its process and seconds on the clock."""

    def spent() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    before, started = spent(), time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "ozgraph", "analyze", "--quiet", "--json", str(path)],
        check=True,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    return {"file": spent() - before, "wall": time.perf_counter() - started}


def exported(name: str, module: torch.nn.Module, folder: Path) -> Path:
    """The ONNX export of a module, made unless the folder has it."""
    path = folder / f"{name}.onnx"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        torch.onnx.export(module, (IMAGE,), path, dynamo=True, external_data=False, verbose=False)
    return path


def lines(row: dict[str, Any]) -> Iterator[str]:
    """One model as people read it."""
    spelled = {
        side: "  ".join(f"{stage} {seconds * 1e3:.1f}" for stage, seconds in row[side].items())
        for side in ("theirs", "ours")
    }
    yield f"{row['model']}: {row['ratio']:.1f} times faster ({row['ratio_with_loading']:.1f} with loading), in CPU ms"
    yield f"  theirs  {row['theirs_total'] * 1e3:8.1f} = {spelled['theirs']}"
    yield f"  ours    {row['ours_total'] * 1e3:8.1f} = {spelled['ours']}"
    yield f"  file    {row['file'] * 1e3:8.1f}   on the clock {row['file_wall'] * 1e3:.1f}"
    yield from onnxsim_pruning.lines(row["onnxsim"])


if __name__ == "__main__":
    main()

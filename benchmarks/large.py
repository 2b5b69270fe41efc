"""Memory and time of models with gigabytes of external data, and the speed of the scan for zeros.

    python benchmarks/large.py --folder scratch [--gigabytes 4] [--largest 0.5] [--json]

Writes a decoder of that size (an embedding table of ``--largest`` gigabytes with a projection, then blocks of
attention and a gated product), runs ``ozgraph analyze`` and ``ozgraph prune --target-params 0.5`` on it, and samples
the anonymous memory of the process and its children. What is reported as added is the peak beyond a process that has
imported the same modules and done nothing. Then the weights are scanned for zeros, in the file as it is and in one of
zeros, where nothing is settled early, beside two ways of just reading the same file. Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from ozgraph.blocks import uniform

IMPORTS = {
    "analyze": "import ozgraph.api, ozgraph.cli.analyze, ozgraph.report.terminal, ozgraph.frontends.onnx",
    "prune": "import ozgraph.api, ozgraph.cli.prune, ozgraph.report.terminal, ozgraph.frontends.onnx\n"
    "import ozgraph.backends.onnx, ozgraph.numerics.compare, onnxruntime",
}
VOCABULARY_WIDTH = 512
HEADS = 16
CHUNK = 1 << 22
BUFFER = 1 << 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--folder", type=Path, required=True, help="where the model and the results are written")
    parser.add_argument("--gigabytes", type=float, default=4.0, help="of weights (default: %(default)s)")
    parser.add_argument("--largest", type=float, default=0.5, help="gigabytes of the embedding (default: %(default)s)")
    parser.add_argument("--width", type=int, default=2048, help="of the decoder (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="of the scans; the best counts (default: %(default)s)")
    parser.add_argument("--keep", action="store_true", help="leave the model and its results in the folder")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    if not Path("/proc/self/status").exists():
        sys.exit("benchmarks/large.py: anonymous memory is read from /proc, which this system has not")
    with suppress(PermissionError):  # on a busy machine, samples would come too late; the commands run as ever
        os.setpriority(os.PRIO_PROCESS, 0, -10)
    folder = Path(tempfile.mkdtemp(prefix="large-", dir=options.folder)).resolve()
    try:
        result = measured(folder, options)
    finally:
        if not options.keep:
            shutil.rmtree(folder)
    print(json.dumps(result) if options.json else "\n".join(lines(result)))


def measured(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """All figures; bytes are in megabytes (1e6), times in seconds, speeds in gigabytes a second."""
    path = folder / "large.onnx"
    shapes = write_model(path, options.gigabytes * 1e9, options.largest * 1e9, options.width)
    small = folder / "small.onnx"
    sizes = [4 * int(np.prod(shape)) for shape in shapes]
    result: dict[str, Any] = {"weights_mb": sum(sizes) / 1e6, "largest_mb": max(sizes) / 1e6}
    result["analyze"] = command("analyze", str(path), folder=folder)
    result["prune"] = command("prune", str(path), "-o", str(small), "--target-params", "0.5", folder=folder)
    result["pruned_mb"] = sum(file.stat().st_size for file in folder.glob("small.onnx*")) / 1e6
    result["scan"] = scans(path.with_name("large.bin"), shapes, options.repeats)
    zeros = folder / "zeros.bin"
    with zeros.open("wb") as file:
        file.truncate(sum(sizes))
    result["scan_of_zeros"] = scans(zeros, shapes, options.repeats)
    return result


def write_model(path: Path, total: float, largest: float, width: int) -> list[tuple[int, ...]]:
    """A decoder with ``total`` bytes of weights beside it, the first of them of ``largest``; written in a stream."""
    rows = max(1, round(largest / 4 / VOCABULARY_WIDTH))
    blocks = max(1, round((total - largest) / 4 / (12 * width * width)))
    weights: dict[str, tuple[int, ...]] = {
        "embedding": (rows, VOCABULARY_WIDTH),
        "projection": (VOCABULARY_WIDTH, width),
    }
    nodes = [
        helper.make_node("Gather", ["embedding", "tokens"], ["rows"], "gather"),
        helper.make_node("MatMul", ["rows", "projection"], ["x0"], "project"),
    ]
    for index in range(blocks):
        nodes += block(f"block{index}", f"x{index}", f"x{index + 1}", width, weights)
    tokens = helper.make_tensor_value_info("tokens", TensorProto.INT64, ["batch", "length"])
    result = helper.make_tensor_value_info(f"x{blocks}", TensorProto.FLOAT, ["batch", "length", width])
    heads = onnx.numpy_helper.from_array(np.array([0, 0, HEADS, width // HEADS]), "heads")
    joined = onnx.numpy_helper.from_array(np.array([0, 0, width]), "joined")
    graph = helper.make_graph(nodes, "decoder", [tokens], [result], [heads, joined])
    data = path.with_suffix(".bin")
    offset = 0
    random = np.random.default_rng(0)
    with data.open("wb") as file:
        for name, shape in weights.items():
            tensor = graph.initializer.add(name=name, data_type=TensorProto.FLOAT, dims=shape)
            tensor.data_location = TensorProto.EXTERNAL
            count = int(np.prod(shape))
            for key, value in (("location", data.name), ("offset", offset), ("length", 4 * count)):
                tensor.external_data.add(key=key, value=str(value))
            offset += 4 * count
            # Uniform numbers with the spread that keeps signals about as large as they come.
            scale = np.float32((12 / (shape[0] if name != "embedding" else 1)) ** 0.5)
            for start in range(0, count, CHUNK):
                numbers = random.random(min(CHUNK, count - start), dtype=np.float32)
                file.write((numbers - np.float32(0.5)) * scale)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return list(weights.values())


def block(name: str, x: str, y: str, width: int, weights: dict[str, tuple[int, ...]]) -> Iterator[onnx.NodeProto]:
    """Attention and a feed-forward part, each added to what it read, each normalised."""

    def node(operator: str, inputs: str, output: str, **attributes: Any) -> onnx.NodeProto:
        names = [x if part == "x" else y if part == "y" else part for part in inputs.split()]
        names = [part if part in (x, y, "heads", "joined") else f"{name}.{part}" for part in names]
        output = y if output == "y" else f"{name}.{output}"
        return helper.make_node(operator, names, [output], f"{name}/{output}", **attributes)

    for part in "qkvo":
        weights[f"{name}.w{part}"] = (width, width)
    weights[f"{name}.up"], weights[f"{name}.down"] = (width, 4 * width), (4 * width, width)
    weights[f"{name}.gamma"] = weights[f"{name}.beta"] = (width,)
    yield node("LayerNormalization", "x gamma beta", "normal")
    for part, axes in (("q", [0, 2, 1, 3]), ("k", [0, 2, 3, 1]), ("v", [0, 2, 1, 3])):
        yield node("MatMul", f"normal w{part}", f"{part}0")
        yield node("Reshape", f"{part}0 heads", f"{part}1")
        yield node("Transpose", f"{part}1", f"{part}2", perm=axes)
    yield node("MatMul", "q2 k2", "scores")
    yield node("Softmax", "scores", "shares", axis=-1)
    yield node("MatMul", "shares v2", "mixed")
    yield node("Transpose", "mixed", "turned", perm=[0, 2, 1, 3])
    yield node("Reshape", "turned joined", "flat")
    yield node("MatMul", "flat wo", "attended")
    yield node("Add", "x attended", "middle")
    yield node("LayerNormalization", "middle gamma beta", "normal2")
    yield node("MatMul", "normal2 up", "wide")
    yield node("Relu", "wide", "rectified")
    yield node("MatMul", "rectified down", "fed")
    yield node("Add", "middle fed", "y")


def command(name: str, *arguments: str, folder: Path) -> dict[str, float]:
    """Seconds of an ozgraph command, and the anonymous memory that it adds to its imports at its peak."""
    idle = f"{IMPORTS[name]}\nprint(flush=True)\ninput()"
    with subprocess.Popen(
        [sys.executable, "-c", idle], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=folder
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        imports = anonymous(process.pid)
        process.kill()
    started = time.perf_counter()
    with (folder / "output.txt").open("w+") as output:
        with subprocess.Popen(
            [sys.executable, "-m", "ozgraph", name, "--quiet", *arguments], stdout=output, stderr=output, cwd=folder
        ) as process:
            with suppress(PermissionError):
                os.setpriority(os.PRIO_PROCESS, process.pid, 0)
            peak = 0
            while process.poll() is None:
                peak = max(peak, anonymous(process.pid))
                time.sleep(0.002)
        seconds = time.perf_counter() - started
        if process.returncode:
            output.seek(0)
            sys.exit(f"ozgraph {name} left with {process.returncode}: {output.read()}")
    return {"seconds": seconds, "imports_mb": imports / 1e6, "added_mb": (peak - imports) / 1e6}


def anonymous(process: int) -> int:
    """Anonymous bytes of a process and all that it started; 0 when it is gone."""
    found = 0
    with suppress(OSError):
        for line in Path(f"/proc/{process}/status").read_text().splitlines():
            if line.startswith("RssAnon"):
                found += 1024 * int(line.split()[1])
        for thread in Path(f"/proc/{process}/task").iterdir():
            found += sum(anonymous(int(child)) for child in (thread / "children").read_text().split())
    return found


def scans(data: Path, shapes: list[tuple[int, ...]], repeats: int) -> dict[str, float]:
    """Speeds of the scan along every axis, and of reading and counting: the best of several, of CPU seconds.

    Pages are cached, so that nothing waits for a disk, and what else runs on the machine does not count.
    """
    flat = np.memmap(data, np.float32, "r")
    arrays, start = [], 0
    for shape in shapes:
        stop = start + int(np.prod(shape))
        arrays.append(flat[start:stop].reshape(shape))
        start = stop

    def read() -> None:
        buffer = bytearray(BUFFER)
        with data.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass

    def scan(number: int) -> None:
        for array in arrays:
            uniform(array, min(number, array.ndim - 1))

    def speed(run: Callable[[], object]) -> float:
        seconds = []
        for _ in range(repeats):
            started = time.process_time()
            run()
            seconds.append(time.process_time() - started)
        return flat.nbytes / 1e9 / min(seconds)

    return {
        "read": speed(read),
        "count_nonzero": speed(lambda: np.count_nonzero(flat)),
        "rows": speed(lambda: scan(0)),
        "columns": speed(lambda: scan(1)),
    }


def lines(result: dict[str, Any]) -> Iterator[str]:
    yield f"weights {result['weights_mb']:,.0f} MB, the largest {result['largest_mb']:,.0f} MB"
    for name in ("analyze", "prune"):
        yield f"{name}: {result[name]['seconds']:.1f} s, {result[name]['added_mb']:,.0f} MB of anonymous memory added"
    for name in ("scan", "scan_of_zeros"):
        yield f"{name}: " + ", ".join(f"{way} {speed:.1f} GB/s" for way, speed in result[name].items())


if __name__ == "__main__":
    main()

"""Which widths are fast? One layer in onnxruntime at widths around a multiple of 8, and what each takes.

    python benchmarks/widths.py [--threads 1] [--repeats 1000]

A 3x3 convolution of 14x14 images and a linear layer on 256 rows, as wide in as out. Every width is timed in turns with
all others; figures are the fastest runs, which other work on the machine hardly touches, and the rate at which they do
their multiply-accumulates.
"""

from __future__ import annotations

import argparse
import platform
import time

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

WIDTHS = (40, 44, 47, 48, 49, 52, 55, 56, 57, 60, 63, 64, 65)
KINDS = ("convolution", "linear")


def session(kind: str, width: int, threads: int) -> tuple[onnxruntime.InferenceSession, dict[str, np.ndarray], int]:
    """Three such layers one after another with ReLUs between, an input, and the multiply-accumulates of a run."""
    random = np.random.default_rng(0)
    shape, weight = (
        ((1, width, 14, 14), (width, width, 3, 3)) if kind == "convolution" else ((256, width), (width, width))
    )
    nodes, constants, last = [], [], "x"
    for layer in range(3):
        values = random.standard_normal(weight).astype(np.float32) * 0.05
        constants.append(numpy_helper.from_array(values, f"w{layer}"))
        settings = {"pads": [1, 1, 1, 1]} if kind == "convolution" else {"transB": 1}
        operator = "Conv" if kind == "convolution" else "Gemm"
        nodes.append(helper.make_node(operator, [last, f"w{layer}"], [f"h{layer}"], **settings))
        nodes.append(helper.make_node("Relu", [f"h{layer}"], [f"r{layer}"]))
        last = f"r{layer}"
    told = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("x", last)]
    graph = helper.make_graph(nodes, "widths", told[:1], told[1:], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    made = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    positions = 14 * 14 * 9 if kind == "convolution" else 256
    return made, {"x": random.standard_normal(shape).astype(np.float32)}, 3 * positions * width * width


def main() -> None:
    """Time and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=1000)
    options = parser.parse_args()
    print(f"onnxruntime {onnxruntime.__version__}, {platform.machine()}, {options.threads} thread(s)")
    print(f"{'layer':12} {'width':>5} {'fastest':>10} {'GMAC/s':>7} {'MACs of the widest':>19} {'time of it':>11}")
    for kind in KINDS:
        made = {width: session(kind, width, options.threads) for width in WIDTHS}
        fastest = dict.fromkeys(WIDTHS, float("inf"))
        for _ in range(options.repeats):
            for width, (run, inputs, _) in made.items():
                started = time.perf_counter()
                run.run(None, inputs)
                fastest[width] = min(fastest[width], time.perf_counter() - started)
        widest = max(WIDTHS)
        for width in WIDTHS:
            macs = made[width][2]
            print(
                f"{kind:12} {width:5} {fastest[width] * 1e3:7.3f} ms {macs / fastest[width] / 1e9:7.1f} "
                f"{macs / made[widest][2]:19.1%} {fastest[width] / fastest[widest]:11.1%}"
            )


if __name__ == "__main__":
    main()

"""How the time of an analysis grows with the model: seconds a stage on synthetic graphs, and the fitted exponent.

    python benchmarks/scaling.py [--sizes 100 1000 10000 100000] [--json] [deep | wide | dense ...]

``deep`` is one chain of residual blocks, ``wide`` one concatenation of parallel branches, ``dense`` blocks of layers
that each read a concatenation of everything before them in the block. Times are CPU seconds of one run, collected
garbage aside. An exponent e means that time grows as n^e; it is the slope of a straight line through the logarithms,
over the sizes from a thousand nodes on, where constant costs no longer show.
"""

from __future__ import annotations

import argparse
import gc
import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from ozgraph.api import load
from ozgraph.passes.cost import Cost
from ozgraph.passes.freeze import Freeze
from ozgraph.passes.group import Group
from ozgraph.passes.infer_dims import InferDims
from ozgraph.passes.manager import Pipeline
from ozgraph.passes.normalize import Normalize
from ozgraph.passes.state import State

CHANNELS = 8
LAYERS = 12


class Network:
    """A convolutional network written node by node."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def add(self, operator: str, *inputs: str, **attributes: int) -> str:
        """A node; returns its result."""
        result = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [result], **attributes))
        return result

    def conv(self, source: str, c_in: int, c_out: int) -> str:
        """A pointwise convolution."""
        shape = (c_out, c_in, 1, 1)
        name = f"w{len(self.nodes)}"
        content = np.ones(shape, np.float32).tobytes()
        self.weights.append(helper.make_tensor(name, TensorProto.FLOAT, shape, content, raw=True))
        return self.add("Conv", source, name)

    def model(self, output: str, c_out: int) -> bytes:
        """The network as a file's content."""
        graph = helper.make_graph(
            self.nodes,
            "synthetic",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, [1, c_out, 8, 8])],
            self.weights,
        )
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        content: bytes = made.SerializeToString()
        return content


def deep(count: int) -> bytes:
    """One chain of residual blocks, five nodes each."""
    net = Network()
    stream = net.conv("x", 3, CHANNELS)
    while len(net.nodes) < count - 1:
        hidden = net.add("Relu", net.conv(stream, CHANNELS, CHANNELS // 2))
        stream = net.add("Relu", net.add("Add", stream, net.conv(hidden, CHANNELS // 2, CHANNELS)))
    return net.model(net.conv(stream, CHANNELS, 3), 3)


def wide(count: int) -> bytes:
    """Parallel branches of three nodes, concatenated at once."""
    net = Network()
    stream = net.conv("x", 3, CHANNELS)
    branches = []
    while len(net.nodes) < count - 2:
        branches.append(net.conv(net.add("Relu", net.conv(stream, CHANNELS, 4)), 4, 2))
    return net.model(net.conv(net.add("Concat", *branches, axis=1), 2 * len(branches), 3), 3)


def dense(count: int) -> bytes:
    """Blocks of layers that read everything before them in the block, and a convolution after each block."""
    net = Network()
    stream = net.conv("x", 3, CHANNELS)
    while len(net.nodes) < count - 1:
        seen = [stream]
        for layer in range(LAYERS):
            together = net.add("Concat", *seen, axis=1)
            seen.append(net.add("Relu", net.conv(together, CHANNELS + 4 * layer, 4)))
        stream = net.conv(net.add("Concat", *seen, axis=1), CHANNELS + 4 * LAYERS, CHANNELS)
    return net.model(net.conv(stream, CHANNELS, 3), 3)


KINDS: dict[str, Callable[[int], bytes]] = {"deep": deep, "wide": wide, "dense": dense}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("kinds", nargs="*", default=list(KINDS), metavar="deep | wide | dense")
    parser.add_argument("--sizes", nargs="+", type=int, default=[100, 1000, 10_000, 100_000], help="numbers of nodes")
    parser.add_argument("--json", action="store_true", help="print one JSON object a line")
    options = parser.parse_args()
    stages(deep(100))  # first use imports and registers
    for kind in options.kinds:
        rows = []
        for size in options.sizes:
            rows.append({"kind": kind, **stages(KINDS[kind](size))})
            show(rows[-1], options.json)
        show({"kind": kind, "exponents": exponents(rows)}, options.json)


def stages(content: bytes) -> dict[str, float]:
    """CPU seconds of every stage, and their sum."""
    gc.collect()
    taken: dict[str, float] = {}
    started = last = time.process_time()
    graph = load(content)
    taken["load"] = time.process_time() - last
    state = State(graph)
    for step in (Normalize(), InferDims(), Freeze(), Group(), Cost()):
        last = time.process_time()
        Pipeline([step]).run(state)
        taken[step.name] = time.process_time() - last
    return {"nodes": len(graph.ops), "families": len(state.families), **taken, "total": time.process_time() - started}


def exponents(rows: list[dict[str, Any]]) -> dict[str, float]:
    """The slope of log(seconds) over log(nodes), stage by stage."""
    large = [row for row in rows if row["nodes"] >= 900]
    if len(large) < 2:
        return {}
    nodes = np.log([row["nodes"] for row in large])
    timed = [key for key, number in large[0].items() if isinstance(number, float)]
    return {
        key: round(float(np.polyfit(nodes, np.log([max(row[key], 1e-6) for row in large]), 1)[0]), 2) for key in timed
    }


def show(row: dict[str, Any], as_json: bool) -> None:
    """Print one row, as JSON or for people."""
    if as_json:
        print(json.dumps(row), flush=True)
        return
    if "exponents" in row:
        print(f"{row['kind']:6}  exponents  " + "  ".join(f"{key} {e}" for key, e in row["exponents"].items()))
        return
    timed = "  ".join(f"{key} {number:.3f}" for key, number in row.items() if isinstance(number, float))
    print(f"{row['kind']:6} {row['nodes']:7} nodes  {row['families']:6} families  {timed}", flush=True)


if __name__ == "__main__":
    main()

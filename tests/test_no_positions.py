"""Tensors without elements: the axis of no positions has nothing to remove, and the others go as everywhere."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import ozgraph
from models.halving import NOTHING, HalfOfEveryFamily

RANDOM = np.random.default_rng(0)


def weights(**shapes: tuple[int, ...]) -> list[onnx.TensorProto]:
    return [
        numpy_helper.from_array(RANDOM.normal(size=shape).astype(np.float32), name) for name, shape in shapes.items()
    ]


def file_of(path: Path, nodes: list[onnx.NodeProto], constants: list[onnx.TensorProto]) -> Path:
    x = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [2, 5, 6])
    y = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "none", [x], [y], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


def integers(name: str, *elements: int) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(elements, np.int64), name)


NODES = {
    "slice and join": [
        helper.make_node("Slice", ["hidden", "zero", "zero", "one"], ["none"]),
        helper.make_node("Concat", ["none", "hidden"], ["made"], axis=1),
    ],
    "strided": [
        helper.make_node("Slice", ["hidden", "three", "three", "one", "two"], ["none"]),
        helper.make_node("Concat", ["hidden", "none", "hidden"], ["made"], axis=1),
    ],
    "split": [
        helper.make_node("Split", ["hidden", "parts"], ["left", "none", "right"], axis=1),
        helper.make_node("Relu", ["none"], ["still none"]),
        helper.make_node("Concat", ["right", "still none", "left"], ["made"], axis=1),
    ],
    "of the slots themselves": [
        helper.make_node("Slice", ["hidden", "zero", "zero", "two"], ["none"]),
        helper.make_node("Concat", ["hidden", "none"], ["made"], axis=2),
    ],
}


@pytest.mark.parametrize("name", NODES)
def test_what_a_tensor_without_elements_meets_still_goes(name: str, tmp_path: Path) -> None:
    constants = [
        *weights(first=(6, 8), last=(8, 3)),
        *(integers(word, number) for number, word in enumerate(("zero", "one", "two", "three"))),
        integers("parts", 2, 0, 3),
    ]
    nodes = [
        helper.make_node("MatMul", ["x", "first"], ["product"]),
        helper.make_node("Relu", ["product"], ["hidden"]),
        *NODES[name],
        helper.make_node("MatMul", ["made", "last"], ["y"]),
    ]
    result = ozgraph.prune(
        file_of(tmp_path / "none.onnx", nodes, constants),
        target=NOTHING,
        passes=[HalfOfEveryFamily()],
        output=tmp_path / "pruned.onnx",
    )
    assert not result.report.frozen_by_verification
    assert result.report.removed_slots == 4


def test_an_empty_part_of_a_sequence_does_not_hold_the_heads() -> None:
    torch = pytest.importorskip("torch")

    class Heads(torch.nn.Module):  # type: ignore[misc, name-defined]
        """Attention whose first ``prefix`` positions are not turned, of which there are none here."""

        def __init__(self, prefix: int) -> None:
            super().__init__()
            self.prefix = prefix
            self.qkv, self.out = torch.nn.Linear(12, 36), torch.nn.Linear(12, 12)

        def forward(self, x):  # type: ignore[no-untyped-def]
            queries, keys, values = self.qkv(x).reshape(x.shape[0], -1, 3, 3, 4).permute(2, 0, 3, 1, 4).unbind(0)
            queries, keys = (
                torch.cat([part[:, :, : self.prefix], part[:, :, self.prefix :].tanh()], 2) for part in (queries, keys)
            )
            found = torch.nn.functional.scaled_dot_product_attention(queries, keys, values)
            return self.out(found.transpose(1, 2).reshape(x.shape))

    torch.manual_seed(0)
    families = {}
    for prefix in (0, 1):
        graph = ozgraph.capture(Heads(prefix).eval(), torch.randn(2, 5, 12))
        families[prefix] = {(f.dim, f.size, f.exactness) for f in ozgraph.analyze(graph, rescale=True).report.families}
        result = ozgraph.prune(graph, target=NOTHING, passes=[HalfOfEveryFamily()], rescale=True)
        assert not result.report.frozen_by_verification
        assert result.report.removed_slots > 0
    assert families[0] == families[1] != set()

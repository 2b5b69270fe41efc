"""Weights that are computed from weights with statistics over them prune as weights do, and only those are folded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnxruntime
import pytest
from onnx.reference import ReferenceEvaluator

import ozgraph

STANDARDISED = """
    axes{n} = Constant<value_ints = [1, 2, 3]>()
    mean{n} = ReduceMean<keepdims = 1>(w{n}, axes{n})
    centred{n} = Sub(w{n}, mean{n})
    square{n} = Mul(centred{n}, centred{n})
    spread{n} = ReduceMean<keepdims = 1>(square{n}, axes{n})
    tiny{n} = Constant<value_float = 0.00001>()
    sum{n} = Add(spread{n}, tiny{n})
    root{n} = Sqrt(sum{n})
    weight{n} = Div(centred{n}, root{n})
"""

NORMED = """
    axes{n} = Constant<value_ints = [1, 2, 3]>()
    length{n} = ReduceL2<keepdims = 1>(w{n}, axes{n})
    unit{n} = Div(w{n}, length{n})
    weight{n} = Mul(unit{n}, g{n})
"""
SOFTENED = """
    weight{n} = Softmax<axis = 1>(w{n})
"""


def model(weights: str, shapes: dict[str, tuple[int, ...]], body: str = "") -> onnx.ModelProto:
    """Two convolutions whose weights are made as ``weights`` says, once with n = 1 and once with n = 2."""
    made: onnx.ModelProto = onnx.parser.parse_model(
        '<ir_version: 9, opset_import: ["" : 18]>\n'
        "agraph (float[1, 3, 6, 6] x) => (float[1, 4, 6, 6] y)\n{\n"
        + weights.format(n=1)
        + weights.format(n=2)
        + body
        + "\nhidden = Conv<pads = [1, 1, 1, 1]>(x, weight1)\nbent = Relu(hidden)\ny = Conv(bent, weight2)\n}"
    )
    generator = np.random.default_rng(0)
    for name, shape in shapes.items():
        elements = generator.standard_normal(shape).astype(np.float32)
        made.graph.initializer.append(onnx.numpy_helper.from_array(elements, name))
    return made


SHAPES: dict[str, tuple[int, ...]] = {"w1": (10, 3, 3, 3), "w2": (4, 10, 1, 1)}
GAINS: dict[str, tuple[int, ...]] = {"g1": (10, 1, 1, 1), "g2": (4, 1, 1, 1)}


@pytest.mark.parametrize("weights", [STANDARDISED, SOFTENED], ids=["standardised", "softened"])
def test_convolutions_of_computed_weights_prune(weights: str, tmp_path: Path) -> None:
    source, pruned = tmp_path / "whole.onnx", tmp_path / "pruned.onnx"
    onnx.save(model(weights, SHAPES), source)
    found = ozgraph.analyze(source).report
    assert [(family.dim, family.size) for family in found.families] == [("w1.computed", 10)]
    report = ozgraph.prune(source, pruned, target=ozgraph.Target(parameters=0.5)).report
    assert report.removed_slots == 5
    assert not report.frozen_by_verification
    x = np.random.default_rng(1).standard_normal((1, 3, 6, 6)).astype(np.float32)
    assert onnxruntime.InferenceSession(pruned).run(None, {"x": x})[0].shape == (1, 4, 6, 6)
    kept = {tensor.name: tuple(tensor.dims) for tensor in onnx.load(pruned).graph.initializer}
    assert kept["w1.computed"] == (5, 3, 3, 3)
    assert kept["w2.computed"] == (4, 5, 1, 1)


def test_a_name_that_is_taken_is_not_given_again() -> None:
    made = model(STANDARDISED, SHAPES, "taken = Relu(x)")
    made.graph.node[-4].output[0] = "w1.computed"
    made.graph.output.append(onnx.helper.make_tensor_value_info("w1.computed", onnx.TensorProto.FLOAT, (1, 3, 6, 6)))
    convolutions = [op for op in ozgraph.load(made).ops if op.type == "Conv"]
    assert [op.inputs[1].name for op in convolutions if op.inputs[1] is not None] == ["weight1", "w2.computed"]


def test_nothing_is_computed_before_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    class Counting(ReferenceEvaluator):
        def run(self, *arguments: Any) -> Any:
            asked.append(1)
            return super().run(*arguments)

    monkeypatch.setattr("onnx.reference.ReferenceEvaluator", Counting)
    graph = ozgraph.load(model(STANDARDISED, {"w1": (40, 3, 3, 3), "w2": (4, 40, 1, 1)}))
    assert not asked
    weight = graph.values["w2.computed"].constant
    assert weight is not None
    elements = weight.numpy()
    assert asked == [1]
    assert elements.shape == (4, 40, 1, 1)
    assert np.allclose(elements.mean((1, 2, 3)), 0, atol=1e-6)
    assert np.allclose(elements.std((1, 2, 3)), 1, atol=1e-3)


@pytest.mark.parametrize("operator", ["Mul", "Add"])
def test_weights_without_statistics_stay_computed(operator: str) -> None:
    weights = f"weight{{n}} = {operator}(w{{n}}, g{{n}})\n"
    graph = ozgraph.load(model(weights, SHAPES | GAINS))
    assert sum(op.type == operator for op in graph.ops) == 2


def test_weight_norms_stay_computed_for_a_sum_of_squares_leaves_zeros_out() -> None:
    graph = ozgraph.load(model(NORMED, SHAPES | GAINS))
    assert sum(op.type == "ReduceL2" for op in graph.ops) == 2


def test_chance_is_not_frozen_into_a_weight() -> None:
    weights = STANDARDISED.replace("centred{n} = Sub(w{n}, mean{n})", "noise{n} = RandomNormalLike(w{n})\n"
                                   "    noisy{n} = Add(w{n}, noise{n})\n"
                                   "    centred{n} = Sub(noisy{n}, mean{n})")  # fmt: skip
    graph = ozgraph.load(model(weights, SHAPES))
    assert sum(op.type == "RandomNormalLike" for op in graph.ops) == 2
    assert sum(op.type == "Div" for op in graph.ops) == 2


def test_a_weight_that_would_be_larger_than_what_makes_it_stays_computed() -> None:
    outer = """
        axes{n} = Constant<value_ints = [1, 2, 3]>()
        mean{n} = ReduceMean<keepdims = 1>(w{n}, axes{n})
        weight{n} = Mul(mean{n}, row{n})
    """
    shapes = {"w1": (10, 1, 1, 1), "row1": (1, 3, 3, 3), "w2": (4, 1, 1, 1), "row2": (1, 10, 1, 1)}
    graph = ozgraph.load(model(outer, shapes))
    assert sum(op.type == "ReduceMean" for op in graph.ops) == 2


def test_a_computed_weight_that_the_model_returns_stays_computed() -> None:
    made = model(STANDARDISED, SHAPES)
    made.graph.output.append(onnx.helper.make_tensor_value_info("weight1", onnx.TensorProto.FLOAT, (10, 3, 3, 3)))
    graph = ozgraph.load(made)
    assert [value.name for value in graph.outputs] == ["y", "weight1"]
    assert sum(op.type == "Div" for op in graph.ops) == 1


LATENTS = """<ir_version: 9, opset_import: ["" : 18]>
agraph (float[2, 5, 6] x) => (float[2, 5, 3] y)
{
    normed = LayerNormalization<axis = -1>(latents, gain)
    query = MatMul(normed, wq)
    keys = MatMul(x, wk)
    turned = Transpose<perm = [1, 0]>(query)
    y = MatMul(keys, turned)
}"""


def test_what_stands_for_data_is_not_taken_for_a_weight() -> None:
    """Learned queries go through layers of their own, which prune as layers do."""
    made = onnx.parser.parse_model(LATENTS)
    generator = np.random.default_rng(0)
    for name, shape in {"latents": (3, 6), "gain": (6,), "wq": (6, 8), "wk": (6, 8)}.items():
        made.graph.initializer.append(
            onnx.numpy_helper.from_array(generator.standard_normal(shape).astype(np.float32), name)
        )
    graph = ozgraph.load(made)
    assert [op.type for op in graph.ops].count("LayerNormalization") == 1
    assert [op.type for op in graph.ops].count("MatMul") == 3

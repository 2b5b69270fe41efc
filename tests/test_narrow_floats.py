"""Weights of bfloat16 and of eight-bit floats: found behind a Cast or a DequantizeLinear, scored, sliced, verified."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import ozgraph
from ozgraph.errors import ModelError
from ozgraph.passes.saliency import l1, l2

WIDTH, HIDDEN = 12, 8
SCALES = {"up": 0.25, "bias": 1.0, "down": 2.0}
KINDS = [
    "bfloat16",
    "bfloat16, all of it",
    "float8_e4m3fn",
    "float8_e5m2",
    "float8_e4m3fn, scaled",
    "float8_e5m2, scaled",
]


def arrays(kind: str) -> dict[str, np.ndarray[Any, Any]]:
    """x -> up -> bias -> Relu -> down; hidden unit 3 makes zeros."""
    random = np.random.default_rng(4)
    shapes = {"up": (WIDTH, HIDDEN), "bias": (HIDDEN,), "down": (HIDDEN, WIDTH)}
    made = {name: random.standard_normal(shape) for name, shape in shapes.items()}
    made["up"][:, 3] = made["bias"][3] = 0
    dtype = np.dtype(getattr(ml_dtypes, kind.partition(",")[0]))
    return {name: array.astype(dtype) for name, array in made.items()}


def model(kind: str) -> onnx.ModelProto:
    stored = arrays(kind)
    weights = [numpy_helper.from_array(array, name) for name, array in stored.items()]
    nodes: list[onnx.NodeProto] = []
    whole = kind.endswith("all of it")
    for name in stored if not whole else ():
        if kind.endswith("scaled"):
            weights.append(numpy_helper.from_array(np.float32(SCALES[name]), f"{name}_scale"))
            nodes.append(helper.make_node("DequantizeLinear", [name, f"{name}_scale"], [f"{name}_f"], f"wide_{name}"))
        else:
            nodes.append(helper.make_node("Cast", [name], [f"{name}_f"], f"wide_{name}", to=TensorProto.FLOAT))
    up, bias, down = (name if whole else f"{name}_f" for name in stored)
    nodes += [
        helper.make_node("MatMul", ["x", up], ["a"], "first"),
        helper.make_node("Add", ["a", bias], ["b"], "shift"),
        helper.make_node("Relu", ["b"], ["c"], "relu"),
        helper.make_node("MatMul", ["c", down], ["y"], "second"),
    ]
    dtype = TensorProto.BFLOAT16 if whole else TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "narrow",
        [helper.make_tensor_value_info("x", dtype, ["batch", WIDTH])],
        [helper.make_tensor_value_info("y", dtype, ["batch", WIDTH])],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)


def stored(model: onnx.ModelProto) -> dict[str, np.ndarray[Any, Any]]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


@pytest.mark.parametrize("external", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_narrow_weights_are_pruned_verified_and_keep_their_bits(kind: str, external: bool, tmp_path: Path) -> None:
    path, small = tmp_path / "model.onnx", tmp_path / "small.onnx"
    onnx.save(model(kind), path, save_as_external_data=external, size_threshold=0)
    (family,) = ozgraph.analyze(path).state.families
    assert (family.atom.size, family.exactness) == (HIDDEN, "exact")
    assert {member.value.name for member in family.members} == {"up", "bias"}
    result = ozgraph.prune(path, small, target=ozgraph.Target(groups=0.5))
    assert result.report.max_relative_error <= result.report.limit
    before, after = arrays(kind), stored(onnx.load(small))
    gone = result.state.removed.mask(result.state.families[0].atom)
    assert gone.sum() == HIDDEN // 2 and gone[3]
    for name, axis in (("up", 1), ("bias", 0), ("down", 0)):
        kept = np.compress(~gone, before[name], axis=axis)
        assert after[name].dtype == kept.dtype and after[name].tobytes() == kept.tobytes()
    assert small.with_name("small.onnx.data").exists() == external


@pytest.mark.parametrize("kind", KINDS)
def test_zeros_of_narrow_weights_are_found(kind: str, tmp_path: Path) -> None:
    path, small = tmp_path / "model.onnx", tmp_path / "small.onnx"
    onnx.save(model(kind), path)
    ozgraph.eliminate(path, small)
    assert {name: array.shape for name, array in stored(onnx.load(small)).items() if name in SCALES} == {
        "up": (WIDTH, HIDDEN - 1),
        "bias": (HIDDEN - 1,),
        "down": (HIDDEN - 1, WIDTH),
    }
    assert ozgraph.verify(path, small).equal


@pytest.mark.parametrize("kind", KINDS)
def test_saliency_is_that_of_the_numbers_that_are_stored(kind: str) -> None:
    state = ozgraph.analyze(model(kind)).state
    (family,) = state.families
    scales = SCALES if kind.endswith("scaled") else dict.fromkeys(SCALES, 1.0)
    made = {name: array.astype(np.float64) * scales[name] for name, array in arrays(kind).items()}
    np.testing.assert_allclose(l1(state, family), np.abs(made["up"]).sum(axis=0) + np.abs(made["bias"]), rtol=1e-6)
    norms = np.sqrt(np.square(made["up"]).sum(axis=0) + np.square(made["bias"]))
    np.testing.assert_allclose(l2(state, family), norms, rtol=1e-6)


def test_what_onnxruntime_does_not_run_in_bfloat16_is_verified_in_float32(tmp_path: Path) -> None:
    proto = model("bfloat16, all of it")
    with pytest.raises(Exception, match="NOT_IMPLEMENTED"):
        onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    result = ozgraph.prune(proto, tmp_path / "small.onnx", target=ozgraph.Target(groups=0.5))
    assert result.report.max_relative_error <= result.report.limit
    small = onnx.load(tmp_path / "small.onnx")
    assert {tensor.data_type for tensor in small.graph.initializer} == {TensorProto.BFLOAT16}
    assert small.graph.input[0].type.tensor_type.elem_type == TensorProto.BFLOAT16


def test_what_runs_in_no_type_is_analysed_and_pruning_says_why_it_cannot_be_verified(tmp_path: Path) -> None:
    proto = model("bfloat16, all of it")
    proto.graph.node[2].domain = "somewhere.else"
    proto.graph.node[2].op_type = "Unheard"
    proto.opset_import.append(helper.make_opsetid("somewhere.else", 1))
    assert ozgraph.analyze(proto).report
    with pytest.raises(ModelError) as caught:
        ozgraph.prune(proto, tmp_path / "small.onnx", target=ozgraph.Target(groups=0.0))
    message = str(caught.value)
    assert "cannot be verified" in message and "Unheard" in message and "install a build" in message
    assert "\n" not in message
    assert not list(tmp_path.iterdir())

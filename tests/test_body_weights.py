"""Weights inside the bodies of If and Loop stay where they are: outside the protobuf too, and unread by analysis."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import ozgraph
from ozgraph.frontends.onnx import load
from ozgraph.frontends.shapes import Skeleton

WIDTH, HIDDEN = 12, 10


def weight(name: str, *shape: int) -> onnx.TensorProto:
    random = np.random.default_rng(sum(map(ord, name)) + shape[-1])
    return numpy_helper.from_array(random.standard_normal(shape).astype(np.float32), name)


def branch(name: str, width: int, nested: bool) -> onnx.GraphProto:
    """Two products with weights of its own, which every branch calls the same; a Loop around the second if nested."""
    body = [helper.make_node("MatMul", ["h", "inner"], ["deep"]), helper.make_node("Add", ["deep", "shift"], ["wide"])]
    weights = [weight("inner", WIDTH, width), weight("shift", width)]
    if nested:
        loop = helper.make_graph(
            [
                helper.make_node("Identity", ["going"], ["still"]),
                helper.make_node("MatMul", ["state", "square"], ["next"]),
            ],
            "turns",
            [
                helper.make_tensor_value_info("turn", TensorProto.INT64, []),
                helper.make_tensor_value_info("going", TensorProto.BOOL, []),
                helper.make_tensor_value_info("state", TensorProto.FLOAT, None),
            ],
            [
                helper.make_tensor_value_info("still", TensorProto.BOOL, []),
                helper.make_tensor_value_info("next", TensorProto.FLOAT, None),
            ],
            [weight("square", width, width)],
        )
        body.append(helper.make_node("Loop", ["turns", "", "wide"], [f"{name}_turned"], body=loop))
        weights.append(numpy_helper.from_array(np.array(2), "turns"))
    source = f"{name}_turned" if nested else "wide"
    body.append(helper.make_node("MatMul", [source, "outer"], [f"{name}_y"]))
    weights.append(weight("outer", width, WIDTH))
    result = helper.make_tensor_value_info(f"{name}_y", TensorProto.FLOAT, None)
    return helper.make_graph(body, name, [], [result], weights)


@pytest.fixture(params=[False, True], ids=["flat", "nested"])
def model(request: pytest.FixtureRequest) -> onnx.ModelProto:
    nodes = [
        helper.make_node("MatMul", ["x", "up"], ["a"], "first"),
        helper.make_node("Relu", ["a"], ["b"], "relu"),
        helper.make_node("MatMul", ["b", "down"], ["h"], "second"),
        helper.make_node(
            "If",
            ["flag"],
            ["y"],
            "choice",
            then_branch=branch("then", 9, request.param),
            else_branch=branch("else", 11, False),
        ),
    ]
    graph = helper.make_graph(
        nodes,
        "branches",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", WIDTH]),
            helper.make_tensor_value_info("flag", TensorProto.BOOL, []),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", WIDTH])],
        [weight("up", WIDTH, HIDDEN), weight("down", HIDDEN, WIDTH)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("threshold", [0, 256])
def test_their_external_data_is_found_beside_the_model(model: onnx.ModelProto, threshold: int, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=threshold)
    (family,) = ozgraph.analyze(path).state.families
    assert (family.atom.size, family.exactness) == (HIDDEN, "exact")
    folder = tmp_path / "results"
    folder.mkdir()
    result = ozgraph.prune(path, folder / "small.onnx", target=ozgraph.Target(groups=0.5))
    assert result.report.max_relative_error <= result.report.limit
    small = onnx.load(folder / "small.onnx")  # with its external data
    kept = {tensor.name: tuple(tensor.dims) for tensor in small.graph.initializer}
    assert kept == {"up": (WIDTH, HIDDEN // 2), "down": (HIDDEN // 2, WIDTH)}


def test_shape_inference_sees_their_shapes_and_not_their_elements(model: onnx.ModelProto) -> None:
    loaded = load(model)
    skeleton = Skeleton(loaded.origin.model)
    proto = skeleton.bound({})
    held = [
        tensor.name
        for node in proto.graph.node
        for attribute in node.attribute
        for tensor in attribute.g.initializer
        if np.prod(tensor.dims) > 64
    ]
    assert held == []
    assert loaded.values["y"].shape == loaded.values["x"].shape
    then = loaded.origin.model.graph[-1].attributes["then_branch"].as_graph()
    inner = then.initializers["inner"].const_value
    assert inner is not None and inner.numpy().shape == (WIDTH, 9), "the model itself still has them"

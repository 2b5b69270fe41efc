"""Weights inside the bodies of If and Loop: outside the protobuf too, and unread by analysis.

Those of bodies that are followed become the model's own; those of bodies that stay closed stay where they are.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_ir import serde

import ozgraph
from models.halving import NOTHING, HalfOfEveryFamily
from ozgraph.frontends.control_flow import DEEPEST_LOOP
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


@pytest.fixture
def closed() -> onnx.ModelProto:
    """The innermost of more loops than are followed has a weight."""
    square = numpy_helper.from_array(numpy_helper.to_array(weight("square", WIDTH, WIDTH)) / WIDTH, "square")
    body, weights = [helper.make_node("MatMul", ["state0", "square"], ["next0"])], [square]
    for depth in range(DEEPEST_LOOP + 1):
        loop = helper.make_graph(
            [helper.make_node("Identity", [f"going{depth}"], [f"still{depth}"]), *body],
            f"turns{depth}",
            [
                helper.make_tensor_value_info(f"turn{depth}", TensorProto.INT64, []),
                helper.make_tensor_value_info(f"going{depth}", TensorProto.BOOL, []),
                helper.make_tensor_value_info(f"state{depth}", TensorProto.FLOAT, None),
            ],
            [
                helper.make_tensor_value_info(f"still{depth}", TensorProto.BOOL, []),
                helper.make_tensor_value_info(f"next{depth}", TensorProto.FLOAT, None),
            ],
            weights,
        )
        around = f"state{depth + 1}" if depth < DEEPEST_LOOP else "h"
        body, weights = [helper.make_node("Loop", ["turns", "", around], [f"next{depth + 1}"], body=loop)], []
    nodes = [
        helper.make_node("MatMul", ["x", "up"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("MatMul", ["b", "down"], ["h"]),
        *body,
    ]
    graph = helper.make_graph(
        nodes,
        "deep",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", WIDTH])],
        [helper.make_tensor_value_info(f"next{DEEPEST_LOOP + 1}", TensorProto.FLOAT, ["batch", WIDTH])],
        [weight("up", WIDTH, HIDDEN), weight("down", HIDDEN, WIDTH), numpy_helper.from_array(np.array(1), "turns")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("threshold", [0, 256])
def test_their_external_data_is_found_beside_the_model(model: onnx.ModelProto, threshold: int, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=threshold)
    families = ozgraph.analyze(path).state.families
    assert sorted(family.atom.size for family in families) == [9, HIDDEN, 11, WIDTH]
    assert {family.exactness for family in families} == {"exact"}
    folder = tmp_path / "results"
    folder.mkdir()
    result = ozgraph.prune(path, folder / "small.onnx", target=NOTHING, passes=[HalfOfEveryFamily()])
    assert result.report.max_relative_error <= result.report.limit
    small = onnx.load(folder / "small.onnx")  # with its external data
    kept = {tensor.name: tuple(tensor.dims) for tensor in small.graph.initializer}
    assert (kept["up"], kept["down"]) == ((WIDTH, HIDDEN // 2), (HIDDEN // 2, WIDTH // 2))
    assert {kept["inner"], kept["inner_2"]} == {(WIDTH // 2, 5), (WIDTH // 2, 6)}


@pytest.mark.parametrize("threshold", [0, 256])
def test_their_external_data_is_found_where_they_stay_closed(
    closed: onnx.ModelProto, threshold: int, tmp_path: Path
) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(closed, path, save_as_external_data=True, location="weights.bin", size_threshold=threshold)
    (family,) = ozgraph.analyze(path).state.families
    assert (family.atom.size, family.exactness) == (HIDDEN, "exact")
    folder = tmp_path / "results"
    folder.mkdir()
    result = ozgraph.prune(path, folder / "small.onnx", target=ozgraph.Target(groups=0.5))
    assert result.report.max_relative_error <= result.report.limit
    small = onnx.load(folder / "small.onnx")  # with its external data
    kept = {tensor.name: tuple(tensor.dims) for tensor in small.graph.initializer}
    assert (kept["up"], kept["down"]) == ((WIDTH, HIDDEN // 2), (HIDDEN // 2, WIDTH))
    assert "square" not in kept


def held(graph: onnx.GraphProto) -> list[str]:
    """The weights in a graph and its bodies that have more than a few elements."""
    bodies = [attribute.g for node in graph.node for attribute in node.attribute if attribute.HasField("g")]
    own = [tensor.name for tensor in graph.initializer if np.prod(tensor.dims) > 64]
    return own + [name for body in bodies for name in held(body)]


def test_shape_inference_sees_their_shapes_and_not_their_elements(model: onnx.ModelProto) -> None:
    loaded = load(model)
    assert held(Skeleton(loaded.origin.model).bound({}).graph) == []
    assert loaded.values["y"].shape == loaded.values["x"].shape
    inner = loaded.origin.model.graph.initializers["inner"].const_value
    assert inner is not None and inner.numpy().shape == (WIDTH, 9), "the model itself has them"


def test_shape_inference_sees_the_shapes_of_those_that_stay_closed(closed: onnx.ModelProto) -> None:
    model = load(closed).origin.model
    bound = Skeleton(model).bound({}).graph
    assert held(bound) == []
    shapes = [[dim.dim_value for dim in info.type.tensor_type.shape.dim] for info in bound.input]
    assert [WIDTH, WIDTH] in shapes, "declared outside, and read from there"
    assert "square" in held(serde.serialize_model(model).graph), "the model itself still has them"

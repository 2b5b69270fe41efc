"""Sparse initializers and constants: weights like any other, written dense, refused in one line where damaged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import ozgraph
from ozgraph.cli import main
from ozgraph.errors import ModelError
from ozgraph.frontends import sparse
from ozgraph.frontends.onnx import load
from ozgraph.numerics import bench as timing
from ozgraph.numerics.sessions import open_session

WIDTH, HIDDEN = 12, 8
Sparse = onnx.SparseTensorProto
KINDS = ["initializer", "constant", "in a body", "in a function", "half"]
ORDERS = [False, True]


def sparse_tensor(name: str, array: np.ndarray[Any, Any], by_axis: bool) -> Sparse:
    places = np.argwhere(array) if by_axis else np.flatnonzero(array)
    return helper.make_sparse_tensor(
        numpy_helper.from_array(array[array != 0], name),
        numpy_helper.from_array(places.astype(np.int64), f"{name}_places"),
        array.shape,
    )


def weights() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Two weights, half of them zeros; hidden unit 3 is zero in all of the first."""
    random = np.random.default_rng(1)
    up, down = random.standard_normal((WIDTH, HIDDEN)), random.standard_normal((HIDDEN, WIDTH))
    for array in (up, down):
        array[random.random(array.shape) < 0.5] = 0
    up[:, 3] = 0
    return up.astype(np.float32), down.astype(np.float32)


def model(kind: str, by_axis: bool) -> onnx.ModelProto:
    """x -> MatMul up -> Relu -> MatMul down, both weights sparse."""
    up, down = weights()
    dtype = TensorProto.FLOAT
    if kind == "half":
        up, down, dtype = up.astype(np.float16), down.astype(np.float16), TensorProto.FLOAT16
    nodes = [
        helper.make_node("MatMul", ["x", "up"], ["a"], "first"),
        helper.make_node("Relu", ["a"], ["b"], "relu"),
        helper.make_node("MatMul", ["b", "down"], ["y"], "second"),
    ]
    given = [sparse_tensor("up", up, by_axis), sparse_tensor("down", down, by_axis)]
    dense = []
    if kind == "constant":
        nodes = [helper.make_node("Constant", [], [t.values.name], sparse_value=t) for t in given] + nodes
        given = []
    if kind == "in a body":
        bodies = []
        for name, factor in (("then", 1.0), ("else", 2.0)):
            scale = sparse_tensor(f"{name}_scale", np.array([factor, 0, factor, 1] * 3, np.float32), by_axis)
            bodies.append(
                helper.make_graph(
                    [helper.make_node("Mul", ["z", f"{name}_scale"], [f"{name}_y"])],
                    name,
                    [],
                    [helper.make_tensor_value_info(f"{name}_y", dtype, None)],
                    sparse_initializer=[scale],
                )
            )
        nodes[-1].output[0] = "z"
        nodes.append(helper.make_node("If", ["flag"], ["y"], then_branch=bodies[0], else_branch=bodies[1]))
        dense.append(numpy_helper.from_array(np.array(True), "flag"))
    functions = []
    if kind == "in a function":
        scale = sparse_tensor("scale", np.array([1.0, 0, 2, 1] * 3, np.float32), by_axis)
        body = [
            helper.make_node("Constant", [], ["scale"], sparse_value=scale),
            helper.make_node("Mul", ["a", "scale"], ["b"]),
        ]
        opsets = [helper.make_opsetid("", 17)]
        functions.append(helper.make_function("local", "Scaled", ["a"], ["b"], body, opsets))
        nodes[-1].output[0] = "z"
        nodes.append(helper.make_node("Scaled", ["z"], ["y"], domain="local"))
    graph = helper.make_graph(
        nodes,
        "sparse",
        [helper.make_tensor_value_info("x", dtype, ["batch", WIDTH])],
        [helper.make_tensor_value_info("y", dtype, ["batch", WIDTH])],
        dense,
        sparse_initializer=given,
    )
    opsets = [helper.make_opsetid("", 17), *([helper.make_opsetid("local", 1)] if functions else [])]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8, functions=functions)


@pytest.mark.parametrize("by_axis", ORDERS)
@pytest.mark.parametrize("kind", KINDS)
def test_sparse_weights_are_pruned_like_dense_ones(kind: str, by_axis: bool, tmp_path: Path) -> None:
    proto = model(kind, by_axis)
    before = proto.SerializeToString()
    path = tmp_path / "model.onnx"
    path.write_bytes(before)
    (family,) = ozgraph.analyze(proto).state.families
    assert (family.atom.size, family.exactness) == (HIDDEN, "exact")
    result = ozgraph.prune(path, tmp_path / "small.onnx", target=ozgraph.Target(groups=0.5))
    assert result.report.max_relative_error <= result.report.limit
    small = onnx.load(tmp_path / "small.onnx")
    onnx.checker.check_model(small, full_check=True)
    shapes = {tensor.name: tuple(tensor.dims) for tensor in small.graph.initializer}
    assert (shapes["up"], shapes["down"]) == ((WIDTH, HIDDEN // 2), (HIDDEN // 2, WIDTH))
    kept = numpy_helper.to_array(next(tensor for tensor in small.graph.initializer if tensor.name == "up"))
    assert all(any((column == other).all() for other in weights()[0].astype(kept.dtype).T) for column in kept.T)
    assert proto.SerializeToString() == before, "the caller's model is left alone"


@pytest.mark.parametrize("kind", KINDS)
def test_zeros_that_are_not_listed_are_found_and_the_files_are_the_same_function(kind: str, tmp_path: Path) -> None:
    path, small = tmp_path / "model.onnx", tmp_path / "small.onnx"
    path.write_bytes(model(kind, by_axis=False).SerializeToString())
    ozgraph.eliminate(path, small)
    tensor = next(tensor for tensor in onnx.load(small).graph.initializer if tensor.name == "up")
    assert tuple(tensor.dims) == (WIDTH, HIDDEN - 1)
    assert ozgraph.verify(path, small).equal


def damaged(change: str) -> onnx.ModelProto:
    proto = model("initializer", by_axis=change == "axis")
    tensor = proto.graph.sparse_initializer[0]
    match change:
        case "negative" | "outside" | "order":
            places = numpy_helper.to_array(tensor.indices).copy()
            places[-1 if change == "outside" else 0] = {
                "negative": -1,
                "outside": WIDTH * HIDDEN,
                "order": WIDTH * HIDDEN - 1,
            }[change]
            tensor.indices.CopyFrom(numpy_helper.from_array(places, "places"))
        case "axis":
            places = numpy_helper.to_array(tensor.indices).copy()
            places[-1, 1] = HIDDEN
            tensor.indices.CopyFrom(numpy_helper.from_array(places, "places"))
        case "fewer":
            tensor.indices.CopyFrom(numpy_helper.from_array(np.zeros(1, np.int64), "places"))
        case "kind":
            places = numpy_helper.to_array(tensor.indices).astype(np.int32)
            tensor.indices.CopyFrom(numpy_helper.from_array(places, "places"))
        case "cut":
            tensor.values.raw_data = tensor.values.raw_data[:-1]
        case "scalar":
            del tensor.dims[:]
        case "grid":
            tensor.values.dims.append(1)
        case "huge":
            tensor.dims[0] = 1 << 36
        case "absurd":
            tensor.dims[0] = 1 << 62
        case "below zero":
            tensor.dims[0] = -WIDTH
        case "elsewhere":
            tensor.values.ClearField("raw_data")
            tensor.values.data_location = TensorProto.EXTERNAL
            tensor.values.external_data.add(key="location", value="weights.bin")
        case "nameless":
            tensor.values.name = ""
        case "twice":
            proto.graph.sparse_initializer.append(tensor)
        case "attribute":
            proto.graph.node[0].attribute.append(helper.make_attribute("s", sparse_tensor("s", np.eye(2), False)))
    return proto


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("negative", "outside its shape"),
        ("outside", "outside its shape"),
        ("axis", "outside its shape"),
        ("order", "do not rise"),
        ("fewer", "indexes of the shape [1]"),
        ("kind", "indexes"),
        ("cut", "bytes"),
        ("scalar", "0 axes"),
        ("grid", "where a list belongs"),
        ("huge", "over 1 GiB"),
        ("absurd", "2**40"),
        ("below zero", "negative size"),
        ("elsewhere", "another file"),
        ("nameless", "no name"),
        ("twice", "two initializers"),
        ("attribute", "sparse attribute"),
    ],
)
def test_a_damaged_one_is_refused_in_one_line(
    change: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    proto = damaged(change)
    with pytest.raises(ModelError) as caught:
        load(proto)
    assert words in str(caught.value) and ";" in str(caught.value) and "\n" not in str(caught.value)
    path = tmp_path / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(SystemExit) as left:
        main(["analyze", str(path)])
    assert left.value.code == 2
    assert words.split()[-1] in capsys.readouterr().err


def test_analysis_builds_no_dense_tensor_that_it_need_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Sparse) -> None:
        raise AssertionError("read")

    monkeypatch.setattr(sparse, "dense", refuse)
    assert ozgraph.analyze(model("initializer", by_axis=False)).families


def test_onnxruntime_times_a_dense_copy(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(model("initializer", by_axis=True).SerializeToString())
    seen: list[Path] = []

    def opened(given: Path, **options: Any) -> Any:
        seen.append(given)
        assert not sparse.present(onnx.load(given))
        return open_session(given, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timing, "open_session", opened)
        report = ozgraph.bench(path, path, seconds=0.1)
    assert len(seen) == 2 and not any(copy.exists() for copy in seen)
    assert (report.first, report.second) == (str(path), str(path))
    assert report.first_ms > 0

"""Model files in onnxruntime: what is exposed, and errors in one sentence."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import numpy_helper

from ozgraph.errors import ModelError, OzgraphError
from ozgraph.frontends.onnx import load
from ozgraph.numerics import precision
from ozgraph.numerics.compare import compare
from ozgraph.numerics.precision import mapped, to_float32, to_float64
from ozgraph.numerics.sessions import open_session


@pytest.fixture
def model(tmp_path: Path) -> Path:
    parsed = onnx.parser.parse_model(
        '<ir_version: 9, opset_import: ["" : 18]> agraph (float[N,4] x) => (float[N,3] y)'
        " { h = MatMul(x, w)  r = Relu(h)  y = Softmax(r) }"
    )
    weight = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)
    parsed.graph.initializer.append(numpy_helper.from_array(weight, "w"))
    onnx.save(parsed, tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


def test_exposed_tensors_come_after_the_outputs_and_leave_the_file_alone(model: Path) -> None:
    before = model.read_bytes()
    session = open_session(model, expose=["h", "y"])
    assert session.outputs == ("y", "h")
    found = session.run({"x": np.ones((2, 4), np.float32)})
    assert found["h"].shape == (2, 3)
    assert model.read_bytes() == before


def test_feeds_are_cast_to_what_the_model_takes(model: Path) -> None:
    assert open_session(model).run({"x": np.ones((2, 4), np.float16)})["y"].dtype == np.float32


def test_errors_of_onnxruntime_become_one_line(model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "junk.onnx").write_bytes(b"junk")
    with pytest.raises(ModelError, match=r"junk\.onnx"):
        open_session(tmp_path / "junk.onnx")
    with pytest.raises(ModelError, match=r"missing\.onnx"):
        open_session(tmp_path / "missing.onnx")
    with pytest.raises(ModelError, match=r"missing\.onnx"):
        open_session(tmp_path / "missing.onnx", expose=["h"])
    with pytest.raises(ModelError, match="nothing"):
        open_session(model, expose=["nothing"])
    with pytest.raises(OzgraphError, match=r"model\.onnx") as caught:
        open_session(model).run({"x": np.ones((2, 5), np.float32)})
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


def test_threads_and_optimisations_reach_the_session(model: Path) -> None:
    plain = open_session(model, optimise=False, threads=1).native.get_session_options()
    usual = open_session(model).native.get_session_options()
    assert plain.intra_op_num_threads == 1
    assert plain.graph_optimization_level != usual.graph_optimization_level
    assert plain.log_severity_level == 4


def test_a_missing_provider_is_named(model: Path) -> None:
    with pytest.raises(ModelError, match="NoSuchExecutionProvider"):
        open_session(model, providers=["NoSuchExecutionProvider"])


def test_a_missing_onnxruntime_says_how_to_get_one(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ModelError, match="pip install onnxruntime"):
        open_session(model)


def test_large_models_are_mapped_and_small_ones_stay(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert mapped(model, tmp_path / "copies") == model
    monkeypatch.setattr(precision, "_LARGE_FILE", 0)
    monkeypatch.setattr(precision, "_EXTERNAL_BYTES", 0)
    copy = mapped(model, tmp_path / "copies")
    assert copy != model
    assert copy.with_name(f"{copy.name}.data").stat().st_size == 48
    assert compare(model, model, load(model)).equal


def test_twins_compute_the_same_in_another_type(model: Path, tmp_path: Path) -> None:
    feeds = {"x": np.random.default_rng(1).standard_normal((2, 4)).astype(np.float32)}
    expected = open_session(model).run(feeds)["y"]
    double = to_float64(model, tmp_path)
    assert {tensor.data_type for tensor in onnx.load(double).graph.initializer} == {onnx.TensorProto.DOUBLE}
    found = open_session(double).run(feeds)["y"]
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected, atol=1e-6)
    again = open_session(to_float32(double, tmp_path)).run(feeds)["y"]
    np.testing.assert_array_equal(again, expected)


def test_twins_reach_into_subgraphs_and_constants(tmp_path: Path) -> None:
    # Half-precision literals are bit patterns: 1.5 and 2.5, 2 and 3.
    parsed = onnx.parser.parse_model(
        """<ir_version: 9, opset_import: ["" : 18]> agraph (float16[2] x, bool c) => (float16[2] y)
            <int64[2,2] m = {0, 0, 0, 0}, int64[1] axes = {0}> {
            k = Constant<value = float16[2] {15872, 16640}>()
            i = EyeLike<dtype=10>(m)
            r = ReduceSum<keepdims=0>(i, axes)
            j = Mul(r, k)
            h = Mul(x, j)
            y = If (c) <
                then_branch = first () => (float16[2] a)
                    { e = Constant<value = float16[2] {16384, 16896}>()  a = Add(h, e) },
                else_branch = second () => (float16[2] b) { f = Cast<to=1>(h)  g = Neg(f)  b = Cast<to=10>(g) }
            >
        }"""
    )
    onnx.save(parsed, tmp_path / "half.onnx")
    twin = open_session(to_float32(tmp_path / "half.onnx", tmp_path))
    x = np.array([1, 2], np.float32)
    assert twin.run({"x": x, "c": np.array(True)})["y"].tolist() == [3.5, 8.0]
    assert twin.run({"x": x, "c": np.array(False)})["y"].tolist() == [-1.5, -5.0]

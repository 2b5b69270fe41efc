"""Exactness: in float64 on the reference evaluator the pruned model is the zeroed original to 1e-12."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import ozgraph
from models.halving import NOTHING, HalfOfEveryFamily
from models.rows import ROWS
from ozgraph.errors import ModelError
from ozgraph.numerics import compare

NAMES = (
    "residual_add", "concat_dense", "split", "flatten_linear", "grouped_conv", "depthwise_conv", "channel_shuffle",
    "attention_separate", "attention_grouped_query", "rotary_embedding", "lstm", "gru", "rms_swiglu", "layer_norm_mlp",
    "group_norm_op", "channels_last_norm", "dead_constant", "weight_normalised", "dynamic_sequence", "half", "half_mlp",
    "double_mlp",
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_half_of_every_family_and_the_overlapping_ones_too_agree_to_1e_12(name: str, tmp_path: Path) -> None:
    result = ozgraph.prune(
        ROWS[name](),
        tmp_path / "small.onnx",
        target=NOTHING,
        passes=[HalfOfEveryFamily(everything=True)],
        rescale=True,
        exact=True,
    )
    assert result.report.removed_slots > 0
    assert result.report.frozen_by_verification == ()


def test_an_exact_run_says_that_it_was_one_and_keeps_to_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """The exact comparison is run, on every model that is compared, and its errors are those of float64."""
    reports = []
    real = compare.compare

    def remembered(*arguments: object, **options: object) -> object:
        report = real(*arguments, **options)  # type: ignore[arg-type]
        if options.get("exact"):
            reports.append(report)
        return report

    monkeypatch.setattr(compare, "compare", remembered)
    ozgraph.prune(ROWS["concat"](), target=NOTHING, passes=[HalfOfEveryFamily()], exact=True)
    assert reports
    assert all(report.equal and report.max_relative_error <= 1e-12 and report.limit < 1e-11 for report in reports)


def test_a_deviation_that_float32_would_hide_fails_an_exact_run(tmp_path: Path) -> None:
    first, second = tmp_path / "first.onnx", tmp_path / "second.onnx"
    model = ROWS["matmul_no_bias"]()
    onnx.save(model, first)
    tensor = model.graph.initializer[0]
    array = onnx.numpy_helper.to_array(tensor).copy()
    array.flat[0] = np.nextafter(array.flat[0], np.float32(np.inf))
    tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    onnx.save(model, second)
    assert ozgraph.verify(first, second).equal
    report = ozgraph.verify(first, second, exact=True)
    assert not report.equal and report.max_relative_error > 1e-12


@pytest.mark.parametrize(
    ("name", "dtype"), [("half", np.float16), ("half_mlp", np.float16), ("double_mlp", np.float64)]
)
def test_element_types_survive_pruning(name: str, dtype: type, tmp_path: Path) -> None:
    model = ROWS[name]()
    kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    result = ozgraph.prune(model, tmp_path / "small.onnx", target=NOTHING, passes=[HalfOfEveryFamily()])
    small = onnx.load(tmp_path / "small.onnx")
    assert result.report.parameters_after < result.report.parameters_before
    assert {t.data_type for t in small.graph.initializer} == {t.data_type for t in model.graph.initializer}
    assert {info.type.tensor_type.elem_type for info in (*small.graph.input, *small.graph.output)} == {kind}


def test_a_float64_model_is_verified_in_float64(tmp_path: Path) -> None:
    report = ozgraph.prune(ROWS["double_mlp"](), target=NOTHING, passes=[HalfOfEveryFamily()]).report
    assert report.max_relative_error < 1e-12


@pytest.mark.parametrize("name", ["qdq_mlp", "qdq_blocks"])
def test_what_takes_no_float64_says_to_leave_exact_out(name: str, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(ROWS[name](), path)
    with pytest.raises(ModelError) as caught:
        ozgraph.prune(path, tmp_path / "small.onnx", target=NOTHING, passes=[HalfOfEveryFamily()], exact=True)
    message = str(caught.value)
    assert message.startswith(f"{path} cannot be run in float64: ") and message.endswith("; leave --exact out")
    assert "QuantizeLinear" in message or "DequantizeLinear" in message
    assert "\n" not in message and "single" not in message, "one line, and nothing of the copy in float64"
    assert not (tmp_path / "small.onnx").exists()

"""Agreement of two model files: what counts as equal, and what counts as evidence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import numpy_helper

from ozgraph.errors import ModelError, OutOfMemoryError, UsageError, VerificationError
from ozgraph.frontends.onnx import load
from ozgraph.graph import Array
from ozgraph.numerics.compare import compare, verify
from ozgraph.numerics.measure import gap, liveliness, mismatch, spread
from ozgraph.numerics.precision import to_float32, to_float64
from ozgraph.numerics.runners import Engine, Runner, reference_engine
from ozgraph.numerics.sessions import open_session
from ozgraph.results import VerifyReport

Weights = dict[str, Array]
Model = tuple[str, Weights]


def f32(elements: list[float]) -> Array:
    return np.array(elements, np.float32)


def weights(seed: int = 0, **shapes: tuple[int, ...]) -> Weights:
    random = np.random.default_rng(seed)
    return {name: random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def written(path: Path, text: str, initializers: Weights) -> Path:
    model = onnx.parser.parse_model(f'<ir_version: 9, opset_import: ["" : 18, "com.microsoft" : 1]> {text}')
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in initializers.items())
    onnx.save(model, path)
    return path


MLP = "agraph (float[N,8] x) => (float[N,4] y) { h = MatMul(x, w)  r = Relu(h)  y = MatMul(r, v) }"


@pytest.fixture
def agreement(tmp_path: Path) -> Callable[..., VerifyReport]:
    """Compare two models given as text and weights."""

    def run(first: Model, second: Model, sample: tuple[int, ...] | None = None, **options: Any) -> VerifyReport:
        a, b = written(tmp_path / "a.onnx", *first), written(tmp_path / "b.onnx", *second)
        graph = load(a, shapes=None if sample is None else {"x": sample})
        return compare(a, b, graph, **options)

    return run


def test_a_model_agrees_with_itself(agreement: Callable[..., VerifyReport]) -> None:
    model = (MLP, weights(w=(8, 16), v=(16, 4)))
    report = agreement(model, model)
    assert report.equal
    assert report.compared == ("y",)
    assert report.max_relative_error == 0
    assert report.limit >= 1e-5
    assert report.runs == 3


def test_a_removed_dead_slot_agrees(agreement: Callable[..., VerifyReport]) -> None:
    full = weights(w=(8, 16), v=(16, 4))
    full["w"][:, 3] = 0
    small = {"w": np.delete(full["w"], 3, 1), "v": np.delete(full["v"], 3, 0)}
    report = agreement((MLP, full), (MLP, small))
    assert report.equal, report.failure


@pytest.mark.parametrize("name", ["w", "v"])
def test_a_perturbed_weight_is_caught(agreement: Callable[..., VerifyReport], name: str) -> None:
    first, second = weights(w=(8, 16), v=(16, 4)), weights(w=(8, 16), v=(16, 4))
    second[name][2, 2] += 1e-4
    report = agreement((MLP, first), (MLP, second))
    assert not report.equal
    assert report.max_relative_error > report.limit
    assert "'y'" in (report.failure or "")


def test_an_output_offset_does_not_hide_an_error(agreement: Callable[..., VerifyReport]) -> None:
    text = "agraph (float[N,8] x) => (float[N,4] y) { h = MatMul(x, w)  y = Add(h, b) }"
    first = weights(w=(8, 4)) | {"b": np.array([0, 30, -30, 10], np.float32)}
    second = {name: array.copy() for name, array in first.items()}
    second["b"][0] += 1e-3
    assert not agreement((text, first), (text, second)).equal


def test_a_small_part_of_an_output_is_not_measured_by_a_huge_one(agreement: Callable[..., VerifyReport]) -> None:
    text = "agraph (float[N,8] x) => (float[N,85] y) { y = MatMul(x, w) }"
    first = weights(w=(8, 85))
    first["w"][:, :4] *= 1e4
    second = {"w": first["w"].copy()}
    second["w"][1, 60] += 3e-3
    assert not agreement((text, first), (text, second)).equal


def test_a_nan_in_one_model_only_is_caught(agreement: Callable[..., VerifyReport]) -> None:
    text = "agraph (float[N,8] x) => (float[N,8] y, float[N,8] z) { h = Mul(x, w)  y = Sqrt(h)  z = Mul(x, v) }"
    first = weights(w=(8,), v=(8,))
    second = {name: array.copy() for name, array in first.items()}
    second["w"][1] *= -1
    report = agreement((text, first), (text, second))
    assert not report.equal
    assert "NaN" in (report.failure or "")


def test_equal_nan_patterns_agree(agreement: Callable[..., VerifyReport]) -> None:
    model = (
        "agraph (float[N,8] x) => (float[N,8] y) { h = Mul(x, w)  y = Sqrt(h) }",
        {"w": np.full(8, 2, np.float32)},
    )
    report = agreement(model, model)
    assert report.equal, report.failure


def test_all_nan_outputs_are_no_evidence(agreement: Callable[..., VerifyReport]) -> None:
    text = """agraph (float[N,8] x) => (float[N,4] y)
        { h = MatMul(x, w)  n = Abs(h)  m = Neg(n)  s = Sqrt(m)  y = Add(s, b) }"""
    first = weights(w=(8, 4)) | {"b": np.zeros(4, np.float32)}
    report = agreement((text, first), (text, first))
    assert report.equal
    assert report.compared == ("m",)


SATURATED = "agraph (float[N,8] x) => (float[N,4] y) { h = MatMul(x, w)  l = Add(h, b)  y = Softmax(l) }"
SATURATION = {"b": np.array([1e4, 0, 0, 0], np.float32)}


def test_a_saturated_softmax_is_compared_at_its_logits(agreement: Callable[..., VerifyReport]) -> None:
    first, second = weights(w=(8, 4)) | SATURATION, weights(w=(8, 4)) | SATURATION
    second["w"][1, 1] += 1e-3
    report = agreement((SATURATED, first), (SATURATED, second))
    assert not report.equal
    assert "'l'" in (report.failure or "")
    same = agreement((SATURATED, first), (SATURATED, first))
    assert same.equal
    assert same.compared == ("l",)


def test_integer_outputs_are_compared_and_backed_by_a_tensor_upstream(agreement: Callable[..., VerifyReport]) -> None:
    text = "agraph (float[N,8] x) => (int64[N] y) { h = MatMul(x, w)  y = ArgMax<axis=1, keepdims=0>(h) }"
    first, second = weights(w=(8, 16)), weights(w=(8, 16))
    second["w"][0, 0] += 1e-4
    report = agreement((text, first), (text, second))
    assert report.compared == ("h",)
    assert not report.equal
    swapped = {"w": np.roll(first["w"], 1, axis=1)}
    assert not agreement((text, first), (text, swapped)).equal


def test_every_path_to_a_dead_output_gets_a_stand_in(agreement: Callable[..., VerifyReport]) -> None:
    text = """agraph (float[N,8] x) => (float[N,4] y)
        { a = MatMul(x, w)  b = MatMul(x, v)  p = Mul(a, z)  q = Mul(b, z)  s = Add(p, q)  y = Relu(s) }"""
    first = weights(w=(8, 4), v=(8, 4)) | {"z": np.zeros(1, np.float32)}
    second = {name: array.copy() for name, array in first.items()}
    second["v"][0, 0] += 1e-2
    report = agreement((text, first), (text, second))
    assert set(report.compared) == {"a", "b"}
    assert not report.equal
    assert "'b'" in (report.failure or "")


def test_a_stand_in_of_another_shape_is_read_at_its_kept_positions_or_passed_over(
    agreement: Callable[..., VerifyReport],
) -> None:
    text = """agraph (float[N,8] x) => (float[N,4] y)
        { e = MatMul(x, u)  h = MatMul(e, w)  n = Mul(h, z)  y = MatMul(n, v) }"""
    full = weights(u=(8, 8), w=(8, 6), v=(6, 4)) | {"z": np.zeros(1, np.float32)}
    keep = np.array([0, 2, 3, 5])
    small = full | {"w": full["w"][:, keep].copy(), "v": full["v"][keep].copy()}
    chosen = agreement((text, full), (text, small), kept=lambda value: (None, keep) if value.name == "h" else None)
    assert chosen.equal
    assert chosen.compared == ("h",)
    blind = agreement((text, full), (text, small))
    assert blind.equal
    assert blind.compared == ("e",)
    small["w"][0, 0] += 1e-2
    wrong = agreement((text, full), (text, small), kept=lambda value: (None, keep) if value.name == "h" else None)
    assert not wrong.equal


def test_a_stand_in_whose_kept_positions_do_not_vary_is_passed_over(agreement: Callable[..., VerifyReport]) -> None:
    text = """agraph (float[N,8] x) => (float[N,4] y)
        { e = MatMul(x, u)  h = MatMul(e, w)  n = Mul(h, z)  y = MatMul(n, v) }"""
    full = weights(u=(8, 8), w=(8, 6), v=(6, 4)) | {"z": np.zeros(1, np.float32)}
    full["w"][:, :4] = 0
    keep = np.arange(4)
    small = full | {"w": full["w"][:, keep].copy(), "v": full["v"][keep].copy()}
    report = agreement((text, full), (text, small), kept=lambda value: (None, keep) if value.name == "h" else None)
    assert report.equal
    assert report.compared == ("e",)


def test_reading_a_size_is_no_evidence(agreement: Callable[..., VerifyReport]) -> None:
    model = (
        """agraph (float[N,8] x) => (float[N,4] y)
            { h = MatMul(x, w)  s = Shape<start=1>(h)  f = Cast<to=1>(s)  d = Mul(x, zero)  e = MatMul(d, w)
              y = Mul(e, f) }""",
        weights(w=(8, 4)) | {"zero": np.zeros(1, np.float32)},
    )
    with pytest.raises(VerificationError, match="'y'"):
        agreement(model, model)


def test_a_stand_in_is_found_behind_a_subgraph(agreement: Callable[..., VerifyReport]) -> None:
    text = """agraph (float[N,8] x, bool c) => (int64[N] y)
        { h = MatMul(x, w)
          y = If (c) <then_branch = first () => (int64[N] a) { a = ArgMax<axis=1, keepdims=0>(h) },
                      else_branch = second () => (int64[N] b) { b = ArgMin<axis=1, keepdims=0>(h) }> }"""
    first, second = weights(w=(8, 16)), weights(w=(8, 16))
    second["w"][0, 0] += 1e-3
    report = agreement((text, first), (text, second))
    assert report.compared == ("h",)
    assert not report.equal


def test_a_model_that_never_varies_is_refused(agreement: Callable[..., VerifyReport]) -> None:
    model = (
        "agraph (float[N,8] x) => (float[N,4] y) { h = Mul(x, zero)  y = MatMul(h, v) }",
        weights(v=(8, 4)) | {"zero": np.zeros(1, np.float32)},
    )
    with pytest.raises(VerificationError, match="--inputs"):
        agreement(model, model)


def test_an_input_that_is_only_moved_is_no_evidence(agreement: Callable[..., VerifyReport]) -> None:
    model = (
        "agraph (float[N,8] x) => (float[N,4] y) { t = Neg(x)  h = Mul(t, zero)  y = MatMul(h, v) }",
        weights(v=(8, 4)) | {"zero": np.zeros(1, np.float32)},
    )
    with pytest.raises(VerificationError, match="'y'"):
        agreement(model, model)


def test_a_dead_output_must_still_be_equal(agreement: Callable[..., VerifyReport]) -> None:
    text = "agraph (float[N,8] x) => (float[N,4] y, float[N,4] d) { y = MatMul(x, w)  h = Mul(y, z)  d = Add(h, b) }"
    first = weights(w=(8, 4)) | {"z": np.zeros(1, np.float32), "b": np.ones(4, np.float32)}
    second = first | {"b": np.array([1, 1, 1, 1.01], np.float32)}
    assert agreement((text, first), (text, first)).compared == ("y",)
    report = agreement((text, first), (text, second))
    assert not report.equal
    assert "'d'" in (report.failure or "")


def without_optimisations(monkeypatch: pytest.MonkeyPatch, change: Callable[[Array], Array]) -> None:
    """Let the run without graph optimisations compute something else at the output ``y``."""
    from ozgraph.numerics import runners

    real = runners.onnxruntime_engine

    def engine(*, optimise: bool, **options: Any) -> Engine:
        def load_changed(path: Path, expose: Sequence[str]) -> Runner:
            run = real(optimise=optimise, **options)(path, expose)
            return lambda feeds: {k: v if optimise or k != "y" else change(v) for k, v in run(feeds).items()}

        return load_changed

    monkeypatch.setattr("ozgraph.numerics.compare.onnxruntime_engine", engine)


def test_the_limit_is_three_noise_floors_where_those_are_larger(
    agreement: Callable[..., VerifyReport], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = weights(w=(8, 16), v=(16, 4))
    second = {name: array.copy() for name, array in first.items()}
    second["v"] *= np.float32(1.0001)
    assert not agreement((MLP, first), (MLP, second)).equal
    without_optimisations(monkeypatch, lambda y: y * np.float32(1.00006))
    report = agreement((MLP, first), (MLP, second))
    assert report.equal
    # What is less noisy just before the output is compared as well.
    assert report.compared == ("y", "r")
    assert report.limit == pytest.approx(3 * report.noise_floor)
    assert 1e-5 < report.noise_floor < 1e-3


@pytest.mark.parametrize("given", [False, True])
def test_noise_that_shows_on_further_inputs_counts_unless_inputs_are_given(
    agreement: Callable[..., VerifyReport], monkeypatch: pytest.MonkeyPatch, given: bool
) -> None:
    first = weights(w=(8, 16), v=(16, 4))
    second = {name: array.copy() for name, array in first.items()}
    second["v"] *= np.float32(1.00003)
    seen: list[bytes] = []

    def noisy_later(y: Array) -> Array:
        if y.tobytes() not in seen and len(seen) < 3:
            seen.append(y.tobytes())
        return y if y.tobytes() in seen else y * np.float32(1.00002)

    without_optimisations(monkeypatch, noisy_later)
    random = np.random.default_rng(3)
    inputs = [{"x": random.standard_normal((2, 8)).astype(np.float32)} for _ in range(3)] if given else None
    report = agreement((MLP, first), (MLP, second), inputs=inputs)
    assert report.equal is not given
    assert (report.noise_floor > 1e-5) is not given


def test_a_noise_floor_may_come_from_another_implementation(agreement: Callable[..., VerifyReport]) -> None:
    first = weights(w=(8, 16), v=(16, 4))
    second = {name: array.copy() for name, array in first.items()}
    second["v"] *= np.float32(1.00004)
    assert not agreement((MLP, first), (MLP, second)).equal
    assert not agreement((MLP, first), (MLP, second), noise=1e-5).equal
    report = agreement((MLP, first), (MLP, second), noise=4e-5)
    assert report.equal
    assert report.noise_floor == pytest.approx(4e-5)
    assert report.limit == pytest.approx(1.2e-4)


@pytest.mark.parametrize("change", [lambda y: y + np.float32(0.1), lambda y: y * np.float32(np.nan)])
def test_an_output_that_the_original_does_not_reproduce_is_compared_upstream(
    agreement: Callable[..., VerifyReport], monkeypatch: pytest.MonkeyPatch, change: Callable[[Array], Array]
) -> None:
    first, second = weights(w=(8, 16), v=(16, 4)), weights(w=(8, 16), v=(16, 4))
    second["w"][0, 0] += 1e-3
    without_optimisations(monkeypatch, change)
    assert agreement((MLP, first), (MLP, first)).compared == ("r",)
    report = agreement((MLP, first), (MLP, second))
    assert not report.equal
    assert "'r'" in (report.failure or "")


def test_what_is_squashed_says_less_than_what_it_is_made_of(
    agreement: Callable[..., VerifyReport], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "agraph (float[N,8] x) => (float[N,4] y) { h = MatMul(x, w)  s = Sigmoid(h)  y = MatMul(s, v) }"
    model = (text, weights(w=(8, 16), v=(16, 4)))
    without_optimisations(monkeypatch, lambda y: y * np.float32(np.nan))
    assert agreement(model, model).compared == ("h",)


def test_a_second_model_that_does_not_run_is_a_difference(agreement: Callable[..., VerifyReport]) -> None:
    good = weights(w=(8, 16), v=(16, 4))
    report = agreement((MLP, good), (MLP, good | weights(v=(15, 4))))
    assert not report.equal
    assert report.max_relative_error == float("inf")


@pytest.mark.parametrize("exact", [False, True])
def test_memory_that_does_not_suffice_is_no_difference(agreement: Callable[..., VerifyReport], exact: bool) -> None:
    """More bytes than any machine addresses."""
    text = "agraph (float[1,8] x) => (float[1,8] y) { h = Expand(x, s)  r = Cos(h)  m = ReduceMax(r)  y = Add(x, m) }"
    small, large = ({"s": np.array([size, 8], np.int64)} for size in (1, 1 << 54))
    with pytest.raises(OutOfMemoryError, match=r"not enough memory to run .*\.onnx"):
        agreement((text, small), (text, large), exact=exact)


def test_inputs_that_are_too_large_for_memory_are_not_called_wrong(agreement: Callable[..., VerifyReport]) -> None:
    text = "agraph (float[1,8] x, int64[2] s) => (float[1,8] y) { h = Expand(x, s)  m = ReduceMax(h)  y = Add(x, m) }"
    x = np.ones((1, 8), np.float32)
    with pytest.raises(OutOfMemoryError, match=r"not enough memory to run .*a\.onnx"):
        agreement((text, {}), (text, {}), inputs=[{"x": x, "s": np.array([1 << 54, 8])}])


def test_another_output_shape_is_a_difference(agreement: Callable[..., VerifyReport]) -> None:
    first = ("agraph (float[N,8] x) => (float[N,M] y) { y = MatMul(x, w) }", weights(w=(8, 4)))
    second = (first[0], weights(w=(8, 1)))
    report = agreement(first, second)
    assert "shape" in (report.failure or "")


def test_shape_variants_that_the_original_cannot_run_are_left_out(agreement: Callable[..., VerifyReport]) -> None:
    model = (
        "agraph (float[N,8] x) => (float[M,4] y) { h = Reshape(x, s)  y = MatMul(h, w) }",
        weights(w=(16, 4)) | {"s": np.array([-1, 16])},
    )
    shapes = [{"x": (2, 8)}, {"x": (3, 8)}, {"x": (4, 8)}]
    report = agreement(model, model, sample=(2, 8), shape_variants=shapes)
    assert report.equal
    assert report.runs == 6
    with pytest.raises(UsageError, match="--inputs"):
        agreement(model, model, sample=(2, 8), shape_variants=[{"x": (3, 8)}])


def test_a_single_user_input_is_enough(agreement: Callable[..., VerifyReport]) -> None:
    first, second = weights(w=(8, 16), v=(16, 4)), weights(w=(8, 16), v=(16, 4))
    given = [{"x": np.ones((2, 8), np.float32)}]
    report = agreement((MLP, first), (MLP, first), inputs=given)
    assert report.equal
    assert report.runs == 2
    second["v"][2, 2] += 1e-2
    assert not agreement((MLP, first), (MLP, second), inputs=given).equal


def test_user_inputs_that_do_not_run_are_refused(agreement: Callable[..., VerifyReport]) -> None:
    model = (MLP, weights(w=(8, 16), v=(16, 4)))
    with pytest.raises(UsageError, match="given inputs"):
        agreement(model, model, inputs=[{"x": np.ones((2, 7), np.float32)}])
    with pytest.raises(UsageError, match="given inputs"):
        agreement(model, model, inputs=[{"x": np.ones((2, width), np.float32)} for width in (7, 8)])


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
def test_half_precision_is_verified_upcast(agreement: Callable[..., VerifyReport], kind: str) -> None:
    import ml_dtypes

    dtype = np.float16 if kind == "float16" else ml_dtypes.bfloat16
    text = f"""agraph ({kind}[N,8] x) => ({kind}[N,4] y) {{ h = MatMul(x, w)
        f = Cast<to=1>(h)  g = Exp(f)  c = Cast<to={10 if kind == "float16" else 16}>(g)  y = MatMul(c, v) }}"""
    full = weights(w=(8, 16), v=(16, 4))
    full["w"][:, 3] = 0
    full["v"][3] = 0
    halves = {name: array.astype(dtype) for name, array in full.items()}
    small = {"w": np.delete(halves["w"], 3, 1), "v": np.delete(halves["v"], 3, 0)}
    report = agreement((text, halves), (text, small))
    assert report.equal, report.failure
    assert report.max_relative_error < 1e-5
    wrong = {name: array.copy() for name, array in small.items()}
    wrong["v"][0, 0] *= dtype(1.01)
    assert not agreement((text, halves), (text, wrong)).equal


def test_float64_models_are_compared_where_onnxruntime_has_no_kernel(agreement: Callable[..., VerifyReport]) -> None:
    text = "agraph (double[N,3,8,8] x) => (double[N,4,6,6] y) { y = Conv(x, w) }"
    first = {"w": np.random.default_rng(0).standard_normal((4, 3, 3, 3))}
    second = {"w": first["w"].copy()}
    assert agreement((text, first), (text, first)).equal
    second["w"][0, 0, 0, 0] += 1e-3
    assert not agreement((text, first), (text, second)).equal


def test_an_exact_run_sees_what_float32_cannot(agreement: Callable[..., VerifyReport]) -> None:
    text = "agraph (float[N,8] x) => (float[N,4] y) { h = MatMul(x, w)  y = LayerNormalization(h, g) }"
    first = weights(w=(8, 4)) | {"g": np.ones(4, np.float32)}
    second = {name: array.copy() for name, array in first.items()}
    second["w"][0, 0] = np.nextafter(second["w"][0, 0], np.float32(9))
    assert agreement((text, first), (text, second)).equal
    report = agreement((text, first), (text, second), exact=True)
    assert not report.equal
    assert report.limit == 1e-12
    same = agreement((text, first), (text, first), exact=True)
    assert same.equal
    assert same.limit == 1e-12


def test_exact_runs_of_a_pruned_model_agree(agreement: Callable[..., VerifyReport]) -> None:
    full = weights(w=(8, 16), v=(16, 4))
    full["w"][:, 3] = 0
    small = {"w": np.delete(full["w"], 3, 1), "v": np.delete(full["v"], 3, 0)}
    report = agreement((MLP, full), (MLP, small), exact=True)
    assert report.equal, report.failure
    assert report.max_relative_error < 1e-14


def test_intermediate_tensors_are_exposed_with_external_data(tmp_path: Path) -> None:
    plain = written(tmp_path / "plain.onnx", SATURATED, weights(w=(8, 4)) | SATURATION)
    paths = []
    for name in ("a", "b"):
        folder = tmp_path / name
        folder.mkdir()
        paths.append(folder / "model.onnx")
        onnx.save(onnx.load(plain), paths[-1], save_as_external_data=True, location="weights.bin", size_threshold=0)
    report = compare(paths[0], paths[1], load(paths[0]))
    assert report.equal
    assert report.compared == ("l",)


def test_sequence_outputs_are_compared_piece_by_piece(agreement: Callable[..., VerifyReport]) -> None:
    text = "agraph (float[4,8] x) => (seq(float[2,4]) y) { h = MatMul(x, w)  y = SplitToSequence(h, two) }"
    two = {"two": np.array(2)}
    first, second = weights(w=(8, 4)) | two, weights(w=(8, 4)) | two
    report = agreement((text, first), (text, first))
    assert set(report.compared) == {"y[0]", "y[1]"}
    second["w"][0, 0] += 1e-3
    assert not agreement((text, first), (text, second)).equal


def test_verify_needs_two_models_with_one_signature(tmp_path: Path) -> None:
    a = written(tmp_path / "a.onnx", MLP, weights(w=(8, 16), v=(16, 4)))
    b = written(tmp_path / "b.onnx", MLP.replace("x", "q"), weights(w=(8, 16), v=(16, 4)))
    assert verify(a, a).equal
    with pytest.raises(UsageError, match="inputs"):
        verify(a, b)
    with pytest.raises(ModelError):
        verify(a, tmp_path / "missing.onnx")


def test_verify_takes_inputs_from_a_file(tmp_path: Path) -> None:
    a = written(tmp_path / "a.onnx", MLP, weights(w=(8, 16), v=(16, 4)))
    b = written(tmp_path / "b.onnx", MLP, weights(w=(8, 17), v=(17, 4)))
    np.savez(tmp_path / "in.npz", x=np.random.default_rng(0).standard_normal((5, 8)))
    assert verify(a, a, inputs=tmp_path / "in.npz").equal
    assert not verify(a, b, inputs=tmp_path / "in.npz").equal


def test_the_spread_ignores_offsets_and_dead_positions() -> None:
    base = np.array([1e6, 0, 0, 0, 0])
    assert spread([base, base]) == 0
    moved = base + np.array([0, 0, 0, 0, 2.0])
    assert spread([base, moved]) == 2
    assert spread([base, moved[:3]]) == 0
    assert spread([np.array([np.nan, 1.0]), np.array([3.0, 1.5])]) == 0.5


def test_rounding_alone_sets_a_noise_floor() -> None:
    found = liveliness([f32([100.0]), f32([100.01])])
    assert found.noise == 0
    assert found.floor == pytest.approx(100.01 * np.finfo(np.float32).eps / 0.01, rel=1e-1)


def test_rounding_counts_where_it_happens() -> None:
    """A large position may be off by its last place; a small one beside it may not."""
    runs = [f32([1000, 0, 0]), f32([1000, 1, 1])]
    alive = liveliness(runs)
    assert alive.floor < 1e-6
    last_place = [run + f32([1e-4, 0, 0]) for run in runs]
    assert gap(runs, last_place, alive, 1e-5, moving=True).severity < 1
    wrong = [run + f32([0, 1e-4, 0]) for run in runs]
    assert gap(runs, wrong, alive, 1e-5, moving=True).severity > 1


def test_a_position_that_moves_far_is_measured_by_its_own_range() -> None:
    low, high = np.zeros(100, np.float32), np.ones(100, np.float32)
    high[0] = 1e4
    runs = [low, high]
    moved = high.copy()
    moved[0] += 1e-2
    found = gap(runs, [low, moved], liveliness(runs), 1e-5, moving=True)
    assert found.error == pytest.approx(1e-6, rel=0.1)


def test_tensors_differ_by_type_shape_integers_and_infinities() -> None:
    one = np.ones(3, np.float32)
    assert mismatch(one, one.copy()) is None
    assert "type" in (mismatch(one, one.astype(np.float64)) or "")
    assert "shape" in (mismatch(one, np.ones(4, np.float32)) or "")
    assert "not equal" in (mismatch(np.array([1, 2]), np.array([1, 3])) or "")
    assert "+inf" in (mismatch(one, f32([1, np.inf, 1])) or "")


def test_differences_are_finite_and_measured_where_both_are() -> None:
    runs = [f32([np.inf, 1.0]), f32([np.inf, 2.0])]
    found = gap(runs, [runs[0], f32([np.inf, 2.5])], liveliness(runs), 1e-5, moving=True)
    assert found.error == 0.5
    huge = [f32([-3e38]), f32([3e38])]
    assert gap(huge, huge[::-1], liveliness(huge), 1e-5, moving=True).error == pytest.approx(1)


@pytest.mark.parametrize(
    "body",
    [
        "f = Gelu(h)",
        "f = Erf(h)",
        "f = GroupNormalization<num_groups=2>(h, g, g)",
        "f = RMSNormalization<stash_type=1>(h, k)",
        "f = LayerNormalization<stash_type=1>(h, k)",
        "d = DequantizeLinear<axis=0>(q, c, z)  f = Add(h, d)",
        "f = ConvTranspose<group=2, strides=[2]>(h, t, g)",
    ],
)
def test_exact_runs_are_in_double_precision_throughout(tmp_path: Path, body: str) -> None:
    constants = weights(w=(4, 4, 1), g=(4,), k=(6,), c=(4,), t=(4, 2, 3)) | {
        "q": np.array([[1], [-3], [4], [5]], np.int8),
        "z": np.zeros(4, np.int8),
    }
    text = f"agraph (float[N,4,6] x) => (float[N,4,M] y) {{ h = Conv(x, w)  {body}  y = Sigmoid(f) }}"
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 23]> {text}')
    used = {operand for node in model.graph.node for operand in node.input}
    model.graph.initializer.extend(numpy_helper.from_array(a, name) for name, a in constants.items() if name in used)
    onnx.save(model, tmp_path / "m.onnx")
    twin = to_float64(tmp_path / "m.onnx", tmp_path)
    feeds = {"x": np.random.default_rng(0).standard_normal((2, 4, 6))}
    found = reference_engine()(twin, ["f"])(feeds)
    for name in ("f", "y"):
        assert found[name].dtype == np.float64
        assert not np.array_equal(found[name], found[name].astype(np.float32))
    plain = open_session(tmp_path / "m.onnx").run(feeds)
    np.testing.assert_allclose(found["y"], plain["y"], atol=1e-5)


def test_an_empty_detection_is_compared_at_its_boxes_and_scores(agreement: Callable[..., VerifyReport]) -> None:
    text = """agraph (float[1,6,8] x) => (int64[K,3] kept)
        { boxes = MatMul(x, w)  raw = MatMul(x, v)  low = Sub(raw, far)  s = Sigmoid(low)
          scores = Transpose<perm=[0,2,1]>(s)  kept = NonMaxSuppression(boxes, scores, most, overlap, threshold) }"""
    first = weights(w=(8, 4), v=(8, 2)) | {
        "far": np.array(9, np.float32),
        "most": np.array([3]),
        "overlap": np.array([0.5], np.float32),
        "threshold": np.array([0.9], np.float32),
    }
    assert set(agreement((text, first), (text, first)).compared) == {"boxes", "scores"}
    for name, tensor in (("w", "boxes"), ("v", "scores")):
        second = {key: array.copy() for key, array in first.items()}
        second[name][0, 0] += 1e-2
        report = agreement((text, first), (text, second))
        assert not report.equal
        assert f"'{tensor}'" in (report.failure or "")


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="tells from /proc what is mapped")
@pytest.mark.parametrize("copy", [to_float64, to_float32])
def test_a_copy_leaves_no_file_mapped(copy: Callable[[Path, Path], Path], tmp_path: Path) -> None:
    """A hundred weights that each map the whole file take a hundred times its size of addresses."""
    other = np.float32 if copy is to_float64 else np.float64
    made = {name: array.astype(other) for name, array in weights(w=(8, 600), v=(600, 4)).items()}
    whole = written(tmp_path / "whole.onnx", MLP if copy is to_float64 else MLP.replace("float[", "double["), made)
    onnx.save(
        onnx.load(whole), tmp_path / "apart.onnx", save_as_external_data=True, location="weights.data", size_threshold=0
    )
    twin = copy(tmp_path / "apart.onnx", tmp_path)
    assert "weights.data" not in Path("/proc/self/maps").read_text()
    found = {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(twin).graph.initializer}
    for name, array in made.items():
        assert found[name].shape == array.shape
        np.testing.assert_allclose(found[name], array, rtol=2e-7)

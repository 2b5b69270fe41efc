"""Every model that the project is proved on is valid, runs, and says different things of different inputs."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from models.exported import EXPORTED
from models.feeding import feeds, run, session
from models.light import LIGHT, logits_name
from models.rows import DESIGN_TABLE, ROWS

PLAIN_FORMS = [name for name in EXPORTED if not name.endswith(("_raw", "_dynamic"))]
OTHER_FORMS = [name for name in EXPORTED if name not in PLAIN_FORMS]


def check_alive(model: onnx.ModelProto, spread: float) -> None:
    """Valid by the checker, finite, and different for different inputs."""
    onnx.checker.check_model(model, full_check=True)
    first, second = (run(model, feeds(model, seed)) for seed in (0, 1))
    for a, b in zip(first, second, strict=True):
        assert np.isfinite(a).all()
        assert np.abs(a.astype(np.float64) - b).max() > spread


@pytest.mark.parametrize("name", ROWS)
def test_small_model_is_alive(name: str) -> None:
    check_alive(ROWS[name](), 0.02)


@pytest.mark.parametrize("name", ROWS)
def test_small_model_is_the_same_on_every_call(name: str) -> None:
    assert ROWS[name]().SerializeToString(deterministic=True) == ROWS[name]().SerializeToString(deterministic=True)


def test_every_row_of_the_design_has_models() -> None:
    assert all(name in ROWS for names in DESIGN_TABLE.values() for name in names)


@pytest.mark.parametrize("name", ["dynamic_batch", "dynamic_sequence"])
def test_dynamic_model_runs_at_other_sizes(name: str) -> None:
    model = ROWS[name]()
    for batch, length in ((1, 4), (3, 9)):
        assert run(model, feeds(model, sizes={"batch": batch, "sequence": length}))[0].shape[0] == batch


@pytest.mark.slow
@pytest.mark.parametrize("name", LIGHT)
def test_legacy_network_is_alive(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    model = LIGHT[name]()
    logits = logits_name(model)
    path = tmp_path_factory.mktemp("light") / "model.onnx"
    if logits != model.graph.output[0].name:
        model.graph.output.append(onnx.helper.make_tensor_value_info(logits, onnx.TensorProto.FLOAT, None))
    inputs = [feeds(model, seed) for seed in (0, 1)]
    onnx.save(model, path)
    del model
    runner = session(str(path))
    first, second = (runner.run([logits], values)[0] for values in inputs)
    path.unlink()
    assert np.isfinite(first).all()
    assert 0.05 < first.std() < 20
    assert (first - second).std() > 0.02


@pytest.mark.parametrize("name", PLAIN_FORMS)
def test_exported_model_is_alive(name: str) -> None:
    check_alive(EXPORTED[name](), 0.1)


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHER_FORMS)
def test_exported_model_is_alive_in_its_other_forms(name: str) -> None:
    model = EXPORTED[name]()
    check_alive(model, 0.1)
    if "dynamic" in name:
        larger = feeds(model, sizes={"batch": 3, "sequence": 9})
        assert run(model, larger)[0].shape[0] == 3

"""The nine legacy networks of the onnx package at full size: half of every free slot goes, verified at the logits."""

from __future__ import annotations

import gc
from pathlib import Path

import numpy as np
import onnx
import pytest

import ozgraph
from models.feeding import feeds, session
from models.halving import NOTHING, HalfOfEveryFamily
from models.light import LIGHT, logits_name

FAMILIES = {
    "light_bvlc_alexnet": 6,
    "light_densenet121": 120,
    "light_inception_v1": 55,
    "light_inception_v2": 69,
    "light_resnet50": 37,
    "light_shufflenet": 14,
    "light_squeezenet": 25,
    "light_vgg19": 18,
    "light_zfnet512": 5,
}
"""How many families there are at least."""


@pytest.mark.slow
@pytest.mark.parametrize("name", LIGHT)
def test_half_of_a_legacy_network_goes_and_the_logits_are_those_of_the_zeroed_original(
    name: str, tmp_path: Path
) -> None:
    original, small = tmp_path / "original.onnx", tmp_path / "small.onnx"
    model = LIGHT[name]()
    logits = logits_name(model)
    # A softmax may saturate, or hide an offset; what goes into it tells.
    model.graph.output.append(onnx.helper.make_tensor_value_info(logits, onnx.TensorProto.FLOAT, None))
    onnx.save(model, original)
    inputs = [feeds(model, seed) for seed in (11, 12)]
    del model
    gc.collect()

    result = ozgraph.prune(original, small, target=NOTHING, passes=[HalfOfEveryFamily()])

    report, verified = result.report, result.state.verification
    assert report.frozen_by_verification == ()
    assert verified is not None and verified.equal
    assert logits in verified.compared
    assert len(result.state.families) >= FAMILIES[name]
    assert report.parameters_after < 0.6 * report.parameters_before
    assert small.stat().st_size < 0.6 * original.stat().st_size
    onnx.checker.check_model(str(small), full_check=True)
    runner = session(str(small))
    first, second = (runner.run(None, values)[0] for values in inputs)
    assert np.isfinite(first).all() and not np.array_equal(first, second)

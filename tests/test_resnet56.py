"""A trained network end to end: half of ResNet-56 goes, and every test image is labelled as by the zeroed module."""

from __future__ import annotations

import copy
import os
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")
ort = pytest.importorskip("onnxruntime")

from training.cifar import resnet56, test_images  # noqa: E402

import ozgraph  # noqa: E402
from ozgraph.backends.torch import zeroed  # noqa: E402
from ozgraph.passes.prove_dead import zeroing  # noqa: E402

torch.set_num_threads(1)

IMAGES = int(os.environ.get("OZGRAPH_TEST_IMAGES", "400"))
NEAR = 1e-4


def test_half_of_resnet56_exported_predicts_as_the_zeroed_module(tmp_path: Path) -> None:
    module = resnet56()
    x, labels = test_images(IMAGES)
    with torch.no_grad():
        assert (module(x).argmax(1) == labels).float().mean() > 0.9
    graph = ozgraph.capture(module, (x[:2],))
    result = ozgraph.prune(graph, target=ozgraph.Target(macs=0.5), criterion="l2")
    assert result.report.frozen_by_verification == ()
    assert result.report.macs_after <= 0.5 * result.report.macs_before
    zeros = copy.deepcopy(module)
    zeros.load_state_dict({**zeros.state_dict(), **zeroed(graph, zeroing(result.state))})
    path = tmp_path / "resnet56.onnx"
    batch = torch.export.Dim("batch", min=1, max=4096)
    report = ozgraph.export(zeros, (x[:2],), path, dynamic_shapes=({0: batch},))
    assert report.macs_after <= 0.5 * report.macs_before
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    with torch.no_grad():
        wanted = np.concatenate([zeros(part).numpy() for part in x.split(100)])
    found = np.concatenate([session.run(None, {name: part.numpy()})[0] for part in x.split(100)])
    top = np.sort(wanted, axis=1)
    clear = top[:, -1] - top[:, -2] > NEAR
    assert clear.mean() > 0.9
    np.testing.assert_array_equal(found.argmax(1)[clear], wanted.argmax(1)[clear])
    np.testing.assert_allclose(result.to_module().eval()(x[:50]).detach(), wanted[:50], atol=1e-3)

"""Peers of the zoo are called as a plain user would, with all of a model's inputs, and judged as ozgraph is."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402

sys.path.append(str(Path(__file__).parents[1] / "benchmarks" / "zoo"))

import peer_onnxsim  # noqa: E402
import peer_torch_pruning  # noqa: E402
from sources import Made  # noqa: E402


class Flow(nn.Module):
    """Two images by position and an option by name."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 1)

    def forward(self, first: Tensor, second: Tensor, *, updates: int) -> list[Tensor]:
        return [self.layer(first) - self.layer(second)] * updates


def test_inputs_by_position_and_by_name_reach_the_module() -> None:
    images = torch.rand(2, 1, 3, 8, 8)
    made = Made(Flow(), (images[0], images[1]), {"updates": 3})
    assert [tensor.shape for tensor in peer_torch_pruning._forward(made)(made.module, None)] == [(1, 4, 8, 8)] * 3


class HeldToSingle(nn.Module):
    """Layers whose result meets a float32 one, whatever precision they have."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 4, 1)
        self.grid = torch.ones(4, 4)

    def forward(self, image: Tensor) -> Tensor:
        return torch.matmul(self.second(torch.relu(self.first(image))), self.grid)


def test_a_module_that_does_not_run_in_float64_is_compared_in_its_own_precision() -> None:
    pytest.importorskip("torch_pruning")
    made = Made(HeldToSingle().eval(), (torch.rand(1, 3, 4, 4),), {})
    found = peer_torch_pruning.torch_pruning(made, lambda stage: nullcontext())
    assert found["outcome"] == "runs" and found["equal"], found
    assert 0 <= found["difference"] < 1e-3


def layers(path: Path, between: str = "Relu") -> Path:
    """Two products of random numbers with something elementwise between them, as a file."""
    random = np.random.default_rng(0)
    sizes = {"first": (6, 16), "bias": (16,), "second": (16, 4)}
    graph = helper.make_graph(
        [
            helper.make_node("Gemm", ["data", "first", "bias"], ["wide"]),
            helper.make_node(between, ["wide"], ["act"]),
            helper.make_node("MatMul", ["act", "second"], ["result"]),
        ],
        "layers",
        [helper.make_tensor_value_info("data", TensorProto.FLOAT, [3, 6])],
        [helper.make_tensor_value_info("result", TensorProto.FLOAT, [3, 4])],
        [numpy_helper.from_array(random.standard_normal(s).astype(np.float32), name) for name, s in sizes.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


def test_a_number_that_a_bias_holds_twice_is_told_by_its_layer(tmp_path: Path) -> None:
    path = layers(tmp_path / "model.onnx")
    model = onnx.load(path)
    weight, bias, _ = model.graph.initializer
    order = np.argsort(np.linalg.norm(numpy_helper.to_array(weight), axis=0))
    goes, stays = next((goes, stays) for goes in order[:8] for stays in order[8:] if goes < stays)
    twice = numpy_helper.to_array(bias).copy()
    twice[goes] = twice[stays] = 0.75
    bias.CopyFrom(numpy_helper.from_array(twice, bias.name))
    onnx.save(model, path)
    found = simplified(path)
    assert found["equal"], found


def simplified(path: Path) -> dict[str, Any]:
    pytest.importorskip("onnxsim")
    return peer_onnxsim.onnxsim(Made(None, (), {}, str(path)), lambda stage: nullcontext())


def test_what_onnxsim_took_is_found_and_its_result_compared_with_the_rest(tmp_path: Path) -> None:
    found = simplified(layers(tmp_path / "model.onnx"))
    assert found["outcome"] == "runs", found
    assert found["equal"] and found["difference"] < 1e-5
    assert found["parameters after"] == 6 * 8 + 8 + 8 * 4
    assert found["prunable"] == found["parameters"] - (6 + 1 + 4)


def test_a_channel_that_is_not_zero_behind_its_activation_is_missed(tmp_path: Path) -> None:
    found = simplified(layers(tmp_path / "model.onnx", "Sigmoid"))
    assert found["outcome"] == "runs", found
    assert not found["equal"] and found["difference"] > 1e-2


def test_a_slice_that_is_nowhere_in_the_original_is_not_guessed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = peer_onnxsim._pruned

    def wrong(path: Path, share: float) -> onnx.ModelProto:
        model = right(path, share)
        (tensor,) = [each for each in model.graph.initializer if each.name == "first"]
        tensor.CopyFrom(numpy_helper.from_array(2 * numpy_helper.to_array(tensor), "first"))
        return model

    monkeypatch.setattr(peer_onnxsim, "_pruned", wrong)
    found = simplified(layers(tmp_path / "model.onnx"))
    assert "equal" not in found and "not told" in found["not compared"]


def test_places_are_told_along_one_axis_where_another_is_cut_as_well() -> None:
    whole = np.random.default_rng(0).standard_normal((12, 10, 3)).astype(np.float32)
    rows, columns = np.array([0, 3, 4, 11]), np.array([1, 2, 9])
    part = whole[rows][:, columns]
    assert np.array_equal(peer_onnxsim._places(whole, part, 0), rows)
    assert np.array_equal(peer_onnxsim._places(whole, part, 1), columns)
    assert peer_onnxsim._places(whole, part[::-1], 0) is None
    assert peer_onnxsim._places(np.array([1.0, 2.0, 1.0, 3.0]), np.array([1.0, 3.0]), 0) is None

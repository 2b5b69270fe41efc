"""Constants of one number that exporters write once for all layers tie nothing, and are written once again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import ozgraph
from models.building import Array, Net
from models.pruning import families_of, halved
from models.zeroing import pruned
from ozgraph.backends.files import write
from ozgraph.backends.onnx import apply
from ozgraph.plan import Plan


def perceptron(bias: Array, scale: Array | None = None) -> onnx.ModelProto:
    """Three layers with the same bias, and norms with the same scale, as an exporter writes a fresh network."""
    net = Net("fresh")
    shared = net.const(bias.astype(np.float32), "shared.bias")
    ones = None if scale is None else net.const(scale.astype(np.float32), "shared.scale")
    x = net.input("x", (3, 6))
    size = 6
    for name in ("fc1", "fc2", "fc3"):
        x = net.op("Add", net.dense(x, size, 8, bias=False, name=name), shared)
        if ones is not None:
            x = net.op("LayerNormalization", x, ones, shared, axis=-1)
        x, size = net.op("Relu", x), 8
    return net.build(net.dense(x, 8, 4, name="head"))


def initializers(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    return {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}


@pytest.mark.parametrize("number", [0.0, 0.3])
def test_layers_that_share_a_bias_of_one_number_prune_each_on_its_own(number: float) -> None:
    state = pruned(perceptron(np.full(8, number)), *((f"fc{layer}.weight", 8, "exact") for layer in (1, 2, 3)))
    assert all(family.active for family in state.families)


@pytest.mark.parametrize("bias", [np.arange(1, 9) / 8, np.tile([0.0, -0.0], 4)], ids=["numbers", "signs of zero"])
def test_a_bias_of_several_numbers_ties_the_layers_that_share_it(bias: Array) -> None:
    pruned(perceptron(bias), ("fc1.weight", 8, "exact"))


def test_scales_and_shifts_of_norms_are_parted_too() -> None:
    model = perceptron(np.zeros(8), np.ones(8))
    pruned(model, *((f"fc{layer}.weight", 8, "rescaled") for layer in (1, 2, 3)))


def test_what_is_still_alike_is_written_once(tmp_path: Path) -> None:
    model = perceptron(np.zeros(8))
    untouched = apply(ozgraph.load(model), Plan())
    write(untouched, tmp_path / "same.onnx")
    assert initializers(onnx.load(tmp_path / "same.onnx")) == initializers(model)
    ozgraph.prune(
        model, tmp_path / "small.onnx", target=ozgraph.Target(groups=0.25), include=["fc2.weight"], round_to=1
    )
    found = initializers(onnx.load(tmp_path / "small.onnx"))
    biases = [shape for name, shape in found.items() if name.startswith("shared.bias")]
    assert "shared.bias" in found
    assert sorted(biases) == [(2,), (8,)]


def test_a_bias_beside_one_that_no_layer_may_lose_still_prunes() -> None:
    """The shared constant is a result of the model as well: that one keeps its name and its size."""
    net = Net("returned")
    shared = net.const(np.zeros(8, np.float32), "shared.bias")
    x = net.op("Relu", net.op("Add", net.dense(net.input("x", (3, 6)), 6, 8, bias=False, name="fc1"), shared))
    y = net.dense(x, 8, 4, name="head")
    model = net.build(y, net.op("Identity", shared))
    assert families_of(halved(model)) == {("fc1.weight", 8, "exact")}


def test_constants_of_external_data_are_parted_as_well(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(perceptron(np.zeros(8)), path, save_as_external_data=True, size_threshold=0, location="data")
    report = ozgraph.prune(path, tmp_path / "small.onnx", target=ozgraph.Target(macs=0.4), round_to=1).report
    assert not report.frozen_by_verification
    assert len(ozgraph.analyze(path).report.families) == 3


def test_zero_points_that_layers_share_tie_nothing() -> None:
    net = Net("quantised", opset=13)
    points = net.const(np.zeros(8, np.int8), "points")
    x, size = net.input("x", (3, 6)), 6
    for name in ("fc1", "fc2"):
        stored = net.const(net.rng.integers(-99, 99, (size, 8)).astype(np.int8), f"{name}.weight")
        scale = net.const((net.positive(8) * 0.01).astype(np.float32), f"{name}.scale")
        weight = net.op("DequantizeLinear", stored, scale, points, axis=1)
        x, size = net.op("Relu", net.op("MatMul", x, weight)), 8
    state = halved(net.build(net.dense(x, 8, 4, name="head")))
    assert families_of(state) == {("fc1.weight", 8, "exact"), ("fc2.weight", 8, "exact")}

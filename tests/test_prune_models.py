"""Half of everything that can go, on every model there is: the file is valid, smaller, and the same function."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import ozgraph
from models.exported import EXPORTED
from models.feeding import feeds, run
from models.halving import NOTHING, HalfOfEveryFamily, graphs_of, zeroed_by_hand
from models.rows import ROWS
from ozgraph.api import PruneResult

PLAIN = [name for name in EXPORTED if not name.endswith(("_raw", "_dynamic"))]
OTHER = [name for name in EXPORTED if name not in PLAIN]

WITHOUT_FAMILIES = {"observed_channels"}
"""Small models in which nothing can go; every other one loses slots."""


def halve(model: onnx.ModelProto, output: Path, *, everything: bool = False, thorough: bool = False) -> PruneResult:
    result = ozgraph.prune(
        model, output, target=NOTHING, passes=[HalfOfEveryFamily(everything)], rescale=everything, thorough=thorough
    )
    assert result.report.frozen_by_verification == ()
    assert result.state.verification is not None and result.state.verification.equal
    assert result.report.max_relative_error <= result.report.limit
    chosen, removed = result.state.chosen, result.state.removed
    for family in result.state.families:
        assert not (chosen.mask(family.atom) & ~removed.mask(family.atom)).any(), "what was chosen is gone"
    return result


def check_half_of_every_free_slot_goes(model: onnx.ModelProto, folder: Path, *, slots: bool = True) -> PruneResult:
    model.metadata_props.add(key="licence", value="of the user")
    result = halve(model, folder / "small.onnx")
    small = onnx.load(folder / "small.onnx")
    onnx.checker.check_model(str(folder / "small.onnx"), full_check=True)
    check_what_surrounds_the_weights_is_the_same(model, small)
    for family in result.state.families:
        if family.active and family.atom.size > 3 and not family.overlaps:
            free = int(result.state.dims.free_slots(family.atom).sum())
            assert result.state.removed.count(family.atom) >= free // 2 - 1, family
    if slots:
        assert result.report.removed_slots > 0
        assert result.report.parameters_after < result.report.parameters_before
        assert weights(small) < weights(model)
    check_function(model, result, small)
    return result


def check_what_surrounds_the_weights_is_the_same(model: onnx.ModelProto, small: onnx.ModelProto) -> None:
    """Names, element types, sizes and dynamic axes of inputs and outputs; opset, metadata and producer."""
    listed = {tensor.name for tensor in model.graph.initializer}
    assert [info for info in small.graph.input if info.name not in listed] == [
        info for info in model.graph.input if info.name not in listed
    ]
    assert [(info.name, info.type) for info in small.graph.output] == [
        (info.name, info.type) for info in model.graph.output
    ]
    # The domains of functions go with the functions.
    used = {node.domain for node in small.graph.node} | {""}
    assert {e.domain: e.version for e in small.opset_import if e.domain in used} == {
        e.domain: e.version for e in model.opset_import if e.domain in used
    }
    assert {entry.key: entry.value for entry in small.metadata_props}.items() >= {("licence", "of the user")}
    assert (small.producer_name, small.graph.name) == (model.producer_name, model.graph.name)


def check_function(model: onnx.ModelProto, result: PruneResult, small: onnx.ModelProto) -> None:
    """The file computes what the original with the chosen members at zero does; nothing of ozgraph takes part."""
    zeroed = zeroed_by_hand(model, result.state)
    if zeroed is None:
        return
    for sizes in ({}, {"batch": 3, "sequence": 9}):
        runs = [feeds(model, seed, sizes) for seed in (11, 12)]
        wanted, found = [run(zeroed, inputs) for inputs in runs], [run(small, inputs) for inputs in runs]
        for outputs, others in zip(zip(*wanted, strict=True), zip(*found, strict=True), strict=True):
            scale = max(float(np.abs(array.astype(np.float64)).max()) for array in outputs)
            coarse = 2e-2 if outputs[0].dtype == np.float16 else 1e-4
            for a, b in zip(outputs, others, strict=True):
                np.testing.assert_allclose(b, a, rtol=0, atol=coarse * scale)


def weights(model: onnx.ModelProto) -> int:
    """Elements of all floating weights in initializers and Constant nodes."""
    tensors = [tensor for graph in graphs_of(model) for tensor in graph.initializer]
    tensors += [entry.t for node in model.graph.node for entry in node.attribute if entry.HasField("t")]
    floating = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE)
    total = sum(int(np.prod(tensor.dims)) for tensor in tensors if tensor.data_type in floating)
    fills = [node for node in model.graph.node if node.op_type == "ConstantOfShape"]
    shapes = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    return total + sum(int(np.prod(shapes[node.input[0]])) for node in fills if node.input[0] in shapes)


@pytest.mark.parametrize("name", ROWS)
def test_half_of_every_free_slot_of_a_small_model_goes(name: str, tmp_path: Path) -> None:
    check_half_of_every_free_slot_goes(ROWS[name](), tmp_path, slots=name not in WITHOUT_FAMILIES)


@pytest.mark.parametrize("name", ROWS)
def test_every_family_of_a_small_model_goes_alone_and_with_those_it_overlaps(name: str, tmp_path: Path) -> None:
    result = halve(ROWS[name](), tmp_path / "small.onnx", everything=True, thorough=True)
    assert (result.report.removed_slots > 0) == (name not in WITHOUT_FAMILIES)


@pytest.mark.parametrize("name", PLAIN)
def test_half_of_every_free_slot_of_an_exported_network_goes(name: str, tmp_path: Path) -> None:
    check_half_of_every_free_slot_goes(EXPORTED[name](), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHER)
def test_half_of_every_free_slot_of_an_exported_network_goes_in_its_other_forms(name: str, tmp_path: Path) -> None:
    check_half_of_every_free_slot_goes(EXPORTED[name](), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnext", "vit", "swin", "convnext", "gqa_decoder", "gpt2"])
def test_families_that_overlap_go_together_in_an_exported_network(name: str, tmp_path: Path) -> None:
    model = EXPORTED[name]()
    result = halve(model, tmp_path / "small.onnx", everything=True)
    assert any(family.overlaps or family.slow for family in result.state.families)
    check_function(model, result, onnx.load(tmp_path / "small.onnx"))

"""The com.microsoft operators of onnxruntime's transformer optimizer, in files that declare no shapes for them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from test_rules import applied

import ozgraph
from models.building import Net
from models.contrib import MODELS, built, ms, packed
from models.pruning import families_of, halved
from models.sequences import B, D, H, K, S
from models.zeroing import check_removal

FOUND = {
    "contrib_gelus": {(f"fc{number}.weight", size, "exact") for number, size in ((1, 10), (2, 9), (3, 8), (4, 7))},
    "contrib_products": {
        ("stem.weight", 2, "exact"),
        ("stem.weight", 4, "exact"),
        ("conv1.weight", 8, "exact"),
        ("conv3.weight", 4, "exact"),
        ("fc1.weight", 10, "exact"),
    },
    "contrib_bert": {
        ("words", D, "rescaled"),
        ("qkv.weight", H, "exact"),
        ("qkv.weight", K, "exact"),
        ("fc1.weight", 24, "exact"),
    },
    "contrib_llama": {
        ("words", D, "rescaled"),
        ("q_proj.weight", H, "exact"),
        ("v_proj.weight", 8, "exact"),
        ("fc1.weight", 24, "exact"),
    },
    "contrib_packed": {("words.scales", 4, "exact"), ("gate.scales", 3, "exact")},
    "contrib_cross_attention": {
        ("q_proj.weight", H, "exact"),
        ("q_proj.weight", K, "exact"),
        ("v_proj.weight", 4, "exact"),
    },
    "contrib_grouped_query": {("q_proj.weight", 2, "exact"), ("q_proj.weight", 2, "consumers")},
}


@pytest.mark.parametrize("name", MODELS)
def test_what_the_optimizer_fused_prunes_and_verifies(name: str) -> None:
    state = halved(MODELS[name]())
    assert families_of(state) == FOUND[name]
    assert not state.unknown


@pytest.mark.parametrize("name", ["contrib_gelus", "contrib_packed", "contrib_bert", "contrib_cross_attention"])
def test_batches_that_vary_leave_channels_as_they_are(name: str) -> None:
    """onnx does not infer these operators, with sizes left open least of all."""
    model = MODELS[name]()
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    state = halved(model)
    assert families_of(state) == FOUND[name]


def zero_where(model: onnx.ModelProto, name: str, columns: list[int]) -> onnx.ModelProto:
    for tensor in model.graph.initializer:
        if tensor.name == name:
            array = numpy_helper.to_array(tensor).copy()
            array[..., columns] = 0
            tensor.CopyFrom(numpy_helper.from_array(array, name))
    return model


def width_of_every_head(slot: int) -> list[int]:
    return [head * K + slot for head in range(H)]


def test_zero_queries_do_not_make_a_width_dead_while_their_bias_is_not() -> None:
    """(q + b) k is zero only where both q and b are; the bias holds the slots of queries and of keys."""
    model = zero_where(MODELS["contrib_cross_attention"](), "q_proj.weight", width_of_every_head(2))
    assert ozgraph.eliminate(model).report.removed_slots == 0
    both = [part * H * K + column for part in range(2) for column in width_of_every_head(2)]
    model = zero_where(model, "qkv.bias", both)
    assert ozgraph.eliminate(model).report.removed_slots == 1


def test_a_norm_of_a_sum_asks_for_every_term() -> None:
    net = Net("skip")
    x = net.input("x", (B, S, 10))
    first, second = (net.dense(x, 10, 8, bias=False, name=name) for name in ("left", "right"))
    y = ms(net, "SkipSimplifiedLayerNormalization", first, second, net.const(np.ones(8, np.float32), "gamma"))
    model = zero_where(built(net, net.dense(y, 8, 5), B, S, 5), "left.weight", [3])
    assert ozgraph.eliminate(model).report.removed_slots == 0
    assert ozgraph.eliminate(zero_where(model, "right.weight", [3])).report.removed_slots == 1


@pytest.mark.parametrize("operator", ["SkipLayerNormalization", "SkipSimplifiedLayerNormalization"])
@pytest.mark.parametrize("returned", [False, True])
@pytest.mark.parametrize("computed", [False, True])
def test_a_norm_of_a_sum_still_returns_its_statistics(operator: str, returned: bool, computed: bool) -> None:
    """The mean and one over the deviation are those of all slots, removed ones included."""
    net = Net("skip_statistics")
    x = net.input("x", (B, S, 10))
    first, second = (net.dense(x, 10, 8, bias=False, name=name) for name in ("left", "right"))
    gamma = net.const(net.positive(8), "gamma")
    if computed:
        gamma = net.op("Mul", gamma, net.op("Sigmoid", net.reduce("ReduceSum", net.input("g", (1,)), 0)))
    shift = [net.bias(8, "beta")] if operator == "SkipLayerNormalization" else []
    y, mean, inverse, total = net.ops(
        operator, first, second, gamma, *shift, outputs=4, domain="com.microsoft", epsilon=0.1
    )
    y = net.dense(net.op("Add", y, total), 8, 5)
    if returned:
        # Without a shift there is no mean either: onnxruntime gives zeros.
        statistics = [mean, inverse] if shift else [inverse]
        model = net.build(y, *statistics, shapes=[(B, S, 5), *[(B, S, 1) for _ in statistics]])
    else:
        model = built(net, net.op("Add", net.op("Mul", y, inverse), mean), B, S, 5)
    check_statistics(model)


def check_statistics(model: onnx.ModelProto) -> None:
    """Half of the normalised slots go, judged against the original zeroed by hand."""
    state = ozgraph.analyze(model, rescale=True).state
    (family,) = state.families
    assert (family.atom.size, family.exactness) == (8, "rescaled")
    check_removal(model, state, [family])
    check_removal(model, state, [family], all_but_one=True)


@pytest.mark.parametrize(
    ("operator", "words"),
    [("PackedAttention", "packed"), ("QAttention", "stored integers"), ("MoE", "depends on the data")],
)
def test_operators_that_freeze_have_a_reason_of_their_own(operator: str, words: str) -> None:
    from ozgraph.rules.table import registered_freezing

    assert words in registered_freezing()[f"com.microsoft.{operator}"]


@pytest.mark.parametrize("position", [12, 13, 14, 15])
def test_grouped_query_attention_with_scales_or_norms_of_its_own_is_refused(position: int) -> None:
    operands = [(2, 5, 32), (2, 5, 16), (2, 5, 16), *[None] * (position - 3), (8,)]
    state = applied("com.microsoft.GroupQueryAttention", *operands, to=[(2, 5, 32)], num_heads=4, kv_num_heads=2)
    assert not any((state.dims.ids(dim) >= 0).any() for axes in state.axes.values() for dim in axes)
    assert {row.text for row in state.dims.reasons} == {"its cache is quantised or its operands are normalised inside"}


def test_multi_head_attention_with_beams_is_refused() -> None:
    operands = [(2, 1, 24), (2, 1, 24), (2, 1, 24), *[None] * 6, (2, 3, 8)]
    state = applied("com.microsoft.MultiHeadAttention", *operands, to=[(2, 1, 24)], num_heads=4)
    assert {row.text for row in state.dims.reasons} == {"its cache is shared and indexed at run time"}


def with_elements(model: onnx.ModelProto, name: str, element: int, *places: slice | int) -> onnx.ModelProto:
    for tensor in model.graph.initializer:
        if tensor.name == name:
            array = numpy_helper.to_array(tensor).copy()
            array[places] = element
            tensor.CopyFrom(numpy_helper.from_array(array, name))
    return model


def test_a_block_goes_by_its_scale_and_not_by_its_codes() -> None:
    """Codes of zero stand for any number, and a run of blocks goes only as a whole."""
    model = MODELS["contrib_packed"]()
    run = slice(0, 32)
    for name in ("gate.codes", "up.codes"):
        model = with_elements(model, name, 0, run)
    assert ozgraph.eliminate(model).report.removed_slots == 0
    columns = with_elements(MODELS["contrib_packed"](), "down.codes", 0, slice(None), slice(0, 2))
    report = ozgraph.eliminate(columns).report
    assert report.removed_slots == 0
    assert not report.frozen_by_verification, "it was not even tried"
    half = with_elements(MODELS["contrib_packed"](), "gate.scales", 0, slice(0, 16))
    assert ozgraph.eliminate(half).report.removed_slots == 0
    whole = with_elements(MODELS["contrib_packed"](), "gate.scales", 0, run)
    result = ozgraph.eliminate(whole)
    assert result.report.removed_slots == 1
    products = [node for node in result.model.graph if node.op_type == "MatMulNBits"]
    sizes = sorted((node.attributes["K"].as_int(), node.attributes["N"].as_int()) for node in products)
    assert sizes == [(64, 5), (64, 64), (64, 64), (64, 64)]


def test_what_reads_a_block_loses_its_scales_and_keeps_its_codes() -> None:
    """A sigmoid of zero is none, so that the columns behind it go as well."""
    net = Net("consumers", opset=21)
    x = net.op("Sigmoid", net.dense(net.input("x", (B, S, 6)), 6, 32, name="fc"))
    model = built(net, packed(net, x, 32, 5, block=16, bits=8, name="head"), B, S, 5)
    (family,) = ozgraph.analyze(model).report.families
    assert family.exactness == "consumers"
    assert {member.tensor for member in family.members if member.role == "consumer"} == {"head.scales"}
    halved(model)


def test_numbers_are_counted_and_not_the_bytes_that_hold_them() -> None:
    report = ozgraph.analyze(MODELS["contrib_packed"]()).report
    codes = 8 * 64 + 64 * 96 * 3 + 64 * 5
    scales = 8 * 4 + 96 * 4 * 2 + 64 * 6 + 5 * 4
    assert report.parameters == codes + scales + 1
    gate = next(family for family in report.families if family.dim == "gate.scales")
    # 32 rows of gate and up, and 32 columns of down.
    assert gate.parameters_per_slot == 32 * 64 * 3 + 32 * 4 * 2 + 64 * 2
    assert gate.macs_per_slot == B * S * 32 * 64 * 3


@pytest.mark.parametrize(("n_in", "points"), [(64, True), (64, False), (48, True), (60, False)])
def test_every_layout_counts_its_products(n_in: int, points: bool) -> None:
    net = Net("counted", opset=21)
    y = packed(net, net.input("x", (B, S, n_in)), n_in, 5, block=16, bits=4, name="head", points=points)
    assert ozgraph.analyze(built(net, y, B, S, 5)).report.macs == B * S * n_in * 5


@pytest.mark.parametrize(("bits", "symmetric", "level"), [(4, True, 0), (4, False, 0), (8, False, 0), (4, True, 4)])
def test_files_of_onnxruntimes_own_quantizer_prune(
    bits: int, symmetric: bool, level: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    quantizer = pytest.importorskip("onnxruntime.quantization.matmul_nbits_quantizer")
    net = Net("quantized", opset=21)
    x = net.input("x", (2, 3, 64))
    gate, up = (net.op("MatMul", x, net.weight(64, 256, fan=64, hint=name)) for name in ("gate", "up"))
    y = net.op("MatMul", net.op("Mul", net.silu(gate), up), net.weight(256, 64, fan=256, hint="down"))
    model = net.build(net.op("MatMul", net.op("Add", x, y), net.weight(64, 7, fan=64, hint="head")))
    with caplog.at_level("ERROR"):
        made = quantizer.MatMulNBitsQuantizer(
            model, bits=bits, block_size=32, is_symmetric=symmetric, accuracy_level=level
        )
        made.process()
    assert {node.op_type for node in made.model.model.graph.node} >= {"MatMulNBits"}
    path = tmp_path / "small.onnx"
    report = ozgraph.prune(made.model.model, path, target=ozgraph.Target(macs=0.4)).report
    assert not report.frozen_by_verification
    assert report.macs_after <= 0.6 * report.macs_before
    assert ozgraph.load(path).values["gate_scales"].shape in {(128, 2), (64, 2)}

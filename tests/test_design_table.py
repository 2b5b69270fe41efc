"""What falls out of the operators' equations: one test for each row of the design's table, and floors for real nets."""

from __future__ import annotations

from functools import cache

import pytest

import ozgraph
from models.exported import EXPORTED
from models.halving import families_by_dim
from models.rows import DESIGN_TABLE, ROWS
from ozgraph.passes.families import Family
from ozgraph.passes.state import State


@cache
def analyzed(name: str) -> State:
    return ozgraph.analyze(ROWS[name](), rescale=True).state


def produced(name: str) -> dict[str, list[Family]]:
    """The families of a model by the weights they are made from."""
    return families_by_dim(analyzed(name))


def only(families: list[Family]) -> Family:
    (family,) = families
    return family


def shares(name: str, *weights: str) -> bool:
    """Whether all of these weights are made from the same families."""
    found = produced(name)
    return all(found[weight] == found[weights[0]] for weight in weights)


def sizes(families: list[Family]) -> list[int]:
    return sorted(family.atom.size for family in families)


def sliced(family: Family) -> set[tuple[str, int]]:
    """(weight, axis) of everything that shrinks with a family."""
    return {(value.name, axis) for value, axis in family.slices}


def columns(name: str, family: Family, weight: str, axis: int) -> int:
    """How many positions of a weight's axis one slot of a family takes along."""
    state = analyzed(name)
    value = next(value for value, _ in family.slices if value.name == weight)
    table = state.dims.ids(state.axes[value][axis])
    return int((table == family.atom.base).any(axis=1).sum())


INPUT = "it is an input of the model (--allow-io lets it shrink)"
OUTPUT = "it is an output of the model (--allow-io lets it shrink)"


def reasons(name: str) -> set[str]:
    return {row.reason for row in ozgraph.analyze(ROWS[name]()).report.frozen}


def test_a_residual_add_ties_the_producers_of_both_branches() -> None:
    assert shares("residual_add", "stem.weight", "layer1.conv2.weight", "layer2.conv2.weight")
    assert sizes(analyzed("residual_add").families) == [8, 12, 12], "what is inside the blocks stays apart"
    assert shares("residual_sum_of_three", "branch1.weight", "branch3.weight", "branch5.weight")


def test_a_residual_from_the_input_holds_the_stream_and_frees_the_inside() -> None:
    assert set(produced("residual_from_input")) == {"conv.weight", "conv.bias"}
    assert {INPUT, OUTPUT} & reasons("residual_from_input")


def test_concatenated_slots_keep_their_identity_through_any_offset() -> None:
    found = produced("concat")
    assert [only(found[f"branch{k}.weight"]).atom.size for k in (1, 3, 5)] == [4, 6, 5]
    assert found["bn.weight"] == [only(found[f"branch{k}.weight"]) for k in (1, 3, 5)]
    dense = only(produced("concat_dense")["dense0.weight"])
    assert {("dense1.weight", 1), ("dense2.weight", 1), ("head.weight", 1)} <= sliced(dense)


def test_a_slot_that_is_concatenated_twice_takes_both_places_along() -> None:
    for weight, consumer in (("stem.weight", "twice.weight"), ("twice.weight", "crelu.weight")):
        assert columns("concat_with_itself", only(produced("concat_with_itself")[weight]), consumer, 1) == 2


def test_a_concat_with_the_input_frees_the_other_part() -> None:
    assert only(produced("concat_with_input")["stem.weight"]).atom.size == 6


def test_the_parts_of_a_split_are_pruned_apart() -> None:
    stem = produced("split")["stem.weight"]
    assert sizes(stem) == [3, 4, 5]
    assert [family.exactness for family in stem] == ["exact", "exact", "consumers"], "a sigmoid of zero is not zero"


def test_halves_that_multiply_are_tied_slot_by_slot() -> None:
    family = only(produced("split_gate")["fc1.weight"])
    assert family.atom.size == 8 and columns("split_gate", family, "fc1.weight", 0) == 2


def test_slices_cut_where_they_overlap() -> None:
    assert sizes(produced("slice_halves")["stem.weight"]) == [3, 3, 3, 3]
    assert only(produced("slice_strided")["stem.weight"]).atom.size == 12, "even and odd channels are all free"
    mirrored = only(produced("slice_reversed")["stem.weight"])
    assert mirrored.atom.size == 4 and columns("slice_reversed", mirrored, "stem.weight", 0) == 2


def test_a_slice_that_is_an_output_freezes_only_its_own_slots() -> None:
    state = analyzed("slice_frozen_part")
    family = only(produced("slice_frozen_part")["stem.weight"])
    assert int(state.dims.free_slots(family.atom).sum()) == 8


def test_removing_a_channel_removes_its_columns_of_the_linear_layer_behind_a_flatten() -> None:
    assert columns("flatten_linear", only(produced("flatten_linear")["conv2.weight"]), "fc1.weight", 1) == 2 * 2
    channel = only(produced("reshape_linear")["conv1.weight"])
    for weight in ("minus_one.weight", "zero.weight", "last.weight"):
        assert columns("reshape_linear", channel, weight, 1) == 2 * 2


def test_a_grouped_convolution_is_pruned_inside_its_groups_or_by_whole_groups() -> None:
    found = produced("grouped_conv")
    groups, inside = found["grouped.weight"]
    assert (groups.atom.size, inside.atom.size) == (3, 4)
    assert inside in groups.overlaps and groups in inside.overlaps
    assert inside.active and not groups.active, "channels inside the groups by default"
    entering = next(family for family in found["reduce.weight"] if family is not groups)
    assert entering is not inside and entering.active, "in and out of a group are apart"


def test_grouped_convolutions_with_different_groups_follow_each_other() -> None:
    found = produced("grouped_conv_uneven")
    assert found["reduce.weight"] and found["two.weight"] and found["four.weight"]
    assert any(family.active for family in found["two.weight"]) and any(f.active for f in found["four.weight"])


def test_a_residual_around_a_grouped_convolution_ties_its_in_and_out() -> None:
    assert shares("grouped_conv_residual", "stem.weight", "grouped.weight")


def test_in_weight_and_out_of_a_depthwise_convolution_are_one_dim() -> None:
    family = only(produced("depthwise_conv")["depthwise.weight"])
    assert family.atom.size == 16 and shares("depthwise_conv", "expand.weight", "depthwise.weight")
    assert {("depthwise.weight", 0), ("expand.weight", 0), ("project.weight", 1)} <= sliced(family)


def test_a_depthwise_channel_takes_its_multiplied_outputs_along() -> None:
    channel = next(f for f in produced("depthwise_multiplier")["expand.weight"] if f.atom.size == 6)
    assert columns("depthwise_multiplier", channel, "depthwise.weight", 0) == 2


def test_a_depthwise_convolution_on_the_input_stays_and_says_why() -> None:
    assert "depthwise.weight" not in produced("depthwise_on_input")
    assert INPUT in reasons("depthwise_on_input")


def test_a_channel_shuffle_needs_no_special_case() -> None:
    state = analyzed("channel_shuffle")
    free = sum(int(state.dims.free_slots(family.atom).sum()) for family in state.families)
    assert free >= 42, "every channel of every layer but the last"
    assert only(produced("channel_shuffle")["unit1.dw.weight"]).atom.size == 8
    assert only(produced("channel_shuffle_groups")["stem.weight"]).atom.size == 4


def test_with_separate_projections_the_width_of_q_and_k_is_apart_from_that_of_v() -> None:
    for name, width in (("attention_separate", 3), ("attention_cross", 6)):
        found = produced(name)
        heads, contracted = found["q_proj.weight"]
        assert (heads.atom.size, contracted.atom.size) == (4, 6)
        assert found["k_proj.weight"] == [heads, contracted]
        assert found["v_proj.weight"][0] is heads and found["v_proj.weight"][1].atom.size == width
        assert found["v_proj.weight"][1] is not contracted
        assert heads.active and not contracted.active, "whole heads by default"


def test_fused_qkv_ties_the_widths_of_q_k_and_v() -> None:
    heads, width = produced("attention_fused_qkv")["qkv.weight"]
    assert (heads.atom.size, width.atom.size) == (4, 6)
    for family in (heads, width):
        assert ("proj.weight", 0) in sliced(family)
    assert columns("attention_fused_qkv", width, "qkv.weight", 1) == 3 * 4, "one of each head of q, k and v"
    assert columns("attention_fused_qkv", heads, "qkv.weight", 1) == 3 * 6


def test_a_split_projection_has_heads_in_common() -> None:
    heads = produced("attention_split_qkv")["c_attn.weight"][0]
    assert heads.atom.size == 4 and columns("attention_split_qkv", heads, "c_attn.weight", 1) == 3 * 6


def test_a_kv_head_takes_its_query_heads_along() -> None:
    found = produced("attention_grouped_query")
    kv = next(family for family in found["k_proj.weight"] if family.atom.size == 2)
    assert kv.active and kv.exactness == "exact" and kv in found["q_proj.weight"] and kv in found["v_proj.weight"]
    assert columns("attention_grouped_query", kv, "q_proj.weight", 1) == 3 * columns(
        "attention_grouped_query", kv, "k_proj.weight", 1
    )


def test_query_heads_of_a_shared_kv_head_need_their_consumers_zeroed() -> None:
    repeats = next(f for f in produced("attention_grouped_query")["q_proj.weight"] if f.atom.size == 3)
    heads = next(f for f in produced("attention_multi_query")["q_proj.weight"] if f.atom.size == 4)
    for family in (repeats, heads):
        assert family.exactness == "consumers"
        assert [(m.value.name, m.axis) for m in family.members if m.role == "consumer"] == [("o_proj.weight", 0)]


def test_rotary_embedding_ties_the_slots_of_a_pair() -> None:
    for name in ("rotary_embedding", "rotary_interleaved"):
        pairs = next(family for family in produced(name)["q_proj.weight"] if family.atom.size == 3)
        assert pairs in produced(name)["k_proj.weight"] and pairs not in produced(name)["v_proj.weight"]
        assert columns(name, pairs, "q_proj.weight", 1) == 2 * 4, "both slots of the pair in every head"


@pytest.mark.parametrize(("name", "gates"), [("lstm", 4), ("gru", 3)])
def test_hidden_units_are_pruned_through_all_gates(name: str, gates: int) -> None:
    first = only(produced(name)[f"{name}1.W"])
    assert first.atom.size == 10
    assert columns(name, first, f"{name}1.W", 1) == gates
    assert columns(name, first, f"{name}1.B", 1) == 2 * gates
    assert columns(name, first, f"{name}1.R", 2) == 1 and columns(name, first, f"{name}2.W", 2) == 1


def test_both_directions_share_their_hidden_units() -> None:
    family = only(produced("lstm_bidirectional")["lstm.W"])
    assert {("lstm.h0", 2), ("lstm.c0", 2), ("lstm.P", 1)} <= sliced(family)
    assert only(produced("rnn")["rnn.W"]).atom.size == 10


def test_every_model_of_the_table_has_something_to_prune() -> None:
    for names in DESIGN_TABLE.values():
        for name in names:
            assert analyzed(name).families, name


FLOORS = {
    "resnet": (0.99, 12),
    "resnext": (0.99, 9),
    "mobilenet_v3": (0.99, 12),
    "shufflenet_v2": (0.97, 12),
    "densenet": (0.98, 17),
    "vit": (0.99, 10),
    "swin": (0.89, 14),
    "convnext": (0.84, 4),
    "gqa_decoder": (0.99, 11),
    "gpt2": (0.99, 9),
    "recurrent": (0.97, 2),
    "unet": (0.92, 2),
}
"""Of a network in any form: the share of its parameters that can go, and the families that there are at least."""

LOWER = {
    "shufflenet_v2_raw": (0.84, 7),  # tensors in a sequence (SplitToSequence) are not followed
    "shufflenet_v2_dynamic_raw": (0.84, 7),
    "gpt2_raw": (0.98, 3),
    "gpt2_dynamic_raw": (0.98, 3),
    "vit_dynamic": (0.99, 7),  # some head dims are one with sizes computed at run time
    "vit_dynamic_raw": (0.99, 7),
    "gqa_decoder_dynamic": (0.99, 7),
    "gqa_decoder_dynamic_raw": (0.99, 7),
    "gqa_decoder_opset23": (0.99, 3),
    "vit_opset23": (0.98, 4),
}
"""Forms in which less can be seen."""


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPORTED)
def test_nothing_freezes_in_silence(name: str) -> None:
    share, families = LOWER.get(name) or next(floor for net, floor in FLOORS.items() if name.startswith(net))
    report = ozgraph.analyze(EXPORTED[name](), rescale=True).report
    assert report.prunable_parameters >= share * report.parameters
    assert len(report.families) >= families
    assert all(row.reason for row in report.frozen), "every frozen slot has a reason"

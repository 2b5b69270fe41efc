"""No part of a reported group can go by itself: an exhaustive search, independent of the solver, finds none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx
import pytest
from minimal.campaign import GRAPHS_IN_TESTS, graphs
from minimal.groups import COARSE, SMALLEST, UNSURE, Verdict, analysed, group, groups, judged
from minimal.machine import Machine
from minimal.search import Search
from minimal.small import MODELS
from onnx_ir import serde

import ozgraph
from models.building import Net
from models.feeding import feeds
from models.rows import ROWS
from ozgraph.graph import Op
from ozgraph.rules.notation import Concat, Letter
from ozgraph.rules.rule import Spec, with_describe
from ozgraph.rules.table import Override, registered


def verdicts(model: onnx.ModelProto, slots: int) -> list[Verdict]:
    machine, inputs = Machine(model), feeds(model, 3)
    return [judged(machine, inputs, one) for one in groups(analysed(model), slots)]


@pytest.mark.parametrize("name", MODELS)
def test_every_group_of_a_small_model_is_the_smallest(name: str) -> None:
    found = verdicts(MODELS[name](), 8)
    assert found
    assert not [one for one in found if one.outcome != SMALLEST]


ROWS_SEARCHED = (
    "residual_add", "concat", "concat_dense", "concat_with_itself", "split", "slice_halves", "slice_strided",
    "roll_channels", "flatten_linear", "depthwise_multiplier", "channel_shuffle_groups", "squeeze_excite",
    "outer_product", "pad_resize_tile", "pixel_shuffle", "einsum", "reduce_over_channels", "rms_fused", "class_token",
    "group_norm_op", "integers_are_not_parameters", "weight_normalised", "dead_consumer",
    "dead_constant", "tied_weight", "tied_transposed", "gemm_variants", "opset11_attributes",
)  # fmt: skip


@pytest.mark.parametrize("name", ROWS_SEARCHED)
def test_the_first_group_of_every_family_is_the_smallest(name: str) -> None:
    found = verdicts(ROWS[name](), 1)
    assert found
    assert not [one for one in found if one.outcome != SMALLEST]


def test_the_groups_of_a_computed_weight_are_the_smallest() -> None:
    model = ROWS["weight_standardised"]()
    found = verdicts(serde.serialize_model(ozgraph.eliminate(model).model), 8)  # written as it was read
    assert len({one.group.family for one in found}) == 2
    assert not [one for one in found if one.outcome != SMALLEST]


def test_no_group_of_a_random_model_has_a_part_that_can_go() -> None:
    line = graphs(0, 0, GRAPHS_IN_TESTS)
    assert not line["failures"], line["failures"]
    assert line["counts"][SMALLEST] > 5 * line["counts"].get(UNSURE, 0)


# -- the search itself -----------------------------------------------------------------------------------------------


def two_layers() -> onnx.ModelProto:
    net = Net("two_layers")
    x = net.op("Relu", net.linear(net.input("x", (8, 3)), 3, 4, name="fc1"))
    return net.build(net.linear(x, 4, 2, name="fc2"))


def test_all_subsets_of_a_group_are_tried_and_only_the_whole_can_go() -> None:
    model = two_layers()
    state = analysed(model)
    one = group(state, state.families[0], 2)
    assert one.slices == {("fc1.weight", 0, 2), ("fc1.bias", 0, 2), ("fc2.weight", 1, 2)}
    found = Search(Machine(model), feeds(model, 3), one.slices, one.members).removable()
    assert found == {frozenset(), one.slices}


def test_two_groups_taken_together_are_found_to_be_two() -> None:
    model = two_layers()
    state = analysed(model)
    both = [group(state, state.families[0], slot) for slot in (1, 2)]
    slices = both[0].slices | both[1].slices
    found = Search(Machine(model), feeds(model, 3), slices, slices).removable()
    assert found == {frozenset(), both[0].slices, both[1].slices, slices}


def test_a_slot_that_is_not_zero_where_it_is_mixed_cannot_go() -> None:
    net = Net("softmax")
    x = net.op("Softmax", net.linear(net.input("x", (2, 3)), 3, 4, name="fc1"), axis=1)
    model = net.build(net.linear(x, 4, 2, name="fc2"))
    slices = frozenset({("fc1.weight", 0, 1), ("fc1.bias", 0, 1), ("fc2.weight", 1, 1)})
    assert Search(Machine(model), feeds(model, 3), slices, slices).removable() == {frozenset()}


# -- rules that tie too much, which the search must notice -----------------------------------------------------------


def tied_parts(op: Op) -> Spec:
    """A concatenation that claims that its two operands are the same slots."""
    rank = len(op.inputs[0].shape or ()) if op.inputs[0] is not None else 0
    names = tuple(Letter(f"a{axis}") for axis in range(rank))
    part = (names[0], Letter("c"), *names[2:])
    return Spec((part, part), ((names[0], Concat((Letter("c"), Letter("c"))), *names[2:]),))


def mirrored(op: Op) -> Spec:
    """A rectifier that claims that slot i goes with slot n - 1 - i."""
    source = op.inputs[0]
    assert source is not None and source.shape is not None
    rows, columns = Letter("n"), Letter("c")
    return Spec(
        ((rows, columns),),
        ((rows, columns),),
        ties=((columns, Letter("mirror")),),
        takes={"mirror": ("c", np.arange(source.shape[1])[::-1])},
    )


def two_parts() -> onnx.ModelProto:
    net = Net("two_parts")
    x = net.input("x", (2, 5))
    joined = net.op("Concat", net.linear(x, 5, 3, name="left"), net.linear(x, 5, 3, name="right"), axis=1)
    return net.build(net.linear(net.op("Tanh", joined), 6, 2, name="fc"))


@pytest.mark.parametrize(
    ("operator", "claim", "build"), [("Concat", tied_parts, two_parts), ("Relu", mirrored, two_layers)]
)
def test_a_rule_that_ties_too_much_is_caught(
    operator: str, claim: Callable[[Op], Spec], build: Callable[[], onnx.ModelProto]
) -> None:
    right = verdicts(build(), 4)
    assert {one.outcome for one in right} == {SMALLEST}
    with Override(operator, with_describe(registered()[operator], claim)):
        wrong = verdicts(build(), 4)
    assert {one.outcome for one in wrong} == {COARSE}
    assert len(wrong) < len(right)
    smallest = {one.group.slices for one in right}
    assert all(any(one.part == slices for slices in smallest) for one in wrong)


def test_a_group_that_the_search_does_not_understand_is_no_evidence() -> None:
    model = two_layers()
    state = analysed(model)
    one = group(state, state.families[0], 0)
    part = replace(one, slices=one.slices - {("fc1.bias", 0, 0)})
    assert judged(Machine(model), feeds(model, 3), part).outcome == UNSURE

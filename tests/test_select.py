"""Selection: the target is met and hardly passed, whatever is counted, in the order that the scores ask for."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import onnx
import pytest

import ozgraph
from models.building import Net
from models.rows import ROWS
from ozgraph.errors import UsageError
from ozgraph.passes.families import Family
from ozgraph.passes.select import Ranking, Select
from ozgraph.passes.state import State
from ozgraph.target import Target

Scores = npt.NDArray[np.float64]


def layers(*widths: int, scales: Sequence[float] | None = None) -> onnx.ModelProto:
    """Linear layers with ReLU between; ``scales`` multiply the weights of each."""
    net = Net("layers")
    x = net.input("x", (4, widths[0]))
    for number, (n_in, n_out) in enumerate(pairwise(widths)):
        scale = 1.0 if scales is None else scales[number]
        weight = net.const(net.normal(n_out, n_in, scale=scale), f"fc{number}.weight")
        x = net.op("Gemm", net.op("Relu", x) if number else x, weight, hint=f"fc{number}", transB=1)
    return net.build(x)


def selected(model: onnx.ModelProto, select: Select) -> State:
    state = ozgraph.analyze(model).state
    select.run(state)
    return state


def share(state: State, unit: str, chosen: object = None) -> float:
    """The fraction that is removed."""
    cost = state.cost
    assert cost is not None
    if unit == "groups":
        return state.chosen.total / sum(family.atom.size for family in state.families if family.active)
    count = getattr(cost, unit)
    return float(1 - count(state.chosen) / count())


def gone(state: State, name: str = "fc0.weight") -> list[int]:
    family = next(family for family in state.families if family.dim == name)
    return np.flatnonzero(state.chosen.mask(family.atom)).tolist()


# -- the target ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("unit", ["groups", "parameters", "macs"])
@pytest.mark.parametrize("wanted", [0.0, 0.1, 0.25, 0.5, 0.8])
@pytest.mark.parametrize("round_to", [1, 4])
def test_never_less_than_the_target_and_more_by_at_most_one_block(unit: str, wanted: float, round_to: int) -> None:
    model = layers(6, 24, 40, 16, 3)
    select = Select(Target(**{unit: wanted}), round_to=round_to)
    state = selected(model, select)
    assert share(state, unit) >= wanted
    if state.chosen:
        # Without the last block that was taken, the target is not met.
        ranking = select.rank(state)
        taken = next(k for k in range(1, len(ranking.blocks) + 1) if ranking.removal(k).total == state.chosen.total)
        state.chosen = ranking.removal(taken - 1)
        assert share(state, unit) < wanted
        assert ranking.blocks[taken - 1][1].sum() <= round_to


def test_a_target_of_nothing_removes_nothing() -> None:
    assert not selected(layers(6, 24, 3), Select(Target(macs=0.0))).chosen


@pytest.mark.parametrize("unit", ["groups", "parameters", "macs"])
def test_a_target_out_of_reach_says_what_is_within_reach(unit: str) -> None:
    with pytest.raises(UsageError, match=r"the target cannot be met: at most \d+\.\d% can be removed") as caught:
        selected(layers(6, 8, 3), Select(Target(**{unit: 0.99})))
    assert "ozgraph analyze" in str(caught.value)
    most = float(str(caught.value).split("at most ")[1].split("%")[0]) / 100
    assert share(selected(layers(6, 8, 3), Select(Target(**{unit: most - 0.01}))), unit) >= most - 0.01


@pytest.mark.parametrize("fraction", [-0.1, 1.0, 1.5, float("nan"), float("inf")])
def test_a_target_is_a_fraction(fraction: float) -> None:
    with pytest.raises(UsageError, match=f"from 0 up to but without 1; got macs={fraction}"):
        Target(macs=fraction)


def test_a_target_names_exactly_one_thing() -> None:
    with pytest.raises(UsageError, match="got none"):
        Target()
    with pytest.raises(UsageError, match="got groups, macs"):
        Target(groups=0.5, macs=0.5)


# -- blocks ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("round_to", [2, 4, 8])
@pytest.mark.parametrize("width", [24, 30, 37])
def test_kept_slots_are_a_multiple_of_round_to(round_to: int, width: int) -> None:
    for wanted in (0.05, 0.3, 0.6):
        state = selected(layers(6, width, 3), Select(Target(groups=wanted), round_to=round_to))
        assert (width - len(gone(state))) % round_to == 0


def test_wide_families_are_rounded_to_eight_by_default_and_narrow_ones_are_not() -> None:
    state = selected(layers(6, 64, 20, 3), Select(Target(groups=0.4)))
    assert len(gone(state, "fc0.weight")) % 8 == 0
    for wanted in (1, 2, 3, 4):
        assert len(gone(selected(layers(6, 20, 3), Select(Target(groups=wanted / 20))))) == wanted


@pytest.mark.parametrize("min_kept", [1, 5, 12])
def test_every_family_keeps_at_least_min_kept_slots(min_kept: int) -> None:
    state = ozgraph.analyze(layers(6, 24, 16, 3)).state
    ranking = Select(min_kept=min_kept, round_to=1).rank(state)
    everything = ranking.removal(len(ranking.blocks))
    assert [family.atom.size - everything.count(family.atom) for family in state.families] == [min_kept] * 2


@pytest.mark.parametrize(("option", "number"), [("round_to", 0), ("round_to", -8), ("min_kept", 0)])
def test_senseless_numbers_are_refused(option: str, number: int) -> None:
    with pytest.raises(UsageError, match=f"{option} must be at least 1, got {number}"):
        selected(layers(6, 8, 3), Select(**{option: number}))


def test_an_axis_that_sees_only_some_slots_keeps_one_of_them() -> None:
    # Four of twelve channels feed a layer of their own; they are also the smallest by far.
    net = Net("partial")
    weight = net.normal(12, 6)
    weight[8:] *= 1e-3
    x = net.op("Relu", net.op("Gemm", net.input("x", (4, 6)), net.const(weight, "fc.weight"), transB=1))
    whole = net.dense(x, 12, 3, name="whole")
    some = net.dense(net.op("Gather", x, net.ints(8, 9, 10, 11), axis=1), 4, 3, name="some")
    state = ozgraph.analyze(net.build(whole, some)).state
    ranking = Select(round_to=1).rank(state)
    for length in range(len(ranking.blocks) + 1):
        removal = ranking.removal(length)
        for axes in state.axes.values():
            assert all(removal.keep(state.dims.ids(dim)).any() for dim in axes)


@pytest.mark.parametrize("name", ["concat_with_itself", "slice_frozen_part", "gather_channels", "attention_fused_qkv"])
def test_every_axis_of_every_value_keeps_a_position_whatever_is_chosen(name: str) -> None:
    state = ozgraph.analyze(ROWS[name]()).state
    ranking = Select(round_to=1).rank(state)
    everything = ranking.removal(len(ranking.blocks))
    for axes in state.axes.values():
        assert all(everything.keep(state.dims.ids(dim)).any() for dim in axes)


# -- what may go -----------------------------------------------------------------------------------------------------


def test_include_leaves_all_other_families_alone() -> None:
    state = selected(layers(6, 16, 16, 3), Select(Target(groups=0.2), include=("fc0.*",)))
    assert gone(state, "fc0.weight")
    assert gone(state, "fc1.weight") == []
    assert {family.dim: family.held for family in state.families} == {"fc0.weight": None, "fc1.weight": "not included"}


def test_exclude_holds_a_family_and_says_so() -> None:
    state = selected(layers(6, 16, 16, 3), Select(Target(groups=0.3), exclude=("fc0.weight",)))
    assert gone(state, "fc0.weight") == []
    assert {family.dim: family.held for family in state.families} == {"fc0.weight": "excluded", "fc1.weight": None}


def test_a_family_is_named_by_its_nodes_as_well() -> None:
    state = selected(layers(6, 16, 16, 3), Select(Target(groups=0.3), exclude=("node_fc0",)))
    assert gone(state, "fc0.weight") == []


@pytest.mark.parametrize("option", ["include", "exclude"])
def test_a_glob_that_matches_nothing_is_an_error(option: str) -> None:
    with pytest.raises(UsageError, match=r"'nothing_\*' matches no tensor, node or id of a family"):
        selected(layers(6, 16, 3), Select(**{option: ("nothing_*",)}))


def test_inactive_families_stay() -> None:
    state = selected(ROWS["attention_separate"](), Select(Target(parameters=0.2), round_to=1))
    assert all(state.chosen.count(family.atom) == 0 for family in state.families if not family.active)


# -- criteria --------------------------------------------------------------------------------------------------------


def by_hand(weight: list[list[float]]) -> onnx.ModelProto:
    net = Net("by_hand")
    array = np.array(weight, np.float32)
    x = net.op("Gemm", net.input("x", (4, array.shape[1])), net.const(array, "fc0.weight"), transB=1)
    return net.build(net.dense(net.op("Relu", x), len(array), 3))


def test_l1_and_l2_differ_where_they_should() -> None:
    # Row 0: l1 4, l2 2. Row 1: l1 3, l2 3. Row 2 is large in both.
    model = by_hand([[1, 1, 1, 1], [3, 0, 0, 0], [9, 9, 9, 9]])
    assert gone(selected(model, Select(Target(groups=0.3), criterion="l1"))) == [1]
    assert gone(selected(model, Select(Target(groups=0.3), criterion="l2"))) == [0]


def test_scores_sum_over_all_members_of_a_group() -> None:
    net = Net("with_bias")
    weight = net.const(np.array([[1.0], [2.0], [3.0]], np.float32), "fc0.weight")
    x = net.op("Gemm", net.input("x", (4, 1)), weight, net.const(np.array([9, 0, 0], np.float32), "fc0.bias"), transB=1)
    state = selected(net.build(net.dense(net.op("Relu", x), 3, 2)), Select(Target(groups=0.3), criterion="l1"))
    assert gone(state) == [1]


def test_random_depends_on_the_seed_alone() -> None:
    model = layers(6, 24, 24, 3)

    def chosen(seed: int) -> list[list[int]]:
        state = selected(model, Select(Target(groups=0.5), criterion="random", seed=seed))
        return [gone(state, "fc0.weight"), gone(state, "fc1.weight")]

    assert chosen(3) == chosen(3)
    assert chosen(3) != chosen(4)
    assert chosen(3)[0] != chosen(3)[1]


def test_a_users_function_scores_slots() -> None:
    def last_go_first(state: State, family: Family) -> Scores:
        return -np.arange(family.atom.size, dtype=np.float64)

    state = selected(layers(6, 10, 3), Select(Target(groups=0.3), criterion=last_go_first))
    assert gone(state) == [7, 8, 9]


def test_a_users_function_must_return_one_score_a_slot() -> None:
    def wrong(state: State, family: Family) -> Scores:
        return np.zeros(family.atom.size + 1)

    with pytest.raises(
        UsageError, match=r"returned shape \(11,\) for 'fc0.weight'; it must be one score a slot, \(10,\)"
    ):
        selected(layers(6, 10, 3), Select(criterion=wrong))


def test_an_unknown_criterion_lists_those_there_are() -> None:
    with pytest.raises(UsageError, match="no criterion 'l3'; there are l1, l2, random"):
        selected(layers(6, 10, 3), Select(criterion="l3"))


def test_normalised_by_family_a_small_layer_does_not_go_first_and_globally_it_does() -> None:
    model = layers(6, 16, 16, 3, scales=(1.0, 1e-3, 1.0))
    fair = selected(model, Select(Target(groups=0.4), normalise="family"))
    assert gone(fair, "fc0.weight")
    assert gone(fair, "fc1.weight")
    raw = selected(model, Select(Target(groups=0.4), normalise="global"))
    assert gone(raw, "fc0.weight") == []
    assert gone(raw, "fc1.weight")


def test_an_unknown_normalisation_is_refused() -> None:
    with pytest.raises(UsageError, match="normalise is 'family' or 'global', got 'layer'"):
        selected(layers(6, 10, 3), Select(normalise="layer"))


def test_scores_of_zero_do_not_divide_by_zero() -> None:
    def nothing(state: State, family: Family) -> Scores:
        return np.zeros(family.atom.size)

    assert len(gone(selected(layers(6, 10, 3), Select(Target(groups=0.5), criterion=nothing)))) == 5


def test_a_ranking_is_a_prefix_order() -> None:
    state = ozgraph.analyze(layers(6, 24, 16, 3)).state
    ranking = Select(round_to=1).rank(state)
    assert isinstance(ranking, Ranking)
    totals = [ranking.removal(length).total for length in range(len(ranking.blocks) + 1)]
    assert totals == list(range(len(totals)))

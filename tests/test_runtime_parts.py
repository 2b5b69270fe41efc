"""The parts of the training runtime, each against a direct computation."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from training.hand_made import Loose, family, groups, occurrence  # noqa: E402

from ozgraph.errors import UsageError  # noqa: E402
from ozgraph.groups import Groups  # noqa: E402
from ozgraph.runtime.places import Layout, layout  # noqa: E402
from ozgraph.runtime.saliency import CRITERIA, Measure, Mix  # noqa: E402
from ozgraph.runtime.schedule import Schedule  # noqa: E402
from ozgraph.runtime.selection import Limits, Selection, chosen_families, macs_per_slot  # noqa: E402
from ozgraph.runtime.zeroing import Zeroing  # noqa: E402
from ozgraph.target import Target  # noqa: E402

ARRANGEMENTS = {
    "rows": [0, 1, 2, 3],
    "blocks": [0, 0, 1, 1, 2, 2, 3, 3],
    "tiles": [0, 1, 2, 3, 0, 1, 2, 3],
    "nested": [0, 0, 1, 1, 2, 2, 3, 3] * 2,
    "backwards": [3, 2, 1, 0],
    "with gaps": [-1, 0, -1, 1, -1, 2, -1, 3],
    "some": [1, 2, -1, -1],
    "two pieces": [0, 1, 2, 3, -1, 3, 2, 1, 0],
    "scattered": [2, 0, 3, 1, 0],
}


def arranged(slots: list[int], axis: int, *, index: bool = False) -> tuple[Loose, Groups]:
    torch.manual_seed(len(slots))
    shape = [3, 5]
    shape.insert(axis, len(slots))
    module = Loose(weight=torch.randn(shape))
    return module, groups(module, family(0, 4, occurrence("weight", axis, slots, index=index)))


def slices(tensor: torch.Tensor, axis: int, slots: list[int], slot: int) -> torch.Tensor:
    """The elements of one slot, directly."""
    return tensor.movedim(axis, 0)[torch.tensor(slots) == slot]


def sum_of_squares(view: torch.Tensor) -> torch.Tensor:
    return view.square().flatten(1).sum(1)


@pytest.mark.parametrize("index", [False, True], ids=["patterns", "index"])
@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("name", ARRANGEMENTS)
def test_sums_over_slots(name: str, axis: int, index: bool) -> None:
    slots = ARRANGEMENTS[name]
    module, found = arranged(slots, axis, index=index)
    places = layout(found, found.families)
    sums = places.sums(sum_of_squares, {"weight": module.weight.detach()})
    wanted = [slices(module.weight.detach(), axis, slots, slot).square().sum().item() for slot in range(4)]
    assert sums.tolist() == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("index", [False, True], ids=["patterns", "index"])
@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("name", ARRANGEMENTS)
def test_slots_decay_and_hold_and_nothing_else_moves(name: str, axis: int, index: bool) -> None:
    slots = ARRANGEMENTS[name]
    module, found = arranged(slots, axis, index=index)
    before = module.weight.detach().clone()
    zeroing = Zeroing(layout(found, found.families))
    zeroing.decay_only(np.array([False, True, False, False]))
    zeroing.hold_only(np.array([False, False, True, False]))
    zeroing.decay(0.25)
    zeroing.hold()
    for slot, factor in enumerate((1.0, 0.25, 0.0, 1.0)):
        now, was = (slices(tensor, axis, slots, slot) for tensor in (module.weight.detach(), before))
        assert torch.equal(now, was * factor)
    assert torch.equal(slices(module.weight.detach(), axis, slots, -1), slices(before, axis, slots, -1))


def test_channels_last_tensors_are_views_too() -> None:
    weight = torch.randn(4, 6, 3, 3).to(memory_format=torch.channels_last)
    module = Loose(weight=weight)
    assert not module.weight.is_contiguous()
    found = groups(module, family(0, 3, occurrence("weight", 1, [0, 1, 2, 0, 1, 2])))
    sums = layout(found, found.families).sums(sum_of_squares, {"weight": module.weight.detach()})
    assert sums.tolist() == pytest.approx(weight.view(4, 2, 3, 3, 3).square().sum((0, 1, 3, 4)).tolist(), rel=1e-5)


def test_an_element_in_two_decaying_slots_decays_once() -> None:
    module = Loose(weight=torch.ones(3, 2))
    found = groups(
        module, family(0, 3, occurrence("weight", 0, [0, 1, 2])), family(1, 2, occurrence("weight", 1, [0, 1]))
    )
    zeroing = Zeroing(layout(found, found.families))
    zeroing.decay_only(np.array([True, False, False, True, False]))
    zeroing.decay(0.5)
    assert module.weight.tolist() == [[0.5, 0.5], [0.5, 1.0], [0.5, 1.0]]


def test_a_position_that_needs_two_slots_goes_with_either() -> None:
    module = Loose(weight=torch.ones(4))
    both = (occurrence("weight", 0, [0, 0, 1, 1]), occurrence("weight", 0, [0, 1, 0, 1]))
    found = groups(module, family(0, 2, *both))
    zeroing = Zeroing(layout(found, found.families))
    zeroing.hold_only(np.array([True, False]))
    zeroing.hold()
    assert module.weight.tolist() == [0, 0, 0, 1]


def test_holding_wipes_out_infinities_and_nan() -> None:
    module = Loose(weight=torch.tensor([float("inf"), float("nan"), 1.0]))
    found = groups(module, family(0, 3, occurrence("weight", 0, [0, 1, 2])))
    zeroing = Zeroing(layout(found, found.families))
    zeroing.hold_only(np.array([True, True, False]))
    zeroing.hold()
    assert module.weight.tolist() == [0, 0, 1]


def measured(
    seed: int = 0,
) -> tuple[Measure, dict[str, torch.Tensor], dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    torch.manual_seed(seed)
    module = Loose(a=torch.randn(5, 3), b=torch.randn(5))
    found = groups(module, family(0, 5, occurrence("a", 0, list(range(5))), occurrence("b", 0, list(range(5)))))
    weights = {name: tensor.detach() for name, tensor in module.named_parameters()}
    directions, gradients = ({name: torch.randn_like(t) for name, t in weights.items()} for _ in range(2))
    costs = torch.from_numpy(macs_per_slot(layout(found, found.families))).float()
    return Measure(layout(found, found.families), weights, directions, gradients, costs), weights, directions, gradients


def test_criteria_are_the_published_formulas() -> None:
    measure, weights, directions, gradients = measured()
    x, d, g = (torch.cat((t["a"], t["b"][:, None]), 1) for t in (weights, directions, gradients))
    inner = (x * d).sum(1)
    wanted = {
        "magnitude": x.norm(dim=1),
        "mean_magnitude": x.norm(dim=1) / 4,
        "cosine": inner / (x.norm(dim=1) * d.norm(dim=1)) + 1,
        "opposed_cosine": 1 - inner / (x.norm(dim=1) * d.norm(dim=1)),
        "taylor1": inner.abs(),
        "taylor2": 0.5 * inner**2,
        "snip": (x * g).abs().sum(1),
    }
    curved = {name: torch.randn_like(tensor) for name, tensor in weights.items()}
    with pytest.raises(UsageError, match="record_hessian_gradient"):
        CRITERIA["grasp"](measure)
    measure.hessian_gradient = curved
    wanted["grasp"] = (x * torch.cat((curved["a"], curved["b"][:, None]), 1)).sum(1)
    wanted["coupled"] = (weights["a"].square().sum(1) / 3**0.5 + weights["b"].square()) / 2
    assert wanted.keys() == CRITERIA.keys()
    for name, scores in wanted.items():
        torch.testing.assert_close(CRITERIA[name](measure), scores)
    mixed = Mix({"magnitude": 0.3, "taylor1": 0.7})(measure)
    torch.testing.assert_close(
        mixed, 0.3 * wanted["magnitude"] / wanted["magnitude"].norm() + 0.7 * inner.abs() / inner.abs().norm()
    )


def test_groups_that_are_zero_score_zero() -> None:
    measure, weights, _, _ = measured()
    weights["a"][2], weights["b"][2] = 0, 0
    scores = Mix({"cosine": 1.0})(measure)
    assert scores[2] == 0 and (scores[[0, 1, 3, 4]] > 0).all()


def test_cost_aware_scores_send_expensive_slots_first() -> None:
    module = Loose(a=torch.ones(4), b=torch.ones(8))
    found = groups(
        module, family(0, 4, occurrence("a", 0, [0, 1, 2, 3])), family(1, 8, occurrence("b", 0, list(range(8))))
    )
    places = layout(found, found.families)
    costs = torch.tensor([1.0] * 4 + [10.0] * 8)
    measure = Measure(places, dict(module.named_parameters()), {}, {}, costs)
    plain, aware = (Mix({"magnitude": 1.0}, weight)(measure).detach() for weight in (0.0, 1.0))
    assert plain[0] == plain[-1] and aware[0] > aware[-1]


def test_scores_per_family_take_families_alike() -> None:
    module = Loose(a=torch.tensor([4.0, 8.0, 0.0]), b=torch.tensor([0.1, 0.2, 0.2, 0.1]))
    found = groups(module, family(0, 3, occurrence("a", 0, [0, 1, 2])), family(1, 4, occurrence("b", 0, [0, 1, 2, 3])))
    places = layout(found, found.families)
    weights = {name: tensor.detach() for name, tensor in module.named_parameters()}
    measure = Measure(places, weights, weights, {}, torch.ones(7))
    plain, even = (Mix({"magnitude": 1.0}, per=per)(measure) for per in ("network", "family"))
    assert plain[:2].min() > plain[3:].max()
    # One norm over the network still; a slot at zero is no slot of its family any more.
    torch.testing.assert_close(even, torch.tensor([1, 2, 0, 1, 2, 2, 1]) / 15**0.5)
    with pytest.raises(UsageError, match="'layer'"):
        Mix({"magnitude": 1.0}, per="layer")  # type: ignore[arg-type]


def test_a_function_of_the_user_is_a_criterion() -> None:
    measure, _, _, _ = measured()
    assert Mix({lambda m: m.elements: 1.0})(measure).tolist() == pytest.approx([4 / (4 * 5**0.5)] * 5)
    with pytest.raises(UsageError, match="one score a slot"):
        Mix({lambda m: m.elements[:2]: 1.0})(measure)
    with pytest.raises(UsageError, match="no criterion 'magntude'"):
        Mix({"magntude": 1.0})


# -- selection ---------------------------------------------------------------------------------------------------------


def two_families(**more: object) -> Layout:
    module = Loose(a=torch.ones(10), b=torch.ones(6))
    found = groups(
        module,
        family(0, 10, occurrence("a", 0, list(range(10))), **more),
        family(1, 6, occurrence("b", 0, list(range(6)))),
    )
    return layout(found, found.families)


NOTHING = np.zeros(16, dtype=bool)


def test_lowest_scores_go_first_over_all_families() -> None:
    selection = Selection(two_families(), Target(groups=0.5), Limits())
    scores = np.arange(16.0)[::-1].copy()
    assert np.flatnonzero(selection.choose(scores, NOTHING, selection.goal)).tolist() == [7, 8, 9, 11, 12, 13, 14, 15]


@pytest.mark.parametrize("kind", ["parameters", "macs"])
def test_targets_in_parameters_and_macs_are_met_by_the_shortest_prefix(kind: str) -> None:
    selection = Selection(two_families(), Target(**{kind: 0.5}), Limits())
    scores = np.random.default_rng(0).random(16)
    gone = selection.choose(scores, NOTHING, selection.goal)
    assert selection.amount(gone) >= selection.goal
    last = np.flatnonzero(gone)[np.argmax(scores[gone])]
    fewer = gone.copy()
    fewer[last] = False
    assert selection.amount(fewer) < selection.goal


def test_what_has_gone_counts_and_stays() -> None:
    selection = Selection(two_families(), Target(groups=0.5), Limits())
    gone = NOTHING.copy()
    gone[:3] = True
    new = selection.choose(np.arange(16.0), gone, 5)
    assert np.flatnonzero(new).tolist() == [3, 4]


def test_every_family_keeps_its_least_and_multiples() -> None:
    for limits, kept in ((Limits(min_kept=4), (4, 4)), (Limits(min_kept=0.5), (5, 3)), (Limits(round_to=4), (4, 4))):
        selection = Selection(two_families(), Target(groups=0.1), limits)
        gone = selection.choose(np.arange(16.0), NOTHING, 16)
        assert (int((~gone[:10]).sum()), int((~gone[10:]).sum())) == kept


def test_one_of_a_set_that_an_axis_needs_stays() -> None:
    selection = Selection(two_families(keep_one=((0, 1, 2),)), Target(groups=0.5), Limits())
    gone = selection.choose(np.arange(16.0), NOTHING, 4)
    assert np.flatnonzero(gone).tolist() == [0, 1, 3, 4]


def test_held_slots_stay() -> None:
    selection = Selection(two_families(held=(0, 1)), Target(groups=0.25), Limits())
    assert np.flatnonzero(selection.choose(np.arange(16.0), NOTHING, 4)).tolist() == [2, 3, 4, 5]


def test_a_target_that_cannot_be_met_says_by_how_much() -> None:
    with pytest.raises(UsageError, match=r"groups=95.0% is asked for, and at most 87.5% can go"):
        Selection(two_families(), Target(groups=0.95), Limits())
    with pytest.raises(UsageError, match="latency"):
        Selection(two_families(), Target(latency=0.5), Limits())


def test_families_by_name_and_glob() -> None:
    found = two_families().groups
    assert [f.id for f in chosen_families(found, exclude=["b"])] == ["f0"]
    assert [f.id for f in chosen_families(found, include=["b*"])] == ["f1"]
    assert [f.id for f in chosen_families(found, families=["f1"])] == ["f1"]
    for arguments in ({"exclude": ["c"]}, {"include": ["a"], "exclude": ["a"]}, {"families": ["f7"]}):
        with pytest.raises(UsageError):
            chosen_families(found, **arguments)


# -- schedule ----------------------------------------------------------------------------------------------------------


def test_linear_decay_ends_at_exactly_zero_before_the_period_does() -> None:
    periods = Schedule(start=10, end=50, periods=4).resolve(80)
    assert [periods.at(step) for step in (9, 10, 19, 20, 49, 50)] == [None, 0, 0, 1, 3, None]
    value, values = 1.0, []
    for step in range(10, 20):
        value *= periods.factor(step)
        values.append(value)
    assert values == pytest.approx([8 / 9, 7 / 9, 6 / 9, 5 / 9, 4 / 9, 3 / 9, 2 / 9, 1 / 9, 0, 0])


def test_periods_share_the_goal() -> None:
    linear = Schedule(start=0, end=40, periods=4).resolve(40)
    assert [linear.due(period, 46) for period in range(4)] == [11, 22, 33, 46]
    assert [linear.due(period, 1.0) for period in range(4)] == [0.25, 0.5, 0.75, 1.0]
    cubic = Schedule(start=0, end=40, periods=4, shape="cubic").resolve(40)
    shares = [cubic.due(period, 1.0) for period in range(4)]
    assert shares[0] > 0.5 and shares == sorted(shares) and shares[-1] == 1.0


def test_the_last_period_takes_the_steps_that_are_left() -> None:
    assert Schedule(start=0.1, end=0.5, periods=3).resolve(100).edges == (10, 23, 36, 50)


@pytest.mark.parametrize(
    ("schedule", "steps", "message"),
    [
        (Schedule(start=0, end=5, periods=6), 10, "6 periods do not fit the 5 steps"),
        (Schedule(start=8, end=20), 10, "does not fit a run of 10 steps"),
        (Schedule(start=1.5), 10, "between 0 and 1"),
        (Schedule(periods=0), 100, "at least one period"),
        (Schedule(shape="square"), 100, "linear or cubic"),
        (Schedule(), 0, "at least one step"),
    ],
)
def test_schedules_that_do_not_fit_are_refused(schedule: Schedule, steps: int, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        schedule.resolve(steps)

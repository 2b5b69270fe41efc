"""One-cycle pruning: the indicator is the published one, and when it has settled the groups go for good."""

from __future__ import annotations

import copy
import json
import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402
from training.loops import groups_of, net, train  # noqa: E402
from training.nets import Residual, images  # noqa: E402

from ozgraph.errors import UsageError  # noqa: E402
from ozgraph.groups import Groups  # noqa: E402
from ozgraph.runtime import OneCycle, Target  # noqa: E402
from ozgraph.runtime.stability import Stability  # noqa: E402

SETS: dict[str, tuple[tuple[str, int], ...]] = {
    "stem.weight": (
        ("stem.weight", 0), ("bn0.weight", 0), ("conv2.weight", 0), ("bn2.weight", 0),
        ("conv1.weight", 1), ("down.weight", 1), ("conv3.weight", 1),
    ),
    "conv1.weight": (("conv1.weight", 0), ("bn1.weight", 0), ("conv2.weight", 1)),
    "down.weight": (
        ("down.weight", 0), ("bn3.weight", 0), ("conv3.weight", 0), ("bn4.weight", 0), ("fc.weight", 1),
    ),
}  # fmt: skip
"""The coupled tensors of :class:`Residual`, read off its Python: what makes a set's channels, and what reads them."""


@pytest.fixture(scope="module")
def found() -> Groups:
    return groups_of(net(0, Residual), images(batch=1)[0])


def macs(stem: int, inner: int, last: int) -> int:
    """Of :class:`Residual` on one image of 8x8."""
    return 64 * 9 * (3 * stem + 2 * stem * inner) + 16 * stem * last * (1 + 9) + 10 * last


def retained_by_hand(weights: dict[str, torch.Tensor], share: float) -> dict[str, set[int]]:
    """The channels that the published selection would keep, one at a time and in double precision."""
    sizes = {"stem.weight": 16, "conv1.weight": 12, "down.weight": 24}
    whole = macs(*sizes.values())
    costs = []
    for name in sizes:
        fewer = {key: size - (key == name) for key, size in sizes.items()}
        costs.append((whole - macs(*fewer.values())) / 1e6)
    shares = [math.exp(cost) / sum(map(math.exp, costs)) for cost in costs]
    scores = []
    for (name, coupled), part in zip(SETS.items(), shares, strict=True):
        for channel in range(sizes[name]):
            norms = []
            for tensor, axis in coupled:
                slices = weights[tensor].double().select(axis, channel).flatten().tolist()
                norms.append(sum(w * w for w in slices) / math.sqrt(len(slices)))
            scores.append((sum(norms) / len(norms) * (1 - part), name, channel))
    kept = {name: set(range(size)) for name, size in sizes.items()}
    for _, name, channel in sorted(scores):
        if macs(*(len(channels) for channels in kept.values())) <= (1 - share) * whole:
            break
        if len(kept[name]) > math.ceil(sizes[name] / 4):
            kept[name].remove(channel)
    return kept


def test_the_indicator_is_the_published_one(found: Groups) -> None:
    module = net(1, Residual)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
    pruner = OneCycle(
        optimizer, found.bind(module), target=Target(macs=0.5), steps=100, every=3, start=2, latest=50, stop="latest"
    )
    seen: list[dict[str, torch.Tensor]] = []
    step = 0
    while pruner.stable_at is None:
        if pruner.selects(step):
            seen.append({name: tensor.detach().clone() for name, tensor in module.named_parameters()})
        train(module, optimizer, [step])
        step += 1
    kept = [retained_by_hand(weights, 0.5) for weights in seen]
    assert [row["step"] for row in pruner.history] == [2 + 3 * look for look in range(len(kept))]
    indexes: list[float] = []
    means: list[float | None] = []
    for look, sets in enumerate(kept):
        row = pruner.history[look]
        assert row["kept"] == {name: len(channels) for name, channels in sets.items()}
        if look >= 2:
            before = kept[look - 2]
            each = {name: len(sets[name] & before[name]) / len(sets[name] | before[name]) for name in sets}
            assert row["families"] == pytest.approx(each)
            indexes.append(sum(each.values()) / len(each))
            assert row["jaccard"] == pytest.approx(indexes[-1])
        means.append(sum(indexes[-3:]) / 3 if len(indexes) >= 3 else None)
        assert row["stability"] == (None if means[-1] is None else pytest.approx(means[-1]))
    assert len({index for index in indexes if index < 1}) >= 2  # the sets did change meanwhile
    penalties = [0.0]
    for earlier, now in pairwise(means):
        slow = earlier is not None and now is not None and now - earlier < 1e-4
        penalties.append(penalties[-1] + 1e-4 * (slow or penalties[-1] > 0))
    assert [row["penalty"] for row in pruner.history] == pytest.approx(penalties)
    json.dumps(pruner.history)


def test_what_would_go_shrinks_and_nothing_else_does(found: Groups) -> None:
    module = net(2, Residual)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
    pruner = OneCycle(
        optimizer, found.bind(module), target=Target(macs=0.5), steps=100, every=1, latest=60, stop="latest",
        growth=0.5, slow_rise=2.0,
    )  # fmt: skip
    train(module, optimizer, range(7))
    assert pruner.phase == "shrinking" and pruner.penalty == pytest.approx(1.0)
    twin = copy.deepcopy(module)
    plain = torch.optim.SGD(twin.parameters(), lr=0.1, momentum=0.9)
    plain.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    train(twin, plain, [7])
    train(module, optimizer, [7])
    factor = 1 - pruner.penalty * 0.1
    going = {family.dim: np.flatnonzero(pruner._candidates[span]).tolist() for family, span in pruner.layout.spans()}
    assert any(going.values())
    for name, tensor in twin.named_parameters():
        wanted = tensor.detach().clone()
        touched = torch.zeros_like(wanted, dtype=torch.bool)
        for dim, coupled in SETS.items():
            for _, axis in (pair for pair in coupled if pair[0] == name):
                touched.index_fill_(axis, torch.tensor(going[dim], dtype=torch.int64), True)
        wanted[touched] *= factor
        torch.testing.assert_close(module.get_parameter(name).detach(), wanted)


@pytest.mark.parametrize("finish", ["decay", "cut"])
def test_groups_go_for_good_when_the_sets_have_settled(finish: str, found: Groups) -> None:
    module = net(3, Residual)
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-4)  # so slow that nothing changes sides
    pruner = OneCycle(
        optimizer, found.bind(module), target=Target(macs=0.5), steps=100, every=2, finish=finish, finish_steps=6
    )
    norms = []
    while not pruner.finished:
        train(module, optimizer, [pruner.step])
        metrics = pruner.metrics()
        norms.append(metrics["redundant_norm"])
        assert pruner.step < 30
    # The fifth look is the first with three indexes.
    assert (pruner.stable_at, pruner.stopped_by, metrics["stability"]) == (8, "jaccard", 1.0)
    assert pruner.step == (9 if finish == "cut" else 8 + 5)
    assert metrics["macs_share"] <= 0.5 and norms[-1] == 0
    train(module, optimizer, range(20, 24))
    tensors = dict(module.named_parameters())
    for family, span in pruner.layout.spans():
        gone = torch.from_numpy(pruner.gone[span])
        assert int(gone.sum()) <= 0.75 * family.size
        for occurrence in family.zeroed:
            there = tensors[occurrence.tensor].detach().movedim(occurrence.axis, 0)
            assert there[gone[torch.from_numpy(occurrence.slots())]].abs().sum() == 0


def test_sets_that_do_not_settle_are_pruned_at_the_latest_and_it_is_said(found: Groups) -> None:
    module = net(4, Residual)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.05)
    pruner = OneCycle(
        optimizer, found.bind(module), target=Target(macs=0.5), steps=60, every=2, latest=17, finish_steps=4,
        saliency=lambda measure: torch.rand(measure.layout.total),
    )  # fmt: skip
    with pytest.warns(UserWarning, match=r"step 17: the sub-network has not settled \(stability 0\.\d+ < 0.999\)"):
        train(module, optimizer, range(24))
    assert (pruner.stable_at, pruner.stopped_by) == (17, "latest") and pruner.finished


def test_pruning_at_initialisation_is_a_setting(found: Groups) -> None:
    module = net(5, Residual)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.05)
    pruner = OneCycle(
        optimizer, found.bind(module), target=Target(macs=0.5), steps=60, stop="latest", start=0, latest=0, finish="cut"
    )
    before = retained_by_hand(dict(module.named_parameters()), 0.5)
    train(module, optimizer, range(1))
    assert pruner.finished
    for family, span in pruner.layout.spans():
        assert set(np.flatnonzero(~pruner.gone[span]).tolist()) == before[family.dim]


@pytest.mark.parametrize("saved_at", [9, 25])
def test_a_run_that_is_resumed_ends_the_same(saved_at: int, found: Groups) -> None:
    def built(seed: int) -> tuple[nn.Module, torch.optim.Optimizer, OneCycle]:
        module = net(seed, Residual)
        optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
        pruner = OneCycle(
            optimizer, found.bind(module), target=Target(macs=0.5), steps=100, every=1, start=2, latest=22,
            finish_steps=8, slow_rise=1.0, settled=1.0, stop="latest",
        )  # fmt: skip
        return module, optimizer, pruner

    first, second = built(6), built(7)
    train(*first[:2], range(saved_at))
    states: list[Any] = [copy.deepcopy(part.state_dict()) for part in first]
    train(*first[:2], range(saved_at, 36))
    for part, state in zip(second, states, strict=True):
        part.load_state_dict(state)
    train(*second[:2], range(saved_at, 36))
    assert first[2].history == second[2].history and first[2].finished
    for name, tensor in first[0].state_dict().items():
        assert torch.equal(tensor, second[0].state_dict()[name]), name


def test_what_cannot_be_is_refused(found: Groups) -> None:
    module = net(8, Residual)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.05)
    bound = found.bind(module)
    with pytest.raises(UsageError, match=r"macs=97.0% is asked for, and at most 92.1% can go"):
        OneCycle(optimizer, bound, target=Target(macs=0.97), steps=100)
    for said, wrong in (
        ({"stop": "never"}, "stop is"),
        ({"finish": "soon"}, "finish is"),
        ({"window": 0}, "lag and window"),
        ({"latest": 99}, "do not fit"),
        ({"follow": [module]}, "give a compactor"),
    ):
        with pytest.raises(UsageError, match=wrong):
            OneCycle(optimizer, bound, target=Target(macs=0.5), steps=100, **said)
    pruner = OneCycle(optimizer, bound, target=Target(macs=0.5), steps=100)
    with pytest.raises(UsageError, match="nothing is cut"):
        pruner.follow(module)
    with pytest.raises(UsageError, match="other settings"):
        OneCycle(optimizer, bound, target=Target(macs=0.5), steps=200).load_state_dict(pruner.state_dict())


def test_without_a_target_nothing_changes(found: Groups) -> None:
    module, twin = net(9, Residual), net(9, Residual)
    optimizer, other = (torch.optim.SGD(part.parameters(), lr=0.05) for part in (module, twin))
    pruner = OneCycle(optimizer, found.bind(module), target=Target(macs=0.0), steps=20, every=1)
    assert train(module, optimizer, range(12)) == train(twin, other, range(12))
    assert pruner.history == [] and F.cross_entropy(module(images()[0]), images()[1]).isfinite()


def test_stability_is_the_mean_over_families_and_looks() -> None:
    stability = Stability([slice(0, 4), slice(4, 6)])
    for kept in ([1, 1, 1, 0, 1, 1], [1, 1, 0, 1, 1, 1], [1, 0, 1, 0, 1, 1], [1, 1, 0, 1, 1, 0]):
        stability.look(np.array(kept, dtype=bool))
        assert stability.indicator is None and stability.rise is None
    assert stability.families == [1.0, 0.5] and stability.indexes == [pytest.approx(5 / 6), 0.75]
    stability.look(np.array([1, 0, 1, 0, 1, 1], dtype=bool))
    assert stability.indicator == pytest.approx((5 / 6 + 0.75 + 1) / 3)


class TwoEnds(nn.Module):
    """A shortcut that is padded on both sides: two families lie along one axis of the layer beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(6, 8), nn.Linear(8, 16), nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        return self.last(torch.relu(self.second(x) + nn.functional.pad(x, (4, 4))))


def test_a_look_names_every_family_also_where_two_share_a_dim() -> None:
    torch.manual_seed(0)
    module, x = TwoEnds(), torch.randn(5, 6)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    pruner = OneCycle(optimizer, groups_of(module, x), target=Target(groups=0.4), steps=10, every=1)
    assert len({family.dim for family in pruner.layout.families}) < len(pruner.layout.families)
    for _ in range(4):
        optimizer.zero_grad()
        module(x).square().mean().backward()
        optimizer.step()
    for look in pruner.history:
        assert len(look["kept"]) == len(pruner.layout.families)
    assert sum(pruner.history[-1]["kept"].values()) == pruner.layout.total - int(0.4 * pruner.layout.total)
    assert pruner.history[-1]["families"].keys() == pruner.history[-1]["kept"].keys()

"""A module that becomes smaller in the middle of training goes on as if it had stayed large, with groups at zero."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn  # noqa: E402
from training.loops import groups_of, net  # noqa: E402
from training.nets import Residual, images  # noqa: E402
from training.transformers import GroupedQuery, VisionTransformer, tokens  # noqa: E402

import ozgraph  # noqa: E402
from ozgraph.errors import UsageError  # noqa: E402
from ozgraph.groups import cut, places_of  # noqa: E402
from ozgraph.runtime import HESSO, OneCycle, Target  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:.*takes the factor of a norm")

NETS: dict[str, tuple[type[nn.Module], Callable[[int], tuple[Tensor, Tensor]]]] = {
    "cnn": (Residual, images),
    "vit": (VisionTransformer, images),
    "gqa": (GroupedQuery, tokens),
}
OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.02, momentum=0.9, weight_decay=1e-3),
    "adamw": lambda p: torch.optim.AdamW(p, lr=1e-3, weight_decay=0.05),
}


def batch(name: str, step: int) -> tuple[Tensor, Tensor]:
    x, y = NETS[name][1](1000 + step)
    return (x.double() if x.is_floating_point() else x), y


def taken(name: str, call: Callable[[Tensor], Tensor], optimizer: torch.optim.Optimizer, steps: range) -> list[float]:
    """Steps of training, by the name of the network; the losses."""
    losses = []
    for step in steps:
        x, y = batch(name, step)
        loss = F.cross_entropy(call(x).flatten(0, -2), y.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def one_cycle(module: nn.Module, optimizer: torch.optim.Optimizer, groups: Any, **more: Any) -> OneCycle:
    said: dict[str, Any] = {"every": 2, "latest": 4, "stop": "latest", "finish_steps": 4} | more
    return OneCycle(optimizer, groups, target=Target(groups=0.4), steps=100, **said)


@pytest.mark.parametrize(
    ("name", "into", "optimizer"),
    [
        *((name, "module", optimizer) for name in NETS for optimizer in OPTIMIZERS),
        ("cnn", "graph", "sgd"),
        ("gqa", "graph", "adamw"),
    ],
)
def test_training_goes_on_as_with_the_large_module_that_has_zeros(name: str, into: str, optimizer: str) -> None:
    """Fifty steps after the cut, the losses are those of the masked original to 1e-5, in float64."""
    module = net(3, NETS[name][0]).double()
    twin = copy.deepcopy(module)
    x = batch(name, 0)[0]
    groups = groups_of(module, x)
    # In place, the scale of an RMSNorm takes a factor when the width shrinks, and would train at another rate.
    choice = {"families": [f.id for f in groups if f.active and f.exactness != "rescaled"]} if into == "module" else {}
    ours, theirs = OPTIMIZERS[optimizer](module.parameters()), OPTIMIZERS[optimizer](twin.parameters())
    cutting = one_cycle(module, ours, groups, compactor=ozgraph.Compactor(module, x, into=into), **choice)
    masked = one_cycle(twin, theirs, groups.bind(twin), **choice)
    small = taken(name, lambda x: cutting.module(x), ours, range(60))
    large = taken(name, twin, theirs, range(60))
    assert cutting.compaction is not None and [made.step for made in cutting.compaction.cuts] == [7]
    assert cutting.compaction.cuts[0].error < 1e-5 and cutting.compaction.cuts[0].left == ()
    assert (cutting.gone == masked.gone).all() and cutting.finished
    assert (cutting.module is module) == (into == "module")
    sizes = [sum(p.numel() for p in part.parameters()) for part in (cutting.module, twin)]
    assert sizes[0] < 0.85 * sizes[1]
    np.testing.assert_allclose(small, large, rtol=1e-5)
    smaller = {id(p) for p in cutting.module.parameters()}
    assert {id(p) for options in ours.param_groups for p in options["params"]} == smaller
    for parameter, state in ours.state.items():
        assert id(parameter) in smaller
        assert all(item.shape == parameter.shape for item in state.values() if item.numel() > 1)


def test_groups_of_a_smaller_module_keep_the_numbers_of_their_slots() -> None:
    groups = groups_of(net(0, Residual))
    kept = groups.full
    kept[0][[1, 5]] = False
    kept[1][3] = False
    gone = places_of(groups, kept)
    assert gone["conv1.weight"][0].tolist() == [3] and gone["conv1.weight"][1].tolist() == [1, 5]
    left = {
        name: {axis: np.setdiff1d(np.arange(groups.tensors[name].shape[axis]), there) for axis, there in axes.items()}
        for name, axes in gone.items()
    }
    smaller = cut(groups, left)
    assert [family.size for family in smaller] == [family.size for family in groups]
    assert smaller.tensors["conv1.weight"].shape == (11, 14, 3, 3)
    stem = next(o for o in smaller.families[0].occurrences if o.tensor == "stem.weight")
    assert stem.slots().tolist() == [slot for slot in range(16) if slot not in (1, 5)]
    assert places_of(smaller, kept) == {}
    assert smaller.cost.of(kept) == groups.cost.of(kept)


def small_run(seed: int = 4, **more: Any) -> tuple[nn.Module, torch.optim.Optimizer, OneCycle]:
    module = net(seed, Residual).double()
    optimizer = OPTIMIZERS["sgd"](module.parameters())
    x = batch("cnn", 0)[0]
    pruner = one_cycle(module, optimizer, groups_of(module, x), compactor=ozgraph.Compactor(module, x), **more)
    return module, optimizer, pruner


def test_averages_wrappers_and_functions_follow() -> None:
    module, optimizer, pruner = small_run()
    average = AveragedModel(module, multi_avg_fn=get_ema_multi_avg_fn(0.5))
    compiled = torch.compile(module, backend="eager")
    shadows = {name: tensor.detach().clone() for name, tensor in module.named_parameters()}
    told: list[nn.Module] = []
    pruner.follow(average, compiled, shadows, told.append)
    scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, total_iters=20)
    twin = copy.deepcopy(module)
    theirs = OPTIMIZERS["sgd"](twin.parameters())
    masked = one_cycle(twin, theirs, groups_of(twin, batch("cnn", 0)[0]))
    beside = AveragedModel(twin, multi_avg_fn=get_ema_multi_avg_fn(0.5))
    other = torch.optim.lr_scheduler.LinearLR(theirs, 1.0, 0.1, total_iters=20)
    for step in range(14):
        for call, opt, schedule, ema, inner in (
            (compiled, optimizer, scheduler, average, module),
            (twin, theirs, other, beside, twin),
        ):
            taken("cnn", call, opt, range(step, step + 1))
            schedule.step()
            ema.update_parameters(inner)
    assert told == [module]
    assert optimizer.param_groups[0]["lr"] == theirs.param_groups[0]["lr"] < 0.01
    for name, tensor in module.named_parameters():
        assert shadows[name].shape == tensor.shape == average.module.get_parameter(name).shape
    masked.zero_(beside)
    x = batch("cnn", 99)[0]
    torch.testing.assert_close(average.eval()(x), beside.eval()(x), rtol=1e-9, atol=1e-9)
    stranger = copy.deepcopy(twin)
    with pytest.raises(UsageError, match="let the copy follow"):
        pruner.zero_(stranger)
    with pytest.raises(UsageError, match="cannot follow a cut"):
        pruner.follow(3)


def test_hesso_becomes_smaller_after_every_period() -> None:
    runs = []
    for compact in (True, False):
        module = net(5, Residual).double()
        x = batch("cnn", 0)[0]
        optimizer = OPTIMIZERS["adamw"](module.parameters())
        more: dict[str, Any] = {"compactor": ozgraph.Compactor(module, x)} if compact else {}
        # Weights that are gone no longer count in a score, so scores that depend on none are compared.
        pruner = HESSO(
            optimizer, groups_of(module, x), target=Target(macs=0.6), steps=40, start=2, end=18, periods=2,
            saliency=lambda measure: torch.arange(1, measure.layout.total + 1) * 29.0 % 53, **more,
        )  # fmt: skip
        runs.append((module, pruner, taken("cnn", module, optimizer, range(30))))
    (small, cutting, mine), (large, masked, theirs) = runs
    assert cutting.compaction is not None and [made.error < 1e-5 for made in cutting.compaction.cuts] == [True, True]
    assert (cutting.gone == masked.gone).all() and cutting.finished
    assert cutting.metrics()["macs"] == masked.metrics()["macs"]
    assert sum(p.numel() for p in small.parameters()) < 0.7 * sum(p.numel() for p in large.parameters())
    np.testing.assert_allclose(mine, theirs, rtol=1e-5)


def test_hesso_that_is_cut_at_the_end_chooses_as_without_a_cut() -> None:
    """The mix of the paper holds a criterion that depends on how many elements a group has."""
    runs = []
    for compact in (True, False):
        module = net(5, Residual).double()
        x = batch("cnn", 0)[0]
        optimizer = OPTIMIZERS["sgd"](module.parameters())
        more: dict[str, Any] = {"compactor": ozgraph.Compactor(module, x), "cut": "end"} if compact else {}
        pruner = HESSO(
            optimizer, groups_of(module, x), target=Target(macs=0.6), steps=40, start=2, end=18, periods=4, **more
        )
        runs.append((pruner, taken("cnn", module, optimizer, range(30))))
    (cutting, mine), (masked, theirs) = runs
    assert cutting.compaction is not None and [made.step for made in cutting.compaction.cuts] == [17]
    assert (cutting.gone == masked.gone).all() and cutting.finished
    np.testing.assert_allclose(mine, theirs, rtol=1e-5)
    with pytest.raises(UsageError, match="cut='later'"):
        HESSO(optimizer, cutting.groups, target=Target(macs=0.6), steps=40, periods=2, cut="later")


@pytest.mark.parametrize(("saved_at", "into"), [(6, "module"), (12, "module"), (12, "graph")])
def test_checkpoints_from_before_and_after_the_cut_resume(saved_at: int, into: str) -> None:
    def built(seed: int) -> tuple[torch.optim.Optimizer, OneCycle, AveragedModel]:
        module = net(seed, Residual).double()
        optimizer = OPTIMIZERS["adamw"](module.parameters())
        average = AveragedModel(module)
        x = batch("cnn", 0)[0]
        compactor = ozgraph.Compactor(module, x, into=into)
        pruner = one_cycle(module, optimizer, groups_of(module, x), compactor=compactor, follow=[average])
        return optimizer, pruner, average

    def steps(optimizer: torch.optim.Optimizer, pruner: OneCycle, average: AveragedModel, numbers: range) -> None:
        for step in numbers:
            taken("cnn", lambda x: pruner.module(x), optimizer, range(step, step + 1))
            average.update_parameters(pruner.module)

    optimizer, pruner, average = built(6)
    steps(optimizer, pruner, average, range(saved_at))
    saved = copy.deepcopy([part.state_dict() for part in (pruner, pruner.module, optimizer, average)])
    steps(optimizer, pruner, average, range(saved_at, 16))
    again = built(7)
    again[1].load_state_dict(saved[0])
    for part, state in zip((again[1].module, again[0], again[2]), saved[1:], strict=True):
        part.load_state_dict(state)
    steps(*again, range(saved_at, 16))
    for mine, theirs in ((pruner.module, again[1].module), (average, again[2])):
        wanted = theirs.state_dict()
        assert all(torch.equal(tensor, wanted[name]) for name, tensor in mine.state_dict().items())
    if saved_at == 6:
        with pytest.raises(UsageError, match="build the module, the optimizer and the pruner anew"):
            pruner.load_state_dict(saved[0])


class Interrupting(ozgraph.Compactor):
    """Is interrupted while the n-th module is being cut, once everything in it has changed."""

    def __init__(self, *arguments: Any, at: int) -> None:
        super().__init__(*arguments)
        self.calls, self.at = 0, at

    def __call__(self, module: Any, gone: Any, undo: Any) -> Any:
        made = super().__call__(module, gone, undo)
        self.calls += 1
        if self.calls == self.at:
            raise KeyboardInterrupt
        return made


def test_a_cut_that_is_interrupted_leaves_everything_as_it_was() -> None:
    module = net(8, Residual).double()
    optimizer = OPTIMIZERS["sgd"](module.parameters())
    average = AveragedModel(module)
    x = batch("cnn", 0)[0]
    compactor = Interrupting(module, x, at=3)  # first the rehearsal, then the module, then its average
    pruner = one_cycle(module, optimizer, groups_of(module, x), compactor=compactor, follow=[average])
    taken("cnn", module, optimizer, range(6))
    held = {name: tensor.clone() for name, tensor in average.state_dict().items()}
    shapes = {name: tensor.shape for name, tensor in module.state_dict().items()}
    with pytest.raises(KeyboardInterrupt):
        taken("cnn", module, optimizer, range(6, 7))
    assert {name: tensor.shape for name, tensor in module.state_dict().items()} == shapes
    assert all(torch.equal(held[name], tensor) for name, tensor in average.state_dict().items())
    assert all(s["momentum_buffer"].shape == p.shape for p, s in optimizer.state.items())
    assert module.conv1.out_channels == 12 and pruner.compaction is not None and pruner.compaction.cuts == []
    # Going on tries again after the next step.
    taken("cnn", module, optimizer, range(7, 9))
    assert len(pruner.compaction.cuts) == 1 and module.conv1.out_channels < 12
    assert average.module.conv1.out_channels == module.conv1.out_channels


class Stubborn(nn.Module):
    """Its Python knows the width."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.first(x).view(-1, 8).relu())


def test_a_module_that_cannot_follow_is_told_before_training() -> None:
    module, x = net(9, Stubborn), torch.randn(4, 6)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    groups = ozgraph.find_groups(module, x)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    with pytest.raises(UsageError, match=r'holds sizes.*into="graph"'):
        one_cycle(module, optimizer, groups, compactor=ozgraph.Compactor(module, x))
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())
    with pytest.warns(UserWarning, match=r"holds sizes.*call pruner.module in the loop"):
        pruner = one_cycle(module, optimizer, groups, compactor=ozgraph.Compactor(module, x, into="either"))
    for _ in range(10):
        optimizer.zero_grad()
        pruner.module(x).square().sum().backward()
        optimizer.step()
    assert pruner.module is not module and pruner.module.first.weight.shape[0] < 8
    with pytest.raises(UsageError, match="bare copy"):
        pruner.follow(copy.deepcopy(module))
    again = torch.optim.SGD(module.parameters(), lr=0.1)
    with pytest.raises(UsageError, match="another module"):
        one_cycle(module, again, groups, compactor=ozgraph.Compactor(net(9, Stubborn), x))


def test_scales_that_start_at_zero_stay() -> None:
    """What is dead only for now is not for a cut in training to take."""
    module = net(10, Residual).double()
    with torch.no_grad():
        module.bn2.weight.zero_()
        module.bn2.bias.zero_()
        module.conv1.weight[5:9] = 0
        module.bn1.weight[5:9] = 0
        module.bn1.bias[5:9] = 0
    optimizer = torch.optim.SGD(module.parameters(), lr=0.0)
    x = batch("cnn", 0)[0]
    pruner = one_cycle(module, optimizer, groups_of(module, x), compactor=ozgraph.Compactor(module, x), families=["f2"])
    taken("cnn", module, optimizer, range(9))
    assert pruner.compaction is not None and len(pruner.compaction.cuts) == 1
    assert module.conv1.out_channels == 12 and module.fc.in_features < 24


@pytest.mark.slow
@pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no torch.distributed")
def test_ranks_of_a_data_parallel_run_cut_alike_and_go_on_together(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "training.parallel", str(tmp_path)]
    ranks = [
        subprocess.Popen([*command, str(rank)], cwd=Path(__file__).parent, stderr=subprocess.PIPE) for rank in range(2)
    ]
    said = [rank.communicate(timeout=300)[1].decode()[-2000:] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], said
    first, second = (torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in range(2))
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name

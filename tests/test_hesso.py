"""HESSO on real optimizers: it changes nothing it should not, and what it takes is exactly zero for good."""

from __future__ import annotations

import copy
import importlib
import io
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from rich.console import Console  # noqa: E402
from torch import nn  # noqa: E402
from torch.optim import Optimizer  # noqa: E402
from training.loops import exactly_zero, groups_of, net, train  # noqa: E402
from training.nets import NETS, Residual, images  # noqa: E402

from ozgraph.errors import UsageError  # noqa: E402
from ozgraph.groups import Groups  # noqa: E402
from ozgraph.runtime import DHSPG, HESSO, HESSOCRIC, HSPG, ProgressLine, Target  # noqa: E402


def from_elsewhere(parameters: Any) -> Optimizer:
    """An optimizer that torch did not bring."""
    lion = pytest.importorskip("lion_pytorch")
    made: Optimizer = lion.Lion(parameters, lr=1e-4, weight_decay=1e-2)
    return made


OPTIMIZERS: dict[str, Callable[[Any], Optimizer]] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05),
    "sgd momentum": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=1e-3),
    "sgd nesterov": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True),
    "adamw plain": lambda p: torch.optim.AdamW(p, lr=2e-3, foreach=False),
    "adamw foreach": lambda p: torch.optim.AdamW(p, lr=2e-3, foreach=True),
    "adamw fused": lambda p: torch.optim.AdamW(p, lr=2e-3, fused=True),
    "adam": lambda p: torch.optim.Adam(p, lr=2e-3, weight_decay=1e-3),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=1e-3, momentum=0.5),
    "elsewhere": from_elsewhere,
}
METHODS: dict[str, Callable[[Optimizer, Groups, Target], Any]] = {
    "hesso": lambda o, g, t: HESSO(o, g, target=t, steps=60, start=10, end=40, periods=3),
    "cric": lambda o, g, t: HESSOCRIC(
        o, g, target=t, steps=90, start=5, cycle_steps=6, cycles=3, leave_steps=8, probes=(0.5,)
    ),
    "hspg": lambda o, g, t: HSPG(o, g, target=t, steps=60, start=10, end=40, penalty=1e-2),
    "dhspg": lambda o, g, t: DHSPG(o, g, target=t, steps=60, start=10, end=40, penalty=1e-2),
}
STEPS = {"hesso": 60, "cric": 90, "hspg": 60, "dhspg": 60}


@pytest.fixture(scope="module")
def found() -> dict[str, Groups]:
    return {name: groups_of(net(0, kind)) for name, kind in NETS.items()}


def states(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a) and a.keys() == b.keys()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_target_of_zero_changes_nothing_bit_for_bit(optimizer: str, method: str, found: dict[str, Groups]) -> None:
    plain, watched = net(), net()
    train(plain, OPTIMIZERS[optimizer](plain.parameters()), range(30))
    attached = OPTIMIZERS[optimizer](watched.parameters())
    pruner = METHODS[method](attached, found["plain"].bind(watched), Target(groups=0.0))
    train(watched, attached, range(30), pruner)
    assert same(states(plain), states(watched))
    assert pruner.step == 30


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("method", METHODS)
def test_redundant_groups_end_at_exactly_zero(method: str, name: str, found: dict[str, Groups]) -> None:
    module = net(1, NETS[name])
    optimizer = torch.optim.AdamW(module.parameters(), lr=2e-3, weight_decay=0.05)
    scheduler = torch.optim.lr_scheduler.CyclicLR(optimizer, 1e-4, 5e-3, step_size_up=7, cycle_momentum=False)
    pruner = METHODS[method](optimizer, found[name].bind(module), Target(macs=0.5))
    for step in range(STEPS[method]):
        train(module, optimizer, [step], pruner)
        scheduler.step()
    exactly_zero(pruner)
    metrics = pruner.metrics()
    assert metrics["macs_share"] <= 0.5 and metrics["redundant_norm"] == 0.0 and metrics["important_norm"] > 0
    assert ("cycle" in metrics) == (method == "cric"), "a curve of the run shades its cycles"


@pytest.mark.parametrize("kind", ["groups", "parameters", "macs"])
def test_targets_are_reached_and_not_passed_by_more_than_a_slot(kind: str, found: dict[str, Groups]) -> None:
    module = net(2)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.02)
    pruner = HESSO(optimizer, found["plain"].bind(module), target=Target(**{kind: 0.6}), steps=40, end=0.8, periods=4)
    train(module, optimizer, range(40))
    exactly_zero(pruner)
    reached = pruner.selection.amount(pruner.gone)
    largest = max(
        reached - pruner.selection.amount(np.delete(pruner.gone, []) & (np.arange(len(pruner.gone)) != slot))
        for slot in np.flatnonzero(pruner.gone)
    )
    assert pruner.selection.goal <= reached < pruner.selection.goal + largest + 1


def test_zeros_hold_through_accumulation_clipping_and_a_grad_scaler(found: dict[str, Groups]) -> None:
    module = net(3, Residual)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.05, momentum=0.9)
    scaler = torch.amp.GradScaler("cpu", init_scale=256.0)
    pruner = HESSO(optimizer, found["residual"].bind(module), target=Target(groups=0.5), steps=30, periods=2, end=0.5)
    for step in range(30):
        for part in range(2):
            x, y = images(step * 2 + part)
            scaler.scale(nn.functional.cross_entropy(module(x), y) / 2).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
    exactly_zero(pruner)


def test_an_average_of_the_weights_is_zeroed_alike(found: dict[str, Groups]) -> None:
    module = net(4)
    optimizer = torch.optim.AdamW(module.parameters(), lr=2e-3)
    average = torch.optim.swa_utils.AveragedModel(module, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.9))
    pruner = HESSO(optimizer, found["plain"].bind(module), target=Target(groups=0.5), steps=30, end=0.5, periods=2)
    for step in range(30):
        train(module, optimizer, [step])
        average.update_parameters(module)
    weight = average.module.conv3.weight
    gone = torch.from_numpy(pruner.slots("conv3.weight"))
    assert gone.any() and weight[gone].abs().sum() > 0
    pruner.zero_(average)
    assert weight[gone].abs().sum() == 0 and weight[~gone].abs().sum() > 0
    with pytest.raises(UsageError, match="not a copy of the same model"):
        pruner.zero_(nn.Linear(2, 2))


def test_parameters_without_gradients_are_zeroed_as_well(found: dict[str, Groups]) -> None:
    module = net(5)
    for parameter in (module.bn2.weight, module.bn2.bias):
        parameter.requires_grad_(False)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.05)
    pruner = HESSO(optimizer, found["plain"].bind(module), target=Target(groups=0.6), steps=30, end=0.5, periods=2)
    train(module, optimizer, range(30))
    assert pruner.slots("conv2.weight").any()
    exactly_zero(pruner)


def test_scores_can_be_averaged_over_steps(found: dict[str, Groups]) -> None:
    module = net(6)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.05)
    pruner = HESSO(
        optimizer, found["plain"].bind(module), target=Target(groups=0.5), steps=40, start=10, end=30, periods=2,
        average=0.5, score_from=4,
    )  # fmt: skip
    asked = [step for step in range(40) if pruner.selects(step)]
    assert asked == [6, 7, 8, 9, 10, 16, 17, 18, 19, 20]
    train(module, optimizer, range(40))
    exactly_zero(pruner)


def test_grasp_scores_by_the_hessian_times_the_gradient(found: dict[str, Groups]) -> None:
    module = net(16)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.01)
    pruner = HESSO(
        optimizer, found["plain"].bind(module), target=Target(groups=0.5), steps=12, start=2, end=8, periods=2,
        saliency={"grasp": 1.0},
    )  # fmt: skip
    seen = []
    measure = pruner.saliency
    pruner.saliency = lambda given: seen.append(given.flow) or measure(given)
    for step in range(12):
        x, y = images(step)
        loss = nn.functional.cross_entropy(module(x), y)
        optimizer.zero_grad()
        if step == 2:
            # <x, H g> by finite differences of half the squared gradient along the weights of one slot.
            wanted = along_weights(module, x, y, "conv1.weight", 3)
        pruner.record_hessian_gradient(loss)
        loss.backward()
        optimizer.step()
    span = next(span for family, span in pruner.layout.spans() if family.dim == "conv1.weight")
    assert len(seen) == 2 and seen[0][span][3].item() == pytest.approx(wanted, rel=2e-2, abs=1e-5)
    exactly_zero(pruner)


def along_weights(module: nn.Module, x: torch.Tensor, y: torch.Tensor, name: str, slot: int) -> float:
    """The derivative of ||g||^2 / 2 where one slot of a convolution and its batch norm grow alike; float64."""
    precise = copy.deepcopy(module).double()
    tensors = [precise.conv1.weight, precise.bn1.weight, precise.bn1.bias]
    others = list(precise.parameters())

    def half() -> float:
        loss = nn.functional.cross_entropy(precise(x.double()), y)
        return sum(float(g.square().sum()) for g in torch.autograd.grad(loss, others)) / 2

    found = []
    for step in (1e-5, -1e-5):
        with torch.no_grad():
            kept = [tensor[slot].clone() for tensor in tensors]
            for tensor in tensors:
                tensor[slot] *= 1 + step
        found.append(half())
        with torch.no_grad():
            for tensor, before in zip(tensors, kept, strict=True):
                tensor[slot] = before
    return (found[0] - found[1]) / 2e-5


def test_removed_hooks_leave_the_optimizer_alone(found: dict[str, Groups]) -> None:
    module = net(7)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.05)
    pruner = HESSO(optimizer, found["plain"].bind(module), target=Target(groups=0.5), steps=100)
    pruner.remove()
    train(module, optimizer, range(3))
    assert pruner.step == 0


def test_a_progress_line_tells_the_metrics(found: dict[str, Groups]) -> None:
    module = net(17)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.05)
    pruner = HESSO(optimizer, found["plain"].bind(module), target=Target(groups=0.5), steps=20, end=0.5, periods=2)
    console = Console(file=io.StringIO(), force_terminal=True, width=160)
    with ProgressLine(pruner, 20, every=5, console=console) as line:
        for step in range(20):
            line.update(loss=train(module, optimizer, [step])[0])
    written = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", console.file.getvalue())
    last = [line for line in re.split(r"[\r\n]+", written) if line.strip()][-1]
    metrics = pruner.metrics()
    for said in ("holding", "20/20", f"groups at zero {metrics['groups_zero']:.0f} of", f"{metrics['macs_share']:.1%}"):
        assert said in last


# -- interrupting ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stop", [3, 14, 20, 25, 40])
@pytest.mark.parametrize("method", METHODS)
def test_a_run_that_was_interrupted_ends_the_same_bit_for_bit(method: str, stop: int, found: dict[str, Groups]) -> None:
    total = STEPS[method]

    def begun() -> tuple[nn.Module, Optimizer, Any]:
        module = net(8)
        optimizer = torch.optim.AdamW(module.parameters(), lr=2e-3)
        return module, optimizer, METHODS[method](optimizer, found["plain"].bind(module), Target(groups=0.5))

    whole, optimizer, pruner = begun()
    train(whole, optimizer, range(total), pruner)

    module, optimizer, first = begun()
    train(module, optimizer, range(stop), first)
    saved = copy.deepcopy((module.state_dict(), optimizer.state_dict(), first.state_dict()))
    module, optimizer, second = begun()
    module.load_state_dict(saved[0])
    optimizer.load_state_dict(saved[1])
    second.load_state_dict(saved[2])
    train(module, optimizer, range(stop, total), second)
    assert same(states(whole), states(module))
    assert np.array_equal(pruner.gone, second.gone) and pruner.finished


def test_a_state_survives_a_safe_file(tmp_path: Any, found: dict[str, Groups]) -> None:
    module = net(9)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.05)
    pruner = METHODS["cric"](optimizer, found["plain"].bind(module), Target(groups=0.5))
    train(module, optimizer, range(20), pruner)
    torch.save(pruner.state_dict(), tmp_path / "pruner.pt")
    again = METHODS["cric"](optimizer, found["plain"].bind(module), Target(groups=0.5))
    again.load_state_dict(torch.load(tmp_path / "pruner.pt", weights_only=True))
    assert again.phase == pruner.phase and again.step == pruner.step


# -- wrong use ---------------------------------------------------------------------------------------------------------


def test_wrong_use_is_told_at_once(found: dict[str, Groups]) -> None:
    module = net(10)
    groups = found["plain"].bind(module)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.05)
    attach: dict[str, Any] = {"target": Target(groups=0.5), "steps": 100}
    with pytest.raises(UsageError, match="cannot be met"):
        HESSO(optimizer, groups, target=Target(macs=0.999), steps=100)
    with pytest.raises(UsageError, match="periods do not fit"):
        HESSO(optimizer, groups, target=Target(groups=0.5), steps=20, periods=10)
    with pytest.raises(UsageError, match="holds none of the parameters"):
        HESSO(torch.optim.SGD(net(11).parameters(), lr=0.05), groups, **attach)
    with pytest.raises(UsageError, match="does not hold 2 parameters"):
        HESSO(torch.optim.SGD([p for n, p in module.named_parameters() if "bn1" not in n], lr=0.05), groups, **attach)
    with pytest.raises(UsageError, match="another model"):
        found["plain"].bind(net(12, Residual))
    with pytest.raises(UsageError, match="matches no tensor"):
        HESSO(optimizer, groups, exclude=["conv9*"], **attach)
    with pytest.raises(UsageError, match="do not fit a run of 30 steps"):
        HESSOCRIC(optimizer, groups, target=Target(groups=0.5), steps=30)
    assert not optimizer._optimizer_step_pre_hooks, "a pruner that could not be built leaves no hook"


def test_gradients_that_are_not_finite_are_named(found: dict[str, Groups]) -> None:
    module = net(13)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.05)
    HESSO(optimizer, found["plain"].bind(module), target=Target(groups=0.5), steps=100, start=0, end=50, periods=2)
    x, y = images()
    nn.functional.cross_entropy(module(x), y).backward()
    module.conv2.weight.grad[0, 0, 0, 0] = float("nan")
    with pytest.raises(UsageError, match=r"'conv2.weight' cannot be scored, its gradient is not finite"):
        optimizer.step()


def test_the_state_of_another_run_is_refused(found: dict[str, Groups]) -> None:
    first, second = net(14), net(14, Residual)
    a = HESSO(torch.optim.SGD(first.parameters()), found["plain"].bind(first), target=Target(groups=0.5), steps=100)
    b = HESSO(
        torch.optim.SGD(second.parameters()), found["residual"].bind(second), target=Target(groups=0.5), steps=100
    )
    c = HSPG(torch.optim.SGD(first.parameters()), found["plain"].bind(first), target=Target(groups=0.5), steps=100)
    d = HESSO(torch.optim.SGD(first.parameters()), found["plain"].bind(first), target=Target(groups=0.5), steps=200)
    for other, message in ((b, "other groups"), (c, "'hesso'"), (d, "another schedule")):
        with pytest.raises(UsageError, match=message):
            other.load_state_dict(a.state_dict())


def test_cric_says_what_it_needs(found: dict[str, Groups]) -> None:
    module = net(15)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.05)
    METHODS["cric"](optimizer, found["plain"].bind(module), Target(groups=0.5))
    with pytest.raises(UsageError, match=r"call pruner.record\(loss\)"):
        train(module, optimizer, range(20))


def test_an_optimizer_from_elsewhere_is_there_where_tests_are_installed() -> None:
    assert importlib.util.find_spec("lion_pytorch") is not None

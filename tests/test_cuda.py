"""The training runtime on a GPU: what it promises on the processor holds there, and nothing waits for the device."""

from __future__ import annotations

import copy
import shutil
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402
from torch.optim.swa_utils import AveragedModel  # noqa: E402
from training.loops import batch, exactly_zero, groups_of, net, train  # noqa: E402
from training.nets import Residual, images  # noqa: E402

import ozgraph  # noqa: E402
from ozgraph.runtime import HESSO, HESSOCRIC, OneCycle, Target  # noqa: E402
from ozgraph.runtime.replay import Replay  # noqa: E402

sys.path.append(str(Path(__file__).parents[1] / "examples"))
from recorded_step import RecordedStep  # noqa: E402

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU with CUDA")

SGD = {"lr": 0.02, "momentum": 0.9, "weight_decay": 1e-3, "nesterov": True}
OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "sgd": lambda p: torch.optim.SGD(p, **SGD),
    "fused sgd": lambda p: torch.optim.SGD(p, **SGD, fused=True),
    "adamw": lambda p: torch.optim.AdamW(p, lr=1e-3, weight_decay=0.05),
    "fused adamw": lambda p: torch.optim.AdamW(p, lr=1e-3, weight_decay=0.05, fused=True),
    "capturable adamw": lambda p: torch.optim.AdamW(p, lr=1e-3, weight_decay=0.05, capturable=True),
}
METHODS: dict[str, Callable[..., Any]] = {
    "hesso": lambda optimizer, groups, **more: HESSO(
        optimizer, groups, target=Target(macs=0.5), steps=30, start=2, end=14, periods=3, **more
    ),
    "cric": lambda optimizer, groups, **more: HESSOCRIC(
        optimizer, groups, target=Target(macs=0.5), steps=30, start=2, cycle_steps=3, cycles=2, leave_steps=6, **more
    ),
    "one-cycle": lambda optimizer, groups, **more: OneCycle(
        optimizer, groups, target=Target(macs=0.5), steps=30, every=2, start=1, latest=9, stop="latest",
        finish_steps=4, **more,
    ),
}  # fmt: skip


@pytest.fixture(autouse=True)
def _the_same_kernels_every_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)


def on(device: str, kind: Callable[[], nn.Module] = Residual) -> nn.Module:
    return net(7, kind).double().to(device)


LIKE = torch.zeros((), dtype=torch.float64, device="cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("method", METHODS)
def test_it_prunes_what_it_prunes_on_the_processor(method: str, optimizer: str) -> None:
    runs = []
    for device in ("cpu", "cuda"):
        module = on(device)
        # What is fused or capturable is so on the device alone.
        made = OPTIMIZERS[optimizer if device == "cuda" else optimizer.split()[-1]](module.parameters())
        pruner = METHODS[method](made, groups_of(module, batch(0, next(module.parameters()))[0]))
        losses = train(module, made, range(30), pruner)
        runs.append((pruner, losses, {name: value.cpu() for name, value in module.state_dict().items()}))
    (theirs, expected, weights), (pruner, losses, found) = runs
    assert (pruner.gone == theirs.gone).all() and pruner.finished and pruner.gone.any()
    # Capturable optimizers work their bias correction out in float32.
    rounding = 2e-6 if "capturable" in optimizer else 1e-9
    np.testing.assert_allclose(losses, expected, rtol=rounding)
    for name, value in weights.items():
        torch.testing.assert_close(found[name], value, rtol=10 * rounding, atol=10 * rounding)
    for entry in pruner.layout.occupied:
        assert entry.value().is_cuda


@pytest.mark.parametrize("method", METHODS)
def test_a_step_that_does_not_select_reads_nothing_from_the_device(method: str) -> None:
    module = on("cuda")
    optimizer = OPTIMIZERS["sgd"](module.parameters())
    pruner = METHODS[method](optimizer, groups_of(module, batch(0, LIKE)[0]))
    x, y = batch(0, LIKE)
    silent = 0
    for step in range(30):
        optimizer.zero_grad()
        loss = F.cross_entropy(module(x), y)
        loss.backward()
        if hasattr(pruner, "record"):
            pruner.record(loss)
        # Probing is to read what a batch has lost.
        reads = pruner.selects(step) or "prob" in pruner.phase
        before = pruner.gone.copy(), pruner.decaying.copy()
        with warnings.catch_warnings(record=True) as waited:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            optimizer.step()
            torch.cuda.set_sync_debug_mode("default")
        # Where the sets have changed, the device has to be told which slots they hold now.
        if not reads and (pruner.gone == before[0]).all() and (pruner.decaying == before[1]).all():
            assert not [str(said.message) for said in waited if "called a synchronizing" in str(said.message)], step
            silent += 1
    assert silent >= (20 if method != "cric" else 8)
    assert pruner.finished


def test_many_small_launches_are_one_graph() -> None:
    module = on("cuda")
    optimizer = OPTIMIZERS["sgd"](module.parameters())
    pruner = METHODS["hesso"](optimizer, groups_of(module, batch(0, LIKE)[0]))
    train(module, optimizer, range(30), pruner)
    replays = [value for value in vars(pruner._zeroing).values() if isinstance(value, Replay)]
    assert replays and any(replay._graph is not None and not replay._refused for replay in replays)


def test_replayed_work_is_recorded_anew_where_tensors_have_moved() -> None:
    replay = Replay()
    first = torch.ones(4, device="cuda")
    for _ in range(3):
        replay(lambda: first.mul_(2.0), [first])
    assert first.tolist() == [8.0] * 4 and replay._graph is not None
    second = torch.ones(4, device="cuda")
    for _ in range(2):
        replay(lambda: second.mul_(3.0), [second])
    assert second.tolist() == [9.0] * 4 and first.tolist() == [8.0] * 4


@pytest.mark.parametrize("into", ["module", "graph"])
def test_a_cut_in_a_recorded_run_goes_on_as_with_the_large_module(into: str) -> None:
    runs = []
    for small in (True, False):
        module = on("cuda")
        optimizer = OPTIMIZERS["sgd"](module.parameters())
        x = batch(0, LIKE)[0]
        more: dict[str, Any] = {}
        if small:
            sizes = ({0: torch.export.Dim("batch")},)
            more = {"compactor": ozgraph.Compactor(module, x, into=into, dynamic_shapes=sizes)}
        pruner = METHODS["one-cycle"](optimizer, groups_of(module, x), **more)
        recorded = RecordedStep(lambda module, x, y: F.cross_entropy(module(x), y)) if small else None
        average = AveragedModel(module)
        if recorded is not None:
            pruner.follow(recorded.forget, average)
        losses = []
        for step in range(50):
            x, y = batch(step, LIKE)
            if recorded is not None:
                loss = recorded(pruner.module, x, y)
            else:
                loss = F.cross_entropy(module(x), y)
                optimizer.zero_grad()
                loss.backward()
            optimizer.step()
            average.update_parameters(pruner.module)
            losses.append(loss.item())
        runs.append((pruner, losses, sum(p.numel() for p in pruner.module.parameters())))
    (cutting, mine, fewer), (masked, theirs, parameters) = runs
    assert cutting.compaction is not None and len(cutting.compaction.cuts) == 1 and fewer < 0.8 * parameters
    assert (cutting.gone == masked.gone).all()
    np.testing.assert_allclose(mine, theirs, rtol=1e-5)


def test_a_recorded_step_is_the_plain_step() -> None:
    runs = []
    for record in (True, False):
        module = on("cuda")
        optimizer = OPTIMIZERS["sgd"](module.parameters())
        recorded = RecordedStep(lambda module, x, y: F.cross_entropy(module(x), y))
        losses = []
        for step in range(10):
            x, y = batch(step, LIKE)
            if record:
                loss = recorded(module, x, y)
            else:
                loss = F.cross_entropy(module(x), y)
                optimizer.zero_grad()
                loss.backward()
            optimizer.step()
            losses.append(loss.item())
        runs.append((losses, module.state_dict()))
    (mine, found), (theirs, expected) = runs
    np.testing.assert_allclose(mine, theirs, rtol=1e-12)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-10, atol=1e-12)


def test_zeros_hold_in_half_precision_with_a_grad_scaler() -> None:
    module = net(7, Residual).cuda()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.05, momentum=0.9)
    scaler = torch.amp.GradScaler("cuda", init_scale=256.0)
    groups = groups_of(module, images()[0].cuda())
    pruner = METHODS["hesso"](optimizer, groups)
    for step in range(30):
        x, y = (part.cuda() for part in images(step))
        with torch.autocast("cuda", torch.float16):
            loss = F.cross_entropy(module(x), y)
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
    exactly_zero(pruner)


@pytest.mark.skipif(shutil.which("gcc") is None and shutil.which("cc") is None, reason="triton needs a C compiler")
@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
def test_a_compiled_model_is_cut_and_goes_on(mode: str) -> None:
    torch.compiler.reset()
    module = net(7, Residual).cuda()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.02, momentum=0.9)
    x = images()[0].cuda()
    pruner = METHODS["one-cycle"](optimizer, groups_of(module, x), compactor=ozgraph.Compactor(module, x))
    compiled = torch.compile(module, mode=mode)
    pruner.follow(compiled)
    for step in range(20):
        x, y = (part.cuda() for part in images(step))
        loss = F.cross_entropy(compiled(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert pruner.compaction is not None and len(pruner.compaction.cuts) == 1 and bool(loss.isfinite())
    torch.testing.assert_close(compiled(x), module(x), rtol=1e-3, atol=1e-3)
    torch.compiler.reset()


@pytest.mark.parametrize("method", METHODS)
def test_a_run_goes_on_from_a_checkpoint(method: str, tmp_path: Path) -> None:
    def started() -> tuple[nn.Module, torch.optim.Optimizer, Any]:
        module = on("cuda")
        optimizer = OPTIMIZERS["sgd"](module.parameters())
        return module, optimizer, METHODS[method](optimizer, groups_of(module, batch(0, LIKE)[0]))

    module, optimizer, pruner = started()
    train(module, optimizer, range(9), pruner)
    torch.save([part.state_dict() for part in (pruner, module, optimizer)], tmp_path / "state.pt")
    losses = train(module, optimizer, range(9, 30), pruner)
    other, theirs, again = started()
    for part, state in zip((again, other, theirs), torch.load(tmp_path / "state.pt", weights_only=True), strict=True):
        part.load_state_dict(state)
    np.testing.assert_allclose(train(other, theirs, range(9, 30), again), losses, rtol=1e-9)
    assert (again.gone == pruner.gone).all() and again.finished


def test_a_module_on_the_gpu_is_pruned_exported_and_shrunk_in_place(tmp_path: Path) -> None:
    module = net(7, Residual).cuda().eval()
    x = images()[0].cuda()
    pruned = ozgraph.prune(ozgraph.capture(module, (x,)), target=Target(macs=0.5))
    small = pruned.to_module()
    assert all(parameter.is_cuda for parameter in small.parameters())
    assert small(x).shape == module(x).shape
    optimizer = torch.optim.SGD(module.parameters(), lr=0.02, momentum=0.9)
    pruner = METHODS["hesso"](optimizer, groups_of(module, x))
    module.train()
    for step in range(30):
        x, y = (part.cuda() for part in images(step))
        optimizer.zero_grad()
        F.cross_entropy(module(x), y).backward()
        optimizer.step()
    exactly_zero(pruner)
    pruner.remove()
    module.eval()
    before, twin = module(x), copy.deepcopy(module)
    ozgraph.export(twin, (x,), tmp_path / "small.onnx")
    ozgraph.shrink_(module, (x,))
    assert sum(p.numel() for p in module.parameters()) < sum(p.numel() for p in twin.parameters())
    torch.testing.assert_close(module(x), before, rtol=1e-3, atol=1e-3)
    assert (tmp_path / "small.onnx").exists()

"""PyTorch out: the pruned module is the original with the groups at zero, in both modes, and goes on training."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, fx, nn  # noqa: E402
from training.loops import net  # noqa: E402
from training.nets import Plain, Residual, images  # noqa: E402

import ozgraph  # noqa: E402
from models.halving import NOTHING, HalfOfEveryFamily  # noqa: E402
from ozgraph import api  # noqa: E402
from ozgraph.backends.torch import to_module, zeroed  # noqa: E402
from ozgraph.passes.eliminate import Eliminate  # noqa: E402
from ozgraph.passes.prove_dead import ProveDead, zeroing  # noqa: E402
from ozgraph.passes.select import Select  # noqa: E402
from ozgraph.passes.state import State  # noqa: E402


class Attention(nn.Module):
    """Convolution, batch norm and dropout, then attention with dropout of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.drop = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Dropout(0.3)
        self.mix, self.attention = nn.Linear(8, 12), nn.MultiheadAttention(12, 3, dropout=0.2, batch_first=True)
        self.head = nn.Linear(12, 10)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = self.mix(self.drop(self.norm(self.conv(x))).flatten(2).transpose(1, 2))
        return {"logits": self.head(self.attention(x, x, x, need_weights=False)[0].mean(1))}


NETS: dict[str, Callable[[], nn.Module]] = {"plain": Plain, "residual": Residual, "attention": Attention}


def pruned(name: str) -> tuple[nn.Module, fx.GraphModule, State]:
    """The original with half of every family at zero, and the module without them, both in float64."""
    module = net(0, NETS[name]).double()
    graph = ozgraph.capture(module, (images()[0].double(),))
    state = api.analyze(graph).state
    for step in (Select(target=NOTHING), HalfOfEveryFamily(), ProveDead(), Eliminate()):
        step.run(state)
    assert state.removed
    small = to_module(graph, state.plan)
    original = copy.deepcopy(module)
    original.load_state_dict({**original.state_dict(), **zeroed(graph, zeroing(state))})
    return original, small, state


def outputs(module: nn.Module, x: Tensor) -> Tensor:
    found = module(x)
    return found["logits"] if isinstance(found, dict) else found


def without_dropout(module: nn.Module) -> None:
    for part in module.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
        if isinstance(part, nn.MultiheadAttention):
            part.dropout = 0.0


@pytest.mark.parametrize("name", NETS)
def test_the_pruned_module_is_the_zeroed_original(name: str) -> None:
    original, small, _ = pruned(name)
    x = images(5)[0].double()
    torch.testing.assert_close(outputs(small.eval(), x), outputs(original.eval(), x), rtol=0, atol=1e-12)
    assert list(small.state_dict()) == list(original.state_dict())
    fewer = sum(p.numel() for p in small.parameters())
    assert fewer < sum(p.numel() for p in original.parameters())


@pytest.mark.parametrize("name", ["plain", "residual"])
def test_train_mode_takes_the_statistics_of_the_batch_and_keeps_its_own(name: str) -> None:
    original, small, state = pruned(name)
    x = images(6)[0].double()
    torch.testing.assert_close(small.train()(x), original.train()(x), rtol=0, atol=1e-12)
    for key, tensor in small.state_dict().items():
        if "running" in key or "tracked" in key:
            value = next(v for v in state.graph.values.values() if v.name == key or v.name.endswith(key))
            positions = state.plan.keep.get((value, 0), np.arange(tensor.numel()))
            wanted = original.state_dict()[key]
            torch.testing.assert_close(tensor, wanted[positions] if wanted.dim() else wanted, rtol=0, atol=1e-12)


class Averaging(nn.Module):
    """Batch norms whose statistics are means over all batches, one of them called twice, and one of the usual kind."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8, momentum=None)
        self.again, self.usual, self.last = nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8), nn.Linear(8, 5)
        self.end = nn.BatchNorm1d(5, momentum=None, affine=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.conv(x)).relu()
        x = self.usual(self.norm(self.again(x))) + self.usual(x)
        return self.end(self.last(x.relu().mean((2, 3))))


@pytest.mark.filterwarnings("error")
def test_statistics_over_all_batches_and_layers_called_twice_follow_train_mode() -> None:
    module = net(0, Averaging).double()
    graph = ozgraph.capture(module, (images(8)[0].double(),))
    small = ozgraph.eliminate(graph).to_module()
    for each in (module, small):
        each.train()
    for step in range(3):
        x = images(20 + step)[0].double()
        torch.testing.assert_close(small(x), module(x), rtol=0, atol=1e-12)
    assert small.get_buffer("norm.num_batches_tracked") == 6
    torch.testing.assert_close(dict(small.named_buffers()), dict(module.named_buffers()), rtol=0, atol=1e-12)
    assert module.norm.momentum is None
    x = images(30)[0].double()
    torch.testing.assert_close(small.eval()(x), module.eval()(x), rtol=0, atol=1e-12)


@pytest.mark.filterwarnings("error")
def test_a_module_that_was_pruned_before_is_pruned_again() -> None:
    module = net(0, Residual).double()
    x = images(8)[0].double()
    once = ozgraph.eliminate(ozgraph.capture(module, (x,))).to_module()
    twice = ozgraph.eliminate(ozgraph.capture(once, (x,))).to_module()
    for each in (module, twice):
        each.train()
    for step in range(3):
        x = images(20 + step)[0].double()
        torch.testing.assert_close(twice(x), module(x), rtol=0, atol=1e-12)
    # Batches are counted once, and statistics move as they did.
    torch.testing.assert_close(dict(twice.named_buffers()), dict(module.named_buffers()), rtol=0, atol=1e-12)


def test_dropout_drops_in_train_mode_alone() -> None:
    _, small, _ = pruned("attention")
    x = images(7)[0].double()
    torch.manual_seed(0)
    first, second = outputs(small.train(), x), outputs(small, x)
    assert not torch.equal(first, second)
    assert torch.equal(outputs(small.eval(), x), outputs(small, x))
    assert ".mix" not in small.code or "either" in small.code


def test_it_saves_loads_copies_and_compiles_its_gradients() -> None:
    _, small, _ = pruned("residual")
    x = images(8)[0].double()
    twin = copy.deepcopy(small)
    stream = io.BytesIO()
    torch.save(small.state_dict(), stream)
    stream.seek(0)
    for parameter in twin.parameters():
        parameter.data.zero_()
    twin.load_state_dict(torch.load(stream, weights_only=True))
    assert torch.equal(twin.eval()(x), small.eval()(x))
    small.train()(x).sum().backward()
    assert all(parameter.grad is not None for parameter in small.parameters())
    assert all(parameter.grad is None for parameter in twin.parameters())


def test_the_original_is_left_alone() -> None:
    module = net(3)
    before = copy.deepcopy(module.state_dict())
    graph = ozgraph.capture(module, (images()[0],))
    state = api.analyze(graph).state
    for step in (Select(target=NOTHING), HalfOfEveryFamily(), ProveDead(), Eliminate()):
        step.run(state)
    small = to_module(graph, state.plan)
    with torch.no_grad():
        for parameter in small.parameters():
            parameter.add_(1)
    assert module.training and all(torch.equal(before[key], tensor) for key, tensor in module.state_dict().items())


@pytest.mark.parametrize("name", NETS)
def test_ten_steps_equal_ten_masked_steps_of_the_original(name: str) -> None:
    original, small, state = pruned(name)
    without_dropout(original)
    module = net(0, NETS[name]).double()
    without_dropout(module)
    graph = ozgraph.capture(module, (images()[0].double(),))
    small = to_module(graph, _same_plan(graph, state))
    masks = {key: torch.ones_like(tensor) for key, tensor in original.named_parameters()}
    for (value, axis), positions in zeroing(state).items():
        masks[value.name].index_fill_(axis, torch.from_numpy(positions), 0)
    both = (original.train(), small.train())
    optimizers = [torch.optim.AdamW(each.parameters(), lr=1e-2, weight_decay=0.1) for each in both]
    for step in range(10):
        x, y = images(100 + step)
        for optimizer, trained in zip(optimizers, both, strict=True):
            optimizer.zero_grad()
            nn.functional.cross_entropy(outputs(trained, x.double()), y).backward()
            if trained is original:
                for key, parameter in original.named_parameters():
                    parameter.grad *= masks[key]
            optimizer.step()
    x = images(999)[0].double()
    torch.testing.assert_close(outputs(small.eval(), x), outputs(original.eval(), x), rtol=0, atol=1e-9)


def _same_plan(graph: ozgraph.Graph, state: State) -> object:
    again = api.analyze(graph).state
    for step in (Select(target=NOTHING), HalfOfEveryFamily(), ProveDead(), Eliminate()):
        step.run(again)
    assert {(v.name, a): p.tolist() for (v, a), p in again.plan.keep.items()} == {
        (v.name, a): p.tolist() for (v, a), p in state.plan.keep.items()
    }
    return again.plan

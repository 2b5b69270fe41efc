"""ozgraph.shrink_: the caller's own module gets smaller in place, or stays exactly as it was."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402
from training.loops import net  # noqa: E402
from training.nets import Residual, images  # noqa: E402

import ozgraph  # noqa: E402
from models import torch_nets  # noqa: E402
from models.halving import NOTHING, HalfOfEveryFamily  # noqa: E402

torch.set_num_threads(1)

HALF = {"target": NOTHING, "passes": [HalfOfEveryFamily()]}

pytestmark = pytest.mark.filterwarnings("ignore:.*train mode")


def same(module: nn.Module, small: nn.Module, *inputs: Tensor) -> None:
    torch.testing.assert_close(module.eval()(*inputs), small.eval()(*inputs), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("name", ["resnet", "mobilenet_v3", "densenet", "convnext", "recurrent", "unet"])
def test_it_computes_what_the_pruned_graph_does(name: str) -> None:
    module, inputs, _ = torch_nets.sample(name)
    module = module.double()
    args = tuple(inputs[key].double() for key in inputs)
    small = ozgraph.prune(ozgraph.capture(copy.deepcopy(module), args), **HALF).to_module()
    report = ozgraph.shrink_(module, args, **HALF)
    assert report.frozen_by_verification == ()
    assert report.removed_slots > 0
    same(module, small, *(torch.randn_like(x) for x in args))
    assert {key: t.shape for key, t in module.state_dict().items()} == {
        key: t.shape for key, t in small.state_dict().items()
    }


def test_one_line_takes_what_training_made_zero_and_training_goes_on() -> None:
    module = net(0, Residual)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.01, momentum=0.9)
    x, y = images(4)
    F.cross_entropy(module(x), y).backward()
    optimizer.step()
    with torch.no_grad():
        for tensor in (module.conv1.weight, module.bn1.weight, module.bn1.bias):
            tensor[[1, 2, 7]] = 0
    before = copy.deepcopy(module)
    held = [id(parameter) for parameter in module.parameters()]
    report = ozgraph.shrink_(module, (x,), optimizer=optimizer)
    assert report.removed_slots == 3
    assert module.training
    assert [id(parameter) for parameter in module.parameters()] == held
    assert (module.conv1.out_channels, module.bn1.num_features, module.conv2.in_channels) == (9, 9, 9)
    assert module.bn1.running_mean.shape == (9,)
    assert all(parameter.grad is None for parameter in module.parameters())
    momentum = optimizer.state[module.conv1.weight]["momentum_buffer"]
    assert momentum.shape == module.conv1.weight.shape
    torch.testing.assert_close(module.eval()(x), before.eval()(x), rtol=1e-5, atol=1e-5)
    module.train()
    for _ in range(2):
        optimizer.zero_grad()
        F.cross_entropy(module(x), y).backward()
        optimizer.step()
    assert module(x).isfinite().all()


class Layers(nn.Module):
    """Layers that remember sizes of many kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.grouped = nn.Conv2d(3, 12, 3, padding=1)
        self.depthwise = nn.Conv2d(12, 12, 3, padding=1, groups=12)
        self.norm = nn.GroupNorm(4, 12)
        self.slopes = nn.PReLU(12)
        self.up = nn.ConvTranspose2d(12, 8, 2, stride=2)
        self.instance = nn.InstanceNorm2d(8, affine=True)
        self.rows = nn.GRU(8, 6, num_layers=2, bidirectional=True, batch_first=True)
        self.mix, self.rms = nn.Linear(12, 10), nn.RMSNorm(10, eps=1e-5)
        self.last = nn.Linear(10, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.slopes(self.norm(self.depthwise(self.grouped(x))))
        x = self.instance(self.up(x)).mean(-1).transpose(1, 2)
        return self.last(self.rms(self.mix(self.rows(x)[0])))


def test_layers_remember_their_new_sizes() -> None:
    module = net(1, Layers).double()
    x = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    small = ozgraph.prune(ozgraph.capture(copy.deepcopy(module), x), **HALF).to_module()
    assert ozgraph.shrink_(module, x, **HALF).frozen_by_verification == ()
    same(module, small, torch.randn_like(x))
    for layer in (module.grouped, module.depthwise):
        assert layer.weight.shape[:2] == (layer.out_channels, layer.in_channels // layer.groups)
    assert module.norm.num_groups < 4
    assert module.norm.num_channels == module.grouped.out_channels == module.depthwise.groups
    assert module.slopes.num_parameters == module.norm.num_channels
    assert module.up.weight.shape[:2] == (module.up.in_channels, module.up.out_channels)
    assert module.instance.num_features == module.up.out_channels == module.rows.input_size
    assert module.rows.hidden_size < 6
    assert module.mix.in_features == 2 * module.rows.hidden_size
    assert module.rms.normalized_shape == (module.last.in_features,) == (5,)
    assert module.rms.eps == pytest.approx(2e-5)


class Stubborn(nn.Module):
    """Its Python knows the width."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(6, 8), nn.ReLU())
        self.part = Fixed()
        self.last = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.part(self.inner(x)))


class Fixed(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.view(x.shape[0], 8).tanh()


class Scaled(nn.Module):
    """Its Python reads the width as a number."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.relu(self.first(x)).mean(-1, keepdim=True).expand(-1, 8))


@pytest.mark.parametrize(("kind", "says"), [(Stubborn, "'part' holds sizes.*x.view"), (Scaled, "expand|mean")])
def test_python_that_holds_sizes_is_named_and_the_module_stays(kind: type[nn.Module], says: str) -> None:
    module = net(2, kind)
    x = torch.randn(4, 6)
    module(x).sum().backward()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
    optimizer.step()
    before = {key: tensor.clone() for key, tensor in module.state_dict().items()}
    grads = [parameter.grad for parameter in module.parameters()]
    momenta = [optimizer.state[parameter]["momentum_buffer"] for parameter in module.parameters()]
    with pytest.raises(ozgraph.OzgraphError, match=says) as found:
        ozgraph.shrink_(module, (x,), optimizer=optimizer, **HALF)
    assert "to_module" in str(found.value) and "test_shrink.py" in str(found.value)
    assert all(torch.equal(before[key], tensor) for key, tensor in module.state_dict().items())
    assert all(a is parameter.grad for a, parameter in zip(grads, module.parameters(), strict=True))
    assert all(
        a is optimizer.state[parameter]["momentum_buffer"]
        for a, parameter in zip(momenta, module.parameters(), strict=True)
    )
    module(x).sum().backward()


def test_nothing_zero_leaves_everything() -> None:
    module = net(3)
    before = {key: tensor.data_ptr() for key, tensor in module.state_dict().items()}
    assert ozgraph.shrink_(module, images()[0]).removed_slots == 0
    assert {key: tensor.data_ptr() for key, tensor in module.state_dict().items()} == before
    with pytest.raises(ozgraph.OzgraphError, match="give a target"):
        ozgraph.shrink_(module, images()[0], uniform=True)


class Pretrained(nn.Module):
    """A stand-in for a model with a config: two blocks of a width and a number of heads."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config
        self.stem = nn.Linear(5, config.hidden)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.last = nn.Linear(config.hidden, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = x + block(x)
        return self.last(x)

    def save_pretrained(self, folder: str) -> None:
        Path(folder, "config.json").write_text(json.dumps(vars(self.config)))
        torch.save(self.state_dict(), Path(folder, "weights.pt"))

    @classmethod
    def from_pretrained(cls, folder: str) -> Pretrained:
        made = cls(SimpleNamespace(**json.loads(Path(folder, "config.json").read_text())))
        made.load_state_dict(torch.load(Path(folder, "weights.pt"), weights_only=True))
        return made.eval()


class Block(nn.Module):
    def __init__(self, config: Any) -> None:
        super().__init__()
        self.heads, self.width = config.heads, config.head_width
        rows = config.heads * config.head_width
        self.qkv = nn.ModuleList(nn.Linear(config.hidden, rows) for _ in range(3))
        self.out = nn.Linear(rows, config.hidden)
        self.up, self.down = nn.Linear(config.hidden, config.inner), nn.Linear(config.inner, config.hidden)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (part(x).view(x.shape[0], x.shape[1], self.heads, self.width).transpose(1, 2) for part in self.qkv)
        x = x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return x + self.down(F.gelu(self.up(x)))


def pretrained() -> Pretrained:
    config = SimpleNamespace(hidden=12, layers=2, heads=6, head_width=4, inner=18, answers=3, kind="small")
    module = net(5, lambda: Pretrained(config))
    assert isinstance(module, Pretrained)
    return module.eval()


def test_a_config_follows_uniform_pruning() -> None:
    module, x = pretrained(), torch.randn(2, 7, 5)
    before = module(x)
    report = ozgraph.shrink_(module, x, target=ozgraph.Target(macs=0.5), uniform=True, round_to=1)
    assert report.removed_slots > 0
    config = module.config
    assert config.heads < 6 or config.inner < 18 or config.hidden < 12
    assert (config.layers, config.head_width, config.answers) == (2, 4, 3)
    for block in module.blocks:
        assert block.heads == config.heads
        assert block.qkv[0].out_features == config.heads * 4
        assert block.up.out_features == config.inner
    assert module.stem.out_features == config.hidden
    assert module(x).shape == before.shape


def test_a_config_that_cannot_follow_is_said_and_left() -> None:
    module, x = pretrained(), torch.randn(2, 7, 5)
    with torch.no_grad():
        module.blocks[0].up.weight[3] = 0
        module.blocks[0].up.bias[3] = 0
    said = dict(vars(module.config))
    with pytest.warns(UserWarning, match="config of Pretrained does not describe"):
        ozgraph.shrink_(module, x)
    assert vars(module.config) == said
    assert module.blocks[0].up.out_features == 17

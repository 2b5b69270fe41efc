"""Prune and eliminate on captured modules: verified in float64, given back where a rule is wrong."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402
from training.loops import net  # noqa: E402
from training.nets import images  # noqa: E402

import ozgraph  # noqa: E402
from models import torch_nets  # noqa: E402
from models.halving import NOTHING, HalfOfEveryFamily  # noqa: E402
from ozgraph.backends.torch import zeroed  # noqa: E402
from ozgraph.numerics.torch_compare import arrays, compared  # noqa: E402
from ozgraph.numerics.torch_runs import run, varied  # noqa: E402
from ozgraph.passes.prove_dead import zeroing  # noqa: E402
from ozgraph.rules.registry import RULES  # noqa: E402
from ozgraph.rules.table import registered  # noqa: E402

torch.set_num_threads(1)

pytestmark = pytest.mark.filterwarnings("ignore:.*train mode")


@pytest.mark.parametrize(
    "name", ["resnet", "mobilenet_v3", "shufflenet_v2", "vit", "swin", "gqa_decoder", "gpt2", "recurrent", "unet"]
)
def test_a_random_half_of_all_free_slots_goes_exactly(name: str) -> None:
    module, inputs, _ = torch_nets.sample(name)
    module = module.double()
    args = tuple(x.double() if x.is_floating_point() else x for x in inputs.values())
    graph = ozgraph.capture(module, args)
    result = ozgraph.prune(graph, target=NOTHING, passes=[HalfOfEveryFamily()])
    assert result.report.removed_slots > 0
    assert result.report.frozen_by_verification == ()
    assert result.report.limit == pytest.approx(1e-12, rel=1)
    assert result.report.max_relative_error <= 1e-12
    small = result.to_module()
    original = copy.deepcopy(module)
    original.load_state_dict({**original.state_dict(), **zeroed(graph, zeroing(result.state))})
    for seed in (7, 8):
        other, _ = varied((args, {}), seed)
        torch.testing.assert_close(small.eval()(*other), original(*other), rtol=1e-11, atol=1e-11)


def test_elimination_takes_what_is_zero_in_the_module() -> None:
    module = net(0)
    with torch.no_grad():
        module.fc1.weight[[2, 3, 5]] = 0
        module.fc1.bias[[2, 3, 5]] = 0
    result = ozgraph.eliminate(ozgraph.capture(module, (images()[0],)))
    assert result.report.removed_slots == 3
    assert result.to_module().get_parameter("fc1.weight").shape == (17, 32)
    assert list(result.to_module().state_dict()) == list(module.state_dict())


@pytest.mark.parametrize("criterion", ["l1", "l2", "random"])
def test_saliencies_read_the_modules_own_weights(criterion: str) -> None:
    module = net(1)
    with torch.no_grad():
        for tensor in (module.conv3.weight, module.conv3.bias):
            tensor[4] *= 1e-6
    graph = ozgraph.capture(module, (images()[0],))
    result = ozgraph.prune(graph, target=ozgraph.Target(macs=0.4), criterion=criterion, round_to=1)
    report = result.report
    assert report.macs_after <= 0.6 * report.macs_before
    if criterion != "random":
        kept = next(p for (v, axis), p in result.state.plan.keep.items() if (v.name, axis) == ("conv3.weight", 0))
        assert 4 not in kept


class Casting(nn.Module):
    """Computes in another precision in between, without gradients in one place and in an autocast region in another."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).to(torch.float32).relu()
        with torch.autocast("cpu", enabled=False):
            x = self.second(x).reshape(-1, 2, 4).reshape(-1, 8).relu()
        with torch.no_grad():
            shift = torch.arange(3, dtype=torch.float32)
        return self.last(x.to(torch.float32)) + shift


def test_casts_and_regions_do_not_hide_from_the_limit() -> None:
    torch.manual_seed(0)
    module = Casting()
    result = ozgraph.prune(ozgraph.capture(module, torch.randn(5, 6)), target=ozgraph.Target(groups=0.4), round_to=1)
    assert result.report.frozen_by_verification == ()
    assert result.report.max_relative_error <= result.report.limit < 1e-11
    assert result.to_module().train()(torch.randn(5, 6)).requires_grad


@pytest.fixture
def a_wrong_rule() -> Iterator[None]:
    """Softmax taken for an operator that treats every slot alone."""
    known = registered()
    right = known["aten.softmax"]
    RULES["aten.softmax"] = known["aten.relu"]
    yield
    RULES["aten.softmax"] = right


class Gated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner, self.gate, self.last = nn.Linear(6, 8), nn.Linear(6, 10), nn.Linear(18, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.cat([self.inner(x).relu(), self.gate(x).softmax(-1)], -1))


def test_what_does_not_verify_is_given_back(a_wrong_rule: None) -> None:
    torch.manual_seed(0)
    graph = ozgraph.capture(Gated(), torch.randn(5, 6))
    result = ozgraph.prune(graph, target=NOTHING, passes=[HalfOfEveryFamily()])
    assert [row.reason.split(":")[0] for row in result.report.frozen_by_verification] == ["gate.weight"]
    assert "did not verify" in result.report.frozen_by_verification[0].reason
    assert result.report.removed_slots == 4


def test_outputs_that_never_vary_prove_nothing() -> None:
    class Still(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.first(x).relu()) * 0

    with pytest.raises(ozgraph.OzgraphError, match="varies"):
        ozgraph.eliminate(ozgraph.capture(Still(), torch.randn(3, 4)))


def test_outputs_that_move_by_rounding_alone_prove_nothing() -> None:
    """The mean over space of what an instance norm gives is a constant, but for its rounding."""
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.InstanceNorm2d(6), nn.Conv2d(6, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    with pytest.raises(ozgraph.OzgraphError, match="varies"):
        ozgraph.eliminate(ozgraph.capture(module, torch.randn(2, 3, 8, 8)))


def test_a_module_without_weights_is_analyzed_but_not_pruned() -> None:
    with torch.device("meta"):
        module = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    graph = ozgraph.capture(module, torch.randn(3, 4, device="meta"))
    assert ozgraph.analyze(graph).families
    with pytest.raises(ozgraph.OzgraphError, match="meta device"):
        ozgraph.prune(graph, target=ozgraph.Target(macs=0.3), criterion="random")


def test_misuse_is_told() -> None:
    module = net(0)
    with pytest.raises(ozgraph.OzgraphError, match="capture it first"):
        ozgraph.prune(module, target=ozgraph.Target(macs=0.3))  # type: ignore[arg-type]
    graph = ozgraph.capture(module, (images()[0],))
    with pytest.raises(ozgraph.OzgraphError, match="no file of its own"):
        ozgraph.eliminate(graph, "small.onnx")
    with pytest.raises(ozgraph.OzgraphError, match="onnxruntime"):
        ozgraph.prune(graph, max_drift=0.1)


def test_other_inputs_are_of_the_same_kind() -> None:
    example = ((torch.arange(6).reshape(2, 3), torch.tensor([[0.0, -torch.inf]])), {"mask": torch.ones(3).bool()})
    (numbers, bias), kwargs = varied(example, 3)
    assert numbers.min() >= 0 and numbers.max() <= 5 and numbers.dtype == torch.int64
    assert bias[0, 1] == -torch.inf
    assert torch.equal(kwargs["mask"], example[1]["mask"])
    assert varied(example, 0) is example


def test_a_run_in_float64_leaves_the_module_alone() -> None:
    module = net(2)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    x = images(3)[0]
    found = [arrays(run(module, ((x * scale,), {}))) for scale in (1, 2)]
    plain = [arrays(run(module, ((x * scale,), {}), double=False)) for scale in (1, 2)]
    assert found[0][0].dtype == "float64" and plain[0][0].dtype == "float32"
    report = compared([[row[0].astype("float32")] for row in found], plain, 1e-5)
    assert report.equal and 0 < report.max_relative_error < 1e-5
    assert module.training
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())


@pytest.mark.parametrize("name", ["vit", "convnext", "gqa_decoder"])
def test_norms_over_pruned_slots_keep_their_statistics(name: str) -> None:
    module, inputs, _ = torch_nets.sample(name)
    module = module.double()
    args = tuple(x.double() if x.is_floating_point() else x for x in inputs.values())
    result = ozgraph.prune(
        ozgraph.capture(module, args),
        target=NOTHING,
        rescale=True,
        passes=[HalfOfEveryFamily(everything=name != "gqa_decoder")],
    )
    assert result.report.frozen_by_verification == ()
    assert any(result.state.plan.replacements)
    assert result.report.max_relative_error <= result.report.limit


class Branching(nn.Module):
    """Runs a layer in train mode alone."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.extra, self.last = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3)
        self.norm, self.drop = nn.BatchNorm1d(8), nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.drop(self.norm(self.first(x)))
        if self.training:
            x = x + self.extra(x).tanh()
        return self.last(x)


def test_what_only_train_mode_does_is_named() -> None:
    torch.manual_seed(0)
    graph = ozgraph.capture(Branching(), torch.randn(5, 6))
    with pytest.warns(UserWarning, match=r"train mode.*aten\.linear\.default in extra only in train mode"):
        small = ozgraph.prune(graph, target=ozgraph.Target(groups=0.3), round_to=1).to_module()
    x = torch.randn(5, 6)
    small.train()
    before = small.get_buffer("norm.running_mean").clone()
    assert not torch.equal(small(x), small(x))
    assert not torch.equal(before, small.get_buffer("norm.running_mean"))
    assert small.get_buffer("norm.num_batches_tracked") == 2
    assert torch.equal(small.eval()(x), small(x))


def test_the_result_compiles_and_saves_as_safetensors() -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    x = images()[0]
    small = ozgraph.prune(ozgraph.capture(net(4), (x,)), target=ozgraph.Target(macs=0.4), round_to=1).to_module()
    compiled = torch.compile(small.eval(), backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), small(x))
    stored = safetensors.load(safetensors.save(small.state_dict()))
    twin = copy.deepcopy(small)
    for tensor in twin.parameters():
        tensor.data.zero_()
    twin.load_state_dict(stored)
    assert torch.equal(twin(x), small(x))

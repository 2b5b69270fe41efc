"""Weights that train through low-rank adapters of peft: what goes is exactly zero in the merged model."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from training import language  # noqa: E402  (first: it sees to what peft imports)

peft = pytest.importorskip("peft")

from training.finished import difference  # noqa: E402

import ozgraph  # noqa: E402
from ozgraph.errors import UsageError  # noqa: E402
from ozgraph.groups import Groups  # noqa: E402
from ozgraph.runtime import DHSPG, HESSO, LHSPG, Target  # noqa: E402

pytestmark = pytest.mark.slow
STEPS = 24
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


@pytest.fixture(scope="module")
def groups() -> Groups:
    return language.groups_of(language.llama())


def adapted(seed: int = 0, **more: Any) -> Any:
    """A Llama whose linear layers have adapters that are not zero, and whose weights are frozen."""
    config = peft.LoraConfig(
        r=2, lora_alpha=4, target_modules=TARGETS, modules_to_save=["lm_head"], task_type="CAUSAL_LM", **more
    )
    model = peft.get_peft_model(language.llama(seed), config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.02)
    return model


def optimizer_of(model: Any) -> torch.optim.Optimizer:
    return torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2, weight_decay=0.01)


def train(model: Any, optimizer: torch.optim.Optimizer, first: int = 0, last: int = STEPS) -> list[float]:
    losses = []
    for number in range(first, last):
        loss = model(**language.batch(number, 8)).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


METHODS: dict[str, Any] = {
    "lhspg": lambda o, g: LHSPG(
        o, g, target=Target(groups=0.4), steps=STEPS, start=4, end=20, periods=2, penalty=1e-2, include=language.INCLUDE
    ),
    "hesso": lambda o, g: HESSO(
        o, g, target=Target(groups=0.4), steps=STEPS, start=4, end=20, periods=2, include=language.INCLUDE
    ),
    "dhspg": lambda o, g: DHSPG(
        o, g, target=Target(groups=0.4), steps=STEPS, start=4, end=20, penalty=1e-2, include=language.INCLUDE
    ),
}


@pytest.mark.parametrize("method", METHODS)
def test_the_merged_model_has_exact_zeros(method: str, groups: Groups) -> None:
    model = adapted(1)
    optimizer = optimizer_of(model)
    pruner = METHODS[method](optimizer, groups.bind(model))
    losses = train(model, optimizer)
    assert losses[-1] < losses[0]
    merged = model.merge_and_unload()
    language.exactly_zero(pruner, merged)


def test_base_weights_move_by_what_the_adapters_learnt_when_a_period_ends(groups: Groups) -> None:
    model = adapted(2)
    optimizer = optimizer_of(model)
    pruner = METHODS["lhspg"](optimizer, groups.bind(model))
    layer = model.base_model.model.model.layers[0].self_attn.q_proj
    start = layer.base_layer.weight.detach().clone()
    for number in range(STEPS):
        free = torch.from_numpy(~(pruner.gone | pruner.decaying))
        before = layer.base_layer.weight.detach().clone()
        batch = language.batch(number, 8)
        optimizer.zero_grad()
        model(**batch).loss.backward()
        optimizer.step()
        moved = not torch.equal(before, layer.base_layer.weight)
        second = layer.lora_B["default"].weight
        if number + 1 in pruner.schedule.edges[1:]:
            assert moved and second.abs().sum() == 0.0
        else:
            assert second.abs().sum() > 0.0
        assert free.any()
    difference = layer.base_layer.weight.detach() - start
    kept = difference.abs().sum(1) > 0
    assert torch.linalg.matrix_rank(difference[kept]) > 2, "several periods move weights by more than one rank"


def test_a_run_goes_on_from_inside_a_period(groups: Groups) -> None:
    def made() -> tuple[Any, torch.optim.Optimizer, Any]:
        model = adapted(5, lora_dropout=0.0)
        optimizer = optimizer_of(model)
        return model, optimizer, METHODS["lhspg"](optimizer, groups.bind(model))

    first = made()
    train(*first[:2], last=15)
    saved = [copy.deepcopy(part.state_dict()) for part in first]
    train(*first[:2], first=15)
    second = made()
    for part, state in zip(second, saved, strict=True):
        part.load_state_dict(state)
    assert second[2].redundant is not None and second[2].phase == "period 2 of 2"
    train(*second[:2], first=15)
    assert (first[2].gone == second[2].gone).all() and first[2].finished
    for name, tensor in first[0].state_dict().items():
        assert torch.equal(tensor, second[0].state_dict()[name]), name


def test_scores_are_those_of_the_weights_that_the_network_computes_with(groups: Groups) -> None:
    model = adapted(3)
    pruner = HESSO(optimizer_of(model), groups.bind(model), target=Target(groups=0.2), steps=STEPS, periods=2)
    values = pruner.layout.weights()
    merged = dict(adapted(3).merge_and_unload().named_parameters())
    for name, value in values.items():
        torch.testing.assert_close(value, merged[name], rtol=1e-6, atol=1e-6)


def test_a_convolution_and_an_embedding_with_adapters_end_in_a_verified_file(tmp_path: Path) -> None:
    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = torch.nn.Embedding(11, 6)
            self.conv = torch.nn.Conv2d(6, 8, 3, padding=1)
            self.out = torch.nn.Linear(8, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = torch.relu(self.conv(self.table(x).permute(0, 3, 1, 2)))
            return self.out(y.mean((2, 3)))

    torch.manual_seed(0)
    module = Net()
    x = torch.randint(11, (2, 5, 5))
    groups = ozgraph.find_groups(module, (x,))
    model = peft.get_peft_model(module, peft.LoraConfig(r=2, target_modules=["table", "conv", "out"]))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora" in name:
                parameter.normal_(std=0.1)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.05)
    pruner = LHSPG(optimizer, groups.bind(model), target=Target(groups=0.5), steps=10, start=1, end=8, periods=2)
    for _ in range(10):
        optimizer.zero_grad()
        model(x).square().sum().backward()
        optimizer.step()
    assert {len(entry.whole) for entry in pruner.layout.factors} == {1} and len(pruner.layout.factors) >= 2
    merged = model.merge_and_unload().eval()
    language.exactly_zero(pruner, merged)
    report = ozgraph.export(merged, (x,), tmp_path / "small.onnx")
    assert report.removed_slots == pruner.gone.sum() > 0
    assert difference(tmp_path / "small.onnx", merged, torch.randint(11, (2, 5, 5))) < 1e-5


@pytest.mark.parametrize(("more", "said"), [({"use_dora": True}, "more than B A"), ({"lora_bias": False}, "")])
def test_adapters_that_are_more_than_a_product_are_refused(more: dict[str, Any], said: str, groups: Groups) -> None:
    model = adapted(4, **more)
    if said:
        with pytest.raises(UsageError, match=said):
            METHODS["lhspg"](optimizer_of(model), groups.bind(model))
    else:
        METHODS["lhspg"](optimizer_of(model), groups.bind(model))


def test_a_model_without_adapters_is_sent_elsewhere(groups: Groups) -> None:
    module = language.llama()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    with pytest.raises(UsageError, match="no low-rank adapters"):
        METHODS["lhspg"](optimizer, groups.bind(module))

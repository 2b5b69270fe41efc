"""Groups of modules that keep tensors which are neither parameters nor buffers: what training cannot reach stays."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402

import ozgraph  # noqa: E402
from ozgraph.errors import UsageError  # noqa: E402
from ozgraph.runtime import HESSO, Target  # noqa: E402


class Positions(nn.Module):
    """A table is added to the first hidden layer; the second is free of it."""

    def __init__(self, *, registered: bool) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(6, 8), nn.Linear(8, 10), nn.Linear(10, 3)
        table = torch.linspace(0.5, 2.0, 8)
        if registered:
            self.register_buffer("table", table)
        else:
            self.table = table

    def forward(self, x: Tensor) -> Tensor:
        return self.c(torch.relu(self.b(torch.relu(self.a(x)) + self.table)))


def trained(module: nn.Module, x: Tensor) -> ozgraph.Graph:
    """The module after HESSO took two fifths of its groups."""
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    groups = ozgraph.find_groups(module, x)
    hesso = HESSO(optimizer, groups, target=Target(groups=0.4), steps=12, start=1, end=9, periods=4)
    for _ in range(12):
        optimizer.zero_grad()
        module(x).square().mean().backward()
        optimizer.step()
    assert hesso.finished
    return ozgraph.capture(module.eval(), x)


@pytest.mark.parametrize(("registered", "sizes"), [(True, {"a.weight", "b.weight"}), (False, {"b.weight"})])
def test_slots_stay_whose_zero_training_cannot_hold(registered: bool, sizes: set[str]) -> None:
    torch.manual_seed(0)
    module, x = Positions(registered=registered), torch.randn(16, 6)
    groups = ozgraph.find_groups(module, x)
    assert {family.dim for family in groups if family.active} == sizes
    assert ("table" in groups.tensors) == registered
    if not registered:
        held = groups["a.weight"]
        assert not held.free.any()
        assert held.inactive == "'table' is neither a parameter nor a buffer; register it as a buffer"
        assert all(occurrence.tensor != "table" for occurrence in held.occurrences)
    small = ozgraph.eliminate(trained(module, x)).to_module()
    with torch.no_grad():
        assert torch.allclose(small(x), module(x), atol=1e-6)
    before = sum(parameter.numel() for parameter in module.parameters())
    assert sum(parameter.numel() for parameter in small.parameters()) < before


def test_a_family_that_training_cannot_hold_is_not_to_be_had_by_name() -> None:
    module, x = Positions(registered=False), torch.randn(4, 6)
    groups, optimizer = ozgraph.find_groups(module, x), torch.optim.SGD(module.parameters(), lr=0.1)
    with pytest.raises(UsageError, match="no family is left to prune"):
        HESSO(optimizer, groups, target=Target(groups=0.5), steps=10, start=1, end=9, periods=2, families=["a.weight"])

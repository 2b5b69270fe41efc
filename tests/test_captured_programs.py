"""What captured programs hold besides what the module computes, and programs that compute something else."""

from __future__ import annotations

import pytest

import ozgraph
from ozgraph.errors import ModelError
from ozgraph.passes.state import State

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402


class Other(nn.Module):
    """Takes a shortcut, and another one while it is exported."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 16), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        scale = 2.0 if torch.compiler.is_exporting() else 1.0
        found: Tensor = self.second(torch.relu(scale * self.first(x)))
        return found


def test_a_program_that_is_not_the_module_is_told_apart_from_a_wrong_pruning() -> None:
    torch.manual_seed(0)
    captured = ozgraph.capture(Other(), (torch.randn(2, 4),))
    with pytest.raises(ModelError, match="computes something else than Other"):
        ozgraph.prune(captured, target=ozgraph.Target(groups=0.5))


class Normalising(nn.Module):
    """Takes numbers of Python in the precision of its input, which a program holds in float32."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 16), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        middle = torch.as_tensor([0.485, 0.456, 0.406, 0.1], dtype=x.dtype)
        found: Tensor = self.second(torch.relu(self.first((x - middle) / 0.3)))
        return found


def test_numbers_that_a_program_rounds_do_not_stand_in_the_way() -> None:
    """The program is not the module to 1e-12, and the pruning is compared with the program then."""
    torch.manual_seed(0)
    captured = ozgraph.capture(Normalising(), (torch.randn(2, 4),))
    result = ozgraph.prune(captured, target=ozgraph.Target(groups=0.5))
    assert result.state.verification is not None and result.state.verification.max_relative_error < 1e-12
    assert not result.state.given_back and result.to_module().first.weight.shape[0] == 8


class Positioned(nn.Module):
    """Adds a table that is neither a parameter nor a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 16), nn.Linear(16, 3)
        self.table = torch.linspace(-1, 1, 16)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.second(torch.relu(self.first(x) + self.table))
        return found


def test_plain_tensors_of_a_module_go_with_the_slots_that_they_belong_to() -> None:
    torch.manual_seed(0)
    module = Positioned()
    table = module.table
    result = ozgraph.prune(ozgraph.capture(module, (torch.randn(2, 4),)), target=ozgraph.Target(groups=0.5))
    assert not result.state.given_back and result.to_module().first.weight.shape[0] == 8
    assert module.table is table and torch.equal(table, torch.linspace(-1, 1, 16))


class Remembering(nn.Module):
    """Keeps its table in a dictionary of its own, where no run can replace it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 16), nn.Linear(16, 3)
        self.tables = {"cpu": torch.linspace(-1, 1, 16)}

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.second(torch.relu(self.first(x) + self.tables["cpu"]))
        return found


def test_tensors_that_no_part_of_a_module_holds_are_zeroed_where_capturing_put_them() -> None:
    torch.manual_seed(0)
    module = Remembering()
    table = module.tables["cpu"]
    result = ozgraph.prune(ozgraph.capture(module, (torch.randn(2, 4),)), target=ozgraph.Target(groups=0.5))
    assert not result.state.given_back and result.to_module().first.weight.shape[0] == 8
    assert result.state.verification is not None and result.state.verification.max_relative_error < 1e-12
    assert torch.equal(table, torch.linspace(-1, 1, 16))


class Boxed(nn.Module):
    """Looks up how high boxes are: their corners must be in order."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.second = nn.Embedding(20, 16), nn.Linear(16, 3)

    def forward(self, boxes: Tensor) -> Tensor:
        found: Tensor = self.second(torch.relu(self.table(boxes[..., 1] - boxes[..., 0])))
        return found


def test_integers_are_moved_where_others_do_not_fit() -> None:
    boxes = torch.tensor([[[1, 19], [3, 7], [18, 19], [2, 5], [0, 12], [6, 6]]])
    result = ozgraph.prune(ozgraph.capture(Boxed(), (boxes,)), target=ozgraph.Target(groups=0.5))
    assert not result.state.given_back and result.to_module().second.weight.shape[1] == 8


class Repeating(nn.Module):
    """Says how long the result of a repetition is."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 16), nn.Linear(32, 3)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.second(torch.relu(self.first(x)).repeat_interleave(2, 1, output_size=32))
        return found


def test_a_repetition_to_a_size_becomes_shorter() -> None:
    torch.manual_seed(0)
    result = ozgraph.prune(ozgraph.capture(Repeating(), (torch.randn(2, 4),)), target=ozgraph.Target(groups=0.5))
    smaller = result.to_module()
    assert not result.state.given_back and smaller.second.weight.shape[1] == 2 * smaller.first.weight.shape[0] < 32


class Mapped(nn.Module):
    """A mask made by ``vmap``, whose levels stand in the program without results."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 16), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        places = torch.arange(x.shape[0])
        mask = torch.vmap(torch.vmap(lambda i, j: i >= j, (None, 0)), (0, None))(places, places)
        found: Tensor = mask.to(x.dtype) @ self.second(torch.relu(self.first(x)))
        return found


def test_levels_of_vmap_stay_in_the_program() -> None:
    torch.manual_seed(0)
    captured = ozgraph.capture(Mapped(), (torch.randn(5, 4),))
    result = ozgraph.prune(captured, target=ozgraph.Target(groups=0.5))
    assert result.to_module().first.weight.shape[0] < 16


class Unread(nn.Module):
    """Holds a part that does not run."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.idle = nn.Linear(4, 16), nn.Linear(16, 3), nn.Linear(64, 64)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.second(torch.relu(self.first(x)))
        return found


def test_weights_that_nothing_reads_do_not_count() -> None:
    captured = ozgraph.capture(Unread(), (torch.randn(2, 4),))
    assert "idle.weight" in {value.name for value in captured.constants}
    assert {value.name for value in State(captured).parameters} == {
        "first.weight", "first.bias", "second.weight", "second.bias",
    }  # fmt: skip
    assert ozgraph.analyze(captured).report.parameters == 4 * 16 + 16 + 16 * 3 + 3

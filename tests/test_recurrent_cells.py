"""Cells that a module steps through itself: units go from every step at once, through all gates."""

from __future__ import annotations

from collections.abc import Callable

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402

import ozgraph  # noqa: E402
from models.halving import NOTHING, HalfOfEveryFamily  # noqa: E402
from ozgraph.backends.torch import zeroed  # noqa: E402
from ozgraph.passes.prove_dead import zeroing  # noqa: E402

torch.set_num_threads(1)


class Stepped(nn.Module):
    """Three steps of a cell over frames that another layer makes, from a state of zeros or one that is learned."""

    def __init__(self, cell: Callable[..., nn.Module], *, learned: bool = False) -> None:
        super().__init__()
        self.frames, self.cell, self.head = nn.Linear(5, 6), cell(6, 8), nn.Linear(8, 3)
        self.start = nn.Parameter(torch.randn(8)) if learned else None

    def forward(self, x: Tensor) -> Tensor:
        frames = self.frames(x).relu()
        h = frames.new_zeros(len(x), 8) if self.start is None else self.start.expand(len(x), -1)
        state: Tensor | tuple[Tensor, Tensor] = (h, h) if isinstance(self.cell, nn.LSTMCell) else h
        for step in range(3):
            state = self.cell(frames[:, step], state)
            h = state[0] if isinstance(state, tuple) else state
        return self.head(h)


def relu_cell(i: int, h: int) -> nn.Module:
    return nn.RNNCell(i, h, nonlinearity="relu")


@pytest.mark.parametrize("learned", [False, True], ids=["zeros", "learned"])
@pytest.mark.parametrize("cell", [nn.LSTMCell, nn.GRUCell, nn.RNNCell, relu_cell])
def test_units_of_a_cell_go_from_all_steps(cell: Callable[..., nn.Module], learned: bool) -> None:
    torch.manual_seed(0)
    module, x = Stepped(cell, learned=learned).double(), torch.randn(4, 3, 5, dtype=torch.float64)
    graph = ozgraph.capture(module, x)
    result = ozgraph.prune(graph, target=NOTHING, passes=[HalfOfEveryFamily()])
    assert result.report.frozen_by_verification == ()
    small = result.to_module()
    gates = module.cell.weight_ih.shape[0] // 8
    assert small.get_parameter("cell.weight_ih").shape == (4 * gates, 3)
    assert small.get_parameter("cell.weight_hh").shape == (4 * gates, 4)
    assert small.get_parameter("head.weight").shape == (3, 4)
    module.load_state_dict({**module.state_dict(), **zeroed(graph, zeroing(result.state))})
    torch.testing.assert_close(small(x), module(x), rtol=1e-12, atol=1e-12)


def silence(module: Stepped, units: list[int], states: list[int]) -> None:
    """Zeros in all gates of some units of a GRU, and in the state that some of them start from."""
    with torch.no_grad():
        for tensor in (module.cell.weight_ih, module.cell.weight_hh, module.cell.bias_ih, module.cell.bias_hh):
            tensor.view(3, 8, -1)[:, units] = 0
        module.start[states] = 0


def test_a_module_with_a_cell_shrinks_in_place() -> None:
    torch.manual_seed(0)
    module, x = Stepped(nn.GRUCell, learned=True), torch.randn(4, 3, 5)
    silence(module, units=[1, 6], states=[1, 6])
    wanted = module(x)
    ozgraph.shrink_(module, x)
    assert (module.cell.hidden_size, module.cell.input_size) == (6, 6)
    torch.testing.assert_close(module(x), wanted)


def test_a_carried_state_that_is_not_zero_keeps_its_unit() -> None:
    torch.manual_seed(0)
    module, x = Stepped(nn.GRUCell, learned=True), torch.randn(4, 3, 5)
    silence(module, units=[1, 6], states=[6])
    result = ozgraph.eliminate(ozgraph.capture(module, x))
    assert result.to_module().get_parameter("cell.weight_hh").shape == (3 * 7, 7)

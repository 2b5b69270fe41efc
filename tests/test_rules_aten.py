"""Every rule for ATen against torch itself: who depends on a slot, and that a zero slot is not seen."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import ozgraph
from ozgraph.graph import Value
from ozgraph.passes.eliminate import Eliminate
from ozgraph.passes.infer_dims import InferDims
from ozgraph.passes.manager import Pipeline
from ozgraph.passes.normalize import Normalize
from ozgraph.passes.prove_dead import ProveDead, zeroing
from ozgraph.passes.state import Removal, State
from ozgraph.rules.rule import Reduction

torch = pytest.importorskip("torch")

from models.aten import CALLS  # noqa: E402  (needs torch)
from ozgraph.backends.torch import to_module, zeroed  # noqa: E402


class Calling(torch.nn.Module):
    """A function of tensors whose tensors are parameters."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.function, shapes = CALLS[name]
        generator = torch.Generator().manual_seed(0)
        for number, shape in enumerate(shapes):
            tensor = torch.randn(shape, generator=generator, dtype=torch.float64)
            self.register_parameter(f"p{number}", torch.nn.Parameter(tensor))

    def forward(self) -> Any:
        return self.function(*self.parameters())


def _results(module: Any) -> list[np.ndarray]:
    with torch.no_grad():
        made = module()
    return [item.detach().clone().numpy() for item in (made if isinstance(made, (list, tuple)) else [made])]


def _solved(module: Any) -> State:
    state = State(ozgraph.capture(module, ()))
    Pipeline([Normalize(), InferDims()]).run(state)
    state.dims.certify()
    assert not state.unknown
    return state


def _places(state: State, value: Value, slot: int) -> np.ndarray:
    """Which elements of a value need a slot."""
    needed = np.zeros(value.shape or (), dtype=bool)
    for axis, dim in enumerate(state.axes[value]):
        here = (state.dims.ids(dim) == slot).any(axis=1)
        needed |= here.reshape([-1 if number == axis else 1 for number in range(needed.ndim)])
    return needed


def _free(state: State) -> Iterator[int]:
    seen: set[int] = set()
    for value in state.parameters:
        for dim in state.axes.get(value, ()):
            for slot in np.unique(state.dims.ids(dim)):
                if slot >= 0 and slot not in seen:
                    seen.add(int(slot))
                    yield int(slot)


def _sites(state: State, slot: int) -> list[Any]:
    return [site for bound in state.bound.values() for site in bound.sites if (state.dims.ids(site.dim) == slot).any()]


@pytest.mark.parametrize("name", CALLS)
def test_only_what_carries_a_slot_depends_on_it(name: str) -> None:
    """Where the operators combine no slots, other elements of the results do not change with a slot."""
    module = Calling(name)
    state = _solved(module)
    before = _results(module)
    tensors = dict(module.named_parameters())
    for slot in _free(state):
        if _sites(state, slot):
            continue
        original = {key: tensor.detach().clone() for key, tensor in tensors.items()}
        with torch.no_grad():
            for value in state.parameters:
                if value in state.axes and value.name in tensors:
                    mask = torch.from_numpy(_places(state, value, slot))
                    tensors[value.name][mask] *= -1.7
        after = _results(module)
        with torch.no_grad():
            for key, tensor in tensors.items():
                tensor.copy_(original[key])
        for output, old, new in zip(state.graph.outputs, before, after, strict=True):
            carried = _places(state, output, slot)
            np.testing.assert_array_equal(new[~carried], old[~carried])


@pytest.mark.parametrize("name", CALLS)
def test_a_zero_slot_is_not_seen_where_slots_are_added(name: str) -> None:
    """With a slot at zero in one operand of a sum, what the other operands have there does not matter."""
    module = Calling(name)
    state = _solved(module)
    tensors = dict(module.named_parameters())
    by_name = {value.name: value for value in state.parameters if value.name in tensors and value in state.axes}
    for slot in _free(state):
        sites = _sites(state, slot)
        if len(sites) != 1 or sites[0].reduction is not Reduction.SUM or len(sites[0].operands) < 2:
            continue
        original = {key: tensor.detach().clone() for key, tensor in tensors.items()}
        for silent in by_name.values():
            reduced = any(sites[0].op.inputs[operand] is silent for operand, _ in sites[0].operands)
            if not reduced or not _places(state, silent, slot).any():
                continue
            with torch.no_grad():
                tensors[silent.name][torch.from_numpy(_places(state, silent, slot))] = 0.0
                before = _results(module)
                for key, value in by_name.items():
                    if value is not silent:
                        tensors[key][torch.from_numpy(_places(state, value, slot))] *= -1.7
                after = _results(module)
                for key, tensor in tensors.items():
                    tensor.copy_(original[key])
            for output, old, new in zip(state.graph.outputs, before, after, strict=True):
                carried = _places(state, output, slot)
                np.testing.assert_allclose(new[~carried], old[~carried], rtol=0, atol=1e-12)


def test_most_calls_leave_a_slot_free() -> None:
    held = {
        "index with a table", "index twice", "gather", "index_put", "scatter", "view_as", "reshape apart", "diagonal",
        "meshgrid", "sum of all",
    }  # fmt: skip
    frozen = {name for name in CALLS if not list(_free(_solved(Calling(name))))}
    assert frozen <= held


class Weighted(Calling):
    """The call's results, weighed element by element and added up: everything but a slot's place may shrink."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.called = len(list(self.parameters()))
        for number, result in enumerate(_results(super().forward)):
            tensor = torch.randn(result.shape, generator=torch.Generator().manual_seed(number), dtype=torch.float64)
            self.register_parameter(f"w{number}", torch.nn.Parameter(tensor))

    def forward(self) -> Any:
        tensors = list(self.parameters())
        made = self.function(*tensors[: self.called])
        made = made if isinstance(made, (list, tuple)) else [made]
        return sum((part * weight).sum() for part, weight in zip(made, tensors[self.called :], strict=True))


@pytest.mark.parametrize("name", CALLS)
def test_a_pruned_call_equals_the_zeroed_one(name: str) -> None:
    """A random half of all free slots goes; what is rewritten (sizes, bounds, indexes, groups) still fits."""
    module = Weighted(name)
    state = ozgraph.analyze(ozgraph.capture(module, ()), rescale=True).state
    state.chosen = Removal(state.dims.total)
    choice = np.random.default_rng(0)
    for family in state.families:
        mask = choice.random(family.atom.size) < 0.5
        mask[choice.integers(family.atom.size)] = False
        state.chosen.add(family.atom, mask & state.dims.free_slots(family.atom))
    ProveDead().run(state)
    Eliminate().run(state)
    assert state.given_back == []
    assert state.removed or name == "diagonal"
    smaller = to_module(state.graph, state.plan, modes=False)
    with torch.no_grad():
        expected = torch.func.functional_call(module, zeroed(state.graph, zeroing(state)), ())
        torch.testing.assert_close(smaller(), expected, rtol=1e-12, atol=1e-12)

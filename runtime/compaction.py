"""A smaller network in the middle of training: module, optimizer, averages and data-parallel wrappers shrink together.

The groups say which positions go, and whoever changes the module (:class:`ozgraph.Compactor`) says which stayed. All of
it happens or nothing does: what is replaced is remembered until everything has followed.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from ozgraph.errors import UsageError
from ozgraph.groups import Groups, Places, cut, places_of
from ozgraph.groups.polynomial import Kept
from ozgraph.runtime.followers import chain, inner_of, is_compiled, put_inside, wake
from ozgraph.runtime.shards import is_sharded

_INSTEAD = (
    'compact into a GraphModule instead, ozgraph.Compactor(module, args, into="graph"), and call pruner.module in the '
    "loop, which is the smaller one from the cut on"
)


class Compacted(Protocol):
    """What a compactor returns; see :class:`ozgraph.compactor.Compacted`."""

    @property
    def module(self) -> Any: ...  # noqa: D102
    @property
    def kept(self) -> Places: ...  # noqa: D102
    @property
    def changed(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def left(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def error(self) -> float: ...  # noqa: D102


class Compacts(Protocol):
    """Takes groups out of a module; see :class:`ozgraph.Compactor`."""

    @property
    def module(self) -> Any: ...  # noqa: D102
    @property
    def in_place(self) -> bool: ...  # noqa: D102
    def fall_back(self) -> bool: ...  # noqa: D102
    def __call__(self, module: Any, gone: Places, undo: ExitStack) -> Compacted: ...  # noqa: D102


@dataclass(frozen=True)
class Cut:
    """One compaction, as a checkpoint remembers it.

    Attributes:
        step: optimizer steps taken before it.
        gone: tensor -> axis -> positions that went, counted in the tensor as it was just before.
        error: largest difference of the outputs before and after, over their spread.
        left: why groups stayed that should have gone, if any did.
    """

    step: int
    gone: Places
    error: float
    left: tuple[str, ...] = ()

    def state_dict(self) -> dict[str, Any]:
        """Plain data and tensors."""
        gone = [
            [name, axis, torch.from_numpy(there)] for name, axes in self.gone.items() for axis, there in axes.items()
        ]
        return {"step": self.step, "gone": gone, "error": self.error, "left": list(self.left)}

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any]) -> Cut:
        """What :meth:`state_dict` gave."""
        gone: dict[str, dict[int, Any]] = {}
        for name, axis, positions in state["gone"]:
            gone.setdefault(str(name), {})[int(axis)] = positions.cpu().numpy()
        return cls(int(state["step"]), gone, float(state["error"]), tuple(state["left"]))


class Compaction:
    """Cuts a module and everything that goes with it.

    Args:
        compactor: changes modules.
        optimizer: its state is sliced along with the parameters.

    Attributes:
        module: the one that is trained: another object after a cut into a GraphModule.
        cuts: those made so far.
    """

    def __init__(self, compactor: Compacts, optimizer: Optimizer) -> None:
        self.compactor, self.optimizer = compactor, optimizer
        self.module: nn.Module = compactor.module
        self.cuts: list[Cut] = []
        self._wrappers: list[nn.Module] = []
        self._copies: list[nn.Module] = []
        self._tensors: list[MutableMapping[str, Tensor]] = []
        self._calls: list[Callable[[nn.Module], object]] = []
        self._changed: tuple[str, ...] = ()
        for name, parameter in self.module.named_parameters():
            if is_sharded(parameter):
                raise UsageError(
                    f"{name!r} is sharded, and sharded tensors cannot be cut while training: leave the compactor out, "
                    "groups are held at zero and go when the model is exported"
                )

    def follow(self, *others: Any) -> None:
        """Let more follow.

        Args:
            others: averages of the weights (modules like the one that is trained, or tensors by name), wrappers around
                it (``DistributedDataParallel``, ``torch.compile``), and functions that are called with the smaller
                module when all is done (to record a CUDA graph anew).

        Raises:
            UsageError: it is nothing that can.
        """
        for other in others:
            if isinstance(other, nn.Module):
                if is_compiled(other) and not self.compactor.in_place:
                    raise UsageError(
                        "a compiled module cannot follow into a GraphModule: follow with a function that compiles "
                        "pruner.module when it is called"
                    )
                if not self.compactor.in_place and inner_of(other) is other:
                    raise UsageError(
                        f"{type(other).__name__} is a bare copy of the module and cannot become a GraphModule; follow "
                        "with something that wraps it, as torch.optim.swa_utils.AveragedModel does"
                    )
                (self._wrappers if inner_of(other) is self.module else self._copies).append(other)
            elif isinstance(other, MutableMapping):
                if self._changed:
                    raise UsageError(
                        f"{self._changed[0]!r} takes the factor of a norm when groups go, and tensors by name cannot "
                        "follow that; give the average as a module"
                    )
                self._tensors.append(other)
            elif callable(other):
                self._calls.append(other)
            else:
                raise UsageError(
                    f"{type(other).__name__} cannot follow a cut: give a module, tensors by name or a function"
                )

    @property
    def parallel(self) -> bool:
        """Whether a data-parallel wrapper follows."""
        return any(isinstance(part, DistributedDataParallel) for whole in self._wrappers for part in chain(whole))

    def rehearse(self, groups: Groups, kept: Kept) -> None:
        """Make a cut on a copy of the module, so that what cannot be cut is known before the run and not after.

        Raises:
            UsageError: the module's Python cannot follow.
        """
        try:
            twin = copy.deepcopy(self.module)
        except Exception:  # whatever a module of anybody's holds
            warnings.warn(
                f"{type(self.module).__name__} cannot be copied, so whether it can be cut is known only when it is",
                stacklevel=4,
            )
            return
        gone = places_of(groups, kept)
        _zero(twin, gone)
        with _randomness_kept(self.module):
            try:
                found = self._rehearsed(twin, gone)
            except UsageError as error:
                if not self.compactor.in_place:
                    raise
                if not self.compactor.fall_back():
                    raise UsageError(f"{_shortened(error)}; {_INSTEAD}") from None
                warnings.warn(
                    f"{_shortened(error)}; from the cut on it is a GraphModule: call pruner.module in the loop",
                    stacklevel=4,
                )
                found = self._rehearsed(twin, gone)
        self._changed = found.changed
        if found.left:
            warnings.warn(f"a cut would leave groups in place, at zero: {found.left[0]}", stacklevel=4)
        if found.changed:
            warnings.warn(
                f"{found.changed[0]!r} takes the factor of a norm at the cut and trains on with another effective "
                f"rate; for the very same training {_INSTEAD}",
                stacklevel=4,
            )

    def _rehearsed(self, twin: nn.Module, gone: Places) -> Compacted:
        with ExitStack() as undo:
            return self.compactor(twin, gone, undo)

    def take(self, groups: Groups, gone: Places, step: int, bind: Callable[[Groups], object]) -> None:
        """Cut.

        Args:
            groups: bound to the module as it is.
            gone: positions whose slots are at zero.
            step: optimizer steps taken.
            bind: takes over the groups, bound to the smaller module; or those from before, should that be undone.

        Raises:
            UsageError, VerificationError: it cannot be done; everything is as before.
        """
        shapes = {name: tuple(parameter.shape) for name, parameter in self.module.named_parameters()}
        with _randomness_kept(self.module), ExitStack() as undo:
            undo.callback(bind, groups)  # last of all: everything is back by then
            for whole in (*self._wrappers, *self._copies):
                undo.callback(wake, whole)
            found = self.compactor(self.module, gone, undo)
            copies = [(whole, self._copied(whole, gone, found, undo)) for whole in self._copies]
            self._slice_state(found, shapes, undo)
            self._replace_parameters(found.module, undo)
            for tensors in self._tensors:
                _slice_tensors(tensors, found, undo)
            for whole, inner in (*copies, *((whole, found.module) for whole in self._wrappers)):
                put_inside(whole, inner, undo)
            bind(cut(groups, found.kept).bind(found.module))
            undo.callback(setattr, self, "module", self.module)
            undo.callback(setattr, self, "cuts", self.cuts)
            self.module = found.module
            self.cuts = [*self.cuts, Cut(step, _went(groups, found.kept), found.error, found.left)]
            for whole in (*self._wrappers, *self._copies):
                wake(whole)
            undo.pop_all()
        for call in self._calls:
            call(self.module)

    def replay(self, groups: Callable[[], Groups], cuts: Iterable[Cut], bind: Callable[[Groups], object]) -> None:
        """Make the cuts of a run that was saved, on a module that was built anew.

        Args:
            groups: tells the groups as they are.
            cuts: in their order.
            bind: see :meth:`take`.

        Raises:
            UsageError: other positions went this time.
        """
        for wanted in cuts:
            for whole in (self.module, *map(inner_of, self._copies)):
                _zero(whole, wanted.gone)
            self.take(groups(), wanted.gone, wanted.step, bind)
            if not _same(self.cuts[-1].gone, wanted.gone):
                raise UsageError(
                    f"the cut of step {wanted.step} cannot be repeated on this module; build it as it was built in the "
                    "run that was saved"
                )
            self.cuts[-1] = wanted

    def _copied(self, whole: nn.Module, gone: Places, found: Compacted, undo: ExitStack) -> Any:
        """The smaller inside of a copy, whose groups become zero with the module's."""
        name = type(whole).__name__
        _zero(inner_of(whole), gone, undo)
        try:
            made = self.compactor(inner_of(whole), gone, undo)
        except UsageError as error:
            raise UsageError(f"{name} cannot follow the cut: {error}") from None
        if not _same(made.kept, found.kept):
            raise UsageError(f"{name} cannot follow the cut: it is no copy of {type(self.module).__name__}")
        return made.module

    def _slice_state(self, found: Compacted, shapes: Mapping[str, tuple[int, ...]], undo: ExitStack) -> None:
        """Slice what the optimizer keeps of every parameter that was cut."""
        state = self.optimizer.state
        for name, parameter in self.module.named_parameters():
            axes = found.kept.get(name)
            if axes and parameter in state:
                held = state[parameter]
                undo.callback(state.__setitem__, parameter, held)
                state[parameter] = {
                    key: _sliced(item, axes, shapes[name], f"{name}: {key}") for key, item in held.items()
                }

    def _replace_parameters(self, module: nn.Module, undo: ExitStack) -> None:
        """Give the optimizer the parameters of another module, with the state that the old ones had."""
        if module is self.module:
            return
        fresh = dict(module.named_parameters(remove_duplicate=False))
        old = self.module.named_parameters(remove_duplicate=False)
        successors = {parameter: fresh[name] for name, parameter in old if name in fresh}
        state = self.optimizer.state
        for options in self.optimizer.param_groups:
            before = list(options["params"])
            undo.callback(options["params"].__setitem__, slice(None), before)
            options["params"][:] = [successors.get(parameter, parameter) for parameter in before]
            for parameter in before:
                if parameter in successors and parameter in state:
                    held = state[parameter]
                    undo.callback(state.__setitem__, parameter, held)
                    undo.callback(state.pop, successors[parameter], None)
                    del state[parameter]
                    state[successors[parameter]] = held


def _slice_tensors(tensors: MutableMapping[str, Tensor], found: Compacted, undo: ExitStack) -> None:
    """Slice an average that is kept as tensors by name."""
    for name, axes in found.kept.items():
        if name in tensors:
            held = tensors[name]
            undo.callback(tensors.__setitem__, name, held)
            tensors[name] = _taken(held, axes)


def _taken(tensor: Tensor, axes: Mapping[int, Any]) -> Tensor:
    found = tensor.detach()
    for axis, positions in axes.items():
        found = found.index_select(axis, torch.from_numpy(positions).to(found.device))
    if found.dim() == 4 and tensor.is_contiguous(memory_format=torch.channels_last) and not tensor.is_contiguous():
        return found.contiguous(memory_format=torch.channels_last)
    return found


def _sliced(item: Any, axes: Mapping[int, Any], shape: tuple[int, ...], what: str) -> Any:
    """What an optimizer keeps of a parameter of ``shape``, less what went of it.

    It may have the parameter's shape, be a number, or have an axis of size 1 where it sums over one (Adafactor).
    """
    if not isinstance(item, Tensor) or item.numel() == 1:
        return item
    if item.dim() != len(shape) or any(mine not in (1, whole) for mine, whole in zip(item.shape, shape, strict=True)):
        raise UsageError(
            f"the optimizer keeps something of the shape {list(item.shape)} of a parameter of the shape {list(shape)} "
            f"({what}), and how to cut that is not known; leave the compactor out, or take another optimizer"
        )
    return _taken(item, {axis: positions for axis, positions in axes.items() if item.shape[axis] == shape[axis]})


@torch.no_grad()
def _zero(module: nn.Module, gone: Places, undo: ExitStack | None = None) -> None:
    """Set positions of parameters to zero."""
    for name, parameter in module.named_parameters(remove_duplicate=False):
        if undo is not None and name in gone:
            undo.callback(parameter.detach().copy_, parameter.detach().clone())
        for axis, positions in gone.get(name, {}).items():
            parameter.index_fill_(axis, torch.from_numpy(positions).to(parameter.device), 0)


def _went(groups: Groups, kept: Places) -> dict[str, dict[int, Any]]:
    """The positions that went, under the names that the groups have for tensors."""
    return {
        name: {axis: np.setdiff1d(np.arange(tensor.shape[axis]), kept[name][axis]) for axis in sorted(kept[name])}
        for name, tensor in groups.tensors.items()
        if name in kept
    }


def _same(first: Places, second: Places) -> bool:
    return first.keys() == second.keys() and all(
        first[name].keys() == second[name].keys()
        and all(np.array_equal(first[name][axis], second[name][axis]) for axis in first[name])
        for name in first
    )


@contextmanager
def _randomness_kept(module: nn.Module) -> Iterator[None]:
    """Training draws the same numbers afterwards as if nothing had happened in between."""
    devices = {tensor.device for tensor in module.parameters() if tensor.is_cuda}
    with torch.random.fork_rng([device.index for device in devices]):
        yield


def _shortened(error: UsageError) -> str:
    """What is wrong, less the advice that is for :func:`ozgraph.shrink_`."""
    return str(error).partition("; it is as it was")[0].partition("; take to_module")[0]

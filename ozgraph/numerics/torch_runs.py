"""Run PyTorch modules in float64 without touching them, on inputs like the example.

Importing this module imports torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from ozgraph.frontends.torch_faults import is_out_of_memory
from ozgraph.frontends.torch_quiet import left_alone, quiet
from ozgraph.numerics.torch_kernels import IN_DOUBLE

Inputs = tuple[tuple[Any, ...], dict[str, Any]]

_LOOKED_AT = 4096
"""Elements that tell a mask of two numbers from data."""

_LARGE = 1 << 20
"""Elements from which on a parameter is widened where it is read, instead of all of them at once."""

_NARROW = (torch.float16, torch.bfloat16, torch.float32)


class _Double(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Every operator computes in float64, whatever precision the module's Python casts to in between.

    Args:
        borrowed: addresses of what is somebody else's, as stored: it is widened where it is read, and never written.
        rounding: seed of the rounding by which its numbers move; None leaves them as they are.
    """

    def __init__(self, borrowed: Sequence[int] = (), rounding: int | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._borrowed = {address: number for number, address in enumerate(borrowed)}
        self._rounding = rounding

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._assert_tensor_metadata.default:
            return None
        kwargs = kwargs or {}
        if not func._schema.is_mutable:
            args, kwargs = pytree.tree_map(self._wide, (args, kwargs))
        elif self._borrowed:
            args, kwargs = self._for_writing(func, args, kwargs)
        return IN_DOUBLE.get(func, func)(*args, **kwargs)

    def _for_writing(self, func: Any, args: Any, kwargs: Any) -> tuple[Any, Any]:
        """What an operator writes to as it is, and the rest widened."""
        said = func._schema.arguments
        written = {one.name for one in said if one.alias_info is not None and one.alias_info.is_write}
        named = [(one.name, arg) for one, arg in zip(said, args, strict=False)]
        for name, arg in (*named, *kwargs.items()):
            if name in written and any(_address(leaf) in self._borrowed for leaf in _tensors(arg)):
                raise _WrittenError

        def widened(name: str, arg: Any) -> Any:
            return arg if name in written else pytree.tree_map(self._wide, arg)

        return [widened(*pair) for pair in named], {name: widened(name, arg) for name, arg in kwargs.items()}

    def _wide(self, item: Any) -> Any:
        wide = _widened(item)
        if self._rounding is None or not isinstance(item, Tensor) or wide is item:
            return wide
        number = self._borrowed.get(_address(item))
        if number is None:
            return wide
        # Moved alike wherever it is read.
        return _rounded(wide, torch.Generator().manual_seed(self._rounding + 1_000_003 * (number + 1)))


class _WrittenError(Exception):
    """A forward writes to one of its large parameters, which therefore have to be copied."""


def _tensors(arg: Any) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(arg) if isinstance(leaf, Tensor)]


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _widened(item: Any) -> Any:
    if isinstance(item, Tensor) and item.dtype in _NARROW:
        return item.double()
    return torch.float64 if isinstance(item, torch.dtype) and item in _NARROW else item


class _OwnEpsilon(TorchFunctionMode):
    """A norm that leaves its epsilon to the precision keeps that of the module's own, which pruning may rescale."""

    def __init__(self, precision: torch.dtype) -> None:
        self._epsilon = torch.finfo(precision).eps

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in _DEFAULT_EPSILON and (args[3] if len(args) > 3 else kwargs.get("eps")) is None:
            args, kwargs["eps"] = args[:3], self._epsilon
        return func(*args, **kwargs)


_DEFAULT_EPSILON = (torch.rms_norm, torch.nn.functional.rms_norm, torch.ops.aten.rms_norm.default)


@contextmanager
def in_double(
    precision: torch.dtype = torch.float32, borrowed: Iterable[Tensor] = (), rounding: int | None = None
) -> Iterator[None]:
    """Compute in float64: constants, casts and tensors made on the way.

    Args:
        precision: what the module computes in otherwise; it says what an epsilon is that nobody gave.
        borrowed: what must not be written to.
        rounding: seed of the rounding by which its numbers move.
    """
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with _Double([*map(_address, borrowed)], rounding), _OwnEpsilon(precision):
            yield
    finally:
        torch.set_default_dtype(default)


def tensors_of(module: torch.nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers under all their names."""
    found: dict[str, Tensor] = dict(module.named_parameters(remove_duplicate=False))
    found.update(module.named_buffers(remove_duplicate=False))
    return {name: tensor.detach() for name, tensor in found.items()}


def run(
    module: torch.nn.Module,
    inputs: Inputs,
    changed: Mapping[str, Tensor] | None = None,
    *,
    double: bool = True,
    rounding: int | None = None,
) -> list[Any]:
    """The leaves of what a module returns in eval mode, with some of its tensors replaced; the module stays as it is.

    Large parameters are not held twice: in float64 they are widened where they are read.

    Args:
        changed: tensors by name, plain attributes of parts too; one that has several names is replaced under all.
        double: compute in float64.
        rounding: move every floating number of the module by one rounding of float64 at most, drawn with this seed.
    """
    held = tensors_of(module)
    by_tensor = {id(held_by): (changed or {})[name] for name, held_by in _named(module) if name in (changed or {})}
    own = {id(tensor): by_tensor.get(id(tensor), held[name]).detach() for name, tensor in _named(module)}
    parameters = [id(tensor) for tensor in module.parameters()] if double else []
    large = [key for key in parameters if own[key].dtype in _NARROW and own[key].numel() >= _LARGE]
    plain = {name: tensor for name, tensor in (changed or {}).items() if name not in held}

    def results(borrowed: list[int]) -> list[Any]:
        copies: dict[int, Tensor] = {}
        for key, tensor in own.items():
            wide = double and tensor.dtype in _NARROW
            # Buffers that a run writes to are written to a copy.
            copies[key] = tensor if key in borrowed else tensor.double() if wide else tensor.clone()
        if rounding is not None:
            generator = torch.Generator().manual_seed(rounding)
            copies = {key: _rounded(tensor, generator) for key, tensor in copies.items()}
        tensors = {name: copies[id(tensor)] for name, tensor in _named(module)}
        args, kwargs = pytree.tree_map_only(Tensor, _input_double if double else torch.clone, inputs)
        with ExitStack() as modes:
            modes.enter_context(left_alone(module, training=False))
            modes.enter_context(quiet())
            modes.enter_context(_attributes(module, plain))
            if double:
                modes.enter_context(in_double(_precision(held), [own[key] for key in borrowed], rounding))
            made = torch.func.functional_call(module, tensors, args, kwargs, strict=False)
        leaves = pytree.tree_leaves(made)
        return [_widened(leaf) if double and isinstance(leaf, Tensor) else leaf for leaf in leaves]

    if large:
        try:
            return results(large)
        except Exception as error:
            # Somewhere one precision is asked for (recurrent layers do), or a parameter is written to.
            if is_out_of_memory(error):
                raise
    return results([])


@contextmanager
def _attributes(module: torch.nn.Module, tensors: Mapping[str, Tensor]) -> Iterator[None]:
    """Tensors in place of others that are plain attributes of a part: neither parameters nor buffers."""
    with ExitStack() as back:
        for name, tensor in tensors.items():
            held, attribute = _holder(module, name)
            if attribute in held:
                back.callback(held.__setitem__, attribute, held[attribute])
                held[attribute] = tensor
        yield


def holds(module: torch.nn.Module, names: Iterable[str]) -> bool:
    """Whether :func:`run` can replace all of these tensors: they are parameters, buffers or attributes of parts."""
    known = {name for name, _ in _named(module)}
    return all(name in known or attribute in held for name in names for held, attribute in [_holder(module, name)])


def _holder(module: torch.nn.Module, name: str) -> tuple[dict[str, Any], str]:
    """The plain attributes of a part that hold a tensor of this name, and its name there; nothing where none does."""
    path, _, attribute = name.rpartition(".")
    try:
        held = vars(module.get_submodule(path))
    except AttributeError:
        return {}, attribute
    return (held if isinstance(held.get(attribute), Tensor) else {}), attribute


def _precision(tensors: Mapping[str, Tensor]) -> torch.dtype:
    """What most numbers of a module are stored in."""
    counts: dict[torch.dtype, int] = {}
    for tensor in tensors.values():
        if tensor.is_floating_point():
            counts[tensor.dtype] = counts.get(tensor.dtype, 0) + tensor.numel()
    return max(counts, key=lambda dtype: counts[dtype], default=torch.float32)


def _rounded(tensor: Tensor, generator: torch.Generator) -> Tensor:
    """A float64 tensor whose elements moved by one unit in the last place, up, down or not at all."""
    if tensor.dtype is not torch.float64:
        return tensor
    steps = torch.randint(-1, 2, tensor.shape, generator=generator).to(tensor)
    return tensor + tensor * steps * torch.finfo(torch.float64).eps


def _input_double(tensor: Tensor) -> Tensor:
    return tensor.detach().double() if tensor.dtype in _NARROW else tensor.detach().clone()


def _named(module: torch.nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from module.named_parameters(remove_duplicate=False)
    yield from module.named_buffers(remove_duplicate=False)


def varied(inputs: Inputs, seed: int, *, draw: bool = True) -> Inputs:
    """Other inputs of the same kind; seed 0 gives the example itself.

    Floating inputs move by noise as wide as their own spread (by one where they are constant), integers are drawn
    anew from the range that the example has; masks, flags and what is not finite stay.

    Args:
        draw: without it integers change places along their second axis (their only one) and keep to their fellows
            beyond it: the corners of a box stay in order.
    """
    if seed == 0:
        return inputs
    generator = torch.Generator().manual_seed(seed)

    def other(tensor: Tensor) -> Tensor:
        if tensor.numel() == 0 or tensor.is_meta or tensor.dtype is torch.bool or tensor.is_complex():
            return tensor
        here = tensor.detach().cpu()
        if not tensor.is_floating_point():
            if not draw:
                axis = min(1, here.dim() - 1)
                return tensor if axis < 0 else tensor[(slice(None),) * axis + (_order(here.shape[axis], generator),)]
            low, high = int(here.min()), int(here.max())
            return torch.randint(low, high + 1, tensor.shape, generator=generator).to(tensor)
        finite = torch.isfinite(here)
        known = here[finite].double()
        distinct = len(set(known.flatten().tolist()[:_LOOKED_AT]))
        if known.numel() == 0 or (distinct == 2 and known.numel() > 2):
            return tensor
        width = float(known.std()) if distinct > 1 else 1.0
        noise = torch.randn(tensor.shape, generator=generator, dtype=torch.float64) * width
        moved = here.double() + noise
        if distinct > 1 and float(known.min()) >= 0:
            moved = moved.abs()
        return torch.where(finite, moved, here.double()).to(tensor)

    args, kwargs = pytree.tree_map_only(Tensor, other, inputs)
    return args, kwargs


def _order(size: int, generator: torch.Generator) -> Tensor:
    return torch.randperm(size, generator=generator)

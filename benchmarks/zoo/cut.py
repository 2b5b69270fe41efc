"""A model up to the first operator whose result has a size that depends on data: what a detector's heads return.

Non-maximum suppression, boxes picked by score, experts picked by a router: beyond such an operator no static graph
exists. Which layers are the heads is found by running the model once: they are the layers with weights whose results
reach no other such layer before the cut.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode


class CutError(Exception):
    """The operator at which a run stops."""


class _UntilDataDecides(TorchFunctionMode):
    """Raises :class:`CutError` ahead of an operator whose result's size depends on data."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if _data_decides(func, args, kwargs or {}):
            raise CutError(str(getattr(func, "__name__", func)))
        return func(*args, **(kwargs or {}))


def _data_decides(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    name = str(getattr(func, "__name__", func))
    if name in ("nonzero", "argwhere", "masked_select", "unique", "unique_consecutive", "tolist", "item"):
        return True
    if name.rpartition(".")[2] in ("nms", "qnms"):
        return True
    if name == "where":
        return len(args) + len(kwargs) == 1
    if name == "__getitem__":
        index = args[1] if isinstance(args[1], tuple) else (args[1],)
        return any(isinstance(part, Tensor) and part.dtype == torch.bool for part in index)
    return False


class Heads(nn.Module):
    """Returns what the heads of ``inner`` return, in the order of their calls, and runs no further than the cut."""

    def __init__(self, inner: nn.Module, heads: frozenset[str]) -> None:
        super().__init__()
        self.inner, self.heads = inner, heads

    def forward(self, *args: Any, **kwargs: Any) -> tuple[Tensor, ...]:
        with _recorded(self.inner, self.heads) as found, _ending_early(self.inner), _UntilDataDecides():
            self.inner(*args, **kwargs)
        return tuple(tensor for _, tensor, _ in found)


@contextmanager
def _ending_early(module: nn.Module) -> Iterator[None]:
    """Let every part return nothing from the cut on: a tracer keeps count of parts that begin and end."""
    cut: list[CutError] = []

    def ending(forward: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            try:
                return forward(*args, **kwargs)
            except CutError as error:
                cut.append(error)
            except Exception:  # of a part whose own part returned nothing
                if not cut:
                    raise
            return None

        return run

    parts = [part for part in module.modules() if "forward" not in vars(part)]
    for part in parts:
        part.forward = ending(part.forward)
    try:
        yield
    finally:
        for part in parts:
            del part.forward


def at_heads(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Heads, str]:
    """A model that ends at its heads, and the operator that it ends before.

    Raises:
        ValueError: nothing in it depends on data, or no layer runs before something does.
    """
    leaves = frozenset(
        name for name, part in module.named_modules() if not list(part.children()) and list(part.parameters())
    )
    asked = {parameter: parameter.requires_grad for parameter in module.parameters()}
    where = None
    try:
        for parameter in asked:
            parameter.requires_grad_(parameter.is_floating_point())
        with torch.enable_grad(), _recorded(module, leaves) as found, _UntilDataDecides():
            try:
                module(*args, **kwargs)
            except CutError as cut:
                where = str(cut)
        heads = frozenset(_last(found))
    finally:
        for parameter, flag in asked.items():
            parameter.requires_grad_(flag)
    if where is None or not heads:
        raise ValueError("nothing in it depends on data, or no layer runs before something does")
    return Heads(module, heads), where


@contextmanager
def _recorded(module: nn.Module, names: frozenset[str]) -> Iterator[list[tuple[str, Tensor, Any]]]:
    """(name, result, its gradient function) of every call of the named parts."""
    found: list[tuple[str, Tensor, Any]] = []

    def record(name: str) -> Any:
        def hook(_: nn.Module, __: Any, result: Any) -> None:
            if isinstance(result, Tensor):
                found.append((name, result, result.grad_fn))

        return hook

    hooks = [part.register_forward_hook(record(name)) for name, part in module.named_modules() if name in names]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def _last(found: list[tuple[str, Tensor, Any]]) -> Iterator[str]:
    """The layers whose results no other result of a layer was computed from."""
    reached: set[Any] = set()
    for _, _, function in found:
        stack = [step for step, _ in function.next_functions if step is not None] if function is not None else []
        while stack:
            step = stack.pop()
            if step not in reached:
                reached.add(step)
                stack.extend(following for following, _ in step.next_functions if following is not None)
    for name, _, function in found:
        if function is not None and function not in reached:
            yield name

"""Torch-Pruning, as a plain user would call it.

Equal means in float64, within 1e-5 of the spread; a module that holds to float32 inside is compared in that, within
1e-3, which is above its rounding and far below what a wrong channel does.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch
from cut import at_heads
from sources import Made
from torch import Tensor, nn
from torch.utils import _pytree as pytree

LIMIT, OWN_LIMIT = 1e-5, 1e-3
"""In float64, and in a module's own precision where it runs in no other."""


def torch_pruning(made: Made, clock: Any) -> dict[str, Any]:
    """Torch-Pruning: half of all channels by magnitude, the output layers ignored.

    A model whose whole is not traced is tried up to its heads, as ozgraph's are.
    """
    if made.module is None:
        return {"outcome": "not applicable", "error": "it prunes modules, not files"}
    twin = Made(copy.deepcopy(made.module), made.args, made.kwargs)
    first = _torch_pruning(made, clock)
    if first.get("outcome") == "runs":
        with suppress(Exception):  # a share that it cannot tell is left out
            first["prunable"] = _prunable(twin, clock)
    if first["outcome"] != "failed":
        return first
    try:
        heads, where = at_heads(made.module, made.args, made.kwargs)
    except Exception:
        return first
    return {**_torch_pruning(Made(heads.eval(), made.args, made.kwargs), clock), "cut": where}


def _torch_pruning(made: Made, clock: Any) -> dict[str, Any]:
    import torch_pruning as tp

    module = made.module.requires_grad_(True)  # its graph is traced through autograd
    found: dict[str, Any] = {"outcome": "failed", "stage": "run"}
    try:
        before = _results(module, made, double=False)
        ignored = _output_layers(module, made, before)
        zeroed = copy.deepcopy(module)
        found["stage"] = "build"
        with clock("peer build"):
            pruner = tp.pruner.MagnitudePruner(
                module, made.args or made.kwargs, importance=tp.importance.MagnitudeImportance(p=2), pruning_ratio=0.5,
                ignored_layers=ignored, forward_fn=_forward(made),
            )  # fmt: skip
        found["stage"] = "prune"
        names = {part: name for name, part in module.named_modules()}
        size = _numbers(module)
        with clock("peer prune"):
            for group in pruner.step(interactive=True):
                _zero(zeroed, group, names)
                group.prune()
        left = _numbers(module)
        found["parameters"], found["parameters after"] = size, left
        found["stage"] = "run pruned"
        after = _results(module, made, double=False)
        if [tuple(tensor.shape) for tensor in after] != [tuple(tensor.shape) for tensor in before]:
            return {**found, "error": "the shapes of its results changed"}
        found["outcome"] = "runs" if left < size else "nothing to remove"
        found["stage"] = "compare"
        try:
            wanted = _results(zeroed, made)
        except RuntimeError:
            wanted, double = _results(zeroed, made, double=False), False
        else:
            double = True
        found["difference"] = _difference(wanted, _results(module, made, double=double))
        found["equal"] = found["difference"] <= (LIMIT if double else OWN_LIMIT)
        del found["stage"]
    except Exception as error:
        found["error"] = f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
        if found["stage"] == "compare":
            found["equal"] = False
    return found


def _prunable(made: Made, clock: Any) -> int:
    """Numbers that are gone when Torch-Pruning cuts every group that it lets itself cut to one channel."""
    import torch_pruning as tp

    module = made.module.requires_grad_(True)
    ignored = _output_layers(module, made, _results(module, made, double=False))
    size = _numbers(module)
    with clock("peer share"):
        graph = tp.DependencyGraph()
        graph.build_dependency(module, example_inputs=made.args or made.kwargs, forward_fn=_forward(made))
        for group in list(graph.get_all_groups(ignored_layers=ignored)):
            root, function = group[0].dep.target.module, group[0].dep.handler
            width = graph.get_out_channels(root)
            again = graph.get_pruning_group(root, function, list(range(1, width or 1)))
            if width and width > 1 and graph.check_pruning_group(again):
                again.prune()
    return size - _numbers(module)


def _numbers(module: nn.Module) -> int:
    """Parameters and the statistics of norms, as ozgraph counts: a file holds both as weights."""
    statistics = (getattr(part, name, None) for part in module.modules() for name in ("running_mean", "running_var"))
    tensors = [*module.parameters(), *(tensor for tensor in statistics if isinstance(tensor, Tensor))]
    return sum(tensor.numel() for tensor in tensors)


def _forward(made: Made) -> Callable[..., list[Tensor]]:
    """How the peer calls the module: with all of its inputs, by position and by name."""

    def call(module: nn.Module, _: Any) -> list[Tensor]:
        leaves = pytree.tree_leaves(module(*made.args, **made.kwargs))
        return [leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.grad_fn is not None]

    return call


def _results(module: nn.Module, made: Made, *, double: bool = True) -> list[Tensor]:
    """The floating results of a run, in the model's own precision or in float64."""
    if double:
        module = copy.deepcopy(module).double()

    def widened(leaf: Any) -> Any:
        return leaf.double() if double and isinstance(leaf, Tensor) and leaf.is_floating_point() else leaf

    args, kwargs = pytree.tree_map(widened, (made.args, made.kwargs))
    with torch.no_grad():
        leaves = pytree.tree_leaves(module(*args, **kwargs))
    return [leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.is_floating_point()]


def _output_layers(module: nn.Module, made: Made, results: list[Tensor]) -> list[nn.Module]:
    """The layers that a user would call the output: for every result, the last whose width a result's axis has."""
    calls: list[tuple[nn.Module, int]] = []

    def hook(layer: nn.Module, _: Any, __: Any) -> None:
        calls.append((layer, layer.weight.shape[0]))

    layers = [part for part in module.modules() if isinstance(part, (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d))]
    hooks = [layer.register_forward_hook(hook) for layer in layers]
    with torch.no_grad():
        module(*made.args, **made.kwargs)
    for handle in hooks:
        handle.remove()
    found: dict[nn.Module, None] = {}
    for result in results:
        sizes = set(result.shape[1:])
        last = next((layer for layer, width in reversed(calls) if width in sizes and layer not in found), None)
        if last is not None:
            found[last] = None
    return list(found)


def _zero(module: nn.Module, group: Any, names: dict[nn.Module, str]) -> None:
    """Zero in the original what a group removes of the layers that make its channels."""
    parts = dict(module.named_modules())
    with torch.no_grad():
        for dependency, indices in group:
            if "out_channels" not in dependency.handler.__name__:
                continue
            target = dependency.target.module
            if isinstance(target, nn.Parameter) or target not in names:
                continue
            part = parts[names[target]]
            for tensor in (getattr(part, "weight", None), getattr(part, "bias", None)):
                if tensor is not None and tensor.shape[0] > max(indices, default=0):
                    axis = 1 if tensor.ndim > 1 and getattr(part, "transposed", False) else 0
                    tensor.index_fill_(axis, torch.tensor(list(indices)), 0.0)


def _difference(wanted: list[Tensor], found: list[Tensor]) -> float:
    """The largest difference over the spread of the result."""
    worst = 0.0
    for left, right in zip(wanted, found, strict=True):
        scale = float(left.std()) if left.numel() > 1 else float(left.abs().max())
        worst = max(worst, float((left - right).abs().max()) / max(scale, 1e-30))
    return worst

"""Train and eval mode in one graph: whatever differs between the two programs asks the module's own flag."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from ozgraph.frontends.torch_modes import training_arguments
from ozgraph.frontends.torch_origin import TorchOrigin

_SHOWN = 5
_FLAGS = frozenset({"train", "training", "use_input_stats"})

Moved = Callable[[fx.Node], "fx.Node | None"]
"""Node of the captured program -> the call that stands for it in a module; None where it was replaced."""


def either(training: bool, in_training: Any, otherwise: Any) -> Any:
    """The argument for the mode that the module is in."""
    return in_training if training else otherwise


def average(training: bool, batches: torch.Tensor, more: int) -> float:
    """The momentum of a batch norm that averages over all batches: those counted, a tensor [], and ``more``."""
    return 1.0 / (float(batches) + more) if training else 0.0


def with_modes(module: fx.GraphModule, origin: TorchOrigin, moved: Moved) -> None:
    """Let every call that the mode changes follow ``module.training``.

    Arguments that the program of train mode has otherwise become a choice by the flag, and counters that only training
    moves are moved by it. Calls that only one mode makes stay as eval mode has them, with a warning that names them.
    Where train mode cannot be captured, arguments that are flags by their name follow the mode, with a warning too.
    """
    training = training_arguments(origin)
    left = list(training.unmatched)
    flag: fx.Node | None = None

    def asked() -> fx.Node:
        nonlocal flag
        if flag is None:
            first = next(iter(module.graph.nodes))
            with module.graph.inserting_before(first), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                flag = module.graph.get_attr("training")
        return flag

    if not training.captured:
        for node in [node for node in module.graph.nodes if node.op == "call_function"]:
            schema = getattr(node.target, "_schema", None)
            for name in _FLAGS.intersection(argument.name for argument in getattr(schema, "arguments", ())):
                _choose(module, node, name, True, asked())
    for node, arguments in training.arguments.items():
        mine = moved(node)
        if mine is None:
            left.append(f"{node.target}, which pruning replaced, has other arguments in train mode")
            continue
        for name, wanted in arguments.items():
            _choose(module, mine, name, wanted, asked())
    for node, (name, counted) in training.averages.items():
        mine = moved(node)
        if mine is None:
            left.append(f"{node.target}, which pruning replaced, averages over all batches in train mode")
            continue
        with module.graph.inserting_before(mine), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            momentum = module.graph.call_function(average, (asked(), module.graph.get_attr(name), counted))
        _set(mine, "momentum", momentum)
    for name, step in training.counters.items():
        _count(module, name, step, asked())
    if left:
        more = f" and {len(left) - _SHOWN} more" if len(left) > _SHOWN else ""
        what = "runs other Python in train mode" if training.captured else "cannot be captured in train mode"
        does = "as in eval mode there" if training.captured else "as in eval mode, with dropout and batch norm on"
        warnings.warn(
            f"{type(origin.module).__name__} {what}; the pruned module does {does}: {'; '.join(left[:_SHOWN])}{more}",
            stacklevel=4,
        )


def _choose(module: fx.GraphModule, node: fx.Node, name: str, wanted: Any, training: fx.Node) -> None:
    """Let one argument of a call follow the flag."""
    with module.graph.inserting_before(node):
        chosen = module.graph.call_function(either, (training, wanted, _given(node, name)))
    _set(node, name, chosen)


def _position(node: fx.Node, name: str) -> int:
    """Where the schema has an argument."""
    schema = node.target._schema  # type: ignore[union-attr]
    return [argument.name for argument in schema.arguments].index(name)


def _given(node: fx.Node, name: str) -> Any:
    position = _position(node, name)
    if position < len(node.args):
        return node.args[position]
    schema = node.target._schema  # type: ignore[union-attr]
    return node.kwargs.get(name, schema.arguments[position].default_value)


def _set(node: fx.Node, name: str, value: Any) -> None:
    position = _position(node, name)
    if position < len(node.args):
        node.update_arg(position, value)
    else:
        node.update_kwarg(name, value)


def _count(module: fx.GraphModule, name: str, step: int, training: fx.Node) -> None:
    """Move a counter at the end of every run in train mode."""
    owner, _, last = name.rpartition(".")
    if last not in module.get_submodule(owner)._buffers:
        return  # nothing in eval mode reads it
    end = next(node for node in reversed(module.graph.nodes) if node.op == "output")
    with module.graph.inserting_before(end), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        held = module.graph.get_attr(name)
        moved = module.graph.call_function(either, (training, step, 0))
        module.graph.call_function(torch.ops.aten.add_.Tensor, (held, moved))

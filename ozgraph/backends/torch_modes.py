"""Train and eval mode in one graph: whatever differs between the two programs asks the module's own flag."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import fx

from ozgraph.frontends.torch import exported
from ozgraph.frontends.torch_origin import TorchOrigin

_FLAGS = frozenset({"train", "training", "use_input_stats"})


def either(training: bool, in_training: Any, otherwise: Any) -> Any:
    """The argument for the mode that the module is in."""
    return in_training if training else otherwise


def with_modes(module: fx.GraphModule, origin: TorchOrigin) -> None:
    """Let every call that the mode changes follow ``module.training``.

    The module is exported in train mode too, and both programs are walked side by side: arguments that differ become a
    choice by the flag, and counters that only training moves are moved by it. Where the programs are not alike (a
    layer that is left out at random), only arguments that are flags by their name follow the mode, with a warning.
    """
    trained = _exported_for_training(origin)
    pairs = None if trained is None else _paired(module.graph, trained.graph)
    if trained is None or pairs is None:
        if any(argument.name in _FLAGS for node in _calls(module.graph) for argument in _arguments(node)):
            warnings.warn(
                f"{type(origin.module).__name__} computes something else in train mode than its eval graph with "
                "dropout and batch norm switched on; the pruned module follows the latter",
                stacklevel=3,
            )
            _switch_flags(module)
        return
    flag: fx.Node | None = None

    def training() -> fx.Node:
        nonlocal flag
        if flag is None:
            first = next(iter(module.graph.nodes))
            with module.graph.inserting_before(first), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                flag = module.graph.get_attr("training")
        return flag

    for mine, other in pairs:
        if mine is None:
            _count_in_training(module, other, training())
            continue
        for argument, given, wanted in _differences(mine, other):
            with module.graph.inserting_before(mine):
                chosen = module.graph.call_function(either, (training(), wanted, given))
            _set(mine, argument, chosen)


def _exported_for_training(origin: TorchOrigin) -> fx.GraphModule | None:
    try:
        program = exported(origin.module, origin.args, dict(origin.kwargs), origin.dynamic_shapes, training=True)
        module = program.module()
    except Exception:  # whatever a module does in train mode, eval mode was captured
        return None
    return module if isinstance(module, fx.GraphModule) else None


def _calls(graph: fx.Graph) -> list[fx.Node]:
    return [node for node in graph.nodes if node.op == "call_function"]


def _arguments(node: fx.Node) -> list[Any]:
    schema = getattr(node.target, "_schema", None)
    return [] if schema is None else list(schema.arguments)


def _paired(graph: fx.Graph, trained: fx.Graph) -> list[tuple[fx.Node | None, fx.Node]] | None:
    """Calls of both graphs side by side, None for counters that only training moves; None where they are not alike."""
    pairs: list[tuple[fx.Node | None, fx.Node]] = []
    mine = iter(_calls(graph))
    for other in _calls(trained):
        if _is_counter(other):
            pairs.append((None, other))
            continue
        node = next(mine, None)
        if node is None or node.target is not other.target:
            return None
        pairs.append((node, other))
    return pairs if next(mine, None) is None else None


def _is_counter(node: fx.Node) -> bool:
    """A whole number that a buffer goes up by: the batches that batch norm has seen."""
    return (
        node.target is torch.ops.aten.add_.Tensor
        and isinstance(node.args[0], fx.Node)
        and node.args[0].op == "get_attr"
        and isinstance(node.args[1], int)
        and not node.users
    )


def _differences(mine: fx.Node, other: fx.Node) -> list[tuple[str | int, Any, Any]]:
    """Plain arguments that differ: (its place, in eval mode, in train mode)."""
    found: list[tuple[str | int, Any, Any]] = []
    for position, argument in enumerate(_arguments(mine)):
        here, there = (
            node.args[position] if position < len(node.args) else node.kwargs.get(argument.name, argument.default_value)
            for node in (mine, other)
        )
        plain = all(isinstance(given, (bool, int, float, str)) for given in (here, there))
        if plain and here != there:
            found.append((argument.name if position >= len(mine.args) else position, here, there))
    return found


def _set(node: fx.Node, place: str | int, value: Any) -> None:
    if isinstance(place, int):
        node.update_arg(place, value)
    else:
        node.update_kwarg(place, value)


def _count_in_training(module: fx.GraphModule, other: fx.Node, training: fx.Node) -> None:
    counter, step = other.args[0], other.args[1]
    assert isinstance(counter, fx.Node)
    last = next(node for node in reversed(module.graph.nodes) if node.op == "output")
    with module.graph.inserting_before(last):
        held = module.graph.get_attr(str(counter.target))
        moved = module.graph.call_function(either, (training, step, 0))
        module.graph.call_function(other.target, (held, moved))  # type: ignore[arg-type]


def _switch_flags(module: fx.GraphModule) -> None:
    first = next(iter(module.graph.nodes))
    with module.graph.inserting_before(first), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        flag = module.graph.get_attr("training")
    for node in _calls(module.graph):
        for position, argument in enumerate(_arguments(node)):
            if argument.name in _FLAGS:
                _set(node, position if position < len(node.args) else argument.name, flag)

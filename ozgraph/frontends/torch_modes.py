"""What training mode changes in a captured program: dropout, batch norm, and what counts batches.

The graph is captured in eval mode. A second capture, in train mode, is laid beside it: where the same call of the same
module has other arguments, these are what ``.train()`` means.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from typing import Any

import torch
from torch import fx
from torch.export.graph_signature import InputKind
from torch.nn.modules.batchnorm import _NormBase

from ozgraph.errors import OzgraphError
from ozgraph.frontends.torch import exported
from ozgraph.frontends.torch_origin import TorchOrigin


@dataclass(frozen=True)
class Training:
    """How the program of train mode differs from that of eval mode.

    Attributes:
        arguments: node of ``origin.program`` -> arguments by their name in the schema, as they are in train mode.
        counters: buffers that every run in train mode adds a number to, with that number.
        averages: calls of batch norms without a momentum -> the buffer that counts their batches, and how many it
            counts with this call. Their running statistics are means over all batches: the momentum is one over that.
        unmatched: calls that only one of the two modes makes, one line each; a module with any of these trains by
            other Python than it predicts with, and setting arguments does not make it.
        captured: whether train mode could be captured at all; the reason is in ``unmatched`` where not.
    """

    arguments: dict[fx.Node, dict[str, Any]] = field(default_factory=dict)
    counters: dict[str, int] = field(default_factory=dict)
    averages: dict[fx.Node, tuple[str, int]] = field(default_factory=dict)
    unmatched: tuple[str, ...] = ()
    captured: bool = True


def training_arguments(origin: TorchOrigin) -> Training:
    """Compare the captured program with that of train mode; takes about as long as the capture did."""
    try:
        with _marked(origin.module) as marks:
            program = exported(origin.module, origin.args, dict(origin.kwargs), origin.dynamic_shapes, training=True)
    except OzgraphError as error:
        return Training(unmatched=(str(error),), captured=False)
    counters, counting = _counters(program)
    # A module that was pruned before adds in eval mode too: zero.
    still, idle = _counters(origin.program)
    counters = {name: step - still.get(name, 0) for name, step in counters.items() if step != still.get(name, 0)}
    before = [node for node in _calls(origin.program.graph) if node not in idle]
    after = [node for node in _calls(program.graph) if node not in counting]
    arguments: dict[fx.Node, dict[str, Any]] = {}
    averages: dict[fx.Node, tuple[str, int]] = {}
    calls: Counter[str] = Counter()
    unmatched: list[str] = []
    matcher = SequenceMatcher(None, [_key(node) for node in before], [_key(node) for node in after], autojunk=False)
    for kind, i, j, k, m in matcher.get_opcodes():
        if kind != "equal":
            unmatched += [f"{_words(node)} only in eval mode" for node in before[i:j]]
            unmatched += [f"{_words(node)} only in train mode" for node in after[k:m]]
            continue
        for here, there in zip(before[i:j], after[k:m], strict=True):
            changed = _changed(here, there)
            if changed.get("momentum") in marks:
                name = marks[changed.pop("momentum")]
                calls[name] += 1
                averages[here] = name, calls[name]
            if changed:
                arguments[here] = changed
    return Training(arguments, counters, averages, tuple(unmatched))


@contextmanager
def _marked(module: torch.nn.Module) -> Iterator[dict[float, str]]:
    """Give batch norms without a momentum one that tells them apart: theirs would be read from a tensor.

    Yields the momentum of each, which is none that a layer has, with the name of the buffer that counts its batches.
    """
    layers = {
        -float(number): (layer, f"{path}.num_batches_tracked".lstrip("."))
        for number, (path, layer) in enumerate(module.named_modules(), 1)
        if isinstance(layer, _NormBase) and layer.momentum is None and layer.num_batches_tracked is not None
    }
    for mark, (layer, _) in layers.items():
        layer.momentum = mark
    try:
        yield {mark: name for mark, (_, name) in layers.items()}
    finally:
        for layer, _ in layers.values():
            layer.momentum = None


def _calls(graph: fx.Graph) -> Iterator[fx.Node]:
    """Calls of operators, those of nested graphs included."""
    for node in graph.nodes:
        if node.op == "call_function":
            yield node
            for argument in node.args:
                if isinstance(argument, fx.Node) and argument.op == "get_attr":
                    nested = getattr(graph.owning_module, str(argument.target), None)
                    if isinstance(nested, fx.GraphModule):
                        yield from _calls(nested.graph)


def _key(node: fx.Node) -> tuple[str, tuple[str, ...]]:
    """What makes two calls the same: the operator and the module that calls it."""
    stack = node.meta.get("nn_module_stack") or {}
    return str(node.target), tuple(str(entry[0]) for entry in stack.values())


def _words(node: fx.Node) -> str:
    where = _key(node)[1]
    return f"{node.target} in {where[-1] or 'the module itself' if where else 'the module'}"


def _changed(here: fx.Node, there: fx.Node) -> dict[str, Any]:
    if not isinstance(here.target, torch._ops.OpOverload):
        return {}
    before, after = _by_name(here), _by_name(there)
    return {
        name: after[name]
        for name, value in before.items()
        if not _has_node(value) and not _has_node(after[name]) and value != after[name]
    }


def _by_name(node: fx.Node) -> dict[str, Any]:
    assert isinstance(node.target, torch._ops.OpOverload)
    found = {}
    for position, argument in enumerate(node.target._schema.arguments):
        if position < len(node.args):
            found[argument.name] = node.args[position]
        else:
            found[argument.name] = node.kwargs.get(argument.name, argument.default_value)
    return found


def _has_node(value: Any) -> bool:
    return isinstance(value, fx.Node) or (isinstance(value, (list, tuple)) and any(map(_has_node, value)))


def _counters(program: torch.export.ExportedProgram) -> tuple[dict[str, int], set[fx.Node]]:
    """Buffers that a run adds a number to, and the nodes that do."""
    counters: dict[str, int] = {}
    nodes: set[fx.Node] = set()
    for node, spec in zip(program.graph.nodes, program.graph_signature.input_specs, strict=False):
        if spec.kind is not InputKind.BUFFER:
            continue
        chain: list[fx.Node] = []
        while len(node.users) == 1:  # a layer that is called twice counts twice
            (user,) = node.users
            step = user.args[1] if str(user.target) == "aten.add_.Tensor" and user.args[0] is node else None
            if not isinstance(step, int):
                break
            counters[str(spec.target)] = counters.get(str(spec.target), 0) + step
            chain.append(user)
            node = user
        if node.users:
            counters.pop(str(spec.target), None)
        else:
            nodes.update(chain)
    return counters, nodes

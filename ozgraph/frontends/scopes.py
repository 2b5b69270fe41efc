"""Where in its model an operator stands: the modules around it, from what exporters note and from names."""

from __future__ import annotations

import re
from ast import literal_eval
from collections.abc import Iterable, Mapping
from typing import Any

from ozgraph.graph import Graph, Op

Scope = tuple[str, ...]
"""Modules from the outermost in, each by its name in the one around it: ``("model", "layers.3", "self_attn")``."""

_NOTED = "pkg.torch.onnx.name_scopes"
"""Where torch's exporter notes the modules around a node: a list of qualified names, the operator's own last."""

_LONGEST = 64
"""Modules around an operator that are told apart; names of more parts come from nowhere good."""


def scopes_of(graph: Graph) -> dict[Op, Scope]:
    """The scope of every operator.

    In this order: what the exporter noted; the path in the operator's name (``/layer1/layer1.0/conv1/Conv``); the
    module of its weights (``layer1.0.conv1.weight``); where the operator stands that computes its first operand.
    """
    nodes: Mapping[Op, Any] = getattr(graph.origin, "nodes", None) or {}
    found: dict[Op, Scope] = {}
    owns_weights: set[Op] = set()
    for op in graph.ops:
        scope = _noted(nodes.get(op)) or _path(op.name)
        if scope is None:
            weights = [value.name for value in op.inputs if value is not None and value.constant is not None]
            scope = next((known for name in weights if (known := _module(name))), None)
            if scope is not None:
                owns_weights.add(op)
        found[op] = scope if scope is not None else _inherited(op, found, owns_weights)
    return found


def _noted(node: Any) -> Scope | None:
    """What torch noted on an ONNX node, or on a node of a captured program."""
    noted = getattr(node, "metadata_props", {}).get(_NOTED)
    if noted is not None:
        try:
            names = literal_eval(noted)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            return None
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            return None
        return _nested(names[:-1])
    stack = getattr(node, "meta", {}).get("nn_module_stack")
    return _nested(str(path) for path, _ in stack.values()) if stack else None


def _path(name: str) -> Scope | None:
    """The folders of a name that is a path."""
    parts = [part for part in name.split("/") if part]
    return _nested(parts[:-1]) if len(parts) > 1 else None


def _module(weight: str) -> Scope | None:
    """The module that a weight's name begins with; numbers belong to what is before them."""
    parts = re.findall(r"[^./]+(?:\.\d+(?=[./]))*", weight)
    return tuple(parts[:-1][:_LONGEST]) if len(parts) > 1 else None


def _nested(names: Iterable[str]) -> Scope:
    """Qualified names, outermost first, each less the part that the one around it says already."""
    scope: list[str] = []
    around = ""
    for name in names:
        if not name or name == around:
            continue
        scope.append(name[len(around) + 1 :] if around and name.startswith(around + ".") else name)
        around = name
    return tuple(scope[:_LONGEST])


def _inherited(op: Op, found: Mapping[Op, Scope], owns_weights: set[Op]) -> Scope:
    """Beside the operator that computes the first operand; outside of its module where that has weights."""
    for value in op.inputs:
        producer = None if value is None else value.producer
        if producer is not None and producer in found:
            scope = found[producer]
            return scope[:-1] if producer in owns_weights else scope
    return ()

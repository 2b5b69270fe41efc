"""The normal form of bodies: names that are unique in the whole model, no weights of their own, no settled branches."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import onnx_ir as ir

from ozgraph.frontends.control_flow import Control, followed, graphs_of
from ozgraph.frontends.tensors import alias


def free_outputs(graph: ir.Graph, version: int) -> None:
    """Let no body return a constant itself: an Identity stands between, so that the constant can move out."""
    for control in followed(graph, version).values():
        for body in control.bodies:
            for position, value in enumerate(body.outputs):
                producer = value.producer()
                if value.is_initializer() or (producer is not None and producer.op_type == "Constant"):
                    _stand_between(body, position)


def _stand_between(body: ir.Graph, position: int) -> None:
    value = body.outputs[position]
    node = ir.node("Identity", [value])
    made = node.outputs[0]
    made.type, made.shape = value.type, value.shape
    body.append(node)
    body.outputs[position] = made


def open_bodies(model: ir.Model, version: int) -> None:
    """Bring the bodies of ``model`` that are followed into normal form, in place.

    1. Every value of the model gets a name of its own, results that nobody reads included.
    2. Initializers of bodies become initializers of the model, which every body may read.
    3. An If whose condition is a constant gives way to the branch that it takes.
    """
    controls = followed(model.graph, version)
    if not controls:
        return
    names = _Names(model)
    names.claim(model.graph)
    for control in controls.values():
        for made in control.exits:
            names.settle(made.value)
        for body in control.bodies:
            names.claim(body)
    for control in controls.values():
        for body in control.bodies:
            for value in list(body.initializers.values()):
                body.initializers.pop(value.name or "")
                model.graph.register_initializer(value)
    taken = {}
    for node, control in controls.items():
        chosen = _constant_choice(control)
        if chosen is not None:
            taken[node] = chosen
    inline_branches(model, controls, taken)


def _constant_choice(control: Control) -> int | None:
    """Which branch an If with a constant condition takes."""
    if control.node.op_type != "If" or control.conditions[0] is None:
        return None
    tensor = control.conditions[0].const_value
    if tensor is None or tensor.size != 1 or not control.conditions[0].is_initializer():
        return None
    return 0 if bool(tensor.numpy().reshape(-1)[0]) else 1


class _Names:
    """Names of the values of a model, each given to one value only."""

    def __init__(self, model: ir.Model) -> None:
        self._used = {value.name for graph in model.graphs() for value in _values(graph) if value.name}
        self._given: set[str] = set()

    def claim(self, graph: ir.Graph) -> None:
        """Rename the values of ``graph`` whose names others have."""
        for value in list(_values(graph)):
            if value.name:
                self._take(value, value.name)

    def settle(self, value: ir.Value) -> None:
        """Name a result that its node leaves out."""
        if not value.name:
            node = value.producer()
            self._take(value, f"{(node.name if node is not None else '') or 'control'}_result", fresh=True)

    def _take(self, value: ir.Value, name: str, *, fresh: bool = False) -> None:
        if not fresh and name not in self._given:
            self._given.add(name)
            return
        count = 2
        while f"{name}_{count}" in self._used:
            count += 1
        new = f"{name}_{count}"
        self._used.add(new)
        self._given.add(new)
        if value.const_value is not None:
            # Renaming a value renames its tensor, which belongs to the caller.
            value.const_value = alias(value.const_value, new)
        value.name = new


def _values(graph: ir.Graph) -> Iterable[ir.Value]:
    yield from graph.inputs
    yield from (value for value in graph.initializers.values() if not value.is_graph_input())
    for node in graph:
        yield from node.outputs


def inline_branches(model: ir.Model, controls: Mapping[ir.Node, Control], taken: Mapping[ir.Node, int]) -> None:
    """Put the branch that an If takes in its place, for every If in ``taken`` (0: then, 1: else)."""
    for node, choice in taken.items():
        host = node.graph
        if host is None:
            continue  # it went with a branch that is never taken
        body, other = controls[node].bodies[choice], controls[node].bodies[1 - choice]
        _discard(other)
        results = list(body.outputs)
        body.outputs.clear()
        nodes = list(body)
        body.remove(nodes)
        host.insert_before(node, nodes)
        for value, result in zip(node.outputs, results, strict=True):
            # The name stays: it may be an output of the model.
            copy = ir.node("Identity", [result])
            made = copy.outputs[0]
            made.type, made.shape, made.doc_string = value.type, value.shape, value.doc_string
            host.insert_before(node, copy)
            made.name, value.name = value.name, None
            value.replace_all_uses_with(made, replace_graph_outputs=True)
        host.remove(node, safe=True)


def _discard(body: ir.Graph) -> None:
    """Empty a body, so that nothing in it counts as a use of what it captures."""
    body.outputs.clear()
    nodes = list(body)
    for node in nodes:
        for inner in graphs_of(node):
            _discard(inner)
    body.remove(nodes, safe=True)

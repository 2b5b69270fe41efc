"""The one form of ONNX that the rest of ozgraph sees: no functions, no Constant nodes, sorted, nothing unused."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import onnx_ir as ir
from onnx_ir.passes import common as passes

from ozgraph.errors import ModelError, OzgraphError
from ozgraph.frontends import bodies
from ozgraph.frontends.tensors import alias

# onnx_ir warns about models that are refused here in one sentence; without a handler, logging prints to the terminal.
logging.getLogger("onnx_ir").addHandler(logging.NullHandler())

ANNOTATION = "quant_parameter_tensor_names"
"""Where onnx_ir keeps a value's quantization annotation in ``Value.meta``: role -> tensor name."""

# Initializers left out of the inputs are legal from this IR version on.
_FREE_INITIALIZERS = 4


@contextmanager
def translated(where: str, doing: str) -> Iterator[None]:
    """Turn any library's exception into one sentence: a damaged model must not end in a traceback."""
    try:
        yield
    except (OzgraphError, MemoryError):
        raise
    except RecursionError:
        raise ModelError(f"{where}: {doing} failed because subgraphs nest too deeply; export the model again") from None
    except Exception as error:
        raise ModelError(f"{where}: {doing} failed: {root_cause(error)}; export the model again") from None


def root_cause(error: BaseException) -> str:
    """First line of the exception that started the chain."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__).rstrip(".;")


def normalise(model: ir.Model, where: str) -> None:
    """Bring ``model`` into normal form, in place.

    1. Model-local functions are inlined.
    2. Constant nodes become initializers (but for those that are graph outputs).
    3. Bodies of If, Loop and Scan get names that are unique in the model, and their weights become the model's.
    4. Initializers are no longer inputs; IR version 3, which demands that they are, becomes 4.
    5. Nodes are sorted topologically, and those that reach no output are dropped.

    Names outside bodies, metadata, the opset and the remaining inputs and outputs stay as they are.

    Raises:
        ModelError: the graph has a cycle, or its functions cannot be inlined.
    """
    with translated(where, "inlining its functions"):
        if model.functions:
            passes.InlinePass()(model)
            model.functions.clear()
    with translated(where, "reading its constants"):
        bodies.free_outputs(model.graph, default_opset(model))
        passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
        bodies.open_bodies(model, default_opset(model))
        _own_names(model)
        passes.RemoveInitializersFromInputsPass()(model)
        if model.ir_version < _FREE_INITIALIZERS:
            model.ir_version = _FREE_INITIALIZERS
    _sort(model.graph, where)
    with translated(where, "dropping its unused nodes"):
        drop_unused(model)


def default_opset(model: ir.Model) -> int:
    """Version of the default domain; 0 where the model does not import it."""
    imports = model.graph.opset_imports
    return imports.get("", imports.get("ai.onnx", 0))


def drop_unused(model: ir.Model) -> None:
    """Drop nodes and initializers that reach no output, in place; what annotations name stays."""
    annotated = _annotated(model.graph)
    kept = {name: model.graph.initializers[name] for name in annotated if name in model.graph.initializers}
    passes.RemoveUnusedNodesPass()(model)
    for name, value in kept.items():
        if name not in model.graph.initializers:
            model.graph.initializers[name] = value


def _annotated(graph: ir.Graph) -> set[str]:
    """Names of the tensors that quantization annotations mention."""
    names: set[str] = set()
    for value in _values(graph):
        annotation = value.meta.get(ANNOTATION)
        if annotation:
            names.update(annotation.values())
    return names


def _values(graph: ir.Graph) -> Iterator[ir.Value]:
    yield from graph.inputs
    yield from graph.initializers.values()
    for node in graph:
        yield from node.outputs


def _own_names(model: ir.Model) -> None:
    """Give every initializer a tensor of its own name.

    onnx_ir renames a tensor to its value when it writes; a tensor from a Constant node belongs to the caller's
    protobuf, which must not change.
    """
    for graph in model.graphs():
        for value in graph.initializers.values():
            tensor = value.const_value
            if tensor is not None and tensor.name != value.name:
                value.const_value = alias(tensor, value.name)


def _sort(graph: ir.Graph, where: str) -> None:
    """Sort topologically; a sorted graph, the usual case, is only walked once."""
    if _is_sorted(graph):
        return
    try:
        graph.sort()
    except ValueError:
        raise ModelError(f"{where}: its nodes form a cycle ({_cycle(graph)}); export the model again") from None


def _is_sorted(graph: ir.Graph) -> bool:
    seen: set[ir.Node] = set()
    for node in graph:
        for value in node.inputs:
            producer = value.producer() if value is not None else None
            if producer is not None and producer not in seen:
                return False
        if any(
            attribute.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
            for attribute in node.attributes.values()
        ):
            return False  # bodies read outer values, which only a full sort looks at
        seen.add(node)
    return True


def _cycle(graph: ir.Graph) -> str:
    import networkx as nx

    network: nx.DiGraph[ir.Node] = nx.DiGraph()
    for node in graph.all_nodes():
        for value in node.inputs:
            producer = value.producer() if value is not None else None
            if producer is not None:
                network.add_edge(producer, node)
    try:
        edges = nx.find_cycle(network)
    except nx.NetworkXNoCycle:
        return "through a subgraph"
    names = [edge[0].name or edge[0].op_type for edge in edges]
    shown = names[:4] + (["..."] if len(names) > 4 else [])
    return " -> ".join([*shown, names[0]])


__all__ = ["ANNOTATION", "alias", "default_opset", "drop_unused", "normalise", "root_cause", "translated"]

"""Write a model with what analysis found in its metadata, where viewers such as Netron show it."""

from __future__ import annotations

import os

from ozgraph.backends.files import Progress, write
from ozgraph.backends.model_copy import Slice, copy_of, lazily
from ozgraph.errors import UsageError
from ozgraph.graph import Graph, Op, Value
from ozgraph.results import AnalysisReport

PREFIX = "ozgraph."
"""What our keys begin with."""

Places = dict[Value, dict[int, list[tuple[str, str]]]]
"""Weight -> axis -> (family, role)."""


def annotate(
    graph: Graph,
    report: AnalysisReport,
    path: str | os.PathLike[str],
    places: Places,
    dims: dict[Value, str],
    *,
    progress: Progress | None = None,
) -> str:
    """Write the analysed model, the same but for metadata.

    The model has one entry a family (``ozgraph.f3``); nodes have the families of their weights and the dims of what
    they compute; weights have the families of their axes.

    Args:
        dims: what to say of the axes of a value.

    Returns:
        The real path of the file written.

    Raises:
        UsageError: the model did not come from ONNX, or the file cannot be written.
    """
    if graph.dialect != "onnx":
        raise UsageError("only ONNX models are annotated; export the module first")
    copy = copy_of(graph)
    for row in report.families:
        saves = f"{row.parameters_per_slot} parameters and {row.macs_per_slot} MACs a slot"
        note = "" if row.active else f"; left alone by default: {row.inactive or 'left out'}"
        copy.model.metadata_props[f"{PREFIX}{row.id}"] = f"{row.dim}: {row.size} slots, {row.exactness}, {saves}{note}"
    for value, axes in places.items():
        source = copy.values.get(value)
        if source is not None and source.const_value is not None and value.shape is not None:
            # A tensor of its own: the one that is there belongs to the model that was read.
            source.const_value = lazily(source.const_value, value.shape, Slice([]))
            for axis, found in axes.items():
                said = ", ".join(f"{family} ({role})" for family, role in found)
                source.const_value.metadata_props[f"{PREFIX}axis{axis}"] = said
    for op, node in copy.nodes.items():
        families = _families(op, places)
        if families:
            node.metadata_props[f"{PREFIX}families"] = ", ".join(families)
        for output in op.outputs:
            if output is not None and output in dims:
                node.metadata_props[f"{PREFIX}dims.{output.name}"] = dims[output]
    return write(copy.model, path, forbid=graph.origin.files, progress=progress)


def _families(op: Op, places: Places) -> list[str]:
    """The families of an operator's weights, each with what the weight is to it."""
    found: dict[str, None] = {}
    for value in op.inputs:
        for axis in places.get(value, {}).values() if value is not None else ():
            found.update(dict.fromkeys(f"{family} ({role})" for family, role in axis))
    return list(found)

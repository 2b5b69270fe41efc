"""Models from files, bytes and protos: no weight is read, nothing is changed."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ozgraph.errors import OzgraphError, UsageError
from ozgraph.given import sizes_of
from ozgraph.graph import Graph

if TYPE_CHECKING:
    import onnx
    import onnx_ir

    Source = str | os.PathLike[str] | bytes | onnx.ModelProto | onnx_ir.Model

Shapes = Mapping[str, Sequence[int]]


def load(source: Source | Graph, *, shapes: Shapes | None = None, simplify: bool = False) -> Graph:
    """Read an ONNX model or a saved ``torch.export`` program (``.pt2``); no weight is read and nothing is changed.

    Args:
        source: a path, the bytes of a file, an ``onnx.ModelProto`` or an ``onnx_ir.Model``; a graph comes back as is.
        shapes: sizes to bind inputs with varying axes to, by name.
        simplify: run onnxsim on it first, in a child process; where it cannot, or where onnxruntime finds that its
            result computes something else, the model is read as it is, with a warning.

    Raises:
        ModelError: it is not a model that can be read.
        UsageError: ``shapes`` names an input that is not there, or does not fit.
    """
    if isinstance(source, Graph):
        if shapes:
            raise UsageError("shapes are bound when a model is loaded; give them to ozgraph.load")
        return source
    if hasattr(source, "named_parameters"):
        raise UsageError(
            f"{type(source).__name__} is a PyTorch module: capture it first, ozgraph.capture(module, example_inputs)"
        )
    if isinstance(source, (str, os.PathLike)) and os.fspath(source).endswith(".pt2"):
        return _load_program(source, shapes, simplify)
    from ozgraph.frontends import onnx as frontend

    sizes = sizes_of(shapes)
    graph = frontend.load(source, shapes=sizes)
    if not simplify:
        return graph
    from ozgraph.frontends.simplify import simplified
    from ozgraph.numerics.compare import verify

    def differ(before: Path, after: Path) -> str | None:
        try:
            return verify(before, after, shapes=sizes).failure
        except OzgraphError as error:
            return str(error)

    content = simplified(source, differ, graph.origin.files)
    if content is source:
        return graph
    smaller = frontend.load(content, shapes=sizes)
    smaller.name = graph.name
    # The simplified model stands for the files that it was made from.
    smaller.origin.files, smaller.origin.external = graph.origin.files, graph.origin.external
    return smaller


def _load_program(path: str | os.PathLike[str], shapes: Shapes | None, simplify: bool) -> Graph:
    """Read a saved ``torch.export`` program."""
    if shapes or simplify:
        raise UsageError(f"{os.fspath(path)}: shapes and simplify are for ONNX; a .pt2 file has its own shapes")
    try:
        from ozgraph.frontends.torch_files import load as load_program
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise UsageError(f"{os.fspath(path)}: reading it needs torch: pip install 'ozgraph[torch]'") from None
    return load_program(path)

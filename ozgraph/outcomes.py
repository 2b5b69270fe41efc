"""What analysis and pruning give back: plain reports, and the state for programs."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ozgraph.errors import UsageError
from ozgraph.graph import Graph, Op
from ozgraph.names import visible
from ozgraph.passes.families import Family, group_graph
from ozgraph.passes.state import State
from ozgraph.results import AnalysisReport, PruneReport

if TYPE_CHECKING:
    import networkx as nx
    from torch import fx

    from ozgraph.loading import Source


@dataclass(frozen=True)
class Analysis:
    """What :func:`analyze` found.

    Attributes:
        report: plain data, for people and JSON.
        state: dims, families and cost, for programs.
    """

    report: AnalysisReport
    state: State

    @property
    def families(self) -> list[Family]:
        """The families, in the order of the model."""
        return self.state.families

    @property
    def op_graph(self) -> nx.MultiDiGraph[Op]:
        """Operators as a networkx graph; see :attr:`ozgraph.graph.Graph.op_graph`."""
        return self.state.graph.op_graph

    @property
    def group_graph(self) -> nx.MultiGraph[str]:
        """Families and weights as a networkx graph; see :func:`ozgraph.passes.families.group_graph`."""
        return group_graph(self.state)

    def to_html(self, path: str | os.PathLike[str] | None = None, *, pruned: Source | Graph | None = None) -> str:
        """The page of ``ozgraph analyze --html``: one file with everything in it.

        Args:
            path: where to write it; None only returns it.
            pruned: a smaller form of the model, to show beside it.

        Raises:
            UsageError: ``pruned`` is no smaller form of the model, or the file cannot be written.
        """
        from ozgraph.passes.before_after import widths_in
        from ozgraph.passes.picture import picture_of
        from ozgraph.report.html.page import Pruned, page, write

        _refuse_page(path, self.state.graph)
        beside = None
        if pruned is not None:
            smaller = _at_the_same_sizes(pruned, self.state.graph)
            widths = widths_in(self.state, smaller.state.graph)
            beside = Pruned(smaller.report.model, smaller.report.parameters, smaller.report.macs, widths)
        content = page(self.report, picture_of(self.state), beside)
        if path is not None:
            write(path, content)
        return content

    def to_dot(self, path: str | os.PathLike[str] | None = None) -> str:
        """The operator graph in the language of Graphviz, dims and families at its edges.

        Raises:
            UsageError: the file cannot be written.
        """
        from ozgraph.passes.labels import families_of, spelled_dims
        from ozgraph.report.dot import dot
        from ozgraph.report.html.page import write

        _refuse_page(path, self.state.graph)
        content = dot(self.state.graph, spelled_dims(self.state), families_of(self.state))
        if path is not None:
            write(path, content)
        return content

    def annotate(self, path: str | os.PathLike[str]) -> str:
        """Write the ONNX model with families and dims in its metadata, where viewers such as Netron show them.

        Returns:
            The real path of the file written.

        Raises:
            UsageError: the model did not come from ONNX, or the file cannot be written.
        """
        from ozgraph.backends.annotate import annotate
        from ozgraph.passes.labels import places_of, spelled_dims

        return annotate(self.state.graph, self.report, path, places_of(self.state), spelled_dims(self.state))

    def __repr__(self) -> str:
        report = self.report
        share = f"{report.prunable_parameters:,} of {report.parameters:,} parameters can go"
        return f"Analysis({visible(report.model)}: {share}, in {len(self.families):,} families)"

    def _repr_html_(self) -> str:
        return self.report._repr_html_()


@dataclass(frozen=True)
class PruneResult:
    """What :func:`prune` and :func:`eliminate` did.

    Attributes:
        report: plain data, for people and JSON.
        model: the smaller model: an ``onnx_ir.Model``, or a ``torch.fx.GraphModule`` for a captured graph.
        state: everything that was found on the way.
    """

    report: PruneReport
    model: Any
    state: State

    def to_module(self) -> fx.GraphModule:
        """The pruned PyTorch module: original names, its own tensors; it trains, saves and compiles like any other.

        Raises:
            UsageError: the model was no captured PyTorch module.
        """
        if self.state.graph.dialect != "aten":
            raise UsageError("only what was captured from PyTorch goes back to PyTorch; this is an ONNX model")
        module: fx.GraphModule = self.model
        return module

    def __repr__(self) -> str:
        report = self.report
        parameters = f"parameters {report.parameters_before:,} -> {report.parameters_after:,}"
        macs = f"MACs {report.macs_before:,} -> {report.macs_after:,}"
        return f"PruneResult({visible(report.model)}: {parameters}, {macs})"

    def _repr_html_(self) -> str:
        return self.report._repr_html_()


def _at_the_same_sizes(pruned: Source | Graph, graph: Graph) -> Analysis:
    """A smaller form of a model, analysed with its varying axes at the sizes that the model has."""
    from ozgraph.loading import load
    from ozgraph.passes.summary import analysis_report
    from ozgraph.pipelines import analysis, run

    smaller = load(pruned)
    whole = {value.name: value.shape for value in graph.inputs}
    shapes: dict[str, tuple[int, ...]] = {}
    for value in smaller.inputs:
        sizes = whole.get(value.name)
        if any(value.dynamic) and sizes and value.shape and len(sizes) == len(value.shape):
            axes = zip(sizes, value.shape, value.dynamic, strict=True)
            shapes[value.name] = tuple(size if varies else own for size, own, varies in axes)
    state = State(smaller if isinstance(pruned, Graph) else load(pruned, shapes=shapes))
    run(analysis(), state)
    return Analysis(analysis_report(state), state)


def _refuse_page(path: str | os.PathLike[str] | None, graph: Graph) -> None:
    """Say that a file beside the model cannot be written, or is one of those that the model was read from."""
    if path is not None:
        from ozgraph.backends.files import refuse

        refuse(path, getattr(graph.origin, "files", ()), what="file")

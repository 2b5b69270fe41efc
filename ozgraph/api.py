"""The programming interface: load, analyze, prune, eliminate, verify, bench."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ozgraph.errors import OzgraphError, UsageError
from ozgraph.given import globs_of, path_of, sizes_of
from ozgraph.graph import Graph, Op, Value
from ozgraph.groups import Groups, Tensor
from ozgraph.names import visible
from ozgraph.passes.cost import Cost
from ozgraph.passes.eliminate import Eliminate
from ozgraph.passes.freeze import Freeze
from ozgraph.passes.group import Family, Group, group_graph
from ozgraph.passes.hold_finite import HoldFinite
from ozgraph.passes.infer_dims import InferDims
from ozgraph.passes.manager import Pass, Pipeline, Progress, as_pass, insert
from ozgraph.passes.normalize import Normalize
from ozgraph.passes.prove_dead import ProveDead
from ozgraph.passes.saliency import Criterion
from ozgraph.passes.select import Select
from ozgraph.passes.state import State
from ozgraph.passes.summary import analysis_report, prune_report
from ozgraph.passes.verify import Verify
from ozgraph.results import AnalysisReport, BenchReport, PruneReport, VerifyReport
from ozgraph.target import Target

if TYPE_CHECKING:
    import networkx as nx
    import onnx
    import onnx_ir
    import torch
    from torch import fx

    Source = str | os.PathLike[str] | bytes | onnx.ModelProto | onnx_ir.Model

__all__ = [
    "Analysis",
    "Family",
    "PruneResult",
    "Target",
    "analyze",
    "bench",
    "eliminate",
    "find_groups",
    "load",
    "prune",
    "verify",
]

PIPELINE: tuple[type[Pass], ...] = (
    Normalize,
    InferDims,
    Freeze,
    Group,
    Cost,
    HoldFinite,
    Select,
    ProveDead,
    Eliminate,
    Verify,
)
"""The passes of ``ozgraph prune``, in order."""

Shapes = Mapping[str, Sequence[int]]
UserPass = Pass | type[Pass] | str
AllowIo = bool | str | Iterable[str]


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
        """Families and weights as a networkx graph; see :func:`ozgraph.passes.group.group_graph`."""
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

    def differ(before: Path, after: Path) -> str | None:
        try:
            return verify(before, after, shapes=shapes).failure
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


def analyze(
    model: Source | Graph,
    *,
    shapes: Shapes | None = None,
    simplify: bool = False,
    rescale: bool = False,
    allow_io: AllowIo = False,
    include: str | Iterable[str] = (),
    exclude: str | Iterable[str] = (),
    passes: Iterable[UserPass] = (),
    verify_each: bool = False,
    print_after: Iterable[str] = (),
    progress: Progress | None = None,
) -> Analysis:
    """Find what can be removed, what that would save, and why the rest cannot.

    Args:
        rescale: count families as active whose norm would be emitted decomposed.
        allow_io: inputs and outputs of the model that may shrink: True for all, or names and globs.
        include, exclude: globs over tensor and node names; families left out are reported as held.
        passes: passes of your own: instances, classes, ``module:Class`` or installed names.
        verify_each: run every pass's check after it.
        print_after: names of passes after which the graph is printed to standard error.
        progress: told what is going on.

    Raises:
        ModelError: the model cannot be read.
        UsageError: an argument makes no sense.
    """
    state = State(_loaded(model, shapes, simplify, progress))
    steps = _pipeline(_analysis(rescale, allow_io), passes)
    _run(steps, state, verify_each, print_after, progress)
    included, excluded = globs_of(include), globs_of(exclude)
    if included or excluded:
        Select(include=included, exclude=excluded).hold(state)
    return Analysis(analysis_report(state), state)


def find_groups(
    module: torch.nn.Module,
    args: tuple[Any, ...] | Mapping[str, Any] | torch.Tensor,
    kwargs: Mapping[str, Any] | None = None,
    *,
    dynamic_shapes: Any = None,
    rescale: bool = False,
) -> Groups:
    """The groups of a PyTorch module under its own parameter names: what training needs, with no graph in it.

    Args:
        module: any module, on any device; it is left exactly as it was, and the groups are bound to it.
        args, kwargs: example inputs, as for :func:`ozgraph.capture`.
        dynamic_shapes: as ``torch.export.export`` takes them.
        rescale: count families as active whose norm would be written decomposed.

    Raises:
        UsageError: the inputs do not fit the module.
        ModelError: the module cannot be captured.
    """
    from ozgraph.frontends.torch import capture
    from ozgraph.passes.trainable import groups_of

    state = State(capture(module, args, kwargs, dynamic_shapes=dynamic_shapes))
    _run(_analysis(rescale, False), state, False, (), None)
    weights = state.graph.origin.weights

    def said(value: Value) -> Tensor:
        weight = weights[value]
        return Tensor(value.shape or (), weight.kind == "parameter", weight.names[1:])

    return groups_of(state, said).bind(state.graph.origin.module)


def prune(
    model: Source | Graph,
    output: str | os.PathLike[str] | None = None,
    *,
    target: Target | None = None,
    criterion: str | Criterion = "l2",
    seed: int = 0,
    normalise: str = "family",
    round_to: int | None = None,
    min_kept: int = 1,
    include: str | Iterable[str] = (),
    exclude: str | Iterable[str] = (),
    uniform: bool = False,
    rescale: bool = False,
    allow_io: AllowIo = False,
    max_drift: float | None = None,
    inputs: str | os.PathLike[str] | None = None,
    exact: bool = False,
    thorough: bool = False,
    shapes: Shapes | None = None,
    simplify: bool = False,
    passes: Iterable[UserPass] = (),
    verify_each: bool = False,
    print_after: Iterable[str] = (),
    progress: Progress | None = None,
) -> PruneResult:
    """Remove the groups that matter least, and write the smaller model once onnxruntime has verified it.

    Arguments that are not listed are fields of the passes ``select``, ``group`` and ``verify``.

    Args:
        output: the file to write; None keeps the model in memory. It is verified either way.
        target: the fraction to remove; exactly one of ``target`` and ``max_drift``.
        criterion: ``l1``, ``l2``, ``random``, or a function of (state, family) that returns one score a slot.
        max_drift: remove the cheapest groups by measured change of the output until it would pass this.
        allow_io: inputs and outputs of the model that may shrink: True for all, or names and globs. The report says
            which did. Where weights make the slots of an input as well (a cache), those that go must have been zero.
        inputs: an ``.npz`` to verify (and measure drift) on; made inputs otherwise.

    Raises:
        ModelError: the model cannot be read.
        UsageError: the target cannot be met, or an argument makes no sense.
        VerificationError: agreement could not be shown.
    """
    if (target is None) == (max_drift is None):
        raise UsageError("give either a target or max_drift, such as target=ozgraph.Target(macs=0.5)")
    if target is not None:
        Target.checked(target)
    _refuse(output, model)
    graph = _runnable(_loaded(model, shapes, simplify, progress))
    _refuse(output, graph)
    if graph.dialect != "onnx" and (max_drift is not None or (target is not None and target.latency is not None)):
        raise UsageError("drift and latency are measured in onnxruntime: export the module, then prune the file")
    state = State(graph)
    found = (*_analysis(rescale, allow_io), HoldFinite())
    _run(_pipeline(found, ()), state, verify_each, print_after, progress)
    select = Select(
        target=target if target is not None and target.latency is None else Target(macs=0.0),
        criterion=criterion,
        seed=seed,
        normalise=normalise,
        round_to=round_to,
        min_kept=min_kept,
        include=globs_of(include),
        exclude=globs_of(exclude),
        uniform=uniform,
    )
    if target is not None and target.latency is not None:
        from ozgraph.passes.search import macs_for_latency

        select = replace(select, target=Target(macs=macs_for_latency(state, select, target.latency, progress)))
    chooser: Pass = select
    if max_drift is not None:
        from ozgraph.passes.search import SelectByDrift

        chooser = SelectByDrift(select, max_drift, path_of(inputs), progress)
    steps = _pipeline((chooser, ProveDead(), Eliminate()), passes)
    checking = Verify(
        inputs=path_of(inputs),
        exact=exact,
        thorough=thorough,
        output=path_of(output),
        redo=tuple(steps),
        seed=seed,
        progress=progress,
    )
    _run((*steps, checking), state, verify_each, print_after, progress)
    return _result(state, output)


def eliminate(
    model: Source | Graph,
    output: str | os.PathLike[str] | None = None,
    *,
    allow_io: AllowIo = False,
    inputs: str | os.PathLike[str] | None = None,
    exact: bool = False,
    thorough: bool = False,
    shapes: Shapes | None = None,
    simplify: bool = False,
    passes: Iterable[UserPass] = (),
    verify_each: bool = False,
    print_after: Iterable[str] = (),
    progress: Progress | None = None,
) -> PruneResult:
    """Remove the slots that are dead in the model as it is, whoever made them so; its function does not change.

    Arguments are those of :func:`prune`.

    Raises:
        ModelError: the model cannot be read.
        UsageError: an argument makes no sense.
        VerificationError: agreement could not be shown.
    """
    _refuse(output, model)
    graph = _runnable(_loaded(model, shapes, simplify, progress))
    _refuse(output, graph)
    state = State(graph)
    freeze = Freeze(allow_io=_allowed(allow_io))
    steps = _pipeline(elimination(freeze), passes)
    checking = Verify(
        inputs=path_of(inputs),
        exact=exact,
        thorough=thorough,
        output=path_of(output),
        redo=after_a_choice(steps),
        progress=progress,
    )
    _run((*steps, checking), state, verify_each, print_after, progress)
    return _result(state, output)


def elimination(freeze: Freeze) -> tuple[Pass, ...]:
    """The passes that find what is dead and remove it; verification comes after them."""
    return (Normalize(), InferDims(), freeze, Cost(), HoldFinite(), ProveDead(), Eliminate())


def after_a_choice(steps: Iterable[Pass]) -> tuple[Pass, ...]:
    """Of the passes of an elimination, those that run again once a family is out of the question."""
    return tuple(step for step in steps if step.requires & {"certified", "dead", "plan"})


def verify(
    first: str | os.PathLike[str],
    second: str | os.PathLike[str],
    *,
    inputs: str | os.PathLike[str] | None = None,
    shapes: Shapes | None = None,
    exact: bool = False,
    progress: Progress | None = None,
) -> VerifyReport:
    """Compare two model files with the same signature in onnxruntime.

    Raises:
        ModelError: a file is not a model that onnxruntime runs.
        UsageError: the signatures differ, or the inputs do not fit.
        VerificationError: nothing varies with the inputs.
    """
    from ozgraph.numerics.compare import verify as compare

    if progress is not None:
        progress("verify", None, None)
    return compare(Path(first), Path(second), inputs=path_of(inputs), shapes=sizes_of(shapes), exact=exact)


def bench(
    first: str | os.PathLike[str],
    second: str | os.PathLike[str],
    *,
    inputs: str | os.PathLike[str] | None = None,
    shapes: Shapes | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> BenchReport:
    """Time two model files in onnxruntime, interleaved; see :func:`ozgraph.numerics.bench.bench` for the options.

    Raises:
        ModelError: a model does not load.
        UsageError: inputs that do not fit.
    """
    from ozgraph.numerics.bench import bench as measure

    if progress is not None:
        progress("bench", None, None)
    return measure(Path(first), Path(second), inputs=path_of(inputs), shapes=sizes_of(shapes), **options)


def _analysis(rescale: bool, allow_io: AllowIo) -> tuple[Pass, ...]:
    return (Normalize(), InferDims(), Freeze(allow_io=_allowed(allow_io)), Group(rescale=rescale), Cost())


def _allowed(allow_io: AllowIo) -> tuple[str, ...]:
    if isinstance(allow_io, bool):
        return ("*",) if allow_io else ()
    return globs_of(allow_io)


def _pipeline(steps: Sequence[Pass], extra: Iterable[UserPass]) -> list[Pass]:
    return insert(steps, [as_pass(item) for item in extra])


def _run(
    steps: Sequence[Pass],
    state: State,
    verify_each: bool,
    print_after: Iterable[str],
    progress: Progress | None,
) -> None:
    wanted = set(print_after)
    after: Callable[[Pass, State], None] | None = None
    if wanted:
        from ozgraph.passes.dump import dump_after

        after = dump_after(wanted)
    Pipeline(steps, verify_each=verify_each, after=after, progress=progress).run(state)


def _loaded(model: Source | Graph, shapes: Shapes | None, simplify: bool, progress: Progress | None) -> Graph:
    if progress is not None:
        progress("load", None, None)
    return load(model, shapes=shapes, simplify=simplify)


def _runnable(graph: Graph) -> Graph:
    """``graph``, where onnxruntime runs models of its versions: nothing is written that was not run."""
    if graph.dialect != "onnx":
        return graph
    from ozgraph.numerics.sessions import check_runs

    model = graph.origin.model
    check_runs(model.graph.opset_imports, model.ir_version, graph.origin.path or graph.name)
    return graph


def _refuse(output: str | os.PathLike[str] | None, model: Source | Graph) -> None:
    """Say that an output cannot be written before any work is done."""
    if output is None:
        return
    if isinstance(model, Graph) and model.dialect == "aten":
        raise UsageError(
            "what comes from PyTorch has no file of its own: leave the output out, then "
            "ozgraph.export(result.to_module(), example_inputs, path)"
        )
    from ozgraph.backends.files import refuse

    forbid: Iterable[str | os.PathLike[str]] = ()
    if isinstance(model, Graph):
        forbid = model.origin.files
    elif isinstance(model, (str, os.PathLike)):
        forbid = (model,)
    refuse(output, forbid)


def _at_the_same_sizes(pruned: Source | Graph, graph: Graph) -> Analysis:
    """A smaller form of a model, analysed with its varying axes at the sizes that the model has."""
    smaller = load(pruned)
    whole = {value.name: value.shape for value in graph.inputs}
    shapes: dict[str, tuple[int, ...]] = {}
    for value in smaller.inputs:
        sizes = whole.get(value.name)
        if any(value.dynamic) and sizes and value.shape and len(sizes) == len(value.shape):
            axes = zip(sizes, value.shape, value.dynamic, strict=True)
            shapes[value.name] = tuple(size if varies else own for size, own, varies in axes)
    return analyze(smaller if isinstance(pruned, Graph) else pruned, shapes={} if isinstance(pruned, Graph) else shapes)


def _refuse_page(path: str | os.PathLike[str] | None, graph: Graph) -> None:
    """Say that a file beside the model cannot be written, or is one of those that the model was read from."""
    if path is not None:
        from ozgraph.backends.files import refuse

        refuse(path, getattr(graph.origin, "files", ()), what="file")


def _result(state: State, output: str | os.PathLike[str] | None) -> PruneResult:
    path = None if output is None else os.fspath(output)
    if state.graph.dialect == "aten":
        return PruneResult(prune_report(state, path), state.module, state)
    from ozgraph.backends.onnx import apply

    return PruneResult(prune_report(state, path), apply(state.graph, state.plan), state)

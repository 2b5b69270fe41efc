"""The programming interface: load, analyze, prune, eliminate, verify, bench."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ozgraph.errors import UsageError
from ozgraph.given import globs_of, path_of, sizes_of
from ozgraph.graph import Graph, Value
from ozgraph.groups import Groups, Tensor
from ozgraph.loading import load
from ozgraph.outcomes import Analysis, PruneResult
from ozgraph.passes.eliminate import Eliminate
from ozgraph.passes.families import Family
from ozgraph.passes.freeze import Freeze
from ozgraph.passes.hold_finite import HoldFinite
from ozgraph.passes.manager import Pass, Progress
from ozgraph.passes.prove_dead import ProveDead
from ozgraph.passes.saliency import Criterion
from ozgraph.passes.select import Select
from ozgraph.passes.state import State
from ozgraph.passes.summary import analysis_report, prune_report
from ozgraph.passes.verify import Verify
from ozgraph.pipelines import after_a_choice, allowed, analysis, elimination, run, with_passes
from ozgraph.results import BenchReport, VerifyReport
from ozgraph.target import Target

if TYPE_CHECKING:
    import torch

    from ozgraph.loading import Shapes, Source
    from ozgraph.pipelines import AllowIo, UserPass

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
    steps = with_passes(analysis(rescale=rescale, allow_io=allow_io), passes)
    run(steps, state, verify_each, print_after, progress)
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
    run(analysis(rescale=rescale), state)
    weights = state.graph.origin.weights

    def said(value: Value) -> Tensor | None:
        weight = weights[value]
        if weight.kind == "constant":
            return None
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
    found = (*analysis(rescale=rescale, allow_io=allow_io), HoldFinite())
    run(with_passes(found, ()), state, verify_each, print_after, progress)
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
    steps = with_passes((chooser, ProveDead(), Eliminate()), passes)
    checking = Verify(
        inputs=path_of(inputs),
        exact=exact,
        thorough=thorough,
        output=path_of(output),
        redo=tuple(steps),
        seed=seed,
        progress=progress,
    )
    run((*steps, checking), state, verify_each, print_after, progress)
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
    freeze = Freeze(allow_io=allowed(allow_io))
    steps = with_passes(elimination(freeze), passes)
    checking = Verify(
        inputs=path_of(inputs),
        exact=exact,
        thorough=thorough,
        output=path_of(output),
        redo=after_a_choice(steps),
        progress=progress,
    )
    run((*steps, checking), state, verify_each, print_after, progress)
    return _result(state, output)


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


def _result(state: State, output: str | os.PathLike[str] | None) -> PruneResult:
    path = None if output is None else os.fspath(output)
    if state.graph.dialect == "aten":
        return PruneResult(prune_report(state, path), state.module, state)
    from ozgraph.backends.onnx import apply

    return PruneResult(prune_report(state, path), apply(state.graph, state.plan), state)

"""Shrink the caller's own PyTorch module."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ozgraph.api import eliminate, prune
from ozgraph.errors import OzgraphError, UsageError
from ozgraph.graph import Op
from ozgraph.outcomes import PruneResult
from ozgraph.passes.manager import Progress
from ozgraph.passes.saliency import Criterion
from ozgraph.pipelines import UserPass
from ozgraph.results import PruneReport
from ozgraph.target import Target

if TYPE_CHECKING:
    import torch

_INSTEAD = "take to_module() of what ozgraph.eliminate or ozgraph.prune returns for ozgraph.capture(module, args)"


def shrink_(
    module: torch.nn.Module,
    args: tuple[Any, ...] | Mapping[str, Any] | torch.Tensor,
    kwargs: Mapping[str, Any] | None = None,
    *,
    target: Target | None = None,
    criterion: str | Criterion = "l2",
    seed: int = 0,
    round_to: int | None = None,
    include: str | Iterable[str] = (),
    exclude: str | Iterable[str] = (),
    uniform: bool = False,
    dynamic_shapes: Any = None,
    optimizer: torch.optim.Optimizer | None = None,
    passes: Iterable[UserPass] = (),
    progress: Progress | None = None,
) -> PruneReport:
    """Take out of a module, in place, what is exactly zero in it; with ``target``, the groups that matter least.

    Parameters and buffers are sliced and stay the objects that they are, gradients are dropped, and the sizes that
    standard layers remember are put right. The module has to be able to follow with its own Python: it is run against
    the pruned graph in float64, and where it does something else it is put back as it was.

    A module with a ``config`` that knows ``save_pretrained`` and ``from_pretrained`` gets new numbers there, if
    integers of the config follow the families (prune with ``uniform``) and what ``save_pretrained`` writes then comes
    back as the same function; otherwise a warning says that the config does not describe the module any more.

    Args:
        args, kwargs: example inputs, as for :func:`ozgraph.capture`.
        target: the fraction to remove; None removes nothing but what is zero.
        criterion, seed, round_to, include, exclude: as for :func:`ozgraph.prune`.
        uniform: families that are alike lose the same number of slots.
        dynamic_shapes: as ``torch.export.export`` takes them.
        optimizer: momenta and the like are sliced with their parameters.
        passes: passes of your own.

    Raises:
        UsageError: the module's Python holds sizes that no longer fit; it is as before, and so is the optimizer.
        ModelError: the module cannot be captured.
        VerificationError: agreement could not be shown.
    """
    from ozgraph.frontends.torch import capture

    graph = capture(module, args, kwargs, dynamic_shapes=dynamic_shapes)
    if target is None:
        if tuple(include) or tuple(exclude) or uniform:
            raise UsageError("include, exclude and uniform choose among groups; give a target with them")
        result = eliminate(graph, passes=passes, progress=progress)
    else:
        result = prune(
            graph,
            target=target,
            criterion=criterion,
            seed=seed,
            round_to=round_to,
            include=include,
            exclude=exclude,
            uniform=uniform,
            passes=passes,
            progress=progress,
        )
    if result.state.removed:
        carry_out(result, optimizer)
    return result.report


def carry_out(result: PruneResult, optimizer: torch.optim.Optimizer | None = None) -> None:
    """Do to a module in place what was found for the graph that was captured from it; see :func:`shrink_`.

    Raises:
        UsageError: the module's Python holds sizes that no longer fit; it is as before, and so is the optimizer.
    """
    with ExitStack() as undo:
        told = carry_out_until(undo, result, optimizer)
        undo.pop_all()
    if told is not None:
        warnings.warn(told, stacklevel=3)


def carry_out_until(undo: ExitStack, result: PruneResult, optimizer: torch.optim.Optimizer | None = None) -> str | None:
    """As :func:`carry_out`, for as long as the caller may take it back.

    Args:
        undo: puts everything back when it unwinds; so nothing is left half done, whatever happens meanwhile.

    Returns:
        What to warn of.

    Raises:
        UsageError: the module's Python holds sizes that no longer fit.
    """
    from ozgraph.backends.torch_config import follow
    from ozgraph.backends.torch_inplace import Before, shrink

    graph, plan = result.state.graph, result.state.plan
    module = graph.origin.module
    if optimizer is not None:
        undo.callback(_put_back, optimizer, {key: dict(kept) for key, kept in optimizer.state.items()})
    undo.callback(Before(module).restore)
    try:
        left = shrink(graph, plan, optimizer)
        told = follow(module, _sizes(result), (graph.origin.args, dict(graph.origin.kwargs)))
        _compare(result, left)
    except OzgraphError:
        raise
    except Exception as error:
        raise UsageError(
            f"cannot shrink {type(module).__name__} in place: {type(error).__name__}: {error}; {_INSTEAD}"
        ) from error
    return told


def _put_back(optimizer: torch.optim.Optimizer, states: Mapping[Any, dict[str, Any]]) -> None:
    for key, kept in states.items():
        optimizer.state[key] = kept


def _compare(result: PruneResult, left: list[Op]) -> None:
    """Run the shrunken module against the pruned graph.

    Raises:
        UsageError: it does something else.
    """
    from ozgraph.frontends.torch_faults import at_fault, first_line
    from ozgraph.numerics.torch_compare import Reference
    from ozgraph.numerics.torch_runs import run

    origin = result.state.graph.origin
    module, inputs = origin.module, (origin.args, dict(origin.kwargs))
    name = type(module).__name__
    try:
        run(module, inputs, double=False)
    except Exception as error:
        where = _holder(module, error.__traceback__)
        line = at_fault(error)
        raise UsageError(
            f"cannot shrink {name} in place: {where} holds sizes that no longer fit"
            f"{f' at {line}' if line else ''} ({first_line(error)}); it is as it was; {_INSTEAD}"
        ) from None
    report = Reference(result.to_module(), inputs, {}).compare(module)
    if not report.equal:
        raise UsageError(
            f"cannot shrink {name} in place: its Python computes something else with the new sizes"
            f"{_places(result, left)} ({report.failure}); it is as it was; {_INSTEAD}"
        )


def _holder(module: torch.nn.Module, trace: TracebackType | None) -> str:
    """The innermost part of a module, other than a layer of torch's, in whose forward an error arose."""
    paths = {id(part): path for path, part in module.named_modules()}
    found = ""
    while trace is not None:
        part = trace.tb_frame.f_locals.get("self")
        if id(part) in paths and not type(part).__module__.startswith("torch.nn."):
            found = paths[id(part)]
        trace = trace.tb_next
    return repr(found) if found else "the module itself"


def _places(result: PruneResult, left: list[Op]) -> str:
    """Where the first operator stands that no layer's attributes account for."""
    from ozgraph.backends.torch_inplace import path_of

    for op in left:
        node = result.state.graph.origin.nodes.get(op)
        lines = (node.meta.get("stack_trace") or "").strip().splitlines() if node is not None else []
        files = [number for number, line in enumerate(lines) if line.lstrip().startswith("File ")]
        if node is not None and files:
            code = " ".join(line.strip() for line in lines[files[-1] :][:2])
            return f" in {path_of(node) or 'the module itself'!r}, {code}"
    return ""


def _sizes(result: PruneResult) -> list[tuple[int, int]]:
    """Sizes of families before and after."""
    return [(row.size, row.kept) for row in result.report.widths]

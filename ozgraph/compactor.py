"""Make a module smaller while it trains: the groups that a pruner holds at zero go, and nothing else."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ozgraph.errors import UsageError, VerificationError
from ozgraph.graph import Graph
from ozgraph.inplace import carry_out_until
from ozgraph.outcomes import PruneResult
from ozgraph.passes.cost import Cost
from ozgraph.passes.eliminate import Eliminate
from ozgraph.passes.freeze import Freeze
from ozgraph.passes.given import OnlyGiven, Places, TakeGiven
from ozgraph.passes.group import Group
from ozgraph.passes.infer_dims import InferDims
from ozgraph.passes.manager import Pass, Pipeline
from ozgraph.passes.normalize import Normalize
from ozgraph.passes.prove_dead import ProveDead
from ozgraph.passes.state import State
from ozgraph.passes.summary import prune_report
from ozgraph.passes.verify import Verify

if TYPE_CHECKING:
    import torch

LIMIT = 1e-5
"""How far the outputs of the smaller module may be from those of the one before, over their spread."""

MODULE, GRAPH, EITHER = "module", "graph", "either"


@dataclass(frozen=True)
class Compacted:
    """A module that became smaller.

    Attributes:
        module: the caller's own, or a ``torch.fx.GraphModule``.
        kept: tensor (under each of its names) -> axis -> the positions that stayed; axes that were not cut are absent.
        changed: tensors whose remaining elements have other values than before, because a norm's factor went there.
        left: why families stayed, where they did.
        error: largest difference between the outputs before and after, over their spread; in float64.
    """

    module: Any
    kept: Mapping[str, Mapping[int, npt.NDArray[np.int64]]]
    changed: tuple[str, ...]
    left: tuple[str, ...]
    error: float


class Compactor:
    """Takes chosen groups out of a module, in place or into a GraphModule, and asserts that its function stays.

    A pruner of :mod:`ozgraph.runtime` calls it when its groups are at zero; see ``docs/training.md``.

    Args:
        module: the module that is trained, or what wraps it.
        args, kwargs: example inputs, as for :func:`ozgraph.find_groups`.
        dynamic_shapes: as ``torch.export.export`` takes them.
        into: ``module`` shrinks the caller's own module, whose Python has to follow; ``graph`` makes a GraphModule,
            which the loop then has to call in its place (``pruner.module``); ``either`` is ``module`` where that is
            possible, else ``graph``, and says so before the run.
    """

    def __init__(
        self,
        module: torch.nn.Module,
        args: tuple[Any, ...] | Mapping[str, Any] | torch.Tensor,
        kwargs: Mapping[str, Any] | None = None,
        *,
        dynamic_shapes: Any = None,
        into: str = MODULE,
    ) -> None:
        from ozgraph.frontends.torch import unwrapped

        if into not in (MODULE, GRAPH, EITHER):
            raise UsageError(f"a module is compacted into {MODULE!r}, {GRAPH!r} or {EITHER!r}, got {into!r}")
        self.module = unwrapped(module)
        self.args, self.kwargs, self.dynamic_shapes, self.into = args, kwargs, dynamic_shapes, into

    @property
    def in_place(self) -> bool:
        """Whether modules stay the objects that they are."""
        return self.into != GRAPH

    def fall_back(self) -> bool:
        """Make GraphModules from now on, where either will do; whether that is so."""
        if self.into == EITHER:
            self.into = GRAPH
            return True
        return False

    def __call__(self, module: torch.nn.Module, gone: Places, undo: ExitStack) -> Compacted:
        """Take out of a module the slots all of whose positions are in ``gone``.

        Args:
            module: the module, or a copy of it; its groups that go are at zero.
            gone: tensor -> axis -> positions.
            undo: puts the module back when it unwinds.

        Raises:
            UsageError: the module's Python holds sizes that no longer fit; it is as before.
            VerificationError: the smaller module computes something else; nothing has changed.
        """
        from ozgraph.frontends.torch import capture
        from ozgraph.numerics.torch_compare import Reference

        with warnings.catch_warnings():
            if self.in_place:  # what train mode does otherwise, the module's own Python goes on doing
                warnings.filterwarnings("ignore", message=".*train mode")
            graph = capture(module, self.args, self.kwargs, dynamic_shapes=self.dynamic_shapes)
            result = self._without(graph, gone)
        left = tuple(row.reason for row in result.state.given_back)
        if not result.state.removed:
            return Compacted(module, {}, (), left, 0.0)
        reference = Reference(module, (graph.origin.args, dict(graph.origin.kwargs)), {})
        if self.in_place:
            told = carry_out_until(undo, result)
            if told is not None:
                warnings.warn(told, stacklevel=2)
            smaller: Any = module
        else:
            smaller = result.to_module()
        report = reference.compare(smaller, limit=LIMIT)
        if not report.equal:
            raise VerificationError(
                f"compacting {type(module).__name__} would change what it computes ({report.failure}, limit {LIMIT}); "
                "it is as it was"
            )
        changed = _changed(result) if self.in_place else ()
        return Compacted(smaller, _kept(result), changed, left, report.max_relative_error)

    def _without(self, graph: Graph, gone: Places) -> PruneResult:
        """The graph less these slots, compared with itself with zeros in their place."""
        state = State(graph)
        choosing: tuple[Pass, ...] = (TakeGiven(gone), ProveDead(), OnlyGiven(), Eliminate())
        # In place, the module's own Python says what train mode does.
        checking = Verify(halves=False, modes=not self.in_place, redo=choosing)
        Pipeline((Normalize(), InferDims(), Freeze(), Group(rescale=True), Cost(), *choosing, checking)).run(state)
        return PruneResult(prune_report(state, None), state.module, state)


def _kept(result: PruneResult) -> dict[str, dict[int, npt.NDArray[np.int64]]]:
    weights = result.state.graph.origin.weights
    found: dict[str, dict[int, npt.NDArray[np.int64]]] = {}
    for (value, axis), positions in result.state.plan.keep.items():
        for name in weights[value].names if value in weights else ():
            found.setdefault(name, {})[axis] = positions
    return found


def _changed(result: PruneResult) -> tuple[str, ...]:
    """Weights that take a norm's factor."""
    weights = result.state.graph.origin.weights
    operands = (op.input(1) for op in result.state.plan.replacements)
    return tuple(name for value in operands if value in weights for name in weights[value].names)

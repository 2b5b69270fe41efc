"""Verification of captured modules: the zeroed original against the pruned GraphModule, in float64."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ozgraph.errors import ModelError, UsageError, VerificationError
from ozgraph.graph import Array
from ozgraph.numerics.measure import NOISE_FLOORS
from ozgraph.passes.eliminate import kept_positions
from ozgraph.passes.promise import silenced
from ozgraph.passes.prove_dead import zeroing
from ozgraph.passes.state import State
from ozgraph.passes.trials import Bench, failed
from ozgraph.plan import Plan
from ozgraph.results import VerifyReport

if TYPE_CHECKING:
    from torch import fx

_LIMIT = 1e-12
_CONSTANTS = 1e-5
"""What rounded numbers in a program or a plan may change of a module's results at most: the limit between files."""
_ROUNDINGS = 4
"""Roundings of its own precision that a number which pruning stores may be off, in a plan that stores any; more where
one rounding of each is seen to move the pruned module's results further."""


class TorchBench(Bench):
    """Runs the caller's own module, with zeros in place of members, and pruned GraphModules."""

    def __init__(self, state: State, *, modes: bool = True) -> None:
        super().__init__(state)
        self._modes = modes
        self._looked = False
        self._original: Any = state.graph.origin.module
        self._program: tuple[fx.GraphModule, VerifyReport] | None = None
        meta = [value.name for value in state.graph.constants if value.is_float and not value.readable]
        if meta:
            raise UsageError(
                f"{meta[0]!r} is on the meta device: a pruning of {state.graph.name} cannot be verified without "
                "weights; load them, or stop at analyze"
            )

    def look_at_original(self) -> bool:
        """Compare the program with the module that it was exported from, once.

        A program holds numbers that the module's Python makes anew in whatever precision it runs in (the mean of an
        image, say), rounded to the module's own. Where that alone is between them, the program stands for the module.
        """
        if self._looked:
            return False
        self._looked = True
        program, report = self._as_program()
        if report.max_relative_error <= max(_LIMIT, NOISE_FLOORS * report.noise_floor):
            return False
        self._original = program
        return True

    def _as_program(self) -> tuple[fx.GraphModule, VerifyReport]:
        """The program by itself, and how it compares with the module that it was exported from.

        Raises:
            ModelError: it computes something else.
        """
        if self._program is not None:
            return self._program
        from ozgraph.backends.torch import unlifted
        from ozgraph.numerics.torch_compare import Reference

        origin = self._state.graph.origin
        program = unlifted(origin)
        report = Reference(origin.module, (origin.args, dict(origin.kwargs)), {}).compare(program, limit=_CONSTANTS)
        if not report.equal:
            name = self._state.graph.name
            raise ModelError(
                f"the program that torch.export makes of {name} computes something else than {name} "
                f"({report.failure}), so no pruning of it can be verified: its Python asks somewhere whether it is "
                "being exported, or looks at values of the example; capture the part of the module that does not"
            )
        self._program = program, report
        return self._program

    def trial(self, trial: State) -> VerifyReport:
        """Without the choices that follow ``.training``, which eval mode does not see."""
        from ozgraph.backends.torch import to_module

        return self._against_original(trial, to_module(trial.graph, trial.plan, modes=False))

    def finish(self, output: Path | None) -> VerifyReport:
        """The module that the caller gets, kept in ``state.module``."""
        from ozgraph.backends.torch import to_module

        try:
            module = to_module(self._state.graph, self._state.plan, modes=self._modes)
            report = self._against_original(self._state, module)
        except (UsageError, MemoryError):
            raise
        except VerificationError as error:
            if not self._state.removed:
                raise
            return failed(str(error))
        except Exception as error:  # as in a trial
            return failed(f"{type(error).__name__}: {error}")
        self._state.module = module
        return report

    def _against_original(self, trial: State, module: fx.GraphModule) -> VerifyReport:
        from ozgraph.backends.torch import to_module, zeroed
        from ozgraph.numerics.torch_compare import Reference
        from ozgraph.numerics.torch_runs import holds

        graph, origin = trial.graph, trial.graph.origin
        kept, silent = kept_positions(trial), silenced(trial) if trial.shrinkable else {}
        taken = [kept(value) if value is not None else None for value in origin.leaves_in]
        shown = [kept(value) if value is not None else None for value in origin.leaves_out]
        zeros = [_none_for_empty(silent.get(value.name)) if value is not None else None for value in origin.leaves_in]
        example = (origin.args, dict(origin.kwargs))
        tensors = zeroed(graph, zeroing(trial))
        if self._original is origin.module and not holds(origin.module, tensors):
            # What the module's Python keeps elsewhere, in a cache say, can only be zeroed where capturing put it.
            self._original, _ = self._as_program()
        reference = Reference(self._original, example, tensors, silent=zeros)
        limit = _limit(trial.plan)
        report = reference.compare(module, taken=taken, shown=shown, limit=limit)
        if report.equal or limit == _LIMIT:
            return report
        # How far that rounding reaches is asked of the pruned module itself: it may grow from layer to layer.
        noise = reference.noise(module, to_module(graph, _nudged(trial.plan), modes=False), taken=taken)
        reached = min(NOISE_FLOORS * noise, _CONSTANTS)
        if reached <= limit:
            return report
        report = reference.compare(module, taken=taken, shown=shown, limit=reached)
        return replace(report, noise_floor=max(report.noise_floor, noise))


def _none_for_empty(axes: tuple[Array, ...] | None) -> tuple[Array | None, ...] | None:
    return None if axes is None else tuple(positions if len(positions) else None for positions in axes)


def _limit(plan: Plan) -> float:
    """1e-12, or what rounding allows where the plan brings numbers of a lower precision."""
    return max([_LIMIT, *(_ROUNDINGS * float(np.finfo(array.dtype).eps) for array in plan.brought() if _rounds(array))])


def _rounds(array: Array) -> bool:
    """Whether numbers are stored in a lower precision than they are compared in."""
    return array.dtype.kind == "f" and array.dtype != np.float64


def _nudged(plan: Plan) -> Plan:
    """A plan whose stored numbers are each moved by one rounding of their own precision, up, down or not at all."""
    random = np.random.default_rng(0)

    def nudge(array: Array) -> Array:
        if not _rounds(array):
            return array
        steps = random.integers(-1, 2, array.shape)
        toward = np.where(steps > 0, np.inf, -np.inf).astype(array.dtype)
        return np.where(steps == 0, array, np.nextafter(array, toward)).astype(array.dtype)

    return plan.with_brought(nudge)

"""Whether two PyTorch modules compute the same function: both run in float64 on inputs like the example.

The measure is that of :mod:`ozgraph.numerics.measure`: the largest difference over what the output moves when the
inputs change. The limit is 1e-12, or three noise floors: what the original's own output moves by when every number of
the module moves by one rounding of float64, measured only where a difference is larger than 1e-12.

Importing this module imports torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ozgraph.errors import OutOfMemoryError, UsageError, VerificationError
from ozgraph.frontends.torch_faults import at_fault, first_line, is_out_of_memory
from ozgraph.graph import Array
from ozgraph.numerics.measure import gap, is_real, liveliness, mismatch
from ozgraph.numerics.torch_runs import Inputs, run, varied
from ozgraph.results import VerifyReport

SEEDS = (0, 1, 2)
LIMIT = 1e-12

_DRAWS = 4
"""How often an original is asked what its rounding does, where a module differs from it by more."""

Cuts = Sequence["tuple[Array | None, ...] | None"]
"""For every leaf: the positions of each axis that the pruned module has; None stands for all of them."""


class Reference:
    """The original, run once an input set and zeroing; compared with any number of pruned modules.

    Args:
        inputs: the example; others are made from it.
        changed: tensors of the module by name, in place of its own.
        silent: positions of the inputs that are zero in both, leaf by leaf.

    Raises:
        UsageError: the module does not run on them in float64, or memory does not suffice.
    """

    def __init__(
        self, module: torch.nn.Module, inputs: Inputs, changed: Mapping[str, Tensor], *, silent: Cuts = ()
    ) -> None:
        self.name = type(module).__name__
        self._module, self._changed = module, changed
        self._rounded: dict[int, list[list[Any]]] = {}
        try:
            self.inputs, self.results = self._varied(inputs, silent)
        except UsageError:
            raise
        except Exception as error:
            where = at_fault(error)
            raise UsageError(
                f"{self.name} does not run in float64 on inputs like the example"
                f"{f' at {where}' if where else ''} ({first_line(error)}); capture it with other inputs, or in a form "
                "that runs in any precision"
            ) from error

    def _varied(self, inputs: Inputs, silent: Cuts) -> tuple[list[Inputs], list[list[Any]]]:
        """Inputs and what the module returns on them; integers are drawn, or only moved where it takes no others."""
        for draw in (True, False):
            made = [_silenced(varied(inputs, seed, draw=draw), silent) for seed in SEEDS]
            try:
                return made, [self._ran(self._module, each, self._changed) for each in made]
            except Exception:
                if not draw:
                    raise
        raise AssertionError

    def _ran(
        self,
        module: torch.nn.Module,
        inputs: Inputs,
        changed: Mapping[str, Tensor] | None = None,
        rounding: int | None = None,
    ) -> list[Any]:
        """What a module returns; memory that does not suffice is called so, and says nothing of what was pruned."""
        try:
            return arrays(run(module, inputs, changed, rounding=rounding))
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            raise OutOfMemoryError(
                f"there is not enough memory to verify {self.name}, which is run in float64 ({first_line(error)}); "
                "free some, give smaller example inputs, or export it and prune the file, which is run as it is"
            ) from error

    def compare(
        self, pruned: torch.nn.Module, *, taken: Cuts = (), shown: Cuts = (), limit: float = LIMIT
    ) -> VerifyReport:
        """The report on one pruned module; that it does not run is a difference.

        Args:
            taken: positions of the inputs that it takes, leaf by leaf.
            shown: positions of the outputs that it has, leaf by leaf.
            limit: at least 1e-12; more where numbers of the plan are stored in the module's own precision.

        Raises:
            VerificationError: nothing varies with the inputs.
        """
        try:
            others = [self._ran(pruned, _cut_inputs(each, taken)) for each in self.inputs]
        except UsageError:
            raise
        except Exception as error:
            return _failed(f"the pruned module does not run: {first_line(error)}", limit)

        def shared(rows: Sequence[Sequence[Any]]) -> list[list[Any]]:
            return [[_cut(found, cuts) for found, cuts in _along(row, shown)] for row in rows]

        return compared(shared(self.results), others, limit, lambda draw: shared(self._after_rounding(draw)))

    def noise(self, pruned: torch.nn.Module, nudged: torch.nn.Module, *, taken: Cuts = ()) -> float:
        """How far two pruned modules are apart that differ by rounding alone, in the measure of :meth:`compare`."""
        rows = [[self._ran(module, _cut_inputs(each, taken)) for each in self.inputs] for module in (pruned, nudged)]
        error = compared(rows[0], rows[1], LIMIT).max_relative_error
        return error if error < float("inf") else 0.0

    def _after_rounding(self, draw: int) -> list[list[Any]]:
        """The original's results with every number moved by one rounding, run by run; each draw rounds otherwise."""
        if draw not in self._rounded:
            first = draw * len(self.inputs)
            self._rounded[draw] = [
                self._ran(self._module, each, self._changed, rounding=seed)
                for seed, each in enumerate(self.inputs, first)
            ]
        return self._rounded[draw]


def compared(
    originals: Sequence[Sequence[Any]],
    others: Sequence[Sequence[Any]],
    limit: float,
    repeats: Callable[[int], Sequence[Sequence[Any]]] | None = None,
) -> VerifyReport:
    """Compare what two models return: ``[run][leaf]``, arrays or plain Python.

    Args:
        limit: what a difference may be where noise is low.
        repeats: makes what the original returns once more, from numbers that are rounded otherwise: its noise. Asked
            only where a difference is over the limit, and again as long as it is: in deep networks most roundings do
            little, and a few a lot.

    Raises:
        VerificationError: nothing varies with the inputs.
    """
    report = VerifyReport(0.0, 0.0, limit, (), len(originals))
    speaking = False
    for number in range(len(originals[0])):
        name = f"output {number}"
        mine, theirs = [row[number] for row in originals], [row[number] for row in others if number < len(row)]
        if len(theirs) != len(mine):
            return _failed(f"{name} is missing", limit)
        if not isinstance(mine[0], np.ndarray):
            continue
        for left, right in zip(mine, theirs, strict=True):
            difference = mismatch(left, right)
            if difference is not None:
                return _failed(f"{name}: {difference}", limit)
        alive = liveliness(mine)
        changes = any(not np.array_equal(mine[0], other) for other in mine[1:])
        moving = alive.moving
        speaking |= moving or (changes and not is_real(mine[0]))
        found = gap(mine, theirs, alive, limit, moving=moving)
        again: list[tuple[Any, Any]] = []
        for draw in range(_DRAWS if repeats is not None else 0):
            if found.severity <= 1:
                break
            assert repeats is not None
            again += zip(mine, [row[number] for row in repeats(draw)], strict=True)
            alive = liveliness(mine, again)
            found = gap(mine, theirs, alive, limit, moving=moving)
        report = replace(
            report,
            max_relative_error=max(report.max_relative_error, found.error),
            noise_floor=max(report.noise_floor, found.floor if found.limit > limit else 0.0),
            limit=max(report.limit, found.limit),
            compared=(*report.compared, name),
        )
        if found.severity > 1:
            return replace(report, failure=f"{name} differs by {found.error:.2g} of its spread")
    if not speaking:
        raise VerificationError(
            "nothing that the module returns varies with its inputs, so that agreement would prove nothing; "
            "capture it with other example inputs"
        )
    return report


def arrays(leaves: Sequence[Any]) -> list[Any]:
    """Tensors as numpy arrays; what is none stays."""
    return [leaf.detach().cpu().resolve_conj().numpy() if isinstance(leaf, Tensor) else leaf for leaf in leaves]


def _along(leaves: Sequence[Any], cuts: Cuts) -> list[tuple[Any, tuple[Array | None, ...] | None]]:
    return [(leaf, cuts[number] if number < len(cuts) else None) for number, leaf in enumerate(leaves)]


def _cut(leaf: Any, cuts: tuple[Array | None, ...] | None) -> Any:
    for axis, positions in enumerate(cuts or ()):
        if positions is not None:
            leaf = np.take(leaf, positions, axis=axis)
    return leaf


def _cut_inputs(inputs: Inputs, taken: Cuts) -> Inputs:
    def cut(tensor: Tensor, axis: int, positions: Array) -> Tensor:
        return tensor.index_select(axis, torch.from_numpy(np.asarray(positions)).to(tensor.device))

    return _each(inputs, taken, cut)


def _silenced(inputs: Inputs, silent: Cuts) -> Inputs:
    def zero(tensor: Tensor, axis: int, positions: Array) -> Tensor:
        return tensor.index_fill(axis, torch.from_numpy(np.asarray(positions)).to(tensor.device), 0)

    return _each(inputs, silent, zero)


def _each(inputs: Inputs, cuts: Cuts, change: Any) -> Inputs:
    """Apply a change to the positions of every axis of every leaf."""
    from torch.utils import _pytree as pytree

    if not any(cuts):
        return inputs
    leaves, spec = pytree.tree_flatten(inputs)
    for number, axes in enumerate(cuts):
        for axis, positions in enumerate(axes or ()):
            if positions is not None and isinstance(leaves[number], Tensor):
                leaves[number] = change(leaves[number], axis, positions)
    args, kwargs = pytree.tree_unflatten(leaves, spec)
    return args, kwargs


def _failed(why: str, limit: float) -> VerifyReport:
    return VerifyReport(float("inf"), 0.0, limit, (), 0, why)

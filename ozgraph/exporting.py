"""From a PyTorch module to an ONNX file without what is zero in it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ozgraph.errors import ModelError, UsageError, VerificationError
from ozgraph.graph import Array
from ozgraph.loading import load
from ozgraph.passes.freeze import Freeze
from ozgraph.passes.manager import Pipeline, Progress
from ozgraph.passes.state import State
from ozgraph.passes.summary import prune_report
from ozgraph.passes.verify import Verify
from ozgraph.pipelines import after_a_choice, elimination
from ozgraph.results import PruneReport

if TYPE_CHECKING:
    import torch

_LIMIT = 1e-5
_GAPS = 3.0
"""How many times what PyTorch and onnxruntime differ by on the unpruned model the pruned one may differ by."""


def export(
    module: torch.nn.Module,
    args: tuple[Any, ...] | Mapping[str, Any] | torch.Tensor,
    path: str | os.PathLike[str],
    *,
    kwargs: Mapping[str, Any] | None = None,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    dynamic_shapes: Any = None,
    opset_version: int | None = None,
    external_data: bool | None = None,
    progress: Progress | None = None,
) -> PruneReport:
    """Write a module as ONNX in eval mode, less everything that is zero in it and has no effect.

    Torch exports the module as it is, unoptimised, so that parameters keep their names; then every slot that is proved
    dead goes. The file gets its name once onnxruntime has run it against the unpruned model, and against what PyTorch
    computes: within 1e-5 of the spread of the outputs, or three times what the two differ by on the unpruned model.
    The module is left as it was.

    Args:
        args, kwargs: example inputs, as for :func:`ozgraph.capture`.
        path: the file to write.
        input_names, output_names: names of the inputs and outputs in the file, in order.
        dynamic_shapes: which axes of the inputs vary, as ``torch.export.export`` takes it.
        opset_version: of the file; default: torch's.
        external_data: keep the weights beside the file; default: where they exceed 1.5 GiB.
        progress: told what is going on.

    Raises:
        UsageError: the inputs do not fit the module, or the file cannot be written.
        ModelError: torch cannot export the module.
        VerificationError: PyTorch and onnxruntime do not agree.
    """
    from ozgraph.backends.files import check, refuse, write
    from ozgraph.backends.onnx import apply
    from ozgraph.frontends.torch import exported, inputs_of, unwrapped

    refuse(path)
    inner = unwrapped(module)
    arguments, keywords = inputs_of(args, kwargs)
    if progress is not None:
        progress("export", None, None)
    program = exported(inner, arguments, keywords, dynamic_shapes, training=False)
    with tempfile.TemporaryDirectory(prefix="ozgraph-export-") as folder:
        whole = Path(folder) / f"{type(inner).__name__}.onnx"
        _to_onnx(program, arguments, keywords, whole, input_names, output_names, dynamic_shapes, opset_version)
        judge = _Judge(inner, (arguments, keywords), whole)
        state = _eliminated(whole, judge.gap, progress)

        def verified(temporary: str) -> None:
            check(temporary)
            judge.compare(Path(temporary))

        model = apply(state.graph, state.plan)
        model.meta["ozgraph.external"] = False  # the temporary file may have kept its weights beside it
        written = write(model, path, external=external_data, verify=verified)
    report, error = prune_report(state, written), judge.error
    return replace(
        report,
        max_relative_error=max(report.max_relative_error, error),
        limit=max(report.limit, judge.limit),
        notes=(*report.notes, f"PyTorch and onnxruntime differ by {error:.2g}, unpruned by {judge.gap:.2g}"),
    )


def _eliminated(whole: Path, noise: float, progress: Progress | None) -> State:
    """What is dead in a file, verified; two implementations of it differ by ``noise``."""
    if progress is not None:
        progress("load", None, None)
    state = State(load(whole))
    steps = elimination(Freeze())
    checking = Verify(noise=noise, redo=after_a_choice(steps), progress=progress)
    Pipeline((*steps, checking), progress=progress).run(state)
    return state


def _to_onnx(
    program: torch.export.ExportedProgram,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    path: Path,
    input_names: Sequence[str] | None,
    output_names: Sequence[str] | None,
    dynamic_shapes: Any,
    opset_version: int | None,
) -> None:
    import torch

    from ozgraph.frontends.torch_faults import first_line
    from ozgraph.frontends.torch_quiet import quiet

    try:
        import onnxscript  # noqa: F401
    except ImportError:
        raise UsageError("torch exports ONNX with onnxscript, which is missing: pip install 'ozgraph[torch]'") from None
    try:
        with torch.no_grad(), quiet():
            torch.onnx.export(
                program,
                args,
                str(path),
                kwargs=kwargs,
                input_names=input_names,
                output_names=output_names,
                dynamic_shapes=dynamic_shapes,
                opset_version=opset_version,
                external_data=sum(t.numel() * t.element_size() for t in program.state_dict.values()) > 1 << 30,
                dynamo=True,
                optimize=False,
                verbose=False,
            )
    except Exception as error:
        reasons = [first_line(error)]
        cause = error.__cause__
        while cause is not None:
            reasons.append(first_line(cause))
            cause = cause.__cause__
        raise ModelError(
            f"torch cannot export {path.stem} to ONNX: {reasons[-1]}; "
            "write that part with other operators, or give another opset_version"
        ) from error


class _Judge:
    """What PyTorch computes, and how far onnxruntime is from it.

    Attributes:
        gap: what the two differ by on the unpruned model: a noise floor.
        limit: what they may differ by on the pruned one.
        error: what they do differ by on the one compared last.
    """

    def __init__(self, module: torch.nn.Module, inputs: tuple[tuple[Any, ...], dict[str, Any]], whole: Path) -> None:
        from torch import Tensor
        from torch.utils import _pytree as pytree

        from ozgraph.numerics.torch_compare import SEEDS, arrays
        from ozgraph.numerics.torch_runs import run, varied

        runs = [varied(inputs, seed) for seed in SEEDS]
        self._given = [arrays([leaf for leaf in pytree.tree_leaves(each) if isinstance(leaf, Tensor)]) for each in runs]
        self._wanted = [
            [leaf for leaf in arrays(run(module, each, double=False)) if isinstance(leaf, np.ndarray)] for each in runs
        ]
        self._name = type(module).__name__
        self._unpruned = self._run(whole)
        self.gap = self._error(self._unpruned)
        widest = max((np.finfo(leaf.dtype).eps for leaf in self._wanted[0] if leaf.dtype.kind == "f"), default=0.0)
        if not self.gap <= max(_LIMIT, _GAPS * float(widest) ** 0.5):
            raise VerificationError(
                f"the ONNX model that torch makes of {self._name} does not compute what PyTorch does: they differ by "
                f"{self.gap:.2g} of the spread before anything is pruned; nothing was written; report it to torch"
            )
        self.error, self.limit = 0.0, max(_LIMIT, _GAPS * self.gap)

    def compare(self, pruned: Path) -> None:
        """Compare a pruned file.

        Raises:
            VerificationError: it differs from PyTorch by more than the limit.
        """
        found = self._run(pruned)
        self.error = self._error(found)
        self._check_integers(found)
        if not self.error <= self.limit:
            raise VerificationError(
                f"the pruned file differs from what {self._name} computes in PyTorch by {self.error:.2g} of its "
                f"spread (limit {self.limit:.2g}); nothing was written; report this"
            )

    def _run(self, path: Path) -> list[list[Array]]:
        """What onnxruntime computes: for each run, its outputs.

        Raises:
            ModelError: the file has other inputs or outputs than the module.
        """
        from ozgraph.numerics.sessions import open_session

        session = open_session(path)
        names = [argument.name for argument in session.native.get_inputs()]
        results: list[list[Array]] = []
        for given in self._given:
            if len(given) != len(names):
                raise ModelError(f"torch exported {len(names)} inputs of the {len(given)} that {self._name} has")
            results.append(session.native.run(None, dict(zip(names, given, strict=True))))
        return results

    def _error(self, results: list[list[Array]]) -> float:
        """The largest difference to PyTorch over all real outputs and runs, over the spread of the output."""
        from ozgraph.numerics.measure import gap, liveliness, mismatch

        worst = 0.0
        for number in range(len(self._wanted[0])):
            mine, theirs = [row[number] for row in self._wanted], [row[number] for row in results]
            for left, right in zip(mine, theirs, strict=True):
                difference = mismatch(left, right)
                if difference is not None and left.dtype.kind == "f":
                    return float("inf")
            alive = liveliness(mine)
            worst = max(worst, gap(mine, theirs, alive, _LIMIT, moving=alive.moving).error)
        return worst

    def _check_integers(self, results: list[list[Array]]) -> None:
        """Integers and booleans must be what PyTorch gives, or what onnxruntime gives unpruned where those disagree.

        An arg max of nearly equal values is the example: either answer is right, a third is not.

        Raises:
            VerificationError: some are neither.
        """
        for wanted, unpruned, found in zip(self._wanted, self._unpruned, results, strict=True):
            for number, (left, middle, right) in enumerate(zip(wanted, unpruned, found, strict=True)):
                allowed = [right == other for other in (left, middle) if other.shape == right.shape]
                if left.dtype.kind != "f" and not (allowed and np.logical_or.reduce(allowed).all()):
                    raise VerificationError(
                        f"output {number} of the pruned file holds other integers than {self._name} gives in PyTorch; "
                        "nothing was written; report this"
                    )

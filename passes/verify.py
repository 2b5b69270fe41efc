"""Run the pruned model against the original before its file gets its name; take back what does not agree."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ozgraph.dims import Atom
from ozgraph.errors import ModelError, OzgraphError, UsageError, VerificationError
from ozgraph.graph import Array, Graph
from ozgraph.passes.eliminate import Eliminate, kept_positions
from ozgraph.passes.freeze import Freeze
from ozgraph.passes.hold import give_back
from ozgraph.passes.infer_dims import InferDims
from ozgraph.passes.manager import Pass, Pipeline, Progress
from ozgraph.passes.normalize import Normalize
from ozgraph.passes.promise import silenced
from ozgraph.passes.prove_dead import ProveDead, zeroing
from ozgraph.passes.state import State
from ozgraph.passes.trials import Bench, failed
from ozgraph.results import VerifyReport

if TYPE_CHECKING:
    import onnx_ir

_MAPPED_FROM = 16 << 20
"""Temporary files with more bytes of weights (16 MiB) keep them beside the model."""

HALVES = 1
"""How many times the families are split into two random halves, each verified on its own."""


@dataclass(frozen=True)
class Verify(Pass):
    """Prove that the pruned model is the original with exactly the chosen members at zero.

    1. Random halves of the families, and with ``thorough`` each family alone, then all together: onnxruntime runs
       both models on the same inputs, at two sizes of every axis that varies.
    2. On a mismatch the family at fault is found by bisection and frozen with that reason; ``redo`` runs again.
    3. Where bodies or sequences were rewritten for analysis, the model as read is first compared with its source.
    4. The file that gets the output's name is the very file that the last comparison ran.

    ``noise`` is a noise floor of the outputs that the caller found: what another implementation of them differs by.
    Without ``halves`` families are compared all together only, until something differs; without ``modes`` the module
    that is left of a captured one computes what eval mode does, whatever its ``.training``.
    """

    name: ClassVar[str] = "verify"
    requires: ClassVar[frozenset[str]] = frozenset({"plan"})
    ensures: ClassVar[frozenset[str]] = frozenset({"verified"})

    inputs: Path | None = field(
        default=None,
        metadata={"help": "Inputs to run the models on: an .npz file with one array an input.", "metavar": "FILE.npz"},
    )
    exact: bool = field(
        default=False, metadata={"help": "Verify in float64 on onnx's reference evaluator as well; slow."}
    )
    thorough: bool = field(default=False, metadata={"help": "Verify every family alone as well; slow."})
    noise: float = 0.0
    halves: bool = True
    modes: bool = True
    output: Path | None = None
    redo: tuple[Pass, ...] = ()
    seed: int = 0
    progress: Progress | None = field(default=None, compare=False)

    def run(self, state: State) -> bool:
        """Fill ``state.verification``; with ``output``, write the file.

        Raises:
            VerificationError: nothing that the inputs reach varies, so that agreement would prove nothing.
            ModelError: what was captured computes something else than the model.
        """
        with tempfile.TemporaryDirectory(prefix="ozgraph-verify-") as folder:
            bench = _bench(state, self, Path(folder))
            bench.check_reading()
            while True:
                report, atoms = self._attempt(bench)
                if report.equal:
                    state.verification = report
                    return True
                if bench.look_at_original():
                    continue
                if not state.removed:
                    raise VerificationError(
                        f"the original does not agree with an unchanged copy of itself ({report.failure}); "
                        f"nothing was written"
                    )
                culprit = bench.culprit(atoms)
                self._give_back(state, culprit, report.failure or "")

    def _attempt(self, bench: Bench) -> tuple[VerifyReport, Sequence[Atom]]:
        """The first comparison that fails, with its families in the order of the model, or all of them together."""
        atoms = bench.atoms
        trials: list[list[Atom]] = []
        shuffled = np.random.default_rng(self.seed)
        for _ in range(HALVES if self.halves and len(atoms) > 1 else 0):
            order = shuffled.permutation(len(atoms))
            middle = len(atoms) // 2
            trials += [[atoms[i] for i in sorted(order[:middle])], [atoms[i] for i in sorted(order[middle:])]]
        if self.thorough and len(atoms) > 1:
            trials += [[atom] for atom in atoms]
        reports = []
        for number, trial in enumerate(trials):
            if self.progress is not None:
                self.progress("verify", number, len(trials) + 1)
            reports.append(bench.compare(trial))
            if not reports[-1].equal:
                return reports[-1], trial
        if self.progress is not None:
            self.progress("verify", len(trials), len(trials) + 1)
        reports.append(bench.finish(self.output))
        return _worst(reports), atoms

    def _give_back(self, state: State, culprit: Atom, failure: str) -> None:
        """Freeze a family that does not verify and choose again without it."""
        give_back(state, culprit, f"it did not verify: {failure}")
        for step in self.redo or (ProveDead(), Eliminate()):
            try:
                step.run(state)
            except UsageError:
                # Without this family the target is out of reach: go on with what was chosen of the others.
                continue


def _bench(state: State, options: Verify, folder: Path) -> Bench:
    """What compares models of the state's dialect."""
    if state.graph.dialect == "onnx":
        return _Bench(state, options, folder)
    from ozgraph.passes.verify_torch import TorchBench

    for name in ("inputs", "exact", "output"):
        if getattr(options, name):
            raise UsageError(f"{name!r} is for ONNX models; a captured module is verified in float64, on its inputs")
    return TorchBench(state, modes=options.modes)


class _Bench(Bench):
    """Builds trial models in a temporary folder and compares them."""

    def __init__(self, state: State, options: Verify, folder: Path) -> None:
        super().__init__(state)
        self._options = options
        self._folder = folder
        self._inputs = _read_inputs(options.inputs, state)
        self._count = 0
        self._evidence: tuple[str, ...] = ()

    def check_reading(self) -> None:
        """Compare the model as it was read with its source, where reading changed more than names and constants.

        Raises:
            VerificationError: they differ.
        """
        from ozgraph.backends.onnx import zeroed

        graph = self._state.graph
        origin = graph.origin
        if origin.source is None:
            return
        with ExitStack() as stack:
            source, read = self._path("source"), self._path("read")
            for path, model in ((source, origin.source), (read, zeroed(graph, {}))):
                stack.callback(_remove, path)
                _store(model, path)
            report = self._run(source, read, graph)
        if not report.equal:
            raise VerificationError(
                f"the model as it was read for analysis differs from its source ({report.failure}); "
                "nothing was written; report this"
            )

    def trial(self, trial: State) -> VerifyReport:
        """A trial file against the original with only its families zeroed."""
        return self._against_original(trial, self._write(trial))

    def finish(self, output: Path | None) -> VerifyReport:
        """All families together; the compared file gets the output's name if it agrees."""
        from ozgraph.backends.files import check, write
        from ozgraph.backends.onnx import apply

        reports: list[VerifyReport] = []

        def verified(path: str) -> None:
            check(path)
            reports.append(self._against_original(self._state, Path(path)))
            if not reports[-1].equal:
                raise _DisagreementError(reports[-1].failure or "")

        origin = self._state.graph.origin
        try:
            target = self._folder / "pruned.onnx" if output is None else output
            write(apply(self._state.graph, self._state.plan), target, forbid=origin.files, verify=verified)
        except _DisagreementError:
            return reports[-1]
        except VerificationError as error:
            if "--inputs" in str(error):
                raise
            return failed(str(error))
        return reports[-1]

    def _write(self, trial: State) -> Path:
        from ozgraph.backends.files import check
        from ozgraph.backends.onnx import apply

        path = self._path("trial")
        _store(apply(trial.graph, trial.plan), path, verify=check)
        return path

    def _path(self, name: str) -> Path:
        self._count += 1
        return self._folder / f"{name}{self._count}.onnx"

    def _run(self, original: Path, other: Path, graph: Graph, **details: Any) -> VerifyReport:
        """Both files on the same inputs, at two sizes of every axis that varies.

        Raises:
            ModelError: onnxruntime does not run the original.
        """
        from ozgraph.frontends.onnx import sample_shapes
        from ozgraph.numerics.compare import compare

        origin = graph.origin
        shapes = [sample_shapes(graph, variant) for variant in range(len(origin.samples[:2]))]
        try:
            return compare(
                original, other, graph, shape_variants=shapes, inputs=self._inputs, noise=self._options.noise, **details
            )
        except ModelError as error:
            raise ModelError(
                f"{origin.path or graph.name} cannot be verified, and nothing is written that was not: {error}; "
                "replace what onnxruntime lacks, or install a build that has it"
            ) from None

    def _against_original(self, trial: State, pruned: Path) -> VerifyReport:
        from ozgraph.backends.onnx import zeroed

        origin = trial.graph.origin
        members = zeroing(trial)
        with ExitStack() as stack:
            if members or origin.path is None:
                original = self._path("original")
                stack.callback(_remove, original)
                _store(zeroed(trial.graph, members), original)
            else:
                original = Path(origin.path)
            if pruned.parent == self._folder:
                stack.callback(_remove, pruned)
            report = self._run(
                original,
                pruned,
                trial.graph,
                kept=kept_positions(trial),
                silenced=silenced(trial),
                expected=self._evidence,
            )
            self._evidence = report.compared or self._evidence
        if self._options.exact and report.equal:
            try:
                exact = self._in_double(trial)
            except ModelError as error:
                problem = str(error).rpartition(".onnx: ")[2]  # the file is the twin's, and gone
                problem = problem.rpartition("; ")[0] or problem
                raise ModelError(
                    f"{origin.path or trial.graph.name} cannot be run in float64: {problem}; leave --exact out"
                ) from None
            return exact if not exact.equal else report
        return report

    def _in_double(self, trial: State) -> VerifyReport:
        """The same pruning of the model's float64 twin, on onnx's reference evaluator.

        The twin is pruned anew, so that constants that elimination computes are not rounded to the model's precision.

        Raises:
            ModelError: the reference evaluator has no such operator.
        """
        from ozgraph.backends.onnx import apply, zeroed
        from ozgraph.frontends.onnx import load, sample_shapes
        from ozgraph.numerics.compare import compare
        from ozgraph.numerics.precision import to_float64

        shapes = sample_shapes(trial.graph, 0)
        with tempfile.TemporaryDirectory(dir=self._folder) as name:
            folder = Path(name)
            source = folder / "single.onnx"
            _store(zeroed(trial.graph, {}), source)
            double = State(load(to_float64(source, folder), shapes=shapes))
            allowed = tuple(value.name for value in trial.shrinkable)
            Pipeline((Normalize(), InferDims(), Freeze(allow_io=allowed))).run(double)
            _copy_selection(trial, double)
            Pipeline((ProveDead(), Eliminate())).run(double)
            original, pruned = folder / "original.onnx", folder / "pruned.onnx"
            _store(zeroed(double.graph, zeroing(double)), original)
            _store(apply(double.graph, double.plan), pruned)
            return compare(
                original,
                pruned,
                double.graph,
                kept=kept_positions(double),
                silenced=silenced(double),
                shape_variants=[shapes],
                inputs=self._inputs,
                exact=True,
            )


def _copy_selection(single: State, double: State) -> None:
    """Carry families and chosen slots over to the twin, whose dims were made in the same order."""
    atoms = {atom.base: atom for atom in double.dims.atoms}
    if double.dims.total != single.dims.total:
        raise ModelError("no exact run: the model's float64 twin has other dims")
    values = double.graph.values
    for family in single.families:
        if single.chosen.count(family.atom):
            members = tuple(replace(member, value=values[member.value.name]) for member in family.members)
            double.families.append(replace(family, atom=atoms[family.atom.base], members=members))
    double.chosen = single.chosen.copy()


class _DisagreementError(OzgraphError):
    """Stops a file from getting its name; never leaves this module."""


def _store(model: onnx_ir.Model, path: Path, verify: Callable[[str], None] | None = None) -> None:
    """Write a temporary file, large weights beside it, where onnxruntime maps them instead of copying them."""
    from ozgraph.backends.files import weight_bytes, write

    write(model, path, external=weight_bytes(model) > _MAPPED_FROM, verify=verify)


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.with_name(path.name + ".data").unlink(missing_ok=True)


def _read_inputs(path: Path | None, state: State) -> list[dict[str, Array]] | None:
    if path is None:
        return None
    from ozgraph.numerics.inputs import load_inputs

    return load_inputs(Path(os.fspath(path)), state.graph)


def _worst(reports: Sequence[VerifyReport]) -> VerifyReport:
    """One report for several comparisons: the worst of each figure, the first failure."""
    failure = next((report.failure for report in reports if report.failure is not None), None)
    return VerifyReport(
        max_relative_error=max(report.max_relative_error for report in reports),
        noise_floor=max(report.noise_floor for report in reports),
        limit=max(report.limit for report in reports),
        compared=tuple(dict.fromkeys(name for report in reports for name in report.compared)),
        runs=sum(report.runs for report in reports),
        failure=failure,
    )

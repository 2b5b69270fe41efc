"""Whether two model files compute the same function: what stands between a pruning and the file it is written to.

Each tensor is judged by max |a - b| over its spread (see :mod:`ozgraph.numerics.measure`). The limit is 1e-5 or three
noise floors, whichever is larger; the noise floor is the same measure between the original run with and without graph
optimisations, and at least one unit in the last place of the element. Exact runs, in float64, have 1e-12 for 1e-5.

Agreement counts as evidence only on tensors that vary with the input. An output that does not (integers, a saturated
softmax, all zero, an empty detection), and one that the original itself does not reproduce, must still be equal, but
the evidence comes from the tensors upstream that stand in for it, one on each path.

Where models differ on made inputs, the noise floors of outputs are measured on further ones as well: of most inputs the
optimisations change the results little, and of a few a lot. Inputs on which the original tips by rounding alone are
replaced (see :mod:`ozgraph.numerics.tipping`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx

from ozgraph.errors import ModelError, OutOfMemoryError, OzgraphError, UsageError, VerificationError
from ozgraph.graph import Array, Graph, Value
from ozgraph.numerics.evidence import Observation, Original
from ozgraph.numerics.inputs import load_inputs, make_inputs, perturbed
from ozgraph.numerics.measure import NOISE_CEILING, NOISE_FLOORS, Gap, Liveliness, gap, mismatch, spread
from ozgraph.numerics.precision import mapped, to_float32, to_float64
from ozgraph.numerics.quanta import quanta
from ozgraph.numerics.runners import Feeds, Tensors, onnxruntime_engine, reference_engine, run_all
from ozgraph.numerics.sessions import CPU, check_runs, read_structure
from ozgraph.numerics.tipping import Shaken
from ozgraph.results import VerifyReport

Kept = Callable[[Value], "tuple[Array | None, ...] | None"]
"""Value of the original -> positions that the pruned model keeps, axis by axis; None stands for all of them."""

SEEDS = (0, 1, 2)
LIMIT = 1e-5
EXACT_LIMIT = 1e-12

# An output whose noise is above this still is evidence, but tensors just before it with half the noise are compared
# as well.
_SHARP = 3e-5
_EXACT_CEILING = EXACT_LIMIT / NOISE_FLOORS
# How often inputs on which the original tips are replaced.
_ROUNDS = 3


def compare(
    original: Path,
    pruned: Path,
    graph: Graph,
    *,
    kept: Kept | None = None,
    silenced: Mapping[str, Sequence[Array]] | None = None,
    seeds: Sequence[int] = SEEDS,
    shape_variants: Sequence[Mapping[str, tuple[int, ...]]] = (),
    inputs: Sequence[Feeds] | None = None,
    exact: bool = False,
    expected: Collection[str] = (),
    noise: float = 0.0,
    threads: int | None = None,
    providers: Sequence[str] = CPU,
) -> VerifyReport:
    """Run two model files on the same inputs and compare what they compute.

    One session is alive at a time. Models that quantise their data run without graph optimisations, and what they
    quantise may differ by one quantum, where it varies by several. Models in half precision are compared through their
    float32 twins, float64 models too where onnxruntime lacks a kernel.

    Args:
        original: the reference, for a pruning the original with exactly the group members zeroed.
        pruned: the file to be proved equal. That it does not load or run is a difference, not an error.
        graph: of the original; says what inputs fit and what lies upstream of an output.
        kept: which positions of a tensor the pruned model keeps. Of inputs it is fed these alone, and of outputs
            these are compared; intermediate tensors whose shapes still differ are passed over.
        silenced: input -> the positions of each axis that are fed zeros, to both models.
        seeds: one set of made inputs each, for every variant.
        shape_variants: shapes by input name; default: the sample shapes. Those that the original cannot run are
            left out.
        inputs: compare on these instead. A single one gets a perturbed companion, to see what varies.
        exact: in float64 on onnx's ReferenceEvaluator, with the limit 1e-12; keep the shapes small.
        expected: what an earlier comparison of such models was based on (``VerifyReport.compared``); looked at first.
        noise: a noise floor of the outputs that was found in another way, over their spread: what another
            implementation of the original differs by.

    Raises:
        UsageError: inputs cannot be made, or the original does not run on them.
        ModelError: the original cannot be loaded.
        VerificationError: nothing that the inputs reach varies, so agreement would prove nothing.
    """
    fresh = count(max(seeds, default=0) + 1)

    def made(variant: Mapping[str, tuple[int, ...]], seed: int) -> Feeds:
        return _silent(make_inputs(graph, variant, seed), silenced or {})

    def another(feeds: Feeds) -> Feeds:
        return made({name: np.shape(array) for name, array in feeds.items()}, next(fresh))

    shapes = shape_variants or [{value.name: value.shape for value in graph.inputs if value.shape is not None}]
    if inputs is None:
        runs = [made(variant, seed) for variant in shapes for seed in seeds]
    else:
        given = [*inputs, *([perturbed(inputs[0])] if len(inputs) == 1 else [])]
        runs = [_silent(feeds, silenced or {}) for feeds in given]
    required = len(inputs or ())
    # Integer kernels that stand for quantised operators round by their own shapes: the graph itself is compared.
    steps = quanta(graph)
    literal = exact or steps is not None
    engine = (
        reference_engine() if exact else onnxruntime_engine(optimise=not literal, threads=threads, providers=providers)
    )
    plain = None if literal else onnxruntime_engine(optimise=False, threads=threads, providers=providers)

    def attempt(first: Path, second: Path, folder: Path) -> VerifyReport:
        ceiling, sharp = (_EXACT_CEILING, _EXACT_CEILING) if exact else (NOISE_CEILING, _SHARP)
        names = _tensor_names(first) & _tensor_names(second)
        current, loose = list(runs), frozenset[str]()
        for rounds in count(1):
            reference = Original(first, graph, engine, plain, ceiling, sharp, names, current, expected, steps, loose)
            base, floors = EXACT_LIMIT if exact else LIMIT, dict.fromkeys(reference.outputs, noise)
            report = _compared(reference, second, required, kept, base, floors)
            if report.equal or plain is None:
                return report
            if inputs is None:
                more = reference.noise([another(feeds) for feeds in reference.runs])
                if any(floor > floors.get(name, noise) for name, floor in more.items()):
                    floors = {name: max(noise, more.get(name, noise)) for name in floors}
                    report = _compared(reference, second, required, kept, base, floors)
            if report.equal or rounds > _ROUNDS or not reference.chooses:
                return report
            shaken = Shaken(first, engine, reference.outputs, folder, seed=rounds)
            steadier = shaken.steadied(reference.runs, loose, another if inputs is None else None)
            if steadier is None:
                return report
            current, loose = steadier
        raise AssertionError  # count() does not end

    with TemporaryDirectory(prefix="ozgraph-verify-") as folder:

        def twins(convert: Callable[[Path, Path], Path]) -> VerifyReport:
            return attempt(convert(original, Path(folder)), convert(pruned, Path(folder)), Path(folder))

        if exact:
            return twins(to_float64)
        if _has(graph, "float16", "bfloat16"):
            return twins(to_float32)
        try:
            return twins(mapped)
        except ModelError as error:
            if "NOT_IMPLEMENTED" not in str(error) or not _has(graph, "float64"):
                raise
            return twins(to_float32)


def verify(
    first: Path,
    second: Path,
    *,
    inputs: Path | None = None,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    seeds: Sequence[int] = SEEDS,
    exact: bool = False,
    threads: int | None = None,
    providers: Sequence[str] = CPU,
) -> VerifyReport:
    """Compare two model files with the same signature, as ``ozgraph verify A B`` does.

    Args:
        inputs: an ``.npz`` with one array an input.
        shapes: sizes for the made inputs, by name, for those that the file leaves open.

    Raises:
        UsageError: the signatures differ, or the inputs do not fit.
        ModelError: a file is not a model that onnxruntime runs.
        VerificationError: nothing varies with the inputs.
    """
    from ozgraph.frontends.onnx import load, sample_shapes

    graph = load(first, shapes=shapes)
    _same_signature(first, graph, second, load(second, shapes=shapes))
    if not exact:
        check_runs(graph.origin.model.graph.opset_imports, graph.origin.model.ir_version, str(first))
    return compare(
        first,
        second,
        graph,
        seeds=seeds,
        shape_variants=[sample_shapes(graph, variant) for variant in (0, 1)],
        inputs=None if inputs is None else load_inputs(inputs, graph),
        exact=exact,
        threads=threads,
        providers=providers,
    )


@dataclass(frozen=True, slots=True)
class _Verdict:
    """One tensor: its worst position, and what to say about it if the models differ there."""

    tensor: str
    gap: Gap
    failure: str | None = None


def _compared(
    reference: Original, other: Path, required: int, kept: Kept | None, base: float, noise: Mapping[str, float]
) -> VerifyReport:
    graph = reference.graph
    start = reference.start(required)
    while True:
        chosen = reference.stand_ins(start)
        seen = reference.narrowed(start, chosen)
        results: list[Tensors] = []
        try:
            for result in run_all(reference.engine, other, chosen, [narrowed(r, graph, kept) for r in reference.runs]):
                if isinstance(result, OzgraphError):
                    raise result
                results.append(result)
        except OutOfMemoryError:
            raise
        except OzgraphError as error:
            broken = _Verdict(str(other), Gap(np.inf, 0.0, base), f"the second model: {error}")
            return _report([broken], (), len(reference.runs))
        _narrow_outputs(reference, seen, kept)
        misfits = []
        for name in chosen:
            positions = None if kept is None else kept(reference.graph.values[name])
            seen.arrays[name] = [None if array is None else selected(array, positions) for array in seen.arrays[name]]
            originals = [array for array in seen.arrays[name] if array is not None]
            shapes = [result[name].shape for result in results]
            if [array.shape for array in originals] != shapes or spread(originals) == 0:
                misfits.append(name)
        if not misfits:
            for output, floor in noise.items():
                if (alive := seen.liveliness.get(output)) is not None:
                    seen.liveliness[output] = replace(alive, noise=max(alive.noise, floor))
            verdicts = list(_verdicts(reference, seen, results, base))
            evidence = tuple(key for key, alive in seen.liveliness.items() if reference.counts(alive))
            if not evidence:
                raise VerificationError(
                    "what is left of the outputs does not vary with the input, so agreement would prove nothing; give "
                    "real inputs with --inputs file.npz"
                )
            return _report(verdicts, evidence, len(reference.runs))
        reference.reject(misfits)


def narrowed(feeds: Feeds, graph: Graph, kept: Kept | None) -> Feeds:
    """What a model whose inputs shrank is fed: the positions that it keeps."""
    return feeds if kept is None else {name: selected(feeds[name], kept(graph.values[name])) for name in feeds}


def _narrow_outputs(reference: Original, seen: Observation, kept: Kept | None) -> None:
    """Leave of the original's outputs what the other model still gives."""
    for output in reference.graph.outputs if kept is not None else ():
        assert kept is not None
        positions = kept(output)
        if output.name not in seen.arrays or positions is None or all(chosen is None for chosen in positions):
            continue
        arrays = [selected(array, positions) for array in seen.arrays[output.name] if array is not None]
        seen.arrays[output.name] = list(arrays)
        if spread(arrays) == 0:
            # Only what went varied: what is left must be equal, but is no evidence.
            alive = seen.liveliness[output.name]
            seen.liveliness[output.name] = replace(alive, spread=0.0, noise=np.inf, rounding=np.inf)


def _silent(feeds: Feeds, silenced: Mapping[str, Sequence[Array]]) -> Feeds:
    """Inputs with zeros at some positions."""
    return {**feeds, **{name: _without(feeds[name], axes) for name, axes in silenced.items()}} if silenced else feeds


def _without(array: Array, axes: Sequence[Array]) -> Array:
    """A copy with zeros at some positions of each axis."""
    zeroed = array.copy()
    for axis, positions in enumerate(axes):
        np.moveaxis(zeroed, axis, 0)[positions] = 0
    return zeroed


def _verdicts(reference: Original, seen: Observation, results: Sequence[Tensors], base: float) -> Iterator[_Verdict]:
    for key in dict.fromkeys([*seen.arrays, *(key for result in results for key in result)]):
        alive = seen.liveliness.get(key)
        # What the original does not reproduce itself, integers or a NaN pattern, is left to the tensors upstream.
        if alive is None or alive.reproducible:
            originals = seen.arrays.get(key, [None] * len(results))
            yield _judged(key, originals, [result.get(key) for result in results], alive, reference.counts, base)


def _judged(
    key: str,
    originals: Sequence[Array | None],
    others: Sequence[Array | None],
    alive: Liveliness | None,
    counts: Callable[[Liveliness], bool],
    base: float,
) -> _Verdict:
    left, right = [], []
    for run, (original, other) in enumerate(zip(originals, others, strict=True)):
        if original is None and other is None:
            continue
        reason = "it exists in one model only" if original is None or other is None else mismatch(original, other)
        if original is None or other is None or reason is not None:
            return _Verdict(key, Gap(np.inf, 0.0, base), f"tensor {key!r}: {reason} (run {run})")
        left.append(original)
        right.append(other)
    if alive is None:
        return _Verdict(key, Gap(0.0, 0.0, base))
    moving = counts(alive)
    found = gap(left, right, alive, base, moving=moving)
    if found.error <= found.limit:
        return _Verdict(key, found)
    yard = "spread" if moving else "magnitude"
    return _Verdict(
        key, found, f"tensor {key!r} differs by {found.error:.1e} of its {yard}, above the limit {found.limit:.1e}"
    )


def _report(verdicts: Sequence[_Verdict], evidence: tuple[str, ...], runs: int) -> VerifyReport:
    """The worst tensor speaks for all; among those that agree, one that is evidence."""
    failed = [verdict for verdict in verdicts if verdict.failure is not None]
    counted = [verdict for verdict in verdicts if verdict.tensor in evidence]
    worst = max(failed or counted, key=lambda verdict: verdict.gap.severity)
    return VerifyReport(worst.gap.error, worst.gap.floor, worst.gap.limit, evidence, runs, worst.failure)


def selected(array: Array, positions: tuple[Array | None, ...] | None) -> Array:
    """The kept positions of every axis; the array as it is where these are not its axes."""
    if positions is None or len(positions) != array.ndim:
        return array
    for axis, chosen in enumerate(positions):
        if chosen is not None and (chosen.size == 0 or int(chosen.max()) < array.shape[axis]):
            array = np.take(array, chosen, axis=axis)
    return array


def _tensor_names(path: Path) -> set[str]:
    try:
        graph: onnx.GraphProto = read_structure(path).graph
    except ModelError:
        return set()  # running the file says what is wrong with it
    return {name for node in graph.node for name in node.output if name}


def _has(graph: Graph, *dtypes: str) -> bool:
    return any(value.dtype is not None and value.dtype.name in dtypes for value in graph.values.values())


def _same_signature(first: Path, graph: Graph, second: Path, other: Graph) -> None:
    for what, mine, theirs in (("inputs", graph.inputs, other.inputs), ("outputs", graph.outputs, other.outputs)):
        left = {value.name: (value.dtype, value.rank) for value in mine}
        right = {value.name: (value.dtype, value.rank) for value in theirs}
        names = sorted(left.keys() ^ right.keys()) or sorted(name for name in left if left[name] != right[name])
        if names:
            raise UsageError(f"{first} and {second} have different {what}: {', '.join(names)}; only twins compare")
        sizes = {value.name: value for value in theirs}
        for value in mine:
            if differ_in_size(value, sizes[value.name]):
                raise UsageError(
                    f"{first} and {second} have different {what}: {value.name} is {fixed_sizes(value)} in one and "
                    f"{fixed_sizes(sizes[value.name])} in the other; a file that 'prune --allow-io' made smaller was "
                    f"compared when it was written, with the positions that it keeps"
                )


def differ_in_size(value: Value, other: Value) -> bool:
    """Whether an axis that never varies is longer in one of two inputs or outputs."""
    pairs = zip(value.shape or (), other.shape or (), value.dynamic, other.dynamic, strict=False)
    return any(a != b and not (varies or too) for a, b, varies, too in pairs)


def fixed_sizes(value: Value) -> str:
    """The sizes of a value, ``?`` where they vary."""
    flags = value.dynamic or (False,) * value.rank
    return "x".join("?" if varies else str(size) for size, varies in zip(value.shape or (), flags, strict=True))

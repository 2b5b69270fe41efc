"""Latency of two model files in onnxruntime, side by side, so that what else the machine does hits both alike."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from ozgraph.errors import UsageError
from ozgraph.frontends.safety import check_file
from ozgraph.graph import Array
from ozgraph.numerics.inputs import load_inputs, make_inputs
from ozgraph.numerics.precision import dense
from ozgraph.numerics.sessions import CPU, Session, open_session
from ozgraph.results import BenchReport

ROUNDS = 25
SECONDS = 5.0

# A timed block is at least this long: a thousand times the clock's resolution and the cost of reading it.
_BLOCK_SECONDS = 0.005
# Fewer rounds than this say nothing about the spread, however slow the models are.
_FEWEST_ROUNDS = 5
_WARMUP_RUNS = 3


def bench(
    first: Path,
    second: Path,
    *,
    rounds: int = ROUNDS,
    threads: int = 1,
    seconds: float = SECONDS,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    inputs: Path | Mapping[str, Array] | None = None,
    seed: int = 0,
    providers: Sequence[str] = CPU,
) -> BenchReport:
    """Time two models with the same inputs; the ratio is first / second, above 1 where the second is faster.

    Both stay loaded. Every round times blocks of runs in the order A B B A, so that a drift of the clock rate cancels,
    and gives one ratio; the report has their median and their 5th and 95th percentile. One untimed block of each comes
    first.

    Args:
        rounds: how many, where ``seconds`` allows; at least 5.
        threads: threads inside one operator.
        seconds: about how long to measure. Models slower than a twentieth of this take longer.
        shapes: of the made inputs, by name, where the file leaves them open; default: the loader's sample shapes.
        inputs: an ``.npz``, or arrays by name, instead of made inputs. Arrays save reading the models once more.
        seed: of the made inputs.

    Raises:
        UsageError: inputs that do not fit, or senseless numbers.
        ModelError: a model does not load.
        OzgraphError: a model does not run on the inputs.
    """
    if rounds < 1 or threads < 1 or seconds <= 0:
        raise UsageError(f"cannot time {rounds} rounds on {threads} threads in {seconds} seconds; all start above 0")
    for path in (first, second):
        check_file(str(path))
    feeds = inputs if isinstance(inputs, Mapping) else _feeds(first, shapes, inputs, seed)
    with TemporaryDirectory(prefix="ozgraph-bench-") as folder:
        paths = [dense(path, Path(folder)) for path in (first, second)]
        sessions = [open_session(path, threads=threads, providers=providers) for path in paths]
        theirs = feeds if _takes(sessions[1], feeds) else _own_feeds(second, feeds, given=inputs is not None, seed=seed)
        contenders = [_Contender.ready(session, own) for session, own in zip(sessions, (feeds, theirs), strict=True)]
        return _report(first, second, _measured(contenders[0], contenders[1], rounds, seconds), threads)


@dataclass(slots=True)
class _Contender:
    """A loaded model with its inputs, and how many runs make a block long enough to time."""

    session: Session
    feeds: dict[str, Array]
    runs: int

    @classmethod
    def ready(cls, session: Session, feeds: Mapping[str, Array]) -> _Contender:
        """Warm up, and find out how many runs a block takes."""
        contender = cls(session, session.fitted(feeds), 1)
        session.run(contender.feeds)
        fastest = min(contender.block() for _ in range(_WARMUP_RUNS))
        contender.runs = max(1, math.ceil(_BLOCK_SECONDS / max(fastest, 1e-9)))
        return contender

    def block(self) -> float:
        """Seconds a run, averaged over a block."""
        native, feeds = self.session.native, self.feeds
        start = time.perf_counter_ns()
        for _ in range(self.runs):
            native.run(None, feeds)
        return (time.perf_counter_ns() - start) / 1e9 / self.runs


Round = tuple[float, float]
"""Seconds a run of the first and of the second model."""


def _measured(first: _Contender, second: _Contender, rounds: int, seconds: float) -> list[Round]:
    """Time interleaved rounds until there are enough or the time is over."""
    measured: list[Round] = []
    with _no_collection():
        first.block(), second.block()
        deadline = time.perf_counter() + seconds
        while len(measured) < rounds and (len(measured) < _FEWEST_ROUNDS or time.perf_counter() < deadline):
            outer_left, inner_left = first.block(), second.block()
            inner_right, outer_right = second.block(), first.block()
            measured.append(((outer_left + outer_right) / 2, (inner_left + inner_right) / 2))
    return measured


def _report(first: Path, second: Path, measured: Sequence[Round], threads: int) -> BenchReport:
    times = np.asarray(measured)
    ratios = times[:, 0] / times[:, 1]
    low, middle, high = np.quantile(ratios, (0.05, 0.5, 0.95))
    first_ms, second_ms = np.median(times, axis=0) * 1e3
    return BenchReport(
        first=str(first),
        second=str(second),
        first_ms=float(first_ms),
        second_ms=float(second_ms),
        ratio=float(middle),
        ratio_low=float(low),
        ratio_high=float(high),
        rounds=len(measured),
        threads=threads,
    )


def _feeds(
    path: Path, shapes: Mapping[str, tuple[int, ...]] | None, inputs: Path | None, seed: int
) -> dict[str, Array]:
    from ozgraph.frontends.onnx import load, sample_shapes

    graph = load(path, shapes=shapes)
    return make_inputs(graph, sample_shapes(graph, 0), seed) if inputs is None else load_inputs(inputs, graph)[0]


def _takes(session: Session, feeds: Mapping[str, Array]) -> bool:
    """Whether no input has another fixed size."""
    for argument in session.native.get_inputs():
        pairs = zip(argument.shape, feeds[argument.name].shape, strict=False) if argument.name in feeds else ()
        if any(isinstance(size, int) and size != own for size, own in pairs):
            return False
    return True


def _own_feeds(path: Path, feeds: Mapping[str, Array], *, given: bool, seed: int) -> dict[str, Array]:
    """Inputs for a model whose own are smaller (``prune --allow-io``): as long as the other's where sizes vary.

    Raises:
        UsageError: the inputs were given, and which of their positions this model takes is not known.
    """
    from ozgraph.frontends.onnx import load

    if given:
        raise UsageError(f"the given inputs do not fit {path}, whose inputs have other sizes; leave --inputs out")
    graph = load(path)
    shapes: dict[str, tuple[int, ...]] = {}
    for value in graph.inputs:
        array = feeds.get(value.name)
        if array is not None and value.shape is not None and array.ndim == value.rank:
            flags = value.dynamic or (False,) * value.rank
            sizes = zip(array.shape, value.shape, flags, strict=True)
            shapes[value.name] = tuple(other if varies else own for other, own, varies in sizes)
    return make_inputs(graph, shapes, seed)


@contextmanager
def _no_collection() -> Iterator[None]:
    """A garbage collection in the middle of a block would count as latency."""
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()

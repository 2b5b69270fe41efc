"""One model, many inputs: what onnxruntime or onnx's reference evaluator computes, one session at a time."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from onnx.reference import ReferenceEvaluator

from ozgraph.errors import ModelError, OutOfMemoryError, OzgraphError
from ozgraph.graph import Array
from ozgraph.numerics.reference_operators import REPAIRED
from ozgraph.numerics.sessions import open_session

Feeds = Mapping[str, Array]
Tensors = dict[str, Array]
Runner = Callable[[Feeds], Mapping[str, Any]]
Engine = Callable[[Path, Sequence[str]], Runner]
"""Loads a model file with extra outputs; the runner it returns maps inputs to outputs by name."""


def onnxruntime_engine(*, optimise: bool, threads: int | None, providers: Sequence[str]) -> Engine:
    """An engine that opens one onnxruntime session a call."""

    def load(path: Path, expose: Sequence[str]) -> Runner:
        # A few runs gain nothing from rearranged weights, and large ones would be held in memory twice.
        return open_session(
            path, expose=expose, optimise=optimise, threads=threads, providers=providers, prepack=False
        ).run

    return load


def reference_engine() -> Engine:
    """An engine on ``onnx.reference.ReferenceEvaluator``: slow, plain numpy, and in whatever type the model is."""

    def load(path: Path, expose: Sequence[str]) -> Runner:
        try:
            evaluator = ReferenceEvaluator(str(path), new_ops=REPAIRED)
        except Exception as error:  # any operator's own constructor may refuse
            raise ModelError(f"no exact run of {path}: {_summary(error)} (in onnx's reference evaluator)") from error
        wanted = dict.fromkeys([*evaluator.output_names, *expose])

        def run(feeds: Feeds) -> Mapping[str, Any]:
            fitted = {name: _widened(feeds[name]) for name in evaluator.input_names if name in feeds}
            try:
                with np.errstate(all="ignore"):
                    found = evaluator.run(None, fitted, intermediate=True)
            except MemoryError as error:
                raise OutOfMemoryError(
                    f"there is not enough memory to run {path} ({error}); free some, or give smaller inputs"
                ) from error
            except Exception as error:  # any operator's own exception
                raise ModelError(
                    f"no exact run of {path}: {_summary(error)} (in onnx's reference evaluator)"
                ) from error
            assert isinstance(found, dict)
            return {name: found[name] for name in wanted}

        return run

    return load


def run_all(engine: Engine, model: Path, expose: Sequence[str], runs: Sequence[Feeds]) -> list[Tensors | OzgraphError]:
    """Outputs and exposed tensors of every run, or the error that ended it; the session is gone afterwards.

    An output that is a sequence or a map becomes tensors named ``output[0]``, ``output[key]``.

    Raises:
        ModelError: the model does not load.
    """
    runner = engine(model, expose)
    results: list[Tensors | OzgraphError] = []
    for feeds in runs:
        try:
            results.append({key: array for name, found in runner(feeds).items() for key, array in _flat(name, found)})
        except OzgraphError as error:
            results.append(error)
    return results


def root(key: str, outputs: Collection[str]) -> str:
    """The one of ``outputs`` that a tensor of :func:`run_all` belongs to; where there is none, anything else."""
    return key if key in outputs else key.partition("[")[0]


def _flat(name: str, found: Any) -> Iterator[tuple[str, Array]]:
    entries: list[tuple[str, Any]] = [(name, found)]
    while entries:
        key, item = entries.pop()
        if isinstance(item, dict):
            entries += [(f"{key}[{label}]", entry) for label, entry in item.items()]
        elif isinstance(item, (list, tuple)):
            entries += [(f"{key}[{index}]", entry) for index, entry in enumerate(item)]
        elif item is not None:
            yield key, np.asarray(item)


def _widened(array: Array) -> Array:
    return array.astype(np.float64) if array.dtype.kind == "f" or "float" in array.dtype.name else array


def _summary(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__

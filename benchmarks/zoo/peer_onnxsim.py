"""onnxsim's structured pruning of exported files, as a plain user would call it.

It does not say which channels it took. What it left is found in the original by its numbers, which are random and so
tell their places; the original with the others at zero is what the result is compared with, by the measure that
ozgraph's own results are held to.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from sources import Made

import ozgraph
from ozgraph.frontends.onnx import load, sample_shapes
from ozgraph.numerics.compare import compare
from ozgraph.numerics.inputs import make_inputs
from ozgraph.numerics.sessions import open_session

HALF, NEARLY_ALL = 0.5, 0.9999
"""Shares of the channels to take; of nearly all, one of each layer is left."""

VOTES = 64
"""Numbers of a slice that are looked up to tell where it was."""

PRODUCED = {"Conv": lambda node: 0, "ConvTranspose": lambda node: 1, "MatMul": lambda node: -1,
            "Gemm": lambda node: 0 if _attribute(node, "transB") else 1}  # fmt: skip
"""The axis of a product's weight that its channels come from; the other one is what it takes of another's."""


def onnxsim(made: Made, clock: Any) -> dict[str, Any]:
    """``apply_structured_pruning`` of half of the channels, and of all but one for the share that it can remove."""
    found: dict[str, Any] = {"outcome": "failed", "stage": "export"}
    with tempfile.TemporaryDirectory(prefix="ozgraph-zoo-") as folder:
        path, smaller = Path(made.path or Path(folder) / "model.onnx"), Path(folder) / "smaller.onnx"
        try:
            if made.path is None:
                _export(made, path, clock)
            found["stage"] = "read"
            found["parameters"] = ozgraph.analyze(path).report.parameters
            found["stage"] = "prune"
            with clock("peer prune"):
                onnx.save(_pruned(path, HALF), smaller)
            found["parameters after"] = ozgraph.analyze(smaller).report.parameters
            found["stage"] = "run pruned"
            if _shapes(path) != _shapes(smaller):
                return {**found, "error": "the shapes of its results changed"}
            found["outcome"] = "runs" if found["parameters after"] < found["parameters"] else "nothing to remove"
            found["stage"] = "compare"
            if found["outcome"] == "runs":
                found |= _compared(path, smaller, Path(folder))
                found["stage"] = "share"
                with clock("peer share"):
                    onnx.save(_pruned(path, NEARLY_ALL), smaller)
                found["prunable"] = found["parameters"] - ozgraph.analyze(smaller).report.parameters
            del found["stage"]
        except Exception as error:
            found["error"] = f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
    return found


def _export(made: Made, path: Path, clock: Any) -> None:
    import torch

    with clock("onnx export"), torch.no_grad():
        torch.onnx.export(made.module, made.args, str(path), kwargs=made.kwargs or None, dynamo=True,
                          external_data=False, verbose=False)  # fmt: skip


def _pruned(path: Path, share: float) -> onnx.ModelProto:
    from onnxsim import apply_structured_pruning  # type: ignore[attr-defined]

    pruned = apply_structured_pruning(onnx.load(path), share)
    model: onnx.ModelProto = pruned[0] if isinstance(pruned, tuple) else pruned
    return model


def _shapes(path: Path) -> list[tuple[int, ...]]:
    graph = load(path)
    feeds = make_inputs(graph, sample_shapes(graph, 0), 0)
    return [np.shape(array) for array in open_session(path, threads=1).run(feeds).values()]


def _compared(path: Path, smaller: Path, folder: Path) -> dict[str, Any]:
    """Whether the result equals the original with what was taken at zero; nothing where that cannot be told."""
    zeroed, certain = _zeroed(onnx.load(path), onnx.load(smaller))
    file = folder / "zeroed.onnx"
    onnx.save(zeroed, file)
    report = compare(file, smaller, load(file), threads=1)
    if not report.equal and not certain:
        return {"not compared": "what was taken of some layers is not told by their numbers"}
    return {"equal": report.equal, "difference": report.max_relative_error, "limit": report.limit}


def _zeroed(original: onnx.ModelProto, pruned: onnx.ModelProto) -> tuple[onnx.ModelProto, bool]:
    """The original, changed in place, with zeros for what producers lost, and whether all of that was found."""
    left = {tensor.name: tensor for tensor in pruned.graph.initializer}
    axes = {
        node.input[1]: PRODUCED[node.op_type](node)
        for node in original.graph.node
        if node.op_type in PRODUCED and len(node.input) > 1
    }
    cut: list[tuple[onnx.TensorProto, int, NDArray[Any], NDArray[Any]]] = []
    for tensor in original.graph.initializer:
        other = left.get(tensor.name)
        if other is not None and list(other.dims) != list(tensor.dims):
            whole, part = numpy_helper.to_array(tensor).copy(), numpy_helper.to_array(other)
            cut += [(tensor, axis, whole, part) for axis in range(whole.ndim) if whole.shape[axis] != part.shape[axis]]
    told = [_places(whole, part, axis) for _, axis, whole, part in cut]
    known = [places for places in told if places is not None]
    certain = True
    for (tensor, axis, whole, part), places in zip(cut, told, strict=True):
        if axis != axes.get(tensor.name, axis) % whole.ndim:
            continue
        if places is None:
            # A vector may hold a number twice: the layer that it belongs to tells which of them is left.
            size = part.shape[axis]
            fitting = (one for one in known if one.size == size and one[-1] < whole.shape[axis])
            places = next((one for one in fitting if np.array_equal(np.take(whole, one, axis), part)), None)
        if places is None:
            certain = False
            continue
        np.moveaxis(whole, axis, 0)[np.setdiff1d(np.arange(whole.shape[axis]), places)] = 0
        tensor.CopyFrom(numpy_helper.from_array(whole, tensor.name))
    return original, certain


def _places(whole: NDArray[Any], part: NDArray[Any], axis: int) -> NDArray[np.intp] | None:
    """Where the slices of a part lie along an axis of the whole, by the numbers in them; None where they do not tell.

    Numbers may occur twice: most of a slice's decide, and a single one tells nothing then. Another axis may be cut as
    well, whose places do not matter.
    """
    numbers = whole.ravel()
    order = np.argsort(numbers, kind="stable")
    wanted = np.moveaxis(part, axis, 0).reshape(part.shape[axis], -1)[:, :VOTES]
    at = np.searchsorted(numbers, wanted, sorter=order)
    if wanted.shape[1] == 1 and bool((np.searchsorted(numbers, wanted, "right", order) > at + 1).any()):
        return None
    found = order[np.minimum(at, numbers.size - 1)]
    along = np.unravel_index(found, whole.shape)[axis]
    places = np.median(along, axis=1).astype(np.intp)
    agree = (along == places[:, None]) & (numbers[found] == wanted)
    known = bool((agree.mean(axis=1) > 0.5).all()) and bool((np.diff(places) > 0).all())
    return places if known else None


def _attribute(node: onnx.NodeProto, name: str) -> Any:
    return next((helper.get_attribute_value(each) for each in node.attribute if each.name == name), 0)

"""The nine legacy networks in the ``onnx`` package's test data, with weights that make them alive.

The files (``onnx/backend/test/data/light/light_*.onnx``, IR version 3, opset 9) hold no weights: ``ConstantOfShape``
nodes stand for all but a few vectors. Here each of them becomes an initializer with random elements, and one pass over
the network, node by node on a small batch of random images, scales every layer to unit spread and centres it, as in
layer-sequential unit-variance initialisation (Mishkin and Matas, arXiv:1511.06422). So logits are finite and differ
from image to image.

The pass is run once a machine: what it found (a factor per weight, and all vectors) is kept in a small file.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from models.building import Builder
from models.cache import cache_folder
from models.feeding import run

Array = npt.NDArray[Any]

FOLDER = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
NAMES = (
    "bvlc_alexnet", "densenet121", "inception_v1", "inception_v2", "resnet50", "shufflenet", "squeezenet", "vgg19",
    "zfnet512",
)  # fmt: skip
RECIPE = 1
"""Part of the cache file's name; raise it when the procedure changes."""

BATCH = 4
LOGIT_SPREAD = 2.0


def logits_name(model: onnx.ModelProto) -> str:
    """The tensor before the final softmax; the output itself where there is none."""
    name = model.graph.output[0].name
    producers = {output: node for node in model.graph.node for output in node.output}
    while name in producers and producers[name].op_type == "Softmax":
        name = producers[name].input[0]
    return str(name)


def light(name: str) -> onnx.ModelProto:
    """The legacy network ``light_<name>.onnx`` with random weights; the same on every call."""
    model = onnx.load(FOLDER / f"light_{name}.onnx")
    shapes = _take_placeholders(model)
    path = cache_folder("light") / f"{name}-{RECIPE}.npz"
    if path.exists():
        with np.load(path) as stored:
            found = dict(stored)
    else:
        found = _Calibration(model, shapes).run()
        partial_path = path.with_suffix(".partial.npz")
        np.savez(partial_path, allow_pickle=False, **found)
        partial_path.replace(path)
    for tensor, shape in shapes.items():
        array = _raw(tensor, shape) * found[tensor] if len(shape) > 1 else found[tensor]
        model.graph.initializer.append(numpy_helper.from_array(array, tensor))
        # Before IR version 4, initializers must be listed among the inputs.
        model.graph.input.append(helper.make_tensor_value_info(tensor, onnx.TensorProto.FLOAT, shape))
    return model


LIGHT: dict[str, Builder] = {f"light_{name}": partial(light, name) for name in NAMES}


def _raw(tensor: str, shape: tuple[int, ...]) -> Array:
    """Standard normal elements that depend on the tensor's name alone."""
    rng = np.random.default_rng(zlib.crc32(tensor.encode()))
    return rng.standard_normal(shape, dtype=np.float32)


def _take_placeholders(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """Remove the ConstantOfShape nodes and the few vectors that are left; the shapes of all floating parameters."""
    elements = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    shapes = {name: array.shape for name, array in elements.items() if array.dtype.kind == "f"}
    nodes = list(model.graph.node)
    del model.graph.node[:]
    for node in nodes:
        if node.op_type == "ConstantOfShape":
            shapes[node.output[0]] = tuple(int(size) for size in elements[node.input[0]])
        else:
            model.graph.node.append(node)
    read = {operand for node in model.graph.node for operand in node.input}
    shapes = {name: shape for name, shape in shapes.items() if name in read}
    read -= set(shapes)
    for entries in (model.graph.initializer, model.graph.input):
        kept = [entry for entry in entries if entry.name in read]
        del entries[:]
        entries.extend(kept)
    return shapes


class _Calibration:
    """One forward pass, node by node, that sets every weight from the activations it meets.

    Attributes:
        found: per tensor, the factor of its raw elements (weights) or the elements themselves (vectors).
    """

    def __init__(self, model: onnx.ModelProto, shapes: dict[str, tuple[int, ...]]) -> None:
        self.model = model
        self.shapes = shapes
        self.rng = np.random.default_rng(0)
        self.found: dict[str, Array] = {}
        self.values = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
        self.reshaped: dict[str, str] = {}
        self.last = logits_name(model)

    def run(self) -> dict[str, Array]:
        """All of :attr:`found`."""
        for info in self.model.graph.input:
            if info.name not in self.values:
                _, *sizes = (size.dim_value for size in info.type.tensor_type.shape.dim)
                self.values[info.name] = self.rng.standard_normal((BATCH, *sizes), dtype=np.float32)
        special: dict[str, Callable[[onnx.NodeProto], Array]] = {
            "Conv": self._contraction,
            "Gemm": self._contraction,
            "BatchNormalization": self._batch_norm,
            "Unsqueeze": self._unsqueeze,
            "Reshape": self._reshape,
        }
        left = Counter(operand for node in self.model.graph.node for operand in node.input)
        for node in self.model.graph.node:
            self.values[node.output[0]] = special.get(node.op_type, self._plain)(node)
            for operand in node.input:
                left[operand] -= 1
                if not left[operand]:
                    self.values.pop(operand, None)
        return self.found

    def _plain(self, node: onnx.NodeProto) -> Array:
        """What onnxruntime computes for the node alone."""
        operands = {name: self.values[name] for name in node.input if name}
        alone = onnx.NodeProto()
        alone.CopyFrom(node)
        del alone.output[1:]
        graph = helper.make_graph(
            [alone], "node",
            [helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
             for name, array in operands.items()],
            [helper.make_tensor_value_info(node.output[0], onnx.TensorProto.FLOAT, None)],
        )  # fmt: skip
        model = helper.make_model(graph, opset_imports=self.model.opset_import, ir_version=4)
        return run(model, operands)[0]

    def _contraction(self, node: onnx.NodeProto) -> Array:
        """Scale the weight to unit spread of the result; centre each channel by the bias."""
        weight = self.reshaped.get(node.input[1], node.input[1])
        bias = node.input[2] if len(node.input) > 2 else None
        if weight == node.input[1]:
            self.values[weight] = _raw(weight, self.shapes[weight])
        if bias:
            self.values[bias] = np.zeros(self.shapes[bias], np.float32)
        y = self._plain(node)
        spread = LOGIT_SPREAD if self.last in node.output else 1.0
        factor = np.float32(spread / max(float(y.std(axis=0).mean() if y.ndim == 2 else y.std()), 1e-12))
        self.found[weight] = np.asarray(factor)
        y *= factor
        if bias:
            around = tuple(axis for axis in range(y.ndim) if axis != 1)
            shift = self.rng.normal(0, 0.3 * spread, self.shapes[bias]) - y.mean(axis=around)
            self.found[bias] = shift.astype(np.float32)
            y += self.found[bias].reshape(-1, *[1] * (y.ndim - 2))
        return y

    def _batch_norm(self, node: onnx.NodeProto) -> Array:
        """Statistics near the true ones, scales around one, shifts around zero."""
        x, scale, shift, mean, variance = node.input
        activations = self.values[x]
        count = self.shapes[scale][0]
        spread = activations.var(axis=(0, 2, 3))
        spread = np.maximum(spread, 1e-3 * spread.mean())
        centre = activations.mean(axis=(0, 2, 3)) + self.rng.normal(0, 0.1, count) * np.sqrt(spread)
        for name, array in (
            (scale, self.rng.uniform(0.5, 1.5, count)),
            (shift, self.rng.normal(0, 0.2, count)),
            (mean, centre),
            (variance, spread * self.rng.uniform(0.7, 1.4, count)),
        ):
            self.values[name] = self.found[name] = array.astype(np.float32)
        return self._plain(node)

    def _unsqueeze(self, node: onnx.NodeProto) -> Array:
        """A scale layer's vector: around one before a Mul, around zero before an Add."""
        name = node.input[0]
        if name in self.shapes and name not in self.found:
            count = self.shapes[name]
            multiplies = any(
                node.output[0] in other.input and other.op_type == "Mul" for other in self.model.graph.node
            )
            array = self.rng.uniform(0.5, 1.5, count) if multiplies else self.rng.normal(0, 0.2, count)
            self.values[name] = self.found[name] = array.astype(np.float32)
        return self._plain(node)

    def _reshape(self, node: onnx.NodeProto) -> Array:
        """Targets are written for a batch of one; a weight may be reshaped before its use."""
        target = self.values[node.input[1]].copy()
        if node.input[0] in self.shapes:
            self.reshaped[node.output[0]] = node.input[0]
            return _raw(node.input[0], self.shapes[node.input[0]]).reshape(target)
        if target[0] == 1:
            target[0] = BATCH
        return self.values[node.input[0]].reshape(
            [self.values[node.input[0]].shape[axis] if size == 0 else int(size) for axis, size in enumerate(target)]
        )

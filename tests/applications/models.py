"""A small random model around one application, with removable slots on every axis of its operands."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import helper, numpy_helper

from applications.application import Application
from applications.engines import ir_version
from applications.operands import BOOL, FLOAT, INDEX, INTEGERS, SCALE, Operand, T
from models.building import Array

NARROW = 2
"""Positions on every axis of what comes in and goes out."""

_LETTERS = "abcdefgh", "klmnopqr"


@dataclass
class Made:
    """A model around an application.

    Attributes:
        operands: the tensor at every position; empty where it is left out.
        weights: everything that may be set to zero, by name.
        zeros: what stands for zero in a weight of integers.
        engine: what runs it.
    """

    model: onnx.ModelProto
    operands: list[str]
    weights: dict[str, Array]
    zeros: dict[str, int]
    engine: str

    def inputs(self, seed: int) -> dict[str, Array]:
        """Random inputs."""
        rng = np.random.default_rng([seed, 3])
        return {
            info.name: rng.standard_normal([size.dim_value for size in info.type.tensor_type.shape.dim]).astype(
                np.float32
            )
            for info in self.model.graph.input
            if info.name not in self.weights
        }


def around(application: Application, mode: str, *, beside: bool = False) -> Made:
    """The model: producers for every axis of what is computed, consumers for every axis of the results.

    Args:
        beside: with a layer that has nothing to do with the application, and an output of its own.
    """
    engine, results = application.alone.engine, application.alone.results
    w = _Workshop(np.random.default_rng([11, *application.name.encode()]), application.opset)
    operands = []
    for position, operand in enumerate(application.operands):
        if operand is None:
            operands.append("")
        elif not isinstance(operand, Operand):
            operands.append(w.constant(operand.array, f"x{position}"))
        elif application.is_computed(position, mode):
            operands.append(w.computed(operand, f"x{position}"))
        else:
            name = w.weight(operand.weight(w.rng), f"x{position}")
            w.zeros[name] = operand.zero
            operands.append(name)
    made = ["" if array is None else f"y{k}" for k, array in enumerate(results)]
    w.nodes.append(application.node(operands, made))
    outputs = dict(w.consumed(name, array) for name, array in zip(made, results, strict=True) if array is not None)
    if beside:
        hidden = T(5, 7)
        outputs |= [w.consumed(w.computed(hidden, "beside"), hidden.weight(w.rng))]
    if not w.inputs:
        gain = w.input("gain", ())
        outputs = {w.op("Mul", [name, gain], f"{name}.live"): shape for name, shape in outputs.items()}
    infos = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name, shape in outputs.items()]
    graph = helper.make_graph(w.nodes, "around", w.inputs, infos, w.constants, value_info=w.infos)
    model = helper.make_model(graph, opset_imports=application.imports(), ir_version=ir_version(application.opset))
    return Made(model, operands, w.weights, w.zeros, engine)


@dataclass
class _Workshop:
    rng: np.random.Generator
    opset: int
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    inputs: list[onnx.ValueInfoProto] = field(default_factory=list)
    constants: list[onnx.TensorProto] = field(default_factory=list)
    infos: list[onnx.ValueInfoProto] = field(default_factory=list)
    weights: dict[str, Array] = field(default_factory=dict)
    zeros: dict[str, int] = field(default_factory=dict)

    def op(self, kind: str, inputs: list[str], result: str, **attributes: object) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [result], name=f"make_{result}", **attributes))
        return result

    def constant(self, array: Array, name: str) -> str:
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), name))
        return name

    def number(self, element: float, name: str) -> str:
        return self.constant(np.array(element, np.float32), name)

    def weight(self, array: Array, name: str) -> str:
        self.weights[name] = array
        return self.constant(array, name)

    def input(self, name: str, shape: tuple[int, ...]) -> str:
        self.inputs.append(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape))
        return name

    def computed(self, operand: Operand, name: str) -> str:
        """A tensor with trained producers on every axis, and a bias with all of them."""
        narrow = tuple(min(size, NARROW) for size in operand.shape)
        x = self.input(f"{name}.in", narrow)
        x = self._contracted(x, name, narrow, operand.shape)
        x = self.op("Add", [x, self.weight(self._normal(operand.shape, 0.5), f"{name}.bias")], f"{name}.sum")
        return self._in_its_domain(x, operand, name)

    def _in_its_domain(self, x: str, operand: Operand, name: str) -> str:
        if operand.kind == FLOAT:
            for number, kind in enumerate(operand.through):
                x = self._through(x, kind, f"{name}.{number}")
            return self.op("Identity", [x], name)
        if operand.kind == BOOL:
            return self.op("Greater", [x, self.number(0.0, f"{name}.zero")], name)
        if operand.kind in (INDEX, INTEGERS):
            x = self.op("Abs", [x], f"{name}.abs")
            x = self.op("Mul", [x, self.number(operand.below or 4, f"{name}.factor")], f"{name}.more")
            if operand.kind == INDEX:
                x = self.op("Min", [x, self.number(operand.below - 0.5, f"{name}.most")], f"{name}.below")
            return self.op("Cast", [x], name, to=helper.np_dtype_to_tensor_dtype(np.dtype(operand.dtype)))
        point = self.constant(np.array(operand.zero, operand.dtype), f"{name}.point")
        return self.op("QuantizeLinear", [x, self.number(SCALE, f"{name}.scale"), point], name)

    def _through(self, x: str, kind: str, name: str) -> str:
        if kind == "AboveOne":
            return self.op("Add", [self.op("Abs", [x], f"{name}.abs"), self.number(1.25, f"{name}.one")], name)
        if kind == "Larger":
            return self.op("Mul", [x, self.number(4.0, f"{name}.four")], name)
        if kind == "Overflow":
            large = self.op("Mul", [x, self.number(1e4, f"{name}.many")], f"{name}.large")
            return self.op("Exp", [large], name)
        return self.op(kind, [x], name)

    def consumed(self, result: str, array: Array) -> tuple[str, tuple[int, ...]]:
        """Every axis of a result contracted with a weight: what comes out, and its shape."""
        name = f"{result}.out"
        kind = helper.np_dtype_to_tensor_dtype(array.dtype)
        self.infos.append(helper.make_tensor_value_info(result, kind, array.shape))
        if array.dtype != np.float32:
            result = self.op("Cast", [result], f"{name}.cast", to=onnx.TensorProto.FLOAT)
        narrow = tuple(min(size, NARROW) for size in array.shape)
        return self._contracted(result, name, array.shape, narrow), narrow

    def _contracted(self, x: str, name: str, before: tuple[int, ...], after: tuple[int, ...]) -> str:
        """Every axis of ``x`` that has slots multiplied by a matrix of its own."""
        weights = {
            axis: self.weight(self._normal((m, n), np.sqrt(1 / m)), f"{name}.w{axis}")
            for axis, (m, n) in enumerate(zip(before, after, strict=True))
            if (m, n) != (1, 1)
        }
        result = f"{name}.made"
        if not weights:
            return self.op("Identity", [x], result)
        if self.opset >= 12:
            left = _LETTERS[0][: len(before)]
            terms = [_LETTERS[0][axis] + _LETTERS[1][axis] for axis in weights]
            right = "".join(_LETTERS[axis in weights][axis] for axis in range(len(before)))
            return self.op("Einsum", [x, *weights.values()], result, equation=",".join([left, *terms]) + "->" + right)
        for axis in range(len(before)):
            if len(before) > 1:
                x = self.op("Transpose", [x], f"{name}.t{axis}", perm=[*range(1, len(before)), 0])
            if axis in weights:
                x = self.op("MatMul", [x, weights[axis]], f"{name}.m{axis}")
        return self.op("Identity", [x], result)

    def _normal(self, shape: tuple[int, ...], scale: float) -> Array:
        return np.asarray(self.rng.standard_normal(shape) * scale, np.float32).reshape(shape)

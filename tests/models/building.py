"""A short way to write an ONNX model down: layers with random weights, the right node for each opset."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper, shape_inference

Array = npt.NDArray[Any]
Size = int | str

NEWEST = 26
"""The newest opset that onnxruntime 1.31 runs."""


Builder = Callable[[], onnx.ModelProto]


def registrar(models: dict[str, Builder]) -> Callable[[Builder], Builder]:
    """A decorator that enters a builder into ``models`` under the function's name."""

    def enter(build: Builder) -> Builder:
        models[build.__name__] = build
        return build

    return enter


class Net:
    """Collects nodes and weights; every method returns the name of the tensor it makes.

    Weights are seeded, scaled so that activations keep their size, and never at a neutral value: biases are not zero,
    batch-norm scales are not one, variances are positive.

    >>> net = Net("tiny")
    >>> x = net.input("x", (2, 4))
    >>> net.build(net.linear(x, 4, 3)).graph.node[0].op_type
    'Gemm'
    """

    def __init__(self, name: str, *, opset: int = 20, dtype: npt.DTypeLike = np.float32, seed: int = 0) -> None:
        self.name = name
        self.opset = opset
        self.dtype = np.dtype(dtype)
        self.rng = np.random.default_rng([seed, *name.encode()])
        self.nodes: list[onnx.NodeProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.functions: list[onnx.FunctionProto] = []
        self.infos: list[onnx.ValueInfoProto] = []
        self._taken: dict[str, int] = {}

    def fresh(self, hint: str) -> str:
        """A name that is not taken yet: the hint itself, or the hint and a number."""
        name = hint
        while name in self._taken:
            name = f"{hint}_{self._taken[hint]}"
            self._taken[hint] += 1
        self._taken[name] = 1
        return name

    # -- what goes in ------------------------------------------------------------------------------------------------

    def input(self, name: str, shape: Sequence[Size], dtype: npt.DTypeLike | None = None) -> str:
        """A model input; sizes given as text vary at run time."""
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype) if dtype is not None else self.dtype)
        self.inputs.append(helper.make_tensor_value_info(self.fresh(name), kind, list(shape)))
        return name

    def const(self, array: npt.ArrayLike, hint: str = "const") -> str:
        """An initializer with these elements."""
        name = self.fresh(hint)
        self.initializers.append(numpy_helper.from_array(np.array(array, order="C"), name))
        return name

    def ints(self, *values: int, hint: str = "ints") -> str:
        """A 1-D int64 initializer."""
        return self.const(np.array(values, np.int64), hint)

    def integer(self, value: int, hint: str = "integer") -> str:
        """An int64 scalar initializer."""
        return self.const(np.array(value, np.int64), hint)

    def number(self, value: float, hint: str = "number") -> str:
        """A scalar initializer of the model's floating type."""
        return self.const(np.array(value, self.dtype), hint)

    def normal(self, *shape: int, scale: float = 1.0, offset: float = 0.0) -> Array:
        """Random elements of the model's floating type."""
        return (self.rng.standard_normal(shape) * scale + offset).astype(self.dtype)

    def positive(self, *shape: int) -> Array:
        """Random elements between 0.5 and 1.5."""
        return self.rng.uniform(0.5, 1.5, shape).astype(self.dtype)

    def weight(self, *shape: int, fan: int, hint: str = "weight") -> str:
        """An initializer scaled by the number of terms that each output sums."""
        return self.const(self.normal(*shape, scale=float(np.sqrt(1.5 / fan))), hint)

    def bias(self, size: int, hint: str = "bias") -> str:
        """A 1-D initializer, not zero."""
        return self.const(self.normal(size, scale=0.3, offset=0.05), hint)

    # -- nodes -------------------------------------------------------------------------------------------------------

    def op(self, type_: str, *inputs: str, hint: str | None = None, domain: str = "", **attributes: Any) -> str:
        """Add a node with one output."""
        return self.ops(type_, *inputs, outputs=1, hint=hint, domain=domain, **attributes)[0]

    def ops(
        self, type_: str, *inputs: str, outputs: int, hint: str | None = None, domain: str = "", **attributes: Any
    ) -> list[str]:
        """Add a node with several outputs."""
        base = hint or type_.lower()
        made = [self.fresh(f"{base}_out") for _ in range(outputs)]
        node = helper.make_node(type_, list(inputs), made, name=self.fresh(f"node_{base}"), domain=domain, **attributes)
        self.nodes.append(node)
        return made

    def stated(self, x: str, *shape: Size) -> str:
        """State a tensor's shape in the file, for operators that shape inference does not know."""
        kind = helper.np_dtype_to_tensor_dtype(self.dtype)
        self.infos.append(helper.make_tensor_value_info(x, kind, list(shape)))
        return x

    def _axes_op(self, type_: str, x: str, axes: Sequence[int], as_input_since: int, **attributes: Any) -> str:
        if self.opset >= as_input_since:
            return self.op(type_, x, self.ints(*axes, hint="axes"), **attributes)
        return self.op(type_, x, axes=list(axes), **attributes)

    def unsqueeze(self, x: str, *axes: int) -> str:
        """Insert axes of size one."""
        return self._axes_op("Unsqueeze", x, axes, 13)

    def squeeze(self, x: str, *axes: int) -> str:
        """Drop axes of size one."""
        return self._axes_op("Squeeze", x, axes, 13)

    def mean(self, x: str, *axes: int, keepdims: int = 1) -> str:
        """ReduceMean."""
        return self._axes_op("ReduceMean", x, axes, 18, keepdims=keepdims)

    def sum(self, x: str, *axes: int, keepdims: int = 1) -> str:
        """ReduceSum."""
        return self._axes_op("ReduceSum", x, axes, 13, keepdims=keepdims)

    def reduce(self, type_: str, x: str, *axes: int, keepdims: int = 1) -> str:
        """Any other reduction (ReduceMax, ReduceL2, ...)."""
        return self._axes_op(type_, x, axes, 18, keepdims=keepdims)

    def split(self, x: str, sizes: Sequence[int], axis: int) -> list[str]:
        """Split into the given sizes."""
        if self.opset >= 13:
            return self.ops("Split", x, self.ints(*sizes, hint="split"), outputs=len(sizes), axis=axis)
        return self.ops("Split", x, outputs=len(sizes), axis=axis, split=list(sizes))

    def slice(self, x: str, start: int, end: int, axis: int, step: int = 1) -> str:
        """Slice one axis."""
        bounds = [self.ints(value, hint=hint) for value, hint in ((start, "starts"), (end, "ends"), (axis, "axes"))]
        return self.op("Slice", x, *bounds, self.ints(step, hint="steps"))

    def reshape(self, x: str, *shape: int) -> str:
        """Reshape to constants (0 copies, -1 is inferred)."""
        return self.op("Reshape", x, self.ints(*shape, hint="shape"))

    def transpose(self, x: str, *perm: int) -> str:
        """Transpose."""
        return self.op("Transpose", x, perm=list(perm))

    def size(self, x: str, axis: int) -> str:
        """The size of an axis as a 1-D tensor, as exporters compute it: Shape, Gather, Unsqueeze."""
        return self.unsqueeze(self.op("Gather", self.op("Shape", x), self.integer(axis), axis=0), 0)

    def reshape_to(self, x: str, *pieces: int | str) -> str:
        """Reshape to a Concat of computed sizes and constants."""
        parts = [self.ints(piece, hint="piece") if isinstance(piece, int) else piece for piece in pieces]
        return self.op("Reshape", x, self.op("Concat", *parts, axis=0))

    # -- layers ------------------------------------------------------------------------------------------------------

    def conv(
        self, x: str, c_in: int, c_out: int, k: int = 3, *, pad: int | None = None, bias: bool = True, group: int = 1,
        stride: int = 1, name: str = "conv",
    ) -> str:  # fmt: skip
        """A 2-D convolution; ``pad`` defaults to the one that keeps the size."""
        pad = k // 2 if pad is None else pad
        name = self.fresh(name)
        operands = [self.weight(c_out, c_in // group, k, k, fan=c_in // group * k * k, hint=f"{name}.weight")]
        if bias:
            operands.append(self.bias(c_out, hint=f"{name}.bias"))
        return self.op(
            "Conv", x, *operands, hint=name, kernel_shape=[k, k], pads=[pad] * 4, group=group, strides=[stride] * 2
        )

    def batch_norm(self, x: str, channels: int, name: str = "bn") -> str:
        """Batch normalization with running statistics."""
        name = self.fresh(name)
        return self.op(
            "BatchNormalization",
            x,
            self.const(self.positive(channels), f"{name}.weight"),
            self.bias(channels, f"{name}.bias"),
            self.const(self.normal(channels, scale=0.3), f"{name}.running_mean"),
            self.const(self.positive(channels), f"{name}.running_var"),
            hint=name,
            epsilon=1e-5,
        )

    def conv_bn_relu(self, x: str, c_in: int, c_out: int, k: int = 3, *, group: int = 1, name: str = "conv") -> str:
        """Convolution without bias, batch norm, ReLU."""
        return self.op("Relu", self.batch_norm(self.conv(x, c_in, c_out, k, bias=False, group=group, name=name), c_out))

    def linear(self, x: str, n_in: int, n_out: int, *, bias: bool = True, name: str = "fc") -> str:
        """Gemm with the weight stored [out, in], as torch has it; for 2-D inputs."""
        name = self.fresh(name)
        operands = [self.weight(n_out, n_in, fan=n_in, hint=f"{name}.weight")]
        if bias:
            operands.append(self.bias(n_out, hint=f"{name}.bias"))
        return self.op("Gemm", x, *operands, hint=name, transB=1)

    def dense(self, x: str, n_in: int, n_out: int, *, bias: bool = True, name: str = "dense") -> str:
        """MatMul with the weight stored [in, out], then Add; for inputs of any rank."""
        name = self.fresh(name)
        y = self.op("MatMul", x, self.weight(n_in, n_out, fan=n_in, hint=f"{name}.weight"), hint=name)
        return self.op("Add", y, self.bias(n_out, hint=f"{name}.bias"), hint=name) if bias else y

    def layer_norm(self, x: str, width: int, *, axis: int = -1, name: str = "norm") -> str:
        """LayerNormalization (opset 17 and later)."""
        name = self.fresh(name)
        gamma, beta = self.const(self.positive(width), f"{name}.weight"), self.bias(width, f"{name}.bias")
        return self.op("LayerNormalization", x, gamma, beta, hint=name, axis=axis, epsilon=1e-5)

    def rms_norm(self, x: str, width: int, *, name: str = "norm") -> str:
        """x / sqrt(mean(x^2) + eps) * gamma over the last axis, decomposed as exporters do."""
        name = self.fresh(name)
        square = self.op("Pow", x, self.number(2.0), hint=name)
        variance = self.op("Add", self.mean(square, -1), self.number(1e-6), hint=name)
        scale = self.op("Reciprocal", self.op("Sqrt", variance, hint=name), hint=name)
        normed = self.op("Mul", x, scale, hint=name)
        return self.op("Mul", normed, self.const(self.positive(width), f"{name}.weight"), hint=name)

    def silu(self, x: str) -> str:
        """x * sigmoid(x)."""
        return self.op("Mul", x, self.op("Sigmoid", x))

    # -- what comes out ----------------------------------------------------------------------------------------------

    def build(
        self, *outputs: str, listed: bool = False, shapes: Sequence[Sequence[Size]] | None = None
    ) -> onnx.ModelProto:
        """The checked model.

        Args:
            outputs: tensors that the model returns.
            shapes: their shapes, where shape inference cannot see them (behind functions and other domains).
            listed: list initializers among the graph inputs, as models of IR version 3 must.
        """
        imports = [helper.make_opsetid("", self.opset)]
        domains = {node.domain for node in self.nodes} | {function.domain for function in self.functions}
        imports += [helper.make_opsetid(domain, 1) for domain in sorted(domains - {""})]
        inputs = list(self.inputs)
        if listed:
            inputs += [helper.make_tensor_value_info(t.name, t.data_type, list(t.dims)) for t in self.initializers]
        # The element type of outputs must be stated; inference replaces what is guessed here, shapes included.
        results = [helper.make_tensor_value_info(name, onnx.TensorProto.UNDEFINED, None) for name in outputs]
        graph = helper.make_graph(self.nodes, self.name, inputs, results, self.initializers, value_info=self.infos)
        model = helper.make_model(
            graph, opset_imports=imports, functions=self.functions, producer_name="ozgraph-tests",
            ir_version=min(max(helper.find_min_ir_version_for(imports[:1]), 8 if self.functions else 4), 13),
        )  # fmt: skip
        for index, name in enumerate(outputs):
            if shapes is not None:
                kind = helper.np_dtype_to_tensor_dtype(self.dtype)
                model.graph.output[index].CopyFrom(helper.make_tensor_value_info(name, kind, list(shapes[index])))
            else:
                model.graph.output[index].type.CopyFrom(_inferred_type(model, name))
        onnx.checker.check_model(model, full_check=True)
        return model


def _inferred_type(model: onnx.ModelProto, name: str) -> onnx.TypeProto:
    """The type of a tensor, by shape inference on the model without that output."""
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    del bare.graph.output[:]
    inferred = shape_inference.infer_shapes(bare, strict_mode=True, data_prop=True)
    for info in inferred.graph.value_info:
        if info.name == name:
            kind: onnx.TypeProto = info.type
            return kind
    raise ValueError(f"shape inference found no type for {name!r}")

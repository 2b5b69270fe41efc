"""ONNX in: files, bytes, protobufs and onnx_ir models become a :class:`~ozgraph.graph.Graph`.

Importing this module imports onnx and onnx_ir; import it where a model is about to be read.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from ozgraph.collector import collector_paused
from ozgraph.errors import ModelError, UsageError
from ozgraph.frontends import dynamic, safety, sampling, sparse
from ozgraph.frontends.normal_form import normalise, translated
from ozgraph.frontends.shapes import Dim, InferenceError, Inferred, Skeleton
from ozgraph.graph import Array, Constant, Graph, Op, Value

Source = str | os.PathLike[str] | bytes | onnx.ModelProto | ir.Model

_VARIANTS = 3
_MOST_FILL_BYTES = 1 << 35
_MOST_ELEMENTS = 1 << 44


def elements(tensor: ir.TensorProtocol) -> Array:
    """The elements of a tensor; a view of the memory map for external data, unpacked where several share a byte."""
    array = tensor.numpy()
    if isinstance(tensor, ir.ExternalTensor) and tensor.dtype.bitwidth < 8:
        tensor.release()  # it would keep what it unpacked
    return array


@dataclass(frozen=True, slots=True)
class TensorConstant:
    """A weight that onnx_ir holds: a part of the protobuf, or a memory map of external data."""

    tensor: ir.TensorProtocol

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the axes."""
        return tuple(int(extent) for extent in self.tensor.shape.numpy())

    @property
    def nbytes(self) -> int:
        """Bytes of the elements."""
        return int(self.tensor.nbytes)

    def numpy(self) -> Array:
        """The elements; a view of the memory map for external data. Never write into it."""
        return elements(self.tensor)


@dataclass(frozen=True, slots=True)
class FillConstant:
    """A weight that a ConstantOfShape node fills with one value; nothing is allocated until :meth:`numpy`."""

    shape: tuple[int, ...]
    fill: Array

    @property
    def nbytes(self) -> int:
        """Bytes that :meth:`numpy` would announce (it returns a broadcast view, which takes none)."""
        count = int(self.fill.dtype.itemsize)
        for extent in self.shape:
            count *= extent
        return count

    def numpy(self) -> Array:
        """The elements, as a read-only broadcast of the one value."""
        return np.broadcast_to(self.fill.reshape(()), self.shape)


@dataclass(slots=True)
class OnnxOrigin:
    """What the ONNX backend needs to write the model again.

    Attributes:
        model: the model in normal form; never changed after loading.
        path: the file it came from, absolute; None for models from memory.
        nodes: operator -> node. ConstantOfShape nodes that became constants have no operator.
        values: value -> onnx_ir value.
        dims: input -> declared sizes, with names for dynamic axes.
        samples: valid input sizes; the first is what the graph's shapes are bound to, each of the others changes every
            dynamic size that the user did not fix.
        external: whether weights are kept in a file beside the model.
        files: every file that the model reads, absolute and without links.
    """

    model: ir.Model
    path: str | None
    nodes: dict[Op, ir.Node] = field(default_factory=dict)
    values: dict[Value, ir.Value] = field(default_factory=dict)
    dims: dict[str, tuple[int | str, ...]] = field(default_factory=dict)
    samples: tuple[sampling.Sample, ...] = ()
    external: bool = False
    files: frozenset[str] = frozenset()


@collector_paused()
def load(source: Source, *, shapes: Mapping[str, Sequence[int]] | None = None) -> Graph:
    """Read an ONNX model for analysis; neither ``source`` nor any file is changed, and no weight is read.

    Args:
        source: a path, the bytes of a file, an ``onnx.ModelProto`` or an ``onnx_ir.Model``. External data is found
            beside the path (or where the ``onnx_ir.Model`` says) and stays on disk, memory-mapped when read.
        shapes: input name -> sizes at which to bind its dynamic axes; inputs that are left out are guessed.

    Raises:
        ModelError: the model is not readable, inconsistent, unsafe, or newer than the installed onnxruntime.
        UsageError: ``shapes`` names an unknown input or does not fit its rank or static sizes.
    """
    model, path, where = _read(source)
    normalise(model, where)
    with translated(where, "reading its weights"):
        files = _check_weights(model, where)
    with translated(where, "analysing it"):
        skeleton = Skeleton(model)
        _check_nodes(skeleton, where)
        declared = sampling.signature(model, shapes or {})
        fixed = sampling.given(declared, shapes or {})
        _check_fills(skeleton, where)
        samples, inferred = _bind(skeleton, declared, fixed, where)
        varying = _variability(skeleton, declared, inferred)
        origin = OnnxOrigin(model, path, dims=dict(declared.dims), samples=samples)
        origin.files = frozenset(files | ({os.path.realpath(path)} if path else set()))
        origin.external = bool(files)
        return _build(origin, inferred[0], varying, skeleton, where)


def _variability(skeleton: Skeleton, declared: sampling.Signature, inferred: Sequence[Inferred]) -> dynamic.Variability:
    if not declared.keys and all(value.shape is not None for value in skeleton.model.graph.inputs):
        return dynamic.settled(inferred[0])
    inputs = {name: tuple(isinstance(dim, str) for dim in dims) for name, dims in declared.dims.items()}
    return dynamic.trace(skeleton, inputs, inferred[0], inferred[1:], _symbolic(skeleton, declared))


def sample_shapes(graph: Graph, variant: int) -> dict[str, tuple[int, ...]]:
    """Input sizes at which to run ``graph``: variant 0 is what it was analysed at, others change each dynamic size.

    Variants repeat after ``len(graph.origin.samples)``, which is 1 for a static model.
    """
    samples = graph.origin.samples
    return dict(samples[variant % len(samples)])


def _read(source: Source) -> tuple[ir.Model, str | None, str]:
    """A model that nobody else holds, its path if it has one, and what errors call it."""
    if isinstance(source, ir.Model):
        where = source.graph.name or "the model"
        safety.check_versions(dict(source.graph.opset_imports), source.ir_version, where)
        with translated(where, "copying it"):
            return source.clone(), None, where
    path = None
    if isinstance(source, bytes):
        proto, where = safety.parse(source, "the model (bytes)"), "the model (bytes)"
    elif isinstance(source, onnx.ModelProto):
        proto, where = source, source.graph.name or "the model"
    elif isinstance(source, (str, os.PathLike)):
        where = os.fspath(source)
        proto = safety.read_file(where)
        path = os.path.abspath(where)
    else:
        raise UsageError(f"cannot load a {type(source).__name__}; give a path, bytes, a ModelProto or an onnx_ir.Model")
    with translated(where, "checking it"):
        safety.check_proto(proto, where)
    with translated(where, "reading it"), warnings.catch_warnings():
        # What onnx_ir warns of (keys of external data that it does not know) is nothing that a user could act on.
        warnings.filterwarnings("ignore", category=UserWarning, module="onnx_ir")
        model = sparse.to_ir(proto, where)
    if path is not None:
        ir.external_data.set_base_dir(model.graph, os.path.dirname(path))
        for function in model.functions.values():
            ir.external_data.set_base_dir(function.graph, os.path.dirname(path))
    return model, path, where


def _tensors(model: ir.Model) -> Iterable[ir.TensorProtocol]:
    for graph in model.graphs():
        for value in graph.initializers.values():
            if value.const_value is not None:
                yield value.const_value
    for node in model.graph.all_nodes():
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.TENSOR:
                yield attribute.value
            elif attribute.type == ir.AttributeType.TENSORS:
                yield from attribute.value


def _check_weights(model: ir.Model, where: str) -> set[str]:
    """Check every tensor's sizes and external data; return the data files."""
    files: set[str] = set()
    for value in model.graph.initializers.values():
        if value.const_value is None:
            raise ModelError(f"{where}: initializer {value.name!r} has no contents; give it a tensor")
    for tensor in _tensors(model):
        extents = (extent if isinstance(extent, int) else -1 for extent in tensor.shape)
        safety.elements(extents, f"{where}: tensor {tensor.name!r}")
        if isinstance(tensor, ir.ExternalTensor):
            if not os.fspath(tensor.base_dir):
                raise ModelError(
                    f"{where}: tensor {tensor.name!r} keeps its data in {os.fspath(tensor.location)!r}, and a model "
                    "from memory has no folder to look in; load the model by its path"
                )
            safety.check_external(tensor, where)
            files.add(os.path.realpath(tensor.path))
    return files


def _check_nodes(skeleton: Skeleton, where: str) -> None:
    """Let onnx's checker look at every node and attribute, on the model without its weights."""
    proto = skeleton.bound({}, with_output_shapes=True)
    for info in (*proto.graph.input, *proto.graph.output):
        if info.type.HasField("tensor_type"):
            info.type.tensor_type.shape.SetInParent()  # the checker wants one, unknown is fine for us
    try:
        onnx.checker.check_model(proto)
    except onnx.checker.ValidationError as error:
        lines = [line for line in str(error).splitlines() if line.strip() and not line.startswith("==>")]
        problem = lines[0] if lines else "invalid"
        if "No Op registered" in problem:
            return  # an operator that onnx does not know freezes what it touches
        place = str(error).partition("==> Context:")[2].strip()
        context = f" ({place})" if place else ""
        raise ModelError(f"{where}: {problem.strip().rstrip('.')}{context}; export the model again") from None


def _fills(skeleton: Skeleton) -> Iterable[tuple[ir.Node, tuple[int, ...]]]:
    """ConstantOfShape nodes whose shape is a constant, with that shape."""
    for node in skeleton.model.graph:
        if node.op_type == "ConstantOfShape" and node.domain in ("", "ai.onnx") and node.inputs:
            operand = node.inputs[0]
            elements = skeleton.constants.get(operand.name or "") if operand is not None else None
            if elements is not None and elements.ndim == 1:
                yield node, tuple(int(extent) for extent in elements)


def _check_fills(skeleton: Skeleton, where: str) -> None:
    for node, shape in _fills(skeleton):
        what = f"{where}: ConstantOfShape node {node.name or node.outputs[0].name!r}"
        if safety.elements(shape, what) * 4 > _MOST_FILL_BYTES:
            raise ModelError(f"{what} would fill {list(shape)} elements; the file is damaged, export the model again")


def _bind(
    skeleton: Skeleton, declared: sampling.Signature, fixed: Mapping[str, int], where: str
) -> tuple[tuple[sampling.Sample, ...], list[Inferred]]:
    """Sample bindings that the model accepts, with what is known at each; the first is the analysis binding."""
    samples: list[sampling.Sample] = []
    inferred: list[Inferred] = []
    for variant in range(_VARIANTS if declared.keys else 1):
        problem = ""
        for sample in sampling.guesses(declared, fixed if variant == 0 else {}, _used(samples, declared)):
            try:
                known = skeleton.infer(sample)
                _check_sizes(known, where)
            except InferenceError as error:
                problem = problem or str(error)
                continue
            samples.append(sample)
            inferred.append(known)
            break
        if not samples:
            if set(declared.keys) - fixed.keys() and not _about_types(problem):
                raise sampling.no_guess(declared, where, problem)
            advice = (
                "give other sizes with --shape" if fixed and not _about_types(problem) else "export the model again"
            )
            raise ModelError(f"{where}: its operators do not fit together ({problem}); {advice}")
    return tuple(samples), inferred


def _about_types(problem: str) -> bool:
    """Whether inference failed on element types, which no other sizes would mend."""
    return any(words in problem for words in ("inconsistent type", "TypeInferenceError", "elem type"))


def _used(samples: Sequence[sampling.Sample], declared: sampling.Signature) -> dict[str, frozenset[int]]:
    """Sizes that earlier samples gave to each dynamic key."""
    used: dict[str, set[int]] = {key: set() for key in declared.keys}
    for sample in samples:
        for name, dims in declared.dims.items():
            for dim, extent in zip(dims, sample[name], strict=True):
                if isinstance(dim, str):
                    used[dim].add(extent)
    return {key: frozenset(sizes) for key, sizes in used.items()}


def _check_sizes(known: Inferred, where: str) -> None:
    for name in known.shapes:
        shape = known.static_shape(name)
        if shape is not None and any(extent < 0 for extent in shape):
            raise InferenceError(f"{name!r} would have the shape {list(shape)}")
        count = 1
        for extent in shape or ():
            count *= max(extent, 1)
        if count > _MOST_ELEMENTS:
            raise ModelError(f"{where}: value {name!r} would hold {count:,} elements; the file is damaged")


def _symbolic(skeleton: Skeleton, declared: sampling.Signature) -> Inferred | None:
    sizes: dict[str, tuple[Dim, ...]] = {name: tuple(dims) for name, dims in declared.dims.items()}
    try:
        return skeleton.infer(sizes, walk=False)
    except InferenceError:
        return None


def _numpy_dtype(code: int | None) -> np.dtype[Any] | None:
    if code is None or code in (ir.DataType.UNDEFINED, ir.DataType.STRING):
        return None
    try:
        return np.dtype(ir.DataType(code).numpy())
    except (TypeError, ValueError):
        return None


def _build(
    origin: OnnxOrigin, inferred: Inferred, varying: dynamic.Variability, skeleton: Skeleton, where: str
) -> Graph:
    """The graph of a normalised model from what inference found."""
    model = origin.model
    values: dict[str, Value] = {}
    fills = dict(_fills(skeleton))

    def add(source: ir.Value, constant: Constant | None = None) -> Value:
        name = source.name or ""
        shape = constant.shape if constant is not None else inferred.static_shape(name)
        code = inferred.dtypes.get(name)
        if code is None and source.dtype is not None and isinstance(source.type, ir.TensorType):
            code = source.dtype.value
        value = Value(
            name,
            shape,
            _numpy_dtype(code),
            varying.axes.get(name, (False,) * len(shape or ())) if shape is not None else (),
            constant,
            varying.integers.get(name),
        )
        if name in values:
            raise ModelError(f"{where}: two values are named {name!r}; rename one")
        values[name] = value
        origin.values[value] = source
        return value

    inputs = tuple(add(source) for source in model.graph.inputs)
    for source in model.graph.initializers.values():
        assert source.const_value is not None
        add(source, TensorConstant(source.const_value))
    captures = dynamic.captures(model.graph)
    ops: list[Op] = []
    names: set[str] = set()
    for node in model.graph:
        constant = _constant_of(node, fills)
        if constant is not None:
            add(node.outputs[0], constant)
            continue
        outputs = tuple(add(source) if source.name else None for source in node.outputs)
        operands = tuple(_lookup(values, source, node, where) if source is not None else None for source in node.inputs)
        op = Op(
            _unique(node.name or (node.outputs[0].name if node.outputs else "") or node.op_type, names),
            node.op_type,
            "" if node.domain == "ai.onnx" else node.domain,
            skeleton.version_of(node.domain),
            operands,
            outputs,
            {name: _plain(attribute) for name, attribute in node.attributes.items()},
            tuple(values[name] for name in captures.get(node, ())),
        )
        for position, value in enumerate(operands):
            if value is not None:
                value.uses.append((op, position))
        for value in op.captures:
            value.uses.append((op, -1))
        for result in outputs:
            if result is not None:
                result.producer = op
        origin.nodes[op] = node
        ops.append(op)
    results = tuple(_lookup(values, source, None, where) for source in model.graph.outputs)
    name = os.path.basename(origin.path) if origin.path else (model.graph.name or "model")
    return Graph(name, tuple(ops), values, inputs, results, origin)


def _lookup(values: Mapping[str, Value], source: ir.Value, node: ir.Node | None, where: str) -> Value:
    value = values.get(source.name or "")
    if value is None:
        reader = f"node {node.name!r} ({node.op_type})" if node is not None else "the output list"
        raise ModelError(f"{where}: {reader} reads {source.name!r}, which nothing computes; export the model again")
    return value


def _constant_of(node: ir.Node, fills: Mapping[ir.Node, tuple[int, ...]]) -> Constant | None:
    """The weight that ``node`` makes up from nothing: a float ConstantOfShape, or a Constant that is an output."""
    if node.op_type == "Constant" and node.domain in ("", "ai.onnx") and "value" in node.attributes:
        return TensorConstant(node.attributes["value"].value)
    if node not in fills:
        return None
    attribute = node.attributes.get("value")
    fill = attribute.value.numpy() if attribute is not None else np.zeros(1, dtype=np.float32)
    if fill.dtype.kind != "f" and "float" not in fill.dtype.name:
        return None  # integers are shape arithmetic, not weights
    return FillConstant(fills[node], fill)


def _unique(name: str, taken: set[str]) -> str:
    candidate, count = name, 1
    while candidate in taken:
        count += 1
        candidate = f"{name}_{count}"
    taken.add(candidate)
    return candidate


def _plain(attribute: ir.Attr) -> Any:
    """An attribute as plain Python: numbers, strings, lists of them, numpy arrays; ``"<graph>"`` for bodies."""
    kind = attribute.type
    if kind in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS):
        return "<graph>"
    if kind == ir.AttributeType.TENSOR:
        return attribute.value.numpy()
    if kind == ir.AttributeType.TENSORS:
        return [tensor.numpy() for tensor in attribute.value]
    if kind in (ir.AttributeType.INTS, ir.AttributeType.FLOATS, ir.AttributeType.STRINGS):
        return list(attribute.value)
    return attribute.value

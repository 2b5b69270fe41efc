"""Shape inference on a model without its weights.

Most models are made of operators whose results take no more than a glance, see :mod:`~ozgraph.frontends.plain_shapes`;
onnx looks at the few others one by one. Where that does not settle every value, or says that something is wrong, one
run of onnx's own inference sees the whole model. What it leaves open (long shape arithmetic) is walked forward node by
node, with the arithmetic evaluated. Weights take part as typed inputs; only small tensors keep their contents.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property, lru_cache

import onnx
import onnx_ir as ir

from ozgraph.frontends import arithmetic, body_shapes, contrib_shapes, dictionaries, evaluated, plain_shapes
from ozgraph.frontends.control_flow import Control, every_node, followed
from ozgraph.frontends.evaluated import INTEGERS, MOST_FLOATS
from ozgraph.frontends.hollow import without_weights
from ozgraph.frontends.known import Dim, Inferred
from ozgraph.frontends.normal_form import default_opset, root_cause
from ozgraph.frontends.tensors import elements
from ozgraph.graph import Array

Sizes = Mapping[str, tuple[Dim, ...]]


class InferenceError(Exception):
    """The model does not fit together at the sizes it was tried with."""


_SHAPE_KEEPING = frozenset({"GroupNormalization", "MeanVarianceNormalization"})
"""Operators of the default domain that onnx cannot infer: it knows them as functions only. They keep the shape."""

_UNTYPED = "expected to have type but instead is null"


class Skeleton:
    """A model's nodes and the types of its weights, ready to be inferred at any input sizes.

    Attributes:
        model: in normal form.
        version: of the default domain.
        controls: the nodes whose bodies are followed.
        weights: name -> element type and sizes of every initializer.
        integers: contents of the small tensors of integers.
    """

    def __init__(self, model: ir.Model) -> None:
        graph = model.graph
        self.model = model
        self.version = default_opset(model)
        self.controls = followed(graph, self.version)
        self._opsets = [onnx.helper.make_opsetid(domain, version) for domain, version in graph.opset_imports.items()]
        self.weights: dict[str, tuple[int, tuple[int, ...]]] = {}
        self._small: dict[str, ir.TensorProtocol] = {}
        self.integers: dict[str, Array] = {}
        for value in graph.initializers.values():
            self._add_initializer(value)

    def _add_initializer(self, value: ir.Value) -> None:
        tensor = value.const_value
        assert tensor is not None and value.name is not None
        dtype, sizes = tensor.dtype, tuple(tensor.shape.numpy())
        self.weights[value.name] = dtype.value, sizes
        if _may_decide(dtype, sizes) and dtype != ir.DataType.STRING and dtype.bitwidth >= 8:
            self._small[value.name] = tensor
            if dtype in INTEGERS:
                self.integers[value.name] = elements(tensor)

    @cached_property
    def constants(self) -> dict[str, Array]:
        """Contents of the small tensors."""
        return {name: elements(tensor) for name, tensor in self._small.items()}

    @cached_property
    def _template(self) -> onnx.ModelProto:
        """The model without its weights, and without inputs."""
        graph = self.model.graph
        template = onnx.ModelProto(ir_version=self.model.ir_version)
        template.opset_import.extend(self._opsets)
        proto = template.graph
        proto.name = graph.name or "graph"
        for name, (dtype, sizes) in self.weights.items():
            tensor = self._small.get(name)
            if tensor is None:
                _add_input(proto, name, dtype, sizes)
                continue
            kept = proto.initializer.add()
            kept.name = name
            kept.data_type = dtype
            kept.dims.extend(sizes)
            kept.raw_data = tensor.tobytes()
        names: set[str | None] = set()

        def declare(tensor: ir.TensorProtocol) -> str:
            """Add a weight of a body to the inputs, under a name that nothing else has."""
            if not names:
                names.update(value.name for part in self.model.graphs() for value in _values(part))
            name, count = tensor.name or "weight", 0
            while name in names:
                count += 1
                name = f"{tensor.name}_{count}"
            names.add(name)
            _add_input(proto, name, tensor.dtype.value, tuple(tensor.shape.numpy()))
            return name

        for node in graph:
            proto.node.append(without_weights(node, _is_small, declare))
        for value in graph.outputs:
            ir.serde.serialize_value_into(proto.output.add(), value)
        dictionaries.shown(template)
        return template

    @property
    def nodes(self) -> Iterator[ir.Node]:
        """The nodes of the model and of the bodies that are followed."""
        return every_node(self.model.graph, self.controls)

    def bound(self, sizes: Sizes, *, with_output_shapes: bool = False) -> onnx.ModelProto:
        """The weightless model with its inputs at ``sizes``."""
        proto = onnx.ModelProto()
        proto.CopyFrom(self._template)
        if not with_output_shapes:  # declared shapes may be stale, and clash with the bound sizes
            for output in proto.graph.output:
                if output.type.HasField("tensor_type"):
                    output.type.tensor_type.ClearField("shape")
        for value in self.model.graph.inputs:
            assert value.name is not None
            if value.name in sizes and value.dtype is not None:
                _add_input(proto.graph, value.name, value.dtype.value, sizes[value.name])
            else:
                ir.serde.serialize_value_into(proto.graph.input.add(), value)
                dictionaries.shown(proto)
        return proto

    def infer(self, sizes: Sizes, *, walk: bool = True) -> Inferred:
        """Types and shapes of every value with the inputs at ``sizes``.

        Args:
            sizes: input name -> sizes; names and None stand for sizes left open.
            walk: also evaluate shape arithmetic and resolve what whole-model inference leaves open.

        Raises:
            InferenceError: operators reject the sizes.
        """
        if walk:
            settled = _settled(self, sizes)
            if settled is not None:
                return settled
        proto = self.bound(sizes)
        try:
            inferred = onnx.shape_inference.infer_shapes(proto, check_type=True, data_prop=True, strict_mode=True)
        except Exception as first:  # InferenceError, but also plain errors from inside operators
            try:  # data propagation has rejected valid arithmetic before
                inferred = onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True)
            except Exception:
                if _UNTYPED not in str(first) or not any(node.op_type in _SHAPE_KEEPING for node in proto.graph.node):
                    raise InferenceError(root_cause(first)) from None
                inferred = onnx.shape_inference.infer_shapes(proto)  # the walk fills in what follows
        known = Inferred()
        _collect(inferred.graph.input, known)
        _collect(inferred.graph.value_info, known)
        _collect(inferred.graph.output, known)
        for name, array in self.constants.items():
            known.shapes[name] = array.shape
        for tensor in proto.graph.initializer:
            known.dtypes[tensor.name] = tensor.data_type
        if walk:
            _walk(self, sizes, known)
        return known

    def infer_node(
        self, node: ir.Node, shapes: Mapping[str, tuple[Dim, ...]], dtypes: Mapping[str, int], data: Mapping[str, Array]
    ) -> Inferred | None:
        """Outputs of one node from its operands' types; None when its operator is unknown or rejects them."""
        schema = _schema(node.op_type, self.version_of(node.domain), node.domain)
        if schema is None:
            return None
        types: dict[str, onnx.TypeProto] = {}
        contents: dict[str, onnx.TensorProto] = {}
        for value in node.inputs:
            if value is None or value.name is None:
                continue
            dtype = dtypes.get(value.name)
            if dtype is None:
                return None
            types[value.name] = _type(dtype, shapes.get(value.name))
            if value.name in data:
                contents[value.name] = arithmetic.tensor(value.name, data[value.name])
        try:
            outputs = onnx.shape_inference.infer_node_outputs(
                schema, without_weights(node, _is_small), types, contents or None, opset_imports=self._opsets
            )
        except Exception:  # the operator rejects the operands: nothing is known
            return None
        known = Inferred()
        for name, result in outputs.items():
            _record(name, result, known)
        return known

    def is_small(self, name: str) -> bool:
        """Whether the contents of a constant are kept."""
        return name in self._small

    def contents(self, node: ir.Node, known: Inferred) -> dict[str, Array]:
        """The operands of a node whose elements are known."""
        return {
            name: elements
            for name in (value.name or "" for value in node.inputs if value is not None)
            if (elements := self.elements_of(name, known)) is not None
        }

    def elements_of(self, name: str, known: Inferred) -> Array | None:
        """The elements of a value, if they are known: shape arithmetic, or made of small constants."""
        for found in (known.elements, known.floats, self.constants):
            if name in found:
                return found[name]
        return None

    def version_of(self, domain: str) -> int:
        """Opset version in force for ``domain``."""
        if domain in ("", "ai.onnx"):
            return self.version
        return self.model.graph.opset_imports.get(domain, 1)


def _is_small(tensor: ir.TensorProtocol) -> bool:
    """Whether the elements of a tensor may decide about shapes."""
    return _may_decide(tensor.dtype, tensor.shape.numpy())


def _may_decide(dtype: ir.DataType, sizes: Iterable[int]) -> bool:
    return math.prod(sizes) <= (arithmetic.MOST_ELEMENTS if dtype in INTEGERS else MOST_FLOATS)


def _values(graph: ir.Graph) -> Iterator[ir.Value]:
    yield from graph.inputs
    yield from graph.initializers.values()
    for node in graph:
        yield from node.outputs


@lru_cache(maxsize=1024)
def _schema(operator: str, version: int, domain: str) -> onnx.defs.OpSchema | None:
    try:
        return onnx.defs.get_schema(operator, version, "" if domain == "ai.onnx" else domain)
    except Exception:  # SchemaError: an operator that onnx does not know
        return None


def _type(dtype: int, shape: tuple[Dim, ...] | None) -> onnx.TypeProto:
    result = onnx.TypeProto()
    result.tensor_type.elem_type = dtype
    if shape is not None:
        result.tensor_type.shape.SetInParent()
        for extent in shape:
            dim = result.tensor_type.shape.dim.add()
            if isinstance(extent, str):
                dim.dim_param = extent
            elif extent is not None:
                dim.dim_value = extent
    return result


def _add_input(proto: onnx.GraphProto, name: str, dtype: int, shape: tuple[Dim, ...]) -> None:
    info = proto.input.add()
    info.name = name
    info.type.CopyFrom(_type(dtype, shape))


def _collect(infos: Iterable[onnx.ValueInfoProto], known: Inferred) -> None:
    for info in infos:
        _record(info.name, info.type, known)


def _record(name: str, kind: onnx.TypeProto, known: Inferred) -> None:
    if not kind.HasField("tensor_type"):
        return
    tensor = kind.tensor_type
    if tensor.elem_type:
        known.dtypes[name] = tensor.elem_type
    if tensor.HasField("shape"):
        known.shapes[name] = tuple(
            dim.dim_value if dim.HasField("dim_value") else (dim.dim_param or None) for dim in tensor.shape.dim
        )


def _settled(skeleton: Skeleton, sizes: Sizes) -> Inferred | None:
    """What is known of a model whose values all have one shape; None where there is anything else to say of one."""
    graph = skeleton.model.graph
    if skeleton.controls:
        return None  # what is in bodies takes more than one look
    most = 1 + len(graph) // _FEW_OTHERS
    known = Inferred()
    for value in graph.inputs:
        name, dtype = value.name or "", value.dtype
        shape = sizes.get(name)
        if shape is None or dtype is None or not all(isinstance(extent, int) for extent in shape):
            return None
        known.shapes[name], known.dtypes[name] = tuple(shape), dtype.value
    for name, (code, extents) in skeleton.weights.items():
        known.shapes[name], known.dtypes[name] = extents, code
    known.elements.update(skeleton.integers)
    computed: set[str] = set()
    for node in graph:
        result = (
            plain_shapes.plain(node, skeleton.version, known.shapes, known.dtypes, known.elements)
            if node.domain in ("", "ai.onnx")
            else None
        )
        if result is not None:
            name = node.outputs[0].name or ""
            known.shapes[name], known.dtypes[name] = result
            first = node.inputs[0].name or "" if node.inputs[0] is not None else ""
            if first not in known.elements and first not in known.floats and not skeleton.is_small(first):
                continue  # no arithmetic on sizes
        else:
            most -= 1
            if most < 0 or not _infer_other(skeleton, node, known):
                return None
        evaluated.note(node, known, computed, skeleton.elements_of, skeleton.version)
    for value in graph.outputs:
        if value.dtype is not None and known.dtypes.get(value.name or "") != value.dtype.value:
            return None
    return known


_FEW_OTHERS = 8
"""Where more than one in so many operators is not plain, one run of onnx on the whole model takes less time."""


def _infer_other(skeleton: Skeleton, node: ir.Node, known: Inferred) -> bool:
    """Let onnx infer one node; whether that says all there is to say."""
    found = skeleton.infer_node(node, known.shapes, known.dtypes, skeleton.contents(node, known))
    if found is None:
        return False
    for value in node.outputs:
        name = value.name or ""
        if not name:
            continue
        shape, dtype = found.static_shape(name), found.dtypes.get(name)
        if shape is None or dtype is None or known.shapes.get(name, shape) != shape:
            return False
        known.shapes[name], known.dtypes[name] = shape, dtype
    return True


def _walk(skeleton: Skeleton, sizes: Sizes, known: Inferred) -> None:
    """Evaluate shape arithmetic and resolve open shapes, in topological order."""
    computed: set[str] = set()
    names = {
        str(dim.value): extent
        for value in skeleton.model.graph.inputs
        if value.name in sizes and value.shape is not None
        for dim, extent in zip(value.shape, sizes[value.name or ""], strict=True)
        if isinstance(dim, ir.SymbolicDim) and dim.value is not None and isinstance(extent, int)
    }
    known.elements.update(skeleton.integers)
    _walk_nodes(skeleton, skeleton.model.graph, names, known, computed)


def _walk_nodes(
    skeleton: Skeleton, nodes: Iterable[ir.Node], names: Mapping[str, int], known: Inferred, computed: set[str]
) -> None:
    for node in nodes:
        control = skeleton.controls.get(node)
        if control is not None:
            _walk_bodies(skeleton, control, names, known, computed)
            continue
        outputs = [value for value in node.outputs if value.name]
        if any(value.name not in known.dtypes for value in outputs):
            # In a body, nothing has been inferred yet, and what is arithmetic shows in its type.
            _infer_results(skeleton, node, outputs, names, known)
        evaluated.note(node, known, computed, skeleton.elements_of, skeleton.version)
        if not all(known.complete(value.name or "") for value in outputs):
            _infer_results(skeleton, node, outputs, names, known)


def _infer_results(
    skeleton: Skeleton, node: ir.Node, outputs: Iterable[ir.Value], names: Mapping[str, int], known: Inferred
) -> None:
    """Record what is known of the results of one node, where that is not known yet."""
    found = skeleton.infer_node(node, known.shapes, known.dtypes, skeleton.contents(node, known))
    for value in outputs:
        assert value.name is not None
        if found is not None and value.name in found.dtypes:
            known.dtypes.setdefault(value.name, found.dtypes[value.name])
        if known.complete(value.name):
            continue
        if found is not None and value.name in found.shapes:
            known.shapes[value.name] = found.shapes[value.name]
        if not known.complete(value.name) and node.op_type in _SHAPE_KEEPING:
            source = node.inputs[0]
            if source is not None and known.complete(source.name or ""):
                known.shapes[value.name] = known.shapes[source.name or ""]
                known.dtypes.setdefault(value.name, known.dtypes[source.name or ""])
        if not known.complete(value.name):
            _use_declared(value, names, known)
    if node.domain in contrib_shapes.DOMAINS:
        contrib_shapes.complete(node, known.shapes, known.dtypes)


def _walk_bodies(
    skeleton: Skeleton, control: Control, names: Mapping[str, int], known: Inferred, computed: set[str]
) -> None:
    def walk(body: Iterable[ir.Node]) -> None:
        _walk_nodes(skeleton, body, names, known, computed)

    body_shapes.infer(control, skeleton.controls, known, computed, walk)


def _use_declared(value: ir.Value, names: Mapping[str, int], known: Inferred) -> None:
    """Fall back on the shape that the file declares: all there is behind an operator that onnx does not know."""
    assert value.name is not None
    if isinstance(value.type, ir.TensorType) and value.dtype is not None and value.dtype != ir.DataType.UNDEFINED:
        known.dtypes.setdefault(value.name, value.dtype.value)
        if value.shape is not None:
            known.shapes[value.name] = tuple(
                extent if isinstance(extent, int) else names.get(str(extent.value)) for extent in value.shape
            )

"""ONNX in: files, bytes, protobufs and onnx_ir models become a :class:`~ozgraph.graph.Graph`.

Importing this module imports onnx and onnx_ir; import it where a model is about to be read.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Mapping, Sequence

import onnx
import onnx_ir as ir

from ozgraph.collector import collector_paused
from ozgraph.errors import ModelError, UsageError
from ozgraph.frontends import computed_weights, dynamic, dynamic_bodies, safety, sampling, shared_fills, sparse
from ozgraph.frontends.building import build, fills
from ozgraph.frontends.known import Dim, Inferred, Variability
from ozgraph.frontends.layer_norm import Ranks, fuse_layer_norms
from ozgraph.frontends.normal_form import normalise, translated
from ozgraph.frontends.origin import FillConstant, OnnxOrigin, TensorConstant
from ozgraph.frontends.settling import settle, uses_bodies_or_sequences
from ozgraph.frontends.shapes import InferenceError, Skeleton
from ozgraph.graph import Graph

Source = str | os.PathLike[str] | bytes | onnx.ModelProto | ir.Model

_VARIANTS = 3
_ROUNDS = 8
"""How often what is settled before running is looked for: taking one thing out of the way may settle another."""

_MOST_FILL_BYTES = 1 << 35
_MOST_ELEMENTS = 1 << 44


@collector_paused()
def load(source: Source, *, shapes: Mapping[str, Sequence[int]] | None = None) -> Graph:
    """Read an ONNX model for analysis; neither ``source`` nor any file is changed, and no large weight is read.

    Args:
        source: a path, the bytes of a file, an ``onnx.ModelProto`` or an ``onnx_ir.Model``. External data is found
            beside the path (or where the ``onnx_ir.Model`` says) and stays on disk, memory-mapped when read.
        shapes: input name -> sizes at which to bind its dynamic axes; inputs that are left out are guessed.

    Raises:
        ModelError: the model is not readable, inconsistent, unsafe, or newer than the installed onnx.
        UsageError: ``shapes`` names an unknown input or does not fit its rank or static sizes.
    """
    model, path, where = _read(source)
    with translated(where, "copying it"):
        unchanged = model.clone() if uses_bodies_or_sequences(model) else None
    normalise(model, where)
    with translated(where, "recognising its layer norms"):
        fuse_layer_norms(model, Ranks(model))
    with translated(where, "reading its weights"):
        files = _check_weights(model, where)
        computed = computed_weights.trees(model.graph)
        if computed:
            unchanged = unchanged or model.clone()
            computed_weights.fold(model, computed)
        parted = shared_fills.part(model)
    with translated(where, "analysing it"):
        skeleton = Skeleton(model)
        _check_nodes(skeleton, where)
        _check_fills(skeleton, where)
        declared = sampling.signature(model, shapes or {})
        fixed = sampling.given(declared, shapes or {})
        samples, inferred = _bind(skeleton, declared, fixed, where)
        varying = _variability(skeleton, declared, inferred)
        for _ in range(_ROUNDS):
            if not settle(skeleton, inferred[0], varying):
                break
            skeleton = Skeleton(model)
            samples, inferred = _bind(skeleton, declared, fixed, where)
            varying = _variability(skeleton, declared, inferred)
        origin = OnnxOrigin(model, path, dims=dict(declared.dims), samples=samples)
        origin.files = frozenset(files | ({os.path.realpath(path)} if path else set()))
        origin.external = bool(files)
        origin.parted = parted
        origin.source = unchanged
        return build(origin, inferred[0], varying, skeleton, where)


def _variability(skeleton: Skeleton, declared: sampling.Signature, inferred: Sequence[Inferred]) -> Variability:
    static = not declared.keys and all(value.shape is not None for value in skeleton.model.graph.inputs)
    if static and not dynamic_bodies.stacks_uncounted(skeleton.controls.values(), inferred[0]):
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


def _check_fills(skeleton: Skeleton, where: str) -> None:
    for node, shape in fills(skeleton):
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


__all__ = ["FillConstant", "OnnxOrigin", "Source", "TensorConstant", "load", "sample_shapes"]

"""What a model file must satisfy before anything trusts it.

Every check reads sizes before contents: a few bytes that announce a petabyte are refused without allocating one. Each
failure is a :class:`~ozgraph.errors.ModelError` that says what was found, where, and what to do next.
"""

from __future__ import annotations

import math
import os
import re
import stat
from collections.abc import Iterable, Iterator

import onnx
import onnx_ir as ir

from ozgraph.errors import ModelError

OLDEST_OPSET = 7
LARGEST_PROTOBUF = (1 << 31) - 1
MOST_ELEMENTS = 1 << 40
"""No tensor of a model that anyone runs has more elements; more is a broken or hostile file."""


def read_file(path: str) -> onnx.ModelProto:
    """The protobuf at ``path``, external data left on disk.

    Raises:
        ModelError: nothing to read there, or not an ONNX model.
    """
    check_file(path)
    try:
        with open(path, "rb") as stream:
            content = stream.read()
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror}); check its permissions") from None
    return parse(content, path)


def check_file(path: str) -> None:
    """Make sure that a model file is there and can be one.

    Raises:
        ModelError: nothing to read there.
    """
    try:
        status = os.stat(path)
    except OSError as error:
        raise ModelError(f"{path}: cannot be opened ({error.strerror}); give the path of an .onnx file") from None
    if stat.S_ISDIR(status.st_mode):
        raise ModelError(f"{path}: is a folder; give the path of the .onnx file inside it")
    if not stat.S_ISREG(status.st_mode):
        raise ModelError(f"{path}: is not a regular file; give the path of an .onnx file")
    if status.st_size > LARGEST_PROTOBUF:
        raise ModelError(
            f"{path}: holds {status.st_size:,} bytes, over protobuf's limit of 2 GiB; save its weights as external data"
        )


def parse(content: bytes, where: str) -> onnx.ModelProto:
    """The protobuf in ``content``; ``where`` names it in errors."""
    if not content:
        raise ModelError(f"{where}: is empty; export or download the model again")
    try:
        proto: onnx.ModelProto = onnx.ModelProto.FromString(content)
    except Exception:  # protobuf's DecodeError differs between its implementations
        raise ModelError(
            f"{where}: is not an ONNX model, or is cut short; export or download it again, as .onnx"
        ) from None
    if not proto.HasField("graph") or not proto.ir_version:
        raise ModelError(f"{where}: is not an ONNX model (it holds no graph); give an .onnx file")
    return proto


def check_versions(opsets: dict[str, int], ir_version: int, where: str) -> None:
    """Refuse stamps that no release ever had, and those that the installed onnx knows nothing of.

    What the installed onnxruntime runs is asked only where a model is to be run:
    see :func:`ozgraph.numerics.sessions.check_runs`.
    """
    opset = opsets.get("", opsets.get("ai.onnx"))
    if ir_version < 1 or ir_version > 1000:
        raise ModelError(f"{where}: claims IR version {ir_version}, which does not exist; export the model again")
    if opset is None and not opsets:
        raise ModelError(f"{where}: imports no operator set; export the model again")
    if opset is not None and opset < OLDEST_OPSET:
        raise ModelError(
            f"{where}: uses opset {opset}, ozgraph reads {OLDEST_OPSET} and newer; "
            "convert it with onnx.version_converter.convert_version"
        )
    if opset is not None and opset > 1000:
        raise ModelError(f"{where}: claims opset {opset}, which does not exist; export the model again")
    for what, found, newest in (
        ("opset", opset or 0, onnx.defs.onnx_opset_version()),
        ("IR version", ir_version, int(onnx.IR_VERSION)),
    ):
        if found > newest:
            raise ModelError(
                f"{where}: uses {what} {found}, and the installed onnx {onnx.__version__} knows none newer than "
                f"{newest}; upgrade onnx or export with an older version"
            )


def elements(dims: Iterable[int], what: str) -> int:
    """Product of the sizes in ``dims``, refused when negative or absurd; ``what`` names the tensor."""
    count = 1
    empty = False
    for extent in dims:
        if extent < 0:
            raise ModelError(f"{what} has the negative size {extent}; the file is damaged, export the model again")
        empty = empty or extent == 0
        count *= max(extent, 1)
        if count > MOST_ELEMENTS:
            raise ModelError(f"{what} claims more than 2**40 elements; the file is damaged, export the model again")
    return 0 if empty else count


_FIELD_OF = {
    **dict.fromkeys((1, 14), "float_data"),
    **dict.fromkeys((11, 15), "double_data"),
    **dict.fromkeys((12, 13), "uint64_data"),
    7: "int64_data",
    8: "string_data",
}
_COMPLEX = (14, 15)
_SPARSE = (onnx.AttributeProto.SPARSE_TENSOR, onnx.AttributeProto.SPARSE_TENSORS)


def check_tensor(tensor: onnx.TensorProto, where: str) -> None:
    """Refuse a tensor whose data do not fit its type and dims."""
    what = f"{where}: tensor {tensor.name!r}"
    try:
        dtype = ir.DataType(tensor.data_type)
    except ValueError:
        dtype = ir.DataType.UNDEFINED
    if dtype == ir.DataType.UNDEFINED:
        raise ModelError(f"{what} has the unknown element type {tensor.data_type}; export the model again")
    count = elements(tensor.dims, what)
    if tensor.HasField("segment"):
        raise ModelError(f"{what} is stored in segments, which nothing reads; export the model again")
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        for entry in tensor.external_data:
            if entry.key in ("offset", "length") and not entry.value.isdecimal():
                raise ModelError(
                    f"{what} gives its external data the {entry.key} {entry.value!r}; "
                    "the file is damaged, export the model again"
                )
        return
    if dtype == ir.DataType.STRING:
        found, expected, unit = len(tensor.string_data), count, "strings"
    elif tensor.HasField("raw_data"):
        found, expected, unit = len(tensor.raw_data), math.ceil(dtype.bitwidth * count / 8), "bytes"
    else:
        field = _FIELD_OF.get(tensor.data_type, "int32_data")
        expected = count * 2 if tensor.data_type in _COMPLEX else count
        if dtype.bitwidth < 8 and field == "int32_data" and len(getattr(tensor, field)) != expected:
            expected = math.ceil(dtype.bitwidth * count / 8)
        found, unit = len(getattr(tensor, field)), "elements"
    if found != expected:
        raise ModelError(
            f"{what} of shape {list(tensor.dims)} needs {expected:,} {unit} and holds {found:,}; "
            "the file is damaged, export the model again"
        )


def check_external(tensor: ir.ExternalTensor, where: str) -> None:
    """Refuse external data that is missing, too short, or not inside the model's own folder."""
    location = os.fspath(tensor.location)
    what = f"{where}: tensor {tensor.name!r}"
    count = elements((extent if isinstance(extent, int) else -1 for extent in tensor.shape), what)
    needed = math.ceil(tensor.dtype.bitwidth * count / 8)
    if not location:
        raise ModelError(f"{what} names no file for its external data; export the model again")
    parts = re.split(r"[/\\]", location)
    if os.path.isabs(location) or parts[0] == "" or re.match(r"[A-Za-z]:", location):
        raise ModelError(
            f"{what} keeps its data at the absolute path {location!r}; move the file beside the model and save it again"
        )
    if ".." in parts:
        raise ModelError(
            f"{what} keeps its data outside the model's folder ({location!r}); move the file there and save it again"
        )
    folder = os.path.realpath(os.fspath(tensor.base_dir))
    path = os.path.realpath(os.path.join(folder, location))
    if os.path.commonpath([folder, path]) != folder:
        raise ModelError(
            f"{what} keeps its data behind a link that leaves the model's folder ({location!r}); "
            "replace the link with a copy of the file"
        )
    try:
        status = os.stat(path)
    except OSError:
        raise ModelError(
            f"{what} keeps its data in {location!r}, which is missing; put the file beside the model"
        ) from None
    if not stat.S_ISREG(status.st_mode):
        raise ModelError(f"{what} keeps its data in {location!r}, which is not a file; put the data file there")
    if status.st_nlink > 1:
        # onnx and onnx_ir refuse to open these: the other name may be a secret outside the folder.
        raise ModelError(f"{what} keeps its data in {location!r}, which has several hard links; replace it with a copy")
    offset = tensor.offset or 0
    if offset < 0 or (tensor.length is not None and tensor.length != needed):
        raise ModelError(
            f"{what} needs {needed:,} bytes and claims {tensor.length} from {offset} on in {location!r}; "
            "the file is damaged, export the model again"
        )
    if status.st_size < offset + needed:
        raise ModelError(
            f"{what} needs {offset + needed:,} bytes of {location!r}, which holds {status.st_size:,}; "
            "copy or download the data file again"
        )


def check_proto(proto: onnx.ModelProto, where: str) -> None:
    """Refuse duplicate and dangling names, and tensors whose data do not fit, before anything is built from them."""
    opsets: dict[str, int] = {}
    for entry in proto.opset_import:
        if opsets.setdefault(entry.domain, entry.version) != entry.version:
            raise ModelError(f"{where}: imports opset {entry.domain!r} twice; export the model again")
    check_versions(opsets, proto.ir_version, where)
    for function in proto.functions:
        _check_nodes(function.node, set(function.input), (), where, set())
    pending: list[tuple[onnx.GraphProto, tuple[set[str], ...]]] = [(proto.graph, ())]
    while pending:
        graph, outer = pending.pop()
        defined: set[str] = set()
        inputs = {info.name for info in graph.input}
        if len(inputs) != len(graph.input):
            raise ModelError(f"{where}: two inputs share a name; rename one")
        seen: set[str] = set()
        for tensor in (*graph.initializer, *(sparse.values for sparse in graph.sparse_initializer)):
            if not tensor.name:
                raise ModelError(f"{where}: an initializer has no name; export the model again")
            if tensor.name in seen:
                raise ModelError(f"{where}: two initializers are named {tensor.name!r}; rename one")
            seen.add(tensor.name)
            check_tensor(tensor, where)
        defined |= inputs | seen
        pending += [(inner, (*outer, defined)) for inner in _check_nodes(graph.node, defined, outer, where, seen)]
        for info in graph.output:
            if info.name not in defined:
                raise ModelError(f"{where}: output {info.name!r} is computed by no node; export the model again")


def _check_nodes(
    nodes: Iterable[onnx.NodeProto],
    defined: set[str],
    outer: tuple[set[str], ...],
    where: str,
    initializers: set[str],
) -> Iterator[onnx.GraphProto]:
    """Add what ``nodes`` compute to ``defined``, check what they read, and return their subgraphs."""
    inner: list[onnx.GraphProto] = []
    nodes = list(nodes)
    for node in nodes:
        for text in (node.op_type, node.name, node.domain, *node.input, *node.output):
            if isinstance(text, bytes):
                raise ModelError(f"{where}: a node uses the name {text!r}, which is not text; export the model again")
        for name in node.output:
            if name and name in defined:
                other = "an initializer" if name in initializers else "another value"
                raise ModelError(f"{where}: {_title(node)} computes {name!r}, the name of {other}; rename one")
            if name:
                defined.add(name)
    for node in nodes:
        if not node.op_type:
            raise ModelError(f"{where}: {_title(node)} names no operator; export the model again")
        for name in node.input:
            if name and name not in defined and not any(name in scope for scope in outer):
                raise ModelError(
                    f"{where}: {_title(node)} reads {name!r}, which is neither computed nor an input nor a weight; "
                    "export the model again"
                )
        for attribute in node.attribute:
            if attribute.HasField("t"):
                check_tensor(attribute.t, where)
            for tensor in attribute.tensors:
                check_tensor(tensor, where)
            if attribute.type in _SPARSE and (node.op_type, attribute.name) != ("Constant", "sparse_value"):
                raise ModelError(
                    f"{where}: {_title(node)} has the sparse attribute {attribute.name!r}, which nothing reads; "
                    "make it dense"
                )
            if attribute.HasField("g"):
                inner.append(attribute.g)
            inner.extend(attribute.graphs)
    return iter(inner)


def _title(node: onnx.NodeProto) -> str:
    return f"node {node.name!r} ({node.op_type})" if node.name else f"a node of type {node.op_type or '?'}"

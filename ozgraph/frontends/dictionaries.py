"""Types of dictionaries (``map``), in which classifiers of other tools return what they think of each class.

onnx_ir has none. While it holds a model, such a value has no type, and what its type was stands in its metadata; what
is written or handed to onnx gets it back.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator

import onnx

from ozgraph.frontends import graph_protos

DOMAIN = "ai.onnx.ml"
"""Its operators alone make or read dictionaries."""

_KEY = "ozgraph.type"


def hidden(proto: onnx.ModelProto) -> onnx.ModelProto:
    """``proto`` as onnx_ir can read it: a copy with the types in metadata; itself where there are no dictionaries."""
    if not any(_is_dictionary(info.type) for info in _infos(proto)):
        return proto
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    for info in _infos(copy):
        if _is_dictionary(info.type):
            info.metadata_props.add(key=_KEY, value=base64.b64encode(info.type.SerializeToString()).decode())
            info.ClearField("type")
    return copy


def shown(proto: onnx.ModelProto) -> bool:
    """Give the types of dictionaries back, in place; return whether there are any."""
    found = False
    for info in _infos(proto):
        for number, entry in enumerate(info.metadata_props):
            if entry.key == _KEY and not info.HasField("type"):
                info.type.ParseFromString(base64.b64decode(entry.value))
                del info.metadata_props[number]
                found = True
                break
    return found


def show_in_file(path: str | os.PathLike[str]) -> None:
    """The same in a model file; weights beside it stay where they are."""
    proto = onnx.load(path, load_external_data=False)
    if shown(proto):
        onnx.save(proto, path)


def _infos(proto: onnx.ModelProto) -> Iterator[onnx.ValueInfoProto]:
    """What may be a dictionary."""
    if all(entry.domain != DOMAIN for entry in proto.opset_import):
        return
    for part in graph_protos.parts(proto):
        yield from part.value_info
        if isinstance(part, onnx.GraphProto):
            yield from part.input
            yield from part.output


def _is_dictionary(type_: onnx.TypeProto) -> bool:
    while type_.HasField("sequence_type") or type_.HasField("optional_type"):
        type_ = (type_.sequence_type if type_.HasField("sequence_type") else type_.optional_type).elem_type
    return bool(type_.HasField("map_type"))

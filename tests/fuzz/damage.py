"""Random corruptions of valid files: bytes, and fields of the model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from models.rows import ROWS

HUGE = (0, -1, 1, 2, 7, -2, 255, 1 << 31, (1 << 31) - 1, 1 << 32, 1 << 40, (1 << 62) - 1, (1 << 63) - 1, -(1 << 63))
"""Numbers that sizes become."""

PLACES = ("", ".", "..", "/dev/zero", "../../../etc/hostname", "nowhere.bin", "model.onnx", "a\x00b", "x" * 5000)
"""Where external data is said to be."""

Rng = np.random.Generator

Content = dict[str, bytes]
"""A model on disk: file name to bytes; ``model.onnx`` is the model."""

_valid: dict[tuple[str, bool], Content] = {}


def valid(name: str, external: bool, folder: Path) -> Content:
    """A small model's files; ``folder`` is empty and will be again."""
    if (name, external) not in _valid:
        onnx.save(
            ROWS[name](), str(folder / "model.onnx"), save_as_external_data=external, location="weights.bin",
            size_threshold=0, convert_attribute=False,
        )  # fmt: skip
        _valid[name, external] = {path.name: path.read_bytes() for path in folder.iterdir()}
        for path in folder.iterdir():
            path.unlink()
    return _valid[name, external]


def damaged(seed: list[int], folder: Path) -> tuple[str, Content]:
    """What was done, and the files."""
    rng = np.random.default_rng(seed)
    name, external = str(rng.choice(sorted(ROWS))), rng.random() < 0.3
    files = dict(valid(name, external, folder))
    kinds = list(DAMAGES) if "weights.bin" in files else [kind for kind in DAMAGES if "external" not in kind]
    done = []
    for _ in range(int(rng.choice((1, 1, 1, 2, 4)))):
        kind = str(rng.choice(kinds))
        try:
            DAMAGES[kind](files, rng)
        except Exception:
            continue  # what an earlier corruption left cannot take this one as well
        done.append(kind)
    return f"{name}{' external' if external else ''}: {', '.join(done)}", files


# -- bytes -----------------------------------------------------------------------------------------------------------


def _flip(files: Content, rng: Rng) -> None:
    name = str(rng.choice(sorted(files)))
    content = bytearray(files[name])
    for position in rng.integers(0, len(content), int(rng.integers(1, 9))):
        content[position] = int(rng.integers(0, 256))
    files[name] = bytes(content)


def _flip_structure(files: Content, rng: Rng) -> None:
    """Bytes near the beginning or the end, where there are more fields than weights."""
    content = bytearray(files["model.onnx"])
    span = min(len(content), 400)
    start = int(rng.choice((0, len(content) - span)))
    for position in rng.integers(start, start + span, int(rng.integers(1, 4))):
        content[position] ^= 1 << int(rng.integers(0, 8))
    files["model.onnx"] = bytes(content)


def _cut(files: Content, rng: Rng) -> None:
    name = str(rng.choice(sorted(files)))
    files[name] = files[name][: int(rng.integers(0, len(files[name]) + 1))]


def _drop(files: Content, rng: Rng) -> None:
    content = files["model.onnx"]
    first, last = sorted(rng.integers(0, len(content) + 1, 2).tolist())
    files["model.onnx"] = content[:first] + content[min(last, first + 64) :]


def _repeat(files: Content, rng: Rng) -> None:
    content = files["model.onnx"]
    first, last = sorted(rng.integers(0, len(content) + 1, 2).tolist())
    files["model.onnx"] = content[:last] + content[first:last] + content[last:]


def _blank(files: Content, rng: Rng) -> None:
    content = bytearray(files["model.onnx"])
    first = int(rng.integers(0, len(content)))
    length = min(int(rng.integers(1, 64)), len(content) - first)
    content[first : first + length] = bytes([int(rng.choice((0, 255)))]) * length
    files["model.onnx"] = bytes(content)


# -- fields ----------------------------------------------------------------------------------------------------------


def _messages(message: Message) -> Iterator[Message]:
    waiting = [message]
    while waiting:
        one = waiting.pop()
        yield one
        for field, value in one.ListFields():
            if field.type == FieldDescriptor.TYPE_MESSAGE:
                waiting += list(value) if _many(value) else [value]


def _many(value: Any) -> bool:
    return not isinstance(value, (Message, str, bytes, int, float))


def _edit(change: Callable[[onnx.ModelProto, Rng], None]) -> Callable[[Content, Rng], None]:
    def damage(files: Content, rng: Rng) -> None:
        model = onnx.ModelProto()
        try:
            model.ParseFromString(files["model.onnx"])
        except Exception:  # protobuf's errors differ between its builds; nothing is left to edit
            return
        change(model, rng)
        files["model.onnx"] = model.SerializeToString()

    return damage


def _some(items: list[Any], rng: Rng) -> Any:
    return items[int(rng.integers(0, len(items)))]


def _set_a_field(model: onnx.ModelProto, rng: Rng) -> None:
    """Any one number, text or list of them becomes another."""
    strings = [text for node in model.graph.node for text in (*node.input, *node.output, node.op_type)]
    message = _some(list(_messages(model)), rng)
    fields = [(field, value) for field, value in message.ListFields() if field.type != FieldDescriptor.TYPE_MESSAGE]
    field, value = _some(fields, rng)

    def other(old: Any) -> Any:
        if isinstance(old, bool):
            return not old
        if isinstance(old, int):
            number = int(rng.choice(HUGE))
            return number if field.type == FieldDescriptor.TYPE_INT64 else number % (1 << 31)
        if isinstance(old, float):
            return float(rng.choice((np.nan, np.inf, -1.0, 0.0, 3e38)))
        if isinstance(old, str):
            return str(rng.choice(["", "no such name", "é\n", *strings]))
        return bytes(rng.integers(0, 256, int(rng.integers(0, 64)), dtype=np.uint8))

    if _many(value):
        value[int(rng.integers(0, len(value)))] = other(value[0])
    else:
        setattr(message, field.name, other(value))


def _clear_a_field(model: onnx.ModelProto, rng: Rng) -> None:
    message = _some(list(_messages(model)), rng)
    field, _ = _some(message.ListFields(), rng)
    message.ClearField(field.name)


def _drop_an_element(model: onnx.ModelProto, rng: Rng) -> None:
    lists = [value for message in _messages(model) for _, value in message.ListFields() if _many(value)]
    chosen = _some(lists, rng)
    del chosen[int(rng.integers(0, len(chosen)))]


def _repeat_an_element(model: onnx.ModelProto, rng: Rng) -> None:
    lists = [value for message in _messages(model) for _, value in message.ListFields() if _many(value)]
    chosen = _some(lists, rng)
    element = chosen[int(rng.integers(0, len(chosen)))]
    chosen.extend([element] * int(rng.choice((1, 1, 50))))


def _swap_nodes(model: onnx.ModelProto, rng: Rng) -> None:
    """Two nodes swap their operators, their inputs, their outputs, attributes or places."""
    nodes = model.graph.node
    first, second = (_some(list(nodes), rng) for _ in range(2))
    field = str(rng.choice(("op_type", "input", "output", "attribute", "all")))
    one, two = onnx.NodeProto(), onnx.NodeProto()
    one.CopyFrom(first)
    two.CopyFrom(second)
    for target, source in ((first, two), (second, one)):
        if field == "all":
            target.CopyFrom(source)
        elif field == "op_type":
            target.op_type = source.op_type
        else:
            target.ClearField(field)
            getattr(target, field).extend(getattr(source, field))


def _swap_tensors(model: onnx.ModelProto, rng: Rng) -> None:
    tensors = model.graph.initializer
    first, second = (_some(list(tensors), rng) for _ in range(2))
    field = str(rng.choice(("name", "dims", "data_type", "raw_data")))
    one, two = onnx.TensorProto(), onnx.TensorProto()
    one.CopyFrom(first)
    two.CopyFrom(second)
    for target, source in ((first, two), (second, one)):
        if field == "dims":
            target.ClearField("dims")
            target.dims.extend(source.dims)
        else:
            setattr(target, field, getattr(source, field))


def _resize(model: onnx.ModelProto, rng: Rng) -> None:
    """A size of a weight, an input or an output becomes another, mostly a huge one."""
    sizes = [(tensor.dims, index) for tensor in model.graph.initializer for index in range(len(tensor.dims))]
    infos = [*model.graph.input, *model.graph.output, *model.graph.value_info]
    named = [size for info in infos for size in info.type.tensor_type.shape.dim]
    number = int(rng.choice(HUGE))
    if named and (rng.random() < 0.5 or not sizes):
        _some(named, rng).dim_value = number
    else:
        dims, index = _some(sizes, rng)
        dims[index] = number


def _redirect_numbers(model: onnx.ModelProto, rng: Rng) -> None:
    """An element of a shape constant, an index or an integer attribute becomes a huge one."""
    number = int(rng.choice(HUGE))
    tensors = [tensor for tensor in model.graph.initializer if tensor.data_type == onnx.TensorProto.INT64]
    numbers = [entry for node in model.graph.node for entry in node.attribute if entry.ints or entry.HasField("i")]
    if tensors and (rng.random() < 0.6 or not numbers):
        tensor = _some(tensors, rng)
        elements = onnx.numpy_helper.to_array(tensor).copy()
        elements.reshape(-1)[int(rng.integers(0, elements.size))] = number
        tensor.CopyFrom(onnx.numpy_helper.from_array(elements, tensor.name))
        return
    entry = _some(numbers, rng)
    if entry.ints:
        entry.ints[int(rng.integers(0, len(entry.ints)))] = number
    else:
        entry.i = number


def _move_external_data(model: onnx.ModelProto, rng: Rng) -> None:
    tensors = [tensor for tensor in model.graph.initializer if tensor.external_data]
    entry = _some(list(_some(tensors, rng).external_data), rng)
    if entry.key == "location":
        entry.value = str(rng.choice(PLACES))
    else:
        entry.value = str(rng.choice([*map(str, HUGE), "", "many", "1e3", "9" * 5000]))


def _drop_external_data(files: Content, rng: Rng) -> None:
    del files["weights.bin"]


DAMAGES: dict[str, Callable[[Content, Rng], None]] = {
    "bytes flipped": _flip,
    "bits of the structure flipped": _flip_structure,
    "cut": _cut,
    "bytes dropped": _drop,
    "bytes repeated": _repeat,
    "bytes blanked": _blank,
    "a field set": _edit(_set_a_field),
    "a field cleared": _edit(_clear_a_field),
    "an element dropped": _edit(_drop_an_element),
    "an element repeated": _edit(_repeat_an_element),
    "nodes swapped": _edit(_swap_nodes),
    "tensors swapped": _edit(_swap_tensors),
    "a size replaced": _edit(_resize),
    "a number replaced": _edit(_redirect_numbers),
    "external data moved": _edit(_move_external_data),
    "external data dropped": _drop_external_data,
}

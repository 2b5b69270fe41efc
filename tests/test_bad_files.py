"""Every bad model is refused with one clear sentence, whatever is wrong with it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from ozgraph.errors import ModelError, UsageError
from ozgraph.frontends.onnx import load


def model(nodes: list[onnx.NodeProto], weights: dict[str, np.ndarray], opset: int = 17) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    proto.graph.output[0].type.tensor_type.shape.SetInParent()
    return proto


@pytest.fixture
def good() -> onnx.ModelProto:
    proto = model([helper.make_node("MatMul", ["x", "w"], ["y"], "mm")], {"w": np.ones((4, 3), np.float32)})
    del proto.graph.output[0].type.tensor_type.shape.dim[:]
    for extent in (2, 3):
        proto.graph.output[0].type.tensor_type.shape.dim.add().dim_value = extent
    return proto


def refused(source: object, *words: str) -> None:
    with pytest.raises(ModelError) as caught:
        load(source)  # type: ignore[arg-type]
    message = str(caught.value)
    assert "\n" not in message and len(message) < 500, message
    assert ";" in message, f"says what to do next: {message}"
    for word in words:
        assert word in message, message


def external(folder: Path, location: str, **extra: int) -> Path:
    proto = model([helper.make_node("MatMul", ["x", "w"], ["y"], "mm")], {"w": np.ones((4, 3), np.float32)})
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **extra}.items():
        tensor.external_data.add(key=key, value=str(value))
    path = folder / "m.onnx"
    path.write_bytes(proto.SerializeToString())
    return path


def test_the_good_model_of_these_tests_loads(good: onnx.ModelProto) -> None:
    assert load(good).values["y"].shape == (2, 3)


def test_a_missing_file_a_folder_and_a_device_are_named(tmp_path: Path) -> None:
    refused(tmp_path / "no.onnx", "no.onnx", "cannot be opened")
    refused(tmp_path, "is a folder")
    refused("/dev/zero", "not a regular file")


def test_an_empty_file_and_other_formats_are_not_onnx(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    for content in (b"", b"\x80\x02}q\x00.", b"PK\x03\x04 zip", b"\x08\x07", b"hello", bytes(64), b"\xff" * 64):
        path.write_bytes(content)
        refused(path, "m.onnx")
        refused(content)


def test_other_objects_are_a_usage_error() -> None:
    with pytest.raises(UsageError, match="int"):
        load(3)  # type: ignore[arg-type]


def test_every_truncation_is_refused(good: onnx.ModelProto) -> None:
    content = good.SerializeToString()
    for length in range(len(content) - 1):
        try:
            load(content[:length])
        except ModelError as error:
            assert "\n" not in str(error)  # noqa: PT017
        else:  # only the trailing opset import may be cut so that it still parses
            assert length > len(content) - 8


def test_flipped_bytes_never_end_in_a_traceback(good: onnx.ModelProto) -> None:
    content = bytearray(good.SerializeToString())
    draw = np.random.default_rng(0)
    for _ in range(400):
        damaged = bytearray(content)
        for position in draw.integers(0, len(content), 2):
            damaged[position] = draw.integers(0, 256)
        try:
            load(bytes(damaged))
        except ModelError as error:
            assert "\n" not in str(error)  # noqa: PT017


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda m: m.graph.node[0].input.__setitem__(1, "nowhere"), ("'mm'", "'nowhere'")),
        (lambda m: m.graph.output.add(name="nothing"), ("'nothing'",)),
        (lambda m: m.graph.node.add(op_type="Relu", input=["x"], output=["y"]), ("'y'", "rename")),
        (lambda m: m.graph.node.add(op_type="Relu", input=["x"], output=["w"]), ("'w'", "an initializer")),
        (lambda m: m.graph.node.add(op_type="Relu", input=["x"], output=["x"]), ("'x'",)),
        (lambda m: m.graph.initializer.append(m.graph.initializer[0]), ("two initializers", "'w'")),
        (lambda m: m.graph.input.append(m.graph.input[0]), ("two inputs",)),
        (lambda m: m.graph.initializer[0].ClearField("name"), ("no name",)),
        (lambda m: m.graph.node[0].ClearField("op_type"), ("no operator",)),
        (lambda m: m.graph.node[0].attribute.append(helper.make_attribute("alpha", 1.0)), ("alpha",)),
        (lambda m: m.graph.initializer[0].dims.append(-3), ("negative", "'w'")),
        (lambda m: m.graph.initializer[0].dims.append(5), ("'w'", "240 bytes", "48")),
        (lambda m: m.graph.initializer[0].dims.extend([1 << 40, 1 << 40]), ("2**40", "'w'")),
        (lambda m: setattr(m.graph.initializer[0], "data_type", 99), ("element type 99",)),
        (lambda m: setattr(m.graph.initializer[0], "data_type", 0), ("element type 0",)),
        (lambda m: setattr(m.graph.initializer[0], "data_type", 11), ("'w'", "96 bytes")),
        (lambda m: m.opset_import.pop(), ("operator set",)),
        (lambda m: setattr(m.opset_import[0], "version", 6), ("opset 6", "version_converter")),
        (lambda m: setattr(m.opset_import[0], "version", 999), ("opset 999", "upgrade onnx")),
        (lambda m: setattr(m.opset_import[0], "version", 1 << 50), ("does not exist",)),
        (lambda m: setattr(m.opset_import[0], "version", -4), ("opset -4",)),
        (lambda m: setattr(m, "ir_version", 1 << 40), ("IR version",)),
        (lambda m: setattr(m, "ir_version", 99), ("IR version 99", "upgrade onnx")),
        (lambda m: m.ClearField("ir_version"), ("not an ONNX model",)),
        (lambda m: m.ClearField("graph"), ("no graph",)),
        (lambda m: setattr(m.graph.input[0].type.tensor_type, "elem_type", 77), ("export the model again",)),
    ],
)
def test_inconsistent_models_are_refused(
    good: onnx.ModelProto, damage: Callable[[onnx.ModelProto], object], words: tuple[str, ...]
) -> None:
    damage(good)
    refused(good.SerializeToString(), *words)


def test_an_attribute_of_the_wrong_type_is_refused() -> None:
    proto = model([helper.make_node("Softmax", ["x"], ["y"], "soft", axis=1)], {})
    proto.graph.node[0].attribute[0].type = onnx.AttributeProto.FLOATS
    refused(proto, "axis")


def test_operators_that_do_not_fit_together_are_refused() -> None:
    proto = model([helper.make_node("Add", ["x", "w"], ["y"], "add")], {"w": np.ones((7,), np.float32)})
    refused(proto, "do not fit")


def test_a_cycle_is_refused_and_shown() -> None:
    nodes = [
        helper.make_node("Add", ["x", "b"], ["a"], "first"),
        helper.make_node("Relu", ["a"], ["b"], "second"),
        helper.make_node("Relu", ["b"], ["y"], "third"),
    ]
    refused(model(nodes, {}), "cycle", "first", "second")


def test_a_cycle_between_functions_is_refused() -> None:
    proto = model([helper.make_node("F", ["x"], ["y"], domain="local")], {})
    body = [helper.make_node("F", ["a"], ["b"], domain="local")]
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    proto.functions.append(helper.make_function("local", "F", ["a"], ["b"], body, opsets))
    proto.opset_import.append(helper.make_opsetid("local", 1))
    refused(proto, "inlining")


def test_a_few_bytes_that_announce_a_petabyte_are_refused() -> None:
    huge = np.array([1 << 25, 1 << 25], np.int64)
    fill = helper.make_node("ConstantOfShape", ["s"], ["w"], "fill")
    refused(model([fill, helper.make_node("Add", ["x", "w"], ["y"])], {"s": huge}), "'fill'")
    expand = helper.make_node("Expand", ["one", "s"], ["w"], "grow")
    nodes = [
        expand,
        helper.make_node("ReduceSum", ["w"], ["t"], keepdims=0),
        helper.make_node("Add", ["x", "t"], ["y"]),
    ]
    refused(model(nodes, {"s": huge, "one": np.ones((1, 1), np.float32)}), "'w'")
    negative = np.array([-4, 4], np.int64)
    refused(model([fill, helper.make_node("Add", ["x", "w"], ["y"])], {"s": negative}), "negative")


def test_external_data_inside_the_folder_loads(tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(np.ones(12, np.float32).tobytes())
    graph = load(external(tmp_path, "w.bin", offset=0, length=48))
    constant = graph.values["w"].constant
    assert constant is not None and constant.numpy().sum() == 12


def test_missing_short_and_misdescribed_external_data_are_refused(tmp_path: Path) -> None:
    refused(external(tmp_path, "w.bin"), "missing", "'w'", "w.bin")
    (tmp_path / "w.bin").write_bytes(bytes(40))
    refused(external(tmp_path, "w.bin"), "48", "40")
    (tmp_path / "w.bin").write_bytes(bytes(60))
    refused(external(tmp_path, "w.bin", offset=16), "64", "60")
    refused(external(tmp_path, "w.bin", offset=-8), "-8")
    refused(external(tmp_path, "w.bin", length=12), "48", "12")
    refused(external(tmp_path, ""), "'w'")
    (tmp_path / "sub").mkdir()
    refused(external(tmp_path, "sub"), "not a file")


def test_external_data_outside_the_folder_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "inside"
    folder.mkdir()
    secret = tmp_path / "w.bin"
    secret.write_bytes(bytes(48))
    refused(external(folder, str(secret)), "absolute")
    refused(external(folder, "C:\\w.bin"), "absolute")
    refused(external(folder, "../w.bin"), "outside")
    refused(external(folder, "a/../../w.bin"), "outside")
    (folder / "link.bin").symlink_to(secret)
    refused(external(folder, "link.bin"), "link")
    (folder / "up").symlink_to(tmp_path)
    refused(external(folder, "up/w.bin"), "link")
    os.link(secret, folder / "hard.bin")
    refused(external(folder, "hard.bin"), "hard link")


def test_external_data_of_a_model_from_memory_is_refused(tmp_path: Path) -> None:
    path = external(tmp_path, "w.bin")
    refused(path.read_bytes(), "path")


def test_an_unknown_shape_name_lists_the_inputs(good: onnx.ModelProto) -> None:
    with pytest.raises(UsageError, match="x=2x4"):
        load(good, shapes={"input": (2, 4)})
    with pytest.raises(UsageError, match="2 axes"):
        load(good, shapes={"x": (2, 4, 1)})
    with pytest.raises(UsageError, match="always 4"):
        load(good, shapes={"x": (2, 5)})
    with pytest.raises(UsageError, match="start at 1"):
        load(good, shapes={"x": (0, 4)})

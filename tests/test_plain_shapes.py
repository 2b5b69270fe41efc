"""Shapes that are worked out at a glance are exactly what onnx infers, and whatever is unusual is left to it."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from models.rows import ROWS
from ozgraph.errors import ModelError
from ozgraph.frontends import plain_shapes, shapes
from ozgraph.frontends.onnx import load
from ozgraph.frontends.shapes import Skeleton

OPSET = 20
FLOAT, INT64 = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64
IMAGE = (2, 6, 9, 8)


def ints(*elements: int) -> np.ndarray[Any, Any]:
    return np.array(elements, dtype=np.int64)


Operand = tuple[int, ...] | np.ndarray[Any, Any]

FITTING: list[tuple[str, list[Operand], dict[str, Any]]] = [
    ("Conv", [IMAGE, (8, 6, 3, 3), (8,)], {"pads": [1, 0, 2, 1], "strides": [2, 1], "dilations": [1, 2]}),
    ("Conv", [IMAGE, (12, 2, 3, 3)], {"group": 3, "kernel_shape": [3, 3]}),
    ("Conv", [(2, 6, 9), (4, 6, 2)], {}),
    ("MaxPool", [IMAGE], {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [1, 0, 1, 0]}),
    ("AveragePool", [IMAGE], {"kernel_shape": [3, 3]}),
    ("GlobalAveragePool", [IMAGE], {}),
    ("Gemm", [(3, 4), (5, 4), (5,)], {"transB": 1}),
    ("Gemm", [(4, 3), (4, 5), (3, 1)], {"transA": 1}),
    ("MatMul", [(2, 1, 3, 4), (7, 4, 5)], {}),
    ("Add", [IMAGE, (6, 1, 1)], {}),
    ("Mul", [(1, 4), (3, 1)], {}),
    ("Sub", [(), (3,)], {}),
    ("Relu", [IMAGE], {}),
    ("HardSwish", [()], {}),
    ("Gelu", [IMAGE], {"approximate": "tanh"}),
    ("Softmax", [IMAGE], {"axis": 1}),
    ("LayerNormalization", [(2, 3, 4), (3, 4), (3, 4)], {"axis": 1}),
    ("BatchNormalization", [IMAGE, (6,), (6,), (6,), (6,)], {}),
    ("ReduceMean", [IMAGE, ints(-1, 2)], {"keepdims": 0}),
    ("ReduceSum", [IMAGE, ints(1)], {}),
    ("Reshape", [IMAGE, ints(0, -1, 4)], {}),
    ("Reshape", [IMAGE, ints(12, 72)], {"allowzero": 1}),
    ("Reshape", [(1,), ints()], {}),
    ("Flatten", [IMAGE], {"axis": 2}),
    ("Flatten", [IMAGE], {"axis": 0}),
    ("Transpose", [IMAGE], {"perm": [3, 0, 1, 2]}),
    ("Concat", [IMAGE, (2, 1, 9, 8), (2, 5, 9, 8)], {"axis": -3}),
    ("Squeeze", [(1, 3, 1), ints(-1)], {}),
    ("Unsqueeze", [(3, 4), ints(-1, 0)], {}),
    ("Gather", [IMAGE, ints(0, 2, 1)], {"axis": 1}),
    ("Gather", [IMAGE, np.array(1, dtype=np.int64)], {"axis": -1}),
]

LEFT_TO_ONNX: list[tuple[str, list[Operand], dict[str, Any]]] = [
    ("Conv", [IMAGE, (8, 5, 3, 3)], {}),
    ("Conv", [IMAGE, (8, 6, 3, 3)], {"auto_pad": "SAME_UPPER"}),
    ("Conv", [IMAGE, (8, 6, 10, 3)], {}),
    ("Conv", [IMAGE, (8, 6, 3, 3), (7,)], {}),
    ("MaxPool", [IMAGE], {"kernel_shape": [2, 2], "ceil_mode": 1}),
    ("Gemm", [(3, 4), (5, 4)], {}),
    ("MatMul", [(3, 4), (3, 4)], {}),
    ("MatMul", [(4,), (4, 5)], {}),
    ("Add", [(3,), (4,)], {}),
    ("Add", [(3,), ints(1, 2, 3)], {}),
    ("Relu", [ints(1, 2)], {}),
    ("Softmax", [(3,)], {"axis": 1}),
    ("ReduceMean", [IMAGE], {}),
    ("ReduceMean", [IMAGE, ints(4)], {}),
    ("Reshape", [IMAGE, ints(5, -1)], {}),
    ("Reshape", [IMAGE, ints(-1, -1)], {}),
    ("Reshape", [IMAGE, ints(7, 7)], {}),
    ("Transpose", [IMAGE], {"perm": [0, 0, 1, 2]}),
    ("Concat", [(2, 3), (3, 3)], {"axis": 1}),
    ("Squeeze", [(2, 3), ints(0)], {}),
    ("Unsqueeze", [(3,), ints(0, 0)], {}),
    ("Gather", [(3, 4), (2,)], {}),
]


def asked(operator: str, operands: list[Operand], attributes: dict[str, Any], opset: int = OPSET) -> Any:
    """What :func:`plain_shapes.plain` answers, and what onnx does: (shape, element type) or None."""
    names = [f"x{number}" for number in range(len(operands))]
    node = ir.serde.deserialize_node(onnx.helper.make_node(operator, names, ["y"], **attributes))
    sizes = {
        name: tuple(given.shape) if isinstance(given, np.ndarray) else given
        for name, given in zip(names, operands, strict=True)
    }
    dtypes = {
        name: INT64 if isinstance(given, np.ndarray) else FLOAT for name, given in zip(names, operands, strict=True)
    }
    known = {name: given for name, given in zip(names, operands, strict=True) if isinstance(given, np.ndarray)}
    graph = onnx.helper.make_graph([], "empty", [], [])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)])
    found = Skeleton(ir.from_proto(model)).infer_node(node, sizes, dtypes, known)
    inferred = None if found is None or "y" not in found.shapes else (found.shapes["y"], found.dtypes["y"])
    return plain_shapes.plain(node, opset, sizes, dtypes, known), inferred


@pytest.mark.parametrize(("operator", "operands", "attributes"), FITTING)
def test_a_plain_result_is_what_onnx_infers(operator: str, operands: list[Operand], attributes: dict[str, Any]) -> None:
    answer, inferred = asked(operator, operands, attributes)
    assert answer is not None
    assert answer == inferred


@pytest.mark.parametrize(("operator", "operands", "attributes"), LEFT_TO_ONNX)
def test_what_is_unusual_or_wrong_is_left_to_onnx(
    operator: str, operands: list[Operand], attributes: dict[str, Any]
) -> None:
    assert asked(operator, operands, attributes)[0] is None


def test_every_plain_operator_is_tried_or_keeps_its_shape() -> None:
    tried = {operator for operator, _, _ in FITTING}
    for operator in plain_shapes.OPERATORS - tried:
        answer, inferred = asked(operator, [IMAGE, IMAGE][: 2 if operator == "Div" else 1], {})
        assert answer == inferred == (((2, 6, 1, 1) if operator == "GlobalMaxPool" else IMAGE), FLOAT)


@pytest.mark.parametrize("operator", sorted(plain_shapes.OPERATORS))
def test_an_operator_is_not_known_before_its_opset(operator: str) -> None:
    first = min(
        schema.since_version
        for schema in onnx.defs.get_all_schemas_with_history()
        if schema.name == operator and not schema.domain
    )
    assert plain_shapes.since(operator) >= first


def test_old_opsets_are_left_to_onnx() -> None:
    assert asked("Relu", [IMAGE], {}, opset=10)[0] is None


@pytest.mark.parametrize("name", ROWS)
def test_a_whole_model_is_what_onnx_makes_of_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = ROWS[name]()
    quick = load(model)
    monkeypatch.setattr(shapes, "_settled", lambda skeleton, sizes: None)
    slow = load(model)
    assert list(quick.values) == list(slow.values)
    for value, other in zip(quick.values.values(), slow.values.values(), strict=True):
        assert (value.shape, value.dtype, value.dynamic) == (other.shape, other.dtype, other.dynamic)
        assert (value.integers is None) == (other.integers is None)
        if value.integers is not None and other.integers is not None:
            assert np.array_equal(value.integers.elements, other.integers.elements)


def test_some_whole_models_are_settled_at_a_glance(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(self: Skeleton, sizes: Any, **_: Any) -> Any:
        raise AssertionError("onnx was asked about the whole model")

    model = ROWS["residual_add"]()
    skeleton = Skeleton(load(model).origin.model)
    monkeypatch.setattr(Skeleton, "bound", never)
    found = skeleton.infer({value.name or "": tuple(value.shape or ()) for value in skeleton.model.graph.inputs})  # type: ignore[misc]
    assert all(found.complete(value.name or "") for value in skeleton.model.graph.outputs)


def test_a_misfit_is_still_reported() -> None:
    helper = onnx.helper
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "y"], ["z"])],
        "misfit",
        [helper.make_tensor_value_info(name, FLOAT, [size]) for name, size in (("x", 3), ("y", 4))],
        [helper.make_tensor_value_info("z", FLOAT, None)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    with pytest.raises(ModelError, match="do not fit together"):
        load(model)

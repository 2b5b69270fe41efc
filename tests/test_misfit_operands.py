"""Constants, attributes and operands that do not fit their operator: it freezes or the file is refused, never more."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import ozgraph
from models.building import Net
from models.rows import ROWS
from ozgraph.errors import OzgraphError
from ozgraph.graph import Array, Op, Value
from ozgraph.passes.program import UNREADABLE
from ozgraph.rules.parameters import encoding
from ozgraph.rules.rule import Spec, with_describe
from ozgraph.rules.table import Override, registered

LOOKED_AFTER = (
    "contrib_attention", "contrib_bert", "contrib_grouped_query", "contrib_llama", "contrib_past", "group_norm",
    "group_norm_decomposed", "lstm", "newest_block", "qdq_behind_transpose", "qdq_blocks", "qlinear_convs",
    "rotary_op", "weight_quantised",
)  # fmt: skip
"""Models whose operators take constants of a shape that onnx does not check."""


class Held:
    """A constant that is there already."""

    def __init__(self, array: Array) -> None:
        self._array = array
        self.shape = array.shape
        self.nbytes = array.nbytes

    def numpy(self) -> Array:
        return self._array


def shapes(shape: tuple[int, ...]) -> set[tuple[int, ...]]:
    """Other shapes: an axis more, an axis less, a position more, a position less, one, none."""
    found = {(), (1,), (0,), (*shape, 1), (1, *shape), (2, *shape), (*shape, 2), (int(np.prod(shape)),)}
    if shape:
        found |= {shape[1:], shape[:-1], shape[::-1], (*shape[:-1], shape[-1] + 1), (shape[0] + 1, *shape[1:])}
        found |= {(*shape[:-1], 1), (1, *shape[1:]), (shape[0] - 1, *shape[1:])}
    return found - {shape}


def resized(array: Array, shape: tuple[int, ...]) -> Array:
    source = array if array.size else np.zeros(1, array.dtype)
    return np.ascontiguousarray(np.resize(source, shape), dtype=array.dtype)


def misfits(model: onnx.ModelProto) -> Iterator[tuple[str, onnx.ModelProto]]:
    """The model with one constant in another shape, or one operand dropped, left out or given twice."""
    for index, tensor in enumerate(model.graph.initializer):
        array = numpy_helper.to_array(tensor)
        for shape in sorted(shapes(array.shape)):
            copy = onnx.ModelProto.FromString(model.SerializeToString())
            fresh = numpy_helper.from_array(resized(array, shape), tensor.name)
            copy.graph.initializer[index].CopyFrom(fresh)
            yield f"{tensor.name} of shape {shape}", copy
    for index, node in enumerate(model.graph.node):
        for position in range(len(node.input)):
            for change in ("dropped", "left out", "twice"):
                copy = onnx.ModelProto.FromString(model.SerializeToString())
                names = list(node.input)
                names[position : position + 1] = {"dropped": [], "left out": [""]}.get(change, [names[position]] * 2)
                del copy.graph.node[index].input[:]
                copy.graph.node[index].input.extend(names)
                yield f"operand {position} of {node.op_type} {change}", copy


@pytest.mark.parametrize("name", [name for name in LOOKED_AFTER if name in ROWS])
def test_what_does_not_fit_is_refused_or_frozen(name: str) -> None:
    outcomes = set()
    for what, model in misfits(ROWS[name]()):
        try:
            ozgraph.analyze(model)
            outcomes.add("analysed")
        except OzgraphError:
            outcomes.add("refused")
        except Exception as error:  # what this test is about
            pytest.fail(f"{what}: {type(error).__name__}: {error}")
    assert outcomes == {"analysed", "refused"}


@pytest.mark.parametrize("name", sorted(ROWS))
def test_no_rule_fails_on_a_model_that_is_right(name: str) -> None:
    frozen = ozgraph.analyze(ROWS[name]()).report.frozen
    assert UNREADABLE not in {row.reason for row in frozen}


def test_a_rule_that_raises_freezes_what_it_touches_and_nothing_else() -> None:
    def fails(op: Op) -> Spec:
        raise KeyError("a bug in the rule")

    net = Net("raises")
    x = net.op("Relu", net.linear(net.input("x", (4, 6)), 6, 8, name="fc1"))
    x = net.op("Tanh", net.linear(x, 8, 10, name="fc2"))
    model = net.build(net.linear(x, 10, 3, name="fc3"))
    assert {family.dim for family in ozgraph.analyze(model).families} == {"fc1.weight", "fc2.weight"}
    with Override("Tanh", with_describe(registered()["Tanh"], fails)):
        analysis = ozgraph.analyze(model)
    assert {family.dim for family in analysis.families} == {"fc1.weight"}
    assert (UNREADABLE, "Tanh") in {(row.reason, row.operator) for row in analysis.report.frozen}


@pytest.mark.parametrize(
    ("scales", "axis", "block", "fits"),
    [
        ((), 0, 0, True), ((8,), 0, 0, True), ((6,), 1, 0, True), ((6,), -1, 0, True), ((2, 6), 0, 4, True),
        ((2, 6), 0, 5, True), ((1, 6), 0, 1 << 40, True), ((6,), 0, 0, False), ((8,), 2, 0, False),
        ((8,), -3, 0, False), ((8, 1), 0, 0, False), ((8, 6), 0, 0, False), ((3, 6), 0, 4, False),
        ((2, 5), 0, 4, False), ((2, 6), 0, -4, False), ((1, 2, 6), 0, 4, False), ((0,), 0, 0, False),
    ],
)  # fmt: skip
def test_integers_stand_for_numbers_only_where_their_scales_fit(
    scales: tuple[int, ...], axis: int, block: int, fits: bool
) -> None:
    stored = np.ones((8, 6), np.int8)
    weight, scale = (
        Value(name, array.shape, array.dtype, constant=Held(array))
        for name, array in (("weight", stored), ("scale", np.full(scales, 0.5, np.float32)))
    )
    result = Value("result", stored.shape, np.dtype(np.float32))
    attributes = {"axis": axis, "block_size": block}
    op = Op("node", "DequantizeLinear", "", 21, (weight, scale), (result,), attributes)
    weight.uses.append((op, 0))
    found = encoding(weight)
    assert (found is not None) == fits
    if found is not None:
        assert found.numbers(stored, (slice(0, 8), slice(0, 6))).tolist() == np.full((8, 6), 0.5).tolist()

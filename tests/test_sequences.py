"""Sequences and optionals of known length are the tensors that they hold; others freeze."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import ozgraph
from models.building import Net
from models.control import H
from models.lists import MODELS, B, D, unresolved
from models.zeroing import Found, pruned, refused
from ozgraph.errors import VerificationError
from ozgraph.frontends import sequences
from ozgraph.frontends.onnx import load

FAMILIES: dict[str, tuple[Found, ...]] = {
    "sequence_split": tuple(("fc1.weight", size, "exact") for size in (3, 4, 5)),
    "sequence_rows": (("fc1.weight", 8, "exact"),),
    "sequence_edited": tuple((f"fc{size}.weight", size, "exact") for size in (5, 6, 7)),
    "optional_tensors": (("fc1.weight", H, "exact"), ("inside.weight", H, "exact")),
    "list_appended": (("zeros", H, "exact"),),
}


@pytest.mark.parametrize("name", MODELS)
def test_what_goes_from_a_sequence_is_the_zeroed_original(name: str) -> None:
    pruned(MODELS[name](), *FAMILIES[name])


@pytest.mark.parametrize("name", MODELS)
def test_no_rule_sees_a_sequence(name: str) -> None:
    operators = {op.operator for op in load(MODELS[name]()).ops}
    assert not {name for name in operators if "Sequence" in name or "Optional" in name or name.startswith("If")}


@pytest.mark.parametrize("kind", ["position", "branches"])
def test_a_sequence_that_only_a_run_can_tell_freezes(kind: str) -> None:
    refused(unresolved(kind), "fc1.weight", 0, "tensors in a sequence are not followed")


@pytest.mark.parametrize(("place", "size"), [(0, 4), (2, 3), (-1, 3), (-3, 4)])
@pytest.mark.parametrize("opset", [11, 13, 21])
def test_pieces_of_one_size_leave_a_smaller_one_at_the_end(opset: int, place: int, size: int) -> None:
    net = Net("pieces", opset=opset)
    x = net.linear(net.input("x", (B, D)), D, 11, name="fc1")
    pieces = net.op("SplitToSequence", x, net.integer(4), axis=1)
    y = net.op("Relu", net.op("SequenceAt", pieces, net.integer(place)))
    model = net.build(net.linear(y, size, 3, name="head"))
    (split,) = (op for op in load(model).ops if op.operator == "Split")
    assert [value.shape for value in split.outputs if value is not None] == [(B, 4), (B, 4), (B, 3)]
    pruned(model, ("fc1.weight", 4, "exact"), ("fc1.weight", 3, "exact"))


def test_pieces_of_an_axis_that_varies_freeze() -> None:
    net = Net("varies")
    x = net.op("Relu", net.dense(net.input("x", ("batch", "sequence", D)), D, H, name="fc1"))
    pieces = net.op("SplitToSequence", x, axis=1, keepdims=0)
    y = net.op("SequenceAt", pieces, net.integer(0))
    model = net.build(net.linear(y, H, 3, name="head"), shapes=[("batch", 3)])
    refused(model, "fc1.weight", 1, "tensors in a sequence are not followed")


def test_a_sequence_that_is_returned_stays() -> None:
    net = Net("returned")
    x = net.op("Relu", net.linear(net.input("x", (B, D)), D, H, name="fc1"))
    pieces = net.op("SplitToSequence", x, net.ints(4, 6), axis=1)
    model = net.build(net.linear(net.op("SequenceAt", pieces, net.integer(1)), 6, 3, name="head"))
    kind = onnx.helper.make_tensor_sequence_value_info(pieces, onnx.TensorProto.FLOAT, None)
    model.graph.output.append(kind)
    graph = load(model)
    assert {"SplitToSequence", "Split"} <= {op.operator for op in graph.ops}
    assert [value.name for value in graph.outputs] == [info.name for info in model.graph.output]
    assert np.prod(graph.values["fc1.weight"].shape or ()) == H * D


def test_a_model_that_is_read_wrongly_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sequences.Resolver, "_position", lambda *_, **__: 0)
    with pytest.raises(VerificationError, match="the model as it was read for analysis differs from its source"):
        ozgraph.prune(MODELS["sequence_rows"](), tmp_path / "small.onnx", target=ozgraph.Target(groups=0.5))
    assert not list(tmp_path.iterdir())

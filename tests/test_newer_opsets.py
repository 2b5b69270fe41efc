"""Models newer than the installed onnxruntime: analysed all the same, and pruned only by those who ask for no file.

Their operators run on onnx's reference evaluator, which stands in for onnxruntime here.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx_ir import serde

import ozgraph
from models.halving import zeroed_by_hand
from ozgraph.backends.onnx import apply
from ozgraph.cli import main
from ozgraph.errors import ModelError
from ozgraph.numerics import sessions
from ozgraph.passes.eliminate import Eliminate
from ozgraph.passes.manager import Pipeline
from ozgraph.passes.prove_dead import ProveDead
from ozgraph.passes.state import Removal, State

NEWEST = onnx.defs.onnx_opset_version()
RELEASED = 26
"""Of the newest opset that onnxruntime runs, in the versions that these tests are written for."""

WIDTH, HIDDEN = 6, 8
CLOSE = 1e-6


def network(middle: Callable[[Network], str], opset: int = NEWEST) -> onnx.ModelProto:
    """x -> MatMul -> what is tested -> MatMul."""
    return Network().built(middle, opset)


class Network:
    """Nodes and weights of a small model."""

    def __init__(self) -> None:
        self.random = np.random.default_rng(2)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def weight(self, *shape: int) -> str:
        name = f"w{len(self.weights)}"
        array = self.random.standard_normal(shape).astype(np.float32)
        self.weights.append(numpy_helper.from_array(array, name))
        return name

    def constant(self, array: Any, dtype: Any = np.int64) -> str:
        name = f"c{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(array, dtype), name))
        return name

    def add(self, operator: str, *inputs: str, outputs: int = 1, **attributes: Any) -> str:
        names = [f"t{len(self.nodes)}", *(f"t{len(self.nodes)}_{k}" for k in range(1, outputs))]
        self.nodes.append(helper.make_node(operator, inputs, names, f"n{len(self.nodes)}", **attributes))
        return names[0]

    def linear(self, x: str, columns: int = HIDDEN, rows: int = WIDTH) -> str:
        return self.add("MatMul", x, self.weight(rows, columns))

    def built(self, middle: Callable[[Network], str], opset: int) -> onnx.ModelProto:
        hidden = middle(self)
        self.nodes.append(helper.make_node("MatMul", [hidden, self.weight(HIDDEN, WIDTH)], ["y"], "last"))
        sizes = ["batch", 3, WIDTH]
        graph = helper.make_graph(
            self.nodes,
            "newer",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, sizes)],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, sizes)],
            self.weights,
        )
        return helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=11 if opset < NEWEST else onnx.IR_VERSION
        )


def run(model: onnx.ModelProto, seed: int) -> np.ndarray[Any, Any]:
    x = np.random.default_rng(seed).standard_normal((2, 3, WIDTH)).astype(np.float32)
    (y,) = ReferenceEvaluator(model).run(None, {"x": x})
    return np.asarray(y)


def gated(n: Network) -> str:
    return n.add("SwiGLU", n.linear("x"), n.linear("x"), alpha=1.5)


def swish(n: Network) -> str:
    return n.add("Swish", n.linear("x"), alpha=0.7)


def cast(n: Network) -> str:
    return n.add("Cast", n.add("Cast", n.linear("x"), to=TensorProto.DOUBLE), to=TensorProto.FLOAT)


def bits(n: Network) -> str:
    return n.add("BitCast", n.add("BitCast", n.linear("x"), to=TensorProto.INT32), to=TensorProto.FLOAT)


def root_mean_square(n: Network) -> str:
    return n.linear(n.add("RMSNormalization", n.linear("x", 5), n.weight(5), axis=-1), HIDDEN, 5)


def products_along_another_axis(n: Network) -> str:
    return n.add("CumProd", n.linear("x"), n.constant(1))


def celu(n: Network) -> str:
    return n.add("Celu", n.linear("x"), alpha=0.5)


def summed(n: Network) -> str:
    return n.add("Einsum", n.linear("x"), n.weight(HIDDEN, HIDDEN), equation="bth,hk->btk")


def heads(n: Network) -> str:
    q, k, v = n.linear("x"), n.linear("x"), n.linear("x")
    return n.add("Attention", q, k, v, q_num_heads=4, kv_num_heads=4)


def dequantized(n: Network) -> str:
    stored = n.constant(n.random.integers(-9, 9, (WIDTH, HIDDEN)), np.int8)
    return n.add("MatMul", "x", n.add("DequantizeLinear", stored, n.constant(0.125, np.float32)))


def remembered(n: Network) -> str:
    rule = {"q_num_heads": 4, "kv_num_heads": 2, "update_rule": "linear"}
    return n.add("LinearAttention", n.linear("x"), n.linear("x", 4), n.linear("x", 4), outputs=2, **rule)


def causal(n: Network) -> str:
    turned = n.add("Transpose", n.linear("x"), perm=[0, 2, 1])
    passed = n.add(
        "CausalConvWithState", turned, n.weight(HIDDEN, 1, 2), n.weight(HIDDEN), outputs=2, activation="silu"
    )
    return n.add("Transpose", passed, perm=[0, 2, 1])


PRUNED = [gated, swish, cast, bits, celu, summed, heads, products_along_another_axis, root_mean_square, dequantized]
PRUNED += [remembered, causal]


def pruned(proto: onnx.ModelProto, state: State) -> onnx.ModelProto:
    """Half of the slots of every family removed."""
    state.chosen = Removal(state.dims.total)
    for family in state.families:
        mask = np.zeros(family.atom.size, dtype=bool)
        mask[np.flatnonzero(state.dims.free_slots(family.atom))[::2]] = True
        state.chosen.add(family.atom, mask)
    Pipeline((ProveDead(), Eliminate()), verify_each=True).run(state)
    assert state.removed and not state.given_back
    return serde.serialize_model(apply(state.graph, state.plan))


@pytest.mark.parametrize("middle", PRUNED, ids=lambda middle: middle.__name__)
def test_rules_hold_at_the_newest_opset_on_the_reference_evaluator(middle: Callable[[Network], str]) -> None:
    proto = network(middle)
    state = ozgraph.analyze(proto, rescale=True, verify_each=True).state
    assert state.families, "something can go"
    small = pruned(proto, state)
    onnx.checker.check_model(small, full_check=True)
    zeroed = zeroed_by_hand(proto, state) or quantised_by_hand(proto, state)
    for seed in (0, 1):
        wanted, found = run(zeroed, seed), run(small, seed)
        assert np.abs(wanted).max() > 0.01
        np.testing.assert_allclose(found, wanted, rtol=0, atol=CLOSE * np.abs(wanted).max())


def quantised_by_hand(proto: onnx.ModelProto, state: State) -> onnx.ModelProto:
    """The same for weights of integers without a zero point."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    for tensor in copy.graph.initializer:
        for family in state.families:
            for member in family.members:
                if member.value.name == tensor.name:
                    array = numpy_helper.to_array(tensor).copy()
                    np.moveaxis(array, member.axis, 0)[state.chosen.mask(family.atom)] = 0
                    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    return copy


@pytest.fixture
def newest(tmp_path: Path) -> Path:
    path = tmp_path / "newest.onnx"
    onnx.save(network(gated), path)
    return path


@pytest.mark.skipif(NEWEST <= RELEASED, reason="this onnx has no opset that onnxruntime lacks")
def test_a_model_newer_than_onnxruntime_is_analysed_and_pruning_says_what_to_do(
    newest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if sessions._refusal(NEWEST, onnx.IR_VERSION) is None:
        pytest.skip("this onnxruntime runs the newest opset of this onnx")
    assert ozgraph.analyze(newest).families
    output = tmp_path / "small.onnx"
    for command in (["prune", "--target-groups", "0.5"], ["eliminate"]):
        with pytest.raises(SystemExit) as left:
            main([command[0], str(newest), "-o", str(output), *command[1:]])
        assert left.value.code == 2
        message = capsys.readouterr().err.strip()
        assert len(message.splitlines()) == 1, message
        assert "onnxruntime does not run" in message and "upgrade onnxruntime" in message
        assert not output.exists()
    with pytest.raises(ModelError, match="upgrade onnxruntime"):
        ozgraph.verify(newest, newest)
    assert ozgraph.verify(newest, newest, exact=True).equal, "the reference evaluator runs it"


def test_a_model_newer_than_onnx_is_refused(newest: Path) -> None:
    proto = onnx.load(newest)
    proto.opset_import[0].version = NEWEST + 1
    with pytest.raises(ModelError, match=f"opset {NEWEST + 1}.*upgrade onnx"):
        ozgraph.analyze(proto)


def test_analysis_does_not_ask_onnxruntime(newest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise AssertionError("asked")

    monkeypatch.setattr(sessions, "_onnxruntime", refuse)
    assert ozgraph.analyze(newest).families

"""Graphs made to fool a pruner: attention with shared heads, tables and caches, gated and recurrent layers.

Each is pruned rightly, judged by onnxruntime against the original zeroed by hand, or refused with the reason.
"""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx_ir import serde

import ozgraph
from models.building import Net
from models.sequences import attend, causal_mask, heads, merged
from models.zeroing import pruned, reasons, refused, same_function
from ozgraph.passes.families import Family
from ozgraph.passes.state import State

INPUT = "it is an input of the model (--allow-io lets it shrink)"
OUTPUT = "it is an output of the model (--allow-io lets it shrink)"


def family(state: State, dim: str, size: int) -> Family:
    (found,) = (family for family in state.families if family.dim == dim and family.atom.size == size)
    return found


# -- attention -------------------------------------------------------------------------------------------------------

B, S, D, K = 2, 5, 12, 6


def grouped(kv: int, repeats: int, *, fused: bool = False) -> onnx.ModelProto:
    """Attention in which every head of keys and values serves several heads of queries."""
    net = Net("grouped", opset=23)
    x = net.input("x", (B, S, D))
    q = heads(net, net.dense(x, D, kv * repeats * K, name="q"), kv * repeats, K)
    k = heads(net, net.dense(x, D, kv * K, name="k"), kv, K)
    v = heads(net, net.dense(x, D, kv * K, name="v"), kv, K)

    def repeated(part: str) -> str:
        if kv == 1:
            return part
        return net.reshape(net.op("Expand", net.unsqueeze(part, 2), net.ints(B, kv, repeats, S, K)), B, -1, S, K)

    y = net.op("Attention", q, k, v) if fused else attend(net, q, repeated(k), repeated(v), K, causal_mask(net))
    return net.build(net.dense(merged(net, y, kv * repeats, K), kv * repeats * K, D, bias=False, name="o"))


@pytest.mark.parametrize("fused", [False, True])
def test_query_heads_go_alone_once_the_columns_that_read_them_are_zero(fused: bool) -> None:
    state = pruned(
        grouped(2, 3, fused=fused),
        ("q.weight", 2, "exact"), ("q.weight", 3, "consumers"), ("q.weight", 6, "exact"), ("v.weight", 6, "exact"),
    )  # fmt: skip
    alone = family(state, "q.weight", 3)
    assert not alone.active
    assert ("o.weight", 0, "consumer") in {(m.value.name, m.axis, m.role) for m in alone.members}


def test_multi_query_attention_loses_query_heads_alone() -> None:
    state = pruned(grouped(1, 4), ("q.weight", 4, "consumers"), ("q.weight", 6, "exact"), ("v.weight", 6, "exact"))
    assert ("o.weight", 0) in {(m.value.name, m.axis) for m in family(state, "q.weight", 4).members}


def layers_with_rotary_tables(frequencies: int) -> onnx.ModelProto:
    """Two attention layers; with ``frequencies`` tables for both."""
    net = Net("shared_tables")
    x = net.input("x", (B, S, D))
    angle = np.arange(S)[:, None] / 10.0 ** (np.arange(K // 2) / K)
    both = np.concatenate([angle, angle], axis=1).astype(np.float32)
    tables = [(net.const(np.cos(both), "cos"), net.const(np.sin(both), "sin")) for _ in range(frequencies)]

    def turned(part: str, cos: str, sin: str) -> str:
        half = net.op("Concat", net.op("Neg", net.slice(part, 3, 6, 3)), net.slice(part, 0, 3, 3), axis=3)
        return net.op("Add", net.op("Mul", part, cos), net.op("Mul", half, sin))

    for number, layer in enumerate(("first", "second")):
        q, k, v = (heads(net, net.dense(x, D, 2 * K, name=f"{layer}.{part}"), 2, K) for part in "qkv")
        q, k = (turned(part, *tables[number % frequencies]) for part in (q, k))
        x = net.op("Add", x, net.dense(merged(net, attend(net, q, k, v, K), 2, K), 2 * K, D, name=f"{layer}.o"))
    return net.build(x)


def layer_families(layer: str) -> list[tuple[str, int, str]]:
    """Heads, pairs of the widths of queries and keys, widths of values."""
    return [(f"{layer}.q.weight", 2, "exact"), (f"{layer}.q.weight", 3, "exact"), (f"{layer}.v.weight", 6, "exact")]


@pytest.mark.parametrize("frequencies", [1, 2])
def test_rotary_tables_tie_the_pairs_of_a_width_and_leave_layers_apart(frequencies: int) -> None:
    state = pruned(layers_with_rotary_tables(frequencies), *layer_families("first"), *layer_families("second"))
    assert bool(state.takes) == (frequencies == 1)


@pytest.mark.parametrize("fused", [False, True])
def test_a_model_with_a_cache_keeps_the_heads_and_widths_that_its_signature_shows(fused: bool) -> None:
    net = Net("cache", opset=23)
    x = net.input("x", (B, S, D))
    past = [net.input(f"past_{part}", (B, 2, 4, K)) for part in ("key", "value")]
    q, k, v = (heads(net, net.dense(x, D, 2 * K, name=part), 2, K) for part in "qkv")
    if fused:
        y, key, value = net.ops("Attention", q, k, v, "", *past, outputs=3)
    else:
        key, value = (net.op("Concat", old, new, axis=2) for old, new in zip(past, (k, v), strict=True))
        y = attend(net, q, key, value, K)
    y = net.op("Add", x, net.dense(merged(net, y, 2, K), 2 * K, D, name="o"))
    y = net.dense(net.op("Gelu", net.dense(y, D, 10, name="up")), 10, D, name="down")
    model = net.build(y, key, value)
    for name in ("q.weight", "k.weight", "v.weight"):
        state = refused(model, name, 1, "of the model")
        assert reasons(state, name, 1) <= {INPUT, OUTPUT}
    pruned(model, ("up.weight", 10, "exact"))


# -- one operand's zero suffices -------------------------------------------------------------------------------------


def swiglu(zero: str, slots: list[int]) -> onnx.ModelProto:
    """A gated layer in which some slots of one operand are zero and those of the other are not."""
    net = Net("swiglu")
    x = net.input("x", (4, 6))
    weights = {name: net.normal(10, 6, scale=0.5) for name in ("gate", "up")}
    if zero in weights:
        weights[zero][slots] = 0.0
    gate, up = (net.op("Gemm", x, net.const(weight, f"{name}.weight"), transB=1) for name, weight in weights.items())
    down = net.normal(6, 10, scale=0.4)
    if zero == "down":
        down[:, slots] = 0.0
    return net.build(net.op("Gemm", net.op("Mul", net.silu(gate), up), net.const(down, "down.weight"), transB=1))


@pytest.mark.parametrize("zero", ["gate", "up", "down"])
def test_a_gated_slot_is_dead_where_any_of_its_three_weights_is_zero(zero: str) -> None:
    model = swiglu(zero, [1, 4, 7])
    result = ozgraph.eliminate(model)
    assert result.report.removed_slots == 3
    assert {tuple(value.shape) for value in result.model.graph.initializers.values()} == {(7, 6), (6, 7)}
    same_function(model, serde.serialize_model(result.model))


def test_a_gated_layer_prunes_with_its_gate() -> None:
    pruned(swiglu("", []), ("gate.weight", 10, "exact"))


def recurrent(rows: bool, columns: bool, *, head: bool = False) -> onnx.ModelProto:
    """An LSTM with units 2 and 5 of 8 zero in the rows of all gates, in the recurrent columns, in the head."""
    net = Net("lstm")
    w, r, b = net.normal(1, 32, 6, scale=0.4), net.normal(1, 32, 8, scale=0.4), net.normal(1, 64, scale=0.3)
    units = [2, 5]
    for array, axis, blocks in ((w, 1, 4), (r, 1, 4), (b, 1, 8)):
        if rows:
            np.moveaxis(array, axis, 0)[[8 * block + unit for block in range(blocks) for unit in units]] = 0.0
    if columns:
        r[:, :, units] = 0.0
    last = net.normal(8, 3)
    if head:
        last[units] = 0.0
    operands = (net.const(array, f"lstm.{name}") for name, array in (("W", w), ("R", r), ("B", b)))
    y = net.op("LSTM", net.input("x", (5, 2, 6)), *operands, hidden_size=8)
    return net.build(net.op("MatMul", net.squeeze(y, 1), net.const(last, "head")))


@pytest.mark.parametrize(
    ("model", "gone"),
    [
        (recurrent(True, False), 2),
        (recurrent(False, True, head=True), 2),
        (recurrent(False, True), 0),
        (recurrent(False, False, head=True), 0),
    ],
)
def test_a_hidden_unit_is_dead_where_it_is_never_made_or_never_read(model: onnx.ModelProto, gone: int) -> None:
    result = ozgraph.eliminate(model)
    assert result.report.removed_slots == gone
    same_function(model, serde.serialize_model(result.model))


def test_a_recurrent_layer_prunes_whole_units() -> None:
    pruned(recurrent(False, False), ("lstm.W", 8, "exact"))


@pytest.mark.parametrize(
    ("type_", "activations", "exactness"),
    [
        ("LSTM", ["Sigmoid", "Tanh", "Tanh"], "exact"),
        ("LSTM", ["Tanh", "Relu", "Tanh"], "exact"),
        ("LSTM", ["Sigmoid", "Sigmoid", "Tanh"], "consumers"),
        ("LSTM", ["Sigmoid", "Tanh", "Sigmoid"], "consumers"),
        ("GRU", ["Sigmoid", "Relu"], "exact"),
        ("GRU", ["Sigmoid", "Sigmoid"], "consumers"),
        ("GRU", ["Sigmoid", "Softsign"], "consumers"),
        ("RNN", ["Relu"], "exact"),
        ("RNN", ["Sigmoid"], "consumers"),
    ],
)
def test_units_whose_activation_lifts_zero_go_with_all_that_reads_them(
    type_: str, activations: list[str], exactness: str
) -> None:
    net = Net("activations")
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[type_]
    w, r = (net.const(net.normal(1, 8 * gates, n, scale=0.4), f"{name}") for name, n in (("W", 6), ("R", 8)))
    y = net.op(type_, net.input("x", (5, 2, 6)), w, r, hidden_size=8, activations=activations)
    state = pruned(net.build(net.dense(net.squeeze(y, 1), 8, 3, name="head")), ("W", 8, exactness))
    consumers = {(m.value.name, m.axis) for m in state.families[0].members if m.role == "consumer"}
    assert consumers == ({("R", 2), ("head.weight", 0)} if exactness == "consumers" else set())

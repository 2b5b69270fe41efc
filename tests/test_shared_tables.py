"""Tables that several layers read do not tie them: each use takes its own slots of a table that stays whole."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest

import ozgraph
from models.exported import EXPORTED
from models.pruning import families_of, halved
from models.tables import LAYERS, MODELS, ROWS, D, H, K, S
from models.zeroing import Found, check_removal, pruned
from ozgraph.passes.families import Family
from ozgraph.passes.state import State

OTHERWISE = {"tables_of_one_layer", "tables_of_varying_length", "tables_of_mixed_positions"}
ROTARY = [name for name in MODELS if name.startswith("tables_") and name not in OTHERWISE]
TABLES = {"cos", "sin", "cos_cache", "sin_cache", "cos_cached", "sin_cached", "frequencies"}
BIASES = [name for name in MODELS if name.startswith("score_")]


def attention(layer: str, width: int) -> list[Found]:
    """Heads, slots of the width of queries and keys that go alone, the width of values."""
    return [(f"{layer}.q.weight", H, "exact"), (f"{layer}.q.weight", width, "exact"), (f"{layer}.v.weight", K, "exact")]


BETWEEN: Found = ("first.down.weight", D, "exact")


def family(state: State, dim: str, size: int) -> Family:
    (found,) = (family for family in state.families if family.dim == dim and family.atom.size == size)
    return found


@pytest.mark.parametrize("name", ROTARY)
def test_layers_that_share_rotary_tables_lose_pairs_of_their_own(name: str) -> None:
    unread: list[Found] = [("cos", ROWS - S, "exact"), ("sin", ROWS - S, "exact")] if name == "tables_sliced" else []
    state = pruned(MODELS[name](), *unread, *(found for layer in LAYERS for found in attention(layer, K // 2)))
    assert state.takes
    widths = [family for layer in LAYERS for family in state.families if family.dim.startswith(layer)]
    assert not {member.value.name for family in widths for member in family.members} & TABLES


@pytest.mark.parametrize("name", BIASES)
def test_layers_that_share_a_bias_of_their_scores_lose_heads_of_their_own(name: str) -> None:
    assert pruned(MODELS[name](), *(found for layer in LAYERS for found in attention(layer, K))).takes


@pytest.mark.parametrize("name", ROTARY)
def test_what_each_layer_keeps_is_its_own_choice(name: str) -> None:
    model = MODELS[name]()
    state = ozgraph.analyze(model).state
    pairs = [family(state, f"{layer}.q.weight", K // 2) for layer in LAYERS]
    for families, slots in ((pairs[:1], (1,)), (pairs[1:], (0, 3)), (pairs, (1, 2))):
        check_removal(model, state, families, slots=slots)
    pruned_differently = ozgraph.eliminate(with_zeros(model, {"first": (0, 2), "second": (1, 2, 3)}))
    sizes = {name: shape(pruned_differently.model, name) for name in ("first.q.weight", "second.k.weight")}
    assert sizes == {"first.q.weight": (D, H * 4), "second.k.weight": (D, H * 2)}


def with_zeros(model: onnx.ModelProto, pairs: dict[str, tuple[int, ...]]) -> onnx.ModelProto:
    """A model with some pairs of the widths of queries and keys at zero in every head."""
    interleaved = model.graph.name == "tables_of_pairs"
    for tensor in model.graph.initializer:
        layer, _, rest = tensor.name.partition(".")
        if layer in pairs and rest.startswith(("q.", "k.")):
            array = onnx.numpy_helper.to_array(tensor).copy()
            halves = array.reshape(*array.shape[:-1], H, *((K // 2, 2) if interleaved else (2, K // 2)))
            for pair in pairs[layer]:
                halves[(..., pair, slice(None)) if interleaved else (..., pair)] = 0
            tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    return model


def shape(model: ir.Model, name: str) -> tuple[int, ...]:
    return tuple(int(size) for size in model.graph.initializers[name].shape or ())


def test_a_table_for_one_layer_shrinks_with_it() -> None:
    model = MODELS["tables_of_one_layer"]()
    state = pruned(model, *(found for layer in LAYERS for found in attention(layer, K)))
    assert not state.takes
    small = check_removal(model, state, [family(state, "first.q.weight", K)], slots=(0, 3, 5))
    assert {t.name: tuple(t.dims) for t in small.graph.initializer if t.name in ("cos", "sin")} == {
        "cos": (1, 1, S, K - 3),
        "sin": (1, 1, S, K),
    }


def test_a_scale_of_one_number_a_slot_stays_one_parameter() -> None:
    state = pruned(MODELS["shared_scale"](), ("first.up.weight", K, "exact"), BETWEEN)
    members = {member.value.name for member in family(state, "first.up.weight", K).members}
    assert members >= {"first.up.weight", "second.up.weight", "scale"}


def test_a_position_embedding_that_is_added_stays_tied_for_its_zeros_are_needed() -> None:
    for name, table in (("shared_positions", "positions.weight"), ("shared_scale_and_shift", "table")):
        state = ozgraph.analyze(MODELS[name]()).state
        (both,) = (found for found in state.families if found.atom.size == K)
        pruned(MODELS[name](), (both.dim, K, "exact"), BETWEEN)
        assert {member.value.name for member in both.members} >= {"first.up.weight", "second.up.weight", table}


def test_uses_that_want_the_same_share_one_gather() -> None:
    model = MODELS["tables_stored"]()
    state = ozgraph.analyze(model).state
    pairs = [family(state, f"{layer}.q.weight", K // 2) for layer in LAYERS]
    small = check_removal(model, state, pairs[:1], slots=(1, 2))
    added = [node for node in small.graph.node if node.op_type == "Gather"]
    assert len(added) == 2, "one of cosines and one of sines for queries and keys"
    assert {tuple(t.dims) for t in small.graph.initializer if t.name in ("cos", "sin")} == {(1, 1, S, K)}


def test_a_table_gives_way_to_parts_that_are_no_larger_together() -> None:
    model = MODELS["tables_stored"]()
    state = ozgraph.analyze(model).state
    pairs = [family(state, f"{layer}.q.weight", K // 2) for layer in LAYERS]
    small = check_removal(model, state, pairs)
    parts = {tensor.name: tuple(tensor.dims) for tensor in small.graph.initializer if "_part" in tensor.name}
    assert set(parts.values()) == {(1, 1, S, K // 2)} and len(parts) == 4
    assert not any(node.op_type == "Gather" for node in small.graph.node)
    assert not {"cos", "sin"} & {tensor.name for tensor in small.graph.initializer}


@pytest.mark.parametrize("declared", [False, True])
def test_positions_shrink_in_a_table_whose_slots_are_taken(declared: bool) -> None:
    model = MODELS["tables_of_mixed_positions"]()
    if declared:
        model = onnx.shape_inference.infer_shapes(model)
    wide = [(f"{layer}.up.weight", K, "exact") for layer in LAYERS]
    state = pruned(model, ("mix.weight", ROWS, "exact"), *wide)
    assert "places" in {member.value.name for member in family(state, "mix.weight", ROWS).members}


def test_tables_of_varying_length_are_taken_apart_at_every_length() -> None:
    state = halved(MODELS["tables_of_varying_length"]())
    assert state.verification is not None and state.verification.equal
    names = {name for name, size, _ in families_of(state) if size == K // 2}
    assert names == {f"{layer}.q.weight" for layer in LAYERS}


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in EXPORTED if name.startswith("gqa_decoder")])
def test_the_layers_of_an_exported_decoder_have_head_widths_of_their_own(name: str) -> None:
    model = EXPORTED[name]()
    state = ozgraph.analyze(model, rescale=True).state
    widths = [family for family in state.families if family.atom.size == 4 and family.exactness == "exact"]
    assert len(widths) >= 2
    for first in widths:
        check_removal(model, state, [first])


def test_what_a_branch_returns_is_no_operand_to_take_from() -> None:
    text = """<ir_version: 8, opset_import: ["": 17]>
    branches (float[2, 8] x, bool[1] on) => (float[2, 3] y) {
        made = Relu(x)
        here = MatMul(x, w)
        chosen = If (on) <
            then_branch = one () => (float[2, 8] a) { a = Sigmoid(here) },
            else_branch = other () => (float[2, 8] b) { b = Identity(made) }
        >
        moved = BatchNormalization(chosen, c, c, c, c)
        narrow = MatMul(moved, v)
        active = Relu(narrow)
        y = MatMul(active, u)
    }"""
    model = onnx.parser.parse_model(text)
    rng = np.random.default_rng(0)
    for name, sizes in (("w", (8, 8)), ("c", (8,)), ("v", (8, 6)), ("u", (6, 3))):
        weight = rng.random(sizes, dtype=np.float32) + 0.5
        model.graph.initializer.append(onnx.numpy_helper.from_array(weight, name))
    assert not pruned(model, ("v", 6, "exact")).takes

"""Inputs and outputs of the model that may shrink: caches, image channels, embeddings."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnx_ir import serde

import ozgraph
from models.building import Net
from models.feeding import feeds, run
from models.halving import NOTHING, HalfOfEveryFamily, zeroed_by_hand
from models.zeroing import CLOSE, reasons
from ozgraph.cli import run as command
from ozgraph.passes.promise import silenced
from ozgraph.passes.state import State

D, KV, R, K = 12, 4, 2, 6
CACHE = ("past_key", "past_value", "present_key_out", "present_value_out")


def decoder(layers: int = 1) -> onnx.ModelProto:
    """Grouped-query attention on a cache: 4 kv heads for 8 query heads, batch and lengths vary."""
    net = Net("decoder")
    x = net.input("x", ("batch", "sequence", D))
    made = []
    for layer in range(layers):
        suffix = f".{layer}" if layers > 1 else ""
        pasts = [net.input(f"past_{part}{suffix}", ("batch", KV, "past", K)) for part in ("key", "value")]
        prefix = f"layer{layer}." if layers > 1 else ""
        q = net.reshape(net.dense(x, D, KV * R * K, name=f"{prefix}q"), 0, 0, KV, R, K)
        q = net.transpose(q, 0, 2, 3, 1, 4)
        presents = []
        for past, part in zip(pasts, ("key", "value"), strict=True):
            y = net.reshape(net.dense(x, D, KV * K, name=f"{prefix}{part[0]}"), 0, 0, KV, K)
            present = net.op("Concat", past, net.transpose(y, 0, 2, 1, 3), axis=2)
            presents.append(net.op("Identity", present, hint=f"present_{part}{suffix}"))
        key, value = (net.unsqueeze(present, 2) for present in presents)
        scores = net.op("MatMul", q, net.transpose(key, 0, 1, 2, 4, 3))
        shares = net.op("Softmax", net.op("Mul", scores, net.number(K**-0.5)), axis=-1)
        y = net.transpose(net.op("MatMul", shares, value), 0, 3, 1, 2, 4)
        x = net.op("Add", x, net.dense(net.reshape(y, 0, 0, KV * R * K), KV * R * K, D, name=f"{prefix}o"))
        made += presents
    return net.build(x, *made)


def image() -> onnx.ModelProto:
    """A small convolutional network on six channels."""
    net = Net("image")
    x = net.conv(net.input("image", (2, 6, 5, 5)), 6, 8, name="conv1")
    return net.build(net.conv(net.op("Relu", x), 8, 3, name="conv2"))


def embedding() -> onnx.ModelProto:
    """Rows of a table, and a linear layer on them, 16 wide."""
    net = Net("embedding")
    x = net.op("Gather", net.const(net.normal(20, 8), "table"), net.input("ids", ("batch", "sequence"), np.int64))
    return net.build(net.op("Identity", net.dense(net.op("Tanh", x), 8, 16, name="head"), hint="vector"))


def shapes(model: onnx.ModelProto) -> dict[str, list[int | str]]:
    return {
        value.name: [size.dim_value or size.dim_param for size in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }


def agrees(model: onnx.ModelProto, state: State, small: onnx.ModelProto) -> None:
    """The smaller model on the kept positions is the original zeroed by hand, on the same inputs in full."""
    zeroed = zeroed_by_hand(model, state)
    assert zeroed is not None
    must_be_zero = silenced(state)
    for seed in (11, 12):
        given = feeds(model, seed)
        for name, axes in must_be_zero.items():
            for axis, positions in enumerate(axes):
                np.moveaxis(given[name], axis, 0)[positions] = 0
        wanted = run(zeroed, given)
        found = run(small, {name: kept(state, name, array) for name, array in given.items()})
        for output, full, other in zip(model.graph.output, wanted, found, strict=True):
            expected = kept(state, output.name, full)
            assert expected.size and np.abs(expected).max() > 0
            np.testing.assert_allclose(other, expected, rtol=0, atol=CLOSE * np.abs(expected).max())


def kept(state: State, name: str, array: np.ndarray) -> np.ndarray:
    """The positions of an input or output that stay."""
    for axis, dim in enumerate(state.axes[state.graph.values[name]]):
        mask = state.removed.keep(state.dims.ids(dim))
        if not mask.all():
            array = np.compress(mask, array, axis=axis)
    return array


def test_a_cache_keeps_its_heads_and_says_what_would_let_them_go() -> None:
    state = ozgraph.analyze(decoder()).state
    assert "it is an input of the model (--allow-io lets it shrink)" in reasons(state, "k.weight", 1)
    assert not {family.dim for family in state.families} & {"k.weight", "v.weight"}


@pytest.mark.parametrize("layers", [1, 2])
def test_key_and_value_heads_shrink_with_their_cache(layers: int) -> None:
    model = decoder(layers)
    names = ("past_*", "present_*")
    state = ozgraph.analyze(model, allow_io=names).state
    heads = [family for family in state.families if family.atom.size == KV]
    assert [family.exactness for family in heads] == ["exact"] * layers
    result = ozgraph.prune(
        model, target=ozgraph.Target(groups=0.45), allow_io=names, include=["*k.weight"], round_to=1, exact=True,
    )  # fmt: skip
    small = serde.serialize_model(result.model)
    rows = {row.name: row for row in result.report.signature}
    assert len(rows) == 4 * layers
    for name, row in rows.items():
        assert (row.kind, row.zeros) == (("input", True) if name.startswith("past") else ("output", False))
        assert row.before == (None, KV, None, K) and row.after[0] is row.after[2] is None
        assert shapes(small)[name][1] == row.after[1]
    assert sum(row.after[1] or 0 for row in rows.values()) < KV * len(rows)
    assert shapes(small)["x"] == ["batch", "sequence", D]
    agrees(model, result.state, small)


def test_widths_of_keys_shrink_apart_from_widths_of_values() -> None:
    model = decoder()
    half = HalfOfEveryFamily(everything=True)
    result = ozgraph.prune(model, target=NOTHING, passes=[half], allow_io="*_key*", thorough=True)
    assert not result.report.frozen_by_verification
    small = serde.serialize_model(result.model)
    # Heads need the values' cache as well, which may not shrink.
    assert shapes(small)["past_value"] == shapes(model)["past_value"]
    assert shapes(small)["past_key"] == ["batch", KV, "past", K // 2]
    agrees(model, result.state, small)


def fused(operator: str) -> onnx.ModelProto:
    """The same cache in one operator: Attention of opset 23, or onnxruntime's GroupQueryAttention."""
    net = Net("fused", opset=23)
    batch, length, past, width = 2, 1, 3, 8
    x = net.input("x", (batch, length, D))
    pasts = [net.input(name, (batch, KV, past, width)) for name in CACHE[:2]]
    q, k, v = (net.dense(x, D, heads * width, name=name) for name, heads in (("q", KV * R), ("k", KV), ("v", KV)))
    if operator == "Attention":
        y, *presents = net.ops(operator, q, k, v, "", *pasts, outputs=3, q_num_heads=KV * R, kv_num_heads=KV)
    else:
        ends = net.const(np.full(batch, past + length - 1, np.int32), "ends")
        total = net.const(np.array(past + length, np.int32), "total")
        y, *presents = net.ops(
            operator, q, k, v, *pasts, ends, total,
            outputs=3, domain="com.microsoft", num_heads=KV * R, kv_num_heads=KV,
        )  # fmt: skip
    after = (batch, KV, past + length, width)
    return net.build(net.dense(y, KV * R * width, D, name="o"), *presents, shapes=[(batch, length, D), after, after])


@pytest.mark.parametrize("operator", ["Attention", "GroupQueryAttention"])
def test_a_cache_inside_one_operator_shrinks_with_its_heads(operator: str) -> None:
    model = fused(operator)
    names = [*CACHE[:2], *(output.name for output in model.graph.output[1:])]
    result = ozgraph.prune(model, target=NOTHING, passes=[HalfOfEveryFamily()], allow_io=names)
    small = serde.serialize_model(result.model)
    assert [row.name for row in result.report.signature] == names
    assert [shapes(small)[name][1] for name in names] == [KV // 2] * 4
    assert not result.report.frozen_by_verification
    agrees(model, result.state, small)


def test_a_smaller_cache_runs_step_after_step_from_an_empty_one() -> None:
    model = decoder()
    result = ozgraph.prune(
        model, target=ozgraph.Target(groups=0.1), allow_io=CACHE, include=["k.weight", "v.weight"], round_to=1
    )
    zeroed, small = zeroed_by_hand(model, result.state), serde.serialize_model(result.model)
    assert zeroed is not None
    rng = np.random.default_rng(3)
    steps = [rng.standard_normal((2, 1, D)).astype(np.float32) for _ in range(4)]
    outputs = []
    for chosen in (zeroed, small):
        sizes = [shapes(chosen)[name] for name in CACHE[:2]]
        caches = [np.zeros((2, heads, 0, width), np.float32) for _, heads, _, width in sizes]
        seen = []
        for x in steps:
            y, *caches = run(chosen, {"x": x, **dict(zip(CACHE[:2], caches, strict=True))})
            seen.append(y)
        outputs.append(seen)
    assert shapes(small)["past_key"] != shapes(model)["past_key"]
    for wanted, found in zip(*outputs, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)


def test_elimination_takes_heads_out_of_the_cache_that_are_zero_in_the_file_and_no_others() -> None:
    model = decoder()
    for tensor in model.graph.initializer:
        if tensor.name[:2] in ("q.", "k.", "v."):
            array = numpy_helper.to_array(tensor).copy()
            width = array.shape[-1] // KV
            array[..., 2 * width : 3 * width] = 0
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    assert ozgraph.eliminate(model).report.removed_slots == 0
    result = ozgraph.eliminate(model, allow_io=True)
    small = serde.serialize_model(result.model)
    assert shapes(small)["past_key"] == ["batch", KV - 1, "past", K]
    assert {row.name for row in result.report.signature} == set(CACHE)
    agrees(model, result.state, small)


def test_elimination_keeps_an_input_that_only_might_be_zero() -> None:
    assert ozgraph.eliminate(image(), allow_io=True).report.removed_slots == 0


def test_elimination_keeps_a_feature_that_only_meets_a_weight_of_zero() -> None:
    net = Net("skip")
    weight = net.normal(D, D)
    weight[:, 3] = 0
    x = net.input("x", ("batch", D))
    y = net.op("Add", x, net.op("MatMul", x, net.const(weight, "fc1.weight")))
    model = net.build(net.dense(y, D, 5, name="fc2"))
    assert ozgraph.eliminate(model, allow_io="x").report.removed_slots == 0


def test_channels_of_an_image_go_with_their_consumers_and_may_hold_anything() -> None:
    model = image()
    assert "it is an input of the model (--allow-io lets it shrink)" in reasons(
        ozgraph.analyze(model).state, "conv1.weight", 1
    )
    result = ozgraph.prune(
        model, target=ozgraph.Target(groups=0.1), allow_io=["image"], include=["conv1.weight"], round_to=1,
        criterion=lambda state, family: np.arange(family.atom.size) + 100.0 * (family.atom.size != 6),
        normalise="global",
    )  # fmt: skip
    (row,) = result.report.signature
    assert (row.kind, row.name, row.zeros) == ("input", "image", False)
    assert row.before == (2, 6, 5, 5) and row.after[1] is not None and row.after[1] < 6
    (family,) = (family for family in result.state.families if family.atom.size == 6)
    assert [(m.value.name, m.axis, m.role) for m in family.members] == [("conv1.weight", 1, "consumer")]
    assert not silenced(result.state)
    agrees(model, result.state, serde.serialize_model(result.model))


def test_an_embedding_gets_narrower() -> None:
    model = embedding()
    assert "it is an output of the model (--allow-io lets it shrink)" in reasons(
        ozgraph.analyze(model).state, "head.weight", 1
    )
    output = model.graph.output[0].name
    result = ozgraph.prune(
        model, target=ozgraph.Target(groups=0.4), allow_io=output, include=["head.weight"], round_to=1
    )
    small = serde.serialize_model(result.model)
    assert [(row.name, row.before) for row in result.report.signature] == [(output, (None, None, 16))]
    assert result.report.signature[0].after == tuple(s if isinstance(s, int) else None for s in shapes(small)[output])
    agrees(model, result.state, small)


def test_axes_that_vary_never_shrink() -> None:
    state = ozgraph.analyze(decoder(), allow_io=True).state
    for name in CACHE:
        dims = state.axes[state.graph.values[name]]
        assert [bool((state.dims.ids(dim) >= 0).any()) for dim in dims] == [False, True, False, True]


def test_drift_is_measured_on_what_is_left_of_the_signature() -> None:
    result = ozgraph.prune(image(), max_drift=1e9, allow_io=True, round_to=1)
    assert {row.name for row in result.report.signature} >= {"image"}


# -- on the command line ---------------------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    onnx.save(decoder(), tmp_path / "decoder.onnx")
    return str(tmp_path / "decoder.onnx"), str(tmp_path / "small.onnx")


def prune(files: tuple[str, str], *more: str) -> int:
    choice = ["--include", "k.weight", "--include", "v.weight", "--round-to", "1", "--target-groups", "0.15", "-q"]
    return command(["prune", files[0], "-o", files[1], *choice, *more])


def test_the_report_says_how_the_signature_changed(files: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert prune(files, "--allow-io") == 0
    shown = capsys.readouterr().out
    assert "The signature changed" in shown and "? × 4 × ? × 6" in shown
    assert "must have been zero" in shown
    assert prune(files, "--json", "--allow-io", "past_*", "--allow-io", "present_*") == 0
    rows = json.loads(capsys.readouterr().out)["signature"]
    assert {row["name"] for row in rows} == set(CACHE)
    assert rows[0]["before"] == [None, KV, None, K] and rows[0]["zeros"] is True


def test_analysis_names_what_a_family_changes(files: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["analyze", files[0], "-q", "--allow-io"]) == 0
    assert "changes the signature: past_key, past_value, " in capsys.readouterr().out
    assert command(["analyze", files[0], "-q"]) == 0
    assert "--allow-io lets it shrink" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "hint"), [("past_keys", "did you mean 'past_key'?"), ("zzz*", "there are x, past_key")]
)
def test_a_wrong_name_is_one_line(
    files: tuple[str, str], capsys: pytest.CaptureFixture[str], name: str, hint: str
) -> None:
    assert prune(files, "--allow-io", name) == 2
    message = capsys.readouterr().err
    assert f"--allow-io: the model has no input or output {name!r}; {hint}" in message and message.count("\n") == 1


def test_a_model_that_is_taken_for_a_name_is_told_so(
    files: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(["analyze", "--allow-io", files[0]]) == 2
    message = capsys.readouterr().err
    assert "Missing argument 'MODEL'" in message and "'--allow-io' takes the word after it as its NAME" in message


def test_files_of_different_signatures_do_not_compare_but_can_be_timed(
    files: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert prune(files, "--allow-io") == 0
    capsys.readouterr()
    assert command(["verify", *files, "-q"]) == 2
    assert "past_key is ?x4x?x6 in one and ?x" in capsys.readouterr().err
    assert command(["bench", *files, "-q", "--rounds", "1"]) == 0


def test_given_inputs_fit_one_of_two_signatures(files: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert prune(files, "--allow-io") == 0
    inputs = Path(files[0]).with_name("inputs.npz")
    np.savez(inputs, **feeds(decoder()))
    capsys.readouterr()
    assert command(["bench", *files, "-q", "--inputs", str(inputs)]) == 2
    assert "inputs have other sizes; leave --inputs out" in capsys.readouterr().err
    # For pruning they are the original's, in full.
    assert prune(files, "--allow-io", "--inputs", str(inputs)) == 0

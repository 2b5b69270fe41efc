"""Made inputs fit the operators that consume them; given inputs are checked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import numpy_helper

from ozgraph.errors import UsageError
from ozgraph.frontends.onnx import load
from ozgraph.graph import Array, Graph
from ozgraph.numerics.inputs import load_inputs, make_inputs, perturbed
from ozgraph.numerics.sessions import open_session


def graph_of(path: Path, text: str, initializers: dict[str, Array] | None = None) -> Graph:
    model = onnx.parser.parse_model(f'<ir_version: 9, opset_import: ["" : 18, "com.microsoft" : 1]> agraph {text}')
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in (initializers or {}).items())
    onnx.save(model, path)
    return load(path)


def made(
    path: Path,
    text: str,
    constants: dict[str, Array] | None = None,
    seeds: int = 8,
    shapes: dict[str, tuple[int, ...]] | None = None,
) -> list[dict[str, Array]]:
    """Inputs from several seeds, each run once by onnxruntime, so that an index out of range would show."""
    graph = graph_of(path / "m.onnx", text, constants or {})
    sizes = shapes or {value.name: value.shape for value in graph.inputs if value.shape is not None}
    sets = [make_inputs(graph, sizes, seed) for seed in range(seeds)]
    session = open_session(path / "m.onnx")
    for feeds in sets:
        session.run(feeds)
    return sets


def floats(*shape: int) -> Array:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def test_floats_are_normal_and_follow_the_seed(tmp_path: Path) -> None:
    graph = graph_of(tmp_path / "m.onnx", "(float[2,500] x, float[2,500] z) => (float[2,500] y) { y = Add(x, z) }")
    first, again, other = (make_inputs(graph, {}, seed) for seed in (0, 0, 1))
    assert first["x"].dtype == np.float32
    assert abs(float(first["x"].mean())) < 0.2
    assert 0.8 < float(first["x"].std()) < 1.2
    assert np.array_equal(first["x"], again["x"])
    assert not np.array_equal(first["x"], other["x"])
    assert not np.array_equal(first["x"], first["z"])


def test_what_is_averaged_over_many_places_still_tells_inputs_apart(tmp_path: Path) -> None:
    runs = made(tmp_path, "(float[2, 3, 64, 64] x) => (float[2, 3, 64, 64] y) { y = Relu(x) }", seeds=16)
    values = np.stack([feeds["x"] for feeds in runs])
    assert abs(values.mean()) < 0.2 and abs(values.std() - 1) < 0.2
    # Independent places would leave 1/64 of the spread in the mean over 64 x 64 of them.
    assert values.mean(axis=(-1, -2)).std() > 0.3
    # Each place has something of its own, and neighbours have something in common.
    steps = np.diff(values, axis=-1)
    assert 0.05 < np.median(np.abs(steps)) < 0.7


def test_channels_and_short_axes_stay_independent(tmp_path: Path) -> None:
    runs = made(tmp_path, "(float[4, 96] a, float[1, 4, 8] b) => (float[4, 96] y) { y = Relu(a) }", seeds=64)
    for name in ("a", "b"):
        values = np.stack([feeds[name].ravel() for feeds in runs])
        between = np.corrcoef(values[:, :32], rowvar=False) - np.eye(32)
        assert np.abs(between).max() < 0.6 and abs(between.mean()) < 0.05


def test_token_ids_stay_inside_the_embedding(tmp_path: Path) -> None:
    text = "(int64[2,9] ids) => (float[2,9,4] y) { y = Gather(table, ids) }"
    sets = made(tmp_path, text, {"table": floats(7, 4)})
    values = np.concatenate([feeds["ids"].ravel() for feeds in sets])
    assert set(values) == set(range(7))


def test_the_range_is_found_through_arithmetic_and_reshapes(tmp_path: Path) -> None:
    text = """(int32[2,9] ids) => (float[18,4] y)
        { a = Cast<to=7>(ids)  b = Add(a, two)  c = Reshape(b, flat)  d = Unsqueeze(c, zero)
          e = Squeeze(d, zero)  y = Gather(table, e) }"""
    constants = {"two": np.array(2), "flat": np.array([-1]), "zero": np.array([0])}
    sets = made(tmp_path, text, {"table": floats(6, 4)} | constants)
    values = np.concatenate([feeds["ids"].ravel() for feeds in sets])
    assert values.dtype == np.int32
    assert values.max() == 3
    # Row 0 is there for -2, but ids start at 0 whatever is added to them.
    assert values.min() == 0


def test_subtraction_turns_the_range_around(tmp_path: Path) -> None:
    text = "(int64[2,9] ids) => (float[2,9,4] y) { a = Sub(five, ids)  y = Gather(table, a) }"
    sets = made(tmp_path, text, {"table": floats(3, 4), "five": np.array(5)})
    assert {int(i) for feeds in sets for i in feeds["ids"].ravel()} == {3, 4, 5}


def test_indexes_follow_the_axis_that_they_index(tmp_path: Path) -> None:
    text = """(float[2,3,5] x, int64[2,2,5] e, int64[4,2] n, int64[1,6] g)
        => (float[2,2,5] a, float[4,5] b, float[2,1,6,5] c)
        { a = GatherElements<axis=1>(x, e)  b = GatherND(x, n)  c = Gather<axis=1>(x, g) }"""
    sets = made(tmp_path, text, seeds=20)
    assert {int(i) for feeds in sets for i in feeds["e"].ravel()} == {0, 1, 2}
    assert {int(i) for feeds in sets for i in feeds["n"].ravel()} == {0, 1}
    assert {int(i) for feeds in sets for i in feeds["g"].ravel()} == {0, 1, 2}


def test_scatter_and_one_hot_indexes_are_in_range(tmp_path: Path) -> None:
    text = """(float[4,3] x, int64[2,3] s, float[2,3] u, int64[5] h) => (float[4,3] a, float[5,6] b)
        { a = ScatterElements<axis=0>(x, s, u)  b = OneHot(h, depth, ends) }"""
    sets = made(tmp_path, text, {"depth": np.array(6), "ends": np.array([0, 1], np.float32)})
    assert max(int(feeds["s"].max()) for feeds in sets) == 3
    assert max(int(feeds["h"].max()) for feeds in sets) == 5


def test_two_consumers_meet_in_the_smaller_range(tmp_path: Path) -> None:
    text = "(int64[2,9] ids) => (float[2,9,4] y) { a = Gather(t, ids)  b = Gather(u, ids)  y = Add(a, b) }"
    sets = made(tmp_path, text, {"t": floats(90, 4), "u": floats(3, 4)})
    assert max(int(feeds["ids"].max()) for feeds in sets) == 2


MASKED = """(float[2,9,4] x, {kind}[2,9] {name}) => (float[2,9,9] y)
    {{ t = Transpose<perm=[0,2,1]>(x)  s = MatMul(x, t)  f = Cast<to=1>({name})  k = Unsqueeze(f, one)
       o = Sub(unit, k)  p = Mul(o, low)  m = Add(s, p)  y = Softmax<axis=-1>(m) }}"""
MASK_CONSTANTS = {"one": np.array([1]), "unit": np.array(1, np.float32), "low": np.array(-1e4, np.float32)}


@pytest.mark.parametrize("name", ["attention_mask", "input_2"])
@pytest.mark.parametrize("kind", ["int64", "float", "bool"])
def test_masks_are_ones_on_the_left_whatever_their_type_and_name(tmp_path: Path, kind: str, name: str) -> None:
    sets = made(tmp_path, MASKED.format(kind=kind, name=name), MASK_CONSTANTS)
    for feeds in sets:
        mask = feeds[name].astype(np.int64)
        assert set(mask.ravel()) <= {0, 1}
        assert np.all(mask[:, 0] == 1)
        assert np.all(np.diff(mask, axis=1) <= 0)
    assert any((feeds[name] == 0).any() for feeds in sets)


def test_a_softmax_over_an_input_does_not_make_it_a_mask(tmp_path: Path) -> None:
    sets = made(tmp_path, "(float[2,9] x) => (float[2,9] y) { h = Mul(x, x)  y = Softmax(h) }")
    assert len(np.unique(sets[0]["x"])) == 18


def test_token_ids_that_make_their_own_mask_are_still_token_ids(tmp_path: Path) -> None:
    text = """(int64[2,9] ids) => (float[2,9,9] y)
        { x = Gather(table, ids)  t = Transpose<perm=[0,2,1]>(x)  s = MatMul(x, t)  z = Equal(ids, pad)
          k = Unsqueeze(z, one)  m = Where(k, low, s)  y = Softmax<axis=-1>(m) }"""
    sets = made(tmp_path, text, {"table": floats(50, 4), "pad": np.array(1)} | MASK_CONSTANTS)
    assert max(int(feeds["ids"].max()) for feeds in sets) > 1


def test_a_mask_that_counts_positions_stays_a_mask(tmp_path: Path) -> None:
    text = """(int64[2,9] mask, float[2,9,9] s) => (float[2,9,4] p, float[2,9,9] y)
        { c = CumSum(mask, axis)  e = Add(c, step)  p = Gather(table, e)
          b = Cast<to=9>(mask)  k = Unsqueeze(b, ones)  m = Where(k, s, low)  y = Softmax<axis=-1>(m) }"""
    constants = {"axis": np.array(1), "ones": np.array([1]), "step": np.array(1)}
    sets = made(tmp_path, text, {"table": floats(11, 4)} | MASK_CONSTANTS | constants)
    assert {int(i) for feeds in sets for i in feeds["mask"].ravel()} == {0, 1}
    assert all(np.all(np.diff(feeds["mask"], axis=1) <= 0) for feeds in sets)


def test_positions_count_up_inside_their_table(tmp_path: Path) -> None:
    text = "(int64[2,9] position_ids) => (float[2,9,4] y) { y = Gather(table, position_ids) }"
    sets = made(tmp_path, text, {"table": floats(12, 4)})
    for feeds in sets:
        assert np.all(np.diff(feeds["position_ids"], axis=1) == 1)
        assert feeds["position_ids"].max() < 12
    assert len({int(feeds["position_ids"][0, 0]) for feeds in sets}) > 1


def test_sequence_lengths_lie_within_the_sequence(tmp_path: Path) -> None:
    text = """(float[5,2,3] x, int32[2] n, int64[2] r) => (float[5,1,2,4] y, float[5,2,3] z)
        { y = GRU<hidden_size=4>(x, w, u, , n)  z = ReverseSequence<time_axis=0, batch_axis=1>(x, r) }"""
    sets = made(tmp_path, text, {"w": floats(1, 12, 3), "u": floats(1, 12, 4)}, seeds=20)
    assert {int(i) for feeds in sets for i in feeds["n"]} == {1, 2, 3, 4, 5}
    assert {int(i) for feeds in sets for i in feeds["r"]} == {1, 2, 3, 4, 5}


def test_operands_that_are_sizes_are_sensible(tmp_path: Path) -> None:
    text = """(float[4,6] x, int64[1] k, int64[1] end) => (float[4,K] v, int64[4,K] i, float[4,M] s)
        { v, i = TopK(x, k)  s = Slice(x, start, end, axis) }"""
    sets = made(tmp_path, text, {"start": np.array([0]), "axis": np.array([1])})
    assert all(1 <= int(feeds["k"][0]) <= 6 for feeds in sets)
    assert all(1 <= int(feeds["end"][0]) <= 6 for feeds in sets)


def test_an_axis_that_varies_bounds_indexes_at_every_size(tmp_path: Path) -> None:
    graph_of(tmp_path / "m.onnx", "(float[N,4] x, int64[3] i) => (float[3,4] y) { h = Relu(x)  y = Gather(h, i) }")
    graph = load(tmp_path / "m.onnx", shapes={"x": (9, 4)})
    for size in (3, 9):
        sets = [make_inputs(graph, {"x": (size, 4), "i": (3,)}, seed) for seed in range(20)]
        assert max(int(feeds["i"].max()) for feeds in sets) == size - 1


def test_logarithms_get_what_they_are_real_on(tmp_path: Path) -> None:
    text = "(float[2,50] x, float[2,50] z) => (float[2,50] y, float[2,50] w) { y = Log(x)  w = Acos(z) }"
    feeds = made(tmp_path, text)[0]
    assert feeds["x"].min() > 0
    assert np.abs(feeds["z"]).max() <= 1


def test_images_of_bytes_use_the_whole_byte(tmp_path: Path) -> None:
    text = "(uint8[1,3,16,16] image) => (float[1,3,16,16] y) { y = Cast<to=1>(image) }"
    feeds = made(tmp_path, text)[0]
    assert feeds["image"].dtype == np.uint8
    assert feeds["image"].max() > 200


def test_booleans_are_both(tmp_path: Path) -> None:
    feeds = made(tmp_path, "(bool[4,16] b) => (bool[4,16] y) { y = Not(b) }")[0]
    assert set(feeds["b"].ravel()) == {False, True}


def test_strings_ask_for_inputs(tmp_path: Path) -> None:
    text = '(string[2] s) => (int64[2] y) { y = LabelEncoder<keys_strings=["a"], values_int64s=[1]>(s) }'
    model = onnx.parser.parse_model(f'<ir_version: 9, opset_import: ["" : 18]> agraph {text}')
    model.graph.node[0].domain = "ai.onnx.ml"
    model.opset_import.append(onnx.helper.make_opsetid("ai.onnx.ml", 3))
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(UsageError, match=r"'s'.*--inputs"):
        make_inputs(load(tmp_path / "m.onnx"), {}, 0)


TWO = "(float[N,4] x, int64[N] i) => (float[N,4] y) { h = Gather(x, i)  y = Add(h, x) }"


def test_given_inputs_are_cast_to_the_type_of_the_model(tmp_path: Path) -> None:
    graph = graph_of(tmp_path / "m.onnx", TWO)
    np.savez(tmp_path / "in.npz", x=np.ones((6, 4)), i=np.zeros(6, np.int32))
    (feeds,) = load_inputs(tmp_path / "in.npz", graph)
    assert feeds["x"].dtype == np.float32
    assert feeds["x"].shape == (6, 4)
    assert feeds["i"].dtype == np.int64


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.ones((6, 4)), "j": np.zeros(6, np.int64)}, "no input 'j'"),
        ({"X": np.ones((6, 4)), "i": np.zeros(6, np.int64)}, "no input 'X'"),
        ({"x": np.ones((6, 4))}, "no array for input 'i'"),
        ({"x": np.ones((6, 5)), "i": np.zeros(6, np.int64)}, "'x' takes the shape \\?x4, not 6x5"),
        ({"x": np.ones(4), "i": np.zeros(6, np.int64)}, "'x' takes the shape"),
        ({"x": np.ones((6, 4)), "i": np.zeros(6)}, "'i' takes int64, not float64"),
        ({"x": np.full((6, 4), None), "i": np.zeros(6, np.int64)}, "plain arrays"),
    ],
)
def test_given_inputs_that_do_not_fit_get_a_sentence(tmp_path: Path, arrays: dict[str, Array], message: str) -> None:
    graph = graph_of(tmp_path / "m.onnx", TWO)
    np.savez(tmp_path / "in.npz", **arrays)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=message):
        load_inputs(tmp_path / "in.npz", graph)


def test_files_that_are_not_archives_get_a_sentence(tmp_path: Path) -> None:
    graph = graph_of(tmp_path / "m.onnx", TWO)
    (tmp_path / "junk.npz").write_bytes(b"junk")
    (tmp_path / "short.npz").write_bytes(b"PK\x03\x04")
    (tmp_path / "empty.npz").write_bytes(b"")
    np.save(tmp_path / "single.npy", np.ones(3))
    np.savez(tmp_path / "whole.npz", x=np.ones((6, 4)), i=np.zeros(6))
    data = (tmp_path / "whole.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(data[:100] + b"\x00" * 60 + data[160:])
    for name in ("junk.npz", "short.npz", "empty.npz", "single.npy", "missing.npz", "cut.npz"):
        with pytest.raises(UsageError, match=name):
            load_inputs(tmp_path / name, graph)
    with pytest.raises(UsageError):
        load_inputs(tmp_path, graph)


def test_a_perturbed_companion_stays_in_range() -> None:
    feeds = {"x": floats(2, 9), "i": np.arange(9).reshape(1, 9), "k": np.array(3), "z": np.zeros(4, np.float32)}
    other = perturbed(feeds)
    assert not np.array_equal(other["x"], feeds["x"])
    assert other["x"].dtype == np.float32
    assert not np.array_equal(other["z"], feeds["z"])
    assert sorted(other["i"].ravel()) == list(range(9))
    assert not np.array_equal(other["i"], feeds["i"])
    assert other["k"] == 3

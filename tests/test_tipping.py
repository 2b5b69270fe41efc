"""Results that hang on rounding: which inputs tip, what is compared in their place, and which family is blamed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import numpy_helper

from ozgraph.dims import Atom
from ozgraph.frontends.onnx import load
from ozgraph.graph import Array
from ozgraph.numerics import compare as comparing
from ozgraph.numerics.inputs import make_inputs
from ozgraph.numerics.precision import nudged
from ozgraph.numerics.runners import onnxruntime_engine
from ozgraph.numerics.sessions import CPU
from ozgraph.numerics.tipping import Shaken, Tipping
from ozgraph.passes.state import State
from ozgraph.passes.trials import Bench, failed
from ozgraph.passes.verify import Verify
from ozgraph.results import VerifyReport

WIDTH = 24
CHOICE = """
choice (float[N,24] x) => (float[N,6] y) {
    left = MatMul(x, a)
    right = MatMul(x, b)
    lead = MatMul(x, lean)
    ahead = Sub(lead, much)
    apart = Relu(ahead)
    behind = Sub(right, apart)
    moved = Add(behind, nothing)
    scores = Concat <axis = 1> (left, moved)
    best = ArgMax <axis = 1, keepdims = 0> (scores)
    row = Gather <axis = 0> (rows, best)
    by = MatMul(x, scale)
    y = Mul(row, by)
}
"""
"""Of two rows the one with the higher score, times something: even, unless an input leans far enough to one side."""
CLASSES = CHOICE.replace("float[N,6] y", "int64[N] best").partition("    row")[0] + "}"
UP = np.array([3e-7], np.float32)


def numbers(much: float) -> dict[str, Array]:
    random = np.random.default_rng(3)
    even = random.standard_normal((WIDTH, 1)).astype(np.float32)
    return {
        "a": even,
        "b": even.copy(),
        "lean": random.standard_normal((WIDTH, 1)).astype(np.float32),
        "much": np.array([much], np.float32),
        "nothing": np.zeros(1, np.float32),
        "rows": random.standard_normal((2, 6)).astype(np.float32),
        "scale": random.standard_normal((WIDTH, 1)).astype(np.float32),
    }


def written(path: Path, text: str, weights: dict[str, Array]) -> Path:
    model = onnx.parser.parse_model(f'<ir_version: 9, opset_import: ["" : 18]> {text}')
    model.graph.initializer.extend(
        numpy_helper.from_array(array, name)
        for name, array in weights.items()
        if f" {name}" in text or f"({name}" in text
    )
    onnx.save(model, path)
    return path


def compared(folder: Path, text: str, much: float, seeds: Sequence[int], **changes: Array) -> VerifyReport:
    weights = numbers(much)
    first, second = (written(folder / f"{k}.onnx", text, weights | new) for k, new in enumerate(({}, changes)))
    graph = load(first, shapes={"x": (1, WIDTH)})
    return comparing.compare(first, second, graph, seeds=seeds)


def leaning(much: float, folder: Path) -> tuple[list[int], list[int]]:
    """Seeds whose inputs leave the scores even, and those whose inputs do not."""
    graph = load(written(folder / "seeds.onnx", CHOICE, numbers(much)), shapes={"x": (1, WIDTH)})
    lead = [
        float((make_inputs(graph, {"x": (1, WIDTH)}, seed)["x"] @ numbers(much)["lean"]).item()) for seed in range(9)
    ]
    return [k for k, each in enumerate(lead) if each < much], [k for k, each in enumerate(lead) if each > much + 0.1]


def test_inputs_that_tip_are_replaced_where_models_differ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    even, clear = leaning(0.5, tmp_path)
    seeds = [clear[0], even[0], clear[1]]
    report = compared(tmp_path, CHOICE, 0.5, seeds, nothing=UP)
    assert report.equal, report.failure
    assert report.compared == ("y",) and report.runs == 3
    monkeypatch.setattr(Shaken, "tipping", lambda *_: Tipping(frozenset(), frozenset()))
    assert not compared(tmp_path, CHOICE, 0.5, seeds, nothing=UP).equal


def test_what_differs_on_inputs_that_do_not_tip_is_not_excused(tmp_path: Path) -> None:
    even, clear = leaning(0.5, tmp_path)
    rows = numbers(0.5)["rows"]
    report = compared(tmp_path, CHOICE, 0.5, [clear[0], even[0], clear[1]], nothing=UP, rows=rows * np.float32(1.001))
    assert not report.equal and "'y'" in (report.failure or "")


def test_where_all_inputs_tip_the_difference_stands(tmp_path: Path) -> None:
    assert not compared(tmp_path, CHOICE, 1e6, [0, 1, 2], nothing=UP).equal


def test_inputs_that_a_user_gave_are_not_replaced(tmp_path: Path) -> None:
    even, clear = leaning(0.5, tmp_path)
    weights = numbers(0.5)
    first, second = (
        written(tmp_path / f"{k}.onnx", CHOICE, weights | new) for k, new in enumerate(({}, {"nothing": UP}))
    )
    graph = load(first, shapes={"x": (1, WIDTH)})
    given = [make_inputs(graph, {"x": (1, WIDTH)}, seed) for seed in (clear[0], clear[1], even[0])]
    assert comparing.compare(first, second, graph, inputs=given[:2]).equal
    assert not comparing.compare(first, second, graph, inputs=given).equal


def test_integers_that_hang_on_rounding_are_compared_before_the_choice(tmp_path: Path) -> None:
    even, clear = leaning(0.5, tmp_path)
    seeds = [clear[0], even[0], even[1]]
    report = compared(tmp_path, CLASSES, 0.5, seeds, nothing=UP)
    assert report.equal, report.failure
    assert report.compared and "best" not in report.compared
    assert not compared(tmp_path, CLASSES, 0.5, seeds, nothing=UP * 1000).equal


def test_a_model_that_chooses_nothing_is_not_shaken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> Tipping:
        raise AssertionError

    monkeypatch.setattr(Shaken, "tipping", never)
    smooth = CHOICE.replace("ArgMax <axis = 1, keepdims = 0> (scores)", "Softmax <axis = 1> (scores)")
    smooth = smooth.replace("Gather <axis = 0> (rows, best)", "MatMul(best, rows)")
    assert not compared(tmp_path, smooth, 0.5, [0, 1, 2], rows=numbers(0.5)["rows"] * np.float32(1.001)).equal


@pytest.mark.parametrize(
    "leap",
    [
        "Sign(apart_by)",
        "Floor(apart_by)",
        "Ceil(the_other_way)",
        "Round(between)",
        "Mod <fmod = 1> (past_one, one)",
    ],
)
def test_floating_numbers_that_leap_tip_as_choices_do(leap: str, tmp_path: Path) -> None:
    text = (
        CHOICE.partition("    best")[0]
        + f"""
    apart_by = Sub(left, moved)
    the_other_way = Neg(apart_by)
    between = Add(apart_by, middle)
    past_one = Add(apart_by, one)
    leap = {leap}
    by = MatMul(x, scale)
    fit = Add(leap, by)
    y = Mul(fit, rows)
}}"""
    )
    more = {"middle": np.array([1.5], np.float32), "one": np.array([1.0], np.float32)}
    even, clear = leaning(0.5, tmp_path)
    weights = numbers(0.5) | more | {"rows": numbers(0.5)["rows"][:1]}
    first, second = (
        written(tmp_path / f"{k}.onnx", text, weights | new) for k, new in enumerate(({}, {"nothing": UP}))
    )
    graph = load(first, shapes={"x": (1, WIDTH)})
    assert (
        Shaken(first, onnxruntime_engine(optimise=True, threads=1, providers=CPU), ("y",), tmp_path)
        .tipping([make_inputs(graph, {"x": (1, WIDTH)}, seed) for seed in [clear[0], *even]])
        .runs
    )
    assert comparing.compare(first, second, graph, seeds=[clear[0], even[0], clear[1]]).equal


def test_only_those_inputs_tip_whose_scores_are_even(tmp_path: Path) -> None:
    even, clear = leaning(0.5, tmp_path)
    path = written(tmp_path / "model.onnx", CHOICE, numbers(0.5))
    graph = load(path, shapes={"x": (1, WIDTH)})
    seeds = sorted(even + clear)
    runs = [make_inputs(graph, {"x": (1, WIDTH)}, seed) for seed in seeds]
    engine = onnxruntime_engine(optimise=True, threads=1, providers=CPU)
    found = Shaken(path, engine, ("y",), tmp_path).tipping(runs)
    tipped = {seeds[run] for run in found.runs}
    assert tipped <= set(even) and len(tipped) > len(even) / 2
    assert not list(tmp_path.rglob("*nudged*")), "twins are gone once they ran"


def test_numbers_move_by_two_roundings_at_most_there_and_back(tmp_path: Path) -> None:
    weights = numbers(0.5)
    weights["a"][:4] = 0
    path = written(tmp_path / "model.onnx", CHOICE, weights)
    one, other = (
        {
            each.name: numpy_helper.to_array(each)
            for each in onnx.load(nudged(path, tmp_path, 0, sign)).graph.initializer
        }
        for sign in (1, -1)
    )
    for name, array in weights.items():
        up, down = one[name], other[name]
        if array.ndim < 2:
            assert np.array_equal(up, array) and np.array_equal(down, array)
            continue
        assert np.array_equal(up == array, down == array), "what moves one way moves the other way, too"
        assert (np.abs(up - array) <= 2 * np.spacing(np.abs(array))).all()
        assert ((up - array) * (down - array) <= 0).all()
    assert not one["a"][:4].any() and (one["scale"] != weights["scale"]).any()


class Hiding(Bench):
    """Wrong with one family, unless all others lose slots as well: what those do hides it."""

    def __init__(self, bad: Atom, good: Sequence[Atom]) -> None:
        self.bad, self.good = bad, good

    def compare(self, atoms: Sequence[Atom]) -> VerifyReport:
        wrong = self.bad in atoms and not set(self.good) <= set(atoms)
        return failed("wrong") if wrong else VerifyReport(0.0, 0.0, 1e-5, ("y",), 1)

    def trial(self, trial: State) -> VerifyReport:
        raise AssertionError

    def finish(self, output: Path | None) -> VerifyReport:
        raise AssertionError


def test_what_failed_is_handed_on_with_its_families(monkeypatch: pytest.MonkeyPatch) -> None:
    atoms = [Atom(4, 4 * number) for number in range(6)]
    monkeypatch.setattr(Bench, "atoms", property(lambda _: atoms))
    bench = Hiding(atoms[4], atoms[:4] + atoms[5:])
    report, failing = Verify()._attempt(bench)
    assert not report.equal and atoms[4] in failing and len(failing) == 3
    assert list(failing) == [atom for atom in atoms if atom in failing], "in the order of the model"


def test_the_family_at_fault_is_one_of_those_that_failed_together() -> None:
    atoms = [Atom(4, 4 * number) for number in range(6)]
    bench = Hiding(atoms[4], atoms[:4] + atoms[5:])
    half = [atoms[1], atoms[2], atoms[4]]
    assert not bench.compare(half).equal and bench.compare(atoms).equal
    assert bench.culprit(half) is atoms[4]

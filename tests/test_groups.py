"""Groups as plain data: the same slots and the same costs as the analysis that they were made from."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from models.exported import EXPORTED
from models.rows import ROWS
from ozgraph import api
from ozgraph.errors import UsageError
from ozgraph.groups import Count, Groups, Pattern, Polynomial, patterns_of
from ozgraph.passes.state import Removal, State
from ozgraph.passes.trainable import groups_of

NETS = [name for name in EXPORTED if not name.endswith(("_raw", "_dynamic"))]


def found(model: onnx.ModelProto) -> tuple[State, Groups]:
    state = api.analyze(model).state
    return state, groups_of(state)


def check_slots(state: State, groups: Groups) -> None:
    """Every occurrence says what the dims say, and none is missing."""
    for family, said in zip(state.families, groups, strict=True):
        expected: dict[tuple[str, int], list[list[int]]] = {}
        for value, axis in family.slices:
            table = state.dims.ids(state.axes[value][axis], frozen=True) - family.atom.base
            inside = (table >= 0) & (table < family.atom.size)
            columns = np.where(inside, table, -1).T.tolist()
            expected[value.name, axis] = [column for column in columns if max(column) >= 0]
        given: dict[tuple[str, int], list[list[int]]] = {}
        for occurrence in said.occurrences:
            given.setdefault((occurrence.tensor, occurrence.axis), []).append(occurrence.slots().tolist())
        assert given == expected
        assert {(o.tensor, o.axis) for o in said.zeroed} == {(m.value.name, m.axis) for m in family.members}
        assert {m.role for m in family.members} >= {o.role for o in said.zeroed}


def check_costs(state: State, groups: Groups, seed: int) -> None:
    """What a random selection leaves, by polynomials and by the graph."""
    generator = np.random.default_rng(seed)
    removal = Removal(state.dims.total)
    kept = []
    for family in state.families:
        gone = (generator.random(family.atom.size) < 0.4) & state.dims.free_slots(family.atom)
        gone[generator.integers(family.atom.size)] = False
        removal.add(family.atom, gone)
        kept.append(~gone)
    assert state.cost is not None
    assert groups.cost.of(kept) == (state.cost.parameters(removal), state.cost.macs(removal))


@pytest.mark.parametrize("name", ROWS)
def test_small_model(name: str) -> None:
    state, groups = found(ROWS[name]())
    check_slots(state, groups)
    assert state.cost is not None
    assert (groups.parameters, groups.macs) == (state.cost.parameters(), state.cost.macs())
    for seed in range(3):
        check_costs(state, groups, seed)


@pytest.mark.slow
@pytest.mark.parametrize("name", NETS)
def test_exported_network(name: str) -> None:
    state, groups = found(EXPORTED[name]())
    check_slots(state, groups)
    check_costs(state, groups, 0)
    assert pickle.loads(pickle.dumps(groups)) == groups


def test_files_bring_back_the_same_groups(tmp_path: Path) -> None:
    _, groups = found(ROWS["attention_grouped_query"]())
    groups.save(tmp_path / "groups.json")
    again = Groups.load(tmp_path / "groups.json")
    assert again == groups and again.fingerprint == groups.fingerprint and str(again) == str(groups)
    assert [path.name for path in tmp_path.iterdir()] == ["groups.json"]


def test_groups_are_the_same_in_another_process(tmp_path: Path) -> None:
    model = tmp_path / "model.onnx"
    onnx.save(ROWS["channel_shuffle"](), model)
    program = (
        "import sys; from ozgraph import api; from ozgraph.passes.trainable import groups_of; "
        "print(groups_of(api.analyze(sys.argv[1]).state).fingerprint)"
    )
    prints = {
        subprocess.run(
            [sys.executable, "-c", program, str(model)],
            capture_output=True,
            text=True,
            check=True,
            cwd=tmp_path,
            env={"PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    }
    assert len(prints) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not JSON"),
        ("[]", "not the groups"),
        ('{"version": 9}', "version 9"),
        ('{"version": 1}', "not the groups"),
    ],
)
def test_files_that_are_something_else_are_refused(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "groups.json"
    path.write_text(content)
    with pytest.raises(UsageError, match=message):
        Groups.load(path)
    with pytest.raises(UsageError, match="cannot be read"):
        Groups.load(tmp_path / "absent.json")


def test_patterns_cover_what_reshapes_make() -> None:
    n = 5
    line = np.arange(n)
    assert patterns_of(line) == (Pattern(0, 0, n, 1),)
    assert patterns_of(np.repeat(line, 3)) == (Pattern(0, 0, n, 3, ((3, 1),)),)
    assert patterns_of(np.tile(np.repeat(line, 2), 3)) == (Pattern(0, 0, n, 2, ((3, 2 * n), (2, 1))),)
    assert patterns_of(np.full(4, -1)) == ()
    backwards = patterns_of(line[::-1].copy())
    assert backwards == (Pattern(n - 1, 0, n, -1),)


@pytest.mark.parametrize("seed", range(200))
def test_patterns_say_exactly_what_they_were_made_from(seed: int) -> None:
    generator = np.random.default_rng(seed)
    slots = np.arange(int(generator.integers(1, 9)))
    for _ in range(int(generator.integers(0, 4))):
        step = int(generator.integers(5))
        if step == 0:
            slots = np.tile(slots, 2)
        elif step == 1:
            slots = np.repeat(slots, 3)
        elif step == 2:
            slots = np.concatenate((slots, np.full(3, -1), slots[::2]))
        elif step == 3:
            slots = slots[::-1].copy()
        else:
            slots = generator.permutation(slots)
    patterns = patterns_of(slots)
    if patterns is None:
        return
    again = np.full(len(slots), -1)
    for pattern in patterns:
        places = pattern.positions()
        assert places.shape == (pattern.count, pattern.width)
        assert (again[places] == -1).all(), "no position is said twice"
        again[places] = np.arange(pattern.first, pattern.first + pattern.count)[:, None]
    assert again.tolist() == slots.tolist()


def test_polynomials_count_in_whole_numbers_of_any_size() -> None:
    a, b = Polynomial.count(0), Polynomial.count(1)
    product = (a + b * 2) * (a + Polynomial.constant(3))
    assert str(product) == "3*n0 + 6*n1 + n0*n0 + 2*n0*n1"
    assert product.of([10**12, 10**13]) == (10**12 + 2 * 10**13) * (10**12 + 3)
    assert Polynomial.from_json(json.loads(json.dumps(product.as_json()))) == product
    assert Count(0, (2, 0, 1)).of([np.array([True, True, False])]) == 2

"""Random systems of reshapes, splits, concats, permutations and adds, against a search that knows no solver."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from property.campaign import campaign, unsoundness
from property.generators import LEAST, MOST, NETWORKS, random_system, systems, with_tables
from property.oracle import removable, removable_by_enumeration
from property.solution import Solution
from property.systems import (
    Add,
    Concat,
    Hold,
    Operation,
    Permute,
    Reshape,
    Slice,
    Slot,
    Source,
    System,
    Transpose,
    carried,
    without,
)

SHARE = 0.95
"""Of the slots that lie in some removable set that leaves a survivor, how many must be found."""


def made(*operations: Operation) -> System:
    return System("by hand", operations)


def axis(tensor: int, size: int, number: int = 0) -> frozenset[Slot]:
    """All positions of one axis."""
    return frozenset((tensor, number, position) for position in range(size))


RESIDUAL = made(Source((5,)), Source((5,)), Add(0, 1))
FLATTEN_HELD = made(Source((4, 3)), Hold(0, 1, (0, 1, 2)), Reshape(1, (12,)), Source((12,)), Add(2, 3))
SHUFFLE = made(
    Source((4,)), Source((4,)), Concat((0, 1), 0), Reshape(2, (2, 4)), Transpose(3, (1, 0)), Reshape(4, (8,)),
    Slice(5, 0, 0, 4), Slice(5, 0, 4, 4), Source((4,)), Add(7, 8),
)  # fmt: skip
TWO_GRIDS = made(Source((24,)), Reshape(0, (4, 6)), Reshape(0, (4, 2, 3)))
FLIP = made(Source((6,)), Permute(0, 0, (5, 4, 3, 2, 1, 0)), Add(0, 1))
ROLL = made(Source((5,)), Permute(0, 0, (1, 2, 3, 4, 0)), Add(0, 1))
TWICE = made(Source((4,)), Concat((0, 0), 0), Source((8,)), Add(1, 2))
REGRID = made(Source((4, 6)), Reshape(0, (6, 4)))
ADDED_TO_A_PART = made(
    Source((2, 4)), Source((3, 5)), Concat((1, 1), 0), Slice(2, 1, 1, 4), Concat((3, 0), 0), Slice(3, 0, 0, 2),
    Add(0, 5),
)  # fmt: skip


@pytest.mark.parametrize(
    ("system", "expected"),
    [
        pytest.param(RESIDUAL, axis(0, 5) | axis(1, 5), id="residual: every slot, both operands"),
        pytest.param(FLATTEN_HELD, axis(0, 4) | axis(3, 12), id="flatten: every channel and every column"),
        pytest.param(TWO_GRIDS, axis(0, 24), id="4x6 against 4x2x3"),
        pytest.param(FLIP, axis(0, 6), id="x + flip(x): pairs"),
        pytest.param(ROLL, frozenset(), id="x + roll(x): all or nothing"),
        pytest.param(TWICE, axis(0, 4) | axis(2, 8), id="concat with itself"),
    ],
)
def test_oracle_knows_what_can_go(system: System, expected: frozenset[Slot]) -> None:
    assert removable(system) == expected
    if len(system.slots) <= 16:
        assert removable_by_enumeration(system) == expected


def test_oracle_ties_the_halves_of_a_shuffle() -> None:
    assert removable(SHUFFLE) == removable_by_enumeration(SHUFFLE)


def test_oracle_sees_that_regridding_leaves_what_both_grids_agree_on() -> None:
    assert removable(REGRID) == removable_by_enumeration(REGRID)


@pytest.mark.parametrize(
    ("system", "removed"),
    [
        pytest.param(RESIDUAL, {(0, 0, 2)}, id="only one operand of a sum"),
        pytest.param(REGRID, {(0, 0, 1)}, id="a row of 4x6 is no grid of 6x4"),
        pytest.param(FLATTEN_HELD, {(0, 1, 0), *((3, 0, p) for p in range(0, 12, 3))}, id="a held position"),
        pytest.param(RESIDUAL, axis(0, 5) | axis(1, 5), id="everything"),
    ],
)
def test_invalid_removals_are_refused(system: System, removed: set[Slot]) -> None:
    assert carried(system, without(system, set(removed))) is None


def test_removal_of_a_channel_takes_its_columns() -> None:
    removed = {(0, 0, 1), (3, 0, 3), (3, 0, 4), (3, 0, 5)}
    kept = carried(FLATTEN_HELD, without(FLATTEN_HELD, removed))
    assert kept is not None
    assert kept[-1][0].tolist() == [True] * 3 + [False] * 3 + [True] * 6


@pytest.mark.slow
def test_search_agrees_with_trying_every_removal() -> None:
    checked = 0
    for number in range(400):
        system = random_system([7, number])
        if len(system.slots) <= 13:
            assert removable(system) == removable_by_enumeration(system), str(system)
            checked += 1
        if checked == 24:
            break
    assert checked == 24


@pytest.mark.parametrize("kind", [*NETWORKS, "wild"])
def test_generated_systems_have_the_promised_size(kind: str) -> None:
    for number in range(20):
        assert LEAST <= len(random_system([3, number], kind).slots) <= MOST


@pytest.mark.parametrize(
    "system", [RESIDUAL, FLATTEN_HELD, SHUFFLE, TWO_GRIDS, FLIP, ROLL, TWICE, REGRID, ADDED_TO_A_PART], ids=str
)
def test_what_is_found_is_sound_by_hand(system: System) -> None:
    assert unsoundness(Solution(system), 0) is None


@given(system=systems())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow])
def test_what_is_found_is_sound(system: System) -> None:
    note(str(system))
    solution = Solution(system)
    assert unsoundness(solution, 0) is None


SHARED_TABLE = made(Source((4, 6)), Source((4, 6)), Source((4, 6)), Add(0, 2), Add(1, 2))


def test_tensors_scaled_by_one_table_lose_slots_of_their_own() -> None:
    solution = Solution(SHARED_TABLE, (2,))
    assert solution.parts == 2
    assert solution.found() == axis(0, 4) | axis(0, 6, 1) | axis(1, 4) | axis(1, 6, 1)
    assert unsoundness(solution, 0) is None
    assert Solution(SHARED_TABLE).parts == 0, "data is tied"


def test_a_use_that_takes_the_wrong_part_is_found() -> None:
    solution = Solution(SHARED_TABLE, (2,))
    solution._taken = {use: (rows[::-1], columns) for use, (rows, columns) in solution._taken.items()}
    assert unsoundness(solution, 0) is not None


@given(system=systems(), seed=st.integers(0, 2**16))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow])
def test_what_uses_of_tables_take_is_sound(system: System, seed: int) -> None:
    scaled, tables = with_tables(system, np.random.default_rng(seed))
    note(str(scaled))
    assert unsoundness(Solution(scaled, tables), 0) is None


@pytest.mark.slow
def test_nearly_everything_that_can_go_is_found(record_property: pytest.RecordProperty) -> None:
    tally = campaign(range(600))
    print(tally)
    record_property("share_found", tally.share)
    assert not tally.unsound, str(tally)
    assert tally.share >= SHARE, str(tally)

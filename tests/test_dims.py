"""The algebra of dims: what unification finds out, what it falls back to, and the certificate behind it."""

from __future__ import annotations

import time
from itertools import pairwise

import numpy as np
import pytest

from ozgraph.dims import NOTHING, ONE, Atom, Dim, Dims, Prod, Reason, Sum, Take, components, prod_of, resolve, sum_of
from ozgraph.errors import RuleError

WHY = Reason("it is held")


def solved(dims: Dims) -> int:
    """Settle and certify; returns how many equations the solver had left violated."""
    dims.settle()
    return dims.certify()


def free(dims: Dims, dim: Dim) -> list[int]:
    """Positions that can still go: those that need a free slot."""
    return np.flatnonzero((dims.ids(dim) != NOTHING).any(axis=1)).tolist()


def together(dims: Dims, dim: Dim) -> list[list[int]]:
    """Positions of an axis that go with each slot, every slot once, in order of appearance."""
    table = dims.ids(dim)
    slots = dict.fromkeys(int(slot) for slot in table.ravel() if slot != NOTHING)
    return [np.flatnonzero((table == slot).any(axis=1)).tolist() for slot in slots]


def agree(dims: Dims, left: Dim, right: Dim) -> bool:
    """Whether both sides need the same free slots at every position."""
    return all(
        set(a) - {NOTHING} == set(b) - {NOTHING}
        for a, b in zip(dims.ids(left).tolist(), dims.ids(right).tolist(), strict=True)
    )


def atoms(dims: Dims, *sizes: int) -> list[Dim]:
    return [dims.atom(size) for size in sizes]


# -- atoms, sums, products -------------------------------------------------------------------------------------------


def test_an_atom_has_one_slot_a_position() -> None:
    dims = Dims()
    assert together(dims, dims.atom(3)) == [[0], [1], [2]]


def test_an_axis_of_size_one_has_no_slot_that_could_go() -> None:
    dims = Dims()
    one = dims.atom(1)
    assert one is ONE
    assert dims.ids(one).shape == (1, 0)
    assert free(dims, one) == []


def test_an_axis_without_positions_is_refused() -> None:
    with pytest.raises(RuleError, match="at least one slot, got 0"):
        Dims().atom(0)


def test_a_sum_is_a_concatenation() -> None:
    dims = Dims()
    a, b = atoms(dims, 2, 3)
    assert together(dims, sum_of((a, b))) == [[0], [1], [2], [3], [4]]
    np.testing.assert_array_equal(dims.ids(sum_of((a, b))), np.concatenate((dims.ids(a), dims.ids(b))))


def test_a_product_is_row_major() -> None:
    dims = Dims()
    rows, columns = atoms(dims, 2, 3)
    assert together(dims, prod_of((rows, columns))) == [[0, 1, 2], [0, 3], [1, 4], [2, 5], [3, 4, 5]]


def test_a_take_repeats_and_reorders() -> None:
    dims = Dims()
    assert together(dims, Take(dims.atom(3), np.array([2, 0, 2]))) == [[0, 2], [1]]


def test_factors_of_size_one_disappear_from_a_product() -> None:
    dims = Dims()
    a = dims.atom(4)
    assert prod_of((ONE, a, ONE)) is a
    assert prod_of((ONE, ONE)) is ONE


# -- the rows of the design's table ----------------------------------------------------------------------------------


def test_residual_add_both_operands_are_one_dim() -> None:
    dims = Dims()
    a, b = atoms(dims, 5, 5)
    dims.equate(a, b)
    assert resolve(a) is resolve(b)
    assert solved(dims) == 0
    assert free(dims, a) == [0, 1, 2, 3, 4]


def test_concat_then_add_slots_keep_their_identity_through_the_offset() -> None:
    dims = Dims()
    a, b, whole = atoms(dims, 2, 3, 5)
    dims.equate(sum_of((a, b)), whole)
    assert solved(dims) == 0
    np.testing.assert_array_equal(dims.ids(whole)[2:], dims.ids(b))


def test_two_concats_with_other_boundaries_are_cut_at_every_boundary() -> None:
    dims = Dims()
    a, b, c, d = atoms(dims, 2, 6, 5, 3)
    dims.equate(sum_of((a, b)), sum_of((c, d)))
    assert solved(dims) == 0
    assert [atom.size for atom in dims.atoms_of(sum_of((a, b)))] == [2, 3, 3]
    assert len(free(dims, sum_of((c, d)))) == 8


def test_flatten_a_channel_takes_its_columns_along() -> None:
    dims = Dims()
    channels, height, width, columns = atoms(dims, 3, 2, 2, 12)
    dims.freeze(height, WHY)
    dims.freeze(width, WHY)
    dims.equate(prod_of((channels, height, width)), columns)
    assert solved(dims) == 0
    assert together(dims, columns) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]


def test_grouped_convolution_groups_and_channels_inside_groups() -> None:
    dims = Dims()
    channels, groups, inside = atoms(dims, 6, 3, 2)
    dims.equate(channels, prod_of((groups, inside)))
    assert solved(dims) == 0
    assert together(dims, channels) == [[0, 1], [0, 2, 4], [1, 3, 5], [2, 3], [4, 5]]


def test_depthwise_convolution_in_weight_and_out_are_one_dim() -> None:
    dims = Dims()
    channels, groups, weight, out = atoms(dims, 4, 4, 4, 4)
    dims.equate(channels, prod_of((groups, dims.atom(1))))
    dims.equate(weight, prod_of((groups, dims.atom(1))))
    dims.equate(out, weight)
    assert solved(dims) == 0
    assert resolve(channels) is resolve(out)
    assert together(dims, out) == [[0], [1], [2], [3]]


def test_channel_shuffle_ties_the_halves() -> None:
    dims = Dims()
    half, (left, right) = dims.atom(4), atoms(dims, 4, 4)
    # [2, c] -> [c, 2], then split in two, one half added to a stream that also feeds the shuffle.
    two, c = atoms(dims, 2, 4)
    dims.equate(sum_of((half, half)), prod_of((two, c)))
    dims.equate(prod_of((c, two)), sum_of((left, right)))
    dims.equate(left, half)
    dims.freeze(two, WHY)
    solved(dims)
    assert agree(dims, left, half)
    assert agree(dims, prod_of((c, two)), sum_of((left, right)))


def test_attention_rows_are_heads_times_widths_and_q_k_widths_are_apart_from_v() -> None:
    dims = Dims()
    heads, width_qk, width_v = atoms(dims, 2, 3, 3)
    q, k, v = atoms(dims, 6, 6, 6)
    for rows, width in ((q, width_qk), (k, width_qk), (v, width_v)):
        dims.equate(rows, prod_of((heads, width)))
    assert solved(dims) == 0
    np.testing.assert_array_equal(dims.ids(q), dims.ids(k))
    shared = set(dims.ids(q).ravel()) & set(dims.ids(v).ravel())
    assert shared == set(dims.ids(heads).ravel())


def test_fused_qkv_the_three_is_held_and_widths_are_tied() -> None:
    dims = Dims()
    rows, heads, width, three = atoms(dims, 18, 2, 3, 3)
    dims.freeze(three, WHY)
    dims.equate(rows, prod_of((three, heads, width)))
    assert solved(dims) == 0
    assert [0, 3, 6, 9, 12, 15] in together(dims, rows)
    assert [0, 1, 2, 6, 7, 8, 12, 13, 14] in together(dims, rows)


def test_grouped_query_attention_a_kv_head_takes_its_query_heads_along() -> None:
    dims = Dims()
    queries, keys, repeats = atoms(dims, 6, 2, 3)
    dims.equate(queries, prod_of((keys, repeats)))
    assert solved(dims) == 0
    assert [0, 1, 2] in together(dims, queries)
    assert [3, 4, 5] in together(dims, queries)


def test_rotary_embedding_ties_slots_half_the_width_apart() -> None:
    dims = Dims()
    width, (first, second) = dims.atom(6), atoms(dims, 3, 3)
    dims.equate(width, sum_of((first, second)))
    dims.equate(width, sum_of((second, first)))
    assert solved(dims) == 0
    assert together(dims, width) == [[0, 3], [1, 4], [2, 5]]


def test_gate_rows_are_four_times_the_hidden_units() -> None:
    dims = Dims()
    rows, four, hidden = atoms(dims, 8, 4, 2)
    dims.freeze(four, WHY)
    dims.equate(rows, prod_of((four, hidden)))
    assert solved(dims) == 0
    assert together(dims, rows) == [[0, 2, 4, 6], [1, 3, 5, 7]]


# -- where sums and products meet ------------------------------------------------------------------------------------


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("finer_first", [False, True])
def test_4x6_against_4x2x3_refines_the_six_in_either_order(swapped: bool, finer_first: bool) -> None:
    dims = Dims()
    axis, (a, b), (c, d, e) = dims.atom(24), atoms(dims, 4, 6), atoms(dims, 4, 2, 3)
    grids = [prod_of((a, b)), prod_of((c, d, e))]
    for grid in reversed(grids) if finer_first else grids:
        dims.equate(*((grid, axis) if swapped else (axis, grid)))
    assert solved(dims) == 0
    assert resolve(a) is resolve(c)
    np.testing.assert_array_equal(dims.ids(b), dims.ids(prod_of((d, e))))
    assert len(free(dims, axis)) == 24


def test_4x6_against_6x4_shares_the_common_factors() -> None:
    dims = Dims()
    (a, b), (c, d) = atoms(dims, 4, 6), atoms(dims, 6, 4)
    left, right = prod_of((a, b)), prod_of((c, d))
    dims.equate(left, right)
    solved(dims)
    assert agree(dims, left, right)
    # The common divisor inside, 2, is shared, and so is the 2 outside; the 3 stands elsewhere in each.
    assert len(free(dims, left)) == 24


def test_20_and_12_channels_meet_4_groups_of_8() -> None:
    dims = Dims()
    (a, b), (groups, inside) = atoms(dims, 20, 12), atoms(dims, 4, 8)
    left, right = sum_of((a, b)), prod_of((groups, inside))
    dims.equate(left, right)
    solved(dims)
    assert agree(dims, left, right)
    # 20 is no multiple of 8, so slots are tied one by one: position p goes with p + 8, p + 16, p + 24.
    assert together(dims, left) == [[k, k + 8, k + 16, k + 24] for k in range(8)]


def test_16_and_16_channels_meet_4_groups_of_8_by_factoring_every_summand() -> None:
    dims = Dims()
    (a, b), (groups, inside) = atoms(dims, 16, 16), atoms(dims, 4, 8)
    dims.equate(sum_of((a, b)), prod_of((groups, inside)))
    assert not dims.deferred
    assert solved(dims) == 0
    assert len(together(dims, sum_of((a, b)))) == 4 + 8


def test_a_failed_equation_is_retried_once_the_rest_is_known() -> None:
    dims = Dims()
    (a, b), (groups, inside) = atoms(dims, 20, 12), atoms(dims, 4, 8)
    dims.equate(sum_of((a, b)), prod_of((groups, inside)))
    assert len(dims.deferred) == 1
    fine, four, two = atoms(dims, 5, 4, 3)
    dims.equate(a, prod_of((fine, four)))
    dims.equate(b, prod_of((two, four)))
    solved(dims)
    assert not dims.deferred
    assert agree(dims, sum_of((a, b)), prod_of((groups, inside)))


def test_x_plus_flip_of_x_ties_mirrored_slots() -> None:
    dims = Dims()
    x = dims.atom(6)
    dims.equate(x, Take(x, np.arange(6)[::-1].copy()))
    assert solved(dims) == 0
    assert together(dims, x) == [[0, 5], [1, 4], [2, 3]]


def test_x_plus_a_rolled_x_is_one_slot_and_solved_at_once() -> None:
    dims = Dims()
    x = dims.atom(4096)
    started = time.perf_counter()
    first, rest = atoms(dims, 1, 4095)
    dims.equate(x, sum_of((first, rest)))
    dims.equate(x, sum_of((rest, first)))
    solved(dims)
    assert time.perf_counter() - started < 0.5
    assert agree(dims, x, sum_of((rest, first)))
    # The first position is an axis of its own elsewhere, which cannot go; so nothing can.
    assert free(dims, x) == []


@pytest.mark.parametrize("step", [1, 2, 64])
def test_a_roll_by_a_constant_permutation_of_4096_slots_is_solved_at_once(step: int) -> None:
    dims = Dims()
    x = dims.atom(4096)
    started = time.perf_counter()
    dims.equate(x, Take(x, np.roll(np.arange(4096), step)))
    solved(dims)
    assert time.perf_counter() - started < 0.5
    # One slot that all positions share would leave nothing behind, so a roll by one holds them all.
    expected = [list(range(k, 4096, step)) for k in range(step)] if step > 1 else []
    assert together(dims, x) == expected


def test_a_roll_by_concat_cuts_a_dim_only_so_often() -> None:
    dims = Dims()
    x, (head, tail) = dims.atom(4096), atoms(dims, 2, 4094)
    started = time.perf_counter()
    dims.equate(x, sum_of((head, tail)))
    dims.equate(x, sum_of((tail, head)))
    solved(dims)
    assert time.perf_counter() - started < 0.5
    assert len(dims.atoms) < 64
    assert together(dims, x) == [list(range(0, 4096, 2)), list(range(1, 4096, 2))]


def test_concat_with_itself_ties_the_halves() -> None:
    dims = Dims()
    x, whole = atoms(dims, 3, 6)
    dims.equate(sum_of((x, x)), whole)
    assert solved(dims) == 0
    assert together(dims, whole) == [[0, 3], [1, 4], [2, 5]]


def test_a_dim_that_meets_an_axis_of_size_one_inside_a_product_cannot_go() -> None:
    dims = Dims()
    a, b = atoms(dims, 4, 3)
    dims.equate(prod_of((a, b)), prod_of((a, Prod((b, ONE)))))
    assert solved(dims) == 0
    assert len(free(dims, prod_of((a, b)))) == 12


def test_a_slot_of_its_own_is_not_a_broadcast() -> None:
    dims = Dims()
    one, rest, whole = dims.atom(1), dims.atom(4), dims.atom(5)
    dims.equate(sum_of((one, rest)), whole)
    assert solved(dims) == 0
    assert free(dims, whole) == [1, 2, 3, 4]


def test_sizes_that_differ_cannot_be_equated() -> None:
    dims = Dims()
    with pytest.raises(RuleError, match="axes of 3 and 4 positions cannot be the same dimension"):
        dims.equate(dims.atom(3), dims.atom(4))


# -- freezing --------------------------------------------------------------------------------------------------------


def test_freezing_is_per_slot() -> None:
    dims = Dims()
    x = dims.atom(8)
    dims.freeze(x, WHY, np.arange(4))
    assert free(dims, x) == [4, 5, 6, 7]


@pytest.mark.parametrize("again", [None, [0, 1]])
def test_a_slot_keeps_its_first_reason(again: list[int] | None) -> None:
    dims = Dims()
    x = dims.atom(2)
    dims.freeze(x, WHY, [0])
    dims.freeze(x, Reason("something else"), again)
    numbers = dims.frozen_reason(dims.ids(x, frozen=True).ravel())
    assert [dims.reasons[number].text for number in numbers] == ["it is held", "something else"]


def test_a_frozen_slot_stays_frozen_through_later_unification() -> None:
    dims = Dims()
    x, (a, b) = dims.atom(6), atoms(dims, 2, 4)
    dims.freeze(x, WHY, [1, 3])
    dims.equate(x, sum_of((a, b)))
    assert solved(dims) == 0
    assert free(dims, a) == [0]
    assert free(dims, b) == [0, 2, 3]
    assert dims.reasons[int(dims.frozen_reason(dims.ids(a, frozen=True).ravel())[1])] == WHY


def test_a_frozen_position_of_a_product_holds_its_row_and_its_column() -> None:
    dims = Dims()
    x, (rows, columns) = dims.atom(6), atoms(dims, 2, 3)
    dims.freeze(x, WHY, [4])
    dims.equate(x, prod_of((rows, columns)))
    assert solved(dims) == 0
    assert free(dims, rows) == [0]
    assert free(dims, columns) == [0, 2]


def test_freezing_grows_with_the_number_of_slots() -> None:
    dims = Dims()
    small, large = dims.atom(10), dims.atom(5000)
    dims.freeze(large, WHY, [4999])
    assert len(free(dims, small)) == 10
    assert len(free(dims, large)) == 4999


# -- the certificate -------------------------------------------------------------------------------------------------


def test_the_certificate_freezes_what_a_wrong_solver_left_unequal() -> None:
    dims = Dims()
    a, b = atoms(dims, 4, 4)
    bystander = dims.atom(4)
    # An equation that was recorded and never solved, as a broken solver would leave it.
    dims.equations.append((a, b, None))
    assert dims.certify() == 1
    assert free(dims, a) == []
    assert free(dims, b) == []
    assert len(free(dims, bystander)) == 4


def test_the_certificate_freezes_only_the_positions_that_disagree() -> None:
    dims = Dims()
    x = dims.atom(6)
    dims.equations.append((x, Take(x, np.array([0, 1, 3, 2, 4, 5])), None))
    assert dims.certify() == 1
    assert free(dims, x) == [0, 1, 4, 5]


def test_the_certificate_says_which_operator_disagreed() -> None:
    class Origin:
        operator, name = "Add", "node_add"

    dims = Dims()
    a, b = atoms(dims, 2, 2)
    dims.equations.append((a, b, Origin()))
    dims.certify()
    reason = dims.reasons[int(dims.frozen_reason(dims.ids(a, frozen=True).ravel())[0])]
    assert (reason.operator, reason.op) == ("Add", "node_add")


def test_a_sound_solution_passes_the_certificate_untouched() -> None:
    dims = Dims()
    a, b, c = atoms(dims, 4, 4, 8)
    dims.equate(sum_of((a, b)), c)
    dims.equate(a, b)
    assert solved(dims) == 0
    assert dims.certify() == 0
    assert together(dims, c) == [[k, k + 4] for k in range(4)]


# -- size ------------------------------------------------------------------------------------------------------------


def test_a_chain_of_50000_sums_does_not_overflow_the_stack() -> None:
    dims = Dims()
    growing: Dim = dims.atom(1)
    for _ in range(50_000):
        growing = Sum((growing, ONE))
    whole = dims.atom(growing.size)
    dims.equate(whole, growing)
    other = dims.atom(growing.size)
    dims.equate(other, growing)
    dims.settle()
    assert dims.certify() == 0


def test_a_chain_of_50000_bound_atoms_does_not_overflow_the_stack() -> None:
    dims = Dims()
    chain = atoms(dims, *[2] * 50_000)
    for left, right in pairwise(chain):
        dims.equate(right, left)
    assert solved(dims) == 0
    assert len(dims.roots) == 1
    assert dims.atoms_of(chain[-1]) == dims.atoms_of(chain[0])


def test_a_tower_of_10000_nested_products_does_not_overflow_the_stack() -> None:
    dims = Dims()
    inner = dims.atom(2)
    tower: Dim = inner
    for _ in range(10_000):
        tower = Prod((ONE, tower))
    other = dims.atom(2)
    dims.equate(tower, other)
    assert solved(dims) == 0
    assert dims.ids(tower).tolist() == dims.ids(inner).tolist()


def test_components_joins_long_chains() -> None:
    left = np.arange(9_999)
    assert components(10_000, left, left + 1).tolist() == [0] * 10_000


def test_atoms_are_named_by_their_ids() -> None:
    dims = Dims()
    a, b = atoms(dims, 2, 3)
    assert isinstance(a, Atom)
    assert repr(sum_of((a, prod_of((a, b))))) == "(a0:2 + (a0:2 * a2:3))"

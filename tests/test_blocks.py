"""Looking at arrays a block at a time gives what looking at them whole does."""

from __future__ import annotations

import itertools
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ozgraph import blocks
from ozgraph.blocks import part_of, sums, tiles, uniform, within

DTYPES = [
    *("float32", "float64", "float16", "int8", "uint8", "int32", "int64", "bool"),
    *(ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2, ml_dtypes.float8_e4m3fnuz, ml_dtypes.int4),
]
SHAPES = [(7,), (1, 5), (6, 4), (130, 3), (3, 130), (2, 3, 5, 4), (1, 1, 9), (4, 0)]


@given(st.lists(st.integers(0, 6), min_size=0, max_size=4), st.integers(1, 40))
def test_tiles_cover_every_element_once_in_order_and_are_small(shape: list[int], most: int) -> None:
    numbers = np.arange(int(np.prod(shape))).reshape(shape)
    found = [numbers[tile].reshape(-1) for tile in tiles(shape, most)]
    assert all(0 < part.size <= most for part in found)
    assert np.concatenate([np.zeros(0, int), *found]).tolist() == numbers.reshape(-1).tolist()


def whole(array: np.ndarray[Any, Any], axis: int, keep: dict[int, np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
    """The same, position by position, in plain Python."""
    for number, mask in keep.items():
        array = np.compress(mask, array, axis=number)
    found = []
    for index in range(array.shape[axis]):
        elements = array.take(index, axis=axis).astype(np.float64).reshape(-1)
        same = elements.size == 0 or (np.isfinite(elements[0]) and (elements == elements[0]).all())
        found.append((elements[0] if elements.size else 0.0) if same else np.nan)
    return np.array(found)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: np.dtype(dtype).name)
def test_uniform_positions_are_those_whose_elements_are_equal(
    dtype: Any, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "_PROBE", 3)
    random = np.random.default_rng(len(shape))
    for seed in range(12):
        # Few different values, whole positions of zeros and of one value, and what only looks like zero or number.
        array = (random.integers(0, 2, shape) * random.integers(0, 2)).astype(np.float64)
        for axis, value in itertools.product(range(len(shape)), (0.0, 1.0, -0.0, np.nan, np.inf)):
            if shape[axis] and random.random() < 0.4:
                array[(slice(None),) * axis + (random.integers(shape[axis]),)] = value
        array *= random.choice([-1.0, 1.0], shape) if seed % 2 else 1.0  # both zeros
        signed = np.dtype(dtype).kind == "f" or "float" in np.dtype(dtype).name
        stored = (array if signed else np.nan_to_num(array, posinf=1, neginf=-1) != 0).astype(dtype)
        for axis in range(len(shape)):
            keep = {other: random.random(shape[other]) < 0.7 for other in range(len(shape)) if other != axis}
            for kept in ({}, keep):
                wanted = whole(stored, axis, kept)
                np.testing.assert_array_equal(uniform(stored, axis, kept), wanted)
            known = uniform(stored, axis)
            if all(mask.any() for mask in keep.values()):  # where nothing counts, everything is zero
                np.testing.assert_array_equal(
                    uniform(stored, axis, keep, known), np.where(np.isnan(known), wanted, known)
                )


def test_the_blocks_of_a_large_array_are_all_looked_at() -> None:
    array = np.zeros((700, 900), np.float32)
    array[699, 899], array[350, 0] = 1, np.nan
    rows, columns = uniform(array, 0), uniform(array, 1)
    assert np.flatnonzero(np.isnan(rows)).tolist() == [350, 699]
    assert np.flatnonzero(np.isnan(columns)).tolist() == [0, 899]
    assert not np.isnan(uniform(array, 0, {1: np.arange(900) % 899 > 0})).any()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_sums_by_blocks_are_those_of_the_whole(shape: tuple[int, ...]) -> None:
    array = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    for axis in range(len(shape)):
        others = tuple(number for number in range(len(shape)) if number != axis)
        found = sums(array, axis, lambda block, tile: block * block + part_of(np.ones((1,) * len(shape)), tile) * 0)
        np.testing.assert_allclose(found, np.square(array, dtype=np.float64).sum(axis=others), rtol=1e-6)


def test_positions_within_a_slice_count_from_its_start() -> None:
    positions = np.array([0, 3, 4, 9])
    assert within(positions, slice(3, 9)).tolist() == [0, 1]
    assert within(positions, slice(5, 9)).tolist() == []


def test_what_broadcasts_against_a_tensor_is_cut_with_it() -> None:
    tensor, scales = np.arange(24.0).reshape(4, 6), np.arange(6.0)
    for tile in tiles(tensor.shape, 5):
        np.testing.assert_array_equal(tensor[tile] * part_of(scales, tile), (tensor * scales)[tile])
        np.testing.assert_array_equal(part_of(np.ones((4, 1)), tile).shape, (tile[0].stop - tile[0].start, 1))

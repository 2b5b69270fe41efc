"""Inputs that fit their consumers: made from a seed, or read from the user's ``.npz``."""

from __future__ import annotations

import difflib
import re
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ozgraph.errors import UsageError
from ozgraph.graph import Array, Graph, Value
from ozgraph.numerics.ranges import Demand, demand, input_extents

_MASK = re.compile(r"mask", re.IGNORECASE)
_POSITION = re.compile(r"position|pos_ids", re.IGNORECASE)
_LENGTH = re.compile(r"len(gth)?s?($|[^a-z])", re.IGNORECASE)

# Integers that nothing bounds: images use the whole range of a byte, other features a few values.
_FREE = {"uint8": (0, 255), "int8": (-128, 127)}
_FEATURE = (0, 9)
_FIRST_POSITIONS = 8
# Patches: axes longer than this have them, each so much wider than the next smaller ones, with so much more variance.
_FEW = 16
_COARSER = 4
_REDDER = 2.0


def make_inputs(graph: Graph, shapes: Mapping[str, tuple[int, ...]], seed: int) -> dict[str, Array]:
    """One array for every input of ``graph``, the same for the same seed, and made apart from the other inputs.

    Floats are standard normal at all scales (within the domain where a ``Log`` or ``Sqrt`` reads them); indexes stay
    inside what they index; masks are ones on the left, at least one in every row; lengths lie within the sequence;
    positions count up; operands that are shapes are the sample shapes; booleans are random.

    Args:
        shapes: by input name; an input that is missing gets its sample shape.

    Raises:
        UsageError: an input holds strings, sequences or optionals, or has no known shape.
    """
    sizes = {value.name: tuple(shapes.get(value.name, value.shape or ())) for value in graph.inputs}
    extent = input_extents(graph, sizes)
    made: dict[str, Array] = {}
    for value in graph.inputs:
        if value.dtype is None or value.dtype.kind in "OSU":
            raise UsageError(
                f"input {value.name!r} holds strings, sequences or optionals, which cannot be made up; give it with "
                "--inputs file.npz"
            )
        if value.name not in shapes and value.shape is None:
            raise UsageError(
                f"the shape of input {value.name!r} is not known; give it with --shape {value.name}=1x3x224x224 or so"
            )
        random = np.random.default_rng([seed, zlib.crc32(value.name.encode())])
        made[value.name] = _made(value, sizes, demand(value, extent), random).astype(value.dtype)
    return made


def at_all_scales(shape: tuple[int, ...], random: np.random.Generator) -> Array:
    """Standard normal numbers, parts of which are common to patches: the wider a patch, the more, as in pictures.

    What a model averages over many places hardly differs from input to input where all places are independent, and
    outputs that hardly vary are all rounding beside how they vary. Patches lie on axes from the third on, as far as
    those are long: the first counts samples, and few slots are channels rather than places.
    """
    patchy = [axis >= 2 and size > _FEW for axis, size in enumerate(shape)]
    widest = max((size for size, wide in zip(shape, patchy, strict=True) if wide), default=1)
    total: Array = np.zeros(shape)
    variance, width, share = 0.0, 1, 1.0
    while True:
        widths = [min(width, size) if wide else 1 for size, wide in zip(shape, patchy, strict=True)]
        part = random.standard_normal([-(-size // w) for size, w in zip(shape, widths, strict=True)])
        for axis, (size, w) in enumerate(zip(shape, widths, strict=True)):
            part = np.repeat(part, w, axis).take(range(size), axis) if w > 1 else part
        total += np.sqrt(share) * part
        variance += share
        if width >= widest:
            return np.divide(total, np.sqrt(variance))
        width, share = width * _COARSER, share * _REDDER


def load_inputs(path: Path, graph: Graph) -> list[dict[str, Array]]:
    """The user's inputs: one set, from an ``.npz`` with one array an input.

    Raises:
        UsageError: not an ``.npz`` of plain arrays, or names, shapes or types that do not fit the model.
    """
    try:
        archive = np.load(path, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise UsageError(f"{path} holds a single array; save one array an input with numpy.savez")
        with archive:
            given = {name: archive[name] for name in archive.files}
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error, KeyError) as error:
        raise UsageError(f"{path} is not an .npz of plain arrays ({error}); save one with numpy.savez") from error
    return [checked(given, graph, str(path))]


def checked(given: Mapping[str, Array], graph: Graph, source: str) -> dict[str, Array]:
    """``given`` in the types of the model's inputs.

    Raises:
        UsageError: a missing or unknown name, a shape or a type that does not fit.
    """
    expected = {value.name: value for value in graph.inputs}
    listing = ", ".join(expected) or "none"
    for name in given:
        if name not in expected:
            close = difflib.get_close_matches(name, expected, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise UsageError(f"{source}: the model has no input {name!r}{hint} (its inputs: {listing})")
    missing = [name for name in expected if name not in given]
    if missing:
        raise UsageError(
            f"{source}: no array for input {', '.join(map(repr, missing))} (the model's inputs: {listing})"
        )
    return {name: _fitted(given[name], value, source) for name, value in expected.items()}


def _fitted(array: Array, value: Value, source: str) -> Array:
    """``array`` in the type of an input, once its axes fit."""
    shape = value.shape
    fits = shape is None or (
        array.ndim == len(shape)
        and all(
            given == size or dynamic
            for given, size, dynamic in zip(array.shape, shape, value.dynamic or (False,) * len(shape), strict=True)
        )
    )
    if not fits:
        wanted = [
            "?" if dynamic else str(size)
            for size, dynamic in zip(shape or (), value.dynamic or (False,) * len(shape or ()), strict=True)
        ]
        raise UsageError(
            f"{source}: input {value.name!r} takes the shape {'x'.join(wanted) or 'of a scalar'}, not "
            f"{'x'.join(map(str, array.shape)) or 'that of a scalar'}"
        )
    if value.dtype is None or array.dtype == value.dtype:
        return array
    # Wider is fine, and so is narrowing within a kind: numpy makes float64 and int64 unless told otherwise.
    if not (value.is_float and array.dtype.kind == "f") and not np.can_cast(array.dtype, value.dtype, "same_kind"):
        raise UsageError(f"{source}: input {value.name!r} takes {value.dtype}, not {array.dtype}")
    return array.astype(value.dtype)


def perturbed(feeds: Mapping[str, Array], seed: int = 0) -> dict[str, Array]:
    """A companion to the only inputs there are, to see what varies: noise of a tenth on floats, the rest reordered.

    Integers and booleans trade places along the last axis, so that they stay in range.
    """
    random = np.random.default_rng(seed)
    companion: dict[str, Array] = {}
    for name, array in feeds.items():
        if array.dtype.kind == "f":
            finite = array[np.isfinite(array)].astype(np.float64)
            width = float(np.std(finite)) or float(np.max(np.abs(finite), initial=0.0)) or 1.0
            noise = 0.1 * width * random.standard_normal(array.shape)
            companion[name] = (array + noise).astype(array.dtype)
        elif array.dtype.kind in "iub" and array.ndim:
            companion[name] = random.permutation(array, axis=-1)
        else:
            companion[name] = array
    return companion


def _made(value: Value, sizes: Mapping[str, tuple[int, ...]], asked: Demand, random: np.random.Generator) -> Array:
    shape = sizes[value.name]
    assert value.dtype is not None
    if value.integers is not None and value.integers.elements.shape == shape:
        return value.integers.elements
    if asked.exact is not None and asked.exact.shape == shape:
        return asked.exact
    named = _MASK.search(value.name) is not None
    if value.is_float:
        return _mask(shape, random) if named or asked.masks else _real(shape, asked.domain, random)
    if value.dtype.kind == "b":
        return _mask(shape, random) if named or asked.masks else random.integers(0, 2, shape)
    if value.dtype.kind == "c":
        return random.standard_normal(shape) + 1j * random.standard_normal(shape)
    low, high = asked.low, asked.high
    if _POSITION.search(value.name):
        return _positions(shape, 0 if low is None else low, high, random)
    # A token id is compared with the padding id, and so reaches the softmax as well: being an index comes first.
    if (named or asked.masks) and not asked.indexes:
        return _mask(shape, random)
    if high is None and _LENGTH.search(value.name):
        others = [size for name, other in sizes.items() if name != value.name for size in other[1:2]]
        low, high = 1, max(1, min(others, default=1))
    if low is None or high is None:
        low, high = _FREE.get(value.dtype.name, _FEATURE)
    elif low < 0 <= high:
        low = 0  # ids that have an offset added to them still start at 0
    return random.integers(low, max(low, high), shape, endpoint=True)


def _real(shape: tuple[int, ...], domain: str | None, random: np.random.Generator) -> Array:
    normal = at_all_scales(shape, random)
    if domain == "positive":
        return np.abs(normal) + 0.01
    if domain == "above_one":
        return np.abs(normal) + 1.0
    return np.tanh(normal) if domain == "unit" else normal


def _mask(shape: tuple[int, ...], random: np.random.Generator) -> Array:
    """Ones on the left of every row (the last axis), at least one."""
    if not shape:
        return np.ones(shape, np.int64)
    lengths = random.integers(1, max(1, shape[-1]), (*shape[:-1], 1), endpoint=True)
    return (np.arange(shape[-1]) < lengths).astype(np.int64)


def _positions(shape: tuple[int, ...], low: int, high: int | None, random: np.random.Generator) -> Array:
    """Positions that count up along the last axis, from a random start that leaves room."""
    steps = shape[-1] if shape else 1
    room = _FIRST_POSITIONS if high is None else max(0, high - low + 1 - steps)
    positions = low + random.integers(0, room, endpoint=True) + np.arange(steps)
    if high is not None:
        positions = np.minimum(positions, max(low, high))
    return np.broadcast_to(positions, shape) if shape else positions[0]

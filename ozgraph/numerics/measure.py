"""How far two tensors are apart, and whether agreement on them means anything.

The *range* of a position is max - min over runs whose inputs differ and whose shapes agree. The *spread* of a tensor
is the 90th percentile of its positive ranges: what a typical lively position moves when the input changes. A difference
is measured against the spread, or against the range of its own position where that is wider. So offsets between
positions do not count as variation, and neither many dead positions nor a few huge ones (box corners beside scores)
distort the measure; a tensor that ignores the input has no spread.

Every position also has a rounding floor: one unit in the last place of its magnitude, by the same measure.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ozgraph.graph import Array

NOISE_FLOORS = 3.0
"""How many noise floors a difference may have before it means something."""

QUANTA = 4
"""How many quanta a quantised tensor must vary by for a difference of one to be none; with fewer, all must be equal."""

NOISE_CEILING = 1e-3
"""The noise floor above which what a tensor moves by is rounding, and says nothing."""

_TYPICAL = 0.9
_INFINITE = float("inf")


@dataclass(frozen=True, slots=True)
class Liveliness:
    """One tensor of the original over several runs.

    Attributes:
        spread: see the module; 0.0 where nothing finite varies.
        scale: the largest finite magnitude.
        noise: the largest difference between two runs of the same model on the same input, over the spread; inf where
            nothing varies.
        rounding: the rounding floor of the median lively position; inf where nothing varies.
        still_noise: like ``noise``, over the scale instead.
        reproducible: whether those two runs agree on shapes, integers, NaN and infinities.
        quantum: the step between the numbers that it holds; 0.0 where nothing is quantised.
    """

    spread: float
    scale: float
    noise: float
    rounding: float
    still_noise: float
    reproducible: bool
    quantum: float = 0.0

    @property
    def floor(self) -> float:
        """The noise floor of the tensor as a whole; what makes it poor evidence when large."""
        return max(self.noise, self.rounding) if self.reproducible else _INFINITE

    @property
    def moving(self) -> bool:
        """Whether the tensor varies with the inputs, by more than rounding."""
        return self.spread > 0 and self.floor <= NOISE_CEILING


@dataclass(frozen=True, slots=True)
class Gap:
    """The worst position of a comparison: its error, its noise floor, and the limit for the error."""

    error: float
    floor: float
    limit: float

    @property
    def severity(self) -> float:
        """Above 1 the tensors differ."""
        return self.error / self.limit


def liveliness(
    originals: Sequence[Array], repeats: Iterable[tuple[Array, Array]] = (), quantum: float = 0.0
) -> Liveliness:
    """Measure one tensor: ``originals`` by run, ``repeats`` as pairs of runs on the same input."""
    pairs = list(repeats)
    reproducible = not any(mismatch(original, repeat) for original, repeat in pairs)
    yards = _Yards(originals)
    noise = still_noise = 0.0
    if reproducible:
        for original, repeat in pairs:
            distance = _distance(original, repeat)
            noise = max(noise, _largest(distance / yards.moving(original.shape)) if yards.spread > 0 else _INFINITE)
            still_noise = max(still_noise, _largest(distance) / yards.scale if yards.scale > 0 else 0.0)
    return Liveliness(yards.spread, yards.scale, noise, yards.rounding(), still_noise, reproducible, quantum)


def gap(originals: Sequence[Array], others: Sequence[Array], alive: Liveliness, base: float, *, moving: bool) -> Gap:
    """The worst position over all runs, where type, shape and NaN patterns agree already.

    Args:
        base: the limit where noise is low.
        moving: measure against the spread; else against the scale, for a tensor that does not vary.
    """
    yards = _Yards(originals)
    noise = alive.noise if moving else alive.still_noise
    worst = Gap(0.0, noise, max(base, NOISE_FLOORS * noise))
    for original, other in zip(originals, others, strict=True):
        if not is_real(original) or original.size == 0:
            continue
        yard = yards.moving(original.shape) if moving else np.full(original.shape, yards.scale)
        distance = _distance(original, other)
        if 0 < QUANTA * alive.quantum <= alive.spread:
            # The product of an integer and a scale is rounded, too.
            slack = yards.epsilon * np.abs(np.where(np.isfinite(original), original, 0))
            distance = np.where(distance <= alive.quantum + slack, 0.0, distance)
        with np.errstate(divide="ignore", invalid="ignore"):
            errors = np.where(distance > 0, distance / yard, 0.0)
            magnitude = np.where(np.isfinite(original), np.abs(original), 0.0)
            floors = np.maximum(np.where(magnitude > 0, yards.epsilon * magnitude / yard, 0.0), noise)
        limits = np.maximum(base, NOISE_FLOORS * floors)
        at = np.unravel_index(int(np.argmax(errors / limits)), original.shape)
        found = Gap(float(errors[at]), float(floors[at]), float(limits[at]))
        worst = max(worst, found, key=lambda candidate: candidate.severity)
    return worst


def spread(samples: Sequence[Array]) -> float:
    """The spread of a tensor over runs (see the module); runs of other shapes are other tensors."""
    return _Yards(samples).spread


def mismatch(original: Any, other: Any) -> str | None:
    """What differs beyond the finite values: type, shape, integers, NaN and infinities. None when nothing does."""
    if original.dtype != other.dtype:
        return f"its type is {other.dtype}, the original's is {original.dtype}"
    if original.shape != other.shape:
        return f"its shape is {list(other.shape)}, the original's is {list(original.shape)}"
    if not is_real(original):
        count = int(np.count_nonzero(original != other))
        return f"{count} of {original.size} elements are not equal" if count else None
    for what, test in (("NaN", np.isnan), ("+inf", np.isposinf), ("-inf", np.isneginf)):
        count = int(np.count_nonzero(test(original) != test(other)))
        if count:
            return f"{count} of {original.size} elements are {what} in one model only"
    return None


def is_real(array: Array) -> bool:
    """Whether the elements are floating-point numbers that numpy can order."""
    return array.dtype.kind == "f"


class _Yards:
    """What positions move between runs, by shape."""

    def __init__(self, samples: Sequence[Array]) -> None:
        lowest: dict[tuple[int, ...], Array] = {}
        highest: dict[tuple[int, ...], Array] = {}
        for sample in samples:
            if is_real(sample):
                # min and max carry NaN on: a position that is not finite once never counts.
                lowest[sample.shape] = np.minimum(lowest.get(sample.shape, sample), sample)
                highest[sample.shape] = np.maximum(highest.get(sample.shape, sample), sample)
        self.epsilon = max((float(np.finfo(array.dtype).eps) for array in samples if is_real(array)), default=0.0)
        self._ranges: dict[tuple[int, ...], Array] = {}
        self._magnitudes: dict[tuple[int, ...], Array] = {}
        typical = []
        for shape, low in lowest.items():
            high = highest[shape]
            finite = np.isfinite(low) & np.isfinite(high)
            self._ranges[shape] = _subtracted(high, low, finite)
            self._magnitudes[shape] = np.where(finite, np.maximum(np.abs(low), np.abs(high)), 0)
            positive = self._ranges[shape][self._ranges[shape] > 0]
            if positive.size:
                typical.append(float(np.quantile(positive, _TYPICAL, method="higher")))
        self.spread = max(typical, default=0.0)
        self.scale = max((_largest(magnitudes) for magnitudes in self._magnitudes.values()), default=0.0)

    def moving(self, shape: tuple[int, ...]) -> Array:
        """The yardstick of every position: the spread, or its own range."""
        return np.maximum(self._ranges.get(shape, np.zeros(shape)), self.spread)

    def rounding(self) -> float:
        """The rounding floor of the median lively position."""
        if self.spread == 0:
            return _INFINITE
        floors = [
            self.epsilon * self._magnitudes[shape][ranges > 0] / self.moving(shape)[ranges > 0]
            for shape, ranges in self._ranges.items()
        ]
        return float(np.median(np.concatenate(floors)))


def _distance(original: Array, other: Array) -> Array:
    """|original - other| in float64, 0 where either is not finite or they are integers."""
    if not is_real(original):
        return np.zeros(original.shape)
    return np.abs(_subtracted(original, other, np.isfinite(original) & np.isfinite(other)))


def _subtracted(left: Array, right: Array, where: Array) -> Array:
    result = np.zeros(left.shape, np.float64)
    np.subtract(left, right, out=result, where=where, dtype=np.float64)
    return result


def _largest(array: Array) -> float:
    return float(np.max(array, initial=0.0))

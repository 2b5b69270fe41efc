"""What an operator is applied to: tensors that carry slots on every axis, and constants that say what to do."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.building import Array

FLOAT, BOOL, INDEX, INTEGERS, STORED = "float", "bool", "index", "integers", "stored"

SCALE = 0.05
"""The step of quantised operands."""


@dataclass(frozen=True, eq=False)
class Operand:
    """A tensor all of whose axes can carry removable slots.

    Attributes:
        shape: sizes; axes that are not meant to be one dim have different sizes.
        kind: floating, boolean, indexes, plain integers, or quantised integers.
        dtype: the element type, where the kind leaves it open.
        through: pointwise operators between what a model computes and the operand, which keep it in its domain.
        below: indexes stay below this number.
        zero: the zero point of quantised integers.
        only: ``data`` or ``weight``, where the operand can be nothing else.
        given: its elements, where random ones would make no sense; then it is a weight.
    """

    shape: tuple[int, ...]
    kind: str = FLOAT
    dtype: str = "float32"
    through: tuple[str, ...] = ()
    below: int = 0
    zero: int = 0
    only: str = ""
    given: Array | None = None

    def weight(self, rng: np.random.Generator) -> Array:
        """Random elements, as they stand in a file."""
        if self.given is not None:
            return self.given
        numbers = rng.standard_normal(self.shape)
        if self.kind == FLOAT:
            with np.errstate(invalid="ignore"):
                for name in self.through:
                    numbers = THROUGH[name](numbers)
            return np.array(numbers, dtype=self.dtype)
        if self.kind == BOOL:
            return np.array(numbers > 0)
        if self.kind == INDEX:
            return np.array(rng.integers(0, self.below, self.shape), dtype=self.dtype)
        if self.kind == INTEGERS:
            return np.array(np.abs(numbers) * 4, dtype=self.dtype)
        return np.array(self.zero + rng.integers(-60, 60, self.shape), dtype=self.dtype)


THROUGH = {
    "Abs": np.abs,
    "Tanh": np.tanh,
    "Round": np.round,
    "Sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "AboveOne": lambda x: np.abs(x) + 1.25,
    "Larger": lambda x: x * 4,
    "Sqrt": np.sqrt,
    "Overflow": lambda x: np.where(x > 0, np.inf, 0.0),
}
"""What keeps a weight where data goes through the operator (or the few operators) of that name."""


def T(*shape: int, through: str = "", only: str = "") -> Operand:
    """A floating tensor; ``through`` lists pointwise operators, separated by spaces."""
    return Operand(shape, through=tuple(through.split()), only=only)


def given(rows: list[list[float]]) -> Operand:
    """A floating weight with these elements."""
    array = np.array(rows, np.float32)
    return Operand(array.shape, only="weight", given=array)


def booleans(*shape: int) -> Operand:
    """A condition or a mask."""
    return Operand(shape, BOOL, "bool")


def indexes(*shape: int, below: int, dtype: str = "int64") -> Operand:
    """Positions that are computed at run time, or stand in the file."""
    return Operand(shape, INDEX, dtype, below=below)


def integers(*shape: int, dtype: str = "int32") -> Operand:
    """Whole numbers from zero on."""
    return Operand(shape, INTEGERS, dtype)


def stored(*shape: int, dtype: str = "uint8", zero: int = 0, only: str = "") -> Operand:
    """Quantised numbers around their zero point."""
    return Operand(shape, STORED, dtype, zero=zero, only=only)


@dataclass(frozen=True, eq=False)
class Fixed:
    """A constant operand: axes, sizes, bounds, scales, a tensor that is given as it is."""

    array: Array

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape


def ints(*elements: int, dtype: npt.DTypeLike = np.int64) -> Fixed:
    """A list of integers."""
    return Fixed(np.array(elements, dtype))


def integer(element: int, dtype: npt.DTypeLike = np.int64) -> Fixed:
    """One integer."""
    return Fixed(np.array(element, dtype))


def floats(*elements: float) -> Fixed:
    """A list of numbers."""
    return Fixed(np.array(elements, np.float32))


def number(element: float) -> Fixed:
    """One number."""
    return Fixed(np.array(element, np.float32))


def flag(element: bool) -> Fixed:
    """True or false."""
    return Fixed(np.array(element))


Given = Operand | Fixed | None

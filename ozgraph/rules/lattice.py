"""What is known of a slot of a tensor: Zero, Constant or Unknown.

The state of a set of slots is one float64 array: the number that every element of the slot has, uniform over all other
axes, or NaN where that is unknown. Zero is a constant like any other, only luckier. Rules move states forward with the
transfers below; pointwise operators are evaluated, not listed. A transfer answers infinity where known operands give
nothing finite (0 / 0), so that the prover can tell.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from ozgraph.graph import Op, Value

Slots = npt.NDArray[np.float64]

UNKNOWN: Slots = np.array([np.nan])
ZERO: Slots = np.array([0.0])


def meet(states: Sequence[Slots]) -> Slots:
    """What holds in all of several places: the common constant, else Unknown."""
    result = states[0]
    for state in states[1:]:
        if state is not result:
            result = np.where(result == state, result, np.nan)
    return result


def finite(state: npt.NDArray[Any]) -> Slots:
    """Infinities become Unknown: arithmetic on them is not what the graph would do with a finite zero."""
    with np.errstate(over="ignore", invalid="ignore"):
        wide = np.asarray(state, dtype=np.float64)
    return np.where(np.isfinite(wide), wide, np.nan)


def given(states: Sequence[Slots | None]) -> list[Slots]:
    """The states of operands that carry the slot."""
    return [state for state in states if state is not None]


@dataclass(frozen=True, slots=True)
class ByStates:
    """A transfer that may be asked once for many operators: a decorator, and a promise.

    Such a function reads nothing of an operator but its type, version and attributes, which of its operands and
    results are there, with their element types, and the rank of the result: no shape, no name, no weight.
    """

    transfer: Callable[[Op, Sequence[Slots | None], int, int], Slots]

    def __call__(self, op: Op, states: Sequence[Slots | None], result: int, axis: int) -> Slots:
        """The state of the result."""
        return self.transfer(op, states, result, axis)


# Every transfer takes (operator, operand states, result position, result axis). An operand state is None when the
# operand is left out or does not carry the slot; ``prove_dead`` hands in the constant where it is a uniform one.


@ByStates
def opaque(op: Op, states: Sequence[Slots | None], result: int, axis: int) -> Slots:
    """Nothing is known."""
    return UNKNOWN


@ByStates
def joined(op: Op, states: Sequence[Slots | None], result: int, axis: int) -> Slots:
    """A concatenation: what holds in all operands that carry the slot."""
    present = given(states)
    return meet(present) if present else UNKNOWN


@ByStates
def uniform(op: Op, states: Sequence[Slots | None], result: int, axis: int) -> Slots:
    """Data movement, averages and maxima over other axes: equal elements of the first operand stay what they are."""
    return states[0] if states[0] is not None else UNKNOWN


def cast(state: Slots | None, value: Value | None) -> Slots:
    """A state in the type of a value: rounded, cut to an integer, turned into a truth."""
    if state is None or value is None or value.dtype is None:
        return UNKNOWN
    with np.errstate(all="ignore"):
        here = np.nan_to_num(state).astype(value.dtype)
    return np.where(np.isnan(state), np.nan, finite(here))


def converted(op: Op, states: Sequence[Slots | None], result: int, axis: int) -> Slots:
    """The first operand in the type of the result."""
    return cast(states[0], op.outputs[result])


@ByStates
def vanishing(op: Op, states: Sequence[Slots | None], result: int, axis: int) -> Slots:
    """Sums, norms and padded windows over other axes: only zero stays what it is."""
    state = states[0]
    return UNKNOWN if state is None else np.where(state == 0, 0.0, np.nan)


def linear(factors: Sequence[int], bias: int | None = None) -> ByStates:
    """Products summed over other axes, plus a bias: zero in one factor leaves the bias."""

    @ByStates
    def transfer(op: Op, states: Sequence[Slots | None], result: int, axis: int) -> Slots:
        product: Slots = UNKNOWN
        for position in factors:
            state = states[position] if position < len(states) else None
            if state is not None:
                product = np.where(np.isnan(product) & (state == 0), 0.0, product)
        if bias is None or bias >= len(op.inputs) or op.inputs[bias] is None:
            return product
        added = states[bias]
        if added is None:
            added = UNKNOWN
        return product + added * float(op.attributes.get("beta", 1.0))

    return transfer

"""What elimination decided, independent of the file format: backends carry it out.

A :class:`Plan` never changes the graph it was made from. Everything in it is small but the kept indexes: weights are
sliced by the backend, one at a time, while it writes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ozgraph.graph import Array, Op, Value

Indices = npt.NDArray[np.int64]

Cuts = tuple[tuple[int, Indices], ...]
"""(axis, the sorted positions of it that stay), axis by axis."""


@dataclass(slots=True)
class Rewrite:
    """Changes to one operator that keeps its type.

    Attributes:
        attributes: new attribute values; None deletes the attribute.
        constants: operand position -> its new constant. The operand's old constant may be shared, so the backend
            makes a fresh one for this operator alone. A position past the end appends (a bias where there was none).
        sizes: operand position -> the elements of a shape operand that is computed at run time; None keeps the
            element that the model computes, a number replaces it.
    """

    attributes: dict[str, Any] = field(default_factory=dict)
    constants: dict[int, Array] = field(default_factory=dict)
    sizes: dict[int, tuple[int | None, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NewOp:
    """An operator of a replacement.

    Attributes:
        inputs: names of values of the graph or of earlier replacement outputs, constants in place, or None.
        outputs: names; the replaced operator's own output names stay, others are made unique by the backend.
    """

    type: str
    inputs: tuple[str | Array | None, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    domain: str = ""


@dataclass(slots=True)
class Plan:
    """A pruned model, described as the difference to its original.

    Attributes:
        keep: (constant, axis) -> the sorted positions that stay.
        rewrites: operators whose attributes or shape operands shrink.
        replacements: operators that turn into others (a mean into a sum, a norm over pruned slots).
        takes: (operator, operand position) -> the axes and positions that this use reads of a value that it shares.
        shapes: value -> its new shape, for every value whose shape changes.
    """

    keep: dict[tuple[Value, int], Indices] = field(default_factory=dict)
    rewrites: dict[Op, Rewrite] = field(default_factory=dict)
    replacements: dict[Op, tuple[NewOp, ...]] = field(default_factory=dict)
    takes: dict[tuple[Op, int], Cuts] = field(default_factory=dict)
    shapes: dict[Value, tuple[int, ...]] = field(default_factory=dict)

    def rewrite(self, op: Op) -> Rewrite:
        """The rewrite of ``op``, made on first use."""
        return self.rewrites.setdefault(op, Rewrite())

    def brought(self) -> list[Array]:
        """The numbers that the plan brings with it."""
        found: list[Array] = []

        def seen(array: Array) -> Array:
            found.append(array)
            return array

        self.with_brought(seen)
        return found

    def with_brought(self, change: Callable[[Array], Array]) -> Plan:
        """The same plan with other numbers in place of those that it brings."""
        rewrites = {
            op: replace(each, constants={place: change(np.asarray(array)) for place, array in each.constants.items()})
            for op, each in self.rewrites.items()
        }
        replacements = {
            op: tuple(
                replace(
                    new, inputs=tuple(change(item) if isinstance(item, np.ndarray) else item for item in new.inputs)
                )
                for new in sequence
            )
            for op, sequence in self.replacements.items()
        }
        return replace(self, rewrites=rewrites, replacements=replacements)


Zeroing = Mapping[tuple[Value, int], Indices]
"""(constant, axis) -> the positions that are set to zero: the members of chosen groups."""

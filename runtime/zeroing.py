"""Driving slots to zero and holding them there, in place and on the device."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ozgraph.runtime.places import Layout, Occupied


@dataclass(slots=True)
class _Touched:
    """A tensor with slots of a set: [positions] flags along each axis that has any."""

    occupied: Occupied
    along: list[tuple[int, Tensor]]


class Zeroing:
    """Multiplies the slots of one set by a factor, and fills those of another with zero.

    What to touch is worked out when a set changes; a step then costs one multiplication or fill for every tensor that
    has slots in it, and never reads anything back. A slot in no set is multiplied by exactly one, or not at all.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._decaying: list[_Touched] = []
        self._held: list[_Touched] = []

    def decay_only(self, slots: Tensor) -> None:
        """From now on :meth:`decay` works on these slots: [slots] flags."""
        self._decaying = self._touched(slots)

    def hold_only(self, slots: Tensor) -> None:
        """From now on :meth:`hold` works on these slots: [slots] flags."""
        self._held = self._touched(slots)

    def _touched(self, slots: Tensor) -> list[_Touched]:
        if not bool(slots.any()):
            return []
        found = []
        # Untouched reads as 1, so that a position with several slots is touched when any of them is.
        spared = (~slots).to(torch.float32)
        for occupied in self._layout.occupied:
            along = []
            for axis in occupied.axes:
                flags = occupied.positions(axis, spared.to(occupied.tensor.device), 1.0) == 0
                if bool(flags.any()):
                    along.append((axis, flags))
            if along:
                found.append(_Touched(occupied, along))
        return found

    @torch.no_grad()
    def decay(self, factor: float) -> None:
        """Multiply the decaying slots by ``factor``; an element in two of them only once."""
        if factor == 0.0:
            _fill(self._decaying, None)
            return
        for touched in self._decaying:
            tensor = touched.occupied.tensor
            flags = _joined(touched)
            tensor.mul_(torch.where(flags, factor, 1.0).to(tensor.dtype))

    @torch.no_grad()
    def hold(self) -> None:
        """Fill the held slots with zero: not by multiplying, so that infinities and NaN go too."""
        _fill(self._held, None)

    @torch.no_grad()
    def zero_(self, tensors: Mapping[str, Tensor]) -> None:
        """Fill the held slots of copies of the model's tensors, such as an average of its weights."""
        _fill(self._held, tensors)


def _joined(touched: _Touched) -> Tensor:
    flags = touched.occupied.shaped(*touched.along[0])
    for axis, more in touched.along[1:]:
        flags = flags | touched.occupied.shaped(axis, more)
    return flags


def _fill(everything: Iterable[_Touched], instead: Mapping[str, Tensor] | None) -> None:
    for touched in everything:
        tensor = touched.occupied.tensor if instead is None else instead.get(touched.occupied.name)
        if tensor is not None:
            tensor.masked_fill_(_joined(touched).to(tensor.device), 0)

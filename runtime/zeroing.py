"""Driving slots to zero and holding them there, in place and on the device."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ozgraph.runtime.places import Layout, Occupied
from ozgraph.runtime.replay import Replay
from ozgraph.runtime.shards import is_sharded, local, positions

Flags = npt.NDArray[np.bool_]
_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class Zeroing:
    """Multiplies the slots of one set by a factor, and fills those of another with zero.

    What to touch is worked out on the host when a set changes; a step then costs one multiplication or one mask for
    every tensor that has slots in it (all of them in one launch on CUDA) and never reads anything back. Elements in no
    slot of the set are multiplied by exactly one, or masked with all their bits.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._decays: list[_Decay] = []
        self._decaying = _Hold([])
        self._held = _Hold([])
        self._slots: Flags = np.zeros(layout.total, dtype=bool)
        self._decay, self._zero, self._hold = Replay(), Replay(), Replay()

    def decay_only(self, slots: Flags) -> None:
        """From now on :meth:`decay` works on these slots: [slots] flags."""
        touched = list(_touched(self._layout, slots))
        self._decaying = _Hold(touched)
        self._decays = _decays(touched)
        self._decay, self._zero = Replay(), Replay()

    def hold_only(self, slots: Flags) -> None:
        """From now on :meth:`hold` works on these slots: [slots] flags."""
        self._slots = slots
        self._held = _Hold(list(_touched(self._layout, slots)))
        self._hold = Replay()

    @torch.no_grad()
    def decay(self, factor: float) -> None:
        """Multiply the decaying slots by ``factor``; an element in two of them only once."""
        if factor == 0.0:
            self._zero(self._decaying, self._decaying.tensors)
            return
        for decay in self._decays:
            decay.factor.fill_(factor)
        self._decay(self._multiply, self._decaying.tensors)

    def _multiply(self) -> None:
        for decay in self._decays:
            decay()

    @torch.no_grad()
    def hold(self) -> None:
        """Fill the held slots with zero: not by multiplying, so that infinities and NaN go too."""
        self._hold(self._held, self._held.tensors)

    @torch.no_grad()
    def zero_(self, tensors: Mapping[str, Tensor]) -> None:
        """Fill the held slots of copies of the model's tensors, such as an average of its weights, sharded or whole."""
        padded = np.append(self._slots, False)
        for occupied in (*self._layout.occupied, *self._layout.factors):
            copy = tensors.get(occupied.name)
            if copy is not None:
                here = local(copy)
                for axis, numbers in occupied.whole:
                    flags = torch.from_numpy(padded[numbers[positions(copy, axis)]])
                    here.masked_fill_(occupied.shaped(axis, flags).to(here.device), 0)


_Along = list[tuple[int, Flags]]
"""Axes of a tensor with [positions] flags of what is touched."""


def _touched(layout: Layout, slots: Flags) -> Iterator[tuple[Occupied, _Along]]:
    """The tensors that have slots of a set."""
    if not slots.any():
        return
    # The last is for positions without a slot, whose number is -1.
    padded = np.append(slots, False)
    for occupied in (*layout.occupied, *layout.factors):
        along: dict[int, Flags] = {}
        for axis, numbers in occupied.numbers:
            flags = padded[numbers]
            along[axis] = along[axis] | flags if axis in along else flags
        found = [(axis, flags) for axis, flags in along.items() if flags.any()]
        if found:
            yield occupied, found


class _Parts:
    """Tensors of the layout where they lie now: a sharded parameter may move its part, any other stays what it is."""

    def __init__(self, occupied: list[Occupied]) -> None:
        self._occupied = occupied
        moves = any(is_sharded(entry.parameter) for entry in occupied)
        self._fixed = None if moves else [entry.tensor for entry in occupied]

    def __call__(self) -> list[Tensor]:
        return [entry.tensor for entry in self._occupied] if self._fixed is None else self._fixed


class _Hold:
    """Masks the bits of every touched tensor: as fast as memory allows, and nothing survives it."""

    def __init__(self, touched: list[tuple[Occupied, _Along]]) -> None:
        masked: list[Occupied] = []
        self._masks: list[Tensor] = []
        for occupied, along in touched:
            tensor = occupied.tensor
            bits = _INTEGERS[tensor.element_size()]
            for axis, flags in along:
                kept = np.where(flags, 0, -1)
                masked.append(occupied)
                self._masks.append(occupied.shaped(axis, torch.from_numpy(kept).to(bits).to(tensor.device)))
        self._parts = _Parts(masked)

    @property
    def tensors(self) -> list[Tensor]:
        """What is masked, once for every mask."""
        return self._parts()

    def __call__(self) -> None:
        for tensor, mask in zip(self.tensors, self._masks, strict=True):
            tensor.detach().view(mask.dtype).bitwise_and_(mask)


class _Decay:
    """Multiplies tensors of one device and type, whose factors lie in one vector written at once."""

    def __init__(self, touched: list[tuple[Occupied, _Along]]) -> None:
        one = touched[0][0].tensor
        flags = np.concatenate([row for _, along in touched for _, row in along])
        self.factor = torch.zeros((), dtype=one.dtype, device=one.device)
        self._one = torch.ones((), dtype=one.dtype, device=one.device)
        self._flags = torch.from_numpy(flags).to(one.device)
        self._factors = torch.ones(len(flags), dtype=one.dtype, device=one.device)
        plain: list[Occupied] = []
        self._multipliers: list[Tensor] = []
        self._joined: list[tuple[Occupied, list[Tensor]]] = []
        start = 0
        for occupied, along in touched:
            shaped = []
            for axis, row in along:
                shaped.append(occupied.shaped(axis, self._factors[start : start + len(row)]))
                start += len(row)
            if len(shaped) == 1:
                plain.append(occupied)
                self._multipliers.append(shaped[0])
            else:
                self._joined.append((occupied, shaped))
        self._plain = _Parts(plain)

    def __call__(self) -> None:
        torch.where(self._flags, self.factor, self._one, out=self._factors)
        if self._multipliers:
            torch._foreach_mul_(self._plain(), self._multipliers)
        for occupied, (first, *others) in self._joined:
            # Slots of two axes cross: an element in both decays once, so the axes are joined first.
            for other in others:
                first = torch.minimum(first, other)
            occupied.tensor.mul_(first)


def _decays(touched: list[tuple[Occupied, _Along]]) -> list[_Decay]:
    alike: dict[tuple[torch.device, torch.dtype], list[tuple[Occupied, _Along]]] = {}
    for occupied, along in touched:
        alike.setdefault((occupied.tensor.device, occupied.tensor.dtype), []).append((occupied, along))
    return [_Decay(rows) for rows in alike.values()]

"""Groups on real tensors: views where patterns allow them, one index vector where they do not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ozgraph.errors import UsageError
from ozgraph.groups import FamilyGroups, Groups, Occurrence, Pattern


@dataclass(frozen=True, slots=True)
class Strip:
    """A stretch of a family's slots in one axis of one tensor, readable as a view.

    Attributes:
        axis: of the tensor.
        start: number of its first slot among all slots of the run.
        pattern: where the slots sit; strides may be negative, which views cannot be, so :meth:`view` turns them round.
    """

    axis: int
    start: int
    pattern: Pattern

    def view(self, tensor: Tensor) -> Tensor:
        """The elements slot by slot: [slots, levels ..., other axes ...], sharing memory with ``tensor``."""
        pattern = self.pattern
        step = tensor.stride(self.axis)
        offset, stride = pattern.offset, pattern.stride
        if stride < 0:
            offset, stride = offset + (pattern.count - 1) * stride, -stride
        sizes = [pattern.count, *(size for size, _ in pattern.repeats)]
        strides = [stride * step, *(inner * step for _, inner in pattern.repeats)]
        for axis in range(tensor.dim()):
            if axis != self.axis:
                sizes.append(tensor.shape[axis])
                strides.append(tensor.stride(axis))
        return tensor.as_strided(sizes, strides, tensor.storage_offset() + offset * step)

    def order(self, slots: Tensor) -> Tensor:
        """The stretch of a vector over all slots of the run, in the order of :meth:`view`."""
        mine = slots[self.start : self.start + self.pattern.count]
        return mine.flip(0) if self.pattern.stride < 0 else mine

    def add_to(self, totals: Tensor, values: Tensor) -> None:
        """Add one value a slot, in the order of :meth:`view`, to the stretch of a vector over all slots."""
        if self.pattern.stride < 0:
            values = values.flip(0)
        totals[self.start : self.start + self.pattern.count] += values

    def sums(self, function: Callable[..., Tensor], totals: Tensor, *tensors: Tensor) -> None:
        """Add ``function`` of the slot-major views, one value a slot, to ``totals``."""
        self.add_to(totals, function(*(self.view(tensor) for tensor in tensors)).to(totals.dtype))

    def spread(self, slots: Tensor, positions: Tensor) -> None:
        """Write every slot's value of ``slots`` to its positions: [positions]."""
        shape = (-1,) + (1,) * len(self.pattern.repeats)
        self.along(positions).copy_(self.order(slots).view(shape).expand_as(self.along(positions)))

    def along(self, positions: Tensor) -> Tensor:
        """The view of a vector over the axis alone."""
        return Strip(0, self.start, self.pattern).view(positions)


@dataclass(frozen=True, slots=True)
class Scatter:
    """Slots of a family in one axis of one tensor without a regular pattern.

    Attributes:
        slots: [positions] number among all slots of the run; where a position has none, one past the last.
    """

    axis: int
    slots: Tensor

    def sums(self, function: Callable[..., Tensor], totals: Tensor, *tensors: Tensor) -> None:
        """Add ``function`` of the position-major views, one value a position, to the slots of ``totals``."""
        values = function(*(tensor.movedim(self.axis, 0) for tensor in tensors))
        room = torch.zeros(len(totals) + 1, dtype=totals.dtype, device=totals.device)
        totals += room.index_add_(0, self.slots, values.to(totals.dtype))[:-1]

    def spread(self, slots: Tensor, positions: Tensor) -> None:
        """Write every slot's value of ``slots`` to its positions: [positions]."""
        there = self.slots < len(slots)
        values = slots[self.slots.clamp(max=len(slots) - 1)]
        positions.copy_(torch.where(there, values, positions))


Place = Strip | Scatter


@dataclass(slots=True)
class Occupied:
    """A tensor with the places whose slices are zeroed.

    Attributes:
        places: for sums over slots, on the tensor's device.
        numbers: the same on the host, an axis at a time: [positions] number among all slots of the run, -1 for none.
    """

    name: str
    tensor: Tensor
    trainable: bool
    places: list[Place] = field(default_factory=list)
    numbers: list[tuple[int, npt.NDArray[np.int64]]] = field(default_factory=list)

    def shaped(self, axis: int, positions: Tensor) -> Tensor:
        """A vector along an axis, shaped to broadcast against the tensor."""
        shape = [1] * self.tensor.dim()
        shape[axis] = -1
        return positions.view(shape)


@dataclass(slots=True)
class Layout:
    """The families that a run prunes, their slots numbered from 0 to ``total``.

    Attributes:
        families: those that take part.
        numbers: their numbers in the groups.
        starts: number of the first slot of each.
        occupied: every tensor that has a zeroed place.
        device: where vectors over slots live.
    """

    groups: Groups
    families: list[FamilyGroups]
    numbers: list[int]
    starts: list[int]
    occupied: list[Occupied]
    device: torch.device

    @property
    def total(self) -> int:
        """Number of slots."""
        return self.starts[-1] + self.families[-1].size if self.families else 0

    def spans(self) -> Iterator[tuple[FamilyGroups, slice]]:
        """Every family with its stretch of the slots."""
        for family, start in zip(self.families, self.starts, strict=True):
            yield family, slice(start, start + family.size)

    def sums(self, function: Callable[..., Tensor], *sources: Mapping[str, Tensor]) -> Tensor:
        """Add up ``function`` over all zeroed places: [slots] float32.

        Args:
            function: takes one tensor for every source, its first axis the slots, and returns one value a slot.
            sources: tensors by name; a name that one of them lacks is left out.
        """
        return self.several_sums((function,), *sources)[0]

    def several_sums(
        self, functions: Sequence[Callable[..., Tensor]], *sources: Mapping[str, Tensor]
    ) -> tuple[Tensor, ...]:
        """As :meth:`sums` for several functions, taking every tensor from its source only once."""
        totals = tuple(torch.zeros(self.total, dtype=torch.float32, device=self.device) for _ in functions)
        for occupied in self.occupied:
            if all(occupied.name in source for source in sources):
                tensors = [source[occupied.name] for source in sources]
                for place in occupied.places:
                    for function, total in zip(functions, totals, strict=True):
                        if occupied.tensor.device == self.device:
                            place.sums(function, total, *tensors)
                        else:  # a model on several devices
                            apart = torch.zeros(self.total, dtype=torch.float32, device=occupied.tensor.device)
                            place.sums(function, apart, *tensors)
                            total += apart.to(self.device)
        return totals


def layout(groups: Groups, families: Sequence[FamilyGroups]) -> Layout:
    """The slots of ``families`` on the tensors of the module that ``groups`` are bound to.

    Raises:
        UsageError: the groups are bound to nothing.
    """
    if groups.module is None:
        raise UsageError("the groups are bound to no module; use ozgraph.find_groups, or Groups.load(...).bind(module)")
    tensors = dict(groups.module.named_parameters(remove_duplicate=False))
    tensors |= dict(groups.module.named_buffers(remove_duplicate=False))
    starts, start = [], 0
    occupied: dict[str, Occupied] = {}
    for family in families:
        starts.append(start)
        for occurrence in family.zeroed:
            name = occurrence.tensor
            if name not in occupied:
                trainable = groups.tensors[name].trainable
                occupied[name] = Occupied(name, tensors[name], trainable)
            slots = occurrence.slots()
            occupied[name].numbers.append((occurrence.axis, np.where(slots >= 0, slots + start, -1)))
            occupied[name].places.extend(_places(occurrence, start, start + family.size, tensors[name]))
        start += family.size
    total = start
    for entry in occupied.values():
        entry.places = [_settled(place, total) for place in entry.places]
    order = {family.id: number for number, family in enumerate(groups.families)}
    device = next((entry.tensor.device for entry in occupied.values()), torch.device("cpu"))
    return Layout(groups, list(families), [order[f.id] for f in families], starts, list(occupied.values()), device)


def _places(occurrence: Occurrence, start: int, end: int, tensor: Tensor) -> Iterator[Place]:
    if occurrence.patterns is not None and tensor.layout is torch.strided:
        for pattern in occurrence.patterns:
            yield Strip(occurrence.axis, start + pattern.first, pattern)
        return
    slots = torch.from_numpy(occurrence.slots()).to(tensor.device)
    # Until the number of all slots is known, -1 stands for "none".
    yield Scatter(occurrence.axis, torch.where(slots >= 0, slots + start, -1))


def _settled(place: Place, total: int) -> Place:
    if isinstance(place, Strip):
        return place
    return Scatter(place.axis, torch.where(place.slots >= 0, place.slots, total))

"""Groups on real tensors: views where patterns allow them, one index vector where they do not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ozgraph.errors import UsageError
from ozgraph.groups import ABSENT, FamilyGroups, Groups, Occurrence, Pattern, named_tensors, patterns_of
from ozgraph.runtime.low_rank import LowRank, low_ranks
from ozgraph.runtime.shards import add_up, is_sharded, local, owners, positions


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
    """A tensor with the places whose slices are zeroed; what is said of it is said of the part that lies here.

    Attributes:
        parameter: as the module holds it.
        places: for sums over slots, on the tensor's device.
        numbers: the same on the host, an axis at a time: [positions] number among all slots of the run, -1 for none.
        whole: the same for all positions, whether they lie here or not.
        owners: process groups over which the sums add up.
        low_rank: what trains beside the tensor in its place.
    """

    name: str
    parameter: Tensor
    trainable: bool
    places: list[Place] = field(default_factory=list)
    numbers: list[tuple[int, npt.NDArray[np.int64]]] = field(default_factory=list)
    whole: list[tuple[int, npt.NDArray[np.int64]]] = field(default_factory=list)
    owners: tuple[Any, ...] = ()
    low_rank: LowRank | None = None

    @property
    def tensor(self) -> Tensor:
        """What lies here."""
        return local(self.parameter)

    @property
    def trained(self) -> Tensor | None:
        """The parameter that an optimizer holds for it; None where it stays as it is."""
        trained = self.parameter if self.low_rank is None else self.low_rank.factors[-1]
        return trained if self.trainable and trained.requires_grad else None

    def value(self, *, together: bool = True) -> Tensor:
        """What the network computes with: with the low-rank part, where there is one.

        Args:
            together: the low-rank part of a sharded tensor too, for which all processes must ask at once.
        """
        tensor = self.tensor.detach()
        if self.low_rank is None or (self.owners and not together):
            return tensor
        return tensor + self.low_rank.delta().to(tensor.dtype)

    def occupy(self, axis: int, slots: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Take note of slots along an axis of the whole tensor; returns those that lie here."""
        here = slots[positions(self.parameter, axis)] if is_sharded(self.parameter) else slots
        self.whole.append((axis, slots))
        self.numbers.append((axis, here))
        return here

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
        factors: low-rank factors that are zeroed along with the tensors they train.
        device: where vectors over slots live.
    """

    groups: Groups
    families: list[FamilyGroups]
    numbers: list[int]
    starts: list[int]
    occupied: list[Occupied]
    factors: list[Occupied]
    device: torch.device

    @property
    def total(self) -> int:
        """Number of slots."""
        return self.starts[-1] + self.families[-1].size if self.families else 0

    def spans(self) -> Iterator[tuple[FamilyGroups, slice]]:
        """Every family with its stretch of the slots."""
        for family, start in zip(self.families, self.starts, strict=True):
            yield family, slice(start, start + family.size)

    def weights(self, *, together: bool = True) -> dict[str, Tensor]:
        """Everything that is occupied as it is now, by name; see :meth:`Occupied.value`."""
        return {entry.name: entry.value(together=together) for entry in self.occupied}

    def sums(self, function: Callable[..., Tensor], *sources: Mapping[str, Tensor], together: bool = True) -> Tensor:
        """Add up ``function`` over all zeroed places: [slots] float32.

        Args:
            function: takes one tensor for every source, its first axis the slots, and returns one value a slot.
            sources: tensors by name; a name that one of them lacks is left out.
            together: add what lies on other processes; without, of sharded tensors only the part here counts.
        """
        return self.several_sums((function,), *sources, together=together)[0]

    def several_sums(
        self,
        functions: Sequence[Callable[..., Tensor]],
        *sources: Mapping[str, Tensor],
        together: bool = True,
        axis: int | None = None,
    ) -> tuple[Tensor, ...]:
        """As :meth:`sums` for several functions, taking every tensor from its source only once.

        Args:
            axis: count only places in this axis of the tensors.
        """

        def nothing(device: torch.device) -> tuple[Tensor, ...]:
            return tuple(torch.zeros(self.total, dtype=torch.float32, device=device) for _ in functions)

        # Sums over sharded tensors are partial: those of the same processes are added up in one go.
        parts = {(): nothing(self.device)} | {entry.owners: nothing(self.device) for entry in self.occupied}
        for occupied in self.occupied:
            if all(occupied.name in source for source in sources):
                tensors = [source[occupied.name] for source in sources]
                mine = parts[occupied.owners]
                # A model may lie on several devices.
                there = mine if tensors[0].device == self.device else nothing(tensors[0].device)
                for place in occupied.places:
                    if axis is not None and place.axis != axis:
                        continue
                    for function, total in zip(functions, there, strict=True):
                        place.sums(function, total, *tensors)
                if there is not mine:
                    for total, apart in zip(mine, there, strict=True):
                        total += apart.to(self.device)
        totals: tuple[Tensor, ...] = parts.pop(())
        for processes, partial in parts.items():
            added = add_up(torch.stack(partial), processes) if together else torch.stack(partial)
            totals = tuple(total + more for total, more in zip(totals, added.unbind(), strict=True))
        return totals


def layout(groups: Groups, families: Sequence[FamilyGroups]) -> Layout:
    """The slots of ``families`` on the tensors of the module that ``groups`` are bound to.

    Raises:
        UsageError: the groups are bound to nothing.
    """
    if groups.module is None:
        raise UsageError("the groups are bound to no module; use ozgraph.find_groups, or Groups.load(...).bind(module)")
    tensors, adapted = named_tensors(groups.module), low_ranks(groups.module)
    starts, start = [], 0
    occupied: dict[str, Occupied] = {}
    factors: dict[str, Occupied] = {}
    for family in families:
        starts.append(start)
        for occurrence in family.zeroed:
            name, axis = occurrence.tensor, occurrence.axis
            if name not in occupied:
                parameter = tensors[name]
                beside = adapted.get(id(parameter))
                occupied[name] = Occupied(
                    name,
                    parameter,
                    groups.tensors[name].trainable,
                    owners=owners(parameter),
                    low_rank=None if beside is None else LowRank(*beside, parameter),
                )
            entry, slots = occupied[name], occurrence.slots()
            slots = np.where(slots >= 0, slots + start, ABSENT)
            here = entry.occupy(axis, slots)
            entry.places.extend(_places(occurrence, start, entry, here))
            for known_as, factor, its_axis in entry.low_rank.along(axis) if entry.low_rank is not None else ():
                factors.setdefault(known_as, Occupied(known_as, factor, True)).occupy(its_axis, slots)
        start += family.size
    total = start
    for entry in occupied.values():
        entry.places = [_settled(place, total) for place in entry.places]
    order = {family.id: number for number, family in enumerate(groups.families)}
    device = next((entry.tensor.device for entry in occupied.values()), torch.device("cpu"))
    return Layout(
        groups,
        list(families),
        [order[f.id] for f in families],
        starts,
        list(occupied.values()),
        list(factors.values()),
        device,
    )


def _places(occurrence: Occurrence, start: int, entry: Occupied, here: npt.NDArray[np.int64]) -> Iterator[Place]:
    """Places for sums; ``here`` are the slots that the positions here belong to, numbered as all slots of the run."""
    tensor, axis = entry.tensor, occurrence.axis
    patterns = occurrence.patterns
    if len(here) != occurrence.length:
        patterns = patterns_of(here)
    elif patterns is not None:
        patterns = tuple(replace(pattern, first=start + pattern.first) for pattern in patterns)
    if patterns is not None and tensor.layout is torch.strided:
        for pattern in patterns:
            yield Strip(axis, pattern.first, pattern)
        return
    # Until the number of all slots is known, -1 stands for "none".
    yield Scatter(axis, torch.from_numpy(here).to(tensor.device))


def _settled(place: Place, total: int) -> Place:
    if isinstance(place, Strip):
        return place
    return Scatter(place.axis, torch.where(place.slots >= 0, place.slots, total))

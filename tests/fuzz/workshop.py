"""What layers of random models are made with: the pool of tensors, the register of layers and shared pieces."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod

from fuzz.recipes import Draws
from models.building import Net

WIDEST = 24
LARGEST = 3000
"""The widest axis that a layer makes on purpose, and the most elements of a tensor."""


@dataclass(frozen=True)
class Tensor:
    """A value of the model under construction; axis 0 is the batch and never mixed with others."""

    name: str
    shape: tuple[int, ...]

    @property
    def rank(self) -> int:
        return len(self.shape)


class DoesNotFitError(Exception):
    """This layer cannot follow here; the step is skipped."""


@dataclass
class Workshop:
    """The model under construction.

    Attributes:
        pool: tensors to go on from.
        used: names of those that something reads.
        fixed_batch: whether sizes may be written as numbers, batch included.
        tables: constants by shape, shared by all that read one of that shape.
    """

    net: Net
    pool: list[Tensor]
    used: set[str]
    fixed_batch: bool = True
    tables: dict[tuple[int, ...], str] = field(default_factory=dict)

    def choose(self, draws: Draws, *ranks: int) -> Tensor:
        """A tensor of one of the ranks, more often a recent one."""
        fitting = [tensor for tensor in self.pool if not ranks or tensor.rank in ranks]
        if not fitting:
            raise DoesNotFitError
        back = draws.below(256)
        return fitting[-1 - (0 if back < 150 else back % len(fitting))]

    def add(self, name: str, *shape: int) -> Tensor:
        """Put a tensor into the pool."""
        require(prod(shape) <= LARGEST and min(shape) >= 1 and max(shape) <= 4 * WIDEST)
        made = Tensor(name, tuple(shape))
        self.pool.append(made)
        return made

    def like(self, name: str, tensor: Tensor) -> Tensor:
        """The same with the shape of another."""
        return self.add(name, *tensor.shape)


Layer = Callable[[Workshop, Tensor, Draws], None]
LAYERS: dict[str, tuple[tuple[int, ...], int, Layer]] = {}
"""Name: the ranks it takes (none: any), its weight in the lottery, and the layer."""


def layer(*ranks: int, weight: int = 2) -> Callable[[Layer], Layer]:
    def enter(build: Layer) -> Layer:
        LAYERS[build.__name__] = (ranks, weight, build)
        return build

    return enter


def require(fits: bool) -> None:
    if not fits:
        raise DoesNotFitError


def divisors(*sizes: int) -> list[int]:
    """Common divisors, 1 first."""
    return [d for d in range(1, min(sizes) + 1) if all(size % d == 0 for size in sizes)]


def channels(tensor: Tensor) -> int:
    """The axis that layers of weights run over."""
    return 1 if tensor.rank == 4 else tensor.rank - 1


def some_axis(tensor: Tensor, draws: Draws) -> int:
    """Mostly the channels."""
    return draws.pick([channels(tensor)] * 3 + list(range(1, tensor.rank)))


def resized(tensor: Tensor, axis: int, size: int) -> tuple[int, ...]:
    return (*tensor.shape[:axis], size, *tensor.shape[axis + 1 :])


def constant(w: Workshop, tensor: Tensor, draws: Draws) -> str:
    """A positive constant that broadcasts to a tensor: a number, one element a channel, or the whole of it."""
    axis = channels(tensor)
    line = [1] * (tensor.rank - 1)
    line[axis - 1] = tensor.shape[axis]
    shape = draws.pick([line, [], [*tensor.shape[1:]], [1] * (tensor.rank - 1), line[axis - 1 :]])
    return w.net.const(w.net.positive(*shape), "const")


def table(w: Workshop, *shape: int) -> str:
    """The positive constant of this shape that the whole model shares."""
    if shape not in w.tables:
        w.tables[shape] = w.net.const(w.net.positive(*shape), "table")
    return w.tables[shape]


def projected(w: Workshop, tensor: Tensor, width: int) -> Tensor:
    """A tensor with another number of channels, by the layer that its rank calls for."""
    net, size = w.net, tensor.shape[channels(tensor)]
    shape = resized(tensor, channels(tensor), width)
    if tensor.rank == 4:
        return Tensor(net.conv(tensor.name, size, width, 1), shape)
    made = net.linear(tensor.name, size, width) if tensor.rank == 2 else net.dense(tensor.name, size, width)
    return Tensor(made, shape)

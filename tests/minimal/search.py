"""All subsets of a group's slices that a model can lose.

A slice is one position of one axis of one weight. The walk goes through the operators in order. Where an operator reads
a weight for the first time, every subset of that weight's slices is tried; what cannot be is given up at the first
operator that shows it, which is what makes an exhaustive search possible. A state of the walk knows of every tensor

* what the original computes with the deleted slices at zero, and
* which positions of every axis are left (its *box*).

An operator that computes runs on what is left of its operands, with every number that its counting attributes may be.
It must run, and its results must be what the original computes at some positions, which become the result's box.
An operator that moves elements leaves a box, in the original order, or the state is given up. Shapes, sizes and
indexes may become whatever fits. So a state that reaches the end is a smaller model whose tensors are all parts of
the original's: a removable set. Graph outputs must be whole.

Two liberties of a rewrite are granted: statistics (means, norms) keep their original count, that is, are computed with
zeros in the place of what is gone (the groups of a norm stay of one size, though); and positions that the model makes
itself (an expanded axis) may be fewer.

Where an axis of a weight has more than :data:`MANY` slices of a group, not all subsets of them are tried: none, all,
each alone, all but one, and some random ones. Where an operator reads so many weights for the first time that more than
:data:`MOST_CHOICES` subsets are left, that many are drawn, beside none and all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain, combinations, product

import numpy as np
import onnx
from onnx import helper

from minimal.machine import Machine, UnsupportedError
from minimal.movement import MOVES, Box, moved, whole
from models.building import Array

Slice = tuple[str, int, int]
"""(weight, axis, position)."""

MANY = 4
BOXES = 4
"""How many ways to read a result as positions of the original are followed."""

MOST_CHOICES = 400
CLOSE = 1e-5
"""How far elements may be apart, relative to the largest."""

_SAMPLES = 3
_MOST_STATES = 60000

COUNTS: dict[str, tuple[str, ...]] = {
    "Conv": ("group",),
    "ConvTranspose": ("group",),
    "GroupNormalization": ("num_groups",),
    "LSTM": ("hidden_size",),
    "GRU": ("hidden_size",),
    "RNN": ("hidden_size",),
    "Attention": ("q_num_heads", "kv_num_heads"),
    "RotaryEmbedding": ("num_heads", "rotary_embedding_dim"),
}
"""Attributes that count slots."""

STATISTICS = frozenset({"GroupNormalization", "LayerNormalization", "RMSNormalization", "ReduceMean"})
_SIZES = frozenset({"Shape", "Size"})


@dataclass(frozen=True)
class Tensor:
    """A tensor of a state.

    Attributes:
        array: the original's, with the deleted slices at zero.
        box: what is left.
        fixed: a size or an index, which is what it was, whatever shrinks.
    """

    array: Array
    box: Box
    fixed: bool = False

    @property
    def left(self) -> Array:
        return self.array[np.ix_(*self.box)] if self.box else self.array

    @property
    def filled(self) -> Array:
        """With zeros where something is gone."""
        full = np.zeros_like(self.array)
        if not self.box:
            return self.array
        full[np.ix_(*self.box)] = self.left
        return full

    @property
    def is_whole(self) -> bool:
        return all(mask.all() for mask in self.box)


@dataclass
class Search:
    """The subsets of ``group`` that ``model`` can lose on some inputs.

    Args:
        group: the slices that may go.
        zeroed: those that are zero in the original when they go.
    """

    machine: Machine
    inputs: Mapping[str, Array]
    group: frozenset[Slice]
    zeroed: frozenset[Slice]
    states: int = field(default=0, init=False)
    _failing: set[tuple[str, tuple[tuple[int, ...] | None, ...]]] = field(default_factory=set, init=False)

    @cached_property
    def _weights(self) -> set[str]:
        return {name for name, _, _ in self.group}

    def removable(self) -> set[frozenset[Slice]]:
        """Every subset found, the empty one included."""
        start = {name: Tensor(array, whole(array.shape)) for name, array in self.inputs.items()}
        return set(self._walk(0, start, frozenset()))

    def _walk(self, number: int, tensors: dict[str, Tensor], gone: frozenset[Slice]) -> Iterator[frozenset[Slice]]:
        """Depth first; the stack holds one generator an operator."""
        stack = [self._step(number, tensors, gone)]
        while stack:
            following = next(stack[-1], None)
            if following is None:
                stack.pop()
                continue
            self.states += 1
            if self.states > _MOST_STATES:
                raise UnsupportedError("too many states")
            tensors, gone = following
            if len(stack) < len(self.machine.nodes):
                stack.append(self._step(len(stack), tensors, gone))
            elif all(tensors[name].is_whole for name in self.machine.outputs):
                yield gone

    def _step(
        self, number: int, tensors: dict[str, Tensor], gone: frozenset[Slice]
    ) -> Iterator[tuple[dict[str, Tensor], frozenset[Slice]]]:
        node = self.machine.nodes[number]
        fresh = [name for name in dict.fromkeys(node.input) if name and name not in tensors]
        for choice in _choices([slice_ for slice_ in sorted(self.group) if slice_[0] in fresh]):
            known = dict(tensors)
            for name in fresh:
                known[name] = self._weight(name, choice)
            operands = [known[name] if name else None for name in node.input]
            for results in self._results(node, operands):
                made = dict(zip((name for name in node.output if name), results, strict=False))
                yield {**known, **made}, gone | choice

    def _weight(self, name: str, choice: frozenset[Slice]) -> Tensor:
        array = self.machine.constants[name]
        mine = [one for one in choice if one[0] == name]
        box = whole(array.shape)
        for _, axis, position in mine:
            box[axis][position] = False
        if not self.zeroed.isdisjoint(mine):
            array = array.copy()
            for one in self.zeroed.intersection(mine):
                array[(slice(None),) * one[1] + (one[2],)] = 0
        return Tensor(array, box, array.dtype.kind in "iub" and name not in self._weights)

    def _results(self, node: onnx.NodeProto, operands: Sequence[Tensor | None]) -> Iterator[list[Tensor]]:
        node = _with_scale(node, operands)
        if self._known_to_fail(node, operands):
            return
        arrays = [None if operand is None else operand.array for operand in operands]
        originals = self.machine.run(node, arrays)
        if originals is None:
            raise UnsupportedError(f"{node.op_type} does not run alone")
        present = [operand for operand in operands if operand is not None]
        if node.op_type in _SIZES or (present and all(operand.fixed for operand in present)):
            yield [Tensor(array, whole(array.shape), fixed=True) for array in originals]
        elif node.op_type in MOVES and all(operand.fixed for operand in _directions(node, present)):
            boxes = [None if operand is None else operand.box for operand in operands]
            for found in moved(self.machine, node, arrays, boxes):
                yield [Tensor(array, box) for array, box in zip(originals, found, strict=True)]
        elif all(operand.is_whole for operand in present):
            yield [Tensor(array, whole(array.shape)) for array in originals]
        else:
            yield from self._computed(node, operands, originals)

    def _computed(
        self, node: onnx.NodeProto, operands: Sequence[Tensor | None], originals: Sequence[Array]
    ) -> Iterator[list[Tensor]]:
        left = [None if operand is None else operand.left for operand in operands]
        if node.op_type == "Resize" and len(left) > 3:
            left[3] = _shorter_sizes(operands)
        runs = False
        for counted in _counted(node):
            results = self.machine.run(counted, left)
            if results is None or any(a.ndim != b.ndim for a, b in zip(originals, results, strict=True)):
                continue
            runs = True
            if node.op_type in STATISTICS:
                if not _groups_are_alike(node, operands):
                    return
                boxes = [_statistics_box(node, operands, original) for original in originals]
                if all(_shape(box) == result.shape for box, result in zip(boxes, results, strict=True)):
                    yield from self._with_their_count(node, operands, originals, boxes)
                continue
            options = [
                _readings(original, result, operands) for original, result in zip(originals, results, strict=True)
            ]
            for boxes in product(*options):
                yield [Tensor(array, box) for array, box in zip(originals, boxes, strict=True)]
        if not runs and not any(array is not None and array.dtype.kind in "iu" for array in left):
            self._failing.add((node.output[0], _sizes(operands)))

    def _known_to_fail(self, node: onnx.NodeProto, operands: Sequence[Tensor | None]) -> bool:
        """Whether the operator failed on such shapes already; where there are no indexes, nothing else matters."""
        return (node.output[0], _sizes(operands)) in self._failing

    def _with_their_count(
        self, node: onnx.NodeProto, operands: Sequence[Tensor | None], originals: Sequence[Array], boxes: Sequence[Box]
    ) -> Iterator[list[Tensor]]:
        results = self.machine.run(node, [None if operand is None else operand.filled for operand in operands])
        if results is not None and all(
            _close(original[np.ix_(*box)], result[np.ix_(*box)])
            for original, result, box in zip(originals, results, boxes, strict=True)
        ):
            yield [Tensor(array, box) for array, box in zip(originals, boxes, strict=True)]


def _directions(node: onnx.NodeProto, present: Sequence[Tensor]) -> Sequence[Tensor]:
    """Operands that say how to move the others."""
    return () if node.op_type in ("Concat", "Pad") else present[1:]


def _statistics_box(node: onnx.NodeProto, operands: Sequence[Tensor | None], original: Array) -> Box:
    """What is left of the result of a mean or norm: what is left of its operand, reduced axes aside."""
    source = operands[0]
    assert source is not None
    box = list(source.box)
    if original.ndim < len(box):
        axes = operands[1].array.tolist() if len(operands) > 1 and operands[1] is not None else _axes(node)
        gone = {axis % len(box) for axis in axes} or set(range(len(box)))
        return tuple(mask for axis, mask in enumerate(box) if axis not in gone)
    return tuple(
        mask if mask.size == size else np.ones(size, dtype=bool) for mask, size in zip(box, original.shape, strict=True)
    )


def _shorter_sizes(operands: Sequence[Tensor | None]) -> Array | None:
    """The sizes that a Resize is asked for, where it leaves an axis alone as many as are left of it."""
    source, sizes = operands[0], operands[3]
    assert source is not None and sizes is not None
    if sizes.array.size != source.array.ndim:
        return sizes.array
    left = np.array(_shape(source.box), dtype=sizes.array.dtype)
    return np.where(sizes.array == source.array.shape, left, sizes.array)


def _groups_are_alike(node: onnx.NodeProto, operands: Sequence[Tensor | None]) -> bool:
    """Whether every group of a group norm keeps the same channels: no operator norms groups of different sizes."""
    count = next((attribute.i for attribute in node.attribute if attribute.name == "num_groups"), 0)
    source = operands[0]
    if not count or source is None:
        return True
    left = source.box[1].reshape(count, -1)
    return bool((left == np.logical_and.outer(left.any(axis=1), left.any(axis=0))).all())


def _axes(node: onnx.NodeProto) -> Sequence[int]:
    return next((tuple(attribute.ints) for attribute in node.attribute if attribute.name == "axes"), ())


def _sizes(operands: Sequence[Tensor | None]) -> tuple[tuple[int, ...] | None, ...]:
    return tuple(None if operand is None else _shape(operand.box) for operand in operands)


def _shape(box: Box) -> tuple[int, ...]:
    return tuple(int(mask.sum()) for mask in box)


def _close(wanted: Array, found: Array) -> bool:
    yard = CLOSE * _scale(wanted)
    return bool(_alike(wanted.reshape(1, -1), found.reshape(1, -1), yard).all())


def _alike(wanted: Array, found: Array, yard: float) -> Array:
    """Which rows are equal, up to ``yard``."""
    equal = wanted == found
    if wanted.dtype.kind == "f":
        with np.errstate(invalid="ignore"):
            equal |= (np.abs(wanted - found) <= yard) | (np.isnan(wanted) & np.isnan(found))
    rows: Array = equal.all(axis=1)
    return rows


def _scale(array: Array) -> float:
    """The largest finite magnitude, and never nothing."""
    if array.dtype.kind != "f":
        return 1.0
    return max(float(np.abs(array[np.isfinite(array)]).max(initial=0.0)), 1e-3)


def _readings(original: Array, result: Array, operands: Iterable[Tensor | None]) -> list[Box]:
    """Boxes of the original that hold what was computed; those that an operand has come first."""
    if any(now > size or not now for size, now in zip(original.shape, result.shape, strict=True)):
        return []
    shrunk = [axis for axis, size in enumerate(original.shape) if result.shape[axis] != size]
    if len(shrunk) == 1:
        return [_box_of(original.shape, {shrunk[0]: positions}) for positions in _aligned(original, result, shrunk[0])]
    options: list[list[tuple[int, ...]]] = []
    for size, now in zip(original.shape, result.shape, strict=True):
        likely = [
            tuple(np.flatnonzero(mask).tolist())
            for operand in operands
            if operand is not None
            for mask in operand.box
            if mask.size == size and mask.sum() == now
        ]
        every = combinations(range(size), now) if size - now <= 4 or now <= 4 else iter(())
        options.append(list(dict.fromkeys(chain(likely, every))))
    found = []
    for tried, positions in enumerate(product(*options)):
        if tried > MOST_CHOICES:
            break
        if _close(original[np.ix_(*positions)] if positions else original, result):
            found.append(_box_of(original.shape, dict(enumerate(positions))))
            if len(found) == BOXES:
                break
    return found


def _box_of(shape: Sequence[int], kept: Mapping[int, Sequence[int]]) -> Box:
    box = whole(shape)
    for axis, positions in kept.items():
        box[axis][:] = False
        box[axis][list(positions)] = True
    return box


def _aligned(original: Array, result: Array, axis: int) -> list[tuple[int, ...]]:
    """The ways to find the slices of a result, in order, among those of the original."""
    rows, columns = (np.moveaxis(array, axis, 0).reshape(array.shape[axis], -1) for array in (result, original))
    yard = CLOSE * _scale(original)
    # In order, row r can only be column r or one of the next few.
    shifts = range(len(columns) - len(rows) + 1)
    fits = np.stack([_alike(columns[shift : shift + len(rows)], rows, yard) for shift in shifts])
    same = [(row + np.flatnonzero(fits[:, row])).tolist() for row in range(len(rows))]
    ways: list[tuple[int, ...]] = [()]
    for numbers in same:
        ways = [(*way, number) for way in ways for number in numbers if not way or number > way[-1]]
        del ways[MOST_CHOICES:]
    return ways[:BOXES]


def _choices(slices: Sequence[Slice]) -> Iterator[frozenset[Slice]]:
    """Subsets of slices: all of them axis by axis where they are few."""
    axes: dict[tuple[str, int], list[Slice]] = {}
    for one in slices:
        axes.setdefault(one[:2], []).append(one)
    options = [list(dict.fromkeys(_subsets(members))) for members in axes.values()]
    total = int(np.prod([len(option) for option in options], dtype=np.float64))
    if total <= MOST_CHOICES:
        for parts in product(*options):
            yield frozenset(chain.from_iterable(parts))
        return
    yield frozenset()
    yield frozenset(slices)
    rng = np.random.default_rng(0)
    for _ in range(MOST_CHOICES):
        yield frozenset(chain.from_iterable(option[rng.integers(len(option))] for option in options))


def _subsets(members: Sequence[Slice]) -> Iterator[tuple[Slice, ...]]:
    if len(members) <= MANY:
        yield from chain.from_iterable(combinations(members, count) for count in range(len(members) + 1))
        return
    yield ()
    yield tuple(members)
    for number, one in enumerate(members):
        yield (one,)
        yield (*members[:number], *members[number + 1 :])
    rng = np.random.default_rng(len(members))
    for _ in range(_SAMPLES):
        chosen = rng.random(len(members)) < 0.5
        yield tuple(one for one, taken in zip(members, chosen, strict=True) if taken)


def _counted(node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
    """The operator with every value of its counting attributes, up to what they are; the original's first."""
    counting = [attribute for attribute in node.attribute if attribute.name in COUNTS.get(node.op_type, ())]
    ranges = [range(max(attribute.i, 1), 0, -1) if attribute.i else (0,) for attribute in counting]
    for values in product(*ranges):
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        for attribute in copy.attribute:
            for old, value in zip(counting, values, strict=True):
                if attribute.name == old.name:
                    attribute.i = value
        yield copy


def _with_scale(node: onnx.NodeProto, operands: Sequence[Tensor | None]) -> onnx.NodeProto:
    """Attention with its default scale written out: it is a number, whatever becomes of the head width."""
    if node.op_type != "Attention" or any(attribute.name == "scale" for attribute in node.attribute):
        return node
    queries = operands[0]
    assert queries is not None
    heads = next((attribute.i for attribute in node.attribute if attribute.name == "q_num_heads"), 1)
    width = queries.array.shape[-1] // (heads if queries.array.ndim == 3 else 1)
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    copy.attribute.append(helper.make_attribute("scale", float(width) ** -0.5))
    return copy

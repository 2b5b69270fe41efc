"""Where a value comes from: the tensors that can stand in for an output that does not vary.

An integer output, a saturated softmax or an empty detection says nothing about the layers behind it. Walking back from
it, every path is followed to its nearest tensor that does vary.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from itertools import count

from ozgraph.graph import Graph, Op, Value

# What these compute does not depend on the elements of their operand.
_SIZE_READERS = frozenset({"Shape", "Size"})


@dataclass(slots=True)
class Origins:
    """What each value of a graph depends on through elements, not sizes.

    Attributes:
        driven: values that depend on an input of the model.
        weighted: values that depend on a floating weight: agreement on others says nothing about a pruning.
    """

    driven: set[Value] = field(default_factory=set)
    weighted: set[Value] = field(default_factory=set)


def origins(graph: Graph) -> Origins:
    """Trace inputs and weights forward through the graph."""
    found = Origins(driven=set(graph.inputs))
    for value in graph.values.values():
        if value.constant is not None and value.is_float:
            found.weighted.add(value)
    looping = any(op.later is not None for op in graph.ops)
    while True:
        before = len(found.driven) + len(found.weighted)
        for op in graph.ops:
            if op.type in _SIZE_READERS:
                continue
            sources = list(_sources(op))
            for reached in (found.driven, found.weighted):
                if any(source in reached for source in sources):
                    reached.update(output for output in op.outputs if output is not None)
        # What the body of a loop returns comes back into it.
        if not looping or len(found.driven) + len(found.weighted) == before:
            return found


def comparable(value: Value, names: Collection[str]) -> bool:
    """Whether a value can be exposed and compared: computed, floating, and present in both files."""
    return value.producer is not None and value.is_float and value.name in names


def layers(value: Value, hops: int | None = None) -> list[list[Value]]:
    """Values upstream by distance in operators, the nearest first: entry 0 holds what is one operator away.

    Every path upstream that is at least that long passes through each of them.

    Args:
        hops: how far to go; None goes on to the inputs.
    """
    found: list[list[Value]] = []
    for source, distance in _walk(value, lambda _: False, hops):
        if distance > len(found):
            found.append([])
        found[-1].append(source)
    return found


def stand_ins(value: Value, lively: Callable[[Value], bool], hops: int) -> tuple[list[Value], bool]:
    """The nearest ``lively`` value of every path upstream, and whether some path went beyond ``hops``.

    Args:
        lively: whether a value was seen to vary.
    """
    accepted: list[Value] = []
    cut = False
    for found, distance in _walk(value, lively, hops):
        if lively(found):
            accepted.append(found)
        elif distance == hops and found.producer is not None:
            cut = True
    return accepted, cut


def _walk(value: Value, stop: Callable[[Value], bool], hops: int | None) -> Iterator[tuple[Value, int]]:
    """Values upstream of ``value`` with their distances, breadth first; nothing upstream of where ``stop`` holds."""
    seen = {value}
    layer = [value]
    for distance in count(1) if hops is None else range(1, hops + 1):
        if not layer:
            return
        above: list[Value] = []
        for current in layer:
            producer = current.producer
            if producer is None or producer.type in _SIZE_READERS:
                continue
            for source in _sources(producer):
                if source in seen or source.constant is not None:
                    continue
                seen.add(source)
                yield source, distance
                if not stop(source):
                    above.append(source)
        layer = above


def _sources(op: Op) -> Iterator[Value]:
    yield from (value for value in op.inputs if value is not None)
    yield from op.captures
    if op.later is not None:
        yield op.later

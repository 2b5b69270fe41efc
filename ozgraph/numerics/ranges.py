"""What an input's elements may be, read from the operators that consume them.

An integer that ends in a ``Gather`` must stay inside the gathered axis, a sequence length inside the sequence, an
operand that is a shape must be that shape. The walk follows an input forward through data movement and affine
arithmetic, so ``position_ids + 2`` leaves two rows out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from ozgraph.graph import Array, Graph, Op, Value


@dataclass(frozen=True, slots=True)
class Affine:
    """How a value follows from an input: between ``scale * x + low`` and ``scale * x + high``."""

    scale: float = 1.0
    low: float = 0.0
    high: float = 0.0

    def inverse(self, low: float, high: float) -> tuple[int, int]:
        """The integers x whose image lies within ``low`` .. ``high``."""
        ends = sorted(((low - self.low) / self.scale, (high - self.high) / self.scale))
        return math.ceil(ends[0] - 1e-9), math.floor(ends[1] + 1e-9)


@dataclass(frozen=True, slots=True)
class Demand:
    """What the consumers of an input ask of its elements.

    Attributes:
        low, high: inclusive bounds; None where nothing is asked.
        indexes: whether an element itself, not a sum of several, is an index or a count.
        exact: the elements themselves: shapes and sizes, at the sample sizes.
        masks: it decides which positions a softmax or an attention sees.
        domain: ``positive``, ``unit`` (-1 .. 1) or ``above_one``: where a function of it is real.
    """

    low: int | None = None
    high: int | None = None
    indexes: bool = False
    exact: Array | None = None
    masks: bool = False
    domain: str | None = None


Extent = Callable[[Value, int], int]
"""(value, axis) -> its size in the run at hand."""


def demand(source: Value, extent: Extent) -> Demand:
    """What the consumers of ``source`` ask, all of them together."""
    low: int | None = None
    high: int | None = None
    exact: Array | None = None
    domain: str | None = None
    indexes = False
    for op, operand, affine in _consumers(source):
        if affine == Affine():
            exact = _exact(op, operand) if exact is None else exact
            domain = domain or (_DOMAINS.get(op.type) if operand == 0 else None)
        bound = _bound(op, operand, extent)
        if bound is None or affine.scale == 0:
            continue
        indexes = indexes or abs(affine.scale) == 1
        least, most = affine.inverse(*bound)
        low = least if low is None else max(low, least)
        high = most if high is None else min(high, most)
    return Demand(low, high, indexes, exact, _masks(source), domain)


def _consumers(source: Value) -> Iterator[tuple[Op, int, Affine]]:
    """Every operand that ``source`` reaches in a form that can still be told, nearest first."""
    seen = {source}
    queue = [(source, Affine())]
    for value, affine in queue:
        for op, operand in value.uses:
            yield op, operand, affine
            following = _through(op, operand, affine)
            if following is None:
                continue
            for output in op.outputs:
                if output is not None and output not in seen:
                    seen.add(output)
                    queue.append((output, following))


_MOVES = frozenset(
    [
        "Identity",
        "Cast",
        "Loop.body",
        "Scan.body",
        "Scan.slice",
        "Unsqueeze",
        "Squeeze",
        "Reshape",
        "Flatten",
        "Transpose",
        "Expand",
        "Tile",
        "Slice",
        "Split",
        "Gather",
        "GatherElements",
        "GatherND",
        "Pad",
        "ReduceMax",
        "ReduceMin",
        "Dropout",
        "Abs",
        "Compress",
        "DepthToSpace",
        "SpaceToDepth",
    ]
)
_ANY_OPERAND_MOVES = frozenset({"Concat", "Max", "Min"})


def _through(op: Op, operand: int, affine: Affine) -> Affine | None:
    """How the outputs of ``op`` follow from the input; None where that cannot be told."""
    if (op.type in _MOVES and operand == 0) or op.type in _ANY_OPERAND_MOVES or (op.type == "Where" and operand > 0):
        return affine
    if op.type == "Neg":
        return Affine(-affine.scale, -affine.high, -affine.low)
    if op.type == "CumSum" and operand == 0:
        shape = op.inputs[0].shape if op.inputs[0] is not None else None
        longest = float(max(shape or (1,)))
        return Affine(affine.scale * longest, affine.low, affine.high * longest)
    if op.type not in {"Add", "Sub", "Mul", "Div"} or len(op.inputs) != 2 or operand not in (0, 1):
        return None
    known = _elements(op.inputs[1 - operand])
    if op.type in {"Mul", "Div"}:
        if known is None or (operand == 1 and op.type == "Div") or known.min() != known.max() or known.min() <= 0:
            return None
        factor = float(known.min()) if op.type == "Mul" else 1 / float(known.min())
        return Affine(affine.scale * factor, affine.low * factor, affine.high * factor)
    # What is added at run time is unknown: the bound is then a little generous.
    least, most = (float(known.min()), float(known.max())) if known is not None else (0.0, 0.0)
    if op.type == "Add":
        return Affine(affine.scale, affine.low + least, affine.high + most)
    if operand == 0:
        return Affine(affine.scale, affine.low - most, affine.high - least)
    return Affine(-affine.scale, least - affine.high, most - affine.low)


def _elements(value: Value | None) -> Array | None:
    """Known elements of a small integer or floating operand."""
    if value is None or value.size == 0:
        return None
    if value.integers is not None:
        return value.integers.elements
    if value.constant is not None and value.dtype is not None and value.dtype.kind in "iufb":
        return np.asarray(value.constant.numpy())
    return None


def _bound(op: Op, operand: int, extent: Extent) -> tuple[float, float] | None:
    """Inclusive bounds of the elements of an operand that indexes, counts or measures."""
    rule = _BOUNDS.get((op.operator, operand))
    size = rule(op, extent) if rule is not None else None
    if size is None:
        return None
    return (1, size) if (op.operator, operand) in _COUNTS else (0, size - 1)


Bound = Callable[[Op, Extent], "int | None"]


def _axis_of(operand: int, default: int = 0, attribute: str = "axis") -> Bound:
    """The size of the axis that an attribute names, of another operand."""

    def size(op: Op, extent: Extent) -> int | None:
        data = op.input(operand)
        axis = int(op.attributes.get(attribute, default))
        return extent(data, axis) if data is not None and data.shape else None

    return size


def _tuples(op: Op, extent: Extent) -> int | None:
    """The smallest of the axes that tuples of indexes run over, after the batch dims."""
    data, indices = op.input(0), op.input(1)
    if data is None or indices is None or not data.shape or not indices.shape:
        return None
    first = int(op.attributes.get("batch_dims", 0))
    return min((extent(data, axis) for axis in range(first, first + indices.shape[-1])), default=None)


def _rows(table: int) -> Bound:
    def size(op: Op, extent: Extent) -> int | None:
        data = op.input(table)
        return extent(data, 0) if data is not None and data.shape else None

    return size


def _steps(op: Op, extent: Extent) -> int | None:
    """Length of the sequence that a recurrent operator or ReverseSequence walks."""
    data = op.input(0)
    default = 1 if int(op.attributes.get("layout", 0)) else 0
    return extent(data, int(op.attributes.get("time_axis", default))) if data is not None and data.shape else None


def _depth(op: Op, extent: Extent) -> int | None:
    del extent
    known = _elements(op.input(1))
    return int(known.min()) if known is not None else 2


def _shortest(op: Op, extent: Extent) -> int | None:
    data = op.input(0)
    return min((extent(data, axis) for axis in range(data.rank)), default=None) if data is not None else None


def _constant(size: int) -> Bound:
    return lambda op, extent: size


def _total(op: Op, extent: Extent) -> int | None:
    """Key positions of GroupQueryAttention: past and present."""
    query, past = op.input(0), op.input(3)
    if query is None or query.rank != 3:
        return None
    return extent(query, 1) + (extent(past, 2) if past is not None and past.rank == 4 else 0)


_MS = "com.microsoft."
_BOUNDS: dict[tuple[str, int], Bound] = {
    ("Gather", 1): _axis_of(0),
    ("GatherElements", 1): _axis_of(0),
    ("GatherND", 1): _tuples,
    ("GRU", 4): _steps,
    ("LSTM", 4): _steps,
    ("Loop", 0): _constant(3),
    ("Loop.result", 0): _constant(3),
    ("Loop.stack", 0): _constant(3),
    ("OneHot", 0): _depth,
    ("Range", 1): _constant(8),
    ("ReverseSequence", 1): _steps,
    ("RNN", 4): _steps,
    ("RoiAlign", 2): _rows(0),
    ("RotaryEmbedding", 3): _rows(1),
    ("Scatter", 1): _axis_of(0),
    ("ScatterElements", 1): _axis_of(0),
    ("ScatterND", 1): _tuples,
    ("Slice", 1): _constant(1),
    ("Slice", 2): _shortest,
    ("Slice", 4): _constant(1),
    ("TensorScatter", 2): _constant(1),
    ("Tile", 1): _constant(2),
    ("TopK", 1): _axis_of(0, -1),
    (_MS + "EmbedLayerNormalization", 0): _rows(2),
    (_MS + "EmbedLayerNormalization", 1): _rows(4),
    (_MS + "EmbedLayerNormalization", 8): _rows(3),
    (_MS + "GatherBlockQuantized", 1): _axis_of(0, attribute="gather_axis"),
    (_MS + "GroupQueryAttention", 5): _total,
    (_MS + "GroupQueryAttention", 6): _total,
    (_MS + "RotaryEmbedding", 1): _rows(2),
}
# Operands that count from 1: lengths, sizes, repeats.
_COUNTS = frozenset(
    {
        ("GRU", 4),
        ("LSTM", 4),
        ("Loop", 0),
        ("Loop.result", 0),
        ("Loop.stack", 0),
        ("Range", 1),
        ("ReverseSequence", 1),
        ("RNN", 4),
        ("Slice", 2),
        ("Slice", 4),
        ("Tile", 1),
        ("TopK", 1),
        (_MS + "GroupQueryAttention", 6),
    }
)

_DOMAINS = {
    "Acos": "unit",
    "Acosh": "above_one",
    "Asin": "unit",
    "Atanh": "unit",
    "Log": "positive",
    "Sqrt": "positive",
}

# Operands that are a shape: the first output says which.
_SHAPES = frozenset({("ConstantOfShape", 0), ("Expand", 1), ("Reshape", 1), ("Resize", 3), ("Upsample", 1)})


def _exact(op: Op, operand: int) -> Array | None:
    """The elements of an operand that is a shape or a list of sizes, at the sample sizes."""
    result = op.outputs[0]
    if result is None or result.shape is None:
        return None
    if (op.operator, operand) in _SHAPES:
        return np.asarray(result.shape)
    if (op.operator, operand) == ("Resize", 2):
        data = op.input(0)
        if data is not None and data.shape is not None and data.rank == result.rank:
            return np.asarray(result.shape) / np.maximum(data.shape, 1)
    if (op.operator, operand) == ("Split", 1) and all(value is not None and value.shape for value in op.outputs):
        axis = int(op.attributes.get("axis", 0))
        return np.asarray([value.shape[axis] for value in op.outputs if value is not None and value.shape])
    return None


_MASKING = _MOVES | frozenset(
    [
        "Add",
        "And",
        "Clip",
        "Concat",
        "CumSum",
        "Div",
        "Equal",
        "Greater",
        "GreaterOrEqual",
        "Less",
        "LessOrEqual",
        "Max",
        "Min",
        "Mul",
        "Neg",
        "Not",
        "Or",
        "ScatterND",
        "Sub",
        "Trilu",
        "Where",
        "Xor",
    ]
)
_MASKED = {
    ("LogSoftmax", 0),
    ("Softmax", 0),
    ("Attention", 3),
    (_MS + "Attention", 3),
    (_MS + "EmbedLayerNormalization", 7),
    (_MS + "MultiHeadAttention", 4),
    (_MS + "MultiHeadAttention", 5),
}


def _masks(source: Value) -> bool:
    """Whether ``source`` reaches a softmax through pointwise operators only, but is not itself what it normalises.

    A floating input counts only where it is first turned around, as in ``(1 - mask) * -10000``.
    """
    seen = {source}
    queue = [(source, not source.is_float)]
    for value, turned in queue:
        for op, operand in value.uses:
            if (op.operator, operand) in _MASKED and turned:
                return True
            if op.type not in _MASKING or (op.type in _MOVES and operand != 0):
                continue
            now = turned or (op.type == "Sub" and operand == 1 and _elements(op.input(0)) is not None)
            for output in op.outputs:
                if output is not None and output not in seen:
                    seen.add(output)
                    queue.append((output, now))
    return False


def input_extents(graph: Graph, shapes: dict[str, tuple[int, ...]]) -> Extent:
    """Sizes of axes in a run with ``shapes``.

    An axis inside that varies has its sample size, but never more than the smallest varying size of the inputs.

    Only sizes of inputs are known in other bindings than the sample, so a dynamic axis inside is taken for small.
    """
    varying = [
        size
        for value in graph.inputs
        for size, dynamic in zip(shapes.get(value.name, ()), value.dynamic, strict=False)
        if dynamic
    ]
    smallest = min((size for size in varying if size > 1), default=min(varying, default=1))

    def extent(value: Value, axis: int) -> int:
        shape = value.shape
        if shape is None or not -len(shape) <= axis < len(shape):
            return 1
        if value.producer is None and value.name in shapes:
            return shapes[value.name][axis]
        return min(shape[axis], smallest) if value.dynamic and value.dynamic[axis] else shape[axis]

    return extent

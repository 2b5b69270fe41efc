"""Results of the operators that most models are made of, where everything about their operands is plainly known.

Each function answers exactly what onnx's own inference would, or None where it would have to think: unusual attributes,
element types or ranks, operands that do not fit, more results than one. onnx itself then answers, or objects.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import onnx_ir as ir

from ozgraph.graph import Array

Shape = tuple[int, ...]
Known = Mapping[str, Array]
"""Elements of the tensors of shape arithmetic, by name."""

Plain = Callable[[ir.Node, Sequence[Shape], Known], Shape | None]
"""(node, shapes of all of its operands, known elements) -> the shape of its only result."""

_FLOATS = frozenset((ir.DataType.FLOAT.value, ir.DataType.DOUBLE.value, ir.DataType.FLOAT16.value))
_WHOLE = frozenset((ir.DataType.INT64.value, ir.DataType.INT32.value))
_ANY = _FLOATS | _WHOLE | {ir.DataType.BOOL.value}


def plain(
    node: ir.Node,
    version: int,
    shapes: Mapping[str, tuple[int | str | None, ...]],
    dtypes: Mapping[str, int],
    known: Known,
) -> tuple[Shape, int] | None:
    """Shape and element type of the only result of ``node``; None where they take more than a glance."""
    entry = _PLAIN.get(node.op_type)
    if entry is None or version < max(entry[0], _OLDEST) or len(node.outputs) != 1:
        return None
    function, alike, allowed = entry[1:]
    operands: list[Shape] = []
    dtype = 0
    for number, value in enumerate(node.inputs):
        if value is None or (shape := shapes.get(name := value.name or "")) is None:
            return None
        here = dtypes.get(name)
        if not number:
            if here not in allowed:
                return None
            dtype = here
        elif here != dtype if number < alike else here not in _WHOLE:
            return None
        operands.append(shape)  # type: ignore[arg-type]  # sizes are numbers where a whole model is known
    result = function(node, operands, known) if operands else None
    return None if result is None else (result, dtype)


def _given(node: ir.Node, name: str, default: Any) -> Any:
    attribute = node.attributes.get(name)
    return default if attribute is None else attribute.value


def _whole(value: ir.Value | None, known: Known) -> list[int] | None:
    """The elements of a vector of integers."""
    elements = None if value is None else known.get(value.name or "")
    if elements is None or elements.ndim != 1 or elements.dtype.kind != "i":
        return None
    listed: list[int] = elements.tolist()
    return listed


def _keeps(node: ir.Node, shapes: Sequence[Shape], known: Known) -> Shape | None:
    return shapes[0] if len(shapes) == 1 else None


def _broadcast(node: ir.Node, shapes: Sequence[Shape], known: Known) -> Shape | None:
    if len(shapes) != 2:
        return None
    left, right = shapes
    return left if left == right else _together(left, right)


def _together(left: Shape, right: Shape) -> Shape | None:
    """What two shapes broadcast to."""
    if len(left) < len(right):
        left, right = right, left
    offset = len(left) - len(right)
    sizes = list(left)
    for axis, size in enumerate(right, offset):
        if sizes[axis] == 1:
            sizes[axis] = size
        elif size not in (1, sizes[axis]):
            return None
    return tuple(sizes)


def _windows(node: ir.Node, space: Shape, kernel: Sequence[int]) -> Shape | None:
    """Sizes of the axes that a window slides over."""
    count = len(space)
    if _given(node, "auto_pad", "NOTSET") != "NOTSET" or _given(node, "ceil_mode", 0) or len(kernel) != count:
        return None
    pads, strides = _given(node, "pads", (0,) * 2 * count), _given(node, "strides", (1,) * count)
    dilations = _given(node, "dilations", (1,) * count)
    if len(pads) != 2 * count or len(strides) != count or len(dilations) != count:
        return None
    made = []
    for axis, size in enumerate(space):
        room = size + pads[axis] + pads[count + axis] - (kernel[axis] - 1) * dilations[axis] - 1
        if room < 0 or min(pads) < 0 or strides[axis] < 1 or dilations[axis] < 1 or kernel[axis] < 1:
            return None
        made.append(room // strides[axis] + 1)
    return tuple(made)


def _conv(node: ir.Node, shapes: Sequence[Shape], known: Known) -> Shape | None:
    data, weight, group = shapes[0], shapes[1], _given(node, "group", 1)
    if len(data) < 3 or len(weight) != len(data) or group < 1:
        return None
    out, kernel = weight[0], weight[2:]
    if weight[1] * group != data[1] or out % group or (len(shapes) > 2 and shapes[2] != (out,)):
        return None
    if tuple(_given(node, "kernel_shape", kernel)) != kernel:
        return None
    space = _windows(node, data[2:], kernel)
    return None if space is None else (data[0], out, *space)


def _pool(node: ir.Node, shapes: Sequence[Shape], known: Known) -> Shape | None:
    data, kernel = shapes[0], _given(node, "kernel_shape", ())
    if len(data) < 3:
        return None
    space = _windows(node, data[2:], kernel)
    return None if space is None else (*data[:2], *space)


def _whole_pool(node: ir.Node, shapes: Sequence[Shape], known: Known) -> Shape | None:
    data = shapes[0]
    return None if len(data) < 3 else (*data[:2], *(1,) * (len(data) - 2))


def _matmul(node: ir.Node, shapes: Sequence[Shape], known: Known) -> Shape | None:
    left, right = shapes
    if len(left) < 2 or len(right) < 2 or left[-1] != right[-2]:
        return None
    leading = _together(left[:-2], right[:-2])
    return None if leading is None else (*leading, left[-2], right[-1])


def _gemm(node: ir.Node, shapes: Sequence[Shape], known: Known) -> Shape | None:
    left, right = shapes[:2]
    if len(left) != 2 or len(right) != 2:
        return None
    left = left[::-1] if _given(node, "transA", 0) else left
    right = right[::-1] if _given(node, "transB", 0) else right
    result = (left[0], right[1])
    if left[1] != right[0] or (len(shapes) > 2 and (len(shapes[2]) > 2 or _together(result, shapes[2]) != result)):
        return None
    return result


def _axis(node: ir.Node, default: int | None, rank: int) -> int | None:
    axis = _given(node, "axis", default)
    return axis % rank if axis is not None and -rank <= axis < rank else None


def _layer_norm(node: ir.Node, shapes: Sequence[Shape], known: Known) -> Shape | None:
    axis = _axis(node, -1, len(shapes[0]))
    return None if axis is None or any(shape != shapes[0][axis:] for shape in shapes[1:]) else shapes[0]


def _batch_norm(node: ir.Node, shapes: Sequence[Shape], known: Known) -> Shape | None:
    data = shapes[0]
    if len(data) < 2 or _given(node, "training_mode", 0) or any(shape != (data[1],) for shape in shapes[1:]):
        return None
    return data


def _along(node: ir.Node, shapes: Sequence[Shape], known: Known) -> Shape | None:
    return None if _axis(node, -1, len(shapes[0])) is None else shapes[0]


def _named_axes(node: ir.Node, rank: int, known: Known) -> set[int] | None:
    """Axes from the attribute or the second operand; None where they are not given, not known or not right."""
    axes = _given(node, "axes", None)
    if axes is None:
        axes = _whole(node.inputs[1], known) if len(node.inputs) == 2 else None
    if not axes or any(not -rank <= axis < rank for axis in axes):
        return None
    distinct = {axis % rank for axis in axes}
    return distinct if len(distinct) == len(axes) else None


def _reduce(node: ir.Node, shapes: Sequence[Shape], known: Known) -> Shape | None:
    axes = _named_axes(node, len(shapes[0]), known)
    if axes is None:
        return None
    if _given(node, "keepdims", 1):
        return tuple([1 if axis in axes else size for axis, size in enumerate(shapes[0])])
    return tuple([size for axis, size in enumerate(shapes[0]) if axis not in axes])


def _squeeze(node: ir.Node, shapes: Sequence[Shape], known: Known) -> Shape | None:
    axes = _named_axes(node, len(shapes[0]), known)
    if axes is None or any(shapes[0][axis] != 1 for axis in axes):
        return None
    return tuple([size for axis, size in enumerate(shapes[0]) if axis not in axes])


def _unsqueeze(node: ir.Node, shapes: Sequence[Shape], known: Known) -> Shape | None:
    given = _given(node, "axes", None) or (_whole(node.inputs[1], known) if len(node.inputs) == 2 else None)
    rank = len(shapes[0]) + len(given or ())
    axes = _named_axes(node, rank, known)
    if axes is None:
        return None
    sizes = iter(shapes[0])
    return tuple([1 if axis in axes else next(sizes) for axis in range(rank)])


def _reshape(node: ir.Node, shapes: Sequence[Shape], known: Known) -> Shape | None:
    target = _whole(node.inputs[1], known) if len(node.inputs) == 2 else None
    if target is None or 0 in shapes[0] or target.count(-1) > 1 or min(target, default=1) < -1:
        return None
    if 0 in target:
        if _given(node, "allowzero", 0) or any(not size and axis >= len(shapes[0]) for axis, size in enumerate(target)):
            return None
        target = [size or shapes[0][axis] for axis, size in enumerate(target)]
    count = math.prod(shapes[0])
    if -1 in target:
        rest = -math.prod(target)
        if count % rest:
            return None
        target[target.index(-1)] = count // rest
    return tuple(target) if math.prod(target) == count else None


def _flatten(node: ir.Node, shapes: Sequence[Shape], known: Known) -> Shape | None:
    axis = _given(node, "axis", 1)
    return (math.prod(shapes[0][:axis]), math.prod(shapes[0][axis:])) if 0 <= axis <= len(shapes[0]) else None


def _transpose(node: ir.Node, shapes: Sequence[Shape], known: Known) -> Shape | None:
    order = _given(node, "perm", None)
    if order is None or sorted(order) != list(range(len(shapes[0]))):
        return None
    return tuple([shapes[0][axis] for axis in order])


def _concat(node: ir.Node, shapes: Sequence[Shape], known: Known) -> Shape | None:
    first = shapes[0]
    axis = _axis(node, None, len(first))
    if axis is None:
        return None
    before, after, total = first[:axis], first[axis + 1 :], 0
    for shape in shapes:
        if len(shape) != len(first) or shape[:axis] != before or shape[axis + 1 :] != after:
            return None
        total += shape[axis]
    return (*before, total, *after)


def _gather(node: ir.Node, shapes: Sequence[Shape], known: Known) -> Shape | None:
    axis = _axis(node, 0, len(shapes[0]))
    return None if axis is None else (*shapes[0][:axis], *shapes[1], *shapes[0][axis + 1 :])


_OLDEST = 11
"""Before this opset, negative axes and much else meant other things, or nothing."""

_EVERY = 1 << 30

# Operator -> (opset version that it is there from, function, how many leading operands must be of one type, element
# types). Further operands are indexes and axes.
_PLAIN: dict[str, tuple[int, Plain, int, frozenset[int]]] = {
    "Add": (7, _broadcast, 2, _FLOATS | _WHOLE),
    "AveragePool": (7, _pool, 1, _FLOATS),
    "BatchNormalization": (9, _batch_norm, 5, _FLOATS),
    "Concat": (4, _concat, _EVERY, _ANY),
    "Conv": (1, _conv, 3, _FLOATS),
    "Div": (7, _broadcast, 2, _FLOATS),
    "Flatten": (9, _flatten, 1, _ANY),
    "Gather": (1, _gather, 1, _ANY),
    "Gemm": (9, _gemm, 3, _FLOATS),
    "GlobalAveragePool": (1, _whole_pool, 1, _FLOATS),
    "GlobalMaxPool": (1, _whole_pool, 1, _FLOATS),
    "LayerNormalization": (17, _layer_norm, 3, _FLOATS),
    "MatMul": (1, _matmul, 2, _FLOATS),
    "MaxPool": (8, _pool, 1, _FLOATS),
    "Mul": (7, _broadcast, 2, _FLOATS | _WHOLE),
    "ReduceMean": (1, _reduce, 1, _FLOATS),
    "ReduceSum": (1, _reduce, 1, _FLOATS),
    "Reshape": (5, _reshape, 1, _ANY),
    "Softmax": (1, _along, 1, _FLOATS),
    "Squeeze": (1, _squeeze, 1, _ANY),
    "Sub": (7, _broadcast, 2, _FLOATS | _WHOLE),
    "Transpose": (1, _transpose, 1, _ANY),
    "Unsqueeze": (1, _unsqueeze, 1, _ANY),
    **{
        name: (since, _keeps, 1, _FLOATS)
        for since, names in (
            (6, "Abs Ceil Elu Exp Floor HardSigmoid Identity LeakyRelu Log Neg Reciprocal Relu Selu Sigmoid Sqrt Tanh"),
            (7, "Cos Sin"),
            (9, "Erf"),
            (11, "Round"),
            (14, "HardSwish"),
            (18, "Mish"),
            (20, "Gelu"),
        )
        for name in names.split()
    },
}

OPERATORS = frozenset(_PLAIN)
"""Operators of the default domain that are looked at here."""


def since(operator: str) -> int:
    """The opset version that an operator is looked at from."""
    return max(_PLAIN[operator][0], _OLDEST)

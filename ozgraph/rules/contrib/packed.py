"""Weights of a few bits, several to a byte: blocks along a row share a scale.

A scale of zero makes its block zero whatever the codes say. So scales are what is zeroed, and codes and zero points are
sliced along with them.
"""

from __future__ import annotations

from dataclasses import dataclass

from ozgraph.errors import RuleError
from ozgraph.graph import Op, Value
from ozgraph.rules.contrib.operands import names, needing
from ozgraph.rules.lattice import linear
from ozgraph.rules.notation import Axes, Axis, Letter, Product
from ozgraph.rules.registry import register
from ozgraph.rules.rule import Edit, Rule, Spec, letters, need_shape

_INSIDE = "a block of it shares a scale"
_PACKED = "its weights are packed, several to a byte"
_PAIRED = "zero points of neighbouring blocks share a byte"
_CUT = "its last block is cut short"
_CHOSEN = "positions along it are looked up at run time"


@dataclass(frozen=True, slots=True)
class _Row:
    """The axis of a row of numbers, and what lies along it in the operands.

    Letters: ``b`` blocks, or runs of them whose zero points share a byte and ``run`` in each; ``i`` numbers in a block.

    Attributes:
        numbers: the axis of the numbers themselves.
        blocks: an axis with one position for each block.
        points: of zero points.
        sizes, frozen: as in a :class:`Spec`.
    """

    numbers: Axis
    blocks: Axis
    points: Axis
    sizes: dict[str, int]
    frozen: dict[str, str]


def _row(extent: int, block: int, bits: int, points: Value | None) -> _Row:
    """A row of ``extent`` numbers in blocks of ``block``."""
    if block < 1 or bits < 1 or 8 % bits:
        raise RuleError("its blocks are of no known kind")
    blocks, rest = divmod(extent, block)
    if rest:
        return _still(_CUT)
    packed = points is not None and points.dtype is not None and points.dtype.name == "uint8"
    run = 8 // bits if packed else 1
    numbers, along = Product(("b", "run", "i")), Product(("b", "run"))
    if blocks % run:  # the last byte is not full
        frozen = {"i": _INSIDE, "b": _PAIRED, "z": _PAIRED}
        return _Row(numbers, along, Letter("z"), {"i": block, "run": 1}, frozen)
    frozen = {"i": _INSIDE, "run": _PAIRED}
    return _Row(numbers, along, Letter("b"), {"i": block, "run": run}, frozen)


def _still(why: str) -> _Row:
    """A row that stays whole."""
    return _Row(Letter("k"), Letter("b"), Letter("z"), {}, {"k": why, "b": why, "z": why})


def _rows(value: Value | None, op: Op, along: Axis) -> Axes | None:
    """The axes of what every row has ``along`` it: two, or, as older files have it, one."""
    if value is None:
        return None
    if len(need_shape(value, op)) == 2:
        return (Letter("n"), along)
    return (Product(("n", *(along.factors if isinstance(along, Product) else (_name(along),)))),)


def _name(axis: Axis) -> str:
    assert isinstance(axis, Letter)
    return axis.name


def _product(op: Op) -> Spec:
    data, points = need_shape(op.inputs[0], op), op.input(3)
    if op.input(4) is None:
        row = _row(data[-1], int(op.attributes.get("block_size", 0)), int(op.attributes.get("bits", 4)), points)
    else:
        row = _still("its numbers belong to blocks in an order of their own")
    leading = letters("*m", len(data) - 1)
    operands: tuple[Axes | None, ...] = (
        (*leading, row.numbers),
        (Letter("n"), row.blocks, Letter("bytes")),
        _rows(op.input(2), op, row.blocks),
        _rows(points, op, row.points),
        (Letter("k"),),
        (Letter("n"),),
    )
    frozen = row.frozen | {"bytes": _PACKED}
    return Spec(operands[: len(op.inputs)], ((*leading, Letter("n")),), row.sizes, frozen=frozen)


def _sizes(edit: Edit) -> None:
    """Its attributes say how large the matrix is."""
    data = edit.op.inputs[0]
    assert data is not None
    edit.set_attribute("N", int(edit.kept("n").sum()))
    edit.set_attribute("K", int(edit.kept_axis(data, len(data.shape or ()) - 1).sum()))


register(
    names("MatMulNBits"),
    needing(
        (0, 1, 2),
        Rule(
            _product,
            linear((0, 2), bias=5),
            rewrite=_sizes,
            macs=("*m n b run i", "*m n k"),
            statistics=frozenset({1, 3}),
            text="*m (b i), n b bytes, n b, n b, , n -> *m n",
        ),
    ),
)


def _looked_up(op: Op) -> Spec:
    """Rows of a table of codes, looked up and made numbers of."""
    table, indexes = need_shape(op.inputs[0], op), need_shape(op.inputs[1], op)
    axes = (int(op.attributes.get("gather_axis", 0)) % len(table), int(op.attributes.get("quantize_axis", 1)))
    if len(table) != 2 or axes[0] != 0 or axes[1] % 2 != 1:
        raise RuleError("it looks along another axis than the first, or its blocks lie along another than the last")
    code, bits = op.inputs[0], int(op.attributes.get("bits", 4))
    packed = code is not None and code.dtype is not None and code.dtype.name == "uint8"
    extent = table[1] * (8 // bits if packed else 1)
    row = _row(extent, int(op.attributes.get("block_size", 128)), bits, op.input(3))
    positions = letters("q", len(indexes))
    codes: Axis = row.numbers
    sizes, frozen = dict(row.sizes), row.frozen | {"n": _CHOSEN}
    if packed:
        # As many bytes to a block as its numbers fill.
        inside = {"i": "bytes"}
        if isinstance(row.numbers, Product):
            codes = Product(tuple(inside.get(name, name) for name in row.numbers.factors))
            sizes["bytes"] = row.sizes["i"] * bits // 8
        else:
            codes = Letter("bytes")
        frozen["bytes"] = _PACKED
    operands: tuple[Axes | None, ...] = (
        (Letter("n"), codes),
        positions,
        _rows(op.input(2), op, row.blocks),
        _rows(op.input(3), op, row.points),
    )
    return Spec(operands[: len(op.inputs)], ((*positions, row.numbers),), sizes, frozen=frozen)


register(
    names("GatherBlockQuantized"),
    needing(
        (0, 1, 2),
        Rule(
            _looked_up,
            linear((2,)),
            statistics=frozenset({0, 3}),
            text="n (b bytes), *q, n b, n b -> *q (b i)",
        ),
    ),
)

"""Draw the pictures of docs/concepts.md from what ozgraph finds in small networks.

    python docs/pictures/concepts.py

Colours, roles, exactness, frozen slots and reasons are those of the analysis; only the layout is chosen here.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import ozgraph
from ozgraph.api import Analysis
from ozgraph.graph import Value
from ozgraph.markup import Markup, element, join

COLORS = ("#0064a8", "#b84a00", "#00705a", "#a23b86")
STAYS, INK, LINE, CELL = "#c3cad1", "#1d2730", "#8a97a3", 16
STYLE = (
    "text { font: 13px system-ui, sans-serif; fill: #1d2730 } .quiet { fill: #51606d } .small { font-size: 11px }"
    " .head { font-weight: 600 }"
)


# -- networks --------------------------------------------------------------------------------------------------------


def analyzed(
    nodes: Sequence[onnx.NodeProto],
    weights: dict[str, tuple[int, ...]],
    inputs: dict[str, tuple[int, ...]],
    outputs: dict[str, tuple[int, ...]],
) -> Analysis:
    """What ozgraph finds in a network with random weights."""
    random = np.random.default_rng(0)

    def told(shapes: dict[str, tuple[int, ...]]) -> list[onnx.ValueInfoProto]:
        return [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]

    constants = [
        numpy_helper.from_array(random.standard_normal(shape).astype(np.float32), name)
        for name, shape in weights.items()
    ]
    graph = helper.make_graph(list(nodes), "picture", told(inputs), told(outputs), constants)
    return ozgraph.analyze(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))


def linear(operand: str, weight: str, result: str) -> onnx.NodeProto:
    """A linear layer without a bias, its weight [out, in]."""
    return helper.make_node("Gemm", [operand, weight], [result], transB=1)


def residual() -> Analysis:
    """Two layers beside a shortcut, and one behind them."""
    nodes = [
        linear("x", "w1", "a"),
        linear("a", "w2", "h"),
        helper.make_node("Relu", ["h"], ["r"]),
        linear("r", "w3", "b"),
        helper.make_node("Add", ["a", "b"], ["s"]),
        linear("s", "w4", "y"),
    ]
    return analyzed(nodes, {"w1": (6, 4), "w2": (5, 6), "w3": (6, 5), "w4": (3, 6)}, {"x": (1, 4)}, {"y": (1, 3)})


def composed() -> Analysis:
    """A concatenation, and a flattening ahead of a linear layer."""
    nodes = [
        helper.make_node("Conv", ["x", "v1"], ["a"]),
        helper.make_node("Conv", ["x", "v2"], ["b"]),
        helper.make_node("Concat", ["a", "b"], ["c"], axis=1),
        helper.make_node("Flatten", ["c"], ["f"]),
        linear("f", "w", "y"),
    ]
    weights = {"v1": (3, 2, 1, 1), "v2": (2, 2, 1, 1), "w": (2, 20)}
    return analyzed(nodes, weights, {"x": (1, 2, 2, 2)}, {"y": (1, 2)})


def partly_frozen() -> Analysis:
    """A layer of which the first slots are an output of the model as well."""
    nodes = [
        linear("x", "w1", "h"),
        helper.make_node("Slice", ["h", "zero", "three", "one"], ["seen"]),
        linear("h", "w2", "y"),
    ]
    return analyzed_with_bounds(nodes)


def analyzed_with_bounds(nodes: Sequence[onnx.NodeProto]) -> Analysis:
    """As :func:`analyzed`, with the integers that a slice needs."""
    bounds = [
        helper.make_node("Constant", [], [name], value=numpy_helper.from_array(np.array([number], dtype=np.int64)))
        for name, number in (("zero", 0), ("three", 3), ("one", 1))
    ]
    shapes = {"w1": (8, 4), "w2": (3, 8)}
    return analyzed([*bounds, *nodes], shapes, {"x": (1, 4)}, {"seen": (1, 3), "y": (1, 3)})


def value(analysis: Analysis, name: str) -> Value:
    """A tensor by its name."""
    return next(each for each in analysis.state.axes if each.name == name)


def owners(analysis: Analysis, name: str, axis: int) -> list[tuple[int, int] | None]:
    """For every position of an axis the family, by number, and the slot of it; None where it stays."""
    state = analysis.state
    found: list[tuple[int, int] | None] = []
    for ids in state.dims.ids(state.axes[value(analysis, name)][axis]):
        here = None
        for number, family in enumerate(analysis.families):
            for slot in ids:
                if family.atom.base <= slot < family.atom.base + family.atom.size:
                    here = (number, int(slot) - family.atom.base)
        found.append(here)
    return found


# -- shapes ----------------------------------------------------------------------------------------------------------


def box(x: float, y: float, width: float, height: float, fill: str, stroke: str = "none", radius: float = 0) -> Markup:
    """A rectangle."""
    size = {"x": f"{x:g}", "y": f"{y:g}", "width": f"{width:g}", "height": f"{height:g}", "rx": f"{radius:g}"}
    return element("rect", **size, fill=fill, stroke=stroke)


def text(x: float, y: float, content: str, kind: str = "", anchor: str = "start") -> Markup:
    """One line."""
    return element("text", content, x=f"{x:g}", y=f"{y:g}", class_=kind, text_anchor=anchor)


def line(*points: tuple[float, float]) -> Markup:
    """An arrow along points."""
    path = "M" + " L".join(f"{x:g} {y:g}" for x, y in points)
    return element("path", d=path, fill="none", stroke=LINE, stroke_width="1.5", marker_end="url(#tip)")


def color(owner: tuple[int, int] | None) -> str:
    """That of a family, or of what stays."""
    return STAYS if owner is None else COLORS[owner[0]]


def strip(
    x: float, y: float, slots: Iterable[tuple[int, int] | None], down: bool = False, thick: float = CELL
) -> Markup:
    """The slots of an axis."""
    parts = []
    for number, owner in enumerate(slots):
        along = number * CELL
        across = (x, y + along, thick, CELL) if down else (x + along, y, CELL, thick)
        parts.append(box(*across, color(owner), "white"))
    return join(parts)


def weight(x: float, y: float, analysis: Analysis, name: str, fill: Callable[[int, int], str]) -> Markup:
    """A matrix [out, in]: its axes as strips beside it, its elements filled as ``fill`` says."""
    rows, columns = owners(analysis, name, 0), owners(analysis, name, 1)
    parts = [strip(x - 9, y, rows, down=True, thick=6), strip(x, y - 9, columns, thick=6)]
    parts.extend(
        box(x + column * CELL, y + row * CELL, CELL, CELL, fill(row, column), "white")
        for row in range(len(rows))
        for column in range(len(columns))
    )
    return join([*parts, text(x, y - 15, f"{name} [{len(rows)}, {len(columns)}]", "small")])


def operator(x: float, y: float, name: str) -> Markup:
    """A box with a name."""
    return join([box(x, y, 76, 26, "#eef1f4", LINE, 5), text(x + 38, y + 17, name, anchor="middle")])


def picture(title: str, width: int, height: int, *parts: Markup) -> str:
    """A file, on a ground of its own so that it can be read in any theme."""
    tip = element("path", d="M0 0 L8 4 L0 8 z", fill=LINE)
    hatch = element("path", d="M0 6 L6 0", stroke=INK, stroke_width="1.2")
    definitions = element(
        "defs",
        element(
            "marker",
            tip,
            id="tip",
            viewBox="0 0 8 8",
            refX="7",
            refY="4",
            markerWidth="7",
            markerHeight="7",
            orient="auto",
        ),
        element("pattern", hatch, id="hatch", width="6", height="6", patternUnits="userSpaceOnUse"),
    )
    ground = box(0.5, 0.5, width - 1, height - 1, "#ffffff", "#d5dbe1", 8)
    body = join([element("title", title), element("style", Markup(STYLE)), definitions, ground, *parts])
    return (
        element(
            "svg",
            body,
            xmlns="http://www.w3.org/2000/svg",
            viewBox=f"0 0 {width} {height}",
            width=str(width),
            role="img",
        )
        + "\n"
    )


# -- pictures --------------------------------------------------------------------------------------------------------


def families() -> str:
    """Operators, the axes between them, and what weights are to each family."""
    found = residual()
    # What stands below what: a tensor, the operator that makes it, and that operator's weight.
    flow = (("a", "Linear", "w1"), ("h", "Linear", "w2"), ("r", "Relu", ""), ("b", "Linear", "w3"), ("s", "Add", ""))
    middle, y, places = 84, 26, {"x": 26}
    parts = [strip(middle - 2 * CELL, y, owners(found, "x", 1)), text(middle + 66, y + 13, "x", "quiet")]
    for name, label, made_by in (*flow, ("y", "Linear", "w4")):
        gap = 70 if made_by and made_by != "w1" else 22
        top = y + CELL + gap
        slots = owners(found, name, 1)
        parts += [line((middle, y + CELL), (middle, top)), operator(middle - 38, top, label)]
        if made_by:
            parts.append(weight(226, top - 24, found, made_by, lambda row, column: "#e6eaee"))
        y = places[name] = top + 42
        parts += [line((middle, top + 26), (middle, y)), strip(middle - len(slots) * CELL / 2, y, slots)]
        parts.append(text(middle + 66, y + 13, name, "quiet"))
    left, add = 18, places["s"] - 29
    parts.append(line((middle - 50, places["a"] + 8), (left, places["a"] + 8), (left, add), (middle - 38, add)))
    below = 58
    parts.append(text(410, 40, "families", "head"))
    for number, family in enumerate(found.families):
        parts.append(box(410, below, 12, 12, COLORS[number]))
        parts.append(text(430, below + 11, f"{family.id}: {family.atom.size} slots, {family.exactness}"))
        makes = [f"{member.value.name} axis {member.axis}" for member in family.members]
        reads = [f"{each.name} axis {axis}" for each, axis in family.slices]
        parts.append(text(430, below + 30, f"producers: {', '.join(makes)}", "quiet"))
        consumers = ", ".join(place for place in reads if place not in makes)
        parts.append(text(430, below + 48, f"consumers: {consumers}", "quiet"))
        below += 76
    parts += [box(410, below, 12, 12, STAYS), text(430, below + 11, "stays: the shapes of inputs and outputs")]
    parts.append(text(430, below + 29, "are promised to the caller"))
    return picture("A residual network: its dims, and the families of its weights", 720, y + 40, *parts)


def group() -> str:
    """One slot of a family: what is zeroed, and what is dropped with it."""
    found, slot = residual(), 2
    family = found.families[0]
    zeroed = {(member.value.name, member.axis) for member in family.members}
    going = {(each.name, axis) for each, axis in family.slices}
    parts, x = [], 40
    for name in ("w1", "w2", "w3", "w4"):

        def fill(row: int, column: int, name: str = name) -> str:
            hit = [
                (name, axis) for axis, place in ((0, row), (1, column)) if owners(found, name, axis)[place] == (0, slot)
            ]
            if any(place in zeroed for place in hit):
                return COLORS[0]
            return "url(#hatch)" if any(place in going for place in hit) else "#e6eaee"

        parts.append(weight(x, 52, found, name, fill))
        x += len(owners(found, name, 1)) * CELL + 60
    parts += [
        box(40, 172, 12, 12, COLORS[0]),
        text(60, 183, "the group: zero in all of these, and slot 2 is zero wherever it goes"),
    ]
    parts += [
        box(40, 194, 12, 12, "url(#hatch)", LINE),
        text(60, 205, "its consumers: they multiply zero, and are dropped with it"),
    ]
    return picture(f"One group of family {family.id}", 580, 224, *parts)


def slots() -> str:
    """Where slots go through a concatenation and a flattening."""
    found = composed()
    rows = (
        ("a", 1, "a: 3 channels"),
        ("b", 1, "b: 2 channels"),
        ("c", 1, "Concat: Sum(a, b)"),
        ("f", 1, "Flatten: Prod(Sum(a, b), 4 places)"),
    )
    parts, y = [], 26
    for name, axis, label in rows:
        parts.append(text(24, y + 13, label))
        for number, owner in enumerate(owners(found, name, axis)):
            x = 270 + number * 21
            parts.append(box(x, y, 20, 20, color(owner)))
            mark = element(
                "text",
                str(owner[1]) if owner else "",
                x=str(x + 10),
                y=str(y + 14),
                text_anchor="middle",
                style="fill: white; font-size: 11px",
            )
            parts.append(mark)
        y += 38
    parts.append(
        text(
            24,
            y + 8,
            "Slot 1 of a is one channel of a, channel 1 of the concatenation, and four columns of the flattened one.",
            "quiet",
        )
    )
    return picture("Slots keep their identity", 710, y + 24, *parts)


def frozen() -> str:
    """Slots that stay one by one, with the reason that the analysis gives."""
    found = partly_frozen()
    shown = owners(found, "h", 1)
    parts = [text(24, 40, "h: 8 slots"), strip(130, 27, shown)]
    reason = found.report.frozen[0]
    held = [number for number, owner in enumerate(shown) if owner is None]
    parts += [
        line((130 + (held[-1] + 1) * CELL / 2, 44), (130 + (held[-1] + 1) * CELL / 2, 66)),
        text(130, 82, f"{len(held)} stay: {reason.reason}", "quiet"),
    ]
    free = found.families[0]
    parts.append(text(130 + 8 * CELL + 14, 40, f"{len(shown) - len(held)} may go, {free.exactness}"))
    parts.append(text(24, 110, "seen = h[:, :3] is an output of the model; y = Linear(h) is another.", "quiet"))
    return picture("Frozen slot by slot", 560, 128, *parts)


def contract() -> str:
    """Who decides, who removes, who checks."""
    parts: list[Markup] = []

    def step(x: float, y: float, title: str, *lines: str) -> None:
        parts.append(box(x, y, 190, 72, "#eef1f4", LINE, 6))
        parts.append(text(x + 95, y + 24, title, "head", "middle"))
        parts.extend(
            text(x + 95, y + 43 + 16 * number, content, "small quiet", "middle") for number, content in enumerate(lines)
        )

    step(20, 24, "who decides", "a criterion, HESSO,", "anything that makes zeros")
    step(270, 24, "who proves", "which slots have no effect", "at every operator")
    step(520, 24, "who removes", "slices weights, re-derives", "shapes and attributes")
    step(270, 140, "who checks", "runs both: the original with", "exactly the groups at zero")
    parts += [line((210, 60), (268, 60)), text(239, 52, "zeros", "small", "middle")]
    parts += [line((460, 60), (518, 60)), text(489, 52, "proof", "small", "middle")]
    parts += [line((615, 96), (615, 176), (462, 176)), text(540, 168, "smaller model", "small", "middle")]
    parts += [line((115, 96), (115, 176), (268, 176)), text(190, 168, "zeroed original", "small", "middle")]
    parts += [
        line((365, 212), (365, 236)),
        text(365, 252, "equal: it gets its name; not equal: the family goes back, with that reason", "small", "middle"),
    ]
    return picture("Zeros are the contract", 730, 268, *parts)


PICTURES = {"families": families, "group": group, "slots": slots, "frozen": frozen, "contract": contract}


def main(folder: Path) -> None:
    """Write every picture into a folder."""
    for name, draw in PICTURES.items():
        (folder / f"{name}.svg").write_text(draw(), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)

"""A run's metrics as a picture: loss, sparsity, how far redundant and important groups are apart, cycles. Plain SVG."""

from __future__ import annotations

import html
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ozgraph.markup import Markup, element, join

Across = Callable[[float], float]

Row = Mapping[str, float]
"""One reading: what ``pruner.metrics()`` gave, and ``loss`` where it is known."""

_WIDTH, _LEFT, _RIGHT, _HEIGHT, _GAP, _TOP = 720, 64, 150, 120, 34, 50


@dataclass(frozen=True)
class Panel:
    """Lines over the same steps.

    Attributes:
        lines: key of the rows, what it is called, colour.
        share: the scale runs from 0 to 100 %.
    """

    title: str
    lines: tuple[tuple[str, str, str], ...]
    logarithmic: bool = False
    share: bool = False


PANELS = (
    Panel("loss", (("loss", "loss", "#0064a8"),)),
    Panel(
        "sparsity",
        (
            ("reached_share", "reached", "#b84a00"),
            ("target_share", "target", "#8a97a3"),
            ("parameters_share", "parameters left", "#00705a"),
            ("macs_share", "MACs left", "#a23b86"),
        ),
        share=True,
    ),
    Panel(
        "norm of groups",
        (("important_norm", "important", "#0064a8"), ("redundant_norm", "redundant", "#b84a00")),
        logarithmic=True,
    ),
)


def curve(rows: Sequence[Row], title: str = "", panels: Sequence[Panel] = PANELS) -> str:
    """The picture of a run, as SVG.

    Args:
        rows: readings in the order of their ``step``; what a row lacks, or has no number for, is left out.
            Where rows have ``cycle``, as those of HESSO-CRIC do, cycles are shaded in turns.
        panels: what to show of them; those for which rows have nothing are left out.

    >>> picture = curve([{"step": 0, "loss": 2.0}, {"step": 10, "loss": 1.0}])
    >>> picture.startswith("<svg") and "loss" in picture
    True
    """
    panels = [
        panel for panel in panels if any(_known(row, key) is not None for row in rows for key, _, _ in panel.lines)
    ]
    height = _TOP + len(panels) * (_HEIGHT + _GAP) + 16
    steps = [float(row.get("step", place)) for place, row in enumerate(rows)]
    low, high = (min(steps), max(steps)) if steps else (0.0, 1.0)
    high = high if high > low else low + 1

    def across(step: float) -> float:
        return _LEFT + (step - low) / (high - low) * (_WIDTH - _LEFT - _RIGHT)

    parts = [element("title", title or "training curve"), element("style", _STYLE)]
    if title:
        parts.append(_text(_LEFT, 18, title, "start", "title"))
    for number, panel in enumerate(panels):
        top = _TOP + number * (_HEIGHT + _GAP)
        parts += _cycles(rows, steps, across, top)
        parts += _panel(panel, rows, steps, across, top)
    for step in _ticks(low, high):
        parts.append(_text(across(step), height - 16, f"{step:,.0f}", "middle"))
    parts.append(_text((_LEFT + _WIDTH - _RIGHT) / 2, height - 2, "step", "middle"))
    label = title or "training curve"
    size = f'width="{_WIDTH}" height="{height}" viewBox="0 0 {_WIDTH} {height}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{html.escape(label)}">'
    return f"{head}{join(parts)}</svg>"


def save(path: str | os.PathLike[str], rows: Sequence[Row], title: str = "", panels: Sequence[Panel] = PANELS) -> None:
    """Write :func:`curve` to a file, whole or not at all.

    Raises:
        UsageError: the file cannot be written.
    """
    from ozgraph.report.html.page import write

    write(path, curve(rows, title, panels))


_STYLE = (
    "text{font:11px system-ui,sans-serif;fill:#55636f}.title{font-weight:650;font-size:13px;fill:#16202a}"
    ".grid{stroke:#d9dfe5;stroke-width:1}.line{fill:none;stroke-width:1.8}.cycle{fill:#0064a8;opacity:.07}"
    "@media(prefers-color-scheme:dark){text{fill:#9babb8}.title{fill:#e8eef3}.grid{stroke:#2b3641}"
    ".line{filter:brightness(1.7)}.cycle{opacity:.25}}"
)


def _known(row: Row, key: str) -> float | None:
    found = row.get(key)
    return None if found is None or not math.isfinite(found) else float(found)


def _panel(panel: Panel, rows: Sequence[Row], steps: Sequence[float], across: Across, top: float) -> list[Markup]:
    """One plot: grid, lines, and a legend at its right."""
    values = [value for row in rows for key, _, _ in panel.lines if (value := _known(row, key)) is not None]
    if panel.logarithmic:
        least = min((value for value in values if value > 0), default=1.0)
        values = [math.log10(max(value, least)) for value in values]
    low, high = (0.0, 1.0) if panel.share else (min(values), max(values))
    high = high if high > low else low + 1

    def down(value: float) -> float:
        shown = math.log10(max(value, least)) if panel.logarithmic else value
        return top + _HEIGHT * (1 - (min(max(shown, low), high) - low) / (high - low))

    parts = [_text(_LEFT, top - 6, panel.title + (", logarithmic" if panel.logarithmic else ""), "start", "title")]
    for share in (0.0, 0.5, 1.0):
        y = top + _HEIGHT * (1 - share)
        value = low + share * (high - low)
        value = 10**value if panel.logarithmic else value
        parts.append(_line(f"M{_LEFT} {y:.1f}H{_WIDTH - _RIGHT}", "grid"))
        parts.append(_text(_LEFT - 6, y + 4, f"{value:.0%}" if panel.share else f"{value:.3g}", "end"))
    place = 0
    for key, name, color in panel.lines:
        points = [
            (across(step), down(value))
            for step, row in zip(steps, rows, strict=True)
            if (value := _known(row, key)) is not None
        ]
        if points:
            path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
            parts.append(_line(path, "line", color))
            y = top + 10 + 16 * place
            parts.append(_line(f"M{_WIDTH - _RIGHT + 12} {y - 4}h16", "line", color))
            parts.append(_text(_WIDTH - _RIGHT + 34, y, name, "start"))
            place += 1
    return parts


def _cycles(rows: Sequence[Row], steps: Sequence[float], across: Across, top: float) -> list[Markup]:
    """Every second cycle shaded."""
    parts: list[Markup] = []
    start: int | None = None
    cycles = [_known(row, "cycle") for row in rows]
    for place, cycle in enumerate([*cycles, None]):
        if start is not None and (cycle is None or cycle != cycles[start]):
            first, last = across(steps[start]), across(steps[min(place, len(steps) - 1)])
            odd = int(cycles[start] or 0) % 2
            if odd and last > first:
                box = {"x": f"{first:.1f}", "y": str(top), "width": f"{last - first:.1f}", "height": str(_HEIGHT)}
                parts.append(
                    element("rect", element("title", f"cycle {int(cycles[start] or 0)}"), class_="cycle", **box)
                )
            start = None
        if start is None and cycle:
            start = place
    return parts


def _ticks(low: float, high: float) -> list[float]:
    """About five round numbers in between."""
    step = 10 ** math.floor(math.log10((high - low) / 4))
    step *= next((factor for factor in (1, 2, 5, 10) if (high - low) / (step * factor) <= 6), 10)
    first = math.ceil(low / step) * step
    return [first + number * step for number in range(int((high - first) / step) + 1)]


def _text(x: float, y: float, content: str, anchor: str, kind: str = "label") -> Markup:
    return element("text", content, x=f"{x:.1f}", y=f"{y:.1f}", text_anchor=anchor, class_=kind)


def _line(path: str, kind: str, color: str | None = None) -> Markup:
    return element("path", d=path, class_=kind, **({} if color is None else {"stroke": color}))

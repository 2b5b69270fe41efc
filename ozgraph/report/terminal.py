"""Reports as a person reads them: tables and panels, coloured only on a terminal.

Every function here turns one report into something rich can print; :func:`show` prints it on standard output.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.measure import Measurement
from rich.padding import Padding
from rich.panel import Panel
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from ozgraph.names import unseen_removed
from ozgraph.report.numbers import duration, human, percent, plural, removed, scientific, shorten, size_in_bytes
from ozgraph.results import (
    AnalysisReport,
    BenchReport,
    FamilyRow,
    FrozenRow,
    MemberRow,
    PruneReport,
    SignatureRow,
    VerifyReport,
    WidthRow,
)
from ozgraph.rules.table import known_like

ROWS = 20
"""Rows that a table shows unless all are asked for."""

_LONGEST = 120
"""Characters of a name where no column says how wide it may be."""

_EXACTNESS_STYLE = {"exact": "green", "folded": "green", "consumers": "cyan", "rescaled": "yellow"}

Row = TypeVar("Row")


def console() -> Console:
    """Standard output; wide enough for whole rows where there is no terminal to tell a width."""
    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 120
    return Console(highlight=False, markup=False, emoji=False, width=width)


def show(*parts: RenderableType) -> None:
    """Print reports on standard output."""
    target = console()
    for part in parts:
        target.print(_Seen(part))


@dataclass(frozen=True)
class _Seen:
    """A renderable less what names may hold that moves the cursor, colours the rest or turns it around."""

    inner: RenderableType

    def __rich_console__(self, target: Console, options: ConsoleOptions) -> RenderResult:
        for segment in target.render(self.inner, options):
            yield segment if segment.control else Segment(unseen_removed(segment.text), segment.style)


def analysis(report: AnalysisReport, *, everything: bool = False, timings: bool = False) -> RenderableType:
    """What can go, what that saves, and why the rest cannot.

    Args:
        everything: show every row instead of the ``ROWS`` that matter most.
        timings: add the seconds that each pass took.
    """
    share = report.prunable_parameters / report.parameters if report.parameters else 0.0
    head = Text.assemble(
        (shorten(report.model, _LONGEST), "bold"),
        f"   {human(report.parameters)} parameters · {human(report.macs)} MACs · ",
        (f"{percent(share)} of the parameters can go", "bold green" if report.families else "bold yellow"),
    )
    parts: list[RenderableType] = [head, Text()]
    if report.families:
        parts += _families(report, everything)
    else:
        parts.append(Text("No family of slots can be removed; what holds them is below.", style="yellow"))
    if report.frozen:
        parts += [Text(), *_frozen(report.frozen, report.parameters, everything)]
    if report.unknown_operators:
        unknown = sorted(report.unknown_operators.items())
        names = ", ".join(f"{shorten(name, _LONGEST)} ×{count}{_known(name)}" for name, count in unknown)
        parts += [Text(), Text.assemble(("Unknown operators", "bold yellow"), f" (all they touch stays): {names}")]
    if timings:
        parts += [Text(), _timings(report.timings)]
    return Group(*parts)


def _known(operator: str) -> str:
    near = known_like(operator)
    return "" if near is None else f" (known: {near})"


def written(paths: Sequence[str]) -> RenderableType:
    """The files that were written."""
    named = (Text.assemble((path, "bold"), _file_size(path)) for path in paths)
    return Text.assemble("\nwritten to ", Text(", ").join(named))


def _file_size(path: str) -> str:
    """How large a file is that was written, with the weights beside it; nothing where it is gone again."""
    files = [Path(path), Path(f"{path}.data")]
    sizes = [file.stat().st_size for file in files if file.is_file()]
    return f"   {size_in_bytes(sum(sizes))}" if sizes else ""


def pruning(report: PruneReport, *, everything: bool = False) -> RenderableType:
    """Before and after, what verification measured, and the widths that changed."""
    sizes = Table.grid(padding=(0, 2))
    for _ in range(5):
        sizes.add_column(no_wrap=True)
    for label, before, after in (
        ("parameters", report.parameters_before, report.parameters_after),
        ("MACs", report.macs_before, report.macs_after),
    ):
        share = percent(removed(before, after))
        gone = Text(f"-{share}", style="bold green") if after < before else Text("as before", style="dim")
        sizes.add_row(label, human(before), "→", human(after), gone)
    lines: list[RenderableType] = [sizes, Text()]
    lines.append(_agreement(report.max_relative_error, report.limit, report.noise_floor, agrees=True))
    cut = [row for row in report.widths if row.kept < row.size]
    slots = plural(report.removed_slots, "slot")
    lines.append(Text(f"{slots} removed from {plural(len(cut), 'family')}" if cut else "no slot removed"))
    if report.output is not None:
        lines.append(Text.assemble("written to ", (report.output, "bold"), _file_size(report.output)))
    parts: list[RenderableType] = [_panel(Group(*lines), report.model)]
    if report.signature:
        parts += [*_signature(report.signature, everything), Text()]
    if cut:
        parts.append(_widths(cut, everything))
    if report.frozen_by_verification:
        parts += [Text(), *_given_back(report.frozen_by_verification)]
    if report.excluded:
        left = [shorten(name.removesuffix(": excluded"), _LONGEST) for name in report.excluded]
        names, rest = _cap(left, everything)
        parts += [Text(), Text(f"Excluded: {', '.join(names)}{f', and {rest} more' if rest else ''}", style="dim")]
    parts += [Text(f"note: {note}", style="yellow") for note in report.notes]
    return Group(*parts)


def verification(first: str, second: str, report: VerifyReport) -> RenderableType:
    """Whether two models agree, by how much, and where it was measured."""
    lines = [_agreement(report.max_relative_error, report.limit, report.noise_floor, agrees=report.equal)]
    if report.failure is not None:
        lines.append(Text(report.failure, style="red"))
    lines.append(Text(f"compared at {', '.join(report.compared) or 'nothing'} over {plural(report.runs, 'input set')}"))
    return _panel(Group(*lines), f"{first} · {second}")


def benchmark(report: BenchReport) -> RenderableType:
    """Two latencies, their ratio and its spread."""
    times = Table.grid(padding=(0, 2))
    times.add_column(no_wrap=True, overflow="ellipsis")
    times.add_column(justify="right", no_wrap=True)
    times.add_row(report.first, duration(report.first_ms / 1000))
    times.add_row(report.second, duration(report.second_ms / 1000))
    style = "bold green" if report.ratio_low > 1 else "bold red" if report.ratio_high < 1 else "bold"
    sure = report.ratio_low > 1 or report.ratio_high < 1
    factor = report.ratio if report.ratio >= 1 or report.ratio <= 0 else 1 / report.ratio
    ratio = Text.assemble(
        (f"{factor:.2f}× {'faster' if report.ratio >= 1 else 'slower'}", style),
        "" if sure else ", not sure: 1 is within the spread",
        f"   ratio {report.ratio:.2f}, 5th to 95th percentile {report.ratio_low:.2f} to {report.ratio_high:.2f}, ",
        f"{plural(report.rounds, 'round')}, {plural(report.threads, 'thread')}",
    )
    return _panel(Group(times, Text(), ratio), "latency in onnxruntime")


def listing(headers: Sequence[str], rows: Iterable[Sequence[str]], *, flexible: Sequence[str]) -> RenderableType:
    """Rows of text as a table; the ``flexible`` columns give way on a narrow terminal."""
    table = _table(*headers, flexible=flexible)
    for row in rows:
        table.add_row(*row)
    return table


def _families(report: AnalysisReport, everything: bool) -> list[RenderableType]:
    def saves(row: FamilyRow) -> float:
        parameters = row.parameters_per_slot * row.free / max(report.parameters, 1)
        return parameters + row.macs_per_slot * row.free / max(report.macs, 1)

    rows, rest = _cap(sorted(report.families, key=saves, reverse=True), everything)
    parts: list[RenderableType] = [_FamilyTable(rows, report.parameters)]
    if rest:
        parts.append(Text(f"and {plural(rest, 'smaller family')}; --all shows them", style="dim"))
    # Overlaps are told apart in the table; every other reason gets a line of its own.
    reasons: dict[str, list[str]] = {}
    for row in rows:
        if not row.active:
            reason = "shares a tensor axis with the family named" if row.overlaps else row.inactive or "left out"
            reasons.setdefault(reason, []).append(row.id)
    for row in rows:
        if row.signature:
            shown = [shorten(name, _LONGEST) for name in row.signature[:4]]
            names = ", ".join(shown) + (f" and {len(row.signature) - 4} more" if row.signature[4:] else "")
            parts.append(Text(f"{row.id} changes the signature: {names}", style="yellow"))
    for reason, ids in reasons.items():
        named = ", ".join(ids[:4]) + (f" and {len(ids) - 4} more" if len(ids) > 4 else "")
        parts.append(Text(f"○ a default run leaves {named} as it is: {reason}", style="dim"))
    return parts


@dataclass(frozen=True)
class _FamilyTable:
    """Families with what they save; on narrow terminals without the tensors they reach."""

    rows: Sequence[FamilyRow]
    parameters: int

    def __rich_console__(self, _: Console, options: ConsoleOptions) -> RenderResult:
        wide = options.max_width >= 110
        headers = ["", "family", "dim", "slots", "how", "a slot saves", "MACs", "all save"]
        table = _table(*headers, *(["where"] if wide else []), flexible=("dim", "where"), right=(3, 5, 6, 7))
        for row in self.rows:
            share = row.parameters_per_slot * row.free / self.parameters if self.parameters else 0.0
            cells: list[RenderableType] = [
                "" if row.active else "○",
                row.id,
                _Name(row.dim, "bold" if row.active else ""),
                f"{row.size:,}" if row.free == row.size else f"{row.free:,} of {row.size:,}",
                Text(row.exactness, style=_EXACTNESS_STYLE.get(row.exactness, "")),
                human(row.parameters_per_slot),
                human(row.macs_per_slot),
                percent(min(1.0, share)),
            ]
            if wide:
                overlaps = f"or {', '.join(row.overlaps)}: " if row.overlaps else ""
                cells.append(_Members(overlaps, [member for member in row.members if member.tensor != row.dim]))
            table.add_row(*cells, style="" if row.active else "dim")
        yield table


@dataclass(frozen=True)
class _Name:
    """A tensor's name that gives way in its middle when its column is narrow."""

    name: str
    style: str = ""

    def __rich_console__(self, _: Console, options: ConsoleOptions) -> RenderResult:
        yield Text(shorten(self.name, options.max_width), style=self.style, no_wrap=True)

    def __rich_measure__(self, _: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(min(16, len(self.name)), len(self.name))


@dataclass(frozen=True)
class _Members:
    """Tensor axes of a family, as many by name as fit."""

    prefix: str
    rows: Sequence[MemberRow]

    def __rich_console__(self, _: Console, options: ConsoleOptions) -> RenderResult:
        line = self.prefix + members(self.rows, options.max_width - len(self.prefix))
        yield Text(shorten(line, options.max_width), style="dim", no_wrap=True)

    def __rich_measure__(self, _: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(24, max(24, min(56, options.max_width)))


def members(rows: Sequence[MemberRow], width: int = 60) -> str:
    """Tensor axes of a family in one line: the first ones by name, the others counted.

    >>> rows = [MemberRow("a.weight", 0, "producer"), MemberRow("b.weight", 1, "consumer")]
    >>> members(rows), members(rows, 20)
    ('a.weight[0], b.weight[1]', 'a.weight[0], +1')
    """
    names = [f"{row.tensor}[{row.axis}]" for row in rows]
    for shown in range(len(names), 1, -1):
        line = ", ".join([*names[:shown], *([f"+{len(names) - shown}"] if shown < len(names) else [])])
        if len(line) <= width:
            return line
    if len(names) < 2:
        return "".join(shorten(name, width) for name in names)
    more = f", +{len(names) - 1}"
    return shorten(names[0], max(1, width - len(more))) + more


def _frozen(rows: Iterable[FrozenRow], parameters: int, everything: bool) -> list[RenderableType]:
    why = "what stays, and why"
    table = _table(why, "operator", "slots", "parameters held", "share", flexible=(why, "operator"), right=(2, 3, 4))
    shown, rest = _cap(sorted(rows, key=lambda row: row.parameters, reverse=True), everything)
    for row in shown:
        share = percent(min(1.0, row.parameters / parameters)) if parameters else ""
        table.add_row(row.reason, _Name(row.operator), f"{row.slots:,}", human(row.parameters), share)
    parts: list[RenderableType] = [table]
    if rest:
        parts.append(Text(f"and {plural(rest, 'lesser reason')}; --all shows them", style="dim"))
    return parts


def _given_back(rows: Sequence[FrozenRow]) -> list[RenderableType]:
    title = Text(f"Verification gave back {plural(len(rows), 'family')}:", style="bold yellow")
    entries = (Padding(Text(f"{row.operator}: {row.reason}"), (0, 0, 0, 2)) for row in rows)
    return [title, *entries]


def _timings(timings: Mapping[str, float]) -> Table:
    table = _table("pass", "seconds", right=(1,))
    for name, seconds in timings.items():
        table.add_row(name, f"{seconds:.3f}")
    table.add_row(Text("together", style="bold"), Text(f"{sum(timings.values()):.3f}", style="bold"))
    return table


def _widths(rows: Sequence[WidthRow], everything: bool) -> RenderableType:
    table = _table("family", "dim", "slots", "", "kept", "", flexible=("dim",), right=(2, 4))
    shown, rest = _cap(sorted(rows, key=lambda row: row.size - row.kept, reverse=True), everything)
    for row in shown:
        table.add_row(row.id, _Name(row.dim, "bold"), f"{row.size:,}", "→", f"{row.kept:,}", _bar(row))
    if not rest:
        return table
    return Group(table, Text(f"and {plural(rest, 'more family')}; --all shows them", style="dim"))


def _signature(rows: Sequence[SignatureRow], everything: bool) -> list[RenderableType]:
    def spelled(sizes: Sequence[int | None]) -> str:
        return " × ".join("?" if size is None else str(size) for size in sizes)

    table = _table("signature", "name", "before", "", "after", flexible=("name",))
    shown, rest = _cap(rows, everything)
    for row in shown:
        table.add_row(row.kind, _Name(row.name, "bold"), spelled(row.before), "→", spelled(row.after))
    parts: list[RenderableType] = [Text("The signature changed:", style="bold yellow"), table]
    if rest:
        parts.append(Text(f"and {plural(rest, 'more change')}; --all shows them", style="dim"))
    silent = [row.name for row in rows if row.zeros]
    if silent:
        names, more = _cap(silent, everything)
        listed = ", ".join(names) + (f" and {more} more" if more else "")
        line = f"What no longer goes into {listed} must have been zero, as it is in an empty cache."
        parts.append(Text(line, style="yellow"))
    return parts


def _bar(row: WidthRow, cells: int = 16) -> Text:
    full = round(cells * row.kept / row.size) if row.size else 0
    return Text.assemble(("█" * full, "green"), ("░" * (cells - full), "dim"))


def _agreement(error: float, limit: float, floor: float, *, agrees: bool) -> Text:
    verdict = ("✓ verified equal", "bold green") if agrees else ("✗ not equal", "bold red")
    numbers = f"largest relative error {scientific(error)}, limit {scientific(limit)}, noise floor {scientific(floor)}"
    return Text.assemble(verdict, f"   {numbers}")


def _panel(content: RenderableType, title: str) -> Panel:
    return Panel(
        content, title=Text(shorten(title, _LONGEST), style="bold"), title_align="left", box=box.ROUNDED, padding=(0, 1)
    )


def _table(*headers: str, flexible: Sequence[str] = (), right: Sequence[int] = ()) -> Table:
    """A table without walls; only ``flexible`` columns give way on a narrow terminal, numbers never do."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold", collapse_padding=True)
    for index, header in enumerate(headers):
        if header in flexible:
            table.add_column(header, overflow="ellipsis")
        else:
            table.add_column(header, no_wrap=True, justify="right" if index in right else "left")
    return table


def _cap(rows: Sequence[Row], everything: bool) -> tuple[Sequence[Row], int]:
    # Hiding a single row saves no space: the line that says so is as long.
    if everything or len(rows) <= ROWS + 1:
        return rows, 0
    return rows[:ROWS], len(rows) - ROWS

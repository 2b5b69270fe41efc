"""The tables of a page: everything in words and numbers, for whoever runs no scripts or would rather read."""

from __future__ import annotations

from collections.abc import Iterator

from ozgraph.markup import Content, Markup, element, join, table
from ozgraph.report.html.document import Pruned
from ozgraph.report.numbers import human, percent, plural, removed
from ozgraph.report.terminal import members
from ozgraph.results import AnalysisReport

MOST = 1000
"""Rows of a table; whoever needs more reads the JSON."""


def facts(report: AnalysisReport) -> Markup:
    """The numbers at the top."""
    share = report.prunable_parameters / report.parameters if report.parameters else 0.0
    return join(
        element("div", element("dt", name), element("dd", shown, data_value=str(exact), id=f"fact-{key}"))
        for key, name, shown, exact in (
            ("parameters", "parameters", human(report.parameters), report.parameters),
            ("macs", "MACs", human(report.macs), report.macs),
            ("prunable", "can go", percent(share), report.prunable_parameters),
            ("families", "families", f"{len(report.families):,}", len(report.families)),
        )
    )


def tables(report: AnalysisReport, scopes: list[tuple[str, int, int, int]], pruned: Pruned | None) -> Markup:
    """All sections.

    Args:
        scopes: (path, operators, parameters, MACs) of the outer scopes.
    """
    parts = [
        _section("What can go", _families(report), plural(len(report.families), "family")),
        _section("What stays, and why", _frozen(report), plural(len(report.frozen), "reason")),
        _section("Where parameters and MACs are", _scopes(report, scopes), plural(len(scopes), "scope")),
    ]
    if report.unknown_operators:
        rows = sorted(report.unknown_operators.items())
        unknown = table(["operator", "nodes"], rows, numbers=[1])
        parts.append(_section("Unknown operators: all they touch stays", unknown, plural(len(rows), "operator")))
    if pruned is not None:
        parts.insert(0, _section(f"Before and after: {pruned.model}", _widths(report, pruned), ""))
    return join(parts)


def _section(title: str, content: Markup, count: str) -> Markup:
    return element("section", element("h2", title), element("p", count, class_="soft"), content)


def _rest(count: int) -> Markup:
    """What a table leaves out."""
    more = f"and {count - MOST:,} more: ozgraph analyze --json lists all"
    return element("p", more, class_="soft") if count > MOST else Markup()


def _families(report: AnalysisReport) -> Markup:
    def rows() -> Iterator[list[Content]]:
        for row in report.families[:MOST]:
            share = row.parameters_per_slot * row.free / report.parameters if report.parameters else 0.0
            note = "" if row.active else f" (left alone by default: {row.inactive or 'left out'})"
            yield [
                row.id,
                _name(row.dim),
                str(row.size) if row.free == row.size else f"{row.free} of {row.size}",
                row.exactness + note,
                f"{row.parameters_per_slot:,}",
                f"{row.macs_per_slot:,}",
                percent(min(1.0, share)),
                _name(members(row.members, 120)),
            ]

    headers = ["family", "dim", "slots", "how", "a slot saves", "MACs", "all save", "where"]
    return join([table(headers, rows(), numbers=[2, 4, 5, 6]), _rest(len(report.families))])


def _frozen(report: AnalysisReport) -> Markup:
    rows = (
        [row.reason, _name(row.operator or "the model itself"), f"{row.slots:,}", f"{row.parameters:,}"]
        for row in report.frozen[:MOST]
    )
    made = table(["what stays, and why", "operator", "slots", "parameters held"], rows, numbers=[2, 3])
    return join([made, _rest(len(report.frozen))])


def _scopes(report: AnalysisReport, scopes: list[tuple[str, int, int, int]]) -> Markup:
    rows = (
        [
            _name(path),
            f"{operators:,}",
            f"{parameters:,}",
            percent(parameters / report.parameters if report.parameters else 0.0),
            f"{macs:,}",
            percent(macs / report.macs if report.macs else 0.0),
        ]
        for path, operators, parameters, macs in scopes
    )
    return table(["scope", "operators", "parameters", "", "MACs", ""], rows, numbers=[1, 2, 3, 4, 5])


def _widths(report: AnalysisReport, pruned: Pruned) -> Markup:
    totals = table(
        ["", "before", "after", "gone"],
        [
            [name, f"{before:,}", f"{after:,}", percent(max(0.0, removed(before, after)))]
            for name, before, after in (
                ("parameters", report.parameters, pruned.parameters),
                ("MACs", report.macs, pruned.macs),
            )
        ],
        numbers=[1, 2, 3],
    )
    rows: list[list[Content]] = [
        [row.id, _name(row.dim), row.size, row.kept] for row in pruned.widths if row.kept < row.size
    ]
    return join([totals, table(["family", "dim", "slots", "kept"], rows, numbers=[2, 3])])


def _name(name: str) -> Markup:
    return element("span", name, class_="name mono")

"""The table of ``docs/limits.md``: sentences of :mod:`limits`, figures of the lines."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from limits import LIMITS, Held, Limit, held, unnamed
from lines import Key, Line
from report import ROUTES, table

BEGIN, END = "<!-- table: made from the zoo's lines -->", "<!-- end of the table -->"
_HEAD = ("limit", "why", "held back, torch.export", "held back, ONNX", "what helps")


def filled(page: str, found: dict[Key, Line]) -> str:
    """The page with the table made anew.

    Raises:
        ValueError: nothing in it says where the table stands.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"the page has no lines {BEGIN!r} and {END!r}; add them where the table should stand")
    ours = [line for line in found.values() if line["tool"] == "ozgraph" and line.get("routes")]
    return f"{before}{BEGIN}\n\n{_tables(ours)}\n{END}{after}"


def _tables(ours: Sequence[Line]) -> str:
    counted = {limit: [held(limit, ours, route) for route in ROUTES] for limit in LIMITS}
    order = sorted(LIMITS, key=lambda limit: -max(each.parameters for each in counted[limit]))
    rows = [_row(limit, counted[limit]) for limit in order]
    return f"{_measured(ours)}\n\n{table(_HEAD, rows)}" + _others(ours)


def _measured(ours: Sequence[Line]) -> str:
    sizes = [(sum(route in line["routes"] for line in ours), held(LIMITS[0], ours, route).total) for route in ROUTES]
    (modules, weights), (files, stored) = sizes
    return textwrap.fill(
        f"Counted over the models of [the zoo](zoo.md): {modules:,} through torch.export with {weights:,} parameters, "
        f"{files:,} through ONNX with {stored:,}. A parameter is held back where none of its axes has a slot that may "
        "go at its position, and counts once, for the reason of its first axis.",
        width=120,
    )


def _row(limit: Limit, counts: Sequence[Held]) -> tuple[str, ...]:
    return (limit.what, limit.why, *map(_cell, counts), limit.helps)


def _cell(count: Held) -> str:
    if not count.parameters:
        return "0"
    share = count.parameters / count.total
    rounded = f"{share:.2%}" if share >= 5e-5 else "under 0.01%"
    return f"{count.parameters:,} ({rounded}) in {count.models:,} {'model' if count.models == 1 else 'models'}"


def _others(ours: Sequence[Line]) -> str:
    rows = [(reason, at or "-", f"{count:,}", f"{models:,}") for reason, at, count, models in unnamed(ours, ROUTES)]
    if not rows:
        return ""
    return "\nReasons that belong to no row above:\n\n" + table(("reason", "operator", "parameters", "models"), rows)

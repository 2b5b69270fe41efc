"""``ozgraph passes``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from importlib.metadata import entry_points
from typing import Any

import click

from ozgraph.cli.arguments import output_options, print_json
from ozgraph.cli.command import Command
from ozgraph.cli.examples import Example

GROUP = "ozgraph.passes"
"""The entry-point group under which packages bring passes along."""


@dataclass(frozen=True, slots=True)
class PassRow:
    """One pass. ``origin`` is ``ozgraph`` or the package that brought it along; ``options`` are its fields."""

    name: str
    summary: str
    requires: tuple[str, ...]
    ensures: tuple[str, ...]
    options: tuple[str, ...]
    origin: str


@click.command(
    "passes", cls=Command, examples=(Example("What runs, in order, and what is installed", "ozgraph passes"),)
)
@output_options
def command(as_json: bool, quiet: bool) -> None:
    """List the passes of the pipeline in order, then the installed user passes.

    Packages bring passes along under the entry-point group 'ozgraph.passes'; --pass takes their names.
    """
    from ozgraph.pipelines import PIPELINE

    del quiet  # Accepted by every command; there is nothing to wait for here.
    rows = [row(cls, "ozgraph") for cls in PIPELINE] + list(installed())
    if as_json:
        print_json({"passes": [asdict(entry) for entry in rows]})
        return
    from ozgraph.report import terminal

    columns = ("name", "summary", "requires", "ensures", "origin")
    cells = [
        (entry.name, entry.summary, *map(", ".join, (entry.requires, entry.ensures)), entry.origin) for entry in rows
    ]
    terminal.show(terminal.listing(columns, cells, flexible=("summary",)))


def row(cls: type[Any], origin: str) -> PassRow:
    """What a pass says of itself."""
    summary = (cls.__doc__ or "").strip().split("\n", 1)[0].strip()
    options = tuple(entry.name for entry in fields(cls) if "help" in entry.metadata)
    return PassRow(cls.name, summary, tuple(sorted(cls.requires)), tuple(sorted(cls.ensures)), options, origin)


def installed() -> Iterator[PassRow]:
    """Passes of other packages; one that cannot be imported is listed with the reason."""
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
        origin = entry.dist.name if entry.dist is not None else "?"
        try:
            yield row(entry.load(), origin)
        except Exception as error:
            yield PassRow(entry.name, f"cannot be imported: {error}", (), (), (), origin)

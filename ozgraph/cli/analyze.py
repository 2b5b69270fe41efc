"""``ozgraph analyze``."""

from __future__ import annotations

from typing import Any

import click

from ozgraph.cli.arguments import Reading, Running, Shape, output_options, print_json
from ozgraph.cli.options import options_of
from ozgraph.cli.progress import progress_line
from ozgraph.passes.freeze import Freeze
from ozgraph.passes.group import Group
from ozgraph.passes.select import Select


@click.command("analyze")
@click.argument("model")
@options_of(Reading)
@options_of(Select, only=("include", "exclude"))
@options_of(Group, Freeze, Running)
@click.option("--all", "everything", is_flag=True, help="Show every family and every reason.")
@click.option("--timings", is_flag=True, help="Show the seconds that each pass took.")
@output_options
def command(
    model: str,
    shapes: tuple[Shape, ...],
    everything: bool,
    timings: bool,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Show what can be removed from MODEL, what that saves, and why the rest stays.

    Writes nothing.
    """
    from ozgraph import api
    from ozgraph.results import as_json as document

    with progress_line(quiet=quiet) as progress:
        report = api.analyze(model, shapes=dict(shapes), progress=progress, **options).report
    if as_json:
        print_json(document(report))
        return
    from ozgraph.report import terminal

    terminal.show(terminal.analysis(report, everything=everything, timings=timings))

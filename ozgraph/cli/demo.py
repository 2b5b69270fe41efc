"""``ozgraph demo``."""

from __future__ import annotations

from pathlib import Path

import click

from ozgraph.cli.arguments import output_options, print_json
from ozgraph.cli.command import Command
from ozgraph.cli.examples import Example
from ozgraph.cli.progress import progress_line


@click.command(
    "demo",
    cls=Command,
    examples=(
        Example("See it work", "ozgraph demo"),
        Example("Keep the models and the images", "ozgraph demo --keep digits"),
    ),
)
@click.option(
    "--keep", type=click.Path(file_okay=False, path_type=Path), metavar="DIR", help="Keep the models and the data here."
)
@output_options
def command(keep: Path | None, as_json: bool, quiet: bool) -> None:
    """Do all of it on a small trained model that ships with ozgraph.

    Analyzes it, removes half of its MACs, verifies and times the result, and counts right answers before and after on
    the test images that come along. Takes less than a minute.
    """
    from ozgraph import demo
    from ozgraph.results import as_json as document

    with progress_line(quiet=quiet) as progress:
        report = demo.run(keep, progress=progress)
    if as_json:
        print_json(document(report))
        return
    from ozgraph.report import terminal
    from ozgraph.report.demo import demo as story

    terminal.show(story(report))

"""``ozgraph analyze``."""

from __future__ import annotations

from typing import Any

import click

from ozgraph.cli.arguments import Reading, Running, Shape, output_options, print_json
from ozgraph.cli.command import Command
from ozgraph.cli.examples import Example
from ozgraph.cli.options import options_of
from ozgraph.cli.progress import progress_line
from ozgraph.errors import UsageError
from ozgraph.passes.freeze import Freeze
from ozgraph.passes.group import Group
from ozgraph.passes.select import Select


def _quiet(message: str, done: int | None = None, total: int | None = None) -> None:
    """No one looks."""


@click.command(
    "analyze",
    cls=Command,
    examples=(
        Example("What can go, what that saves, and why the rest stays", "ozgraph analyze model.onnx"),
        Example("The same to look at, in one file", "ozgraph analyze model.onnx --html report.html"),
        Example(
            "At a size of your own, where the file leaves it open", "ozgraph analyze model.onnx --shape image=8x1x8x8"
        ),
        Example(
            "Every weight axis that shrinks with f0, for programs", "ozgraph analyze model.onnx --include f0 --json"
        ),
    ),
)
@click.argument("model", type=click.Path())
@options_of(Reading)
@options_of(Select, only=("include", "exclude"))
@options_of(Group, Freeze, Running)
@click.option(
    "--html",
    "page",
    type=click.Path(),
    metavar="FILE",
    help="Also write a page that shows the model: one file, no network.",
)
@click.option(
    "--pruned", type=click.Path(), metavar="SMALL", help="On that page, also what became of it in this pruned model."
)
@click.option("--dot", type=click.Path(), metavar="FILE", help="Also write the graph for Graphviz.")
@click.option(
    "--annotate",
    type=click.Path(),
    metavar="FILE",
    help="Also write the model with families in its metadata, as Netron shows.",
)
@click.option("--all", "everything", is_flag=True, help="Show every family and every reason.")
@click.option("--timings", is_flag=True, help="Show the seconds that each pass took.")
@output_options
def command(
    model: str,
    shapes: tuple[Shape, ...],
    page: str | None,
    pruned: str | None,
    dot: str | None,
    annotate: str | None,
    everything: bool,
    timings: bool,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Show what can be removed from MODEL, what that saves, and why the rest stays.

    Writes nothing unless asked to.
    """
    from ozgraph import api
    from ozgraph.results import as_json as document

    if pruned is not None and page is None:
        raise UsageError("--pruned is shown on a page: give --html FILE as well")
    with progress_line(quiet=quiet) as progress:
        analysis = api.analyze(model, shapes=dict(shapes), progress=progress, **options)
        report = analysis.report
        say = progress if progress is not None else _quiet
        if page is not None:
            say("writing the page", None, None)
            analysis.to_html(page, pruned=pruned)
        if dot is not None:
            say("writing the graph", None, None)
            analysis.to_dot(dot)
        if annotate is not None:
            say("writing the annotated model", None, None)
            analysis.annotate(annotate)
    if as_json:
        print_json(document(report))
        return
    from ozgraph.report import terminal

    terminal.show(terminal.analysis(report, everything=everything, timings=timings))
    written = [path for path in (page, dot, annotate) if path is not None]
    if written:
        terminal.show(terminal.written(written))

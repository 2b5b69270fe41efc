"""``ozgraph verify``."""

from __future__ import annotations

from typing import Any

import click

from ozgraph.cli.arguments import Reading, Shape, output_options, print_json
from ozgraph.cli.command import Command
from ozgraph.cli.examples import Example
from ozgraph.cli.options import options_of
from ozgraph.cli.progress import progress_line
from ozgraph.passes.verify import Verify


@click.command(
    "verify",
    cls=Command,
    examples=(
        Example("Do two files compute the same?", "ozgraph verify model.onnx other.onnx"),
        Example("On inputs of your own, an array each", "ozgraph verify model.onnx other.onnx --inputs inputs.npz"),
        Example("For scripts", "ozgraph verify model.onnx other.onnx --json > verdict.json"),
    ),
)
@click.argument("first", type=click.Path())
@click.argument("second", type=click.Path())
@options_of(Verify, only=("inputs", "exact"))
@options_of(Reading, only=("shapes",))
@output_options
@click.pass_context
def command(
    context: click.Context,
    /,
    first: str,
    second: str,
    shapes: tuple[Shape, ...],
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Run FIRST and SECOND on the same inputs and compare what they compute.

    Exit status 1 says that they differ.
    """
    from ozgraph import api
    from ozgraph.results import as_json as document

    with progress_line(quiet=quiet) as progress:
        report = api.verify(first, second, shapes=dict(shapes), progress=progress, **options)
    if as_json:
        print_json(document(report))
    else:
        from ozgraph.report import terminal

        terminal.show(terminal.verification(first, second, report))
    if not report.equal:
        context.exit(1)

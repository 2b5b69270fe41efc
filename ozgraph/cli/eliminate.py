"""``ozgraph eliminate``."""

from __future__ import annotations

from typing import Any

import click

from ozgraph.cli.arguments import Reading, Running, Shape, output_options, print_json
from ozgraph.cli.command import Command
from ozgraph.cli.examples import Example
from ozgraph.cli.options import options_of
from ozgraph.cli.progress import progress_line
from ozgraph.passes.freeze import Freeze
from ozgraph.passes.verify import Verify


@click.command(
    "eliminate",
    cls=Command,
    examples=(
        Example("Remove what training made zero", "ozgraph eliminate model.onnx -o small.onnx"),
        Example("The same, compared in float64 as well", "ozgraph eliminate model.onnx -o small.onnx --exact"),
    ),
)
@click.argument("model", type=click.Path())
@click.option(
    "-o", "--output", type=click.Path(), required=True, metavar="FILE", help="Where to write the smaller model."
)
@options_of(Freeze, Verify, Reading, Running)
@click.option("--all", "everything", is_flag=True, help="Show every family.")
@output_options
def command(
    model: str,
    output: str,
    shapes: tuple[Shape, ...],
    everything: bool,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Remove the slots of MODEL that are dead as it is, and write the result to FILE.

    A slot is dead when zeros that are already in the file, whoever made them, prove that it has no effect. The result
    computes the very function of MODEL.
    """
    from ozgraph import api
    from ozgraph.results import as_json as document

    with progress_line(quiet=quiet) as progress:
        report = api.eliminate(model, output, shapes=dict(shapes), progress=progress, **options).report
    if as_json:
        print_json(document(report))
        return
    from ozgraph.report import terminal

    terminal.show(terminal.pruning(report, everything=everything))

"""``ozgraph bench``."""

from __future__ import annotations

from typing import Any

import click

from ozgraph.cli.arguments import Reading, Shape, output_options, print_json
from ozgraph.cli.command import Command
from ozgraph.cli.examples import Example
from ozgraph.cli.options import options_of
from ozgraph.cli.progress import progress_line
from ozgraph.numerics.bench import ROUNDS
from ozgraph.passes.verify import Verify


@click.command(
    "bench",
    cls=Command,
    examples=(
        Example("Which is faster, and how sure is that?", "ozgraph bench model.onnx small.onnx"),
        Example(
            "On eight images at a time and two threads",
            "ozgraph bench model.onnx small.onnx --shape image=8x1x8x8 --threads 2",
        ),
    ),
)
@click.argument("first", type=click.Path())
@click.argument("second", type=click.Path())
@click.option("--rounds", type=click.IntRange(1), default=ROUNDS, show_default=True, help="Rounds; each times both.")
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True, help="Threads in onnxruntime.")
@options_of(Verify, only=("inputs",))
@options_of(Reading, only=("shapes",))
@output_options
def command(first: str, second: str, shapes: tuple[Shape, ...], as_json: bool, quiet: bool, **options: Any) -> None:
    """Time FIRST against SECOND in onnxruntime, in turns, and give the ratio and its spread."""
    from ozgraph import api
    from ozgraph.results import as_json as document

    with progress_line(quiet=quiet) as progress:
        report = api.bench(first, second, shapes=dict(shapes), progress=progress, **options)
    if as_json:
        print_json(document(report))
        return
    from ozgraph.report import terminal

    terminal.show(terminal.benchmark(report))

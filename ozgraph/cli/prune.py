"""``ozgraph prune``."""

from __future__ import annotations

from typing import Any

import click

from ozgraph.cli.arguments import (
    FRACTION,
    Drifting,
    Reading,
    Running,
    Shape,
    output_options,
    print_json,
)
from ozgraph.cli.command import Command
from ozgraph.cli.examples import Example
from ozgraph.cli.options import options_of
from ozgraph.cli.progress import progress_line
from ozgraph.errors import UsageError
from ozgraph.passes.freeze import Freeze
from ozgraph.passes.group import Group
from ozgraph.passes.select import Select
from ozgraph.passes.verify import Verify


@click.command(
    "prune",
    cls=Command,
    alternatives=("macs", "parameters", "groups", "latency", "max_drift"),
    examples=(
        Example("Remove half of the arithmetic", "ozgraph prune model.onnx -o small.onnx --target-macs 0.5"),
        Example(
            "A third of the parameters, widths in multiples of 16, the stem as it is",
            "ozgraph prune model.onnx -o small.onnx --target-params 0.33 --round-to 16 --exclude 'stem.*'",
        ),
        Example(
            "As much as moves the output by a hundredth at most",
            "ozgraph prune model.onnx -o small.onnx --max-drift 0.01",
        ),
        Example(
            "Keep the settings in a file, and run with them",
            "ozgraph prune model.onnx -o small.onnx --target-macs 0.5 --print-config > prune.toml\n"
            "ozgraph prune --config prune.toml",
        ),
    ),
)
@click.argument("model", type=click.Path())
@click.option(
    "-o", "--output", type=click.Path(), required=True, metavar="FILE", help="Where to write the smaller model."
)
@click.option("--target-macs", "macs", type=FRACTION, metavar="R", help="Fraction of the MACs to remove: 0.5, or 50%.")
@click.option("--target-params", "parameters", type=FRACTION, metavar="R", help="Fraction of the parameters.")
@click.option("--target-groups", "groups", type=FRACTION, metavar="R", help="Fraction of the groups.")
@click.option("--target-latency", "latency", type=FRACTION, metavar="R", help="Fraction of the latency.")
@options_of(Select, Group, Freeze, Drifting, Verify, Reading, Running)
@click.option("--all", "everything", is_flag=True, help="Show every family.")
@output_options
def command(
    model: str,
    output: str,
    macs: float | None,
    parameters: float | None,
    groups: float | None,
    latency: float | None,
    shapes: tuple[Shape, ...],
    everything: bool,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Write a smaller MODEL to FILE, once onnxruntime has verified it.

    A target is the fraction that is removed: 0.5 removes half, never less, and more by at most one block of slots.
    The removed groups count as zero: before FILE gets its name, the smaller model must agree with the original that
    has exactly these groups at zero.
    """
    from ozgraph import api
    from ozgraph.results import as_json as document

    fractions = {"macs": macs, "parameters": parameters, "groups": groups, "latency": latency}
    given = {name: fraction for name, fraction in fractions.items() if fraction is not None}
    if len(given) + (options["max_drift"] is not None) != 1:
        flags = "--target-macs, --target-params, --target-groups, --target-latency and --max-drift"
        raise UsageError(f"say how much to remove: give exactly one of {flags}")
    target = api.Target(**given) if given else None
    with progress_line(quiet=quiet) as progress:
        report = api.prune(model, output, target=target, shapes=dict(shapes), progress=progress, **options).report
    if as_json:
        print_json(document(report))
        return
    from ozgraph.report import terminal

    terminal.show(terminal.pruning(report, everything=everything))

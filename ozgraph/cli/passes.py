"""``ozgraph passes``."""

from __future__ import annotations

import click

from ozgraph.cli.arguments import output_options, print_json


@click.command("passes")
@output_options
def command(as_json: bool, quiet: bool) -> None:
    """List the passes of the pipeline in order, then the installed user passes."""
    from ozgraph import api

    del quiet  # Accepted everywhere; there is nothing to wait for here.
    rows = api.passes()
    if as_json:
        from ozgraph.results import as_json as document

        print_json({"passes": [document(row) for row in rows]})
        return
    from ozgraph.report import terminal

    terminal.show(terminal.passes(rows))

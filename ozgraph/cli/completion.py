"""``ozgraph completion``: scripts that teach a shell to complete commands, options, files and names."""

from __future__ import annotations

import sys

import click
from click.shell_completion import BashComplete, FishComplete, ShellComplete, ZshComplete

from ozgraph.cli.command import Command
from ozgraph.cli.examples import Example

_SHELLS: dict[str, type[ShellComplete]] = {"bash": BashComplete, "zsh": ZshComplete, "fish": FishComplete}


@click.command(
    "completion",
    cls=Command,
    configurable=False,
    examples=(
        Example("In ~/.bashrc", 'eval "$(ozgraph completion bash)"'),
        Example("In ~/.zshrc, after compinit", 'eval "$(ozgraph completion zsh)"'),
        Example("Once, for fish", "ozgraph completion fish > ~/.config/fish/completions/ozgraph.fish"),
    ),
)
@click.argument("shell", type=click.Choice(tuple(_SHELLS)))
def command(shell: str) -> None:
    """Print the script that makes SHELL complete commands, options, files, and names in a model."""
    from ozgraph.cli import COMPLETE, cli

    complete = _SHELLS[shell](cli, {}, "ozgraph", COMPLETE)
    # Not source(), which for bash would warn of the bash that it finds, not of the one that will read this.
    sys.stdout.write(complete.source_template % complete.source_vars())

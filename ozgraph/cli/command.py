"""A command with examples in its help, settings from a file, and answers to options that it does not have."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import click
from click.core import ParameterSource

from ozgraph.cli.examples import Example, write_examples
from ozgraph.cli.flags import flag_of
from ozgraph.suggestions import nearest


class Command(click.Command):
    """A click command that every command of ozgraph is one of.

    Args:
        examples: shown by ``--help``, before the options.
        alternatives: names of parameters of which one replaces the others: given as a flag, it also replaces another
            one that the settings file gives.
        configurable: whether it has settings that a file could give.
    """

    def __init__(
        self,
        *arguments: Any,
        examples: Sequence[Example] = (),
        alternatives: Collection[str] = (),
        configurable: bool = True,
        **settings: Any,
    ) -> None:
        super().__init__(*arguments, **settings)
        self.examples = tuple(examples)
        self.alternatives = frozenset(alternatives)
        if not configurable:
            return
        self.params += [
            click.Option(
                ["--config"],
                type=click.Path(),
                metavar="FILE.toml",
                is_eager=True,
                expose_value=False,
                callback=_read,
                help=f"Take settings from the table [{self.name}] of this file; flags win over it.",
            ),
            click.Option(
                ["--print-config"],
                is_flag=True,
                expose_value=False,
                help="Print the settings in effect as such a file, and do nothing else.",
            ),
        ]

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The description, then the examples."""
        super().format_help_text(ctx, formatter)
        write_examples(self.examples, formatter)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the arguments; what only prints settings needs none of them."""
        words = list(args)
        ctx.meta[_PRINTING] = "--print-config" in (words[: words.index("--")] if "--" in words else words)
        try:
            with self._all_optional() if ctx.meta[_PRINTING] else _as_they_are():
                rest = super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            raise _explained(error, words, self) from None
        sources = {name: ctx.get_parameter_source(name) for name in self.alternatives}
        if ParameterSource.COMMANDLINE in sources.values():
            ctx.params.update({name: None for name in sources if sources[name] is ParameterSource.DEFAULT_MAP})
        return rest

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command, or print its settings."""
        if ctx.meta[_PRINTING]:
            from ozgraph.cli import config

            click.echo(config.spelled(self, ctx.params), nl=False)
            return None
        return super().invoke(ctx)

    @contextmanager
    def _all_optional(self) -> Iterator[None]:
        params = self.params
        self.params = [copy.copy(param) for param in params]
        for param in self.params:
            param.required = False
        try:
            yield
        finally:
            self.params = params


_PRINTING = f"{__name__}.printing"


@contextmanager
def _as_they_are() -> Iterator[None]:
    yield


def _read(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
    """Make what a settings file says the defaults of a command."""
    if value is None or ctx.resilient_parsing:
        return
    from ozgraph.cli import config

    ctx.default_map = config.defaults(value, ctx.command, ctx)


def _explained(error: click.NoSuchOption, words: Sequence[str], command: Command) -> click.UsageError:
    """The error with what may have been meant."""
    flags = {flag_of(param) for param in command.params if isinstance(param, click.Option)}
    name = error.option_name
    if not name.startswith("--"):
        # Of '-target-macs' click names the first letter alone.
        name = next((word.partition("=")[0] for word in words if word.startswith(name) and len(word) > 2), name)
    near = nearest(name if name.startswith("--") else f"-{name}", flags)
    message = f"no option {name!r}"
    if near is not None:
        return click.UsageError(f"{message}; did you mean {near!r}?", error.ctx)
    from ozgraph.cli import commands_with

    others = [other for other in commands_with(name) if other != command.name]
    where = f"it is an option of {' and '.join(f'{other!r}' for other in others)}" if others else None
    return click.UsageError(f"{message}; {where or f'see: ozgraph {command.name} --help'}", error.ctx)

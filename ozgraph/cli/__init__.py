"""The command line. ``main`` turns every outcome into an exit status and, where something failed, one clear line.

Commands live one to a module and are imported when they run, so that ``ozgraph --help`` starts at once.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import click

from ozgraph import __version__
from ozgraph.errors import OzgraphError, VerificationError
from ozgraph.names import visible

DONE, UNVERIFIED, UNUSABLE, DEFECT, INTERRUPTED = 0, 1, 2, 70, 130

# Name -> module and the line that --help shows, so that listing the commands imports none of them.
_COMMANDS = {
    "analyze": ("ozgraph.cli.analyze", "Show what can be removed, what it saves, and why the rest stays."),
    "prune": ("ozgraph.cli.prune", "Write a smaller model that onnxruntime has verified."),
    "eliminate": ("ozgraph.cli.eliminate", "Remove the slots that are dead in the file as it is."),
    "verify": ("ozgraph.cli.verify", "Compare two models on many inputs."),
    "bench": ("ozgraph.cli.bench", "Time two models against each other."),
    "passes": ("ozgraph.cli.passes", "List the passes of the pipeline, and user passes."),
    "demo": ("ozgraph.cli.demo", "Do all of it on a small trained model that ships with ozgraph."),
    "completion": ("ozgraph.cli.completion", "Teach a shell to complete commands, options and names."),
}

COMPLETE = "_OZGRAPH_COMPLETE"
"""Environment variable with which a shell asks for completions; click names it after the program."""


def command_names() -> list[str]:
    """The commands, in the order of use, not of the alphabet."""
    return list(_COMMANDS)


def command_of(name: str) -> click.Command:
    """A command, imported when it is asked for."""
    command = import_module(_COMMANDS[name][0]).command
    assert isinstance(command, click.Command)
    return command


def commands_with(option: str) -> list[str]:
    """The commands that have an option."""
    return [name for name in _COMMANDS if any(option in param.opts for param in command_of(name).params)]


class _ReaderLeftError(Exception):
    """Whoever read standard output has seen enough."""


@contextmanager
def _pipe() -> Iterator[None]:
    # click would leave with status 1 on a broken pipe, which here says that verification failed.
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except BrokenPipeError as error:
        raise _ReaderLeftError from error


class _LazyGroup(click.Group):
    """A group that knows its commands by name and imports a command when it is asked for."""

    def make_context(self, *arguments: Any, **settings: Any) -> click.Context:
        """Read the arguments; ``--help`` prints here."""
        with _pipe():
            return super().make_context(*arguments, **settings)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        with _pipe():
            return super().invoke(ctx)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of use."""
        return command_names()

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command's module."""
        return command_of(cmd_name) if cmd_name in _COMMANDS else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Suggest the nearest name where there is no such command."""
        name = args[0]
        if name in _COMMANDS:
            return name, command_of(name), args[1:]
        if ctx.resilient_parsing:
            return None, None, args
        raise click.UsageError(f"no command {name!r}; {_meant(name)}", ctx)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Say where options go that are none of the program's own."""
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            having = commands_with(error.option_name)
            if not having:
                raise
            place = f"options stand behind their command: ozgraph {having[0]} {error.option_name}"
            raise click.UsageError(f"no option {error.option_name!r} before a command; {place}", ctx) from None

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[Any]:
        """Commands from the table, which imports none of them."""
        from click.shell_completion import CompletionItem

        if incomplete.startswith("-"):
            return super().shell_complete(ctx, incomplete)
        return [CompletionItem(name, help=line) for name, (_, line) in _COMMANDS.items() if name.startswith(incomplete)]

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The description, then the examples."""
        from ozgraph.cli.examples import Example, write_examples

        super().format_help_text(ctx, formatter)
        write_examples([Example(purpose, line) for purpose, line in EXAMPLES], formatter)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands from the table."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in _COMMANDS.items()])


EXAMPLES = (
    ("See all of it work, in under a minute", "ozgraph demo"),
    ("What can go, what that saves, and why the rest stays", "ozgraph analyze model.onnx"),
    ("Remove half of the arithmetic", "ozgraph prune model.onnx -o small.onnx --target-macs 0.5"),
    ("Which is faster, and how sure is that", "ozgraph bench model.onnx small.onnx"),
)
"""Purposes and command lines, as ``--help`` shows them."""


def _meant(name: str) -> str:
    """What somebody may have meant by a command that there is not."""
    from ozgraph.suggestions import hint

    if name == "help":
        return "see: ozgraph --help"
    if name.endswith((".onnx", ".pt2")):
        return f"did you mean: ozgraph analyze {name}"
    return hint(name, _COMMANDS)


@click.group(
    cls=_LazyGroup,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(__version__, message="ozgraph %(version)s")
@click.pass_context
def cli(context: click.Context) -> None:
    """Prune neural networks by structure: smaller ONNX models, proved equal before they are written.

    'ozgraph COMMAND --help' says more of a command, with examples. Exit status: 0 done, 1 verification failed, 2 bad
    input or usage.
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 verification failed, 2 bad input or usage."""
    sys.exit(run(arguments))


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    for stream in (sys.stdout, sys.stderr):
        # A name outside the terminal's alphabet is no reason to fail.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    if COMPLETE in os.environ:
        return _complete()
    try:
        status = cli.main(list(sys.argv[1:] if arguments is None else arguments), "ozgraph", standalone_mode=False)
        return status if isinstance(status, int) else DONE
    except VerificationError as error:
        return _fail(str(error), UNVERIFIED)
    except OzgraphError as error:
        return _fail(str(error), UNUSABLE)
    except click.MissingParameter as error:
        return _fail(error.format_message() + _purpose(error) + _greedy(error), UNUSABLE)
    except click.ClickException as error:
        return _fail(error.format_message(), UNUSABLE)
    except (click.Abort, KeyboardInterrupt):
        return _fail("interrupted", INTERRUPTED)
    except _ReaderLeftError:
        # Python flushes standard output once more at exit, which must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        return _fail(f"{place}{error.strerror or error}", UNUSABLE)
    except MemoryError:
        return _fail("out of memory", UNUSABLE)
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and error.name in _INSTALL:
            return _fail(f"{error.name} is not installed; {_INSTALL[error.name]}", UNUSABLE)
        if os.environ.get("OZGRAPH_TRACEBACK"):
            raise
        kind = type(error).__name__
        return _fail(f"internal error: {kind}: {error} (OZGRAPH_TRACEBACK=1 shows where; please report it)", DEFECT)


def _complete() -> int:
    """Answer a shell that wants completions. It is in the middle of a line: whatever fails, fails in silence."""
    from contextlib import redirect_stderr, suppress

    with open(os.devnull, "w") as nowhere, redirect_stderr(nowhere), suppress(Exception):
        # click leaves with its own status.
        cli.main([], "ozgraph", standalone_mode=False, complete_var=COMPLETE)
    return DONE


_INSTALL = {
    "onnxruntime": "run: pip install 'ozgraph[onnxruntime]', or install the onnxruntime build for your hardware",
    "onnxsim": "run: pip install 'ozgraph[simplify]'",
    "torch": "run: pip install 'ozgraph[torch]'",
}


def _purpose(error: click.MissingParameter) -> str:
    """What the missing word is for, and where to read more."""
    if isinstance(error.param, click.Option) and error.param.help:
        return f" {error.param.help}"
    return f" See: {error.ctx.command_path} --help" if error.ctx is not None else ""


def _greedy(error: click.MissingParameter) -> str:
    """What may have taken the missing word: an option whose argument may be left out."""
    from ozgraph.cli.options import BareOption

    context = error.ctx
    given = (
        []
        if context is None
        else [option for option in context.command.params if context.params.get(option.name or "")]
    )
    flags = [option.opts[0] for option in given if isinstance(option, BareOption)]
    return f" {flags[0]!r} takes the word after it as its NAME; put it last." if flags else ""


def _fail(message: str, status: int) -> int:
    """Say on standard error, in one line, what went wrong."""
    # Messages name things of files that anyone may have written.
    line = visible(" ".join(message.split()), 4000)
    print(f"ozgraph: {line}", file=sys.stderr)
    return status

"""Settings of the commands in a TOML file: a table for each command, with the names of its flags as keys.

Values mean what they mean as flags: flags that may be repeated take lists, flags without an argument ``true`` or
``false``, and paths start at the current folder. What stands on the command line wins over the file, and the file over
the defaults; a list on the command line replaces the list in the file.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from ozgraph.cli.flags import flag_of
from ozgraph.cli.options import BareOption, Parsed
from ozgraph.errors import UsageError
from ozgraph.suggestions import hint

_NO_SETTINGS = {"config", "print_config", "help"}


def keys(command: click.Command) -> dict[str, click.Parameter]:
    """What may stand in the table of a command: flags without their dashes, and arguments in lower case."""
    found: dict[str, click.Parameter] = {}
    for param in command.params:
        if param.name not in _NO_SETTINGS:
            name = flag_of(param).removeprefix("--") if isinstance(param, click.Option) else param.name
            assert name is not None
            found[name] = param
    return found


def defaults(path: str, command: click.Command, context: click.Context) -> dict[str, Any]:
    """What the file says of one command, by the names of the command's parameters.

    Raises:
        UsageError: the file cannot be read, has a key or a command that there is not, or a value that does not fit.
    """
    from ozgraph.cli import command_names, command_of

    found: dict[str, Any] = {}
    for name, table in _tables(path).items():
        if name not in command_names():
            raise UsageError(f"{path}: no command {name!r}; {hint(name, command_names())}")
        if not isinstance(table, dict):
            raise UsageError(f"{path}: {name!r} must be a table: [{name}]")
        known = keys(command_of(name))
        for key, value in table.items():
            if key not in known:
                raise UsageError(f"{path}: [{name}] has no setting {key!r}; {hint(key, known)}")
            if name == command.name:
                param = known[key]
                assert param.name is not None
                found[param.name] = _checked(f"{path}: {key!r} of [{name}]", param, value, context)
    return found


def spelled(command: click.Command, values: Mapping[str, Any]) -> str:
    """Values of a command's parameters as a file that :func:`defaults` reads; those not set are comments."""
    lines = [f"# Settings of: ozgraph {command.name} --config FILE.toml", f"[{command.name}]"]
    for key, param in keys(command).items():
        value = values[param.name or ""]
        if value is None:
            what = param.metavar or (param.name or "").upper()
            lines.append(f"# {key} = {what}")
        else:
            lines.append(f"{key} = {_spelled(param, value)}")
    return "\n".join(lines) + "\n"


def _tables(path: str) -> dict[str, Any]:
    try:
        return tomllib.loads(Path(path).read_bytes().decode())
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not a TOML file: {error.reason} at byte {error.start}") from error
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise UsageError(f"{path}: not a TOML file: {error}") from error


def _checked(where: str, param: click.Parameter, value: Any, context: click.Context) -> Any:
    """A value in the form in which click takes defaults, after it went through the checks of a flag."""
    if isinstance(param, click.Option) and param.is_flag and not isinstance(value, bool):
        raise UsageError(f"{where}: it is true or false, not {value!r}")
    if isinstance(param, BareOption) and isinstance(value, bool):
        value = [param.flag_value] if value else []
    if isinstance(value, list) and not param.multiple:
        raise UsageError(f"{where}: it takes one value, not a list")
    if param.multiple:
        given: Any = tuple(_text(where, item) for item in (value if isinstance(value, list) else [value]))
    else:
        given = value if isinstance(param, click.Option) and param.is_flag else _text(where, value)
    try:
        param.type_cast_value(context, given)
    except click.BadParameter as error:
        raise UsageError(f"{where}: {error.message}") from error
    return given


def _text(where: str, value: Any) -> str:
    """A value as it would be written after its flag, so that both are read alike."""
    if isinstance(value, str):
        return value
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return repr(value)
    raise UsageError(f"{where}: it takes text or a number, not {str(value).lower()}")


def _spelled(param: click.Parameter, value: Any) -> str:
    return f"[{', '.join(_one(param, item) for item in value)}]" if param.multiple else _one(param, value)


def _one(param: click.Parameter, value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return repr(value)
    text = param.type.spell(value) if isinstance(param.type, Parsed) else str(value)
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise UsageError(f"{text!r} is not Unicode, and TOML knows no other text")
    # A basic string of TOML is one of JSON, but for what JSON lets stand; and a terminal should obey none of it.
    quoted = json.dumps(text, ensure_ascii=False)
    return "".join(letter if letter.isprintable() else f"\\U{ord(letter):08x}" for letter in quoted)

"""Command line options from dataclass fields, so that a flag and a keyword of the Python API cannot drift apart.

A field becomes an option when its metadata has a ``help`` text:

    @dataclass(frozen=True)
    class Select:
        seed: int = field(default=0, metadata={"help": "seed of the random criterion"})

Name, type and default come from the field. Metadata keys that are understood:

    help        what ``--help`` says, a phrase; fields without it are no options
    choices     the texts that are allowed
    bare        the value of the flag alone, where its argument may be left out
    flag        the flag, where it is not the field's name (``--shape`` for ``shapes``)
    metavar     what ``--help`` calls the argument
    min, max    limits of a number, both included
    parse       function from the argument's text to the value; ``ValueError`` becomes a usage error
    spell       the way back, where it is not ``str``
    complete    what a shell may offer for it, a name in :data:`ozgraph.cli.completing.COMPLETERS`
"""

from __future__ import annotations

import types
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import click

from ozgraph.suggestions import hint

if TYPE_CHECKING:
    # Generic for type checkers only; at run time not in every version of click.
    ParamType = click.ParamType[Any]
else:
    ParamType = click.ParamType

Command = TypeVar("Command", bound=Callable[..., Any])


def options_of(
    *classes: type, only: Collection[str] | None = None, skip: Collection[str] = ()
) -> Callable[[Command], Command]:
    """A decorator that adds one option for every documented field of dataclasses.

    Fields of the same name in several classes become one option.

    Args:
        classes: dataclasses, in the order in which ``--help`` shows their options.
        only: names of the fields that are options here; all by default.
        skip: names of fields that are no options here.

    Raises:
        TypeError: a field has no command line form.
    """
    found: dict[str, click.Option] = {}
    for cls in classes:
        hints = get_type_hints(cls)
        for entry in fields(cls):
            wanted = entry.name not in skip and (only is None or entry.name in only)
            if "help" in entry.metadata and wanted:
                found.setdefault(entry.name, _option(entry, hints[entry.name]))

    def decorate(function: Command) -> Command:
        if isinstance(function, click.Command):
            function.params.extend(found.values())
            return function
        # click collects options bottom-up in this list; reversed, they appear in the order of the fields.
        collected = function.__dict__.setdefault("__click_params__", [])
        collected.extend(reversed(found.values()))
        return function

    return decorate


def _option(entry: Field[Any], annotation: Any) -> click.Option:
    metadata = entry.metadata
    flag = metadata.get("flag", "--" + entry.name.replace("_", "-"))
    default = entry.default_factory() if entry.default_factory is not MISSING else entry.default
    element, multiple = _element(annotation)
    settings: dict[str, Any] = {
        "help": _sentence(metadata["help"]) + (" Repeatable." if multiple else ""),
        "metavar": metadata.get("metavar", _METAVARS.get(element)),
    }
    if element is bool:
        names = [f"{flag}/--no-{flag.removeprefix('--')}"] if default is True else [flag]
        return click.Option([*names, entry.name], is_flag=True, default=bool(default), **settings)
    if default is MISSING:
        settings["required"] = True
    elif multiple:
        settings["default"] = tuple(default or ())
    else:
        settings["default"] = default
        settings["show_default"] = default is not None and default != ""
    if "bare" in metadata:
        settings.update(is_flag=False, flag_value=metadata["bare"])
    parse = metadata.get("parse")
    if parse is not None:
        kind: Any = Parsed(parse, metadata.get("spell", str), metadata.get("metavar", "TEXT"))
    else:
        kind = _kind(element, metadata)
    if "complete" in metadata:
        settings["shell_complete"] = _completer(metadata["complete"])
    cls = BareOption if "bare" in metadata else click.Option
    return cls([flag, entry.name], type=kind, multiple=multiple, **settings)


class BareOption(click.Option):
    """An option whose argument may be left out; followed by a word, it takes that for its argument."""


def _completer(name: str) -> Callable[[click.Context, click.Parameter, str], list[str]]:
    def complete(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
        from ozgraph.cli.completing import COMPLETERS

        return COMPLETERS[name](context, parameter, incomplete)

    return complete


_METAVARS = {int: "N", float: "X", Path: "FILE"}


def _sentence(phrase: str) -> str:
    text = phrase[:1].upper() + phrase[1:]
    return text if text.endswith((".", ")", "]")) else f"{text}."


def _element(annotation: Any) -> tuple[Any, bool]:
    """The type of one argument, and whether the option may be repeated."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        present = [argument for argument in arguments if argument is not type(None)]
        # Functions and classes are for Python callers; the command line takes the first kind that has a text form.
        plain = [argument for argument in present if get_origin(argument) is not Callable]
        return _element((plain or present)[0])
    if origin in (tuple, list, frozenset, set) or (isinstance(origin, type) and issubclass(origin, Iterable)):
        return arguments[0], True
    return annotation, False


def _kind(element: Any, metadata: Mapping[str, Any]) -> Any:
    if "choices" in metadata:
        return _Choice(metadata["choices"])
    if get_origin(element) is Literal:
        return _Choice(get_args(element))
    if element in (int, float):
        low, high = metadata.get("min"), metadata.get("max")
        if low is None and high is None:
            return click.INT if element is int else click.FLOAT
        return click.IntRange(low, high) if element is int else click.FloatRange(low, high)
    if isinstance(element, type) and issubclass(element, Path):
        return click.Path(path_type=Path)
    if element is str:
        return click.STRING
    raise TypeError(f"no command line form for {element!r}; give the field a 'parse' function in its metadata")


class _Choice(click.Choice):  # type: ignore[type-arg]
    """One of several texts; a misspelt one is asked about."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The choice that ``value`` is."""
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter:
            self.fail(f"{value!r} is not one of them; {hint(str(value), map(str, self.choices))}", param, ctx)


class Parsed(ParamType):
    """An argument that one function reads and another spells."""

    def __init__(self, parse: Callable[[str], Any], spell: Callable[[Any], str], name: str) -> None:
        self.parse = parse
        self.spell = spell
        self.name = name

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read text; a default is a value already."""
        if not isinstance(value, str):
            return value
        try:
            return self.parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)

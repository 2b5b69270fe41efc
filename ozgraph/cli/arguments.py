"""What the commands share: reading arguments that are more than a number, and the options of no pass."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import click

from ozgraph.cli.options import ParamType

Command = TypeVar("Command", bound=Callable[..., Any])
Shape = tuple[str, tuple[int, ...]]


def parse_shape(text: str) -> Shape:
    """An input's name and sizes.

    >>> parse_shape("image=1x3x224x224")
    ('image', (1, 3, 224, 224))
    >>> parse_shape("scalar=")
    ('scalar', ())

    Raises:
        ValueError: the text is not of that form.
    """
    # Names may hold '=' themselves (and ':' and '/'), sizes never do.
    name, equals, sizes = text.rpartition("=")
    parts = [part for part in sizes.split("x") if sizes]
    if not equals or not name or not all(part.isdecimal() for part in parts):
        raise ValueError(f"{text!r} is not of the form name=1x3x224x224")
    return name, tuple(int(part) for part in parts)


def spell_shape(shape: Shape) -> str:
    """The text that :func:`parse_shape` reads.

    >>> spell_shape(("image", (1, 3, 224, 224)))
    'image=1x3x224x224'
    """
    name, sizes = shape
    return f"{name}={'x'.join(map(str, sizes))}"


class _Fraction(ParamType):
    """A share of a whole: ``0.5``, or ``50%``."""

    name = "fraction"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The share as a number from 0 up to but without 1."""
        text = str(value).strip()
        try:
            share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
        except ValueError:
            self.fail(f"{text!r} is not a number; write 0.5 or 50% for half", param, ctx)
        if not 0 <= share < 1:
            percent = f"; did you mean {text}%?" if 1 < share < 100 and not text.endswith("%") else ""
            self.fail(f"{text!r} is not from 0 up to but without 1; 0.5 or 50% is half{percent}", param, ctx)
        return share


FRACTION = _Fraction()


def parse_pass(text: str) -> str:
    """The name of a pass; one in a module of its own is also looked for in the current folder."""
    # Last on the path, so that a file here cannot stand in for an installed library.
    if ":" in text and str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    return text


@dataclass(frozen=True)
class Reading:
    """How the model is read."""

    shapes: tuple[Shape, ...] = field(
        default=(),
        metadata={
            "help": "Sizes to analyze an input at, for axes that vary at run time.",
            "flag": "--shape",
            "metavar": "NAME=1x3x224x224",
            "parse": parse_shape,
            "spell": spell_shape,
            "complete": "inputs",
        },
    )
    simplify: bool = field(default=False, metadata={"help": "Run onnxsim on the model first (extra 'simplify')."})


@dataclass(frozen=True)
class Running:
    """How the pipeline is run."""

    passes: tuple[str, ...] = field(
        default=(),
        metadata={
            "help": "A pass of your own: a class, or the name of an installed one.",
            "flag": "--pass",
            "metavar": "MODULE:CLASS",
            "parse": parse_pass,
            "complete": "installed",
        },
    )
    verify_each: bool = field(default=False, metadata={"help": "Check what each pass promises after it ran."})
    print_after: tuple[str, ...] = field(
        default=(),
        metadata={
            "help": "Print the graph to standard error after this pass.",
            "metavar": "PASS",
            "complete": "pipeline",
        },
    )


@dataclass(frozen=True)
class Drifting:
    """How far the output may move."""

    max_drift: float | None = field(
        default=None,
        metadata={
            "help": "Remove the cheapest groups by measured change of the output until it passes this.",
            "metavar": "D",
            "min": 0.0,
        },
    )


def output_options(command: Command) -> Command:
    """Add ``--json`` and ``--quiet``."""
    for decorate in (
        click.option("--quiet", "-q", is_flag=True, help="No progress line."),
        click.option("--json", "as_json", is_flag=True, help="Print JSON; the keys are stable."),
    ):
        command = decorate(command)
    return command


def print_json(document: Any) -> None:
    """Print strict JSON on standard output; numbers that JSON has no form for become null."""

    def strict(item: Any) -> Any:
        if isinstance(item, dict):
            return {str(key): strict(entry) for key, entry in item.items()}
        if isinstance(item, (list, tuple)):
            return [strict(entry) for entry in item]
        return None if isinstance(item, float) and not math.isfinite(item) else item

    text = json.dumps(strict(document), indent=2, ensure_ascii=False)
    # JSON lets these stand as they are, but a terminal may obey them; they occur within strings alone.
    text = re.sub("[\x7f-\x9f]", lambda found: f"\\u{ord(found[0]):04x}", text)
    sys.stdout.write(text + "\n")

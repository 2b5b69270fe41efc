"""The verdicts of all applications as a text that people read and a test compares: ``axes.txt``.

Run ``python -m applications.summary`` in the folder ``tests`` to write it anew, and read the difference before it is
committed: an axis that was removed and is refused now is a loss.
"""

from __future__ import annotations

import re
from pathlib import Path
from textwrap import fill

from applications.application import Application
from applications.schemas import forms
from applications.tables import APPLICATIONS
from applications.verdicts import analysed, axes_of

FILE = Path(__file__).with_name("axes.txt")

HEAD = """\
What becomes of every axis of every operand, by application; written by applications/summary.py.

exact, folded, consumers, rescaled: its slots are removed, in that way, and compared with the zeroed original; several
words are several families that the axis is a product or a concatenation of. unread: slots that the operator leaves out,
with no weight to set to zero. refused: its slots stay, for the reason given. no slots: its size is one. Verdicts that
depend on which operands are computed and which are weights name those cases: data (all computed), weights (none), first
(the first alone), rest (all but the first). Applications that share all verdicts stand together.
"""


def summary() -> str:
    """The whole text."""
    alike: dict[str, list[str]] = {}
    for application in APPLICATIONS.values():
        alike.setdefault(body(application), []).append(application.name)
    blocks = ["; ".join(names) + "\n" + lines for lines, names in alike.items()]
    return "\n".join([HEAD, *(_wrapped(part) for part in blocks)])


def _wrapped(part: str) -> str:
    lines = [
        fill(line, 120, subsequent_indent="  " if line[0] != " " else " " * 8, break_on_hyphens=False)
        for line in part.split("\n")
    ]
    return "\n".join(lines) + "\n"


def written() -> dict[tuple[str, int, int], str]:
    """What the file says of every axis: (application, operand, axis) -> its verdicts."""
    found: dict[tuple[str, int, int], str] = {}
    for part in FILE.read_text(encoding="utf-8").split("\n\n")[2:]:
        names, *lines = re.sub(r"\n(?:  |        )(?=\S)", " ", part.strip("\n")).split("\n")
        for name in names.split("; "):
            positions = {operand: k for k, operand in enumerate(operand_names(APPLICATIONS[name]))}
            for line in lines:
                place, _, text = line.strip().partition(": ")
                operand, _, *axes = place.split()
                found |= dict.fromkeys(((name, positions[operand], int(axis)) for axis in axes), text)
    return found


def said(application: Application, position: int, axis: int) -> str:
    """The verdicts on an axis, and the cases that they hold for where they differ."""
    by_mode = {mode: str(analysed(application, mode).verdict(position, axis)) for mode in application.modes}
    kinds = dict.fromkeys(by_mode.values())
    return " | ".join(
        kind if len(kinds) == 1 else f"{kind} ({', '.join(mode for mode in by_mode if by_mode[mode] == kind)})"
        for kind in kinds
    )


def body(application: Application) -> str:
    """One application: a line for each operand and verdict, with the axes that have it."""
    names = operand_names(application)
    found: dict[tuple[int, str], list[int]] = {}
    for position, axis in axes_of(application):
        found.setdefault((position, said(application, position, axis)), []).append(axis)
    return "\n".join(
        f"    {names[position]} {'axis' if len(axes) == 1 else 'axes'} {' '.join(map(str, axes))}: {text}"
        for (position, text), axes in found.items()
    )


def operand_names(application: Application) -> list[str]:
    """The schema's names of the operands."""
    form = next(form for form in forms(application.operator) if application.opset in form)
    last = len(form.operands) - 1
    return [
        f"{form.operands[-1]}[{position - last}]" if form.endless and position >= last else form.operands[position]
        for position in range(len(application.operands))
    ]


if __name__ == "__main__":
    FILE.write_text(summary(), encoding="utf-8")

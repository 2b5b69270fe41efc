"""Examples in help texts. Nothing else is here, because ``ozgraph --help`` loads it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from click import HelpFormatter


class Example(NamedTuple):
    """Command lines that work as pasted, and what they are for."""

    purpose: str
    text: str

    @property
    def lines(self) -> list[str]:
        """One command each."""
        return self.text.splitlines()


def write_examples(examples: Sequence[Example], formatter: HelpFormatter) -> None:
    """A section of examples; their lines are never wrapped, so that they can be pasted."""
    if not examples:
        return
    with formatter.section("Examples"):
        for number, example in enumerate(examples):
            if number:
                formatter.write_paragraph()
            formatter.write_text(f"{example.purpose}:")
            for line in example.lines:
                formatter.write(f"{'':{formatter.current_indent + 2}}{line}\n")

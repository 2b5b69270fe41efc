"""Numbers in an operator's attributes that the program computes at run time."""

from __future__ import annotations


class Computed(int):
    """A size as it is at the sample shapes, computed at run time by a node of the program.

    Rewrites hand it on untouched where it does not change; a plain number in its place is a new number.

    Attributes:
        source: the node that computes it.
    """

    source: str

    def __new__(cls, size: int, source: str) -> Computed:
        """The number ``size``, computed by ``source``."""
        made = super().__new__(cls, size)
        made.source = source
        return made

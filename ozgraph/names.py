"""Names in model files: new ones beside those that are there, and theirs as people may see them.

They come from anyone, and may hold anything.
"""

from __future__ import annotations

import re
from collections.abc import MutableSet
from typing import Any

LONGEST = 400
"""Characters of a name that are shown; longer ones lose their middle."""

_UNSEEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")
"""What would move the cursor, turn the text around, or not show at all."""


def fresh(name: str, taken: MutableSet[Any], first: int = 2) -> str:
    """``name``, or its first numbered form that is not taken, counted from ``first``; it is taken from then on.

    >>> fresh("w", {"w", "w_2"})
    'w_3'
    """
    candidate, count = name, first
    while candidate in taken:
        candidate = f"{name}_{count}"
        count += 1
    taken.add(candidate)
    return candidate


def visible(name: str, longest: int | None = LONGEST) -> str:
    r"""A name as it may be shown: what cannot be seen as a replacement character, the middle of a long one as dots.

    >>> visible("a" * 9, 5), visible("w\x1b[31m")
    ('aa…aa', 'w�[31m')
    """
    if longest is not None and len(name) > longest:
        head = longest // 2
        name = f"{name[:head]}…{name[len(name) - (longest - 1 - head) :]}"
    return _UNSEEN.sub("\ufffd", name)


def unseen_removed(text: str) -> str:
    r"""Text without what :func:`visible` replaces, line ends aside: none of it takes a column on a terminal.

    >>> unseen_removed("w\x1b[31m\n")
    'w[31m\n'
    """
    return _UNSEEN.sub(lambda found: found[0] if found[0] == "\n" else "", text)

"""HTML that is made, never pasted: text is escaped wherever it goes in."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence

LONGEST = 400
"""Characters of a name that are shown; longer ones lose their middle."""

# What would move the cursor, turn the text around or not show at all.
_UNSEEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


Content = str | int | Markup


def visible(name: str, longest: int = LONGEST) -> str:
    """A name as it may be shown: what cannot be seen as a replacement character, the middle of a long one as dots.

    >>> visible("a" * 9, 5), visible("w\\x1b[31m")
    ('aa…aa', 'w�[31m')
    """
    if len(name) > longest:
        head = longest // 2
        name = f"{name[:head]}…{name[len(name) - (longest - 1 - head) :]}"
    return _UNSEEN.sub("\ufffd", name)


def text(content: Content) -> Markup:
    """Content as HTML: markup as it is, all else escaped."""
    if isinstance(content, Markup):
        return content
    return Markup(html.escape(visible(str(content))))


def element(name: str, *children: Content, **attributes: str) -> Markup:
    """An element; attributes may end in ``_`` where Python has the word, and ``-`` is written ``_``.

    >>> element("td", "a < b", class_="name")
    '<td class="name">a &lt; b</td>'
    """
    spelled = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(visible(value))}"' for key, value in attributes.items()
    )
    return Markup(f"<{name}{spelled}>{''.join(map(text, children))}</{name}>")


def join(parts: Iterable[Content]) -> Markup:
    """One after the other."""
    return Markup("".join(map(text, parts)))


def table(headers: Sequence[str], rows: Iterable[Sequence[Content]], *, numbers: Sequence[int] = ()) -> Markup:
    """A table; the columns ``numbers`` are set to the right."""

    def cell(kind: str, column: int, content: Content) -> Markup:
        return element(kind, content, class_="number") if column in numbers else element(kind, content)

    head = element("tr", *(cell("th", column, header) for column, header in enumerate(headers)))
    body = join(element("tr", *(cell("td", column, content) for column, content in enumerate(row))) for row in rows)
    return element("table", element("thead", head), element("tbody", body))

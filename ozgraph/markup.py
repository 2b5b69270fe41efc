"""HTML that is made, never pasted: text is escaped wherever it goes in."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

from ozgraph.names import visible


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


Content = str | int | Markup


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
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(visible(value, None))}"'
        for key, value in attributes.items()
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

"""What somebody may have meant by a name that is not there."""

from __future__ import annotations

from collections.abc import Iterable

_LISTED = 12
"""Names that a message lists before it only counts them."""

_COMPARED = 200
"""Characters up to which names are compared: nobody types more, and the comparison is quadratic."""

_ALIKE = 0.7
"""From this likeness on a name is suggested: a letter or two of a short word may be wrong, not half of it."""


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that is most like ``name``; None where none is.

    >>> nearest("prun", ["analyze", "prune"]), nearest("Layer1.Conv", ["layer1.conv"]), nearest("x", ["weight"])
    ('prune', 'layer1.conv', None)
    """
    from difflib import get_close_matches

    if len(name) > _COMPARED:
        return None
    spelled: dict[str, str] = {}
    for other in known:
        if len(other) <= _COMPARED:
            spelled.setdefault(other.lower(), other)
    near = get_close_matches(name.lower(), spelled, n=1, cutoff=_ALIKE)
    return spelled[near[0]] if near else None


def listed(names: Iterable[str]) -> str:
    """Names in one line, those beyond a dozen counted.

    >>> listed(map(str, range(14)))
    '0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 and 2 more'
    """
    every = list(names)
    more = f" and {len(every) - _LISTED:,} more" if len(every) > _LISTED else ""
    return ", ".join(every[:_LISTED]) + more


def hint(name: str, known: Iterable[str]) -> str:
    """A question where a known name is near, else the known names.

    >>> hint("l3x", ["l1", "random"]), hint("randm", ["l1", "random"]), hint("a", [])
    ('there are l1, random', "did you mean 'random'?", 'there are none')
    """
    names = list(known)
    near = nearest(name, names)
    if near is not None:
        return f"did you mean {near!r}?"
    return f"there are {listed(names) or 'none'}"

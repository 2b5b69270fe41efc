"""Numbers as people say them: 25.6 M parameters, 4.1 G MACs, 48.2 % fewer."""

from __future__ import annotations

_PREFIXES = ("", "k", "M", "G", "T", "P")


def human(count: float) -> str:
    """Three significant digits and a prefix.

    >>> human(812), human(25_557_032), human(4_089_184_256)
    ('812', '25.6 M', '4.09 G')
    >>> human(999_999)
    '1.00 M'
    """
    magnitude, power = float(count), 0
    # 999.5 would round to the four digits "1000": it belongs to the next prefix.
    while abs(magnitude) >= 999.5 and power < len(_PREFIXES) - 1:
        magnitude /= 1000
        power += 1
    if power == 0:
        return f"{count:.0f}"
    decimals = 2 if abs(magnitude) < 9.995 else 1 if abs(magnitude) < 99.95 else 0
    return f"{magnitude:.{decimals}f} {_PREFIXES[power]}"


def percent(share: float) -> str:
    """A share of one as a percentage that never claims all or nothing when it is not.

    >>> percent(0.4821), percent(0.00001), percent(0.99999), percent(1.0)
    ('48.2 %', '< 0.1 %', '> 99.9 %', '100 %')
    """
    if share in (0.0, 1.0):
        return f"{share:.0%}".replace("%", " %")
    if 0 < share < 0.001:
        return "< 0.1 %"
    if 0.999 < share < 1:
        return "> 99.9 %"
    return f"{100 * share:.1f} %"


def duration(seconds: float) -> str:
    """A time in three significant digits.

    >>> duration(0.0000421), duration(0.01234), duration(1.5)
    ('42.1 µs', '12.3 ms', '1.50 s')
    """
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= 0.9995 * size or unit == "µs":
            number = seconds / size
            break
    decimals = 2 if number < 9.995 else 1 if number < 99.95 else 0
    return f"{number:.{decimals}f} {unit}"


def size_in_bytes(count: int) -> str:
    """The size of a file.

    >>> size_in_bytes(812), size_in_bytes(102_400_000)
    ('812 B', '102 MB')
    """
    number = human(count)
    return f"{number}B" if number[-1].isalpha() else f"{number} B"


def removed(before: float, after: float) -> float:
    """The fraction that is gone; 0 where there was nothing.

    >>> removed(200, 50), removed(0, 0)
    (0.75, 0.0)
    """
    return 1 - after / before if before else 0.0


def scientific(error: float) -> str:
    """A small number at a glance.

    >>> scientific(0.0), scientific(3.21e-7)
    ('0', '3.2e-07')
    """
    return "0" if error == 0 else f"{error:.1e}"


def plural(count: int, noun: str) -> str:
    """A count with its noun, the noun in the right form.

    >>> plural(1, "slot"), plural(3, "slot"), plural(2, "family")
    ('1 slot', '3 slots', '2 families')
    """
    if count == 1:
        return f"1 {noun}"
    return f"{count:,} {noun[:-1]}ies" if noun.endswith("y") else f"{count:,} {noun}s"


def shorten(name: str, width: int) -> str:
    """A name in at most ``width`` characters; its end, which tells layers apart, counts most.

    >>> shorten("encoder.layers.11.attention.query.weight", 24)
    'enco…ention.query.weight'
    """
    if len(name) <= width:
        return name
    head = max(0, (width - 1) // 5)
    return f"{name[:head]}…{name[len(name) - (width - 1 - head) :]}"

"""How options are written."""

from __future__ import annotations

import click


def flag_of(param: click.Option) -> str:
    """The long form of an option.

    >>> flag_of(click.Option(["-o", "--output"]))
    '--output'
    """
    return max(param.opts, key=len)

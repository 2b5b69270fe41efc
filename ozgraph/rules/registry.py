"""The registry: one rule, or one reason to freeze, for every known operator.

Look rules up in :mod:`ozgraph.rules.table`, which knows all of them; this is only where they are kept.
"""

from __future__ import annotations

from ozgraph.rules.rule import Rule

RULES: dict[str, Rule] = {}
"""Qualified operator name -> rule."""

FREEZING: dict[str, str] = {}
"""Qualified operator name -> why every axis it touches freezes."""


def register(operators: str, made: Rule) -> None:
    """Enter a rule for operators, names separated by spaces; ``domain.Name`` outside the default domain."""
    for name in operators.split():
        RULES[name] = made


def register_freezing(operators: str, reason: str) -> None:
    """Enter operators whose axes all freeze, with the reason that people read."""
    for name in operators.split():
        FREEZING[name] = reason

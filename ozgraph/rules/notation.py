"""The notation of the rules: what an operator says about the axes of its operands, in one line.

``"m k, n k, n -> m n"`` lists the axes of every operand and result, a letter (or a word) for each dimension:

* ``(g i)``    a row-major product of dimensions, as a grouped convolution has it;
* ``(a + b)``  a concatenation;
* ``*s``       any number of axes (window axes, leading axes); the same count wherever the name stands;
* ``...``      leading axes that broadcast against each other, aligned on the right;
* ``1``        an axis of size one; ``_`` an axis that nothing is said of, which therefore freezes.

A dimension in the operands and the results is *carried*. One that stands in two or more operands and in no result is
contracted. Any other that does not reach a result, and any that only a result has, freezes, unless the rule names the
way it is reduced. Nothing is inferred from silence.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from ozgraph.errors import RuleError


@dataclass(frozen=True, slots=True)
class Letter:
    """One dimension."""

    name: str


@dataclass(frozen=True, slots=True)
class Product:
    """Row-major product, outermost first."""

    factors: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Concat:
    """Concatenation of dimensions or of products of them."""

    parts: tuple[Letter | Product, ...]


@dataclass(frozen=True, slots=True)
class Star:
    """Any number of axes."""

    name: str


@dataclass(frozen=True, slots=True)
class Broadcast:
    """Broadcast leading axes."""


@dataclass(frozen=True, slots=True)
class One:
    """An axis of size one."""


@dataclass(frozen=True, slots=True)
class Unsaid:
    """An axis that freezes."""


ONE_AXIS = One()

Axis = Letter | Product | Concat | One | Unsaid
Term = Axis | Star | Broadcast
Axes = tuple[Axis, ...]


@dataclass(frozen=True, slots=True)
class Pattern:
    """A parsed rule line, known by its text.

    Attributes:
        text: as written.
        operands, results: one tuple of terms each.
    """

    text: str
    operands: tuple[tuple[Term, ...], ...] = field(compare=False)
    results: tuple[tuple[Term, ...], ...] = field(compare=False)


_TOKEN = re.compile(r"\s*(?:(->)|(\.\.\.)|(\*?[A-Za-z][A-Za-z0-9]*)|(1)|(_)|([(),+]))")


def parse(text: str) -> Pattern:
    """Read a rule line.

    Raises:
        RuleError: malformed; the message names the line, the position and what was expected.

    >>> parse("m k, n k -> m n").results
    ((Letter(name='m'), Letter(name='n')),)
    """
    tokens: list[tuple[str, int]] = []
    position = 0
    while text[position:].strip():
        match = _TOKEN.match(text, position)
        if match is None:
            position += len(text[position:]) - len(text[position:].lstrip())
            raise _malformed(text, position, "a letter, '*name', '...', '1', '_', '(', ')', '+', ',' or '->'")
        token = match.group().strip()
        tokens.append((token, match.end() - len(token)))
        position = match.end()
    arrows = [index for index, (token, _) in enumerate(tokens) if token == "->"]
    if len(arrows) != 1:
        where = tokens[arrows[1]][1] if arrows else len(text)
        raise _malformed(text, where, "exactly one '->' between operands and results")
    arrow = arrows[0]
    operands = _tensors(text, tokens[:arrow], tokens[arrow][1])
    return Pattern(text, operands, _tensors(text, tokens[arrow + 1 :], len(text)))


def _malformed(text: str, position: int, expected: str) -> RuleError:
    return RuleError(f"rule {text!r}, position {position}: expected {expected}")


def _tensors(text: str, tokens: list[tuple[str, int]], end: int) -> tuple[tuple[Term, ...], ...]:
    tensors: list[tuple[Term, ...]] = []
    current: list[Term] = []
    group: list[str] | None = None
    for token, position in tokens:
        if (token == "..." or token.startswith("*")) and group is None and _flexible(current):
            raise _malformed(text, position, "at most one '*name' or '...' in a tensor")
        if group is not None:
            if token == ")":
                current.append(_group(text, position, group))
                group = None
            elif token in ("(", ",", "...", "1", "_") or token.startswith("*"):
                raise _malformed(text, position, "')' before anything but letters and '+'")
            else:
                group.append(token)
        elif token == "(":
            group = []
        elif token == ",":
            tensors.append(tuple(current))
            current = []
        elif token == "...":
            current.append(Broadcast())
        elif token == "1":
            current.append(One())
        elif token == "_":
            current.append(Unsaid())
        elif token.startswith("*"):
            current.append(Star(token[1:]))
        elif token in (")", "+"):
            raise _malformed(text, position, f"no {token!r} outside a group")
        else:
            current.append(Letter(token))
    if group is not None:
        raise _malformed(text, end, "')'")
    return (*tensors, tuple(current))


def _flexible(terms: Sequence[Term]) -> int:
    """How many terms stand for any number of axes."""
    return sum(isinstance(term, (Star, Broadcast)) for term in terms)


def _group(text: str, position: int, tokens: list[str]) -> Product | Concat:
    parts: list[list[str]] = [[]]
    for token in tokens:
        if token == "+":
            parts.append([])
        else:
            parts[-1].append(token)
    if not all(parts):
        raise _malformed(text, position, "a letter on both sides of '+' and inside '()'")
    if len(parts) == 1:
        return Product(tuple(parts[0]))
    return Concat(tuple(Letter(part[0]) if len(part) == 1 else Product(tuple(part)) for part in parts))


@dataclass(frozen=True, slots=True)
class Expanded:
    """A pattern at given ranks: stars and ellipses replaced by single letters.

    Attributes:
        operands: axes by operand; None for an operand that is left out or that the pattern does not mention.
        results: axes by result.
    """

    operands: tuple[Axes | None, ...]
    results: tuple[Axes | None, ...]


@lru_cache(maxsize=4096)
def expand(pattern: Pattern, operands: tuple[int | None, ...], results: tuple[int | None, ...]) -> Expanded:
    """``pattern`` with its stars and ellipses opened for tensors of these ranks (None: left out or unknown).

    Raises:
        RuleError: the ranks do not fit the pattern.
    """
    return Expanded(
        tuple(_open(pattern, pattern.operands, i, rank) for i, rank in enumerate(operands)),
        tuple(_open(pattern, pattern.results, i, rank) for i, rank in enumerate(results)),
    )


def _open(pattern: Pattern, tensors: tuple[tuple[Term, ...], ...], position: int, rank: int | None) -> Axes | None:
    if rank is None or position >= len(tensors):
        return None
    terms = tensors[position]
    flexible = _flexible(terms)
    count = rank - (len(terms) - flexible)
    if count < 0 or (not flexible and count):
        raise RuleError(f"rule {pattern.text!r} does not fit a tensor of {rank} axes at position {position}")
    axes: list[Axis] = []
    for term in terms:
        if isinstance(term, Star):
            axes.extend(Letter(f"*{term.name}{i}") for i in range(count))
        elif isinstance(term, Broadcast):
            # Numbered from the right, as broadcasting aligns them.
            axes.extend(Letter(f".{i}") for i in reversed(range(count)))
        else:
            axes.append(term)
    return tuple(axes)

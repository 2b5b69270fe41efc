"""What the rules of com.microsoft share: their names, and operands that must be there."""

from __future__ import annotations

from ozgraph.errors import RuleError
from ozgraph.graph import Op
from ozgraph.rules.rule import Rule, Spec, with_describe

_MS = "com.microsoft."


def names(operators: str) -> str:
    """Operators of the domain, names separated by spaces, as the registry calls them."""
    return " ".join(_MS + name for name in operators.split())


def needing(positions: tuple[int, ...], made: Rule) -> Rule:
    """The rule where these operands are there: onnx's checker, which sees to that elsewhere, does not know ours."""

    def describe(op: Op) -> Spec:
        if any(op.input(position) is None for position in positions):
            raise RuleError("an operand that it needs is left out")
        return made.describe(op)

    return with_describe(made, describe)

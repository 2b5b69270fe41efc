"""Every rule in one place, and the operators that freeze.

Importing this module registers the rules for ONNX; those for PyTorch follow when they are first asked for, so that a
command on an ONNX file does not wait for them. An operator stands among those that freeze only where nothing better is
true; each has a reason of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from typing import TypeVar

from ozgraph.graph import Op
from ozgraph.rules import (  # noqa: F401  (imported for what they register)
    attention,
    contrib,
    control,
    elementwise,
    estimators,
    indexing,
    linear,
    losses,
    movement,
    normalization,
    quantization,
    recurrent,
    reduction,
    registry,
    signal,
    windows,
)
from ozgraph.rules.registry import FREEZING, RULES, register_freezing
from ozgraph.rules.rule import Rule
from ozgraph.suggestions import nearest

Entry = TypeVar("Entry")

_TORCH = frozenset({"aten", "higher_order", "ozgraph", "transformers"})
"""The domains of captured PyTorch programs, and of operators that a library puts into them."""

__all__ = [
    "Override",
    "find_rule",
    "freezing_reason",
    "register",
    "register_freezing",
    "registered",
    "registered_freezing",
]


def find_rule(op: Op) -> Rule | None:
    """The rule of an operator; None when there is none. An overload without a rule has that of its operator."""
    return _find(RULES, op)


def freezing_reason(op: Op) -> str | None:
    """Why an operator without a rule freezes what it touches; None when it is not known at all."""
    return _find(FREEZING, op)


def _find(table: Mapping[str, Entry], op: Op) -> Entry | None:
    if op.domain in _TORCH:
        _register_torch()
    found = table.get(op.operator)
    if found is None and op.domain == "aten":
        found = table.get(f"aten.{op.type.partition('.')[0]}")
    return found


def register(operators: str, made: Rule) -> None:
    """Enter a rule for operators in place of those that there are, names separated by spaces."""
    if any(name.partition(".")[0] in _TORCH for name in operators.split()):
        _register_torch()
    registry.register(operators, made)


@cache
def _register_torch() -> None:
    """Enter the rules for what captured PyTorch programs consist of."""
    import_module("ozgraph.rules.aten.table")


def registered() -> dict[str, Rule]:
    """A copy of the rules: qualified operator name -> rule."""
    _register_torch()
    return dict(RULES)


def registered_freezing() -> dict[str, str]:
    """A copy of the table of operators that freeze: qualified operator name -> reason."""
    _register_torch()
    return dict(FREEZING)


def known_like(operator: str) -> str | None:
    """The known operator whose name is most like that of an unknown one, in any domain; None where none is."""
    known = (*RULES, *FREEZING)
    by_type = {name.rpartition(".")[2]: name for name in reversed(known)}
    near = nearest(operator, known) or nearest(operator.rpartition(".")[2], by_type)
    return by_type.get(near, near) if near is not None else None


class Override:
    """Context manager that replaces rules for a while: ``with Override("Relu", rule): ...``."""

    def __init__(self, operators: str, made: Rule) -> None:
        self._names = operators.split()
        self._made = made
        self._before: dict[str, Rule | None] = {}

    def __enter__(self) -> Rule:
        known = registered()
        self._before = {name: known.get(name) for name in self._names}
        register(" ".join(self._names), self._made)
        return self._made

    def __exit__(self, *_: object) -> None:
        for name, before in self._before.items():
            if before is None:
                RULES.pop(name, None)
            else:
                RULES[name] = before


register_freezing("NonZero Unique", "how many elements it returns depends on the data")
register_freezing("NonMaxSuppression", "which boxes it returns depends on the data")
register_freezing("If Loop Scan", "its bodies do not fit together, or nest too deeply, and are not followed")
register_freezing(
    "SequenceAt SequenceConstruct SequenceEmpty SequenceErase SequenceInsert SequenceLength SequenceMap "
    "SplitToSequence ConcatFromSequence",
    "tensors in a sequence are not followed",
)
register_freezing("Optional OptionalGetElement OptionalHasElement", "optional values are not followed")
register_freezing("Shape Size", "a size is read as a number")
register_freezing("Range EyeLike", "its size is computed at run time")
register_freezing(
    "RandomNormal RandomNormalLike RandomUniform RandomUniformLike Bernoulli Multinomial",
    "it draws random numbers",
)
register_freezing("HannWindow HammingWindow BlackmanWindow MelWeightMatrix", "its elements stand for positions")
register_freezing(
    "StringConcat StringNormalizer StringSplit RegexFullMatch TfIdfVectorizer ai.onnx.ml.LabelEncoder",
    "it works on text",
)
register_freezing("ImageDecoder", "it decodes a file")
register_freezing("Constant", "it holds something other than a dense tensor")
register_freezing("MaxUnpool", "its indices count positions in the whole tensor")

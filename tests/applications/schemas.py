"""What operators take and give, by their schemas in onnx and in onnxruntime."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from onnx import defs
from onnxruntime.capi import onnxruntime_pybind11_state as runtime

OLDEST = 7
"""The oldest opset that ozgraph reads."""


@dataclass(frozen=True)
class Form:
    """Versions of an operator with the same operands, results and attributes.

    Attributes:
        first, last: the opsets that mean it; ``last`` is None for the newest.
        operands: names by position.
        endless: whether the last operand may be repeated.
    """

    operator: str
    first: int
    last: int | None
    operands: tuple[str, ...]
    endless: bool

    def __str__(self) -> str:
        return f"{self.operator} from opset {self.first}"

    def __contains__(self, opset: int) -> bool:
        return self.first <= opset and (self.last is None or opset <= self.last)


@cache
def forms(operator: str) -> tuple[Form, ...]:
    """Every form of an operator that a model of opset 7 or later may use, the deprecated ones aside."""
    return tuple(_forms(operator))


def _forms(operator: str) -> Iterator[Form]:
    domain, _, name = operator.rpartition(".")
    versions = [schema for schema in _onnx() if (schema.domain, schema.name) == (domain, name)]
    versions.sort(key=lambda schema: schema.since_version)
    if not versions:
        schema = next(schema for schema in _runtime() if (schema.domain, schema.name) == (domain, name))
        yield Form(operator, OLDEST, None, *_operands(schema))
        return
    ends = [schema.since_version - 1 for schema in versions[1:]]
    current: tuple[object, int, int | None, Any] | None = None
    for schema, last in zip(versions, [*ends, None], strict=True):
        if last is not None and last < OLDEST:
            continue
        signature = None if schema.deprecated else (_signature(schema))
        if current is not None and current[0] == signature:
            current = (signature, current[1], last, schema)
            continue
        if current is not None and current[0] is not None:
            yield Form(operator, current[1], current[2], *_operands(current[3]))
        current = (signature, max(schema.since_version, OLDEST), last, schema)
    if current is not None and current[0] is not None:
        yield Form(operator, current[1], current[2], *_operands(current[3]))


def _signature(schema: Any) -> object:
    return (
        tuple((entry.name, entry.option) for entry in schema.inputs),
        tuple(entry.name for entry in schema.outputs),
        frozenset(schema.attributes),
    )


def _operands(schema: Any) -> tuple[tuple[str, ...], bool]:
    options = [entry.option for entry in schema.inputs]
    endless = bool(options) and str(options[-1]).endswith("Variadic")
    return tuple(entry.name for entry in schema.inputs), endless


@cache
def _onnx() -> tuple[Any, ...]:
    return tuple(defs.get_all_schemas_with_history())


@cache
def _runtime() -> tuple[Any, ...]:
    return tuple(runtime.get_all_operator_schema())  # type: ignore[attr-defined]

"""One use of one operator, and where all of them are kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import onnx
from onnx import helper

from applications.engines import Alone
from applications.operands import Fixed, Given, Operand
from models.building import Array

DATA, WEIGHTS, FIRST, REST = "data", "weights", "first", "rest"

DOMAIN = "com.microsoft"


@dataclass(frozen=True, eq=False)
class Application:
    """An operator with random operands.

    Attributes:
        operator: qualified name.
        form: what is special about this use; empty for the plain one.
        operands: by position; None where an optional one is left out.
        opset: the version of the default domain.
        attributes: of the node.
        results: how many results are asked for; the last ones may be left out.
        unused: results that are not asked for, although later ones are.
        still: modes that are left out, because the results would not depend on what is computed.
    """

    operator: str
    form: str
    operands: tuple[Given, ...]
    opset: int
    attributes: Mapping[str, Any]
    results: int = 1
    unused: tuple[int, ...] = ()
    still: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Unique; the operator's name comes first."""
        return f"{self.operator}-{self.form}" if self.form else self.operator

    @cached_property
    def modes(self) -> tuple[str, ...]:
        """Which operands are computed from the model's inputs and which stand in the file.

        All computed, all in the file, the first computed and the others in the file, and the other way round.
        """
        free = [operand for operand in self.operands if isinstance(operand, Operand) and not operand.only]
        if not free:
            return (DATA,)
        modes = (DATA, WEIGHTS) if len(free) == 1 else (DATA, WEIGHTS, FIRST, REST)
        return tuple(mode for mode in modes if mode not in self.still)

    def is_computed(self, position: int, mode: str) -> bool:
        """Whether an operand comes from the model's inputs."""
        operand = self.operands[position]
        if not isinstance(operand, Operand) or operand.only == "weight":
            return False
        if operand.only == "data" or mode in (DATA, WEIGHTS):
            return mode == DATA or operand.only == "data"
        first = next(
            number for number, other in enumerate(self.operands) if isinstance(other, Operand) and not other.only
        )
        return (position == first) == (mode == FIRST)

    def node(self, inputs: list[str], outputs: list[str]) -> onnx.NodeProto:
        """The operator's node."""
        domain, _, kind = self.operator.rpartition(".")
        return helper.make_node(kind, inputs, outputs, name="it", domain=domain, **self.attributes)

    def imports(self) -> list[onnx.OperatorSetIdProto]:
        """The domains of a model around the operator."""
        domain = self.operator.rpartition(".")[0]
        return [helper.make_opsetid("", self.opset), *([helper.make_opsetid(domain, 1)] if domain else [])]

    def arrays(self) -> list[Array | None]:
        """Operands to run it on."""
        rng = np.random.default_rng([7, *self.name.encode()])
        return [
            None if operand is None else operand.array if isinstance(operand, Fixed) else operand.weight(rng)
            for operand in self.operands
        ]

    @cached_property
    def alone(self) -> Alone:
        """The operator by itself, in the engine that can run it."""
        return Alone(self)


class Table(dict[str, Application]):
    """Applications by name."""

    def use(
        self,
        operator: str,
        *operands: Given,
        form: str = "",
        opset: int = 21,
        results: int = 1,
        unused: tuple[int, ...] = (),
        still: str = "",
        **attributes: Any,
    ) -> None:
        """Enter an application."""
        made = Application(operator, form, operands, opset, attributes, results, unused, tuple(still.split()))
        assert made.name not in self, made.name
        self[made.name] = made

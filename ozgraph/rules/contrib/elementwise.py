"""Activations of com.microsoft, of one operand or of a sum."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from ozgraph.graph import Array, Op
from ozgraph.rules.contrib.operands import names
from ozgraph.rules.lattice import UNKNOWN, Slots, finite
from ozgraph.rules.registry import register
from ozgraph.rules.rule import Transfer, line


def _activation(function: Callable[[Op, Array], Array]) -> Transfer:
    """A function of the sum of the operands; onnx's evaluator does not know these operators."""

    def transfer(op: Op, states: Sequence[Slots | None], result: int, axis: int) -> Slots:
        total = np.zeros(1)
        for value, state in zip(op.inputs, states, strict=True):
            if value is not None:
                total = total + (UNKNOWN if state is None else state)
        return finite(function(op, total))

    return transfer


def _erf(op: Op, x: Array) -> Array:
    erf = np.array([math.erf(number / math.sqrt(2)) for number in x.ravel()]).reshape(x.shape)
    result: Array = 0.5 * x * (1 + erf)
    return result


def _tanh(op: Op, x: Array) -> Array:
    result: Array = 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    return result


def _sigmoid(op: Op, x: Array) -> Array:
    with np.errstate(over="ignore"):
        result: Array = x / (1 + np.exp(-float(op.attributes.get("alpha", 1.702)) * x))
    return result


register(names("Gelu"), line("... -> ...", transfer=_activation(_erf)))
register(names("BiasGelu"), line("..., ... -> ...", transfer=_activation(_erf)))
register(names("FastGelu"), line("..., ... -> ...", transfer=_activation(_tanh)))
register(names("QuickGelu"), line("... -> ...", transfer=_activation(_sigmoid)))

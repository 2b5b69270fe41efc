"""Products of com.microsoft with what was fused into them: transposes, residuals, activations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ozgraph.errors import RuleError
from ozgraph.graph import Op
from ozgraph.rules.contrib.operands import names, needing
from ozgraph.rules.lattice import UNKNOWN, Slots, linear
from ozgraph.rules.linear import gemm, groups
from ozgraph.rules.notation import parse
from ozgraph.rules.registry import register
from ozgraph.rules.rule import Rule, Spec, attribute, from_pattern, need_shape

WINDOW = "a window moves along it"

_FUSED = {
    (a, b): parse(f"... {'k m' if a else 'm k'}, ... {'n k' if b else 'k n'} -> ... m n")
    for a in (False, True)
    for b in (False, True)
}


def _fused_matmul(op: Op) -> Spec:
    if op.attributes.get("transBatchA", 0) or op.attributes.get("transBatchB", 0):
        raise RuleError("it moves batch axes")
    return from_pattern(_FUSED[bool(op.attributes.get("transA", 0)), bool(op.attributes.get("transB", 0))], op)


register(
    names("FusedMatMul TransposeMatMul"),
    Rule(_fused_matmul, linear((0, 1)), macs="*", text="... m k, ... k n -> ... m n"),
)

_KEEPS_ZERO = {"", "Relu", "LeakyRelu", "Tanh", "HardSwish", "Elu", "Selu", "Celu", "Softsign", "Gelu"}


def _fused_conv(op: Op, states: Sequence[Slots | None], result: int, axis: int) -> Slots:
    """A convolution, a residual, an activation: zero where the activation leaves zero alone."""
    total = linear((0, 1), bias=2)(op, states[:3], result, axis)
    if op.input(3) is not None:
        added = states[3]
        total = total + (UNKNOWN if added is None else added)
    return np.where(total == 0, 0.0, np.nan) if op.attributes.get("activation", "") in _KEEPS_ZERO else UNKNOWN


_FUSED_CONV = parse("n (g i) *s, (g o) i *k, (g o), n (g o) *t -> n (g o) *t")


def _fused_convolution(op: Op) -> Spec:
    """The residual has the positions of the result, but the window makes them: they stay."""
    spec = from_pattern(_FUSED_CONV, op, sizes={"g": attribute("group", 1)(op)})
    over = {f"*t{number}": WINDOW for number in range(len(need_shape(op.inputs[0], op)) - 2)}
    return replace(spec, frozen=over)


register(
    names("FusedConv"),
    needing(
        (0, 1),
        Rule(
            _fused_convolution,
            _fused_conv,
            macs="n g i o *k *t",
            blocks=frozenset({"g"}),
            rewrite=groups,
            text=_FUSED_CONV.text,
        ),
    ),
)


def _fused_gemm(op: Op, states: Sequence[Slots | None], result: int, axis: int) -> Slots:
    """A product, a bias, an activation."""
    total = linear((0, 1), bias=2)(op, states, result, axis)
    return np.where(total == 0, 0.0, np.nan) if op.attributes.get("activation", "") in _KEEPS_ZERO else UNKNOWN


register(
    names("FusedGemm"),
    needing((0, 1), Rule(gemm, _fused_gemm, macs="m k n", text="m k, k n, m n -> m n")),
)

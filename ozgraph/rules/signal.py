"""Fourier transforms: time and frequency freeze, signals beside each other are carried."""

from __future__ import annotations

from ozgraph.errors import RuleError
from ozgraph.graph import Op
from ozgraph.rules.lattice import vanishing
from ozgraph.rules.notation import Letter
from ozgraph.rules.registry import register
from ozgraph.rules.rule import Rule, Spec, known_integers, letters, line, need_shape

_TIME, _PARTS = "it transforms along time", "it holds real and imaginary parts"


def _transformed(op: Op) -> int:
    """The axis of a transform: an attribute before opset 20, an operand since."""
    rank = len(need_shape(op.inputs[0], op))
    given = op.attributes.get("axis", 1)
    if op.version >= 20:
        known = known_integers(op.input(2)) if op.input(2) is not None else None
        if known is None and op.input(2) is not None:
            raise RuleError("its axis is computed at run time")
        given = -2 if known is None else known.ravel()[0]
    return int(given) % rank


def _fourier(op: Op) -> Spec:
    names = letters("a", len(need_shape(op.inputs[0], op)))
    axis = _transformed(op)
    made = [*names[:-1], Letter("parts")]
    made[axis] = Letter("frequency")
    frozen = {names[axis].name: _TIME, "frequency": _TIME, names[-1].name: _PARTS, "parts": _PARTS}
    return Spec((names, *(None for _ in op.inputs[1:])), (tuple(made),), frozen=frozen)


register("DFT", Rule(_fourier, vanishing, text="*a time _ -> *a frequency _"))
register(
    "STFT",
    line(
        "n time a, *x, *y, *z -> n frame frequency b",
        transfer=vanishing,
        frozen=dict.fromkeys(("time", "frame", "frequency"), _TIME) | dict.fromkeys("ab", _PARTS),
    ),
)

"""Operators that slide, resample or shuffle over spatial axes and leave channels alone."""

from __future__ import annotations

from collections.abc import Sequence

from ozgraph.graph import Op
from ozgraph.rules.lattice import Slots, uniform, vanishing
from ozgraph.rules.notation import parse
from ozgraph.rules.registry import register
from ozgraph.rules.rule import Describe, Rule, Spec, from_pattern, need_shape

_BATCHED = parse("n c *s -> n c *t")
_SINGLE = parse("c *s -> c *t")


def _sliding(spatial: int) -> Describe:
    def describe(op: Op) -> Spec:
        batched = len(need_shape(op.inputs[0], op)) == spatial + 2
        return from_pattern(_BATCHED if batched else _SINGLE, op)

    return describe


def _average(op: Op, states: Sequence[Slots | None], result: int, axis: int) -> Slots:
    """A constant survives an average unless padding zeros are counted."""
    if any(op.attributes.get("padding", ())) and op.attributes.get("count_include_pad", True):
        return vanishing(op, states, result, axis)
    return uniform(op, states, result, axis)


for _spatial in (1, 2, 3):
    _describe = _sliding(_spatial)
    register(f"aten.max_pool{_spatial}d", Rule(_describe, uniform, text="n c *s -> n c *t"))
    register(f"aten.avg_pool{_spatial}d", Rule(_describe, _average, text="n c *s -> n c *t"))
    register(f"aten.adaptive_avg_pool{_spatial}d", Rule(_describe, uniform, text="n c *s -> n c *t"))

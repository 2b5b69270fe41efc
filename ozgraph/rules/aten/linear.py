"""Products summed over other axes: convolutions, linear layers, matrix products."""

from __future__ import annotations

from ozgraph.graph import Op
from ozgraph.rules.lattice import linear
from ozgraph.rules.linear import matmul_spec
from ozgraph.rules.notation import parse
from ozgraph.rules.registry import register
from ozgraph.rules.rule import Edit, Rule, Spec, from_pattern, need_shape

_CONVOLUTION = {
    (False, True): parse("n (g i) *s, (g o) i *k, (g o) -> n (g o) *t"),
    (False, False): parse("(g i) *s, (g o) i *k, (g o) -> (g o) *t"),
    (True, True): parse("n (g i) *s, (g i) o *k, (g o) -> n (g o) *t"),
    (True, False): parse("(g i) *s, (g i) o *k, (g o) -> (g o) *t"),
}


def _convolution(op: Op, transposed: bool) -> Spec:
    batched = len(need_shape(op.inputs[0], op)) == len(need_shape(op.inputs[1], op))
    return from_pattern(_CONVOLUTION[transposed, batched], op, sizes={"g": int(op.attributes["groups"])})


def _groups(edit: Edit) -> None:
    edit.set_attribute("groups", int(edit.kept("g").sum()))


def _without_padding(op: Op) -> bool:
    padding = op.attributes["padding"]
    return padding == "valid" if isinstance(padding, str) else not any(padding)


register(
    "aten.conv1d aten.conv2d aten.conv3d",
    Rule(
        lambda op: _convolution(op, False),
        linear((0, 1), bias=2),
        rewrite=_groups,
        macs="n g i o *k *t",
        blocks=frozenset({"g"}),
        folds=_without_padding,
        text="n (g i) *s, (g o) i *k, (g o) -> n (g o) *t",
    ),
)
register(
    "aten.conv_transpose1d aten.conv_transpose2d aten.conv_transpose3d",
    Rule(
        lambda op: _convolution(op, True),
        linear((0, 1), bias=2),
        rewrite=_groups,
        macs="n g i o *k *s",
        blocks=frozenset({"g"}),
        text="n (g i) *s, (g i) o *k, (g o) -> n (g o) *t",
    ),
)
register(
    "aten.convolution",
    Rule(
        lambda op: _convolution(op, bool(op.attributes["transposed"])),
        linear((0, 1), bias=2),
        rewrite=_groups,
        macs=("n g i o *k *t",),
        blocks=frozenset({"g"}),
        text="n (g i) *s, (g o) i *k, (g o) -> n (g o) *t",
    ),
)

_LINEAR = parse("... k, n k, n -> ... n")
register(
    "aten.linear",
    Rule(
        lambda op: from_pattern(_LINEAR, op),
        linear((0, 1), bias=2),
        macs="... k n",
        folds=lambda op: True,
        text="... k, n k, n -> ... n",
    ),
)
register(
    "aten.matmul aten.mm aten.bmm aten.mv aten.dot",
    Rule(matmul_spec, linear((0, 1)), macs="*", text="... m k, ... k n -> ... m n"),
)

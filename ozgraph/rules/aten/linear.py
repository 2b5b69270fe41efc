"""Products summed over other axes: convolutions, linear layers, matrix products."""

from __future__ import annotations

from ozgraph.errors import RuleError
from ozgraph.graph import Op
from ozgraph.rules.aten.arguments import rank_of
from ozgraph.rules.lattice import linear
from ozgraph.rules.linear import convolved, einsum_spec, matmul_spec, weight_is_matrix
from ozgraph.rules.notation import parse
from ozgraph.rules.registry import register
from ozgraph.rules.rule import Edit, Folding, Rule, Spec, from_pattern, letters, line, need_shape

ADD = ("add.Tensor", "aten")
_MATRIX = Folding(weight_is_matrix, lambda op, x, w: x @ w, add=ADD, bias=None)

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
    if len(need_shape(op.inputs[0], op)) != len(need_shape(op.inputs[1], op)):
        return False  # without a batch, channels are another axis
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
        folds=Folding(
            _without_padding, lambda op, x, w: convolved(int(op.attributes["groups"]), x, w), add=ADD, axis=1
        ),
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
        folds=Folding(lambda op: True, lambda op, x, w: w @ x, add=ADD),
        text="... k, n k, n -> ... n",
    ),
)
_ADDED = {
    "addmm": parse("..., m k, k n -> m n"),
    "addmv": parse("..., m k, k -> m"),
    "addr": parse("..., m, n -> m n"),
    "baddbmm": parse("..., b m k, b k n -> b m n"),
    "addbmm": parse("..., b m k, b k n -> m n"),
}


def _added(op: Op) -> Spec:
    """``beta * bias + alpha * product``; the bias broadcasts to the product."""
    spec = from_pattern(_ADDED[op.type.partition(".")[0]], op)
    results = spec.results[0] or ()
    rank = rank_of(op)
    return Spec((results[len(results) - rank :], *spec.operands[1:]), spec.results)


register(
    "aten.addmm aten.addmv aten.addr aten.baddbmm aten.addbmm",
    Rule(
        _added,
        linear((1, 2), bias=0),
        macs="*",
        folds=Folding(
            lambda op: op.type == "addmm",
            lambda op, x, w: float(op.attributes["alpha"]) * (x @ w),
            add=ADD,
            data=1,
            weight=2,
            bias=0,
            factor="beta",
        ),
        text="m n, m k, k n -> m n",
    ),
)

COUNTED = "rows are counted off to the matrices by number"
_GROUPED = {
    (2, 3): parse("s k, e k n, e, e n -> s n"),  # rows in a row of their own lengths, a matrix for each
    (3, 3): parse("e m k, e k n, _, e n -> e m n"),
}


def _grouped(op: Op) -> Spec:
    pattern = _GROUPED.get((rank_of(op), rank_of(op, 1)))
    if pattern is None:
        raise RuleError("its groups lie along another axis than the first")
    return from_pattern(pattern, op, frozen=dict.fromkeys("se", COUNTED))


register(
    "aten._grouped_mm transformers.grouped_mm_fallback",
    Rule(_grouped, linear((0, 1), bias=3), macs=("s k n", "e m k n"), text="s k, e k n, e -> s n"),
)
register("aten.outer aten.ger", line("m, n -> m n", transfer=linear((0, 1)), macs="*"))
register("aten.bilinear", line("... i, ... j, k i j, k -> ... k", transfer=linear((0, 1, 2), bias=3), macs="... i j k"))
register("aten.einsum", Rule(einsum_spec, linear(range(8)), macs="*", text="its equation"))


def _tensordot(op: Op) -> Spec:
    left, right = (list(letters(name, rank_of(op, n))) for n, name in enumerate("ab"))
    for i, j in zip(op.attributes["dims_self"], op.attributes["dims_other"], strict=True):
        right[j % len(right)] = left[i % len(left)]
    shared = set(left) & set(right)
    result = tuple(name for name in (*left, *right) if name not in shared)
    return Spec((tuple(left), tuple(right)), (result,))


register("aten.tensordot", Rule(_tensordot, linear((0, 1)), macs="*", text="*m *k, *k *n -> *m *n"))
register(
    "aten.matmul aten.mm aten.bmm aten.mv aten.dot aten.vdot",
    Rule(matmul_spec, linear((0, 1)), macs="*", folds=_MATRIX, text="... m k, ... k n -> ... m n"),
)

"""Products summed over axes: convolutions, matrix products, Einsum."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ozgraph.errors import RuleError
from ozgraph.graph import Array, Op
from ozgraph.rules.lattice import UNKNOWN, Slots, linear, vanishing
from ozgraph.rules.notation import Letter, parse
from ozgraph.rules.registry import register
from ozgraph.rules.rule import ByRanks, Edit, Folding, Reduction, Rule, Spec, attribute, from_pattern, line


def groups(edit: Edit) -> None:
    """Re-derive how many groups a convolution has."""
    edit.set_attribute("group", int(edit.kept("g").sum()))


def _without_padding(op: Op) -> bool:
    return not any(op.attributes.get("pads", ())) and op.attributes.get("auto_pad", "NOTSET") in (
        "NOTSET",
        "VALID",
        b"NOTSET",
        b"VALID",
    )


def convolved(groups: int, constants: Slots, weight: Array) -> Array:
    """What constant channels add to every position behind an unpadded convolution, [out]."""
    taps = weight.reshape(*weight.shape[:2], -1).sum(axis=2)  # [groups * out, in]
    taps = taps.reshape(groups, -1, weight.shape[1])
    shift: Array = np.einsum("goi,gi->go", taps, constants.reshape(groups, -1)).reshape(-1)
    return shift


def _gemm_shift(op: Op, constants: Slots, weight: Array) -> Array:
    columns = weight.T if op.attributes.get("transB", 0) else weight
    scaled: Array = float(op.attributes.get("alpha", 1.0)) * (constants @ columns)
    return scaled


def weight_is_matrix(op: Op) -> bool:
    """Whether the second operand has two axes."""
    weight = op.inputs[1]
    return weight is not None and weight.rank == 2


_conv = {"transfer": linear((0, 1), bias=2), "sizes": {"g": attribute("group", 1)}, "rewrite": groups}

register(
    "Conv",
    line(
        "n (g i) *s, (g o) i *k, (g o) -> n (g o) *t",
        macs="n g i o *k *t",
        blocks=frozenset({"g"}),
        folds=Folding(_without_padding, lambda op, x, w: convolved(int(op.attributes.get("group", 1)), x, w), axis=1),
        **_conv,  # type: ignore[arg-type]
    ),
)
register(
    "ConvTranspose",
    line(
        "n (g i) *s, (g i) o *k, (g o) -> n (g o) *t",
        macs="n g i o *k *s",
        blocks=frozenset({"g"}),
        **_conv,  # type: ignore[arg-type]
    ),
)


def _causal(op: Op, states: Sequence[Slots | None], result: int, axis: int) -> Slots:
    """A channel is silent where it and its past are zero, or its weights are; what it hands on are its last steps."""
    incoming = [states[place] for place in (0, 3) if op.input(place) is not None]
    silent = np.logical_and.reduce([(UNKNOWN if state is None else state) == 0 for state in incoming])
    if result == 1:
        return np.where(silent, 0.0, np.nan)
    if states[1] is not None:
        silent = silent | (states[1] == 0)
    bias = None if op.input(2) is None else states[2]
    # The activations that it may have keep zero.
    kept = silent if op.input(2) is None else silent & ((UNKNOWN if bias is None else bias) == 0)
    return np.where(kept, 0.0, np.nan)


register(
    "CausalConvWithState",
    line(
        "b c l, c 1 k, c, b c p -> b c l, b c p",
        transfer=_causal,
        macs="b c l k",
        frozen=dict.fromkeys(("l", "k", "p"), "time runs along it"),
    ),
)

_GEMM = {
    (a, b): parse(f"{'k m' if a else 'm k'}, {'n k' if b else 'k n'}, ... -> m n")
    for a in (False, True)
    for b in (False, True)
}
_GEMM_BIAS = {1: "n", 2: "m n"}


@ByRanks
def gemm(op: Op) -> Spec:
    """Two axes each, as stored or turned, and a bias that broadcasts."""
    transposed = (bool(op.attributes.get("transA", 0)), bool(op.attributes.get("transB", 0)))
    spec = from_pattern(_GEMM[transposed], op)
    bias = op.input(2)
    if bias is None or bias.shape is None:
        return spec
    # C broadcasts to [m, n], aligned on the right.
    axes = (Letter("m"), Letter("n"))[2 - len(bias.shape) :]
    return Spec((*spec.operands[:2], axes), spec.results)


register(
    "Gemm",
    Rule(
        gemm,
        linear((0, 1), bias=2),
        macs="m k n",
        folds=Folding(lambda op: True, _gemm_shift, factor="beta"),
        text="m k, k n, m n -> m n",
    ),
)

register(
    "Det",
    line("*b m n -> *b", transfer=vanishing, frozen=dict.fromkeys("mn", "a determinant depends on every element")),
)

_MATMUL = {
    (False, False): parse("... m k, ... k n -> ... m n"),
    (True, False): parse("k, ... k n -> ... n"),
    (False, True): parse("... m k, k -> ... m"),
    (True, True): parse("k, k -> "),
}


@ByRanks
def matmul_spec(op: Op) -> Spec:
    """A matrix product with broadcast leading axes; operands of one axis are vectors."""
    left, right = op.inputs[0], op.inputs[1]
    vectors = (left is not None and left.rank == 1, right is not None and right.rank == 1)
    return from_pattern(_MATMUL[vectors], op)


register(
    "MatMul",
    Rule(
        matmul_spec,
        linear((0, 1)),
        macs="*",
        folds=Folding(weight_is_matrix, lambda op, x, w: x @ w, bias=None),
        text="... m k, ... k n -> ... m n",
    ),
)


def einsum_pattern(equation: str, operands: int) -> str:
    """An Einsum equation in the rules' notation; output letters are in alphabetical order where none are given.

    Raises:
        RuleError: a letter stands twice in one operand (a diagonal), which the notation does not say.

    >>> einsum_pattern("bij,bjk->bik", 2)
    'b i j , b j k -> b i k'
    """
    compact = equation.replace(" ", "")
    left, arrow, right = compact.partition("->")
    terms = left.split(",")
    if len(terms) != operands:
        raise RuleError(f"its equation names {len(terms)} operands")
    if not arrow:
        letters = [c for c in left if c.isalpha()]
        right = ("..." if "..." in left else "") + "".join(sorted(c for c in set(letters) if letters.count(c) == 1))
    for term in (*terms, right):
        if len(set(term.replace("...", ""))) != len(term.replace("...", "")):
            raise RuleError("its equation takes a diagonal")

    def spaced(term: str) -> str:
        return " ".join(term.replace("...", "~")).replace("~", "...")

    return " , ".join(map(spaced, terms)) + " -> " + spaced(right)


def einsum_spec(op: Op) -> Spec:
    """The axes of an Einsum, from its equation."""
    pattern = parse(einsum_pattern(str(op.attributes["equation"]), len(op.inputs)))
    spec = from_pattern(pattern, op)
    results = {axis for axes in spec.results for axis in axes or ()}
    alone = {
        axis.name for axes in spec.operands for axis in axes or () if isinstance(axis, Letter) and axis not in results
    }
    # A letter in one operand and not in the result is summed.
    return Spec(spec.operands, spec.results, reduced=dict.fromkeys(alone, Reduction.SUM))


register("Einsum", Rule(einsum_spec, linear(range(8)), macs="*", text="its equation"))

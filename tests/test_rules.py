"""What every rule says of axes: which are carried, which are combined and how, which freeze; and what they cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import defs

import ozgraph
from ozgraph.dims import ONE, Dim, Prod, Sum, Take, resolve
from ozgraph.graph import Array, Graph, Integers, Op, Value
from ozgraph.passes.cost import CostModel
from ozgraph.passes.infer_dims import InferDims
from ozgraph.passes.state import State
from ozgraph.rules.table import registered, registered_freezing

Operand = tuple[int, ...] | Array | None


@dataclass
class Held:
    """A constant in memory."""

    array: Array

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    @property
    def nbytes(self) -> int:
        return int(self.array.nbytes)

    def numpy(self) -> Array:
        return self.array


def value(name: str, given: Operand) -> Value | None:
    """A value: a float tensor of a shape, or a known constant."""
    if given is None:
        return None
    if isinstance(given, tuple):
        return Value(name, given, np.dtype(np.float32), (False,) * len(given))
    known = Integers(given, np.zeros(given.shape, dtype=bool)) if given.dtype.kind in "iub" else None
    return Value(name, given.shape, given.dtype, (False,) * given.ndim, constant=Held(given), integers=known)


def applied(
    type_: str, *operands: Operand, to: Sequence[tuple[int, ...]], version: int = 20, **attributes: Any
) -> State:
    """The dims of one operator alone."""
    inputs = tuple(value(f"x{k}", operand) for k, operand in enumerate(operands))
    outputs = tuple(value(f"y{k}", shape) for k, shape in enumerate(to))
    domain, _, name = type_.rpartition(".")
    op = Op("node", name, domain, version, inputs, outputs, attributes)
    for made in outputs:
        assert made is not None
        made.producer = op
    present = [entry for entry in (*inputs, *outputs) if entry is not None]
    graph = Graph(
        "one",
        (op,),
        {entry.name: entry for entry in present},
        tuple(entry for entry in inputs if entry is not None and entry.constant is None),
        tuple(entry for entry in outputs if entry is not None),
    )
    state = State(graph)
    InferDims().run(state)
    return state


def said(state: State) -> str:
    """The axes of the operator's tensors in the notation of rules.

    Frozen dims stand in ``[]``, known integers are ``#``, and sites follow behind ``|``.
    """
    names: dict[int, str] = {}
    op = state.graph.ops[0]

    def name(dim: Dim) -> str:
        dim = resolve(dim)
        if dim is ONE:
            return "1"
        if isinstance(dim, Prod):
            return f"({' '.join(map(name, dim.factors))})"
        if isinstance(dim, Sum):
            return f"({' + '.join(map(name, dim.parts))})"
        if isinstance(dim, Take):
            return f"{name(dim.base)}{{{' '.join(map(str, dim.index))}}}"
        letter = names.setdefault(id(dim), "abcdefghijklmnopqrstuvwxyz"[len(names)])
        return letter if (state.dims.ids(dim) >= 0).any() else f"[{letter}]"

    def tensor(entry: Value | None) -> str:
        if entry is None:
            return "-"
        return "#" if entry.integers is not None else " ".join(map(name, state.axes[entry]))

    text = f"{', '.join(map(tensor, op.inputs))} -> {', '.join(map(tensor, op.outputs))}"
    bound = state.bound.get(op)
    sites = [f"{site.reduction.name.lower()} {name(site.dim)}" for site in bound.sites] if bound else []
    return " | ".join((text, *(site for site in sites if "[" not in site)))


def ints(*elements: int) -> Array:
    return np.array(elements, dtype=np.int64)


IMAGE = (2, 6, 5, 5)

LINES = [
    # Products summed over axes.
    ("Conv", [IMAGE, (8, 6, 3, 3), (8,)], [(2, 8, 3, 3)], {}, "a b [c] [d], e b [f] [g], e -> a e [h] [i] | sum b"),
    (
        "Conv", [IMAGE, (8, 3, 3, 3), (8,)], [(2, 8, 3, 3)], {"group": 2},
        "a (b c) [d] [e], (b f) c [g] [h], (b f) -> a (b f) [i] [j] | sum c",
    ),
    ("Conv", [IMAGE, (6, 1, 3, 3)], [(2, 6, 3, 3)], {"group": 6}, "a b [c] [d], b 1 [e] [f] -> a b [g] [h]"),
    ("ConvTranspose", [IMAGE, (6, 4, 2, 2)], [(2, 4, 6, 6)], {}, "a b [c] [d], b e [f] [g] -> a e [h] [i] | sum b"),
    ("Gemm", [(3, 4), (4, 5), (5,)], [(3, 5)], {}, "a b, b c, c -> a c | sum b"),
    ("Gemm", [(3, 4), (5, 4), (3, 1)], [(3, 5)], {"transB": 1}, "a b, c b, a 1 -> a c | sum b"),
    ("Gemm", [(4, 3), (4, 5), (1,)], [(3, 5)], {"transA": 1}, "a b, a c, 1 -> b c | sum a"),
    ("MatMul", [(2, 3, 4), (4, 5)], [(2, 3, 5)], {}, "a b c, c d -> a b d | sum c"),
    ("MatMul", [(2, 3, 4), (1, 4, 5)], [(2, 3, 5)], {}, "a b c, 1 c d -> a b d | sum c"),
    ("MatMul", [(4,), (2, 4, 5)], [(2, 5)], {}, "a, b a c -> b c | sum a"),
    ("MatMul", [(2, 3, 4), (4,)], [(2, 3)], {}, "a b c, c -> a b | sum c"),
    ("MatMul", [(4,), (4,)], [()], {}, "a, a ->  | sum a"),
    ("Einsum", [(2, 3, 4), (4, 5)], [(2, 5, 3)], {"equation": "bij,jk->bki"}, "a b c, c d -> a d b | sum c"),
    ("Einsum", [(2, 3)], [(3,)], {"equation": "ij->j"}, "a b -> b | sum a"),
    # Element by element.
    ("Relu", [(2, 3)], [(2, 3)], {}, "a b -> a b"),
    ("Add", [(2, 3, 4), (3, 1)], [(2, 3, 4)], {}, "a b c, b 1 -> a b c"),
    ("Where", [(2, 3), (3,), ()], [(2, 3)], {}, "a b, b,  -> a b"),
    ("Clip", [(2, 3), (), ()], [(2, 3)], {}, "a b, ,  -> a b"),
    ("PRelu", [IMAGE, (6, 1, 1)], [IMAGE], {}, "a b c d, b 1 1 -> a b c d"),
    ("Dropout", [(2, 3)], [(2, 3), (2, 3)], {}, "a b -> a b, a b"),
    ("DequantizeLinear", [(4, 6), (4,), (4,)], [(4, 6)], {"axis": 0}, "a b, a, a -> a b"),
    ("DequantizeLinear", [(4, 6), (), ()], [(4, 6)], {}, "a b, ,  -> a b"),
    # Norms.
    ("BatchNormalization", [IMAGE] + [(6,)] * 4, [IMAGE], {}, "a b c d, b, b, b, b -> a b c d"),
    ("InstanceNormalization", [IMAGE, (6,), (6,)], [IMAGE], {}, "a b c d, b, b -> a b c d | norm c | norm d"),
    ("LayerNormalization", [(2, 5, 4), (4,), (4,)], [(2, 5, 4)], {}, "a b c, c, c -> a b c | norm c"),
    ("LayerNormalization", [(2, 5, 4), (5, 4)], [(2, 5, 4)], {"axis": 1}, "a b c, b c -> a b c | norm b | norm c"),
    ("RMSNormalization", [(2, 5, 4), (4,)], [(2, 5, 4)], {}, "a b c, c -> a b c | rms c"),
    (
        "GroupNormalization", [IMAGE, (6,), (6,)], [IMAGE], {"num_groups": 2, "version": 21},
        "a (b c) [d] [e], (b c), (b c) -> a (b c) [d] [e] | norm c",
    ),
    ("MeanVarianceNormalization", [IMAGE], [IMAGE], {}, "[a] b [c] [d] -> [a] b [c] [d]"),
    ("LpNormalization", [(2, 5)], [(2, 5)], {}, "a b -> a b | sum b"),
    ("LRN", [IMAGE], [IMAGE], {"size": 3}, "a [b] c d -> a [b] c d"),
    # Reductions.
    ("ReduceSum", [(2, 3, 4), ints(1)], [(2, 1, 4)], {}, "a b c, # -> a 1 c | sum b"),
    ("ReduceSum", [(2, 3, 4)], [()], {"keepdims": 0}, "a b c ->  | sum a | sum b | sum c"),
    ("ReduceMean", [(2, 3, 4), ints(-1)], [(2, 3)], {"keepdims": 0}, "a b c, # -> a b | mean c"),
    ("ReduceL2", [(2, 3)], [(2, 1)], {"axes": [1], "version": 13}, "a b -> a 1 | sum b"),
    ("ReduceMax", [(2, 3, 4), ints(1)], [(2, 1, 4)], {}, "a [b] c, # -> a 1 c"),
    ("ReduceProd", [(2, 3), ints(1)], [(2, 1)], {}, "a [b], # -> a 1"),
    ("ReduceLogSumExp", [(2, 3), ints(1)], [(2, 1)], {}, "a [b], # -> a 1"),
    ("Softmax", [(2, 3, 4)], [(2, 3, 4)], {}, "a b [c] -> a b [c]"),
    ("Softmax", [(2, 3, 4)], [(2, 3, 4)], {"version": 11}, "a [b] [c] -> a [b] [c]"),
    ("ArgMax", [(2, 3, 4)], [(2, 1, 4)], {"axis": 1}, "a [b] c -> a 1 c"),
    ("ArgMax", [(2, 3, 4)], [(2, 4)], {"axis": 1, "keepdims": 0}, "a [b] c -> a c"),
    ("CumSum", [(2, 3), ints(1)], [(2, 3)], {}, "a [b], # -> a [b]"),
    ("TopK", [(2, 5), ints(3)], [(2, 3), (2, 3)], {}, "a [b], # -> a [c], a [c]"),
    # Windows.
    ("MaxPool", [IMAGE], [(2, 6, 2, 2)], {}, "a b [c] [d] -> a b [e] [f]"),
    ("AveragePool", [IMAGE], [(2, 6, 2, 2)], {}, "a b [c] [d] -> a b [e] [f]"),
    ("GlobalAveragePool", [IMAGE], [(2, 6, 1, 1)], {}, "a b [c] [d] -> a b 1 1"),
    (
        "Resize", [IMAGE, None, np.array([1, 1, 2, 2], np.float32)], [(2, 6, 10, 10)], {},
        "a b [c] [d], -, [e] -> a b [f] [g]",
    ),
    (
        "DepthToSpace", [(2, 8, 3, 3)], [(2, 2, 6, 6)], {"blocksize": 2},
        "a ([b] [c] d) [e] [f] -> a d ([e] [b]) ([f] [c])",
    ),
    (
        "SpaceToDepth", [(2, 2, 6, 6)], [(2, 8, 3, 3)], {"blocksize": 2},
        "a b ([c] [d]) ([e] [f]) -> a ([d] [f] b) [c] [e]",
    ),
    ("GridSample", [IMAGE, (2, 4, 4, 2)], [(2, 6, 4, 4)], {}, "a b [c] [d], a e f [g] -> a b e f"),
    ("Col2Im", [(2, 12, 9), ints(4, 4), ints(2, 2)], [(2, 3, 4, 4)], {}, "a (b [c]) [d], #, # -> a b [e] [f]"),
    # Data movement.
    ("Transpose", [(2, 3, 4)], [(4, 2, 3)], {"perm": [2, 0, 1]}, "a b c -> c a b"),
    ("Reshape", [(2, 12), ints(2, 3, 4)], [(2, 3, 4)], {}, "a (b c), # -> a b c"),
    ("Reshape", [(2, 3, 4), ints(2, 12)], [(2, 12)], {}, "a b c, # -> a (b c)"),
    ("Reshape", [(2, 1, 6), ints(2, 6, 1)], [(2, 6, 1)], {}, "a 1 b, # -> a b 1"),
    ("Flatten", [(2, 3, 4)], [(2, 12)], {}, "a b c -> a (b c)"),
    ("Squeeze", [(2, 1, 3), ints(1)], [(2, 3)], {}, "a 1 b, # -> a b"),
    ("Unsqueeze", [(2, 3), ints(1)], [(2, 1, 3)], {}, "a b, # -> a 1 b"),
    ("Concat", [(2, 3), (2, 4)], [(2, 7)], {"axis": 1}, "a b, a c -> a (b + c)"),
    ("Split", [(2, 7), ints(3, 4)], [(2, 3), (2, 4)], {"axis": 1}, "a (b + c), # -> a b, a c"),
    ("Slice", [(2, 7), ints(2), ints(5), ints(1)], [(2, 3)], {}, "a (b + c + d), #, #, # -> a c"),
    ("Slice", [(7,), ints(6), ints(-8), ints(0), ints(-2)], [(4,)], {}, "a, #, #, #, # -> a{6 4 2 0}"),
    ("Expand", [(3, 1), ints(2, 3, 4)], [(2, 3, 4)], {}, "a 1, # -> b a c"),
    ("Tile", [(2, 3), ints(1, 2)], [(2, 6)], {}, "a b, # -> a (c b)"),
    ("Pad", [(2, 3), ints(0, 1, 0, 2)], [(2, 6)], {}, "a b, # -> a (1 + b + c)"),
    ("Pad", [(2, 3), ints(0, 1, 0, 1)], [(2, 5)], {"mode": "reflect"}, "a [b], # -> a [c]"),
    ("Gather", [(5, 4), ints(3, 1)], [(2, 4)], {}, "a b, # -> a{3 1} b"),
    ("Gather", [(5, 4), np.array(2)], [(4,)], {}, "(a + 1 + b) c, # -> c"),
    ("Gather", [(5, 4), (2, 3)], [(2, 3, 4)], {}, "[a] b, c d -> c d b"),
    ("GatherElements", [(5, 4), (2, 4)], [(2, 4)], {}, "[a] b, [c] b -> [c] b"),
    ("GatherND", [(5, 4, 3), (2, 1)], [(2, 4, 3)], {}, "[a] b c, d 1 -> d b c"),
    ("ScatterElements", [(5, 4), (2, 4), (2, 4)], [(5, 4)], {}, "[a] b, [c] b, [c] b -> [a] b"),
    ("ScatterND", [(5, 4), (2, 1), (2, 4)], [(5, 4)], {}, "[a] b, [c] 1, [c] b -> [a] b"),
    ("Trilu", [(2, 4, 4)], [(2, 4, 4)], {}, "a [b] [c] -> a [b] [c]"),
    ("ReverseSequence", [(3, 2, 4), (2,)], [(3, 2, 4)], {}, "[a] [b] c, [b] -> [a] [b] c"),
    # Recurrent layers.
    (
        "LSTM", [(5, 2, 3), (1, 16, 3), (1, 16, 4), (1, 32)], [(5, 1, 2, 4), (1, 2, 4), (1, 2, 4)], {"hidden_size": 4},
        "[a] b c, 1 ([d] e) c, 1 ([d] e) e, 1 ([f] e) -> [a] 1 b e, 1 b e, 1 b e | sum c | sum e",
    ),
    (
        "GRU", [(5, 2, 3), (2, 12, 3), (2, 12, 4)], [(5, 2, 2, 4)], {"hidden_size": 4, "direction": "bidirectional"},
        "[a] b c, [d] ([e] f) c, [d] ([e] f) f -> [a] [d] b f | sum c | sum f",
    ),
    (
        "RNN", [(5, 2, 3), (1, 4, 3), (1, 4, 4)], [(5, 1, 2, 4)], {"hidden_size": 4},
        "[a] b c, 1 d c, 1 d d -> [a] 1 b d | sum c | sum d",
    ),
    # What has no rule.
    ("NonZero", [(2, 3)], [(2, 6)], {}, "[a] [b] -> [c] [d]"),
    ("my.domain.Swirl", [(2, 3)], [(2, 3)], {}, "[a] [b] -> [c] [d]"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("type_", "operands", "results", "attributes", "line"), LINES, ids=[f"{row[0]}: {row[4]}" for row in LINES]
)
def test_the_rule_says(
    type_: str, operands: list[Operand], results: list[tuple[int, ...]], attributes: dict[str, Any], line: str
) -> None:
    assert said(applied(type_, *operands, to=results, **attributes)) == line


def reasons(state: State) -> set[str]:
    return {reason.text for reason in state.dims.reasons}


def test_an_unknown_operator_is_counted_and_freezes_with_that_reason() -> None:
    state = applied("my.domain.Swirl", (2, 3), to=[(2, 3)])
    assert dict(state.unknown) == {"my.domain.Swirl": 1}
    assert reasons(state) == {"the operator is not known"}


def test_a_known_operator_without_a_rule_freezes_with_its_own_reason() -> None:
    state = applied("NonZero", (2, 3), to=[(2, 6)])
    assert not state.unknown
    assert reasons(state) == {"how many elements it returns depends on the data"}


@pytest.mark.parametrize(
    ("type_", "operands", "results", "attributes", "reason"),
    [
        ("Softmax", [(2, 3)], [(2, 3)], {}, "a softmax over it counts every slot"),
        ("LRN", [IMAGE], [IMAGE], {}, "a window runs across the channels"),
        ("CumSum", [(3,), ints(0)], [(3,)], {}, "a running sum along it depends on order"),
        ("Gather", [(5, 4), (2,)], [(2, 4)], {}, "positions along it are looked up at run time"),
        ("MaxPool", [(1, 1, 5)], [(1, 1, 2)], {}, "the operator looks along it (a window, a lookup or an order)"),
        ("GridSample", [IMAGE, (2, 4, 4, 2)], [(2, 6, 4, 4)], {}, "it holds the coordinates of a sample"),
        ("Dropout", [(2, 3), None, np.array(True)], [(2, 3)], {}, "dropout in training mode draws random numbers"),
        ("Einsum", [(3, 3)], [(3,)], {"equation": "ii->i"}, "its equation takes a diagonal"),
        ("Squeeze", [(2, 1, 3), (1,)], [(2, 3)], {}, "its axes are computed at run time"),
        ("Relu", [(2, 3)], [(2, 4)], {}, "the rule does not fit the shapes that the model declares"),
    ],
)
def test_what_freezes_says_why(
    type_: str, operands: list[Operand], results: list[tuple[int, ...]], attributes: dict[str, Any], reason: str
) -> None:
    assert reason in reasons(applied(type_, *operands, to=results, **attributes))


def test_a_rule_that_mentions_too_few_operands_freezes_the_others() -> None:
    state = applied("Relu", (2, 3), (2, 3), to=[(2, 3)])
    assert said(state).endswith("-> a b")


# -- cost ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("type_", "operands", "results", "attributes", "macs"),
    [
        ("Conv", [IMAGE, (8, 6, 3, 3)], [(2, 8, 3, 3)], {}, 2 * 8 * 3 * 3 * 6 * 3 * 3),
        ("Conv", [IMAGE, (8, 3, 3, 3)], [(2, 8, 3, 3)], {"group": 2}, 2 * 8 * 3 * 3 * 3 * 3 * 3),
        ("Conv", [IMAGE, (6, 1, 3, 3)], [(2, 6, 3, 3)], {"group": 6}, 2 * 6 * 3 * 3 * 3 * 3),
        ("ConvTranspose", [IMAGE, (6, 4, 2, 2)], [(2, 4, 6, 6)], {}, 2 * 6 * 5 * 5 * 4 * 2 * 2),
        ("Gemm", [(3, 4), (4, 5), (5,)], [(3, 5)], {}, 3 * 4 * 5),
        ("MatMul", [(2, 3, 4), (4, 5)], [(2, 3, 5)], {}, 2 * 3 * 4 * 5),
        ("Einsum", [(2, 3, 4), (4, 5)], [(2, 5, 3)], {"equation": "bij,jk->bki"}, 2 * 3 * 4 * 5),
        ("Relu", [(2, 3)], [(2, 3)], {}, 0),
        ("LSTM", [(5, 2, 3), (1, 16, 3), (1, 16, 4)], [(5, 1, 2, 4)], {}, 5 * 2 * 16 * (3 + 4)),
        ("GRU", [(5, 2, 3), (2, 12, 3), (2, 12, 4)], [(5, 2, 2, 4)], {}, 5 * 2 * 2 * 12 * (3 + 4)),
        ("RNN", [(5, 2, 3), (1, 4, 3), (1, 4, 4)], [(5, 1, 2, 4)], {}, 5 * 2 * 4 * (3 + 4)),
    ],
)
def test_cost_letters_multiply_to_the_multiply_accumulates(
    type_: str, operands: list[Operand], results: list[tuple[int, ...]], attributes: dict[str, Any], macs: int
) -> None:
    state = applied(type_, *operands, to=results, **attributes)
    state.facts.add("certified")
    terms = CostModel(state).mac_terms
    sizes = CostModel(state)._full
    assert sum(term.factor * int(np.prod([sizes[number] for number in term.dims])) for term in terms) == macs


# -- completeness ----------------------------------------------------------------------------------------------------

SCHEMAS = [schema for schema in defs.get_all_schemas_with_history() if schema.domain == ""]


def test_every_operator_that_onnx_knows_at_any_version_has_a_rule_or_a_reason_to_freeze() -> None:
    known = registered().keys() | registered_freezing().keys()
    assert {schema.name for schema in SCHEMAS} - known == set()


def test_no_operator_has_both_a_rule_and_a_reason_to_freeze() -> None:
    assert registered().keys() & registered_freezing().keys() == set()


def test_the_tables_name_only_operators_that_exist() -> None:
    real = {schema.name for schema in SCHEMAS}
    real |= {f"{schema.domain}.{schema.name}" for schema in defs.get_all_schemas_with_history() if schema.domain}
    named = {
        name
        for name in registered().keys() | registered_freezing().keys()
        # The last four are what captured PyTorch programs consist of.
        if not name.startswith(("com.microsoft.", "aten.", "higher_order.", "ozgraph.", "transformers."))
    }
    # What stands for the bodies of control flow in a graph.
    named = {name for name in named if name.partition(".")[0] not in {"If", "Loop", "Scan"}}
    # onnxruntime's own, which exporters write into the default domain.
    assert named - real == {"SimplifiedLayerNormalization"}


@pytest.mark.parametrize("name", sorted({schema.name for schema in SCHEMAS if schema.name in registered_freezing()}))
def test_an_operator_that_freezes_says_why_in_words(name: str) -> None:
    assert len(registered_freezing()[name].split()) >= 4


def test_every_pointwise_operator_that_onnx_tells_by_its_function_body_has_a_rule() -> None:
    one_to_one = {
        schema.name
        for schema in SCHEMAS
        if schema.since_version >= 13
        and len(schema.inputs) == len(schema.outputs) == 1
        and schema.inputs[0].type_str == schema.outputs[0].type_str == "T"
        and not schema.attributes
    }
    assert one_to_one - registered().keys() <= {"Det", "NonZero", "Optional", "Shape", "Size"}


def test_operators_of_real_exports_have_rules_not_just_reasons() -> None:
    exported = """
        Reshape Add Conv Gemm ReduceMean Mul Transpose MatMul Softmax Relu LayerNormalization Gelu Concat Gather Slice
        MaxPool Sigmoid Unsqueeze Split Squeeze BatchNormalization AveragePool Where GatherND Div Expand Pad IsNaN Cast
        And Pow Sub Neg Clip Resize ReduceL2 Sqrt Reciprocal HardSwish HardSigmoid Tanh InstanceNormalization ReduceSum
        Equal Not Einsum GatherElements ScatterND Tile Sin Cos CumSum ConstantOfShape ReduceMax ConvTranspose Identity
        GridSample LeakyRelu Col2Im Softplus Greater Exp ScatterElements ArgMax Abs CastLike Ceil Floor GreaterOrEqual
        Less LessOrEqual Log Max Min Mod Sign Attention RMSNormalization
    """
    assert set(exported.split()) - registered().keys() == set()


def test_what_a_few_exports_use_otherwise_freezes_for_a_stated_reason() -> None:
    assert {"Range", "SequenceAt", "Shape", "SplitToSequence"} <= registered_freezing().keys()


def test_constant_nodes_are_constants_not_operators() -> None:
    node = onnx.helper.make_node("Constant", [], ["w"], value_floats=[1.0, 2.0])
    info = onnx.helper.make_tensor_value_info
    x, y = info("x", 1, [3, 2]), info("y", 1, [3, 2])
    graph = onnx.helper.make_graph([node, onnx.helper.make_node("Add", ["x", "w"], ["y"])], "g", [x], [y])
    state = ozgraph.analyze(
        onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9)
    ).state
    assert [op.type for op in state.graph.ops] == ["Add"]


def test_the_notation_of_every_rule_is_shown_to_people() -> None:
    assert [name for name, rule in registered().items() if not rule.text] == []


def test_the_registry_is_handed_out_as_a_copy() -> None:
    registered().clear()
    assert "Conv" in registered()

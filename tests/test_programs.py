"""One answer of a rule serves operators that are alike in all that the rule may look at, and no others."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ozgraph.graph import Graph, Integers, Op, Value
from ozgraph.passes.infer_dims import InferDims
from ozgraph.passes.program import likeness
from ozgraph.passes.state import State
from ozgraph.rules.rule import ByShapes, Rule, Spec, line
from ozgraph.rules.table import Override, registered

FLOAT = np.dtype(np.float32)


def tensor(name: str, shape: tuple[int, ...]) -> Value:
    return Value(name, shape, FLOAT, (False,) * len(shape))


def index(name: str, *elements: int) -> Value:
    array = np.array(elements, dtype=np.int64)
    return Value(name, array.shape, array.dtype, (False,), integers=Integers(array, np.zeros(array.shape, bool)))


def op(type_: str, operands: list[Value | None], shape: tuple[int, ...], version: int = 18, **attributes: Any) -> Op:
    return Op(f"{type_}{id(operands)}", type_, "", version, tuple(operands), (tensor("y", shape),), attributes)


def key(made: Op) -> Any:
    return likeness(made, registered()[made.type])


def test_operators_that_differ_in_names_alone_are_alike() -> None:
    one = op("Conv", [tensor("x", (1, 4, 8, 8)), tensor("w", (6, 4, 3, 3)), None], (1, 6, 6, 6), strides=[1, 1])
    two = op("Conv", [tensor("p", (1, 4, 8, 8)), tensor("q", (6, 4, 3, 3)), None], (1, 6, 6, 6), strides=[1, 1])
    assert key(one) == key(two) is not None


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (
            op("Transpose", [tensor("x", (2, 2))], (2, 2), perm=[0, 1]),
            op("Transpose", [tensor("x", (2, 2))], (2, 2), perm=[1, 0]),
        ),
        (op("Relu", [tensor("x", (2, 3))], (2, 3)), op("Relu", [tensor("x", (3, 2))], (3, 2))),
        (
            op("Add", [tensor("x", (2, 1)), tensor("y", (2, 3))], (2, 3)),
            op("Add", [tensor("x", (2, 3)), tensor("y", (2, 1))], (2, 3)),
        ),
        (
            op("Gather", [tensor("x", (4, 3)), index("i", 0, 1)], (2, 3)),
            op("Gather", [tensor("x", (4, 3)), index("i", 1, 0)], (2, 3)),
        ),
        (
            op("Softmax", [tensor("x", (2, 3, 4))], (2, 3, 4), 12, axis=1),
            op("Softmax", [tensor("x", (2, 3, 4))], (2, 3, 4), 13, axis=1),
        ),
        (
            op("Gemm", [tensor("x", (2, 2)), tensor("w", (2, 2))], (2, 2)),
            op("Gemm", [tensor("x", (2, 2)), tensor("w", (2, 2)), None], (2, 2)),
        ),
        (op("Relu", [tensor("x", (2, 3))], (2, 3)), op("Identity", [tensor("x", (2, 3))], (2, 3))),
    ],
)
def test_operators_that_a_rule_could_tell_apart_are_not_alike(one: Op, two: Op) -> None:
    assert key(one) != key(two)


def test_integers_that_vary_at_run_time_are_told_from_those_that_do_not() -> None:
    array = np.array([0, 1], dtype=np.int64)
    varying = Value("i", (2,), array.dtype, (False,), integers=Integers(array, np.ones(2, bool)))
    source = tensor("x", (4, 3))
    assert key(op("Gather", [source, index("i", 0, 1)], (2, 3))) != key(op("Gather", [source, varying], (2, 3)))


def chain(*types: str) -> Graph:
    value = source = tensor("x", (2, 3))
    ops = []
    for number, type_ in enumerate(types):
        made = tensor(f"t{number}", (2, 3))
        ops.append(Op(f"n{number}", type_, "", 18, (value,), (made,)))
        made.producer, value = ops[-1], made
    return Graph("chain", tuple(ops), {}, (source,), (value,))


def asked(rule: Rule) -> int:
    """How often a chain of five operators asks a rule."""
    calls = []

    def describe(op: Op) -> Spec:
        calls.append(op.name)
        return rule.describe(op)

    counted = ByShapes(describe) if isinstance(rule.describe, ByShapes) else describe
    with Override("Relu", Rule(counted, rule.transfer)):
        InferDims().run(State(chain(*["Relu"] * 5)))
    return len(calls)


def test_a_rule_line_is_asked_once_for_operators_that_are_alike() -> None:
    assert asked(line("a b -> a b", transfer=registered()["Relu"].transfer)) == 1


def test_a_rule_that_promises_nothing_is_asked_every_time() -> None:
    promised = line("a b -> a b", transfer=registered()["Relu"].transfer)
    assert asked(Rule(lambda op: promised.describe(op), promised.transfer)) == 5


def test_operators_that_share_a_program_have_dims_of_their_own() -> None:
    first, second = tensor("x", (2, 3)), tensor("y", (2, 3))
    results = tensor("p", (2, 3)), tensor("q", (2, 3))
    ops = tuple(
        Op(f"n{number}", "Relu", "", 18, (source,), (result,))
        for number, (source, result) in enumerate(zip((first, second), results, strict=True))
    )
    state = State(Graph("two", ops, {}, (first, second), results))
    InferDims().run(state)
    assert state.bound[ops[0]].program is state.bound[ops[1]].program
    assert state.axes[results[0]] == state.axes[first]
    assert state.axes[results[1]] == state.axes[second]
    assert not set(state.axes[first]) & set(state.axes[second])

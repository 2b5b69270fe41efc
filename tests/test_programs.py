"""One answer of a rule serves operators that are alike in all that the rule may look at, and no others."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ozgraph.errors import RuleError
from ozgraph.graph import Graph, Integers, Op, Value
from ozgraph.passes.infer_dims import InferDims
from ozgraph.passes.sharing import Programs
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


def alike(one: Op, two: Op) -> bool:
    """Whether two operators share a program."""
    programs = Programs()
    return programs.of(one, registered()[one.type]) is programs.of(two, registered()[two.type])


def conv(channels: int, size: int, kernel: int, name: str = "x") -> Op:
    operands: list[Value | None] = [
        tensor(name, (1, channels, size, size)),
        tensor("w", (2 * channels, channels, kernel, kernel)),
        None,
    ]
    return op("Conv", operands, (1, 2 * channels, size - kernel + 1, size - kernel + 1), strides=[1, 1])


def test_operators_that_differ_in_names_alone_are_alike() -> None:
    assert alike(conv(4, 8, 3), conv(4, 8, 3, "p"))


def test_operators_of_other_sizes_are_alike_where_the_rule_is_a_line() -> None:
    assert alike(conv(4, 8, 3), conv(6, 9, 5))


def test_operators_are_not_alike_where_other_sizes_are_one() -> None:
    assert not alike(conv(4, 8, 3), conv(4, 8, 1))


def test_operators_are_not_alike_where_other_sizes_are_none() -> None:
    def relu(size: int) -> Op:
        return Op(f"relu{size}", "Relu", "", 14, (tensor("x", (2, size)),), (tensor("y", (2, size)),), {})

    assert alike(relu(4), relu(5))
    assert not alike(relu(4), relu(0))


X, Y = tensor("x", (2, 2)), tensor("y", (2, 2))


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (op("Transpose", [X], (2, 2), perm=[0, 1]), op("Transpose", [X], (2, 2), perm=[1, 0])),
        (op("Gather", [X, index("i", 0, 1)], (2, 2)), op("Gather", [X, index("i", 1, 0)], (2, 2))),
        (op("Softmax", [X], (2, 2), 12, axis=0), op("Softmax", [X], (2, 2), 13, axis=0)),
        (op("Gemm", [X, Y], (2, 2)), op("Gemm", [X, Y, None], (2, 2))),
        (op("Relu", [X], (2, 2)), op("Identity", [X], (2, 2))),
        (op("Reshape", [tensor("a", (4, 3)), None], (12,)), op("Reshape", [tensor("b", (3, 4)), None], (12,))),
        (
            op("Concat", [X, tensor("a", (3, 2))], (5, 2), axis=0),
            op("Concat", [X, tensor("b", (4, 2))], (6, 2), axis=0),
        ),
    ],
)
def test_operators_that_a_rule_could_tell_apart_are_not_alike(one: Op, two: Op) -> None:
    assert not alike(one, two)


def test_integers_that_vary_at_run_time_are_told_from_those_that_do_not() -> None:
    array = np.array([0, 1], dtype=np.int64)
    varying = Value("i", (2,), array.dtype, (False,), integers=Integers(array, np.ones(2, bool)))
    assert not alike(op("Gather", [X, index("i", 0, 1)], (2, 2)), op("Gather", [X, varying], (2, 2)))


def test_an_attribute_that_is_no_plain_value_makes_an_operator_unlike_all_others() -> None:
    fill = np.zeros(1, np.float32)
    one, two = (op("Relu", [X], (2, 2), value=fill) for _ in range(2))
    assert not alike(one, two)


def test_an_operand_without_positions_where_others_have_some_contradicts_the_rule() -> None:
    """As declared shapes may: some writers put zero where they do not know."""
    added = Op("add", "Add", "", 14, (tensor("x", (2, 7)), tensor("z", (2, 0))), (tensor("y", (2, 7)),), {})
    with pytest.raises(RuleError):
        Programs().of(added, registered()["Add"])


def test_a_program_does_not_fit_operators_whose_sizes_contradict_the_rule() -> None:
    good = op("Add", [tensor("a", (3,)), tensor("b", (3,))], (3,))
    results, operands = (
        op("Add", [tensor("a", (3,)), tensor("b", (3,))], (4,)),
        op("Add", [tensor("a", (3,)), tensor("b", (4,))], (3,)),
    )
    for wrong in (results, operands):
        ops = (good, wrong)
        inputs = tuple(value for made in ops for value in made.inputs if value is not None)
        state = State(Graph("misfit", ops, {}, inputs, ()))
        InferDims().run(state)
        assert set(state.bound) == {good}
        left = wrong.inputs[0]
        assert left is not None
        assert not (state.dims.ids(state.axes[left][0]) >= 0).any(), "what the rule does not fit is frozen"


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


def test_operators_with_bodies_are_never_alike() -> None:
    one, two = (
        Op(f"n{number}", "Identity", "", 18, (X,), (tensor("y", (2, 2)),), {"body": "<graph>"}, (Y,))
        for number in range(2)
    )
    assert not alike(one, two)

"""Run one operator on constants, through onnx's own reference implementation, or torch for ATen."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np

from ozgraph.graph import Array
from ozgraph.rules.lattice import Slots

if TYPE_CHECKING:
    from ozgraph.graph import Op


def evaluate(op: Op, states: Sequence[Slots], result: int) -> Array | None:
    """Result ``result`` of an elementwise operator on 1-D constants.

    Operands are cast to their own dtypes first, so that rounding is the model's. None where it cannot be evaluated.
    """
    call = _CALLS.get(op)
    if call is None:
        call = _CALLS[op] = _Call(op)
    length = max(state.size for state in states)
    columns = list(zip(*(_numbers(state) * (length if state.size == 1 else 1) for state in states), strict=True))
    distinct = set(columns)
    if len(distinct) > _FEW:
        return _run(call, states, result)
    known = {column: _scalar(call, column, result) for column in distinct}
    return None if None in known.values() else np.array([known[column] for column in columns], dtype=np.float64)


def _numbers(state: Slots) -> list[float | None]:
    # NaN is not equal to itself and would never be found again.
    return [None if number != number else number for number in state.tolist()]


_FEW = 4
"""So many different slots are looked up one by one: mostly they are zero, one, or unknown, and seen before."""


class _Call:
    """An operator application as a cache key: everything but its operands' data."""

    __slots__ = ("attributes", "domain", "dtypes", "hash", "key", "made", "results", "scalars", "type", "version")

    def __init__(self, op: Op) -> None:
        # Not the operator itself: the caches below must not keep a graph and its weights alive.
        self.type, self.domain, self.version = op.type, op.domain, op.version
        self.attributes = dict(op.attributes)
        self.results = len(op.outputs)
        self.dtypes = tuple(None if value is None else value.dtype for value in op.inputs)
        self.scalars = tuple(value is not None and value.shape == () for value in op.inputs)
        self.made = None if op.outputs[0] is None else op.outputs[0].dtype
        # Attributes are plain values; their repr tells them apart.
        attributes = tuple(sorted((name, repr(value)) for name, value in op.attributes.items()))
        self.key = (op.domain, op.type, op.version, self.dtypes, self.scalars, self.made, attributes)
        self.hash = hash(self.key)

    def __hash__(self) -> int:
        return self.hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Call) and self.key == other.key


_CALLS: WeakKeyDictionary[Op, _Call] = WeakKeyDictionary()


@lru_cache(maxsize=65536)
def _scalar(call: _Call, operands: tuple[float | None, ...], result: int) -> float | None:
    outcome = _run(call, [np.array([np.nan if number is None else number]) for number in operands], result)
    return None if outcome is None else float(outcome[0])


def _run(call: _Call, states: Sequence[Slots], result: int) -> Array | None:
    length = max(state.size for state in states)
    feeds: dict[str, Any] = {}
    for index, (state, dtype) in enumerate(zip(states, call.dtypes, strict=True)):
        if dtype is not None:
            with np.errstate(invalid="ignore", over="ignore"):
                # NaN stands for Unknown; the caller masks those results, so any number may stand in for it.
                feeds[f"x{index}"] = np.nan_to_num(np.broadcast_to(state, (length,)), nan=1.0).astype(dtype)
    evaluator = _evaluator(call)
    if evaluator is None:
        return None
    try:
        with np.errstate(all="ignore"):
            outcome = evaluator.run(None, feeds)[result]
        return np.broadcast_to(np.asarray(outcome, dtype=np.float64), (length,))
    except Exception:  # the reference implementation is not ours: whatever it cannot do is simply not known
        return None


@lru_cache(maxsize=1024)
def _evaluator(call: _Call) -> Any:
    if call.domain == "aten":
        from ozgraph.rules.aten.evaluate import Evaluator

        try:
            return Evaluator(call.type, call.attributes, call.dtypes, call.scalars, call.made)
        except AttributeError:  # an operator that this torch does not have
            return None
    from onnx import helper
    from onnx.reference import ReferenceEvaluator

    if call.domain not in ("", "ai.onnx"):
        return None
    names = [f"x{i}" if dtype is not None else "" for i, dtype in enumerate(call.dtypes)]
    try:
        node = helper.make_node(call.type, names, [f"y{i}" for i in range(call.results)], **call.attributes)
        return ReferenceEvaluator(_model(node, call.version, call))
    except Exception:  # as above
        return None


def _model(node: Any, version: int, call: _Call) -> Any:
    from onnx import helper

    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(dtype), [None])
        for name, dtype in zip(node.input, call.dtypes, strict=True)
        if name and dtype is not None
    ]
    outputs = [helper.make_empty_tensor_value_info(name) for name in node.output]
    graph = helper.make_graph([node], "one", inputs, outputs)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", version)])

"""Give every axis its dim: apply each operator's rule, unify what it ties, note where slots are combined."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ozgraph.collector import collector_paused
from ozgraph.dims import ONE, Dim, Reason, Take, prod_of, sum_of
from ozgraph.errors import RuleError
from ozgraph.graph import Op, Value
from ozgraph.passes.bound import Bound
from ozgraph.passes.manager import Pass
from ozgraph.passes.program import Fresh, Program, Taken
from ozgraph.passes.sharing import Programs
from ozgraph.passes.state import State
from ozgraph.passes.tables import reads_apart
from ozgraph.passes.takes import dims_apart, settle_takes
from ozgraph.rules.rule import Rule
from ozgraph.rules.table import find_rule, freezing_reason

_DYNAMIC = Reason("its size varies at run time")


@dataclass(frozen=True)
class InferDims(Pass):
    """Solve the dims of all axes.

    1. Graph inputs and constants get a fresh atom an axis; axes of size one get none.
    2. Every operator with a rule ties the axes of its operands and gives its results theirs.
    3. An operator without a rule, or whose rule cannot speak, freezes every axis it touches, with the reason.
    4. Equations that do not align symbolically are retried, then solved slot by slot.
    5. Values that only scale data do not tie what they scale: their uses have dims of their own where these differ.
    """

    name: ClassVar[str] = "infer_dims"
    requires: ClassVar[frozenset[str]] = frozenset({"normalized"})
    ensures: ClassVar[frozenset[str]] = frozenset({"dims"})

    @collector_paused()
    def run(self, state: State) -> bool:
        """Fill ``state.axes``, ``state.takes`` and ``state.bound``."""
        programs = Programs()
        state.takes = dict.fromkeys(reads_apart(state.graph, programs), ())
        for value in state.graph.inputs:
            _axes(state, value)
        for op in state.graph.ops:
            if _is_shape_arithmetic(op):
                continue
            rule = find_rule(op)
            if rule is None:
                reason = freezing_reason(op)
                if reason is None:
                    state.unknown[op.operator] += 1
                    reason = "the operator is not known"
                _freeze_all(state, op, reason)
                continue
            try:
                _apply(state, op, rule, programs.of(op, rule))
            except RuleError as error:
                _freeze_all(state, op, str(error).removeprefix(f"{op.operator} {op.name!r}: "))
        state.dims.settle()
        settle_takes(state)
        return True


def _is_shape_arithmetic(op: Op) -> bool:
    """Whether all results are numbers known at analysis: sizes, bounds and indexes, not data."""
    return not any(value is not None and (value.integers is None or _is_filled(value)) for value in op.outputs)


def _is_filled(value: Value) -> bool:
    """Whether known numbers are data all the same: a state of zeros, expanded to sizes computed at run time."""
    return value.is_float and value.rank is not None and value.rank > 1


def _axes(state: State, value: Value) -> tuple[Dim, ...]:
    """The dims of a value, fresh atoms where nothing made them."""
    known = state.axes.get(value)
    if known is None:
        known = state.axes[value] = tuple([state.dims.atom(size) if size else ONE for size in value.shape or ()])
        if value.producer is not None:
            # Shape arithmetic that reaches an operator with data: its axes are nobody's to shrink.
            for dim in known:
                state.dims.freeze(dim, Reason("it holds sizes or indexes"))
    return known


def _freeze_all(state: State, op: Op, reason: str) -> None:
    why = Reason(reason, op.operator, op.name)
    for value in (*op.inputs, *op.captures):
        if value is not None and value.shape is not None:
            for dim in _axes(state, value):
                state.dims.freeze(dim, why)
    for value in op.outputs:
        if value is not None and value not in state.axes:
            state.axes[value] = tuple([state.dims.atom(size) if size else ONE for size in value.shape or ()])
            for dim in state.axes[value]:
                state.dims.freeze(dim, why)


def _apply(state: State, op: Op, rule: Rule, program: Program) -> None:
    """Carry a program out."""
    solver = state.dims
    dims: list[Dim] = [ONE]
    for position, value in enumerate(op.inputs):
        if value is not None:
            own = _axes(state, value)
            if state.takes and (op, position) in state.takes:
                own = state.takes[op, position] = dims_apart(state, value, own)
            dims += own
    for step in program.steps:
        if isinstance(step, int):
            dims.append(solver.atom(step))
        elif isinstance(step, Fresh):
            dims.append(solver.atom(step.size(op)))
        elif isinstance(step, Taken):
            dims.append(Take(dims[step.source], step.index))
        else:
            parts = [dims[number] for number in step.parts]
            dims.append(prod_of(parts) if step.product else sum_of(parts))
    results = [None if picks is None else picks(dims) for picks in program.results]
    if program.scales:
        for value, made in zip(op.outputs, results, strict=True):
            if value is not None and made is not None and tuple([dim.size for dim in made]) != value.shape:
                raise RuleError("the rule does not fit the shapes that the model declares")
    for number, index in program.lone:
        # The only position that is read has to stay.
        solver.freeze(dims[number], Reason("it is the only one read", op.operator, op.name), index)
    for left, right in program.ties:
        solver.equate(dims[left], dims[right], op)
    for value, made in zip(op.outputs, results, strict=True):
        if value is not None and made is not None:
            state.axes[value] = made
    state.bound[op] = Bound(op, rule, program, dims)
    for text, numbers in program.frozen:
        why = Reason(text, op.operator, op.name)
        for number in numbers:
            solver.freeze(dims[number], why)


def dynamic_reason() -> Reason:
    """Why axes of varying size freeze."""
    return _DYNAMIC

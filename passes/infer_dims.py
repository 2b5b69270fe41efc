"""Give every axis its dim: apply each operator's rule, unify what it ties, note where slots are combined."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ozgraph.collector import collector_paused
from ozgraph.dims import ONE, Dim, Reason, Take, prod_of, sum_of
from ozgraph.errors import RuleError
from ozgraph.graph import Op, Value
from ozgraph.passes.bound import Bound, Layout, Site, described, letter_names
from ozgraph.passes.manager import Pass
from ozgraph.passes.state import State
from ozgraph.passes.tables import reads_apart
from ozgraph.passes.takes import dims_apart, settle_takes
from ozgraph.rules.notation import Axis, Concat, Letter, One, Product
from ozgraph.rules.rule import Reduction, Rule, Spec
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
        state.takes = dict.fromkeys(reads_apart(state.graph), ())
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
                _apply(state, op, rule)
            except RuleError as error:
                _freeze_all(state, op, str(error).removeprefix(f"{op.operator} {op.name!r}: "))
        state.dims.settle()
        settle_takes(state)
        return True


def _is_shape_arithmetic(op: Op) -> bool:
    """Whether all results are numbers known at analysis: sizes, bounds and indexes, not data."""
    return all(value is None or (value.integers is not None and not _is_filled(value)) for value in op.outputs)


def _is_filled(value: Value) -> bool:
    """Whether known numbers are data all the same: a state of zeros, expanded to sizes computed at run time."""
    return value.is_float and value.rank is not None and value.rank > 1


def _axes(state: State, value: Value) -> tuple[Dim, ...]:
    """The dims of a value, fresh atoms where nothing made them."""
    known = state.axes.get(value)
    if known is None:
        known = state.axes[value] = tuple(state.dims.atom(size) if size else ONE for size in value.shape or ())
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
            state.axes[value] = tuple(state.dims.atom(size) if size else ONE for size in value.shape or ())
            for dim in state.axes[value]:
                state.dims.freeze(dim, why)


def _apply(state: State, op: Op, rule: Rule) -> None:
    spec = described(op, rule)
    for value, axes in zip((*op.inputs, *op.outputs), (*spec.operands, *spec.results), strict=True):
        # An operand without elements stands for one that is left out, where the rule says nothing of it.
        if value is not None and (value.shape is None or (0 in value.shape and axes is not None)):
            raise RuleError("the shape of an operand is not known before running")
    if any(
        axes is None and value is not None and value.rank for value, axes in zip(op.outputs, spec.results, strict=True)
    ):
        # What its axes share with the others is not known, so nothing here may shrink.
        raise RuleError("its rule says nothing of one of its results")
    extents = _extents(op, spec)
    env: dict[str, Dim] = {}
    frozen: list[Dim] = []

    def dim_of(axis: Axis) -> Dim:
        if isinstance(axis, Letter):
            return env.get(axis.name) or letter(axis.name)
        if isinstance(axis, Product):
            return prod_of([letter(name) for name in axis.factors])
        if isinstance(axis, Concat):
            return sum_of([dim_of(part) for part in axis.parts])
        return ONE

    def letter(name: str) -> Dim:
        known = env.get(name)
        if known is None:
            if name in spec.takes:
                source, index = spec.takes[name]
                known = Take(letter(source), index) if extents[name] > 1 else ONE
                if known is ONE:
                    # The only position that is read has to stay.
                    state.dims.freeze(letter(source), Reason("it is the only one read", op.operator, op.name), index)
            else:
                known = state.dims.atom(extents[name])
            env[name] = known
        return known

    ties: list[tuple[Dim, Dim]] = []
    for position, (value, axes) in enumerate(zip(op.inputs, spec.operands, strict=True)):
        if value is None:
            continue
        dims = _axes(state, value)
        if (op, position) in state.takes:
            dims = state.takes[op, position] = dims_apart(state, value, dims)
        if axes is None:
            frozen.extend(dims)
            continue
        for dim, axis in zip(dims, axes, strict=True):
            if isinstance(axis, Letter):
                if dim.size == 1:
                    continue  # one position serves all: a broadcast, or the axis is of size one everywhere
                if axis.name in env:
                    ties.append((env[axis.name], dim))
                elif axis.name not in spec.takes:
                    env[axis.name] = dim
            elif isinstance(axis, (Product, Concat)):
                # Broadcast of a product or concatenation as a whole.
                if dim.size > 1:
                    ties.append((dim, dim_of(axis)))
            elif not isinstance(axis, One):
                frozen.append(dim)
            elif dim.size != 1:
                raise RuleError(f"an axis of size one has {dim.size} positions")
    for name in extents:
        if name not in env:
            letter(name)
    results = [
        None if axes is None or value is None else tuple(dim_of(axis) for axis in axes)
        for value, axes in zip(op.outputs, spec.results, strict=True)
    ]
    for value, dims_ in zip(op.outputs, results, strict=True):
        if dims_ is not None and value is not None and tuple(dim.size for dim in dims_) != value.shape:
            raise RuleError("the rule does not fit the shapes that the model declares")
    for left, right in ties:
        state.dims.equate(left, right, op)
    for a, b in spec.ties:
        state.dims.equate(dim_of(a), dim_of(b), op)
    for value, dims_ in zip(op.outputs, results, strict=True):
        if value is None:
            continue
        if dims_ is None:
            dims_ = tuple(state.dims.atom(size) for size in value.shape or ())
            frozen.extend(dims_)
        state.axes[value] = dims_
    bound = Bound(op, rule, spec, env)
    layout = bound.layout
    bound.sites = _sites(bound, layout)
    state.bound[op] = bound
    _freeze_unsaid(state, bound, layout, frozen)


def _extents(op: Op, spec: Spec) -> dict[str, int]:
    """The size of every letter.

    Raises:
        RuleError: the shapes leave a letter undetermined or contradict the rule.
    """
    extents = dict(spec.sizes)
    products: list[tuple[Product, int]] = []
    for tensors, values in ((spec.operands, op.inputs), (spec.results, op.outputs)):
        for axes, value in zip(tensors, values, strict=True):
            if axes is None or value is None or value.shape is None:
                continue
            if len(axes) != len(value.shape):
                raise RuleError(f"{value.name!r} has {len(value.shape)} axes, not {len(axes)}")
            for axis, size in zip(axes, value.shape, strict=True):
                if isinstance(axis, Letter):
                    if size > extents.get(axis.name, 0):
                        extents[axis.name] = size
                elif isinstance(axis, Product):
                    products.append((axis, size))
    for _ in range(2):  # a product may need a letter that a later product determines
        for product, size in products:
            unknown = [name for name in product.factors if name not in extents]
            if len(unknown) == 1:
                known = 1
                for name in product.factors:
                    known *= extents.get(name, 1)
                if not known or size % known:
                    raise RuleError(f"{size} positions do not divide into groups of {known}")
                extents[unknown[0]] = size // known
    for product, _ in products:
        if any(name not in extents for name in product.factors):
            raise RuleError("the rule leaves a size open")
    for name, (_, index) in spec.takes.items():
        extents[name] = len(index)
    return extents


def _sites(bound: Bound, layout: Layout) -> tuple[Site, ...]:
    """Letters that are contracted (in several operands and no result) or that the rule names as reduced."""
    spec = bound.spec
    found = dict.fromkeys(layout.contracted, Reduction.SUM)
    found |= {name: reduction for name, reduction in spec.reduced.items() if name in layout.operands}
    sites = []
    for name, reduction in found.items():
        dim = bound.env[name]
        if reduction is not Reduction.UNREAD and dim is not ONE:
            results = tuple(
                place
                for tied in (_tied(spec, name) if name in spec.recurrent else ())
                for place in layout.results.get(tied, ())
                if place[0] in spec.recurrent[name]
            )
            sites.append(Site(bound.op, name, dim, reduction, layout.operands[name], results))
    return tuple(sites)


def _tied(spec: Spec, name: str) -> set[str]:
    """The letters that a plain tie makes the same as ``name``."""
    tied = {name}
    for left, right in spec.ties:
        if isinstance(left, Letter) and isinstance(right, Letter):
            if left.name == name:
                tied.add(right.name)
            elif right.name == name:
                tied.add(left.name)
    return tied


def _freeze_unsaid(state: State, bound: Bound, layout: Layout, frozen: list[Dim]) -> None:
    """Deny by default: whatever the rule does not carry, contract or name freezes."""
    op, spec = bound.op, bound.spec
    for dim in frozen:
        state.dims.freeze(dim, Reason("the operator's rule says nothing of this axis", op.operator, op.name))
    why = dict.fromkeys(layout.unsaid, "the operator looks along it (a window, a lookup or an order)")
    for left, right in spec.ties:
        for name in (*letter_names(left), *letter_names(right)):
            why.pop(name, None)
    for name, (source, _) in spec.takes.items():
        why.pop(name, None)
        why.pop(source, None)
    for name, reduction in spec.reduced.items():
        why.pop(name, None)
        if reduction is Reduction.ORDER:
            why[name] = "the number and order of its slots matter to the operator"
    why |= spec.frozen
    if why:
        for name, dim in bound.env.items():
            if name in why and dim is not ONE:
                state.dims.freeze(dim, Reason(why[name], op.operator, op.name))


def dynamic_reason() -> Reason:
    """Why axes of varying size freeze."""
    return _DYNAMIC

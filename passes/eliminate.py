"""Turn the slots that go into a plan: weights to slice, attributes and shape constants re-derived from dims."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ozgraph.dims import Atom, Dim
from ozgraph.errors import PassError
from ozgraph.graph import Array, Op, Value
from ozgraph.passes.bound import Bound
from ozgraph.passes.fold import folding_operand
from ozgraph.passes.hold import give_back
from ozgraph.passes.manager import Pass
from ozgraph.passes.normalize import reads_size
from ozgraph.passes.prove_dead import ProveDead, Scan, zeroing
from ozgraph.passes.prover import Prover
from ozgraph.passes.state import Mask, State
from ozgraph.plan import NewOp, Plan, Zeroing

_OPSET = 17
"""What new operators are written in where the model has none of the default domain."""


@dataclass(frozen=True)
class Eliminate(Pass):
    """Describe the smaller model.

    1. Every weight axis keeps the positions all of whose slots stay.
    2. Constants that dead slots still carry fold into the bias of what consumes them.
    3. Every operator's own rule re-derives its attributes and shape operands from the dims.
    4. Sizes that the model reads as numbers stay the original numbers.
    """

    name: ClassVar[str] = "eliminate"
    requires: ClassVar[frozenset[str]] = frozenset({"certified", "dead"})
    ensures: ClassVar[frozenset[str]] = frozenset({"plan"})

    def run(self, state: State) -> bool:
        """Fill ``state.plan``; families whose rules cannot rewrite an operator are given back, on record."""
        while True:
            try:
                state.plan = _planned(state)
                return bool(state.removed)
            except _RewriteError as error:
                for atom in error.atoms:
                    give_back(state, atom, str(error))
                ProveDead().run(state)

    def check(self, state: State) -> None:
        """No axis is left without positions, and frozen slots are all there."""
        for value, shape in state.plan.shapes.items():
            if any(not left and size for left, size in zip(shape, value.shape or (), strict=True)):
                raise PassError(f"elimination left an axis of {value.name!r} without positions: {shape}")
        for op, position in state.plan.takes:
            if op in state.plan.replacements:
                raise PassError(f"{op!r} takes a part of operand {position} and is replaced, which would read it whole")


class _RewriteError(PassError):
    """A rule failed to rewrite an operator. ``atoms``: what shrinks on its axes; never empty."""

    def __init__(self, message: str, atoms: Sequence[Atom]) -> None:
        super().__init__(message)
        self.atoms = atoms


def _planned(state: State) -> Plan:
    """The plan for ``state.removed``."""
    plan = Plan()
    if not state.removed:
        return plan
    masks = _Masks(state)
    for value, axes in state.axes.items():
        kept = [masks.axis(value, axis) for axis in range(len(axes))]
        if all(mask is None for mask in kept):
            continue
        sizes = value.shape or ()
        shape = tuple(size if mask is None else int(mask.sum()) for size, mask in zip(sizes, kept, strict=True))
        plan.shapes[value] = shape
        if value.constant is not None:
            for axis, mask in enumerate(kept):
                if mask is not None:
                    plan.keep[value, axis] = np.flatnonzero(mask)
    _take_apart(state, plan, masks)
    for op in state.graph.ops:
        bound = state.bound.get(op)
        if bound is None:
            _keep_numbers(op, plan)
        elif bound.rule.rewrite is not None and any(value in plan.shapes for value in (*op.inputs, *op.outputs)):
            _rewrite(bound, state, plan, masks)
    _fold_constants(state, plan, masks)
    return plan


def _take_apart(state: State, plan: Plan, masks: _Masks) -> None:
    """Uses of values that stay whole take the positions that the other operands keep."""
    for (op, position), dims in state.takes.items():
        value = op.inputs[position]
        assert value is not None
        cuts = tuple(
            (axis, np.flatnonzero(mask))
            for axis, (dim, own) in enumerate(zip(dims, state.axes[value], strict=True))
            if dim is not own and (mask := masks.dim(dim)) is not None
        )
        if cuts:
            plan.takes[op, position] = cuts


def _rewrite(bound: Bound, state: State, plan: Plan, masks: _Masks) -> None:
    op = bound.op
    assert bound.rule.rewrite is not None
    try:
        bound.rule.rewrite(_Edit(bound, state, plan, masks))
    except Exception as error:  # a rule may be anybody's
        message = f"the rule of {op.operator} cannot rewrite {op.name!r}: {error!r}"
        shrinking = {
            atom: None
            for value in (*op.inputs, *op.outputs)
            if value is not None and value in state.axes
            for axis in range(len(state.axes[value]))
            for atom in state.atoms(value, axis)
            if state.removed.count(atom)
        }
        raise _RewriteError(message, list(shrinking)) from error


class _Masks:
    """Kept positions, computed once a dim; None where all stay."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._known: dict[int, Mask | None] = {}

    def dim(self, dim: Any) -> Mask | None:
        if id(dim) not in self._known:
            mask = None
            if self._state.atoms_of(dim):
                kept = self._state.removed.keep(self._state.dims.ids(dim))
                mask = None if kept.all() else kept
            self._known[id(dim)] = mask
        return self._known[id(dim)]

    def axis(self, value: Value, axis: int) -> Mask | None:
        dims = self._state.axes.get(value)
        return None if dims is None else self.dim(dims[axis])


def kept_positions(state: State) -> Callable[[Value], tuple[Array | None, ...] | None]:
    """A function from a value to the positions that elimination keeps on each axis (None: all of them)."""
    masks = _Masks(state)

    def kept(value: Value) -> tuple[Array | None, ...] | None:
        dims = state.axes.get(value)
        if dims is None:
            return None
        found = [masks.dim(dim) for dim in dims]
        return tuple(None if mask is None else np.flatnonzero(mask) for mask in found)

    return kept


class _Edit:
    """What a rule's rewrite sees of one operator; see :class:`ozgraph.rules.rule.Edit`."""

    def __init__(self, bound: Bound, state: State, plan: Plan, masks: _Masks) -> None:
        self._bound = bound
        self._state = state
        self._plan = plan
        self._masks = masks

    @property
    def op(self) -> Op:
        return self._bound.op

    @property
    def opset(self) -> int:
        versions = (op.version for op in self._state.graph.ops if op.domain in ("", "ai.onnx"))
        return next(versions, _OPSET)

    def kept(self, letter: str) -> Mask:
        dim = self._bound.dim(letter)
        mask = self._masks.dim(dim)
        return np.ones(dim.size, dtype=bool) if mask is None else mask

    def kept_axis(self, value: Value, axis: int) -> Mask:
        taken = self._taken(value)
        mask = self._masks.axis(value, axis) if taken is None else self._masks.dim(taken[axis])
        return np.ones((value.shape or ())[axis], dtype=bool) if mask is None else mask

    def shape(self, value: Value) -> tuple[int, ...]:
        if self._taken(value) is None:
            return self._plan.shapes.get(value, value.shape or ())
        return tuple(int(self.kept_axis(value, axis).sum()) for axis in range(value.rank))

    def _taken(self, value: Value) -> tuple[Dim, ...] | None:
        """The dims that this operator reads of a value that stays whole."""
        positions = [position for position, operand in enumerate(self.op.inputs) if operand is value]
        found = (self._state.takes.get((self.op, position)) for position in positions)
        return next((dims for dims in found if dims is not None), None)

    def constant(self, position: int) -> Array | None:
        value = self.op.input(position)
        if value is None or value.constant is None:
            return None
        array = value.constant.numpy()
        for axis in range(array.ndim):
            indices = self._plan.keep.get((value, axis))
            if indices is not None:
                array = np.take(array, indices, axis=axis)
        for axis, indices in self._plan.takes.get((self.op, position), ()):
            array = np.take(array, indices, axis=axis)
        return array

    def set_attribute(self, name: str, value: Any) -> None:
        if value != self.op.attributes.get(name):
            self._plan.rewrite(self.op).attributes[name] = value

    def set_constant(self, position: int, array: Array) -> None:
        self._plan.rewrite(self.op).constants[position] = array

    def set_sizes(self, position: int, elements: Sequence[int | None]) -> None:
        self._plan.rewrite(self.op).sizes[position] = tuple(elements)

    def replace(self, *ops: NewOp) -> None:
        self._plan.replacements[self.op] = ops

    def rename(self, hint: str) -> str:
        return f"{self.op.name}/{hint}"


def _keep_numbers(op: Op, plan: Plan) -> None:
    """A size of a shrunken value stays the number it was; sizes that vary at run time are still read."""
    source, result = op.input(0), op.outputs[0]
    if not reads_size(op) or source is None or result is None or source not in plan.shapes:
        return
    known = result.integers
    if known is None:
        raise PassError(f"{op!r} reads a size of {source.name!r}, which shrinks, and the number is not known")
    elements = known.elements.astype(np.int64)
    if known.static:
        plan.replacements[op] = (NewOp("Identity", (elements,), (result.name,)),)
        return
    if op.type == "Size":
        raise PassError(f"{op!r} reads the size of {source.name!r}, which varies at run time and shrinks")
    read = f"{op.name}/sizes"
    flags = np.asarray(known.dynamic)
    plan.replacements[op] = (
        NewOp("Shape", (source.name,), (read,), op.attributes),
        NewOp("Where", (flags, read, elements), (result.name,)),
    )


def _fold_constants(state: State, plan: Plan, masks: _Masks) -> None:
    """Add what dead but constant slots contributed to the bias of the operator that contracted them."""
    places = [
        (bound, site, operand)
        for bound in state.bound.values()
        for site in bound.sites
        if masks.dim(site.dim) is not None and (operand := folding_operand(site, state)) is not None
    ]
    if not places:
        return
    prover = Prover(state, Scan(state, state.removed, state.folded))
    members = zeroing(state)
    for bound, site, (data, axis) in places:
        table = state.dims.ids(state.axes[data][axis])
        constants = np.zeros(len(table))
        for atom in state.atoms_of(site.dim):
            known = np.broadcast_to(prover.at(data, axis, atom), (atom.size,))
            carried = np.nan_to_num(known) * state.removed.mask(atom)
            for column in table.T:
                here = (column >= atom.base) & (column < atom.base + atom.size)
                found = carried[column[here] - atom.base]
                # A position that goes with slots of two atoms has one constant, not the sum of theirs.
                constants[here] = np.where(found != 0, found, constants[here])
        if constants.any():
            _fold(bound, constants, plan, masks, members)


def _fold(bound: Bound, constants: Array, plan: Plan, masks: _Masks, members: Zeroing) -> None:
    op, folding = bound.op, bound.rule.folds
    assert folding is not None
    weight, result = op.inputs[folding.weight], op.outputs[0]
    bias = None if folding.bias is None else op.input(folding.bias)
    assert weight is not None and weight.constant is not None and result is not None
    array = weight.constant.numpy().astype(np.float64)
    for number in range(array.ndim):
        if (weight, number) in members:
            # What the groups set to zero passes no constant on.
            np.moveaxis(array, number, 0)[members[weight, number]] = 0
    shift = folding.shift(op, constants, array)
    kept = masks.axis(result, folding.axis % result.rank)
    if kept is not None:
        shift = shift[kept]
    dtype = weight.dtype
    if folding.bias is None:
        part = f"{op.name}/product"
        names = tuple(value.name if value is not None else None for value in op.inputs)
        adding, domain = folding.add
        plan.replacements[op] = (
            NewOp(op.type, names, (part,), op.attributes, op.domain),
            NewOp(adding, (part, shift.astype(dtype)), (result.name,), domain=domain),
        )
        return
    rewrite = plan.rewrite(op)
    scale = float(op.attributes.get(folding.factor, 1.0)) if folding.factor else 1.0
    if bias is None or scale == 0.0:
        if scale != 1.0:
            rewrite.attributes[folding.factor] = 1.0
        rewrite.constants[folding.bias] = shift.astype(dtype)
        return
    assert bias.constant is not None
    old = bias.constant.numpy().astype(np.float64)
    for number in range(old.ndim):
        if (bias, number) in members:
            np.moveaxis(old, number, 0)[members[bias, number]] = 0
    for number in range(old.ndim):
        indices = plan.keep.get((bias, number))
        if indices is not None:
            old = np.take(old, indices, axis=number)
    rewrite.constants[folding.bias] = (old + shift / scale).astype(dtype)

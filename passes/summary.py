"""Turn what a pipeline found into the plain data that people and programs read."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ozgraph.graph import Op, Value
from ozgraph.passes.cost import CostModel
from ozgraph.passes.families import Family
from ozgraph.passes.promise import silenced
from ozgraph.passes.state import Removal, State
from ozgraph.results import (
    AnalysisReport,
    FamilyRow,
    FrozenRow,
    MemberRow,
    PruneReport,
    SignatureRow,
    WidthRow,
)

_UNSAID = ("it has no slots of its own: its size is one", "")


def analysis_report(state: State) -> AnalysisReport:
    """What analysis found."""
    cost = _cost(state)
    return AnalysisReport(
        model=state.graph.name,
        parameters=cost.parameters(),
        macs=cost.macs(),
        prunable_parameters=cost.parameters() - cost.parameters(_one_slot_each(state)),
        families=tuple(_family_row(state, family) for family in state.families),
        frozen=tuple(frozen_rows(state)),
        unknown_operators=dict(sorted(state.unknown.items())),
        timings=dict(state.timings),
    )


def prune_report(state: State, output: str | None) -> PruneReport:
    """What pruning or elimination did."""
    cost = _cost(state)
    verified = state.verification
    assert verified is not None
    return PruneReport(
        model=state.graph.name,
        parameters_before=cost.parameters(),
        parameters_after=cost.parameters(state.removed),
        macs_before=cost.macs(),
        macs_after=cost.macs(state.removed),
        removed_slots=state.removed.total,
        max_relative_error=verified.max_relative_error,
        noise_floor=verified.noise_floor,
        limit=verified.limit,
        frozen_by_verification=tuple(state.given_back),
        output=output,
        widths=tuple(_widths(state)),
        signature=tuple(_signature(state)),
        excluded=tuple(f"{family.dim}: {family.held}" for family in state.families if family.held is not None),
        notes=_notes(state),
        timings=dict(state.timings),
    )


def _notes(state: State) -> tuple[str, ...]:
    """What is odd about the model itself."""
    training = sorted(op.operator for op in state.graph.ops if _trains(op))
    if state.graph.dialect != "onnx" or not training:
        return ()
    kinds = " and ".join(dict.fromkeys(training))
    return (
        f"the file computes as in training ({kinds}, {len(training)} in all): it was exported in train mode, and "
        "so is what was written; call model.eval() before the export",
    )


def _trains(op: Op) -> bool:
    """Whether an operator does in training what it would not do when the model is used."""
    if op.operator == "BatchNormalization":
        return bool(op.attributes.get("training_mode", 0))
    mode = op.input(2) if op.operator == "Dropout" else None
    return mode is not None and mode.constant is not None and bool(mode.constant.numpy().any())


def _cost(state: State) -> CostModel:
    assert state.cost is not None
    return state.cost


def _family_row(state: State, family: Family) -> FamilyRow:
    parameters, macs = _cost(state).per_slot(family.atom)
    return FamilyRow(
        id=family.id,
        dim=family.dim,
        size=family.atom.size,
        free=int(state.dims.free_slots(family.atom).sum()),
        exactness=family.exactness,
        active=family.active and family.held is None,
        overlaps=tuple(other.id for other in family.overlaps),
        parameters_per_slot=parameters,
        macs_per_slot=macs,
        members=tuple(MemberRow(member.value.name, member.axis, member.role) for member in family.members),
        inactive=why_inactive(family),
        signature=tuple(
            value.name
            for value in _open_signature(state)
            if any(family.atom in state.atoms(value, axis) for axis in range(value.rank))
        ),
    )


def why_inactive(family: Family) -> str | None:
    """Why a default run leaves a family alone; None when it does not."""
    if family.held is not None:
        return family.held
    if family.active:
        return None
    if family.slow:
        return "a norm over it would be written decomposed; --rescale prunes it"
    return f"it shares a tensor axis with {', '.join(other.id for other in family.overlaps if other.active)}"


def _one_slot_each(state: State) -> Removal:
    """Every family cut to one slot, as far as its slots are free."""
    removal = Removal(state.dims.total)
    for family in state.families:
        gone = state.dims.free_slots(family.atom)
        if gone.all():
            gone[0] = False
        removal.add(family.atom, gone)
    return removal


def _open_signature(state: State) -> list[Value]:
    """The inputs and outputs that may shrink, in order."""
    values = dict.fromkeys((*state.graph.inputs, *state.graph.outputs)) if state.shrinkable else ()
    return [value for value in values if value in state.shrinkable]


def _signature(state: State) -> list[SignatureRow]:
    """Inputs and outputs whose shapes changed."""
    rows = []
    zeros = silenced(state) if state.shrinkable else {}
    for kind, values in (("input", state.graph.inputs), ("output", state.graph.outputs)):
        for value in values:
            after = state.plan.shapes.get(value)
            if after is not None and value.shape is not None:
                row = SignatureRow(kind, value.name, _sizes(value, value.shape), _sizes(value, after))
                rows.append(replace(row, zeros=kind == "input" and value.name in zeros))
    return rows


def _sizes(value: Value, shape: tuple[int, ...]) -> tuple[int | None, ...]:
    varies = value.dynamic or (False,) * len(shape)
    return tuple(None if dynamic else size for size, dynamic in zip(shape, varies, strict=True))


def _widths(state: State) -> list[WidthRow]:
    """Families that lost slots; dims without a family appear under the weight they are known by."""
    by_atom = {family.atom: family for family in state.families}
    rows = []
    for atom, places in state.weight_atoms.items():
        gone = state.removed.count(atom)
        if gone:
            family = by_atom.get(atom)
            name = family.dim if family is not None else places[0][0].name
            rows.append(WidthRow(family.id if family is not None else "", name, atom.size, atom.size - gone))
    return rows


def frozen_rows(state: State) -> list[FrozenRow]:
    """Reasons for slots that cannot go, with the parameters that each alone holds back.

    A parameter is held back when no axis of its tensor has a free slot at its position; it counts for the reason of
    its first axis that has slots.
    """
    parameters: dict[tuple[str, str], int] = {}
    slots: dict[tuple[str, str], set[int]] = {}
    for value, axes in state.axes.items():
        if value not in state.parameters:
            continue
        first: list[tuple[tuple[str, str], int]] | None = None
        held = state.parameters[value].packed
        for dim in axes:
            table = state.dims.ids(dim, frozen=True)
            free = (state.dims.ids(dim) >= 0).any(axis=1)
            held *= int((~free).sum())
            reasons = _reasons(state, table[~free])
            for key, _, ids in reasons:
                slots.setdefault(key, set()).update(ids)
            if first is None and table.size:
                first = [(key, count) for key, count, _ in reasons]
        if not held:
            continue
        total = sum(count for _, count in first or ())
        if not total:
            parameters[_UNSAID] = parameters.get(_UNSAID, 0) + held
            slots.setdefault(_UNSAID, set())
            continue
        for key, count in first or ():
            parameters[key] = parameters.get(key, 0) + held * count // total
    rows = [
        FrozenRow(reason, operator, len(slots[reason, operator]), parameters.get((reason, operator), 0))
        for reason, operator in slots
    ]
    return sorted(rows, key=lambda row: (-row.parameters, -row.slots, row.reason))


def _reasons(
    state: State, table: np.ndarray[tuple[int, int], np.dtype[np.int64]]
) -> list[tuple[tuple[str, str], int, set[int]]]:
    """(reason, operator), positions it holds, slot ids, for positions without a free slot."""
    if not table.size:
        return []
    found: dict[tuple[str, str], tuple[int, set[int]]] = {}
    outermost = table[np.arange(len(table)), (table >= 0).argmax(axis=1)]
    outermost = outermost[outermost >= 0]
    numbers = state.dims.frozen_reason(outermost)
    for number in np.unique(numbers[numbers >= 0]).tolist():
        reason = state.dims.reasons[number]
        here = outermost[numbers == number]
        count, ids = found.get((reason.text, reason.operator), (0, set()))
        found[reason.text, reason.operator] = (count + len(here), ids | set(np.unique(here).tolist()))
    return [(key, count, ids) for key, (count, ids) in found.items()]

"""The data of a page: numbers of a report and a picture, as compact JSON that cannot end its element."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ozgraph.graph import Value
from ozgraph.passes.picture import BINS, Order, Picture
from ozgraph.report.html.tree import Tree
from ozgraph.results import AnalysisReport, WidthRow

_DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
assert len(_DIGITS) >= BINS


@dataclass(frozen=True, slots=True)
class Pruned:
    """A smaller form of the model, beside it on the page."""

    model: str
    parameters: int
    macs: int
    widths: tuple[WidthRow, ...]


def document(report: AnalysisReport, picture: Picture, tree: Tree, pruned: Pruned | None = None) -> dict[str, Any]:
    """Everything that the scripts of a page read; they say what is what (``model.js``)."""
    numbers = {value: number for number, value in enumerate(picture.values)}
    by_name = {value.name: number for value, number in numbers.items()}
    rows = {(row.reason, row.operator): number for number, row in enumerate(report.frozen)}

    def refer(values: Sequence[Value | None]) -> list[int]:
        return [numbers[value] for value in values if value is not None]

    kinds = dict.fromkeys(picture.values, "")
    weights = {picture.values[term.owner] for term in picture.parameters}
    for value in picture.values:
        if value.constant is not None:
            kinds[value] = "weight" if value in weights else "constant"
        elif value.producer is None:
            kinds[value] = "input"
    uses = [use.uses[0][0] if use.uses else None for use in picture.values]
    ops = {op: number for number, op in enumerate(picture.ops)}
    return {
        "model": report.model,
        "parameters": report.parameters,
        "macs": report.macs,
        "prunable_parameters": report.prunable_parameters,
        "families": [
            {
                "id": row.id,
                "dim": row.dim,
                "size": row.size,
                "free": row.free,
                "exactness": row.exactness,
                "active": row.active,
                "overlaps": list(row.overlaps),
                "inactive": row.inactive,
                "parameters_per_slot": row.parameters_per_slot,
                "macs_per_slot": row.macs_per_slot,
                "members": [[by_name[member.tensor], member.axis, member.role] for member in row.members],
                "slices": [[place.value, place.axis, place.role] for place in slices],
            }
            for row, slices in zip(report.families, picture.slices, strict=True)
        ],
        "frozen": [[row.reason, row.operator, row.slots, row.parameters] for row in report.frozen],
        "unknown_operators": report.unknown_operators,
        "reasons": [[text, operator, name, rows.get((text, operator), -1)] for text, operator, name in picture.reasons],
        "axes": [
            [axis.size, list(axis.families), axis.reason, axis.kept.as_json() if axis.families else 0]
            for axis in picture.axes
        ],
        "values": [
            [value.name, list(axes), kinds[value], "" if value.dtype is None else value.dtype.name]
            for value, axes in zip(picture.values, picture.of_value, strict=True)
        ],
        "ops": [
            [op.operator, label, op.name, scope, refer((*op.inputs, *op.captures)), refer(op.outputs)]
            for op, label, scope in zip(picture.ops, tree.labels, tree.of_operator, strict=True)
        ],
        "outputs": refer(picture.outputs),
        "scopes": [list(scope) for scope in tree.scopes],
        "counts": [[count.family, list(count.weights) if count.weights is not None else 0] for count in picture.counts],
        "parameter_terms": [
            [-1 if (first := uses[term.owner]) is None else ops[first], term.factor, list(term.axes)]
            for term in picture.parameters
        ],
        "mac_terms": [[term.owner, term.factor, list(term.axes)] for term in picture.macs],
        "samples": picture.samples,
        "orders": [_order(order) for order in picture.orders],
        "bins": BINS,
        "step": picture.step,
        "pruned": None
        if pruned is None
        else {
            "model": pruned.model,
            "parameters": pruned.parameters,
            "macs": pruned.macs,
            "widths": {row.id: row.kept for row in pruned.widths},
        },
    }


def _order(order: Order) -> dict[str, Any]:
    return {
        "criterion": order.criterion,
        "families": list(order.families),
        "widths": list(order.widths),
        "weighted": {str(count): list(taken) for count, taken in order.weighted.items()},
        "low": order.low,
        "top": order.top,
        "scores": {str(family): "".join(_DIGITS[place] for place in bins) for family, bins in order.scores.items()},
    }


def embedded(data: Any) -> str:
    """JSON for a script element: nothing in it can end the element, begin a comment or end a line of JavaScript."""

    def strict(item: Any) -> Any:
        if isinstance(item, dict):
            return {key: strict(entry) for key, entry in item.items()}
        if isinstance(item, list):
            return [strict(entry) for entry in item]
        return None if isinstance(item, float) and not math.isfinite(item) else item

    # All but ASCII is escaped, and so are the characters that HTML reads.
    text = json.dumps(strict(data), separators=(",", ":"), ensure_ascii=True)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")

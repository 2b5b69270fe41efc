"""What analysis, pruning, verification and timing found, as plain data for people and programs.

Every class turns into JSON with :func:`as_json`; the keys are documented in ``docs/json.md`` and stay stable.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from ozgraph.markup import Markup, element, join, table

_SHOWN = 24
"""Rows of a table in a notebook."""


@dataclass(frozen=True, slots=True)
class MemberRow:
    """One parameter axis that a family occupies. ``role`` is ``producer`` or ``consumer``."""

    tensor: str
    axis: int
    role: str


@dataclass(frozen=True, slots=True)
class FamilyRow:
    """All the groups of one dim.

    Attributes:
        id: stable from run to run, such as ``f12``.
        dim: the tensor that the dim is best known by, such as ``layer1.0.conv1.weight``.
        size: number of slots.
        free: slots that may go (others are frozen one by one).
        exactness: ``exact``, ``consumers``, ``folded`` or ``rescaled``.
        active: whether a default run prunes it (overlapping families exclude each other).
        overlaps: ids of the families that share a tensor axis with it.
        parameters_per_slot, macs_per_slot: what removing one slot saves, the rest untouched.
        inactive: why a default run leaves it alone; None when it does not.
        signature: inputs and outputs of the model that shrink with it, as ``allow_io`` lets them.
    """

    id: str
    dim: str
    size: int
    free: int
    exactness: str
    active: bool
    overlaps: tuple[str, ...]
    parameters_per_slot: int
    macs_per_slot: int
    members: tuple[MemberRow, ...]
    inactive: str | None = None
    signature: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FrozenRow:
    """One reason for slots that cannot go, the operator it comes from, and the parameters it holds back."""

    reason: str
    operator: str
    slots: int
    parameters: int


@dataclass(frozen=True, slots=True)
class AnalysisReport:
    """What ``ozgraph analyze`` found.

    Attributes:
        prunable_parameters: parameters gone when every family is cut to one slot.
        unknown_operators: operators without a rule, with their number.
        timings: seconds by pass name, in pipeline order.
    """

    model: str
    parameters: int
    macs: int
    prunable_parameters: int
    families: tuple[FamilyRow, ...]
    frozen: tuple[FrozenRow, ...]
    unknown_operators: dict[str, int]
    timings: dict[str, float]

    def _repr_html_(self) -> str:
        def saves(row: FamilyRow) -> int:
            return row.parameters_per_slot * row.free

        families = [
            (row.id, row.dim, row.size, row.exactness, f"{row.parameters_per_slot:,}", f"{row.macs_per_slot:,}")
            for row in sorted(self.families, key=saves, reverse=True)
        ]
        frozen = [(row.reason, row.operator, f"{row.slots:,}", f"{row.parameters:,}") for row in self.frozen]
        line = f" · {self.parameters:,} parameters, {self.prunable_parameters:,} of them can go · {self.macs:,} MACs"
        return join(
            [
                element("p", element("b", self.model), line),
                _cut(["family", "dim", "slots", "how", "a slot saves", "MACs"], families, [2, 4, 5]),
                _cut(["what stays, and why", "operator", "slots", "parameters held"], frozen, [2, 3]),
            ]
        )


@dataclass(frozen=True, slots=True)
class WidthRow:
    """One family before and after: ``kept`` of ``size`` slots."""

    id: str
    dim: str
    size: int
    kept: int


@dataclass(frozen=True, slots=True)
class SignatureRow:
    """An input or output of the model whose shape changed; sizes that vary at run time are None.

    Attributes:
        kind: ``input`` or ``output``.
        zeros: whether the slots that an input lost must have been zero: weights of the model make them as well.
    """

    kind: str
    name: str
    before: tuple[int | None, ...]
    after: tuple[int | None, ...]
    zeros: bool = False


@dataclass(frozen=True, slots=True)
class PruneReport:
    """What ``ozgraph prune`` or ``ozgraph eliminate`` did.

    Attributes:
        removed_slots: slots gone, over all families.
        max_relative_error: largest difference to the zeroed original, over the spread of its output.
        noise_floor: the same measure between the original run with and without graph optimisations.
        limit: what ``max_relative_error`` had to stay under.
        frozen_by_verification: families that verification gave back, with the reason.
        output: path written; None when the caller asked for the model in memory.
        signature: inputs and outputs whose shapes changed, as ``allow_io`` lets them.
    """

    model: str
    parameters_before: int
    parameters_after: int
    macs_before: int
    macs_after: int
    removed_slots: int
    max_relative_error: float
    noise_floor: float
    limit: float
    frozen_by_verification: tuple[FrozenRow, ...]
    output: str | None
    widths: tuple[WidthRow, ...] = ()
    signature: tuple[SignatureRow, ...] = ()
    excluded: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    timings: dict[str, float] = field(default_factory=dict)

    def _repr_html_(self) -> str:
        totals = [
            ("parameters", f"{self.parameters_before:,}", f"{self.parameters_after:,}"),
            ("MACs", f"{self.macs_before:,}", f"{self.macs_after:,}"),
        ]
        widths = [(row.id, row.dim, row.size, row.kept) for row in self.widths if row.kept < row.size]
        error = f"verified equal: largest relative error {self.max_relative_error:.1e}, limit {self.limit:.1e}"
        return join(
            [
                element("p", element("b", self.model), f" · {self.removed_slots:,} slots removed · {error}"),
                table(["", "before", "after"], totals, numbers=[1, 2]),
                _cut(["family", "dim", "slots", "kept"], widths, [2, 3]),
            ]
        )


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """Agreement of two models.

    Attributes:
        max_relative_error: max abs(a - b) over the spread of the original's output across inputs, the worst output.
        noise_floor: the same between the original with and without graph optimisations.
        limit: ``max(1e-5, 3 * noise_floor)``, or 1e-12 for exact runs.
        compared: tensor names that were compared (an output that does not vary is replaced by a tensor upstream).
        runs: input sets that were run.
        failure: None when they agree, else what differs and where.
    """

    max_relative_error: float
    noise_floor: float
    limit: float
    compared: tuple[str, ...]
    runs: int
    failure: str | None = None

    @property
    def equal(self) -> bool:
        """Whether the models agree within the limit."""
        return self.failure is None

    def _repr_html_(self) -> str:
        verdict = "equal" if self.equal else f"not equal: {self.failure}"
        line = f": largest relative error {self.max_relative_error:.1e}, limit {self.limit:.1e}"
        return element("p", element("b", verdict), line)


@dataclass(frozen=True, slots=True)
class BenchReport:
    """Interleaved onnxruntime latencies, in milliseconds.

    Attributes:
        ratio: median over rounds of (first model's time / second model's time); above 1 the second is faster.
        ratio_low, ratio_high: 5th and 95th percentile of that ratio over rounds.
    """

    first: str
    second: str
    first_ms: float
    second_ms: float
    ratio: float
    ratio_low: float
    ratio_high: float
    rounds: int
    threads: int

    def _repr_html_(self) -> str:
        rows = [(self.first, f"{self.first_ms:.3f} ms"), (self.second, f"{self.second_ms:.3f} ms")]
        ratio = f"ratio {self.ratio:.2f}, 5th to 95th percentile {self.ratio_low:.2f} to {self.ratio_high:.2f}"
        return join([table(["model", "latency"], rows, numbers=[1]), element("p", ratio)])


def _cut(headers: list[str], rows: list[Any], numbers: list[int]) -> Markup:
    """A table of the first rows, and how many more there are."""
    if not rows:
        return Markup()
    rest = len(rows) - _SHOWN
    more = element("p", f"and {rest:,} more") if rest > 0 else Markup()
    return join([table(headers, rows[:_SHOWN], numbers=numbers), more])


def as_json(report: Any) -> dict[str, Any]:
    """A report as JSON-ready data: dataclasses become objects, tuples become lists."""

    def plain(item: Any) -> Any:
        if isinstance(item, dict):
            return {str(key): plain(entry) for key, entry in item.items()}
        if isinstance(item, (list, tuple)):
            return [plain(entry) for entry in item]
        return item

    result = plain(asdict(report))
    assert isinstance(result, dict)
    return result

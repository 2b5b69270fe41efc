"""When groups go: a start, an end, and periods in between, as steps or as fractions of the run."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

from ozgraph.errors import UsageError

SHAPES = ("linear", "cubic")


@dataclass(frozen=True)
class Schedule:
    """Periods of a run.

    Defaults follow the advice of HESSO's authors: prune from a tenth of the run on, ten periods, done by a quarter.

    Attributes:
        start: the first step of the first period: a fraction of the run (float) or a step (int).
        end: the first step after the last period, alike.
        periods: how many.
        shape: how much of the target each period reaches: ``linear`` (alike) or ``cubic`` (most of it early).
    """

    start: float | int = 0.1
    end: float | int = 0.25
    periods: int = 10
    shape: str = "linear"

    @staticmethod
    def as_step(given: float | int, steps: int) -> int:
        """A step, or a number of steps, given as such or as a fraction of a run of ``steps``.

        Raises:
            UsageError: a fraction is not between 0 and 1.
        """
        if isinstance(given, bool) or not isinstance(given, (int, float)):
            raise UsageError(f"expected a number of steps or a fraction of the run, got {given!r}")
        if isinstance(given, int):
            return given
        if not 0 <= given <= 1:
            raise UsageError(f"a fraction of the run lies between 0 and 1, got {given}; a number of steps is whole")
        return round(given * steps)

    def resolve(self, steps: int) -> Periods:
        """The schedule of a run of ``steps`` steps.

        Raises:
            UsageError: it does not fit the run.
        """
        if steps < 1:
            raise UsageError(f"a run has at least one step, got steps={steps}")
        if self.shape not in SHAPES:
            raise UsageError(f"a schedule is {' or '.join(SHAPES)}, got {self.shape!r}")
        if self.periods < 1:
            raise UsageError(f"a schedule has at least one period, got {self.periods}")
        start, end = self.as_step(self.start, steps), self.as_step(self.end, steps)
        if not 0 <= start < end <= steps:
            raise UsageError(
                f"pruning from step {start} to step {end} does not fit a run of {steps} steps; "
                "0 <= start < end <= steps must hold"
            )
        if self.periods > end - start:
            raise UsageError(
                f"{self.periods} periods do not fit the {end - start} steps from step {start} to step {end}; "
                "give fewer periods, or a later end"
            )
        length = (end - start) // self.periods
        edges = (*(start + length * number for number in range(self.periods)), end)
        return Periods(edges, self.shape)


@dataclass(frozen=True)
class Periods:
    """A schedule in steps: period p runs from ``edges[p]`` up to ``edges[p + 1]``."""

    edges: tuple[int, ...]
    shape: str = "linear"

    @property
    def count(self) -> int:
        """Number of periods."""
        return len(self.edges) - 1

    def at(self, step: int) -> int | None:
        """The period that a step lies in; None before the first and after the last."""
        if not self.edges[0] <= step < self.edges[-1]:
            return None
        return bisect_right(self.edges, step) - 1

    def due(self, period: int, goal: float) -> float:
        """How much of ``goal`` must be gone at the end of a period; all of it at the last.

        Whole goals (a number of groups) divide as in HESSO: goal // periods each, the last period takes the rest.
        """
        if period + 1 >= self.count:
            return goal
        if self.shape == "cubic":
            return goal * (1 - (1 - (period + 1) / self.count) ** 3)
        return (goal // self.count if isinstance(goal, int) else goal / self.count) * (period + 1)

    def factor(self, step: int) -> float:
        """What redundant slots are multiplied by after the optimizer's update of a step.

        (D - t - 1) / (D - t) at step t = 1 .. D - 1 of a period of D steps: a linear decay that ends at exactly 0 one
        step before the period does.
        """
        period = self.at(step)
        assert period is not None
        left = self.edges[period + 1] - step - 1
        return max(left - 1, 0) / left if left > 0 else 0.0

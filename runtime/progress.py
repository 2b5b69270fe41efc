"""A progress line for the terminal, fed by what :meth:`Pruner.metrics` tells."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ozgraph.runtime.pruner import Pruner


class ProgressLine:
    """One line that says where a run is: steps, phase, groups at zero, parameters and MACs so far.

    Args:
        pruner: of the run.
        steps: of the whole run.
        every: steps between two readings of the metrics, which wait for the device.
        console: where to; standard error by default, so that what a script prints stays clean.

    >>> with ProgressLine(pruner, steps=1000) as line:  # doctest: +SKIP
    ...     for step in range(1000):
    ...         ...  # a step of training
    ...         line.update(loss=loss.item() if step % 50 == 0 else None)
    """

    def __init__(self, pruner: Pruner, steps: int, *, every: int = 50, console: Console | None = None) -> None:
        self._pruner, self._every = pruner, max(every, 1)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[said]}"),
            console=console or Console(stderr=True),
        )
        self._task = self._progress.add_task(pruner.phase, total=steps, completed=pruner.step, said="")
        self._loss = ""

    def __enter__(self) -> ProgressLine:
        self._progress.start()
        self.update()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._read()
        self._progress.stop()

    def update(self, loss: float | None = None) -> None:
        """Call after every step; give a loss where one was read anyway."""
        if loss is not None:
            self._loss = f"loss {loss:.4f}  "
        if self._pruner.step % self._every == 0:
            self._read()
        else:
            self._progress.update(self._task, completed=self._pruner.step)

    def _read(self) -> None:
        metrics = self._pruner.metrics()
        zero, decaying = int(metrics["groups_zero"]), int(metrics["groups_decaying"])
        said = (
            f"{self._loss}groups at zero {zero:,}{f' (+{decaying:,})' if decaying else ''} of "
            f"{int(metrics['groups']):,}  parameters {metrics['parameters_share']:.1%}  "
            f"MACs {metrics['macs_share']:.1%}"
        )
        self._progress.update(
            self._task, completed=self._pruner.step, description=self._pruner.phase, said=said, refresh=True
        )

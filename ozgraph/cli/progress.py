"""Progress on standard error: a line that moves on a terminal, nothing in a pipe, nothing for what is over at once."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock, Timer
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

Progress = Callable[[str, int | None, int | None], None]
"""Called with what is going on, how much of it is done, and how much there is."""

PATIENCE = 0.5
"""Seconds that pass before there is a line: what is over sooner needs none, and does not load what draws it."""


@contextmanager
def progress_line(*, quiet: bool) -> Iterator[Progress | None]:
    """A line on standard error for as long as the block runs; None where nobody would see it."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    line = _Line()
    timer = Timer(PATIENCE, line.show)
    timer.daemon = True
    timer.start()
    try:
        yield line.report
    finally:
        timer.cancel()
        timer.join()
        line.hide()


class _Line:
    """The line, and what it says before it is shown."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._said: tuple[str, int | None, int | None] = ("starting", None, None)
        self._bar: Bar | None = None
        self._task: TaskID | None = None

    def report(self, message: str, done: int | None = None, total: int | None = None) -> None:
        """Say what is going on."""
        with self._lock:
            self._said = (message, done, total)
            if self._bar is not None and self._task is not None:
                self._bar.update(self._task, description=message, completed=done or 0, total=total)

    def show(self) -> None:
        """Draw the line from now on."""
        from rich.console import Console
        from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn

        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TaskProgressColumn(),
            TimeElapsedColumn(),
        )
        bar = Progress(*columns, console=Console(stderr=True), transient=True)
        with self._lock:
            message, done, total = self._said
            self._task = bar.add_task(message, completed=done or 0, total=total)
            bar.start()
            self._bar = bar

    def hide(self) -> None:
        """Take the line away."""
        with self._lock:
            if self._bar is not None:
                self._bar.stop()
                self._bar = None

"""Passes and the pipeline that runs them: contracts checked, each pass timed, dumps on request."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import entry_points
from typing import ClassVar

from ozgraph.errors import PassError, UsageError
from ozgraph.passes.state import State
from ozgraph.suggestions import hint, nearest

Progress = Callable[[str, int | None, int | None], None]
"""``progress(message, done, total)``; ``done`` and ``total`` are None where the work is not counted."""


@dataclass(frozen=True)
class Pass(ABC):
    """One step of the pipeline: a frozen dataclass whose fields are its options.

    Subclasses say what must hold before (``requires``) and what holds after (``ensures``), as names of facts.
    """

    name: ClassVar[str]
    requires: ClassVar[frozenset[str]] = frozenset()
    ensures: ClassVar[frozenset[str]] = frozenset()

    @abstractmethod
    def run(self, state: State) -> bool:
        """Do the work on ``state``; returns whether anything changed."""

    def check(self, state: State) -> None:
        """Verify what this pass ensures, when ``--verify-each`` asks for it.

        Raises:
            PassError: the promise is broken.
        """
        return


@dataclass(frozen=True)
class Pipeline:
    """Passes in order.

    Attributes:
        verify_each: run every pass's own check after it.
        after: called with the pass and the state after each pass (``--print-after``).
        progress: told before each pass.
    """

    passes: Sequence[Pass]
    verify_each: bool = False
    after: Callable[[Pass, State], None] | None = None
    progress: Progress | None = field(default=None, compare=False)

    def run(self, state: State) -> State:
        """Run every pass on ``state``, which is also returned.

        Raises:
            PassError: a pass runs before what it requires, or breaks its promise.
        """
        for number, step in enumerate(self.passes):
            missing = sorted(step.requires - state.facts)
            if missing:
                raise PassError(
                    f"pass {step.name!r} requires {', '.join(missing)}, which no earlier pass of the pipeline ensures; "
                    f"put a pass that does before it (see 'ozgraph passes')"
                )
            if self.progress is not None:
                self.progress(step.name, number, len(self.passes))
            started = time.perf_counter()
            step.run(state)
            state.facts |= step.ensures
            state.timings[step.name] = state.timings.get(step.name, 0.0) + time.perf_counter() - started
            if self.verify_each:
                step.check(state)
            if self.after is not None:
                self.after(step, state)
        return state


def insert(passes: Iterable[Pass], extra: Iterable[Pass]) -> list[Pass]:
    """A pipeline with user passes placed as early as what they require allows, after all that they could build on.

    A pass goes behind the last pass whose facts it requires; without requirements it goes first.
    """
    result = list(passes)
    for step in extra:
        position = 0
        for index, other in enumerate(result):
            if other.ensures & step.requires:
                position = index + 1
        result.insert(position, step)
    return result


def as_pass(given: Pass | type[Pass] | str) -> Pass:
    """A pass from an instance, a class, ``module:Class``, or the name of an installed entry point (``ozgraph.passes``).

    Raises:
        UsageError: there is no such pass, or it cannot be imported or made without arguments.
    """
    if isinstance(given, Pass):
        return given
    found = _find(given) if isinstance(given, str) else given
    try:
        made = found()
    except TypeError as error:
        raise UsageError(f"pass {given!r} cannot be made without arguments ({error}); give an instance") from error
    if not isinstance(made, Pass):
        raise UsageError(f"{given!r} is not a pass; it must be a subclass of ozgraph.passes.manager.Pass")
    return made


def _find(name: str) -> type[Pass]:
    module, colon, attribute = name.partition(":")
    try:
        if colon:
            found = getattr(import_module(module), attribute)
        else:
            entries = {entry.name: entry for entry in entry_points(group="ozgraph.passes")}
            if name not in entries:
                known = hint(name, sorted(entries)) if entries else "none is installed"
                raise UsageError(f"no pass {name!r}; write module:Class, or the name of an installed one: {known}")
            found = entries[name].load()
    except AttributeError as error:
        near = nearest(attribute, vars(import_module(module))) if colon else None
        meant = f"; did you mean '{module}:{near}'?" if near is not None else ""
        raise UsageError(f"pass {name!r} cannot be imported: {error}{meant}") from error
    except ImportError as error:
        raise UsageError(f"pass {name!r} cannot be imported: {error}") from error
    if not callable(found):
        raise UsageError(f"{name!r} is not a pass class")
    return found  # type: ignore[no-any-return]

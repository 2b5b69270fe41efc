"""Trials of a pruning with some of its families: what verification does whatever a model is written in."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ozgraph.dims import Atom
from ozgraph.errors import ModelError, UsageError, VerificationError
from ozgraph.passes.eliminate import Eliminate
from ozgraph.passes.hold import only
from ozgraph.passes.prove_dead import ProveDead
from ozgraph.passes.state import State
from ozgraph.results import VerifyReport


class Bench(ABC):
    """Builds trial models of a state and compares each with the original."""

    def __init__(self, state: State) -> None:
        self._state = state

    @property
    def atoms(self) -> list[Atom]:
        """Atoms that lose slots, in the order of the model."""
        return [atom for atom in self._state.weight_atoms if self._state.removed.count(atom)]

    def check_reading(self) -> None:  # noqa: B027  (most dialects are analyzed as they are)
        """Compare the model as it was read with its source, where reading changed it.

        Raises:
            VerificationError: they differ.
        """

    def look_at_original(self) -> bool:
        """Where something does not agree: whether to try again, because what it is compared with was at fault.

        Raises:
            ModelError: capturing changed what the model computes, so that no pruning of it could agree.
        """
        return False

    @abstractmethod
    def trial(self, trial: State) -> VerifyReport:
        """The model that a state's plan describes against the original with that state's members at zero."""

    @abstractmethod
    def finish(self, output: Path | None) -> VerifyReport:
        """All families together; with ``output``, what was compared is what gets that name."""

    def compare(self, atoms: Sequence[Atom]) -> VerifyReport:
        """The model with only these families pruned against the original with only these zeroed."""
        try:
            return self.trial(self._restricted(atoms))
        except VerificationError as error:
            if "--inputs" in str(error):
                raise
            return failed(str(error))
        except (UsageError, ModelError, MemoryError):
            raise  # about the original, its inputs or this machine, not about the pruning
        except Exception as error:  # a wrong rule or pass may fail anywhere: that is a mismatch, and has a family
            return failed(f"{type(error).__name__}: {error}")

    def culprit(self, atoms: Sequence[Atom]) -> Atom:
        """The first of some families that do not agree together whose removal, with those before it, does not."""
        low, high = 0, len(atoms) - 1
        while low < high:
            middle = (low + high) // 2
            if self.compare(atoms[: middle + 1]).equal:
                low = middle + 1
            else:
                high = middle
        return atoms[low]

    def _restricted(self, atoms: Sequence[Atom]) -> State:
        """The state with only some families chosen and removed."""
        state, wanted = self._state, set(atoms)
        trial = replace(state, chosen=only(state, state.chosen, wanted), timings={}, facts=set(state.facts))
        ProveDead().run(trial)
        trial.removed = only(state, trial.removed, wanted)
        Eliminate().run(trial)
        return trial


def failed(why: str) -> VerifyReport:
    """The report of a comparison that could not be made."""
    return VerifyReport(float("inf"), 0.0, 1e-5, (), 0, why)

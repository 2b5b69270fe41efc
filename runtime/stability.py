"""Whether the sub-network that would be kept still changes: the stability indicator of OCSPruner (arXiv 2501.13439)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ozgraph.runtime.selection import Mask


@dataclass
class Stability:
    """Retained sets, look by look, and how alike they are.

    Between the sets of a look and those ``lag`` looks before, each family has a Jaccard index: slots retained both
    times over slots retained at either. J is its mean over families, and the indicator the mean of J over ``window``
    looks; there is none before that many are known.

    Attributes:
        spans: the stretch of slots of every family.
        lag, window: in looks.
        retained: [slots] flags of the last ``lag`` looks, oldest first.
        indexes: J of the last ``window`` looks, oldest first.
        families: the Jaccard index of every family at the last look; empty before there is one.
        previous, indicator: the indicator at the look before and at the last one; None where there is none.
    """

    spans: Sequence[slice]
    lag: int = 2
    window: int = 3
    retained: list[Mask] = field(default_factory=list)
    indexes: list[float] = field(default_factory=list)
    families: list[float] = field(default_factory=list)
    previous: float | None = None
    indicator: float | None = None

    def look(self, retained: Mask) -> None:
        """Take down what would be retained now: [slots] flags."""
        if len(self.retained) == self.lag:
            before = self.retained[0]
            self.families = [jaccard(before[span], retained[span]) for span in self.spans]
            self.indexes = [*self.indexes, float(np.mean(self.families))][-self.window :]
        self.retained = [*self.retained, retained.copy()][-self.lag :]
        self.previous = self.indicator
        self.indicator = float(np.mean(self.indexes)) if len(self.indexes) == self.window else None

    @property
    def rise(self) -> float | None:
        """By how much the indicator rose since the look before."""
        return None if self.previous is None or self.indicator is None else self.indicator - self.previous

    def state_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "retained": [mask.tolist() for mask in self.retained],
            "indexes": list(self.indexes),
            "families": list(self.families),
            "previous": self.previous,
            "indicator": self.indicator,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """What :meth:`state_dict` gave."""
        self.retained = [np.asarray(mask, dtype=bool) for mask in state["retained"]]
        self.indexes, self.families = list(state["indexes"]), list(state["families"])
        self.previous, self.indicator = state["previous"], state["indicator"]


def jaccard(first: Mask, second: Mask) -> float:
    """Slots in both sets over slots in either; 1 where both are empty.

    >>> jaccard(np.array([True, True, False]), np.array([False, True, True]))
    0.3333333333333333
    """
    union = int((first | second).sum())
    return int((first & second).sum()) / union if union else 1.0

"""How much to remove: one number, the same for the compiler and for training."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ozgraph.errors import UsageError


@dataclass(frozen=True)
class Target:
    """How much to remove, as a fraction of the original: exactly one of the three.

    Attributes:
        groups: of all groups of active families.
        parameters: of all floating-point weights.
        macs: of all multiply-accumulates.
        latency: of the time in onnxruntime; the caller bisects with it.
    """

    groups: float | None = None
    parameters: float | None = None
    macs: float | None = None
    latency: float | None = None

    def __post_init__(self) -> None:
        given = {name: value for name, value in vars(self).items() if value is not None}
        if len(given) != 1:
            raise UsageError(
                f"a target names exactly one of groups, parameters, macs and latency, got {', '.join(given) or 'none'}"
            )
        for name, value in given.items():
            if not (isinstance(value, (int, float)) and math.isfinite(value) and 0 <= value < 1):
                raise UsageError(f"the target is the fraction removed, from 0 up to but without 1; got {name}={value}")

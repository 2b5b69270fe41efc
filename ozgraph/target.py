"""How much to remove: one number, the same for the compiler and for training."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ozgraph.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Target:
    """How much to remove, as a fraction of the original: exactly one of the four.

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

    @classmethod
    def checked(cls, given: object) -> Target:
        """``given``, where it is a target.

        Raises:
            UsageError: it is something else: a fraction alone does not say of what.
        """
        if not isinstance(given, cls):
            raise UsageError(f"a target says what it is a fraction of, such as Target(macs=0.5); got {given!r}")
        return given

    def __post_init__(self) -> None:
        given = {name: value for name, value in vars(self).items() if value is not None}
        if len(given) != 1:
            raise UsageError(
                f"a target names exactly one of groups, parameters, macs and latency, got {', '.join(given) or 'none'}"
            )
        for name, value in given.items():
            if not (isinstance(value, (int, float)) and math.isfinite(value) and 0 <= value < 1):
                raise UsageError(f"the target is the fraction removed, from 0 up to but without 1; got {name}={value}")

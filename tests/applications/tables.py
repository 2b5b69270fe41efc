"""All applications by name."""

from __future__ import annotations

from applications import (
    attention,
    indexing,
    linear,
    movement,
    norms,
    pointwise,
    quantised,
    recurrent,
    reductions,
    signal,
    windows,
)
from applications.application import Table

APPLICATIONS = Table()

for _module in (
    pointwise,
    linear,
    norms,
    reductions,
    windows,
    movement,
    indexing,
    recurrent,
    attention,
    quantised,
    signal,
):
    APPLICATIONS.update(_module.TABLE)

"""The networks of the tests: one for each mechanism, and a few architectures, some layers each."""

from __future__ import annotations

import sys
from pathlib import Path

from sources import Made, Source

TESTS = Path(__file__).parents[3] / "tests"


def _prepare() -> dict[str, object]:
    if str(TESTS) not in sys.path:
        sys.path.insert(0, str(TESTS))
    from models.mixed_bag import MIXED_BAG
    from models.small_nets import SMALL

    return {**MIXED_BAG, **SMALL}


def _make(name: str) -> Made:
    nets = _prepare()
    module, inputs = nets[name]()  # type: ignore[operator]
    return Made(module, inputs)


SOURCE = Source("small", _prepare, lambda: list(_prepare()), _make, lambda name: "small")

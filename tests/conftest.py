"""Puts this folder on the import path, so that tests read ``from models.rows import ROWS``."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

HERE = str(Path(__file__).parent)
if HERE not in sys.path:
    sys.path.insert(0, HERE)


def pytest_configure(config: pytest.Config) -> None:
    """Keep made models between runs, in pytest's own cache unless the environment names a folder."""
    cache = getattr(config, "cache", None)
    if "OZGRAPH_TEST_CACHE" not in os.environ and cache is not None:
        os.environ["OZGRAPH_TEST_CACHE"] = str(cache.mkdir("ozgraph_models"))

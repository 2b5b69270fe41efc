"""Where models that take time to make are kept between runs."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def cache_folder(kind: str) -> Path:
    """A folder that stays: inside ``OZGRAPH_TEST_CACHE`` where that is set, else in the system's temporary folder."""
    root = os.environ.get("OZGRAPH_TEST_CACHE") or str(Path(tempfile.gettempdir()) / "ozgraph-test-models")
    folder = Path(root) / kind
    folder.mkdir(parents=True, exist_ok=True)
    return folder

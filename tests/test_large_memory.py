"""A slice of benchmarks/large.py: memory does not grow with the weights, and the scan for zeros keeps up."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

COMMAND = Path(__file__).parents[1] / "benchmarks" / "large.py"
BLOCKS = 9
SHARE = 1 / 8
"""Of the weights: what memory may grow by. 500 MB are an eighth of 4 GB."""

PACE = 0.25
"""The scan against ``np.count_nonzero``, at least; about 1 where weights are larger."""


def measured(folder: Path, width: int, rows: int) -> dict[str, Any]:
    """The benchmark on a decoder of nine blocks with a table of so many rows."""
    table = rows * 512 * 4
    total = table + BLOCKS * 12 * width * width * 4
    options = {"gigabytes": total / 1e9, "largest": table / 1e9, "width": width, "folder": folder}
    done = subprocess.run(
        [sys.executable, os.fspath(COMMAND), "--json", *(f"--{name}={value}" for name, value in options.items())],
        cwd=folder,  # not the checkout, whose own folders are not the installed package
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert list(folder.iterdir()) == []
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_memory_does_not_grow_with_the_weights_and_the_scan_keeps_up(tmp_path: Path) -> None:
    if not Path("/proc/self/status").exists():
        pytest.skip("anonymous memory is read from /proc")
    # The same operators with hardly any weights: what is left of the difference is due to the weights.
    small, large = measured(tmp_path, 64, 128), measured(tmp_path, 512, 8192)
    weights, largest = large["weights_mb"], large["largest_mb"]
    assert weights > 125 and largest > 16
    assert 0.4 < large["pruned_mb"] / weights < 0.55
    assert large["analyze"]["added_mb"] - small["analyze"]["added_mb"] < SHARE * weights
    assert large["prune"]["added_mb"] - small["prune"]["added_mb"] < SHARE * weights + 2 * largest
    assert large["prune"]["added_mb"] > 1, "something was measured"
    for way in ("rows", "columns"):
        for scan in ("scan", "scan_of_zeros"):
            assert large[scan][way] > PACE * large[scan]["count_nonzero"], large[scan]

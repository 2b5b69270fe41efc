"""A slice of benchmarks/collapse.py: what HESSO ruins by a bad score, HESSO-CRIC does not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytestmark = pytest.mark.slow

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def last_of(lines: list[str]) -> dict[str, dict[str, Any]]:
    """Method -> its last measurement with the channels that it kept."""
    found: dict[str, dict[str, Any]] = {}
    for line in lines:
        row = json.loads(line)
        found.setdefault(row["method"], {}).update(row)
    return found


def judge(found: dict[str, dict[str, Any]]) -> None:
    assert found["HESSO"]["groups_zero"] == found["HESSO-CRIC"]["groups_zero"] > 0
    assert found["HESSO"]["kept"]["second.weight"] == 1 < found["HESSO-CRIC"]["kept"]["second.weight"]
    assert found["dense"]["accuracy"] > 0.95
    assert found["HESSO-CRIC"]["accuracy"] > 0.85
    assert found["HESSO"]["accuracy"] < 0.6


def test_cric_keeps_what_a_bad_score_would_take(tmp_path: Path) -> None:
    command = [sys.executable, os.fspath(BENCHMARKS / "collapse.py"), "--steps=250", "--every=125"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    judge(last_of(done.stdout.splitlines()))


def test_so_does_the_run_that_is_shown() -> None:
    judge(last_of((BENCHMARKS / "results" / "collapse.jsonl").read_text(encoding="utf-8").splitlines()))

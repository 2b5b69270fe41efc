"""The zoo's page: what is said of all libraries together is what was measured of each."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "benchmarks" / "zoo"))

import lines  # noqa: E402
import report  # noqa: E402


def ours(library: str, model: str, seconds: float, outcome: str = "ok") -> lines.Line:
    route = {"outcome": outcome, "parameters": 100, "prunable": 90, "rescaled": 0, "frozen": {}}
    return {
        "tool": "ozgraph", "source": library, "model": model, "kind": "Net", "parameters": 100,
        "routes": {"onnx": route}, "seconds": {"onnx analyze": seconds, "onnx rewrite": seconds},
    }  # fmt: skip


def theirs(library: str, model: str, outcome: str) -> lines.Line:
    found: dict[str, Any] = {"tool": "torch-pruning", "source": library, "model": model, "outcome": outcome}
    return found | {"parameters": 100, "seconds": {"peer build": 1.0, "peer prune": 2.0}, "equal": outcome == "runs"}


def rows(page: str, first: str) -> list[list[str]]:
    cells = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line.startswith("|")
    ]
    return [row for row in cells if row[0] == first]


def test_the_last_row_counts_every_library() -> None:
    measured = [
        ours("timm", "a", 0.1),
        ours("timm", "b", 0.2),
        ours("small", "a", 4.0),
        ours("small", "c", 1.0, "wrong"),
    ]
    peers = [theirs("timm", "a", "runs"), theirs("small", "a", "failed"), theirs("small", "b", "runs")]
    page = report.markdown({(line["tool"], line["source"], line["model"]): line for line in [*measured, *peers]})
    together, beside = rows(page, "all")
    assert together[1:6] == ["4", "4", "3", "75.0%", "3 / 4 (75.0%)"]
    assert together[-1] == "8.00"
    # A model that ozgraph was not given is nobody's.
    assert beside[1:6] == ["2", "2 / 2 (100.0%)", "2 / 2 (100.0%)", "1 / 2 (50.0%)", "1 / 2 (50.0%)"]
    assert [row[1] for row in rows(page, "small")][:2] == ["2", "1"]


def test_modules_of_timm_are_told_from_its_models() -> None:
    measured = [
        ours("timm", "a", 0.1) | {"kind": "first"},
        ours("timm", "b", 0.1, "given back") | {"kind": "first"},
        ours("timm", "c", 0.1) | {"kind": "second"},
        ours("small", "d", 0.1) | {"kind": "third"},
    ]
    page = report.markdown({(line["tool"], line["source"], line["model"]): line for line in measured})
    said = " ".join(page.split())
    assert "timm's modules (2, " in said
    assert ", 1 have every measured model pruned and verified on every route, 2 at least one." in said


def test_the_committed_pages_are_what_their_lines_give() -> None:
    found = lines.read(ROOT / "benchmarks" / "results" / "zoo.jsonl")
    assert (ROOT / "docs" / "zoo.md").read_text(encoding="utf-8") == report.markdown(found)

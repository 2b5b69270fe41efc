"""Numbered cases in processes, a log of JSON lines that a later run goes on from, and a summary at its end."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

CHUNK = 100
"""Cases in a line of the log."""

Chunk = Callable[[int, int, int], dict[str, Any]]
"""(seed, first case, one past the last) -> a line: ``counts``, ``failures``, and numbers that add up."""


@dataclass
class Summary:
    """What all lines of a log say together."""

    totals: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    failures: list[dict[str, Any]] = field(default_factory=list)
    worst: float = 0.0

    def add(self, line: dict[str, Any]) -> None:
        """One more line."""
        self.counts.update(line["counts"])
        self.failures += line["failures"]
        self.totals.update({key: value for key, value in line.items() if isinstance(value, int) and key != "first"})
        self.worst = max(self.worst, line.get("worst", 0.0))

    def line(self, seed: int) -> dict[str, Any]:
        """The last line of a log."""
        totals = {key: value for key, value in sorted(self.totals.items()) if key != "seed"}
        found = {"summary": True, "seed": seed, **totals, **dict(sorted(self.counts.items()))}
        return {**found, "worst": float(f"{self.worst:.2g}"), "failures": len(self.failures)}


def run(chunk: Chunk, cases: int, seed: int, log: Path | None, processes: int, size: int = CHUNK) -> Summary:
    """Run all cases that the log does not have yet, and write the summary.

    Args:
        chunk: a function that a fresh process can import.
        cases: how many; case ``n`` of a seed is the same in every run.
        log: a file to add to; None keeps nothing.
    """
    summary, done = Summary(), set[int]()
    for line in _lines(log):
        if line.get("seed") == seed and "first" in line and line["first"] + line["cases"] <= cases:
            summary.add(line)
            done.add(line["first"])
    missing = [first for first in range(0, cases, size) if first not in done]
    started, ran = time.monotonic(), 0
    for line in _results(chunk, missing, cases, seed, processes, size):
        summary.add(line)
        _write(log, line)
        seen = summary.totals["cases"]
        ran += line["cases"]
        each = (time.monotonic() - started) / ran
        print(f"\r{seen} of {cases}, {len(summary.failures)} failures, {each:.3f} s each", end="", flush=True)
    print()
    for failure in summary.failures:
        print(json.dumps(failure))
    _write(log, summary.line(seed))
    print(json.dumps(summary.line(seed)))
    return summary


def _results(
    chunk: Chunk, firsts: Iterable[int], cases: int, seed: int, processes: int, size: int
) -> Iterator[dict[str, Any]]:
    spans = [(first, min(first + size, cases)) for first in firsts]
    if processes == 1:
        for first, last in spans:
            yield _line(chunk, seed, first, last)
        return
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        pending = [pool.submit(_line, chunk, seed, first, last) for first, last in spans]
        # As they come: what is done is in the log, however long another case takes.
        for future in as_completed(pending):
            yield future.result()


def _line(chunk: Chunk, seed: int, first: int, last: int) -> dict[str, Any]:
    return {"first": first, "cases": last - first, "seed": seed, **chunk(seed, first, last)}


def _lines(log: Path | None) -> list[dict[str, Any]]:
    if log is None or not log.exists():
        return []
    found = []
    for text in log.read_text().splitlines():
        try:
            found.append(json.loads(text))
        except ValueError:
            continue  # cut short where a run was stopped
    return found


def _write(log: Path | None, line: dict[str, Any]) -> None:
    if log is not None:
        with log.open("a") as file:
            file.write(json.dumps(line) + "\n")

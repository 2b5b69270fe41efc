"""The results: one JSON object a line, the last line of a model counts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

Key = tuple[str, str, str]
"""Tool, library, model."""
Line = dict[str, Any]


def read(path: Path) -> dict[Key, Line]:
    """The lines of a file by key; empty where there is none. A line that was cut off is left out."""
    found: dict[Key, Line] = {}
    if path.exists():
        for text in path.read_text().splitlines():
            try:
                line = json.loads(text)
            except ValueError:
                continue
            found[line["tool"], line["source"], line["model"]] = line
    return found


def append(path: Path, line: Line) -> None:
    """Add a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps(line, sort_keys=True, allow_nan=False, default=str) + "\n")


def joined(old: Line | None, new: Line) -> Line:
    """A new line with the routes of the old one that it does not measure itself."""
    if old is None or "routes" not in old or "routes" not in new:
        return new
    return {
        **new,
        "routes": {**old["routes"], **new["routes"]},
        "seconds": {**old.get("seconds", {}), **new.get("seconds", {})},
    }


def settle(path: Path) -> None:
    """Write the file anew, sorted, with the last line of every model alone."""
    found = read(path)
    temporary = path.with_suffix(".partial")
    temporary.write_text(
        "".join(json.dumps(found[key], sort_keys=True, allow_nan=False) + "\n" for key in sorted(found))
    )
    temporary.replace(path)


def outcomes(line: Line) -> dict[str, str]:
    """How each route ended that captured the model."""
    return {route: row["outcome"] for route, row in line.get("routes", {}).items() if row["outcome"] != "not captured"}


def captured(line: Line) -> bool:
    """Whether any route followed the model; where none did, PyTorch or the library is in the way."""
    return "unbuildable" not in line and (bool(outcomes(line)) or "killed" in line)


def succeeded(line: Line) -> bool:
    """Whether every route that captured the model pruned and verified it."""
    found = outcomes(line)
    return "killed" not in line and bool(found) and all(outcome == "ok" for outcome in found.values())


def measured(line: Line, routes: Sequence[str]) -> bool:
    """Whether a line has all these routes, as far as there can be any."""
    return line["tool"] != "ozgraph" or "routes" not in line or set(routes) <= set(line["routes"])


def failed(line: Line) -> bool:
    """Whether there is something to try again."""
    if line["tool"] != "ozgraph":
        return "killed" in line or "error" in line
    return not succeeded(line)

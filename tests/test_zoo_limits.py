"""The table of limits: its reasons are those that the package gives, its figures come from lines."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "benchmarks" / "zoo"))

from limits import LIMITS, belongs, held, unnamed  # noqa: E402
from limits_page import BEGIN, END, filled  # noqa: E402

SHAPE = "it is an output of the model (--allow-io lets it shrink)"
SOFTMAX = "a softmax over it counts every slot"
STRANGE = "it is blue"


def line(model: str, **routes: dict[str, Any]) -> dict[str, Any]:
    return {"tool": "ozgraph", "source": "small", "model": model, "parameters": 100, "routes": routes}


def analyzed(*frozen: list[Any]) -> dict[str, Any]:
    return {"outcome": "ok", "parameters": 100, "prunable": 90, "frozen": list(frozen)}


LINES = [
    line("one", fx=analyzed([SHAPE, "", 10, 10]), onnx=analyzed([SHAPE, "", 9, 9], [SOFTMAX, "Softmax", 4, 2])),
    line("two", onnx=analyzed([SHAPE, "", 1, 1], [STRANGE, "Paint", 6, 3])),
    line("three", fx={"outcome": "not captured", "error": "Unsupported: a loop"}, onnx=analyzed()),
]


def limit_of(words: str) -> Any:
    (found,) = [limit for limit in LIMITS if words in limit.what]
    return found


def test_every_reason_of_a_limit_is_one_that_the_package_gives() -> None:
    files = [path for folder in ("ozgraph", "passes") for path in (ROOT / folder).rglob("*.py")]
    package = "".join(path.read_text(encoding="utf-8") for path in files)
    for limit in LIMITS:
        for reason in limit.reasons:
            assert f'"{reason}' in package, f"nothing says {reason!r} any more"


def test_a_reason_counts_for_one_limit_and_a_model_that_is_not_captured_for_all_of_its_parameters() -> None:
    sides = limit_of("inputs and outputs")
    assert belongs(SHAPE, "") is sides
    on_files = held(sides, LINES, "onnx")
    assert (on_files.parameters, on_files.models, on_files.total) == (10, 2, 300)
    assert held(sides, LINES, "fx").parameters == 10
    assert held(limit_of("softmax"), LINES, "onnx").parameters == 4
    clash = analyzed() | {"outcome": "failed", "said": "RuntimeError: references nonexistent attribute weight of code"}
    assert held(limit_of("`code`"), [line("four", fx=clash)], "fx").parameters == 100
    python = held(limit_of("Python"), LINES, "fx")
    assert (python.parameters, python.models, python.total) == (100, 1, 200)


def test_the_same_words_at_a_write_in_place_are_a_limit_of_their_own() -> None:
    words = "positions along it are looked up at run time"
    assert belongs(words, "ScatterND") is limit_of("written in place")
    assert belongs(words, "Gather") is limit_of("rows of a table")


def test_a_reason_of_no_limit_is_listed_apart() -> None:
    assert unnamed(LINES, ("fx", "onnx")) == [(STRANGE, "Paint", 6, 1)]
    page = filled(f"{BEGIN}\n{END}\n", {("ozgraph", "small", found["model"]): found for found in LINES})
    assert f"| {STRANGE} | Paint | 6 | 1 |" in page
    assert "| 10 (5.00%) in 1 model | 10 (3.33%) in 2 models |" in page


def test_a_page_is_filled_between_its_marks_and_refused_without() -> None:
    page = filled(f"above\n{BEGIN}\nolder\n{END}\nbelow\n", {})
    assert page.startswith("above\n") and page.endswith("\nbelow\n") and "older" not in page
    with pytest.raises(ValueError, match="add them where the table should stand"):
        filled("a page", {})


def test_the_committed_page_names_every_limit() -> None:
    page = (ROOT / "docs" / "limits.md").read_text(encoding="utf-8")
    for limit in LIMITS:
        assert f"| {limit.what} |" in page, "run python benchmarks/zoo report --limits docs/limits.md"

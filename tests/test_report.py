"""Reports as people read them."""

from __future__ import annotations

import io
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console, RenderableType

from ozgraph.report import terminal
from ozgraph.report.numbers import duration, human, percent, plural, removed, shorten, size_in_bytes
from ozgraph.results import (
    AnalysisReport,
    BenchReport,
    FamilyRow,
    FrozenRow,
    MemberRow,
    PruneReport,
    VerifyReport,
    WidthRow,
    as_json,
)


def text(part: RenderableType, width: int = 120) -> str:
    console = Console(file=io.StringIO(), width=width, highlight=False, markup=False, emoji=False)
    console.print(part)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def family(number: int, *, active: bool = True, macs: int = 1000, exactness: str = "exact") -> FamilyRow:
    members = (
        MemberRow(f"layer{number}.weight", 0, "producer"),
        MemberRow(f"layer{number}.bias", 0, "producer"),
        MemberRow(f"layer{number + 1}.weight", 1, "consumer"),
    )
    overlaps = () if active else (f"f{number + 1}",)
    return FamilyRow(f"f{number}", f"layer{number}.weight", 64, 64, exactness, active, overlaps, 576, macs, members)


ANALYSIS = AnalysisReport(
    model="net.onnx",
    parameters=25_557_032,
    macs=4_089_184_256,
    prunable_parameters=24_000_000,
    families=(family(0), family(1, macs=9000, exactness="rescaled"), family(2, active=False)),
    frozen=(
        FrozenRow("spatial positions are observed by a window", "Conv conv1", 49, 10),
        FrozenRow("the model's output keeps its size", "Gemm fc", 1000, 2_049_000),
    ),
    unknown_operators={"com.example.Mystery": 2},
    timings={"infer_dims": 0.25, "prove_dead": 0.5},
)
PRUNING = PruneReport(
    model="net.onnx",
    parameters_before=25_557_032,
    parameters_after=12_000_000,
    macs_before=4_089_184_256,
    macs_after=2_044_592_128,
    removed_slots=1200,
    max_relative_error=3.2e-7,
    noise_floor=1e-7,
    limit=1e-5,
    frozen_by_verification=(FrozenRow("outputs differ by 0.02", "f7", 64, 4096),),
    output="small.onnx",
    widths=(WidthRow("f0", "layer0.weight", 64, 32), WidthRow("f1", "layer1.weight", 64, 64)),
    excluded=("head.weight",),
    notes=("two families were too narrow for round_to",),
)


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    for part in (terminal.analysis(ANALYSIS, everything=True, timings=True), terminal.pruning(PRUNING)):
        assert max(map(len, text(part, width).splitlines())) <= width


def test_an_analysis_says_how_much_what_and_why() -> None:
    lines = text(terminal.analysis(ANALYSIS))
    assert "25.6 M parameters · 4.09 G MACs · 93.9 % of the parameters can go" in lines
    assert lines.index("f1") < lines.index("f0"), "what saves most comes first"
    assert lines.index("Gemm fc") < lines.index("Conv conv1"), "the reason that holds most comes first"
    assert "com.example.Mystery ×2" in lines
    assert "infer_dims" not in lines


def test_numbers_survive_a_narrow_terminal() -> None:
    rows = [line for line in text(terminal.analysis(ANALYSIS), 80).splitlines() if "f0" in line]
    assert all(part in rows[0] for part in ("64", "exact", "576", "1.00 k"))


def test_timings_are_shown_on_request() -> None:
    lines = text(terminal.analysis(ANALYSIS, timings=True))
    assert "infer_dims" in lines
    assert "0.750" in lines


def test_families_that_a_default_run_leaves_alone_are_marked_and_name_the_other() -> None:
    lines = text(terminal.analysis(ANALYSIS), 160).splitlines()
    row, note = [line for line in lines if " f2 " in line]
    assert note.startswith("○ a default run leaves f2 as it is")
    assert row.startswith("○")
    assert "or f3:" in row


def test_long_tables_are_cut_unless_all_is_asked_for() -> None:
    many = replace(ANALYSIS, families=tuple(family(number) for number in range(50)))
    short, long = text(terminal.analysis(many)), text(terminal.analysis(many, everything=True))
    assert "and 30 smaller families; --all shows them" in short
    assert "f49" in long
    assert "--all" not in long


def test_a_model_without_families_says_so() -> None:
    lines = text(terminal.analysis(replace(ANALYSIS, families=(), prunable_parameters=0)))
    assert "No family" in lines
    assert "0 % of the parameters can go" in lines


def test_an_empty_model_divides_nothing_by_zero() -> None:
    empty = AnalysisReport("empty", 0, 0, 0, (), (), {}, {})
    assert "0 parameters" in text(terminal.analysis(empty))


def test_pruning_shows_before_and_after_widths_and_what_was_given_back() -> None:
    lines = text(terminal.pruning(PRUNING))
    for part in (
        "25.6 M  →  12.0 M  -53.0 %",
        "4.09 G  →  2.04 G  -50.0 %",
        "✓ verified equal",
        "3.2e-07",
        "1,200 slots removed from 1 family",
        "written to small.onnx",
        "f7: outputs differ by 0.02",
        "Excluded: head.weight",
        "note: two families",
    ):
        assert part in lines
    assert "layer1.weight" not in lines, "families that kept every slot are not listed"


def test_names_with_brackets_are_printed_as_they_are() -> None:
    odd = replace(PRUNING, widths=(WidthRow("f0", "[bold]w[/bold]:smile:", 8, 4),), model="[red]net")
    lines = text(terminal.pruning(odd))
    assert "[bold]w[/bold]:smile:" in lines
    assert "[red]net" in lines


def test_verification_says_where_models_differ() -> None:
    report = VerifyReport(0.5, 1e-7, 1e-5, ("logits",), 3, failure="logits differ by 0.5 at input set 2")
    lines = text(terminal.verification("a.onnx", "b.onnx", report))
    assert "✗ not equal" in lines
    assert "input set 2" in lines
    assert "3 input sets" in lines


@pytest.mark.parametrize(("ratio", "words"), [(2.0, "2.00× faster"), (0.5, "2.00× slower")])
def test_a_benchmark_says_which_is_faster(ratio: float, words: str) -> None:
    report = BenchReport("a", "b", 2.0, 2.0 / ratio, ratio, ratio * 0.9, ratio * 1.1, 30, 1)
    lines = text(terminal.benchmark(report))
    assert words in lines
    assert "30 rounds, 1 thread" in lines


@pytest.mark.parametrize(
    ("count", "words"),
    [(0, "0"), (7, "7"), (999, "999"), (1000, "1.00 k"), (9_999, "10.0 k"), (99_960, "100 k"), (25_557_032, "25.6 M")],
)
def test_numbers_have_three_digits(count: int, words: str) -> None:
    assert human(count) == words


def test_percentages_never_claim_all_or_nothing_falsely() -> None:
    assert [percent(share) for share in (0.0, 1e-9, 0.5, 1 - 1e-9, 1.0)] == [
        "0 %",
        "< 0.1 %",
        "50.0 %",
        "> 99.9 %",
        "100 %",
    ]
    assert removed(0, 0) == 0.0


def test_words_follow_their_numbers() -> None:
    assert [plural(1, "family"), plural(2, "family"), plural(1000, "slot")] == ["1 family", "2 families", "1,000 slots"]


@pytest.mark.parametrize("width", [1, 2, 5, 12, 40])
def test_shortened_names_fit_and_keep_their_end(width: int) -> None:
    name = "encoder.layer.11.attention.query.weight"
    short = shorten(name, width)
    assert len(short) <= width
    if width > 5:
        assert short.endswith("weight"[-3:])


def test_reports_become_plain_json_data() -> None:
    document = as_json(ANALYSIS)
    assert document["families"][0]["members"][0] == {"tensor": "layer0.weight", "axis": 0, "role": "producer"}
    assert document["unknown_operators"] == {"com.example.Mystery": 2}


def test_colours_are_for_terminals_and_no_color_turns_them_off(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def shown() -> str:
        terminal.show(terminal.pruning(PRUNING))
        return capsys.readouterr().out

    coloured = re.compile(r"\x1b\[[0-9;]*3[0-9]m")
    for name in ("NO_COLOR", "FORCE_COLOR", "COLORTERM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    assert "\x1b" not in shown(), "in a pipe"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert coloured.search(shown())
    monkeypatch.setenv("NO_COLOR", "1")
    assert not coloured.search(shown())


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(4.2e-8, "0.04 µs"), (0.0005, "500 µs"), (0.01234, "12.3 ms"), (0.9996, "1.00 s"), (75.0, "75.0 s")],
)
def test_times_have_a_unit_that_fits(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_sizes_of_files_have_a_unit_that_fits() -> None:
    assert [size_in_bytes(count) for count in (0, 812, 1000, 102_400_000)] == ["0 B", "812 B", "1.00 kB", "102 MB"]


def test_a_benchmark_that_shows_nothing_says_so() -> None:
    report = BenchReport("a", "b", 2.0, 1.9, 1.05, 0.8, 1.3, 30, 1)
    assert "not sure: 1 is within the spread" in text(terminal.benchmark(report), 160)


def test_what_was_written_is_shown_with_its_size(tmp_path: Path) -> None:
    path = tmp_path / "small.onnx"
    path.write_bytes(bytes(1500))
    assert "small.onnx   1.50 kB" in text(terminal.pruning(replace(PRUNING, output=str(path))), 200)

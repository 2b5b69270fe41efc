"""The demo's report: what each command would have printed, and the accuracy before and after."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.text import Text

from ozgraph.report import terminal
from ozgraph.report.numbers import percent

if TYPE_CHECKING:
    from ozgraph.demo import DemoReport


def demo(report: DemoReport) -> RenderableType:
    """One section a command, then the bottom line."""
    before, after = (round(share * report.images) for share in (report.accuracy_before, report.accuracy_after))
    return Group(
        _command("ozgraph analyze digits.onnx"),
        terminal.analysis(report.analyze),
        _command("ozgraph prune digits.onnx -o digits-small.onnx --target-macs 0.5"),
        terminal.pruning(report.prune),
        _command("ozgraph bench digits.onnx digits-small.onnx --shape image=64x1x8x8"),
        terminal.benchmark(report.bench),
        Text(),
        Text.assemble(
            (f"accuracy {percent(report.accuracy_before)} before, {percent(report.accuracy_after)} after", "bold"),
            f"   {before} and {after} of {report.images} test images, not seen in training; no fine-tuning",
        ),
        *([] if report.kept is None else [Text(f"models and data are in {report.kept}")]),
    )


def _command(line: str) -> Text:
    return Text.assemble(("\n$ ", "dim"), (line, "bold cyan"), "\n")

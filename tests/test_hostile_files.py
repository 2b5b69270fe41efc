"""Damaged files through the command line: exit 0, 1 or 2, and nothing else happens."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

import ozgraph
from fuzz.damage import DAMAGES, damaged
from models.building import Net
from ozgraph.cli import run as command_line

SLICE = 80


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits and /proc are Linux's")
@pytest.mark.parametrize("first", range(0, SLICE, 40))
def test_a_damaged_file_ends_in_an_exit_status_and_leaves_nothing(first: int) -> None:
    from fuzz.hostile import files

    found = files(1, first, first + 40)
    assert not found["failures"], found["failures"]
    assert sum(found["counts"].values()) == 80


def test_every_kind_of_damage_is_done(tmp_path: Path) -> None:
    done = {kind for number in range(150) for kind in damaged([0, number], tmp_path)[0].split(": ")[1].split(", ")}
    assert done >= set(DAMAGES)


def test_text_that_is_not_utf_8_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    net = Net("text")
    model = net.build(net.linear(net.op("Relu", net.linear(net.input("x", (2, 6)), 6, 12)), 12, 5))
    content = model.SerializeToString().replace(b"ozgraph-tests", b"ozgraph\xadtests")
    (tmp_path / "bad.onnx").write_bytes(content)
    half = ["-o", str(tmp_path / "small.onnx"), "--target-params", "0.4"]
    assert command_line(["prune", str(tmp_path / "bad.onnx"), *half]) == 2
    assert "internal error" not in capsys.readouterr().err
    assert not (tmp_path / "small.onnx").exists()


def test_a_gather_that_reads_outside_its_axis_freezes_instead_of_crashing() -> None:
    net = Net("outside")
    x = net.op("Relu", net.linear(net.input("x", (4, 6)), 6, 8, name="fc1"))
    x = net.op("Gather", x, net.const(np.array([0, 1 << 32], dtype=np.int64), "rows"), axis=1)
    report = ozgraph.analyze(net.build(net.linear(x, 2, 3, name="fc2"))).report
    assert "one of its indexes lies outside the axis that it reads" in {row.reason for row in report.frozen}

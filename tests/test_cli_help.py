"""What ``--help`` shows works as pasted, and what is misspelt is asked about."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
import pytest

from ozgraph import cli, demo
from ozgraph.cli.command import Command
from ozgraph.suggestions import hint, nearest

DIGITS = Path(demo.__file__).with_name("digits.onnx")


def commands() -> Iterator[tuple[str, Command]]:
    for name in cli.command_names():
        command = cli.command_of(name)
        assert isinstance(command, Command)
        yield name, command


def examples() -> list[str]:
    """Every command line of every help text, in the order of the commands: pruning comes before timing."""
    lines = [line for _, line in cli.EXAMPLES]
    lines += [line for _, command in commands() for example in command.examples for line in example.lines]
    return list(dict.fromkeys(lines))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what the examples name."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(DIGITS, "model.onnx")
    shutil.copy(DIGITS, "other.onnx")
    np.savez("inputs.npz", image=np.random.default_rng(0).random((4, 1, 8, 8), dtype=np.float32))
    return tmp_path


@pytest.mark.parametrize("name", [None, *cli.command_names()])
def test_help_shows_examples_one_a_line(name: str | None, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run([*([] if name is None else [name]), "--help"]) == 0
    shown = capsys.readouterr().out
    lines = [line.strip() for line in shown.splitlines()]
    expected = [line for _, line in cli.EXAMPLES]
    if name is not None:
        command = dict(commands())[name]
        expected = [line for example in command.examples for line in example.lines]
    assert expected
    assert all(line in lines for line in expected)
    assert "\b" not in shown and "\\b" not in shown


@pytest.mark.slow
def test_examples_of_the_help_texts_run_as_pasted(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    smallest = DIGITS.stat().st_size
    # The demo has tests of its own, which take their time.
    for line in (line for line in examples() if not line.startswith("ozgraph demo")):
        # What a shell would do with the rest of the line: evaluate what is printed, or keep it in a file.
        words = shlex.split(re.sub(r'^eval "\$\((.*)\)"$', r"\1", line))
        target = words[words.index(">") + 1] if ">" in words else None
        words = words[: words.index(">")] if target else words
        assert words[0] == "ozgraph"
        # The two files that are compared compute the same, so that every example ends well.
        status = cli.run(words[1:])
        captured = capsys.readouterr()
        assert (status, captured.err) == (0, ""), line
        if target and not target.startswith("~"):
            Path(target).write_text(captured.out)
        if Path("small.onnx").exists():
            smallest = min(smallest, Path("small.onnx").stat().st_size)
    assert smallest < DIGITS.stat().st_size


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("prune model.onnx -o s.onnx --taget-macs 0.5", "did you mean '--target-macs'?"),
        ("prune model.onnx -o s.onnx --target_macs 0.5", "did you mean '--target-macs'?"),
        ("prune model.onnx -o s.onnx -target-macs 0.5", "did you mean '--target-macs'?"),
        ("analyze model.onnx --target-macs 0.5", "it is an option of 'prune'"),
        ("analyze model.onnx --wholly-unknown", "ozgraph analyze --help"),
        ("--json analyze model.onnx", "ozgraph analyze --json"),
        ("model.onnx", "ozgraph analyze model.onnx"),
        ("analyse model.onnx", "did you mean 'analyze'?"),
        ("help", "ozgraph --help"),
        ("prune model.onnx -o s.onnx --target-macs 0.5 --exclude stem", "did you mean '*stem*', which matches"),
        ("prune model.onnx -o s.onnx --target-macs 0.5 --exclude stem.wieght", "did you mean 'stem.weight'?"),
        ("prune model.onnx -o s.onnx --target-macs 0.5 --exclude image", "it is in the model, but nothing"),
        ("prune model.onnx -o s.onnx --target-macs 0.5 --criterion randm", "did you mean 'random'?"),
        ("analyze model.onnx --print-after seelct", "did you mean 'select'?"),
        ("analyze model.onnx --pass collections:OrderdDict", "did you mean 'collections:OrderedDict'?"),
        ("analyze model.onnx --allow-io logit", "did you mean 'logits'?"),
        ("analyze model.onnx --shape imge=1x1x8x8", "did you mean 'image'?"),
    ],
)
def test_what_is_misspelt_is_asked_about_in_one_line(
    arguments: str, words: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(arguments.split()) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("ozgraph: ") and captured.err.count("\n") == 1
    assert words in captured.err


def test_families_are_chosen_by_the_id_that_the_table_shows(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from ozgraph import api

    family = api.analyze("model.onnx").families[1]
    report = api.prune("model.onnx", target=api.Target(groups=0.05), include=[family.id]).report
    assert {row.id for row in report.widths if row.kept < row.size} == {family.id}


def test_an_unknown_operator_is_shown_beside_the_known_one_that_is_like_it() -> None:
    from ozgraph.rules.table import known_like

    assert known_like("LayerNormalisation") == "LayerNormalization"
    assert known_like("com.example.Convv") == "Conv"
    assert known_like("com.example.Mystery") is None


def test_long_names_and_long_lists_keep_messages_short() -> None:
    assert nearest("x" * 10_000, ["x" * 9_999]) is None
    assert nearest("weight", ["w" * 10_000, "weights"]) == "weights"
    assert len(hint("q", [f"layer.{number}" for number in range(10_000)])) < 200


def test_every_option_has_a_help_text() -> None:
    for name, command in commands():
        for param in command.params:
            assert not isinstance(param, click.Option) or param.help, f"{name} {param.name}"

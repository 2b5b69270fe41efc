"""Settings in a file: the names of the flags, checked like flags, and printed in a form that is read back."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import click
import pytest

from ozgraph import cli
from ozgraph.cli import config
from ozgraph.cli.command import Command
from ozgraph.cli.flags import flag_of

NASTY = (
    '"quoted"',
    "back\\slash",
    "tab\tand\nline",
    "\x1b[31mred\x7f\x9b",
    "ünïcode 🦉",
    "a=b",
    "[x]",
    "#no",
    "\u202eback",
    "",
)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def values(*arguments: str) -> dict[str, Any]:
    """What a command would run with."""
    command = cli.command_of(arguments[0])
    with command.make_context(arguments[0], list(arguments[1:])) as context:
        return dict(context.params)


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert cli.run([*arguments, "--print-config"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


RUNS: dict[str, tuple[str, ...]] = {
    "nothing given": ("prune",),
    "numbers": ("prune", "a.onnx", "-o", "b.onnx", "--max-drift", "1e-07", "--seed", "7", "--round-to", "8"),
    "texts": ("prune", NASTY[0], "-o", NASTY[3], *(word for text in NASTY for word in ("--exclude", text))),
    "shapes": ("analyze", "m", "--shape", 'x="1"\t=1x3x8x8', "--shape", "scalar=", "--allow-io", "--all", "--json"),
    "two files": ("verify", "a", "b", "--exact", "--inputs", "x.npz"),
    "timing": ("bench", "a", "b", "--rounds", "3", "-q"),
    "no file": ("demo", "--keep", "there"),
    "passes": ("eliminate", "a", "-o", "b", "--pass", "mine:Pass", "--print-after", "group", "--allow-io", "x*"),
}


@pytest.mark.parametrize("what", RUNS)
def test_settings_that_are_printed_are_read_back_as_they_were(what: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = RUNS[what]
    text = printed(capsys, *arguments)
    Path("run.toml").write_text(text)
    assert printed(capsys, arguments[0], "--config", "run.toml") == text
    if len(arguments) > 1:
        assert values(arguments[0], "--config", "run.toml") == values(*arguments)


def test_what_is_not_unicode_cannot_be_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["analyze", "\udcff.onnx", "--print-config"]) == 2
    assert "not Unicode" in capsys.readouterr().err


def test_every_flag_of_every_command_is_a_setting_by_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    for name in cli.command_names():
        command = cli.command_of(name)
        assert isinstance(command, Command)
        flags = {flag_of(param)[2:] for param in command.params if isinstance(param, click.Option)}
        flags -= {"config", "print-config"}
        assert flags <= set(config.keys(command))
        if any(param.name == "config" for param in command.params):
            text = printed(capsys, name)
            assert all(f"\n{key} = " in text or f"\n# {key} = " in text for key in config.keys(command))
            assert set(tomllib.loads(text)) == {name}


def test_flags_win_over_the_file_and_the_file_over_defaults() -> None:
    Path("run.toml").write_text(
        '[prune]\nmodel = "file.onnx"\noutput = "small.onnx"\ntarget-macs = 0.5\nseed = 3\n'
        'exclude = ["a", "b"]\nuniform = true\nallow-io = true\n'
    )
    from_file = values("prune", "--config", "run.toml")
    assert from_file["model"] == "file.onnx" and from_file["macs"] == 0.5 and from_file["seed"] == 3
    assert from_file["exclude"] == ("a", "b") and from_file["uniform"] is True and from_file["allow_io"] == ("*",)
    assert from_file["criterion"] == "l2", "the default"
    over = values("prune", "other.onnx", "--config", "run.toml", "--seed", "4", "--exclude", "c")
    assert over["model"] == "other.onnx" and over["seed"] == 4 and over["macs"] == 0.5
    assert over["exclude"] == ("c",), "a list replaces the list"


def test_one_way_to_say_how_much_replaces_another_that_the_file_gives(capsys: pytest.CaptureFixture[str]) -> None:
    Path("run.toml").write_text("[prune]\ntarget-macs = 0.5\n")
    over = values("prune", "a", "-o", "b", "--config", "run.toml", "--target-params", "0.3")
    assert over["macs"] is None and over["parameters"] == 0.3
    text = printed(capsys, "prune", "--config", "run.toml", "--max-drift", "0.1")
    assert tomllib.loads(text)["prune"]["max-drift"] == 0.1
    assert "target-macs" not in tomllib.loads(text)["prune"]


BAD_FILES = {
    "an unknown key": ("[prune]\ntaget-macs = 0.5\n", "'taget-macs'; did you mean 'target-macs'?"),
    "a key of another command": ("[prune]\n[bench]\nround = 3\n", "[bench] has no setting 'round'; did you mean"),
    "an unknown command": ("[prun]\nseed = 1\n", "no command 'prun'; did you mean 'prune'?"),
    "a key outside a table": ("seed = 1\n", "no command 'seed'"),
    "a command that is no table": ("prune = 1\n", "must be a table"),
    "a number that is text": ('[prune]\ntarget-macs = "half"\n', "'target-macs' of [prune]"),
    "a number out of range": ("[prune]\ntarget-macs = 1.5\n", "'target-macs' of [prune]"),
    "a fraction for a count": ("[prune]\nseed = 1.5\n", "'seed' of [prune]"),
    "a truth for a number": ("[prune]\nseed = true\n", "not true"),
    "a text for a flag": ('[prune]\nuniform = "yes"\n', "true or false"),
    "a list for one value": ("[prune]\nseed = [1]\n", "not a list"),
    "a choice that there is not": ('[prune]\ncriterion = "randm"\n', "did you mean 'random'?"),
    "a shape that is none": ('[prune]\nshape = ["x"]\n', "name=1x3x224x224"),
    "no TOML": ("[prune\n", "line 1"),
    "no text": (b"\xff\xfe", "not a TOML file"),
    "lists without end": ("[prune]\nexclude = " + "[" * 100_000, "not a TOML file"),
    "a name with escapes": ('[prune]\n"\\u001b[31mred" = 1\n', "red"),
}


@pytest.mark.parametrize("what", BAD_FILES)
def test_a_file_that_is_wrong_is_refused_in_one_line(what: str, capsys: pytest.CaptureFixture[str]) -> None:
    content, words = BAD_FILES[what]
    Path("run.toml").write_bytes(content if isinstance(content, bytes) else content.encode())
    assert cli.run(["prune", "a", "-o", "b", "--config", "run.toml"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("ozgraph: run.toml: ") and captured.err.count("\n") == 1
    assert words in captured.err and "\x1b" not in captured.err


@pytest.mark.parametrize("path", ["nowhere.toml", "."])
def test_a_file_that_cannot_be_read_is_named(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["bench", "a", "b", "--config", path]) == 2
    assert capsys.readouterr().err.startswith(f"ozgraph: {path}: ")


def test_a_run_from_a_file_does_what_the_flags_do(capsys: pytest.CaptureFixture[str]) -> None:
    import json
    import shutil

    from ozgraph import demo

    shutil.copy(Path(demo.__file__).with_name("digits.onnx"), "model.onnx")
    arguments = ["prune", "model.onnx", "-o", "a.onnx", "--target-params", "0.4", "--criterion", "l1", "--json"]
    assert cli.run(arguments) == 0
    flags = json.loads(capsys.readouterr().out)
    Path("run.toml").write_text(
        '[prune]\nmodel = "model.onnx"\ntarget-params = 0.4\ncriterion = "l1"\njson = true\n[analyze]\nall = true\n'
    )
    assert cli.run(["prune", "--config", "run.toml", "-o", "b.onnx"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["widths"] == flags["widths"]
    assert Path("a.onnx").read_bytes() == Path("b.onnx").read_bytes()

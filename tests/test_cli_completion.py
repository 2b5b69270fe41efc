"""A shell completes commands, options, files and names, and hostile names are not offered."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

from models.building import Net
from ozgraph import cli, demo
from ozgraph.cli.completing import offered

Ask = Callable[..., list[str]]

DIGITS = Path(demo.__file__).with_name("digits.onnx")


@pytest.fixture
def complete(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Ask:
    """Ask for completions as the script for fish does: the line so far, and the word that is being typed."""
    monkeypatch.chdir(tmp_path)

    def ask(line: str, word: str = "") -> list[str]:
        monkeypatch.setenv(cli.COMPLETE, "fish_complete")
        monkeypatch.setenv("COMP_WORDS", f"ozgraph {line}")
        monkeypatch.setenv("COMP_CWORD", word)
        with pytest.raises(SystemExit) as left:
            cli.run([])
        assert left.value.code == 0
        captured = capsys.readouterr()
        assert captured.err == "", "a prompt is on the screen"
        return [line.partition("\t")[0] for line in captured.out.splitlines() if line]

    return ask


def test_commands_options_and_choices_are_offered(complete: Ask) -> None:
    assert set(complete("")) == {f"plain,{name}" for name in cli.command_names()}
    assert complete("pr", "pr") == ["plain,prune"]
    assert "plain,--target-macs" in complete("prune --t", "--t")
    assert complete("prune --criterion r", "r") == ["plain,random"]
    assert complete("analyze --print-after sel", "sel") == ["plain,select"]
    assert complete("completion z", "z") == ["plain,zsh"]


@pytest.mark.parametrize("line", ["analyze ", "prune m.onnx -o ", "analyze m.onnx --html ", "bench a.onnx --config "])
def test_files_are_left_to_the_shell(line: str, complete: Ask) -> None:
    assert complete(line) == ["file,"]


def test_names_of_the_model_on_the_line_are_offered(complete: Ask) -> None:
    shutil.copy(DIGITS, "model.onnx")
    found = complete("prune model.onnx --exclude stem", "stem")
    assert "plain,stem.weight" in found
    assert "plain,f0" in complete("analyze model.onnx --include f", "f")
    (shape,) = complete("analyze model.onnx --shape im", "im")
    assert shape.startswith("plain,image=") and shape.endswith("x1x8x8"), "a size that can be given as it stands"
    assert complete("analyze model.onnx --allow-io l", "l") == ["plain,logits"]


@pytest.mark.parametrize("line", ["prune nowhere.onnx --exclude ", "prune . --exclude ", "prune --exclude "])
def test_where_no_model_is_known_no_name_is_offered(line: str, complete: Ask) -> None:
    assert complete(line) == []


def test_a_line_that_is_wrong_already_is_no_error(complete: Ask) -> None:
    assert "plain,prune" in complete("nonsense ")
    assert complete("prune --nonsense ") == ["file,"]


HOSTILE = {
    "markup": "<img src=x onerror=alert(1)>",
    "quotes": "a\"b'c`d",
    "commands": "$(touch owned);rm -rf *",
    "escapes": "\x1b]0;owned\x07\x1b[31mred",
    "lines": "one\ntwo,three\tfour",
    "long": "x" * 10_000,
}


def test_hostile_names_are_not_offered_and_plain_ones_beside_them_are(complete: Ask) -> None:
    net = Net("hostile")
    x = net.op("Relu", net.linear(net.input("x", ("batch", 6)), 6, 12, name="fc"))
    for name in HOSTILE.values():
        x = net.op("Relu", net.linear(x, 12, 12, name=name))
    onnx.save(net.build(net.linear(x, 12, 5, name="out")), "model.onnx")
    found = complete("prune model.onnx --exclude ")
    assert "plain,fc.weight" in found
    assert all(len(item) < 300 and item.isprintable() for item in found)
    assert not any(character in item for item in found for character in "<>\"'`$;*\x1b \\")


def test_offered_names_are_single_words_that_mean_themselves() -> None:
    assert offered(["conv[0]", "conv*", "a:b", "~x", "conv.0", "conv.0"], "conv") == ["conv.0"]
    assert len(offered((f"w{number}" for number in range(10_000)), "w")) == 300


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_scripts_for_each_shell_register_the_program(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert "ozgraph" in script and f"{cli.COMPLETE}={shell}_complete" in script
    if shutil.which(shell):
        checked = subprocess.run([shell, "-n"], input=script, text=True, capture_output=True, check=False)
        assert (checked.returncode, checked.stderr) == (0, "")


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes_with_the_script(tmp_path: Path) -> None:
    program = tmp_path / "ozgraph"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m ozgraph "$@"\n')
    program.chmod(0o755)
    script = (
        'eval "$(ozgraph completion bash)"\n'
        "COMP_WORDS=(ozgraph pru); COMP_CWORD=1; _ozgraph_completion ozgraph\n"
        'printf "%s\\n" "${COMPREPLY[@]}"\n'
    )
    done = subprocess.run(
        ["bash", "--norc", "-c", script],
        cwd=tmp_path,
        env={**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "prune\n", done.stderr
    assert done.stderr == ""

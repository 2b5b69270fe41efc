"""Every block of the documentation runs as it stands, and every link leads somewhere.

A page is one test, and runs in a folder that holds nothing but the network of ``ozgraph demo``, as ``digits.onnx`` and
``model.onnx``:

* ``python`` blocks share their names, as in a notebook. One that begins with ``# name.py`` is that file, too.
* ``sh`` blocks must leave with status 0. Commands of ozgraph alone run in this process, anything else in bash.
* ``console`` blocks hold commands and what they print, which is compared up to a line of three dots. Numbers such as
  3.1e-07, which are rounding, and times may be any.
* ``<!-- invisible-code-block: python`` is what readers take for granted (a model, a loop).
* ``<!-- skip: next "why" -->`` leaves the next block out and says why. Skipped commands must still name programs and
  options that are there.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from unittest import SkipTest

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

import ozgraph.cli
import ozgraph.demo
from ozgraph.errors import UsageError
from ozgraph.rules.registry import FREEZING, RULES
from ozgraph.rules.table import registered, registered_freezing

sybil = pytest.importorskip("sybil")
from sybil.parsers.markdown import CodeBlockParser, SkipParser  # noqa: E402

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md")] + sorted((ROOT / "docs").glob("*.md"))
LINKED = [*PAGES, ROOT / "CHANGELOG.md"]
RECORDS = ("campaigns.md", "large.md", "results.md", "zoo.md")
"""Pages whose blocks are measurements of hours and the commands that make them; indented, or skipped."""


# -- what runs a block -----------------------------------------------------------------------------------------------


def run_python(example: sybil.Example) -> None:
    """Run a block in the names of its page, with the page's own line numbers in tracebacks."""
    named = re.match(r"# (\w+\.py)\n", example.parsed)
    if named:
        Path(named[1]).write_text(example.parsed, encoding="utf-8")
    exec(compile("\n" * example.line + example.parsed, example.path, "exec", dont_inherit=True), example.namespace)


def run_command(command: str) -> tuple[int, str]:
    """The status and the output of a command."""
    try:
        words = list(shlex.shlex(command, posix=True, punctuation_chars=True))
        plain = not set(words) & {"|", ">", ">>", "<", "&", "&&", ";"} and "$" not in command
    except ValueError:
        plain = False
    if plain and words[:1] == ["ozgraph"]:
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            status = ozgraph.cli.run(shlex.split(command, comments=True)[1:])
        return status, said.getvalue()
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = os.environ | {"PATH": path, "PYTHONPATH": os.getcwd()}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command], env=environment, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout + done.stderr


def run_shell(example: sybil.Example) -> str | None:
    """Run a block command by command."""
    for command in example.parsed.replace("\\\n", " ").splitlines():
        if command.strip() and not command.startswith("#"):
            status, said = run_command(command)
            if status:
                return f"{command}\nleft with status {status}:\n{said}"
    return None


def run_console(example: sybil.Example) -> str | None:
    """Run commands after ``$``, and compare what they print with the lines that follow."""
    for part in re.split(r"^\$ ", example.parsed, flags=re.MULTILINE)[1:]:
        command, _, expected = part.partition("\n")
        status, said = run_command(command)
        words, wanted = without_noise(said), without_noise(expected)
        if wanted[-1:] == ["..."]:
            words, wanted = words[: len(wanted) - 1], wanted[:-1]
        if status or words != wanted:
            return f"{command}\nleft with status {status} and printed\n{said}"
    return None


def without_noise(text: str) -> list[str]:
    """Words of an output, without what differs between machines: rounding, times, and the width of a terminal."""
    text = re.sub(r"\d\.\de-\d\d|[\d.]+ (?:µs|ms|s)\b|[─━]+", "~", text)
    return text.split()


PARSERS = [
    CodeBlockParser("python", run_python),
    CodeBlockParser("sh", run_shell),
    CodeBlockParser("console", run_console),
    SkipParser(),
]
RUN = ("python", "sh", "console")


# -- what stands on a page -------------------------------------------------------------------------------------------


def tokens(page: Path) -> list[Token]:
    """The page as markdown."""
    return MarkdownIt().enable("table").parse(page.read_text(encoding="utf-8"))


def blocks(page: Path) -> list[Token]:
    """Blocks of code, fenced and indented."""
    return [token for token in tokens(page) if token.type in ("fence", "code_block")]


def links(page: Path) -> list[str]:
    """Where links and pictures lead, without the network's."""
    inline = [child for token in tokens(page) for child in token.children or ()]
    found = [str(token.attrs.get("href") or token.attrs.get("src") or "") for token in inline]
    found += re.findall(r'(?:href|src|srcset)="([^"]+)"', page.read_text(encoding="utf-8"))
    return [link for link in found if link and not re.match(r"\w+:", link)]


def anchors(page: Path) -> set[str]:
    """What headings are called in links, as the forge and the site do it."""
    lines = tokens(page)
    titles = [after.content for token, after in itertools.pairwise(lines) if token.type == "heading_open"]
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def programs(page: Path) -> Iterator[tuple[str, Path, set[str]]]:
    """Commands that run a program of this repository, with its source and the options that they give."""
    for block in blocks(page):
        if block.info not in ("", "sh"):
            continue
        for line in block.content.replace("\\\n", " ").splitlines():
            found = re.search(r"\bpython (?:-m ([\w.]+)|([\w/]+(?:\.py)?))\s*(.*)", line)
            if found is None or found[1] in ("venv", "sphinx", "pip"):
                continue
            source = ROOT / "tests" / (found[1].replace(".", "/") + ".py") if found[1] else ROOT / found[2]
            yield line, source, set(re.findall(r"(?<!\S)--[\w-]+", found[3]))


def short(pages: list[Path]) -> list[str]:
    return [page.name for page in pages]


# -- tests -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=short(PAGES))
def test_every_block_of_a_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    for name in ("digits.onnx", "model.onnx"):
        shutil.copy(Path(ozgraph.demo.__file__).with_name("digits.onnx"), name)
    before, rules, freezing = set(sys.modules), registered(), registered_freezing()
    try:
        for example in sybil.Sybil(PARSERS).parse(page):
            try:
                example.evaluate()
            except SkipTest:
                continue
            except (ImportError, UsageError) as error:
                # What is not installed may have been said in our own words.
                missing = isinstance(error, ImportError) or isinstance(error.__context__, ImportError)
                if not missing or re.search(r"\b(torch|transformers|onnxscript|peft|lightning)\b", str(error)) is None:
                    raise
                pytest.skip(f"from line {example.line} on: {error}")
    finally:
        # Operators of a page are its own, and what it wrote as a module must not be found by the next.
        for table, known in ((RULES, rules), (FREEZING, freezing)):
            table.clear()
            table.update(known)
        for name in set(sys.modules) - before:
            if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
                del sys.modules[name]


@pytest.mark.parametrize("page", PAGES, ids=short(PAGES))
def test_no_block_escapes(page: Path) -> None:
    parsed = sybil.Sybil(PARSERS).parse(page)
    run = [block for block in blocks(page) if block.info in RUN]
    assert len(run) == sum(parsed.text[example.start :].lstrip().startswith("```") for example in parsed)
    for block in blocks(page):
        known = (*RUN, "text", "json", "toml", *(("",) if page.name in RECORDS else ()))
        assert block.info in known or block.info.startswith("{"), f"a block in {block.info!r}: {block.content}"
        if block.info == "json":
            for line in block.content.splitlines():
                json.loads(line)
        if block.info == "toml":
            tomllib.loads(block.content)
    assert not re.findall(r"<!-- skip: (?!next \"\w)", page.read_text(encoding="utf-8")), "a skip gives its reason"


def test_ci_builds_the_site_with_the_command_that_people_are_told() -> None:
    for name in ("README.md", "CONTRIBUTING.md"):
        assert "sphinx-build -W docs build/site" in (ROOT / name).read_text(encoding="utf-8")
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert re.search(r'^\(cd "\$checkout" && sphinx-build .*-W .*\bdocs "\$work/site"\)$', ci, re.MULTILINE)


def test_an_operator_a_pass_and_a_saliency_take_less_than_thirty_lines_each() -> None:
    examples = [block.content for block in blocks(ROOT / "docs" / "extend.md") if block.info == "python"]
    assert len(examples) >= 3
    assert all(len(example.splitlines()) < 30 for example in examples)


def test_pictures_are_what_their_script_draws(tmp_path: Path) -> None:
    pictures = ROOT / "docs" / "pictures"
    runpy.run_path(str(pictures / "concepts.py"))["main"](tmp_path)
    drawn = sorted(tmp_path.iterdir())
    assert drawn
    for path in drawn:
        assert path.read_text(encoding="utf-8") == (pictures / path.name).read_text(encoding="utf-8"), path.name


@pytest.mark.parametrize("page", PAGES, ids=short(PAGES))
def test_commands_that_take_hours_name_programs_and_options_that_are_there(page: Path) -> None:
    for command, source, options in programs(page):
        assert source.exists(), command
        parts = source.glob("*.py") if source.is_dir() else [source]
        text = "".join(part.read_text(encoding="utf-8") for part in parts)
        assert not [option for option in options if f'"{option}"' not in text], command


@pytest.mark.parametrize("page", LINKED, ids=short(LINKED))
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in links(page):
        name, _, anchor = link.partition("#")
        to = (page.parent / name).resolve() if name else page
        assert to.exists(), link
        assert not anchor or anchor in anchors(to), link

"""Many damaged files through the command line, in worker processes with limits.

From the ``tests`` folder: ``python -m fuzz.hostile --files 1000 --seed 0``. Exit statuses 0, 1 and 2 are right; a
traceback, an internal error, a worker that dies, 30 seconds, 2 GB beyond the start, or a file left behind are not.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import resource
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fuzz.numbered import run

SECONDS = 30
BYTES = 2 << 30
"""What one command may take beyond what the worker has when it starts."""

HALF = ("-o", "out/small.onnx", "--target-params", "0.4")
COMMANDS = {"analyze": ("analyze", "model.onnx"), "prune": ("prune", "model.onnx", *HALF)}


class Worker:
    """A process that handles one command after another; a new one takes its place when it is gone."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        """The worker's answer, or how it failed to give one."""
        process = self._process = self._process or _started()
        assert process.stdin is not None and process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # no answer will come, which says it
            process.stdin.write(json.dumps(question) + "\n")
            process.stdin.flush()
        ready, _, _ = select.select([process.stdout], [], [], SECONDS + 5)
        text = process.stdout.readline() if ready else ""
        if text:
            answer: dict[str, Any] = json.loads(text)
            return answer
        self.stop()
        return {"wrong": f"died with {process.returncode}" if ready else f"took more than {SECONDS} s"}

    def stop(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


def _started() -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "fuzz.hostile", "--worker"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        cwd=Path(__file__).parent.parent,
    )  # fmt: skip


def files(seed: int, first: int, last: int) -> dict[str, Any]:
    """Both commands on the damaged files with these numbers."""
    counts: Counter[str] = Counter()
    failures = []
    worker, slowest = Worker(), 0.0
    try:
        for number in range(first, last):
            for command in COMMANDS:
                answer = worker.ask({"seed": [seed, number], "command": command})
                slowest = max(slowest, answer.get("seconds", 0.0))
                if "wrong" in answer:
                    counts[f"{command}: wrong"] += 1
                    failures.append({"file": number, "command": command, **answer})
                else:
                    counts[f"{command}: exit {answer['status']}"] += 1
    finally:
        worker.stop()
    return {"counts": dict(counts), "failures": failures, "worst": slowest}


def work() -> None:
    """Answer questions from standard input; the worker's side."""
    from fuzz.damage import damaged
    from ozgraph.cli import run as command_line

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # native code must not write between the answers
    home = Path(tempfile.mkdtemp(prefix="ozgraph-hostile-"))
    try:
        _warm(home, command_line)
        limit = _address_space() + BYTES
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        for text in sys.stdin:
            question = json.loads(text)
            folder = Path(tempfile.mkdtemp(dir=home))
            what, content = damaged(question["seed"], folder)
            answer = {"damage": what, **outcome(folder, content, question["command"], command_line)}
            shutil.rmtree(folder)
            answers.write(json.dumps(answer) + "\n")
            answers.flush()
    finally:
        shutil.rmtree(home, ignore_errors=True)


def outcome(folder: Path, content: dict[str, bytes], command: str, command_line: Any) -> dict[str, Any]:
    """Run a command in a folder with these files, and check what it says and leaves."""
    for name, data in content.items():
        (folder / name).write_bytes(data)
    for name in ("out", "tmp"):
        (folder / name).mkdir()
    os.chdir(folder)
    tempfile.tempdir = str(folder / "tmp")
    said, complained = io.StringIO(), io.StringIO()
    started = time.monotonic()
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(complained):
            status = command_line(list(COMMANDS[command]))
    except BaseException as error:  # the command line lets nothing through
        return {"wrong": f"{type(error).__name__}: {error}"[:300]}
    finally:
        tempfile.tempdir = None
        os.chdir(folder.parent)
    seconds = time.monotonic() - started
    wrong = _fault(status, said.getvalue() + complained.getvalue(), complained.getvalue(), seconds)
    left = {str(path.relative_to(folder)) for path in folder.rglob("*")} - {*content, "out", "tmp"}
    if status == 0 and command == "prune":
        left -= {"out/small.onnx", "out/small.onnx.data"}
    if wrong is None and left:
        wrong = f"left {sorted(left)}"
    if wrong is None and any((folder / name).read_bytes() != data for name, data in content.items()):
        wrong = "changed its input"
    return {"status": status, "seconds": round(seconds, 3), **({} if wrong is None else {"wrong": wrong})}


def _fault(status: int, text: str, complaint: str, seconds: float) -> str | None:
    if status not in (0, 1, 2):
        return f"exit {status}: {complaint.strip()[:300]}"
    if "Traceback" in text or "internal error" in text:
        return complaint.strip()[:300]
    if status and not complaint.strip():
        return f"exit {status} without a word"
    return f"took {seconds:.0f} s" if seconds > SECONDS else None


def _warm(home: Path, command_line: Any) -> None:
    """Import everything and run once, so that the limit counts from what a run has anyway."""
    from fuzz.damage import valid

    folder = Path(tempfile.mkdtemp(dir=home))
    content = valid("residual_add", False, folder)
    for command in COMMANDS:
        outcome(folder, content, command, command_line)
        shutil.rmtree(folder)
        folder.mkdir()


def _address_space() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * os.sysconf("SC_PAGE_SIZE")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m fuzz.hostile", description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=1000, help="how many files (default 1000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--log", type=Path, help="a file of JSON lines to go on from")
    parser.add_argument("--save", nargs=2, metavar=("NUMBER", "FOLDER"), help="write one damaged file's files there")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.worker:
        work()
        return 0
    if options.save is not None:
        return _save(options.seed, int(options.save[0]), Path(options.save[1]))
    return 1 if run(files, options.files, options.seed, options.log, options.processes).failures else 0


def _save(seed: int, number: int, target: Path) -> int:
    from fuzz.damage import damaged

    with tempfile.TemporaryDirectory() as folder:
        what, content = damaged([seed, number], Path(folder))
    print(what)
    for name, data in content.items():
        (target / name).write_bytes(data)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

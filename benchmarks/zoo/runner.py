"""Run workers: a forked process a model, limits on CPU time and memory, several at a time."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import lines
from sources import source


@dataclass(frozen=True)
class Limits:
    """What one model may take: CPU seconds, bytes of address space; how many run at a time; the routes."""

    seconds: int
    memory: int
    jobs: int
    routes: tuple[str, ...] = ("fx", "onnx")


class OverTime(BaseException):
    """The CPU time is spent; no ``except Exception`` of a library takes it for its own."""


@dataclass
class _Running:
    process: Any
    pipe: Connection
    key: lines.Key
    started: float
    stage: str = "start"


def run(
    tool: str,
    library: str,
    results: Path,
    limits: Limits,
    wanted: Callable[[lines.Key], bool],
    first: int | None = None,
    everything: bool = False,
) -> None:
    """Measure the wanted models among the first so many of a library, and append their lines.

    Args:
        everything: the names beyond a full run, too.
    """
    found = source(library)
    _warm(tool)
    found.prepare()
    context = multiprocessing.get_context("fork")
    names = list(dict.fromkeys([*found.names(), *(found.rest() if everything else ())]))[:first]
    keys = [key for name in names if wanted(key := (tool, library, name))]
    running: dict[Connection, _Running] = {}
    done = 0
    while keys or running:
        while keys and len(running) < limits.jobs:
            key = keys.pop(0)
            mine, theirs = context.Pipe(duplex=False)
            process = context.Process(target=_work, args=(theirs, key, limits))
            process.start()
            theirs.close()
            running[mine] = _Running(process, mine, key, time.monotonic())
        for pipe in wait(list(running), timeout=10):
            assert isinstance(pipe, Connection)
            job = running[pipe]
            try:
                said = pipe.recv()
            except EOFError:
                job.process.join()
                kind = found.kind(job.key[2])
                said = {"killed": _death(job.process.exitcode), "kind": kind, "stage": job.stage}
            if isinstance(said, str):
                job.stage = said
                continue
            job.process.join()
            del running[pipe]
            done += 1
            tool_, library_, model = job.key
            line = {"tool": tool_, "source": library_, "model": model, **said}
            lines.append(results, lines.joined(lines.read(results).get(job.key), line))
            print(f"{done}/{done + len(keys) + len(running)} {library_} {model}: {_summary(line)}", flush=True)
        for job in list(running.values()):
            if time.monotonic() - job.started > 20 * limits.seconds:  # it sleeps, which costs no CPU time
                job.process.kill()


def _warm(tool: str) -> None:
    """Import what every worker needs before it is forked."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    import torch

    torch.set_num_threads(1)
    import compiled_operators

    compiled_operators.define()
    import onnxruntime  # noqa: F401
    import onnxscript  # noqa: F401
    import torch.export
    import torch.onnx
    import worker  # noqa: F401

    if tool == "torch-pruning":
        import torch_pruning  # noqa: F401


def _work(pipe: Connection, key: lines.Key, limits: Limits) -> None:
    """In the child: measure, and send what was found."""
    import worker

    resource.setrlimit(resource.RLIMIT_CPU, (limits.seconds, limits.seconds + 30))
    resource.setrlimit(resource.RLIMIT_AS, (limits.memory, limits.memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    stage = ["start"]

    def late(*_: Any) -> None:
        raise OverTime

    def tell(what: str) -> None:
        stage[0] = what
        pipe.send(what)

    signal.signal(signal.SIGXCPU, late)
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    tool, library, model = key
    try:
        found = worker.measure(tool, library, model, limits.routes, tell)
    except OverTime:
        found = {"killed": f"over {limits.seconds} CPU seconds", "stage": stage[0]}
    except MemoryError:
        found = {"killed": f"over {limits.memory / 2**30:.0f} GiB", "stage": stage[0]}
    except Exception as error:
        found = {"killed": f"{type(error).__name__}: {error}"[:300], "stage": stage[0]}
    pipe.send(found)
    pipe.close()
    sys.stdout.flush()
    os._exit(0)


def _death(code: int | None) -> str:
    if code is not None and code < 0:
        return f"ended by {signal.Signals(-code).name}"
    return f"ended with status {code}"


def _summary(line: lines.Line) -> str:
    if "unbuildable" in line:
        return f"not built: {line['unbuildable'][:160]}"
    if "killed" in line:
        return f"{line['killed']} while it was at {line['stage']}"
    if "routes" not in line:
        return line.get("outcome", "?") + " " + str(line.get("error", ""))[:160]
    parts = []
    for route, row in line["routes"].items():
        share = f" {row['prunable'] / max(row['parameters'], 1):.1%}" if "prunable" in row else ""
        said = (
            row.get("said")
            or (row.get("error") if row["outcome"] == "not captured" else "")
            or row.get("given back", "")
        )
        parts.append(f"{route} {row['outcome']}{share} {str(said)[:300]}".strip())
    return "; ".join(parts) + f"  [{sum(line['seconds'].values()):.1f} s]"

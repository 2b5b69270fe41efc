"""One model, one tool, in one process: everything that is measured, as plain data."""

from __future__ import annotations

import gc
import logging
import resource
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cut import at_heads
from halving import RandomHalf
from layers import kind_of_layers
from perturb import perturb
from sources import Made, UnbuildableError, source

import ozgraph
from ozgraph.errors import ModelError, OzgraphError, VerificationError
from ozgraph.graph import Graph
from ozgraph.passes.eliminate import Eliminate
from ozgraph.passes.manager import Pipeline
from ozgraph.passes.prove_dead import ProveDead
from ozgraph.passes.verify import Verify

Stage = Callable[[str], None]
"""Told what begins, so that a worker which is killed has a last word."""


class Clock:
    """CPU seconds of this process, by stage."""

    def __init__(self, tell: Stage) -> None:
        self.seconds: dict[str, float] = {}
        self._tell = tell

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        self._tell(stage)
        gc.collect()
        started = time.process_time()
        try:
            yield
        finally:
            self.seconds[stage] = round(time.process_time() - started, 4)


def measure(tool: str, library: str, name: str, routes: Sequence[str], tell: Stage) -> dict[str, Any]:
    """What a tool does with a model.

    Args:
        routes: of ozgraph: ``fx``, ``onnx`` or both.

    Returns:
        ``built``: None or why the library could not; ``parameters``; ``routes`` of ozgraph, or what a peer did.
    """
    quiet()
    clock = Clock(tell)
    found: dict[str, Any] = {"kind": source(library).kind(name)}
    try:
        with clock("build"):
            made = built(library, name)
    except UnbuildableError as error:
        return {**found, "unbuildable": str(error)}
    except Exception as error:
        return {**found, "unbuildable": _said(error)}
    if made.module is not None:
        found["parameters"] = sum(parameter.numel() for parameter in made.module.parameters())
    if tool == "ozgraph":
        found.update(_ozgraph(made, routes, clock, tell))
    else:
        import peers

        theirs = peers.PEERS[tool](made, clock)
        found.update({key: _anywhere(said) if key == "error" else said for key, said in theirs.items()})
    found["seconds"] = clock.seconds
    found["memory"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return found


def quiet() -> None:
    """No progress, warnings or logs of the libraries between the lines."""
    warnings.simplefilter("ignore")
    logging.disable(logging.ERROR)


def built(library: str, name: str) -> Made:
    """A model with random, perturbed weights, and inputs on which it runs."""
    import torch

    torch.manual_seed(0)
    made = source(library).make(name)
    if made.module is not None:
        perturb(made.module, made.args, made.kwargs).requires_grad_(False)
    return made


def _ozgraph(made: Made, wanted: Sequence[str], clock: Clock, tell: Stage) -> dict[str, Any]:
    if made.path is not None:
        return {"routes": {"onnx": _route("onnx", lambda: ozgraph.load(made.path), clock, tell)}}
    routes: dict[str, Any] = {}
    found: dict[str, Any] = {"routes": routes}
    graph: Graph | None = None
    problem: Exception | None = None
    with clock("fx capture"):
        try:
            graph = ozgraph.capture(made.module, made.args, made.kwargs)
        except Exception as error:
            problem = error
    if graph is None:
        with clock("fx cut"):
            try:
                heads, where = at_heads(made.module, made.args, made.kwargs)
                graph = ozgraph.capture(heads.eval(), made.args, made.kwargs)
                made, found["cut"] = Made(heads, made.args, made.kwargs), where
            except Exception as error:
                found["cut failed"] = _said(error)
    if graph is None:
        assert problem is not None
        routes["fx"] = {"outcome": "not captured", "error": _said(problem)}
    elif "fx" in wanted:
        captured = graph
        routes["fx"] = _route("fx", lambda: captured, clock, tell)
    program = graph.origin.program if graph is not None else None
    if "onnx" not in wanted:
        return found
    routes["onnx"] = _exported(made, program, clock, tell)
    return found


def _exported(made: Made, program: Any, clock: Clock, tell: Stage) -> dict[str, Any]:
    """The route through torch's ONNX exporter: of the captured program, else by tracing; the first file that runs."""
    import torch

    with tempfile.TemporaryDirectory(prefix="ozgraph-zoo-") as folder:
        path = Path(folder) / "model.onnx"
        problems: list[str] = []
        for way in ("dynamo", "dynamo, not optimized", "tracing") if program is not None else ("tracing",):
            dynamo = {"optimize": way == "dynamo", "external_data": _large(made), "verbose": False}
            try:
                with clock("onnx export"), torch.no_grad():
                    torch.onnx.export(
                        made.module if way == "tracing" else program, made.args, str(path), kwargs=made.kwargs or None,
                        dynamo=way != "tracing", **({} if way == "tracing" else dynamo),
                    )  # fmt: skip
            except Exception as error:
                problems.append(_said(error))
                continue
            with clock("onnx run"):
                refused = _refused(path)
            if refused is None:
                return {**_route("onnx", lambda: ozgraph.load(path), clock, tell), "exporter": way}
            problems.append(f"onnxruntime does not run what the exporter wrote: {refused}")
        return {"outcome": "not captured", "error": problems[0]}


def _refused(path: Path) -> str | None:
    """Why onnxruntime does not run a file on inputs of its shapes; None where it does, or where that is not known."""
    from ozgraph.numerics.inputs import make_inputs
    from ozgraph.numerics.sessions import open_session

    try:
        session = open_session(path, threads=1)
    except Exception as error:
        return _said(error)
    try:
        graph = ozgraph.load(path)
        feeds = make_inputs(graph, {value.name: value.shape for value in graph.inputs if value.shape is not None}, 0)
    except Exception:  # to be said where it is measured
        return None
    try:
        session.run(feeds)
    except Exception as error:
        return _said(error)
    return None


def _large(made: Made) -> bool:
    return sum(p.numel() * p.element_size() for p in made.module.parameters()) > 1 << 30


def _route(route: str, load: Callable[[], Graph], clock: Clock, tell: Stage) -> dict[str, Any]:
    """Analyze, remove a random half, verify."""
    found: dict[str, Any] = {"outcome": "failed", "stage": "load"}
    try:
        with clock(f"{route} load"):
            graph = load()
        found["stage"] = "analyze"
        with clock(f"{route} analyze"):
            analysis = ozgraph.analyze(graph, rescale=True)
        report, state = analysis.report, analysis.state
        found["operators"], found["layers"] = len(graph.ops), kind_of_layers(graph)
        found["parameters"], found["prunable"] = report.parameters, report.prunable_parameters
        found["rescaled"] = sum(family.exactness == "rescaled" for family in report.families)
        found["families"] = len(report.families)
        found["frozen"] = [
            [row.reason, row.operator, row.parameters, row.slots]
            for row in report.frozen
            if row.parameters or row.slots
        ][:12]
        found["unknown"] = report.unknown_operators
        found["stage"] = "rewrite"
        steps = (RandomHalf(), ProveDead(), Eliminate())
        with clock(f"{route} rewrite"):
            Pipeline(steps[:1]).run(state)
            chosen = state.chosen.total
            Pipeline(steps[1:]).run(state)
        found["stage"] = "verify"
        with clock(f"{route} verify"):
            Pipeline([Verify(redo=steps)]).run(state)
        assert state.verification is not None and state.cost is not None
        found["error"] = state.verification.max_relative_error
        found["limit"] = state.verification.limit
        found["removed"] = state.removed.total
        found["parameters after"] = state.cost.parameters(state.removed)
        if state.given_back:
            found["outcome"] = "given back"
            found["given back"] = [[row.reason, row.operator, row.slots] for row in state.given_back][:5]
        elif not state.removed:
            found["outcome"] = "nothing to remove"
        elif chosen > state.removed.total:
            found["outcome"] = "not all removed"
            found["left"] = chosen - state.removed.total
        else:
            found["outcome"] = "ok"
        del found["stage"]
    except Exception as error:
        if isinstance(error, ModelError) and found["stage"] == "verify":  # the program is not the model
            return {"outcome": "not captured", "error": _said(error)}
        found["said"] = _said(error)
        found["unexpected"] = not isinstance(error, OzgraphError) or isinstance(error, VerificationError)
    return found


def _said(error: BaseException) -> str:
    """One line: its type and what it says, with the last cause where the exporter wraps one."""
    while error.__cause__ is not None and not isinstance(error, OzgraphError):
        error = error.__cause__
    words = " ".join(str(error).split())
    return _anywhere(f"{type(error).__name__}: {words}")[:400]


def _anywhere(words: str) -> str:
    """Files by their place in what is installed, in this project or in the temporary folder: lines are committed."""
    roots = {str(Path(folder)) for folder in (*sys.path, Path(__file__).parents[2], tempfile.gettempdir()) if folder}
    for root in sorted(roots - {"/", "."}, key=len, reverse=True):
        words = words.replace(f"{root}/", "")
    return words

"""Many random models: half of every active family removed, against the original zeroed by hand.

From the ``tests`` folder: ``python -m fuzz.campaign --graphs 2000 --seed 0``. With ``--log`` a run that was stopped
goes on where it was.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fuzz.graphs import build
from fuzz.judge import judged, saved
from fuzz.numbered import run
from fuzz.recipes import random_recipe, shrunk

WHOLE = 100
"""One in this many graphs also goes through ``ozgraph.prune`` and its verification."""


def graphs(seed: int, first: int, last: int) -> dict[str, Any]:
    """Judge the graphs with these numbers."""
    counts: Counter[str] = Counter()
    line: dict[str, Any] = {"families": 0, "slots_removed": 0, "operators": 0, "through_prune": 0, "worst": 0.0}
    failures = []
    for number in range(first, last):
        recipe = random_recipe([seed, number])
        whole = number % WHOLE == WHOLE - 1
        verdict = judged(recipe, whole=whole)
        counts[verdict.outcome] += 1
        line["families"] += verdict.families
        line["slots_removed"] += verdict.removed
        line["operators"] += len(build(recipe).model.graph.node)
        line["through_prune"] += whole
        if verdict.wrong:
            failures.append({"graph": number, "outcome": verdict.outcome, "detail": verdict.detail[:300]})
        else:
            line["worst"] = max(line["worst"], verdict.error)
    return {"counts": dict(counts), "failures": failures, **line}


def show(seed: int, number: int, folder: Path | None) -> None:
    """Print a graph, its verdict, and the smallest recipe found that has the same."""
    recipe = random_recipe([seed, number])
    verdict = judged(recipe, whole=True)
    print(build(recipe).layers, verdict)
    if verdict.wrong:
        recipe = shrunk(recipe, lambda candidate: judged(candidate, whole=True).outcome == verdict.outcome)
        print(build(recipe).layers, judged(recipe, whole=True))
    print(asdict(recipe))
    for node in build(recipe).model.graph.node:
        print(f"    {node.op_type}({', '.join(node.input)}) -> {', '.join(node.output)}")
    if folder is not None:
        saved(recipe, folder, f"graph{number}")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m fuzz.campaign", description=__doc__.splitlines()[0])
    parser.add_argument("--graphs", type=int, default=1000, help="how many graphs (default 1000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--log", type=Path, help="a file of JSON lines to go on from")
    parser.add_argument("--show", type=int, metavar="NUMBER", help="one graph, shrunk where it fails")
    parser.add_argument("--save", type=Path, metavar="FOLDER", help="with --show: write the model there")
    options = parser.parse_args(arguments)
    if options.show is not None:
        show(options.seed, options.show, options.save)
        return 0
    return 1 if run(graphs, options.graphs, options.seed, options.log, options.processes).failures else 0


if __name__ == "__main__":
    raise SystemExit(main())

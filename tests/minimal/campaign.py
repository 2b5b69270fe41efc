"""Groups of random small models against the exhaustive search.

From the ``tests`` folder: ``python -m minimal.campaign --graphs 300 --seed 0``. With ``--log`` a run that was stopped
goes on where it was.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx

from fuzz.graphs import build
from fuzz.numbered import run
from fuzz.recipes import Recipe, random_recipe
from minimal.groups import COARSE, analysed, groups, judged
from minimal.machine import Machine, UnsupportedError
from models.building import Array
from models.feeding import feeds
from models.rows import ROWS

STEPS = 7
"""So many steps of a random recipe, which makes about ten operators."""

GRAPHS_IN_TESTS = 12

LARGEST_GROUP = 40
"""Groups of more slices are left out: most subsets of them would not be tried."""


def recipe_of(seed: int, number: int) -> Recipe:
    """A short recipe."""
    recipe = random_recipe([seed, number])
    return replace(recipe, steps=recipe.steps[:STEPS])


def graphs(seed: int, first: int, last: int) -> dict[str, Any]:
    """The groups of the random graphs with these numbers: the first and the last slot of every family."""
    made = ((number, build(recipe_of(seed, number))) for number in range(first, last))
    return _line([(number, graph.model, graph.inputs(1)) for number, graph in made], 2)


def rows(seed: int, first: int, last: int) -> dict[str, Any]:
    """The groups of the small models with these numbers in alphabetical order: the first slot of every family."""
    names = sorted(ROWS)[first:last]
    models = [(name, ROWS[name]()) for name in names]
    return _line([(name, model, feeds(model, seed + 3)) for name, model in models], 1)


def _line(models: Sequence[tuple[object, onnx.ModelProto, Mapping[str, Array]]], slots: int) -> dict[str, Any]:
    counts: Counter[str] = Counter()
    failures = []
    states = slices = 0
    for label, model, inputs in models:
        try:
            machine = Machine(model)
            found = list(groups(analysed(model), slots))
        except UnsupportedError as error:
            counts[f"not followed: {error}"] += 1
            continue
        for one in found:
            if len(one.slices) > LARGEST_GROUP:
                counts["large"] += 1
                continue
            try:
                verdict = judged(machine, inputs, one)
            except UnsupportedError as error:
                counts[f"not followed: {error}"] += 1
                continue
            counts[verdict.outcome] += 1
            states += verdict.states
            slices += len(one.slices)
            if verdict.outcome == COARSE:
                part = sorted(verdict.part)[:8]
                failures.append({"model": label, "family": one.family, "slot": one.slot, "part": part})
    return {"counts": dict(counts), "failures": failures, "slices": slices, "states": states}


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m minimal.campaign", description=__doc__.splitlines()[0])
    parser.add_argument("--graphs", type=int, default=300, help="how many graphs (default 300)")
    parser.add_argument("--rows", action="store_true", help="all small models of the tests instead")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--log", type=Path, help="a file of JSON lines to go on from")
    options = parser.parse_args(arguments)
    chunk, cases = (rows, len(ROWS)) if options.rows else (graphs, options.graphs)
    return 1 if run(chunk, cases, options.seed, options.log, options.processes, size=10).failures else 0


if __name__ == "__main__":
    raise SystemExit(main())

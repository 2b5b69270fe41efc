"""Where a model's results hang on rounding: the best of two boxes whose scores are all but one number, say.

A smaller model adds up fewer zeros, and so rounds otherwise. That may tip a choice which the original makes by less
than its rounding, and everything behind the choice is then another result, however right the smaller model is. So where
two models differ, the original is asked on which inputs it tips by itself: its weights are moved by up to two roundings
each, and then the other way, for one of the two pushes any choice toward its edge.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ozgraph.errors import OzgraphError
from ozgraph.numerics.measure import NOISE_CEILING, gap, is_real, liveliness, mismatch
from ozgraph.numerics.precision import nudged
from ozgraph.numerics.runners import Engine, Feeds, root, run_all

PAIRS = 3
"""How many times weights are moved, there and back."""


@dataclass(frozen=True, slots=True)
class Tipping:
    """What a model does not reproduce once its weights are rounded otherwise.

    Attributes:
        runs: indexes of inputs for which a floating output moves by more than rounding may.
        loose: outputs of integers that change for other inputs, where no floating one moves: a class map, say, in which
            two classes have all but the same score somewhere.
    """

    runs: frozenset[int]
    loose: frozenset[str]


def tipping(
    path: Path, engine: Engine, runs: Sequence[Feeds], outputs: Collection[str], folder: Path, seed: int = 0
) -> Tipping:
    """Ask a model how it takes other roundings of its weights.

    Args:
        outputs: of the model itself.
        folder: for twins of the model, each gone once it ran.
        seed: of the moves.
    """
    originals = run_all(engine, path, (), runs)
    tipped: set[int] = set()
    leaps: dict[int, set[str]] = {}
    for pair in range(PAIRS):
        for sign in (1, -1):
            twin = nudged(path, folder, seed * PAIRS + pair, sign)
            try:
                repeats = run_all(engine, twin, (), runs)
            except OzgraphError:
                return Tipping(frozenset(), frozenset())  # a twin that does not load says nothing
            finally:
                twin.unlink(missing_ok=True)
                twin.with_name(twin.name + ".data").unlink(missing_ok=True)
            for key in dict.fromkeys(key for one in originals if not isinstance(one, OzgraphError) for key in one):
                for run in _moved(key, originals, repeats):
                    first = originals[run]
                    if isinstance(first, OzgraphError) or (key in first and is_real(first[key])):
                        tipped.add(run)
                    else:
                        leaps.setdefault(run, set()).add(root(key, outputs))
    loose = {name for run, names in leaps.items() if run not in tipped for name in names}
    return Tipping(frozenset(tipped), frozenset(loose))


def _moved(key: str, originals: Sequence[Mapping[str, Any] | OzgraphError], repeats: Sequence[Any]) -> list[int]:
    """The runs in which a tensor is another one, by more than the noise above which it is no evidence."""
    seen = {run: one[key] for run, one in enumerate(originals) if not isinstance(one, OzgraphError) and key in one}
    alive = liveliness(list(seen.values()))
    found = []
    for run, repeat in enumerate(repeats):
        other = None if isinstance(repeat, OzgraphError) else repeat.get(key)
        if run not in seen or other is None:
            moved = run in seen or other is not None
        elif mismatch(seen[run], other) is not None:
            moved = True
        else:
            once = [other if each == run else array for each, array in seen.items()]
            moved = alive.spread > 0 and gap(list(seen.values()), once, alive, NOISE_CEILING, moving=True).severity > 1
        if moved:
            found.append(run)
    return found

"""Where a model's results hang on rounding: the best of two boxes whose scores are all but one number, say.

A smaller model adds up fewer zeros, and so rounds otherwise. That may tip a choice which the original makes by less
than its rounding, and everything behind the choice is then another result, however right the smaller model is. So where
two models differ, the original is asked on which inputs it tips by itself: its weights are moved by up to two roundings
each, and then the other way, for one of the two pushes any choice toward its edge.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from ozgraph.errors import ModelError, OzgraphError
from ozgraph.numerics.measure import NOISE_CEILING, gap, is_real, liveliness, mismatch
from ozgraph.numerics.precision import nudged
from ozgraph.numerics.runners import Engine, Feeds, Tensors, root, run_all

PAIRS = 3
"""How many times weights are moved, there and back."""

CANDIDATES = 4
"""How many other inputs are tried in place of one that tips."""


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


@dataclass(frozen=True, slots=True)
class Shaken:
    """A model whose weights are rounded otherwise.

    Attributes:
        path: of the model.
        engine: how it runs.
        outputs: its own.
        folder: for its twins, each gone once it ran.
        seed: of the moves.
    """

    path: Path
    engine: Engine
    outputs: Collection[str]
    folder: Path
    seed: int = 0

    def tipping(self, runs: Sequence[Feeds]) -> Tipping:
        """On which inputs it tips; nothing where a twin does not load."""
        originals = run_all(self.engine, self.path, (), runs)
        keys = dict.fromkeys(key for one in originals if not isinstance(one, OzgraphError) for key in one)
        tipped: set[int] = set()
        leaps: dict[int, set[str]] = {}
        for repeats in self._repeats(runs):
            for key in keys:
                for run in _moved(key, originals, repeats):
                    first = originals[run]
                    if isinstance(first, OzgraphError) or (key in first and is_real(first[key])):
                        tipped.add(run)
                    else:
                        leaps.setdefault(run, set()).add(root(key, self.outputs))
        loose = {name for run, names in leaps.items() if run not in tipped for name in names}
        return Tipping(frozenset(tipped), frozenset(loose))

    def steadied(
        self, runs: Sequence[Feeds], loose: frozenset[str], another: Callable[[Feeds], Feeds] | None
    ) -> tuple[list[Feeds], frozenset[str]] | None:
        """Inputs and loose outputs by which it is steady; None where nothing changes, or something tips for good.

        Args:
            loose: outputs known to be so.
            another: makes other inputs of the same shapes; None where those that there are stand for themselves.
        """
        found = self.tipping(runs)
        if not found.runs:
            return None if found.loose <= loose else (list(runs), loose | found.loose)
        if another is None or len(found.runs) == len(runs):  # where all inputs tip, others will
            return None
        places = sorted(found.runs) * CANDIDATES
        others = [another(runs[place]) for place in places]
        shaken = self.tipping(others).runs
        calm = {
            place: feeds
            for number, (place, feeds) in enumerate(zip(places, others, strict=True))
            if number not in shaken
        }
        if len(calm) < len(found.runs):
            return None
        return [calm.get(run, feeds) for run, feeds in enumerate(runs)], loose | found.loose

    def _repeats(self, runs: Sequence[Feeds]) -> Iterator[Sequence[Tensors | OzgraphError]]:
        """The runs with weights moved, there and back."""
        for pair in range(PAIRS):
            for sign in (1, -1):
                try:
                    with TemporaryDirectory(dir=self.folder) as room:
                        twin = nudged(self.path, Path(room), self.seed * PAIRS + pair, sign)
                        yield run_all(self.engine, twin, (), runs)
                except ModelError:
                    return


def _moved(
    key: str, originals: Sequence[Tensors | OzgraphError], repeats: Sequence[Tensors | OzgraphError]
) -> list[int]:
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

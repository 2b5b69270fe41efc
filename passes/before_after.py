"""What became of the families in a pruned model: read from the shapes of its weights of the same name."""

from __future__ import annotations

from collections import Counter

from ozgraph.dims import Atom, resolve
from ozgraph.errors import UsageError
from ozgraph.graph import Graph
from ozgraph.passes.state import State
from ozgraph.results import WidthRow


def widths_in(state: State, smaller: Graph) -> tuple[WidthRow, ...]:
    """Slots that every family has left in ``smaller``; families of which no weight is found there are left out.

    Raises:
        UsageError: it is no smaller form of the analysed model: weights are not there, or are larger.
    """
    rows: list[WidthRow] = []
    for family in state.families:
        found: Counter[int] = Counter()
        for value, axis in family.slices:
            there = smaller.values.get(value.name)
            whole = resolve(state.axes[value][axis])
            if isinstance(whole, Atom) and there is not None and there.shape is not None and there.rank == value.rank:
                found[there.shape[axis]] += 1
        if found:
            kept = found.most_common(1)[0][0]
            if kept > family.atom.size:
                raise UsageError(
                    f"{smaller.name}: {family.dim} has {kept} slots there, {family.atom.size} in {state.graph.name}; "
                    "give the model that was made smaller from this one"
                )
            rows.append(WidthRow(family.id, family.dim, family.atom.size, kept))
    if state.families and not rows:
        raise UsageError(
            f"{smaller.name}: has no weight in common with {state.graph.name}; give the model that was made smaller "
            "from this one"
        )
    return tuple(rows)

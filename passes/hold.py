"""Take families back out of a selection: what cannot be rewritten or does not verify stays as it is."""

from __future__ import annotations

from collections.abc import Iterable

from ozgraph.dims import Atom, Reason
from ozgraph.passes.state import Removal, State
from ozgraph.results import FrozenRow


def only(state: State, removal: Removal, atoms: Iterable[Atom]) -> Removal:
    """The slots of ``removal`` that belong to ``atoms``."""
    restricted = Removal(state.dims.total)
    for atom in atoms:
        restricted.add(atom, removal.mask(atom))
    return restricted


def give_back(state: State, atom: Atom, why: str) -> None:
    """Freeze a dim with a reason, take it out of the selection, and put it on record."""
    family = next((family for family in state.families if family.atom is atom), None)
    dim = family.dim if family is not None else state.weight_atoms[atom][0][0].name
    state.given_back.append(FrozenRow(f"{dim}: {why}", family.id if family is not None else "", atom.size, 0))
    if family is not None:
        family.held = why
    state.dims.freeze(atom, Reason(why))
    state.forget_atoms()
    state.chosen = state.chosen.without(only(state, state.chosen, (atom,)))

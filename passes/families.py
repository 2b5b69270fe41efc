"""Families of groups as a pipeline works on them, and the graph of how they hang together."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ozgraph.dims import Atom
from ozgraph.graph import Value

if TYPE_CHECKING:
    import networkx as nx

    from ozgraph.passes.state import State


@dataclass(frozen=True, slots=True)
class Member:
    """A weight axis whose slices are zeroed with the group."""

    value: Value
    axis: int
    role: str


@dataclass(eq=False, slots=True)
class Family:
    """All the groups of one dim.

    Attributes:
        id: stable from run to run.
        atom: its dim.
        exactness: how a group may go: ``exact``, ``folded``, ``consumers`` or ``rescaled``.
        members: what is zeroed, slot by slot.
        slices: every weight axis that shrinks, members or not.
        slow: a norm over it would be emitted decomposed.
        active: whether a default run prunes it.
        overlaps: families that share a tensor axis with it.
        held: why selection leaves it alone (excluded, given back by verification); None when it does not.
    """

    id: str
    atom: Atom
    exactness: str
    members: tuple[Member, ...]
    slices: tuple[tuple[Value, int], ...]
    slow: bool = False
    active: bool = True
    overlaps: list[Family] = field(default_factory=list)
    held: str | None = None

    @property
    def dim(self) -> str:
        """The tensor that the dim is best known by."""
        return self.members[0].value.name

    @property
    def names(self) -> list[str]:
        """Its id, the weights that shrink with it, and the operators that use them."""
        return [self.id, *names_of(value for value, _ in self.slices)]

    def __repr__(self) -> str:
        return f"Family({self.id}, {self.dim}, {self.atom.size} slots, {self.exactness})"


def names_of(weights: Iterable[Value]) -> list[str]:
    """Names of weights and of the operators that use them, each once."""
    return list(dict.fromkeys(name for value in weights for name in (value.name, *(op.name for op, _ in value.uses))))


def group_graph(state: State) -> nx.MultiGraph[str]:
    """Families and weights as a networkx graph.

    Nodes are family ids (``kind="family"``) and tensor names (``kind="weight"``). Edges run from a family to every
    weight axis that shrinks with it (attributes ``axis`` and ``role``; role is None for axes that are only sliced) and
    between families that overlap (``kind="overlap"``).
    """
    import networkx as nx

    graph: nx.MultiGraph[str] = nx.MultiGraph(name=state.graph.name)
    for family in state.families:
        graph.add_node(
            family.id, kind="family", size=family.atom.size, exactness=family.exactness, active=family.active
        )
    for family in state.families:
        roles = {(member.value, member.axis): member.role for member in family.members}
        for value, axis in family.slices:
            graph.add_node(value.name, kind="weight", shape=value.shape)
            graph.add_edge(family.id, value.name, kind="slice", axis=axis, role=roles.get((value, axis)))
        for other in family.overlaps:
            if not graph.has_edge(family.id, other.id):
                graph.add_edge(family.id, other.id, kind="overlap")
    return graph

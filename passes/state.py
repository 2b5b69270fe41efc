"""What a pipeline works on: the graph and everything that passes have found out about it so far."""

from __future__ import annotations

from collections import Counter
from collections.abc import KeysView
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ozgraph.dims import Atom, Dim, Dims, Ids, resolve
from ozgraph.graph import Graph, Op, Value
from ozgraph.passes.bound import Bound
from ozgraph.passes.roles import Roles
from ozgraph.plan import Plan
from ozgraph.rules.parameters import Encoding, encoding

if TYPE_CHECKING:
    from ozgraph.passes.cost import CostModel
    from ozgraph.passes.families import Family
    from ozgraph.results import FrozenRow, VerifyReport

Mask = npt.NDArray[np.bool_]

_NO_ATOMS: KeysView[Atom] = {}.keys()


class Removal:
    """A set of slots to leave out, over all atoms of a model: one flag an id.

    >>> from ozgraph.dims import Dims
    >>> dims = Dims()
    >>> atom = dims.atom(3)
    >>> removal = Removal(dims.total)
    >>> removal.add(atom, np.array([True, False, False]))
    >>> removal.keep(dims.ids(atom)).tolist()
    [False, True, True]
    """

    def __init__(self, total: int) -> None:
        # One spare flag at the end, never set: it answers for the id NOTHING.
        self._gone: Mask = np.zeros(total + 1, dtype=bool)

    def copy(self) -> Removal:
        """An independent copy."""
        made = Removal(0)
        made._gone = self._gone.copy()
        return made

    def mask(self, atom: Atom) -> Mask:
        """Which slots of ``atom`` are gone (a copy)."""
        gone: Mask = self._gone[atom.base : atom.base + atom.size].copy()
        return gone

    def add(self, atom: Atom, mask: Mask) -> None:
        """Remove further slots of ``atom``."""
        self._gone[atom.base : atom.base + atom.size] |= mask

    def give_back(self, slots: Ids) -> None:
        """Keep the slots with these ids after all."""
        self._gone[slots[slots >= 0]] = False

    def without(self, other: Removal) -> Removal:
        """These slots less the ones of ``other``."""
        made = self.copy()
        made._gone[other._gone] = False
        return made

    def keep(self, table: Ids) -> Mask:
        """Which positions of an axis stay: those all of whose slots do."""
        gone: Mask = np.any(self._gone[table], axis=1)
        return ~gone

    def count(self, atom: Atom) -> int:
        """How many slots of ``atom`` are gone."""
        return int(self._gone[atom.base : atom.base + atom.size].sum())

    @property
    def total(self) -> int:
        """How many slots are gone."""
        return int(self._gone.sum())

    def __bool__(self) -> bool:
        return bool(self._gone.any())


@dataclass
class State:
    """Everything known about one model; passes read what they require and add what they ensure.

    Attributes:
        graph: never changed by passes.
        dims: the solver with every atom, equation and frozen slot.
        axes: dims of every axis of every value that an operator with real data touches.
        takes: (operator, operand position) -> the dims of a use that takes its own slots of a value that stays whole;
            on axes where it does not, they are the value's own.
        bound: rules applied, by operator.
        unknown: operators without a rule, with their number.
        shrinkable: inputs and outputs of the model that may shrink.
        families: the groups found, one family an atom.
        chosen: slots whose groups count as zero (selection's answer; nothing for plain elimination).
        removed: slots that are proved dead and go.
        folded: those of them that carry a constant into a bias.
        plan: the rewrite.
        verification: how the comparison went.
        module: the pruned module that verification ran; of captured graphs only.
        given_back: families that verification or elimination froze.
        scanned: what every position of a constant's axis consists of in the file, NaN where that differs; shared by
            trials of the same model.
        facts: names of what has been established; passes check and extend it.
    """

    graph: Graph
    dims: Dims = field(default_factory=Dims)
    axes: dict[Value, tuple[Dim, ...]] = field(default_factory=dict)
    takes: dict[tuple[Op, int], tuple[Dim, ...]] = field(default_factory=dict)
    bound: dict[Op, Bound] = field(default_factory=dict)
    unknown: Counter[str] = field(default_factory=Counter)
    shrinkable: frozenset[Value] = frozenset()
    families: list[Family] = field(default_factory=list)
    cost: CostModel | None = None
    chosen: Removal = field(default_factory=lambda: Removal(0))
    removed: Removal = field(default_factory=lambda: Removal(0))
    folded: Removal = field(default_factory=lambda: Removal(0))
    plan: Plan = field(default_factory=Plan)
    verification: VerifyReport | None = None
    module: Any = None
    given_back: list[FrozenRow] = field(default_factory=list)
    scanned: dict[tuple[Value, int], npt.NDArray[np.float64]] = field(default_factory=dict, repr=False)
    facts: set[str] = field(default_factory=set)
    timings: dict[str, float] = field(default_factory=dict)

    def atoms(self, value: Value, axis: int) -> KeysView[Atom]:
        """The atoms with a free slot that an axis runs through (valid once dims are certified), outermost first."""
        dims = self.axes.get(value)
        return _NO_ATOMS if dims is None else self.atoms_of(dims[axis])

    def atoms_of(self, dim: Dim) -> KeysView[Atom]:
        """The atoms with a free slot that a dim runs through, outermost first; remembered by dim."""
        known = self._atoms.get(dim)
        if known is None:
            top, free = resolve(dim), self._free
            if isinstance(top, Atom):
                known = {top: None}.keys() if top in free else _NO_ATOMS
            elif top in self._atoms:
                known = self._atoms[top]
            else:
                known = {atom: None for atom in self.dims.atoms_of(top) if atom in free}.keys()
            self._atoms[top] = self._atoms[dim] = known
        return known

    @cached_property
    def live(self) -> dict[Value, tuple[tuple[int, KeysView[Atom]], ...]]:
        """The axes of every value with a free slot, and the atoms that have them (valid once dims are certified)."""
        found = {}
        known = self._atoms
        for value, dims in self.axes.items():
            axes = []
            for axis, dim in enumerate(dims):
                atoms = known.get(dim)
                if atoms is None:
                    atoms = self.atoms_of(dim)
                if atoms:
                    axes.append((axis, atoms))
            if axes:
                found[value] = tuple(axes)
        return found

    @cached_property
    def _atoms(self) -> dict[Dim, KeysView[Atom]]:
        return {}

    @cached_property
    def _free(self) -> set[Atom]:
        return self.dims.free_atoms()

    def forget_atoms(self) -> None:
        """Drop remembered atoms after slots were frozen."""
        for name in ("_atoms", "_free", "live"):
            self.__dict__.pop(name, None)

    @cached_property
    def parameters(self) -> dict[Value, Encoding]:
        """The constants that are parameters, quantised ones included, with how their elements stand for numbers.

        What nothing reads is none: captured programs hold all weights of a module, whichever part of it ran.
        """
        returned = set(self.graph.outputs)
        found = {value: encoding(value) for value in self.graph.constants if value.uses or value in returned}
        return {value: how for value, how in found.items() if how is not None}

    @cached_property
    def producers(self) -> dict[Atom, list[tuple[Value, int]]]:
        """For every atom of :attr:`weight_atoms`, the weight axes that make its slots; all of a group but consumers."""
        roles = Roles(self)
        return {atom: roles.producers(atom) for atom in self.weight_atoms}

    @cached_property
    def weight_atoms(self) -> dict[Atom, tuple[tuple[Value, int], ...]]:
        """For every atom with a free slot, the weight axes that run through it (valid once dims are certified)."""
        found: dict[Atom, list[tuple[Value, int]]] = {}
        for value, axes in self.live.items():
            if value in self.parameters:
                for axis, atoms in axes:
                    for atom in atoms:
                        found.setdefault(atom, []).append((value, axis))
        return {atom: tuple(places) for atom, places in found.items()}

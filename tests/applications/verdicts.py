"""What becomes of every axis of an application: its slots are removed and compared with zeros, or refused, and why.

The original runs once for every set of zeros in one session, its weights being inputs as well; what is pruned has a
session of its own. Distances are those of ozgraph's verification: over the spread of the output, limit 1e-5 or three
noise floors.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import onnx
import onnx_ir as ir
from onnx import helper

import ozgraph
from applications.application import DATA, Application
from applications.engines import RUNTIME, Runner
from applications.models import Made, around
from models.building import Array
from ozgraph.backends.onnx import apply
from ozgraph.graph import Value
from ozgraph.numerics.measure import gap, liveliness, mismatch, spread
from ozgraph.passes.eliminate import Eliminate
from ozgraph.passes.families import Family
from ozgraph.passes.freeze import Freeze
from ozgraph.passes.group import Group
from ozgraph.passes.infer_dims import InferDims
from ozgraph.passes.manager import Pipeline
from ozgraph.passes.normalize import Normalize
from ozgraph.passes.prove_dead import ProveDead
from ozgraph.passes.select import Select
from ozgraph.passes.state import Removal, State

LIMIT = 1e-5
SEEDS = (1, 2)

NO_SLOTS = "no slots"
UNREAD = "unread"
REFUSED = "refused: "
TOLD = "it holds numbers known before a run"


@dataclass(frozen=True)
class Verdict:
    """What becomes of one axis.

    Attributes:
        removable: how the groups of its families may go (``exact``, ...), outermost first; ``unread`` for slots that no
            weight makes. Empty where none may go.
        reasons: why slots stay, where some do.
        slots: whether the axis has any.
    """

    removable: tuple[str, ...]
    reasons: tuple[str, ...]
    slots: bool = True

    def __str__(self) -> str:
        if not self.slots:
            return NO_SLOTS
        going = ", ".join(self.removable)
        if not self.reasons:
            return going
        return f"{going}; the rest {self._why}" if going else self._why

    @property
    def _why(self) -> str:
        return REFUSED + "; ".join(self.reasons)


class Analysed:
    """One model around an application, and what ozgraph finds in it."""

    def __init__(self, application: Application, mode: str, *, beside: bool = False) -> None:
        self.application = application
        self.mode = mode
        self.made: Made = around(application, mode, beside=beside)
        self.state = State(ozgraph.load(self.made.model))
        Pipeline((Normalize(), InferDims(), Freeze(), Group(rescale=True)), verify_each=True).run(self.state)
        self._compared: set[frozenset[Family]] = set()

    def operand(self, position: int) -> Value | None:
        """The tensor at a position; None where it is left out or folded away."""
        return self.state.graph.values.get(self.made.operands[position])

    def verdict(self, position: int, axis: int) -> Verdict:
        """What ozgraph says of an axis."""
        value, size = self.operand(position), self._size(position, axis)
        if size < 2:
            return Verdict((), (), slots=False)
        if value is None or value not in self.state.axes:
            return Verdict((), (TOLD,))
        dim = self.state.axes[value][axis]
        table = self.state.dims.ids(dim, frozen=True)
        numbers = self.state.dims.frozen_reason(table[table >= 0])
        reasons = {self.state.dims.reasons[number].text for number in np.unique(numbers[numbers >= 0]).tolist()}
        by_atom = {family.atom: family for family in self.state.families}
        atoms = self.state.atoms(value, axis)
        removable = [by_atom[atom].exactness if atom in by_atom else UNREAD for atom in atoms]
        return Verdict(tuple(removable), tuple(sorted(reasons)))

    def _size(self, position: int, axis: int) -> int:
        operand = self.application.operands[position]
        assert operand is not None
        return operand.shape[axis]

    def families(self, position: int, axis: int) -> list[Family]:
        """The families that run through an axis, outermost first."""
        value = self.operand(position)
        if value is None:
            return []
        by_atom = {family.atom: family for family in self.state.families}
        return [by_atom[atom] for atom in self.state.atoms(value, axis) if atom in by_atom]

    def check_axis(self, position: int, axis: int) -> None:
        """Half of the slots of what runs through an axis go: of each family alone and of all together.

        Models whose operands are all computed are pruned family by family; in the others, all families go at once.
        """
        here = self.families(position, axis)
        if self.mode != DATA:
            self.check(self.state.families)
            return
        for family in here:
            self.check([family])
        if len(here) > 1:
            self.check(here)

    def check(self, families: Sequence[Family]) -> None:
        """Half of the slots of these families go, and what is left is the original with the same groups at zero.

        Raises:
            AssertionError: something stayed, or the models differ.
        """
        key = frozenset(families)
        if key not in self._compared:
            self._compare(families)
            self._compared.add(key)

    def _compare(self, families: Sequence[Family]) -> None:
        state = self.state
        for family in state.families:
            family.active = family in families
        left = {family: max(int(state.dims.free_slots(family.atom).sum()) // 2, 1) for family in families}
        state.chosen = Removal(state.dims.total)
        for family, mask in Select(criterion="random", round_to=1).rank(state).blocks:
            if left[family]:
                left[family] -= 1
                state.chosen.add(family.atom, mask)
        Pipeline((ProveDead(), Eliminate())).run(state)
        assert not state.given_back, [row.reason for row in state.given_back]
        for family in families:
            chosen = state.chosen.mask(family.atom)
            assert chosen.any() and not (chosen & ~state.removed.mask(family.atom)).any(), f"{family} keeps slots"
        small = ir.to_proto(apply(state.graph, state.plan))
        for tensor in small.graph.output:
            assert tensor.type == next(
                other.type for other in self.made.model.graph.output if other.name == tensor.name
            ), "the signature changed"
        inputs = [self.made.inputs(seed) for seed in SEEDS]
        try:
            runner = Runner(small, self.made.engine)
            found = [runner(feeds) for feeds in inputs]
        except Exception as error:  # either engine has errors of its own
            raise AssertionError(f"what is pruned does not run: {error}") from error
        zeroed = self._zeroed()
        wanted = [self._original({**feeds, **zeroed}) for feeds in inputs]
        for number, (originals, others) in enumerate(
            zip(zip(*wanted, strict=True), zip(*found, strict=True), strict=True)
        ):
            self._judge(number, originals, others, zeroed)

    def _judge(
        self, number: int, originals: Sequence[Array], others: Sequence[Array], zeroed: dict[str, Array]
    ) -> None:
        for original, other in zip(originals, others, strict=True):
            assert mismatch(original, other) is None, mismatch(original, other)
        moving = spread(originals) > 0
        found = gap(originals, others, liveliness(originals), LIMIT, moving=moving)
        if found.error > found.limit and self.made.engine == RUNTIME:
            # Only now is the noise worth a session.
            repeats = [self._optimized({**self.made.inputs(seed), **zeroed})[number] for seed in SEEDS]
            alive = liveliness(originals, zip(originals, repeats, strict=True))
            found = gap(originals, others, alive, LIMIT, moving=moving)
        assert found.error <= found.limit, f"result {number} differs by {found.error:.1e} of its spread"

    @cached_property
    def varies(self) -> bool:
        """Whether an output depends on the inputs."""
        runs = [self._original({**self.made.inputs(seed), **self.made.weights}) for seed in SEEDS]
        return any(spread(arrays) > 0 for arrays in zip(*runs, strict=True))

    def _zeroed(self) -> dict[str, Array]:
        """The weights with the chosen groups at zero, made without ozgraph's backend."""
        state = self.state
        arrays = dict(self.made.weights)
        for family in state.families:
            gone = set((family.atom.base + np.flatnonzero(state.chosen.mask(family.atom))).tolist())
            for member in family.members if gone else ():
                table = state.dims.ids(state.axes[member.value][member.axis])
                positions = [row for row, ids in enumerate(table.tolist()) if gone.intersection(ids)]
                array = arrays[member.value.name] = arrays[member.value.name].copy()
                np.moveaxis(array, member.axis, 0)[positions] = self.made.zeros.get(member.value.name, 0)
        return arrays

    @cached_property
    def _original(self) -> Runner:
        return Runner(_with_weights_as_inputs(self.made), self.made.engine)

    @cached_property
    def _optimized(self) -> Runner:
        return Runner(_with_weights_as_inputs(self.made), self.made.engine, optimize=True)


def _with_weights_as_inputs(made: Made) -> onnx.ModelProto:
    model = onnx.ModelProto()
    model.CopyFrom(made.model)
    for name, array in made.weights.items():
        kind = helper.np_dtype_to_tensor_dtype(array.dtype)
        model.graph.input.append(helper.make_tensor_value_info(name, kind, array.shape))
    return model


@lru_cache(maxsize=8)
def analysed(application: Application, mode: str) -> Analysed:
    """The model of an application in a mode, kept while its axes are tested."""
    return Analysed(application, mode)


def axes_of(application: Application) -> Iterator[tuple[int, int]]:
    """(operand, axis) of every axis of every operand."""
    for position, operand in enumerate(application.operands):
        if operand is not None:
            for axis in range(len(operand.shape)):
                yield position, axis

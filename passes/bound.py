"""A rule applied to one operator: what its letters stand for, and where slots go and are combined."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ozgraph.dims import Dim
from ozgraph.graph import Op, Value
from ozgraph.passes.layout import Flows, Place
from ozgraph.passes.program import Combination, Program
from ozgraph.rules.rule import Reduction, Rule, Spec


@dataclass(slots=True, eq=False)
class Site:
    """A place where an operator combines the slots of a dim.

    Attributes:
        letter: the letter of the operator's rule.
        dim: what the letter stands for.
        operands: every occurrence among the operands.
        results: recurrent occurrences among the results, whose zero makes the term vanish as well.
    """

    op: Op
    letter: str
    dim: Dim
    reduction: Reduction
    operands: tuple[Place, ...]
    results: tuple[Place, ...] = ()

    @property
    def occurrences(self) -> list[tuple[Value, int]]:
        """The tensors and axes that are combined."""
        operands = [(self.op.inputs[number], axis) for number, axis in self.operands]
        results = [(self.op.outputs[number], axis) for number, axis in self.results]
        return [(value, axis) for value, axis in (*operands, *results) if value is not None]


@dataclass(slots=True, eq=False)
class Bound:
    """A rule applied to one operator.

    Attributes:
        program: what the rule comes down to for operators of these shapes.
        dims: the dims that the program speaks of, by number.
    """

    op: Op
    rule: Rule
    program: Program
    dims: Sequence[Dim]

    @property
    def spec(self) -> Spec:
        """What the rule said."""
        return self.program.spec

    @property
    def flows(self) -> Flows:
        """For each result and each of its axes, the (operand, axis) pairs whose slots end up there."""
        return self.program.flows

    @property
    def env(self) -> Mapping[str, Dim]:
        """Letter -> dim."""
        dims = self.dims
        return {name: dims[number] for name, number in self.program.letters.items()}

    def dim(self, letter: str) -> Dim:
        """What a letter stands for."""
        return self.dims[self.program.letters[letter]]

    @property
    def sites(self) -> tuple[Site, ...]:
        """Where slots are combined."""
        return tuple([self.site(combination) for combination in self.program.combinations])

    def site(self, found: Combination) -> Site:
        """One of the places where slots are combined."""
        return Site(self.op, found.letter, self.dims[found.number], found.reduction, found.operands, found.results)

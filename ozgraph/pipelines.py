"""The passes that the commands are made of, in order, and how a pipeline of them is run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from ozgraph.given import globs_of
from ozgraph.passes.cost import Cost
from ozgraph.passes.eliminate import Eliminate
from ozgraph.passes.freeze import Freeze
from ozgraph.passes.group import Group
from ozgraph.passes.hold_finite import HoldFinite
from ozgraph.passes.infer_dims import InferDims
from ozgraph.passes.manager import Pass, Pipeline, Progress, as_pass, insert
from ozgraph.passes.normalize import Normalize
from ozgraph.passes.prove_dead import ProveDead
from ozgraph.passes.select import Select
from ozgraph.passes.state import State
from ozgraph.passes.verify import Verify

UserPass = Pass | type[Pass] | str
AllowIo = bool | str | Iterable[str]

PIPELINE: tuple[type[Pass], ...] = (
    Normalize,
    InferDims,
    Freeze,
    Group,
    Cost,
    HoldFinite,
    Select,
    ProveDead,
    Eliminate,
    Verify,
)
"""The passes of ``ozgraph prune``, in order."""


def analysis(*, rescale: bool = False, allow_io: AllowIo = False) -> tuple[Pass, ...]:
    """The passes that find groups and what they cost."""
    return (Normalize(), InferDims(), Freeze(allow_io=allowed(allow_io)), Group(rescale=rescale), Cost())


def allowed(allow_io: AllowIo) -> tuple[str, ...]:
    """Names and globs of inputs and outputs that may shrink."""
    if isinstance(allow_io, bool):
        return ("*",) if allow_io else ()
    return globs_of(allow_io)


def with_passes(steps: Sequence[Pass], extra: Iterable[UserPass]) -> list[Pass]:
    """``steps`` with a user's own passes where their contracts put them."""
    return insert(steps, [as_pass(item) for item in extra])


def run(
    steps: Sequence[Pass],
    state: State,
    verify_each: bool = False,
    print_after: Iterable[str] = (),
    progress: Progress | None = None,
) -> None:
    """Run passes on a state, each checked and printed as asked."""
    wanted = set(print_after)
    after: Callable[[Pass, State], None] | None = None
    if wanted:
        from ozgraph.passes.dump import dump_after

        after = dump_after(wanted)
    Pipeline(steps, verify_each=verify_each, after=after, progress=progress).run(state)


def elimination(freeze: Freeze) -> tuple[Pass, ...]:
    """The passes that find what is dead and remove it; verification comes after them."""
    return (Normalize(), InferDims(), freeze, Cost(), HoldFinite(), ProveDead(), Eliminate())


def after_a_choice(steps: Iterable[Pass]) -> tuple[Pass, ...]:
    """Of the passes of an elimination, those that run again once a family is out of the question."""
    return tuple(step for step in steps if step.requires & {"certified", "dead", "plan"})

"""The pass manager: contracts, order, timing, checks, dumps, and passes of one's own."""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from types import ModuleType
from typing import ClassVar

import onnx
import pytest

import ozgraph
from models.building import Net
from ozgraph.errors import PassError, UsageError
from ozgraph.passes.cost import Cost
from ozgraph.passes.eliminate import Eliminate
from ozgraph.passes.freeze import Freeze
from ozgraph.passes.group import Group
from ozgraph.passes.infer_dims import InferDims
from ozgraph.passes.manager import Pass, Pipeline, as_pass, insert
from ozgraph.passes.normalize import Normalize
from ozgraph.passes.prove_dead import ProveDead
from ozgraph.passes.select import Select
from ozgraph.passes.state import State
from ozgraph.pipelines import PIPELINE


def model() -> onnx.ModelProto:
    net = Net("two_layers")
    x = net.op("Relu", net.linear(net.input("x", (4, 6)), 6, 10, name="fc1"))
    return net.build(net.linear(x, 10, 3, name="fc2"))


def state() -> State:
    return State(ozgraph.load(model()))


@dataclass(frozen=True)
class Counting(Pass):
    """A user's pass: notes that it ran."""

    name: ClassVar[str] = "counting"
    requires: ClassVar[frozenset[str]] = frozenset({"certified"})
    ensures: ClassVar[frozenset[str]] = frozenset({"counted"})

    def run(self, state: State) -> bool:
        state.facts.add(f"counted behind {','.join(sorted(state.timings))}")
        return False


@dataclass(frozen=True)
class HoldEverything(Pass):
    """A user's pass that changes the outcome: no family is active."""

    name: ClassVar[str] = "hold_everything"
    requires: ClassVar[frozenset[str]] = frozenset({"families"})

    def run(self, state: State) -> bool:
        for family in state.families:
            family.active = False
        return True


@dataclass(frozen=True)
class BreaksItsPromise(Pass):
    """A user's pass whose check fails."""

    name: ClassVar[str] = "breaks_its_promise"

    def run(self, state: State) -> bool:
        return False

    def check(self, state: State) -> None:
        raise PassError("the promise is broken")


@dataclass(frozen=True)
class NeedsAnOption(Pass):
    """A pass that cannot be made without arguments."""

    name: ClassVar[str] = "needs_an_option"
    wanted: int

    def run(self, state: State) -> bool:
        return False


class NotAPass:
    """Something else."""


# -- contracts -------------------------------------------------------------------------------------------------------


def test_a_pass_that_runs_before_what_it_requires_is_refused_by_name() -> None:
    with pytest.raises(PassError, match="pass 'freeze' requires dims, which no earlier pass of the pipeline ensures"):
        Pipeline((Normalize(), Freeze())).run(state())


def test_everything_that_is_missing_is_named() -> None:
    with pytest.raises(PassError, match="requires certified, dead"):
        Pipeline((Eliminate(),)).run(state())


def test_a_fact_holds_only_once_its_pass_has_run() -> None:
    found = state()
    Pipeline((Normalize(), InferDims())).run(found)
    assert found.facts == {"normalized", "dims"}
    Pipeline((Freeze(),)).run(found)
    assert "certified" in found.facts


def test_every_pass_of_the_pipeline_requires_only_what_earlier_ones_ensure() -> None:
    known: set[str] = set()
    for step in PIPELINE:
        assert step.requires <= known, step.name
        known |= step.ensures


def test_every_pass_has_a_name_and_says_what_it_does() -> None:
    assert len({step.name for step in PIPELINE}) == len(PIPELINE)
    assert all((step.__doc__ or "").strip() for step in PIPELINE)


def test_each_pass_is_timed_under_its_name_in_order() -> None:
    timings = ozgraph.analyze(model()).report.timings
    assert list(timings) == ["normalize", "infer_dims", "freeze", "group", "cost"]
    assert all(seconds >= 0 for seconds in timings.values())


def test_a_pass_that_runs_twice_adds_up(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = count()
    monkeypatch.setattr("ozgraph.passes.manager.time.perf_counter", lambda: float(next(clock)))
    assert Pipeline((Normalize(), Normalize())).run(state()).timings == {"normalize": 2.0}


def test_progress_hears_of_every_pass_before_it_runs() -> None:
    told: list[tuple[str, int | None, int | None]] = []
    Pipeline((Normalize(), InferDims()), progress=lambda *said: told.append(said)).run(state())
    assert told == [("normalize", 0, 2), ("infer_dims", 1, 2)]


# -- checks and dumps ------------------------------------------------------------------------------------------------


def test_verify_each_runs_every_check() -> None:
    Pipeline((BreaksItsPromise(),)).run(state())
    with pytest.raises(PassError, match="the promise is broken"):
        Pipeline((BreaksItsPromise(),), verify_each=True).run(state())


def test_verify_each_passes_on_a_sound_pipeline() -> None:
    assert ozgraph.analyze(model(), verify_each=True).families


def test_the_check_of_freeze_is_the_certificate() -> None:
    found = Pipeline((Normalize(), InferDims(), Freeze())).run(state())
    a, b = found.dims.atom(4), found.dims.atom(4)
    found.dims.equations.append((a, b, None))
    with pytest.raises(PassError, match="the certificate of the dims does not hold"):
        Freeze().check(found)


def test_the_check_of_normalize_is_the_order_of_operators() -> None:
    found = state()
    found.graph.ops = found.graph.ops[::-1]
    with pytest.raises(PassError, match="before anything computes it"):
        Normalize().check(found)


def test_the_check_of_eliminate_finds_an_empty_axis() -> None:
    found = Pipeline((Normalize(), InferDims(), Freeze(), ProveDead(), Eliminate())).run(state())
    found.plan.shapes[found.graph.values["fc1.weight"]] = (0, 6)
    with pytest.raises(PassError, match=r"left an axis of 'fc1.weight' without positions: \(0, 6\)"):
        Eliminate().check(found)


def test_print_after_prints_the_graph_with_its_dims_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    ozgraph.analyze(model(), print_after=["freeze", "group"])
    printed = capsys.readouterr()
    assert printed.out == ""
    assert [line for line in printed.err.splitlines() if line.startswith("after ")] == ["after freeze:", "after group:"]
    assert "f0: 10 slots of fc1.weight, exact" in printed.err
    assert "= Relu(" in printed.err


def test_print_after_an_unknown_pass_lists_the_known_ones() -> None:
    with pytest.raises(UsageError, match=r"no pass 'fuse' to print after; there are .*freeze.*group"):
        ozgraph.analyze(model(), print_after=["fuse"])


# -- passes of one's own ---------------------------------------------------------------------------------------------


def test_a_users_pass_goes_right_behind_what_it_requires() -> None:
    steps: Sequence[Pass] = insert((Normalize(), InferDims(), Freeze(), Group()), [Counting()])
    assert [step.name for step in steps] == ["normalize", "infer_dims", "freeze", "counting", "group"]


def test_a_users_pass_without_requirements_goes_first() -> None:
    assert [step.name for step in insert((Normalize(),), [BreaksItsPromise()])] == ["breaks_its_promise", "normalize"]


@pytest.mark.parametrize("given", [Counting(), Counting, f"{__name__}:Counting"])
def test_a_pass_is_taken_as_an_instance_a_class_or_by_module_and_class(
    given: Pass | type[Pass] | str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, __name__, _this_module())
    found = ozgraph.analyze(model(), passes=[given]).state
    assert {"counted", "counted behind freeze,infer_dims,normalize"} <= found.facts


def _this_module() -> ModuleType:
    module = ModuleType(__name__)
    module.__dict__.update(globals())
    return module


def test_a_pass_is_taken_by_the_name_of_an_installed_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    class Entry:
        name = "counting"

        @staticmethod
        def load() -> type[Pass]:
            return Counting

    def entry_points(*, group: str) -> list[type[Entry]]:
        assert group == "ozgraph.passes"
        return [Entry]

    monkeypatch.setattr("ozgraph.passes.manager.entry_points", entry_points)
    assert as_pass("counting") == Counting()
    with pytest.raises(
        UsageError, match=r"no pass 'other'; write module:Class, or .* installed one: there are counting"
    ):
        as_pass("other")


def test_without_installed_passes_an_unknown_name_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ozgraph.passes.manager.entry_points", lambda group: importlib.metadata.EntryPoints())
    with pytest.raises(UsageError, match="none is installed"):
        as_pass("counting")


def test_a_users_pass_may_change_the_outcome() -> None:
    steps = insert((Normalize(), InferDims(), Freeze(), Group(), Cost(), Select()), [HoldEverything()])
    with pytest.raises(UsageError, match=r"at most 0\.0% can be removed"):
        Pipeline(steps).run(state())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("no_such_module:Class", "cannot be imported: No module named 'no_such_module'"),
        ("math:Class", "cannot be imported: module 'math' has no attribute 'Class'"),
        ("math:pi", "'math:pi' is not a pass class"),
        (NeedsAnOption, "cannot be made without arguments"),
        (NotAPass, "is not a pass; it must be a subclass of ozgraph.passes.manager.Pass"),
    ],
)
def test_what_cannot_be_a_pass_is_refused_with_the_cause(given: object, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        as_pass(given)  # type: ignore[arg-type]
    assert message in str(caught.value)


def test_passes_are_values() -> None:
    assert Group(rescale=True) == Group(rescale=True)
    assert Group(rescale=True) != Group()
    with pytest.raises(AttributeError):
        Group().rescale = True  # type: ignore[misc]

"""The command line: what it passes on, what it prints, and how it leaves."""

from __future__ import annotations

import dataclasses
import inspect
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import click
import pytest

import ozgraph
from ozgraph import cli
from ozgraph.cli.arguments import Drifting, Reading, Running, parse_shape
from ozgraph.cli.options import options_of
from ozgraph.errors import ModelError, UsageError, VerificationError
from ozgraph.passes.select import Select
from ozgraph.results import AnalysisReport, BenchReport, FamilyRow, MemberRow, PruneReport, VerifyReport, WidthRow

ANALYSIS = AnalysisReport(
    model="net.onnx",
    parameters=1000,
    macs=20_000,
    prunable_parameters=900,
    families=(
        FamilyRow("f0", "conv.weight", 8, 8, "exact", True, (), 50, 900, (MemberRow("conv.weight", 0, "producer"),)),
    ),
    frozen=(),
    unknown_operators={},
    timings={"infer_dims": 0.25},
)
PRUNING = PruneReport(
    model="net.onnx",
    parameters_before=1000,
    parameters_after=500,
    macs_before=20_000,
    macs_after=9_000,
    removed_slots=4,
    max_relative_error=2e-7,
    noise_floor=1e-7,
    limit=1e-5,
    frozen_by_verification=(),
    output="small.onnx",
    widths=(WidthRow("f0", "conv.weight", 8, 4),),
)
EQUAL = VerifyReport(max_relative_error=2e-7, noise_floor=1e-7, limit=1e-5, compared=("logits",), runs=6)
DIFFERENT = VerifyReport(0.5, 1e-7, 1e-5, ("logits",), 1, failure="logits differ by 0.5")
BENCH = BenchReport("a.onnx", "b.onnx", 2.0, 1.0, 2.0, 1.9, 2.1, rounds=30, threads=2)


@dataclass
class Calls:
    """A stand-in for the Python API that remembers what it was asked."""

    arguments: tuple[Any, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    failure: BaseException | None = None
    agreement: VerifyReport = EQUAL

    def answering(self, answer: Callable[[], Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            self.arguments, self.options = arguments, options
            if self.failure is not None:
                raise self.failure
            return answer()

        return call


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Calls:
    calls = Calls()
    fake = SimpleNamespace(
        analyze=calls.answering(lambda: SimpleNamespace(report=ANALYSIS)),
        prune=calls.answering(lambda: SimpleNamespace(report=PRUNING)),
        eliminate=calls.answering(lambda: SimpleNamespace(report=PRUNING)),
        verify=calls.answering(lambda: calls.agreement),
        bench=calls.answering(lambda: BENCH),
        Target=lambda **fractions: fractions,
    )
    monkeypatch.setitem(sys.modules, "ozgraph.api", fake)
    monkeypatch.setattr(ozgraph, "api", fake, raising=False)
    return calls


RUNS = {
    "analyze": ["analyze", "net.onnx"],
    "prune": ["prune", "net.onnx", "-o", "small.onnx", "--target-macs", "0.5"],
    "eliminate": ["eliminate", "net.onnx", "-o", "small.onnx"],
    "verify": ["verify", "net.onnx", "small.onnx"],
    "bench": ["bench", "net.onnx", "small.onnx"],
}


@pytest.mark.parametrize("command", RUNS)
def test_a_command_that_succeeds_prints_on_stdout_only(
    command: str, api: Calls, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(RUNS[command]) == 0
    captured = capsys.readouterr()
    assert captured.out
    assert captured.err == ""
    assert "\x1b" not in captured.out, "colours belong on a terminal"


@pytest.mark.parametrize(
    ("command", "keys"),
    [
        (
            "analyze",
            "model parameters macs prunable_parameters families frozen unknown_operators timings",
        ),
        (
            "prune",
            "parameters_before parameters_after macs_before macs_after removed_slots max_relative_error noise_floor "
            "frozen_by_verification output",
        ),
        ("eliminate", "parameters_before parameters_after removed_slots output"),
        ("verify", "max_relative_error noise_floor limit compared runs failure"),
        ("bench", "first second first_ms second_ms ratio ratio_low ratio_high rounds threads"),
    ],
)
def test_json_has_its_keys(command: str, keys: str, api: Calls, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run([*RUNS[command], "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert set(keys.split()) <= set(document)


def test_json_of_analyze_has_the_documented_keys_in_every_family(
    api: Calls, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.run(["analyze", "net.onnx", "--json"])
    (family,) = json.loads(capsys.readouterr().out)["families"]
    assert {"id", "dim", "size", "exactness", "parameters_per_slot", "macs_per_slot", "members"} <= set(family)
    assert set(family["members"][0]) == {"tensor", "axis", "role"}


def test_json_is_strict_where_an_error_is_not_a_number(api: Calls, capsys: pytest.CaptureFixture[str]) -> None:
    api.agreement = VerifyReport(float("nan"), float("inf"), 1e-5, (), 0, failure="nothing to compare")
    cli.run(["verify", "a", "b", "--json"])
    document = json.loads(capsys.readouterr().out)
    assert document["max_relative_error"] is None
    assert document["noise_floor"] is None


def test_options_reach_the_api(api: Calls) -> None:
    arguments = "--criterion random --seed 3 --normalise global --round-to 4 --min-kept 2 --include conv* --exclude fc*"
    more = "--exclude head.* --rescale --allow-io --inputs x.npz --exact --thorough --shape x=1x3x8x8 --shape n="
    last = "--simplify --pass mine:Pass --verify-each --print-after group"
    assert cli.run([*RUNS["prune"], *arguments.split(), *more.split(), *last.split()]) == 0
    assert api.arguments == ("net.onnx", "small.onnx")
    assert api.options == {
        "target": {"macs": 0.5},
        "criterion": "random",
        "seed": 3,
        "normalise": "global",
        "uniform": False,
        "round_to": 4,
        "min_kept": 2,
        "max_drift": None,
        "include": ("conv*",),
        "exclude": ("fc*", "head.*"),
        "rescale": True,
        "allow_io": ("*",),
        "inputs": Path("x.npz"),
        "exact": True,
        "thorough": True,
        "shapes": {"x": (1, 3, 8, 8), "n": ()},
        "simplify": True,
        "passes": ("mine:Pass",),
        "verify_each": True,
        "print_after": ("group",),
        "progress": None,
    }


@pytest.mark.parametrize(
    ("flag", "name"),
    [
        ("--target-macs", "macs"),
        ("--target-params", "parameters"),
        ("--target-groups", "groups"),
        ("--target-latency", "latency"),
    ],
)
def test_each_target_has_its_flag(flag: str, name: str, api: Calls) -> None:
    assert cli.run(["prune", "a", "-o", "b", flag, "0.25"]) == 0
    assert api.options["target"] == {name: 0.25}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["prun"], "did you mean 'prune'"),
        (["prune"], "MODEL"),
        (["prune", "a", "--target-macs", "0.5"], "--output"),
        (["prune", "a", "-o", "b"], "--target-macs"),
        (["prune", "a", "-o", "b", "--target-macs", "0.5", "--target-params", "0.5"], "exactly one of"),
        (["prune", "a", "-o", "b", "--target-macs", "0.5", "--max-drift", "1"], "exactly one of"),
        (["prune", "a", "-o", "b", "--target-macs", "1"], "--target-macs"),
        (["prune", "a", "-o", "b", "--target-macs", "half"], "half"),
        (["prune", "a", "-o", "b", "--taget-macs", "0.5"], "--target-macs"),
        (["prune", "a", "-o", "b", "--target-macs", "0.5", "--criterion", "l3"], "l3"),
        (["prune", "a", "-o", "b", "--target-macs", "0.5", "--round-to", "eight"], "--round-to"),
        (["analyze", "a", "--shape", "x=1xa"], "name=1x3x224x224"),
        (["analyze", "a", "b"], "b"),
        (["bench", "a", "b", "--rounds", "0"], "--rounds"),
    ],
)
def test_bad_usage_is_one_clear_line_and_status_2(
    arguments: list[str], message: str, api: Calls, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("ozgraph: ")
    assert captured.err.count("\n") == 1
    assert message in captured.err


@pytest.mark.parametrize(
    ("failure", "status", "message"),
    [
        (ModelError("net.onnx: truncated\nafter 12 bytes"), 2, "net.onnx: truncated after 12 bytes"),
        (UsageError("the output is the input"), 2, "the output is the input"),
        (VerificationError("family f3 differs"), 1, "family f3 differs"),
        (OSError(28, "No space left on device", "small.onnx"), 2, "small.onnx: No space left on device"),
        (MemoryError(), 2, "out of memory"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (ZeroDivisionError("division by zero"), 70, "internal error: ZeroDivisionError"),
    ],
)
@pytest.mark.parametrize("command", RUNS)
def test_failures_are_one_line_without_traceback(
    command: str,
    failure: BaseException,
    status: int,
    message: str,
    api: Calls,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("OZGRAPH_TRACEBACK", raising=False)
    api.failure = failure
    assert cli.run(RUNS[command]) == status
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err
    assert captured.err.strip().count("\n") == 0
    assert "Traceback" not in captured.err


def test_models_that_differ_are_reported_with_status_1(api: Calls, capsys: pytest.CaptureFixture[str]) -> None:
    api.agreement = DIFFERENT
    assert cli.run(RUNS["verify"]) == 1
    assert "logits differ by 0.5" in capsys.readouterr().out
    assert cli.run([*RUNS["verify"], "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["failure"] == "logits differ by 0.5"


def test_without_a_command_the_help_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run([]) == 0
    assert "prune" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "shape"),
    [("x=1x3", ("x", (1, 3))), ("a=b:0=2", ("a=b:0", (2,))), ("scalar=", ("scalar", ())), ("0", None), ("x=-1", None)],
)
def test_shapes_are_read_from_the_right(text: str, shape: tuple[str, tuple[int, ...]] | None) -> None:
    if shape is None:
        with pytest.raises(ValueError, match="name=1x3"):
            parse_shape(text)
    else:
        assert parse_shape(text) == shape


@dataclass(frozen=True)
class Example:
    """Fields of every kind that has a command line form."""

    size: int = field(default=3, metadata={"help": "A number.", "min": 1, "max": 9})
    share: float | None = field(default=None, metadata={"help": "Perhaps a number."})
    kind: Literal["a", "b"] = field(default="a", metadata={"help": "One of two."})
    colour: str = field(default="red", metadata={"help": "One of these.", "choices": ("red", "blue")})
    names: tuple[str, ...] = field(default=(), metadata={"help": "Many.", "flag": "--name"})
    path: Path | None = field(default=None, metadata={"help": "A file."})
    careful: bool = field(default=True, metadata={"help": "On unless turned off."})
    fast: bool = field(default=False, metadata={"help": "Off unless turned on."})
    score: str | Callable[[int], float] = field(default="l2", metadata={"help": "A name, or in Python a function."})
    hidden: int = 0


def test_options_are_derived_from_the_fields_of_a_dataclass() -> None:
    @click.command()
    @options_of(Example, skip=("fast",))
    def command(**options: Any) -> None:
        click.echo(Example(**options))

    arguments = "--size 5 --share 0.5 --kind b --colour blue --name x --name y --path p --no-careful --score l1"
    assert [option.name for option in command.params] == [
        "size",
        "share",
        "kind",
        "colour",
        "names",
        "path",
        "careful",
        "score",
    ]
    with command.make_context("command", arguments.split()) as context:
        values = context.params
    assert Example(**values) == Example(5, 0.5, "b", "blue", ("x", "y"), Path("p"), False, score="l1")


def test_defaults_of_flags_are_the_defaults_of_the_fields() -> None:
    for cls in (Drifting, Reading, Running, Example):
        command = click.Command("command", params=[], callback=None)
        options_of(cls)(command)
        with command.make_context("command", []) as context:
            assert cls(**context.params) == cls()


def test_flags_of_the_selection_have_its_defaults(api: Calls) -> None:
    assert cli.run(RUNS["prune"]) == 0
    fields = {entry.name: entry.default for entry in dataclasses.fields(Select) if "help" in entry.metadata}
    assert {name: api.options[name] for name in fields} == fields


def test_a_field_without_a_command_line_form_is_refused() -> None:
    @dataclass(frozen=True)
    class Strange:
        thing: complex = field(default=0j, metadata={"help": "What could this be?"})

    with pytest.raises(TypeError, match="'parse'"):
        options_of(Strange)


@pytest.mark.parametrize("name", ["analyze", "prune", "eliminate", "verify", "bench"])
def test_every_flag_is_a_keyword_of_the_python_function(name: str) -> None:
    from ozgraph import api as real
    from ozgraph.numerics.bench import bench

    context = click.Context(cli.cli)
    command = cli.cli.get_command(context, name)
    assert command is not None
    own = {"macs", "parameters", "groups", "latency", "everything", "timings", "as_json", "quiet", "help"}
    own |= {"config", "print_config"}
    own |= {"page", "pruned", "dot", "annotate"}  # methods of what analyze returns
    flags = {option.name for option in command.params if isinstance(option, click.Option)} - own
    function = bench if name == "bench" else getattr(real, name)
    assert flags <= set(inspect.signature(function).parameters)


def test_a_reader_that_stops_early_is_no_error(tmp_path: Path) -> None:
    script = "import ozgraph.cli, sys; sys.exit(ozgraph.cli.run(['prune', '--help']))"
    process = subprocess.Popen(
        [sys.executable, "-c", script], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    errors = process.stderr.read()
    assert process.wait() == 0
    assert errors == b""

"""The page and what else is drawn: data, tables, metadata, Graphviz, notebooks, curves."""

from __future__ import annotations

import html.parser
import json
import math
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

import ozgraph
from models.building import Net
from models.shown import HOSTILE, hostile
from ozgraph import cli
from ozgraph.api import Analysis
from ozgraph.errors import UsageError
from ozgraph.frontends.scopes import scopes_of
from ozgraph.groups import Groups
from ozgraph.passes.picture import Order, Picture, picture_of
from ozgraph.passes.trainable import groups_of
from ozgraph.report.curve import curve
from ozgraph.report.html.document import embedded
from ozgraph.report.html.tree import WIDEST, tree_of
from ozgraph.results import as_json


def residual() -> onnx.ModelProto:
    """A stem and two residual blocks, named as torchvision names them."""
    net = Net("residual")
    stream = net.op("Relu", net.conv(net.input("x", (1, 3, 8, 8)), 3, 48, 3, name="stem"))
    for block in ("layer1.0", "layer1.1"):
        inner = net.op("Relu", net.conv(stream, 48, 40, 3, name=f"{block}.conv1"))
        stream = net.op("Add", stream, net.conv(inner, 40, 48, 3, name=f"{block}.conv2"))
    return net.build(net.conv(stream, 48, 4, 1, name="head"))


@pytest.fixture(scope="module")
def analysed() -> Analysis:
    return ozgraph.analyze(residual())


@pytest.fixture(scope="module")
def picture(analysed: Analysis) -> Picture:
    return picture_of(analysed.state)


def data_of(page: str) -> dict[str, object]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    data: dict[str, object] = json.loads(found[1])
    return data


def removed(order: Order, blocks: int, count: int) -> list[int]:
    """Slots of every family that the first blocks take."""
    gone = [0] * count
    for family, width in zip(order.families[:blocks], order.widths[:blocks], strict=True):
        gone[family] += width
    return gone


def test_costs_of_the_picture_are_those_of_the_report(analysed: Analysis, picture: Picture) -> None:
    for products, whole in ((picture.parameters, analysed.report.parameters), (picture.macs, analysed.report.macs)):
        sizes = (product.factor * math.prod(picture.axes[axis].size for axis in product.axes) for product in products)
        assert sum(sizes) // (1 if products is picture.parameters else picture.samples) == whole
    full = [analysed.families[count.family].atom.size for count in picture.counts]
    assert all(axis.kept.of(full) == axis.size for axis in picture.axes)


@pytest.mark.parametrize("criterion", ["l1", "l2"])
def test_the_order_of_the_picture_is_the_one_in_which_pruning_takes_slots(
    analysed: Analysis, picture: Picture, criterion: str
) -> None:
    order = next(order for order in picture.orders if order.criterion == criterion)
    done = ozgraph.prune(residual(), target=ozgraph.Target(macs=0.4), criterion=criterion).report
    kept = {row.id: row.kept for row in done.widths}
    expected = [row.size - kept.get(row.id, row.size) for row in analysed.report.families]
    count = len(analysed.families)
    assert expected in [removed(order, blocks, count) for blocks in range(len(order.families) + 1)]
    for family, bins in order.scores.items():
        assert len(bins) == analysed.families[family].atom.size


def test_every_frozen_axis_has_a_reason_that_the_report_has_as_well(analysed: Analysis, picture: Picture) -> None:
    rows = {(row.reason, row.operator) for row in analysed.report.frozen}
    frozen = [axis for axis in picture.axes if axis.reason >= 0]
    assert frozen
    weights = {
        axis for value, axes in zip(picture.values, picture.of_value, strict=True) if value.constant for axis in axes
    }
    for number, axis in enumerate(picture.axes):
        if axis.reason >= 0 and number in weights and not axis.families:
            text, operator, _ = picture.reasons[axis.reason]
            assert (text, operator) in rows


def test_scopes_come_from_notes_then_paths_then_weights_then_neighbours() -> None:
    net = Net("scopes")
    stream = net.op("Relu", net.conv(net.input("x", (1, 3, 8, 8)), 3, 4, 1, name="stem.0"))
    stream = net.op("Relu", net.conv(stream, 4, 4, 1, name="body"))
    model = net.build(net.op("Sigmoid", stream))
    for node in model.graph.node:
        node.name = "plain"
    nodes = list(model.graph.node)
    nodes[2].name = "/body/body.1/conv/Conv"
    nodes[4].metadata_props.add(key="pkg.torch.onnx.name_scopes", value="['', 'head', 'head.act', 'sigmoid']")
    found = list(scopes_of(ozgraph.load(model)).values())
    assert found == [("stem.0",), (), ("body", "1", "conv"), ("body", "1", "conv"), ("head", "act")]


def test_notes_that_are_no_list_of_names_are_passed_over() -> None:
    for note in ("[", "__import__('os')", "{'a': 1}", "[1, 2]", "[" * 10_000):
        net = Net("notes")
        model = net.build(net.op("Relu", net.input("x", (1, 3))))
        model.graph.node[0].name = "/a/b/Relu"
        model.graph.node[0].metadata_props.add(key="pkg.torch.onnx.name_scopes", value=note)
        assert list(scopes_of(ozgraph.load(model)).values()) == [("a", "b")]


def test_no_level_of_the_tree_is_wider_than_a_screen_and_no_operator_is_lost() -> None:
    scopes: list[tuple[str, ...]] = [("layers." + str(k // 7), "self_attn") for k in range(7 * 300)]
    scopes += [() for _ in range(3000)]
    tree = tree_of(scopes, [[number - 1] if number else [] for number in range(len(scopes))])
    children = [0] * len(tree.scopes)
    for number, (parent, _, _) in enumerate(tree.scopes):
        children[parent] += number > 0
        assert parent <= number
    for scope in tree.of_operator:
        children[scope] += 1
    assert max(children) <= WIDEST
    assert len(tree.of_operator) == len(scopes)


def test_a_module_that_is_used_in_many_places_is_no_scope() -> None:
    scopes = [("block", "conv"), ("block", "relu"), ("block", "conv2"), ("block", "relu")]
    tree = tree_of(scopes, [[], [0], [1], [2]])
    assert len(set(tree.of_operator)) == 1
    assert tree.labels == ("conv", "relu", "conv2", "relu")


class _Text(html.parser.HTMLParser):
    """What of a page is markup: names of elements and attributes; and its text outside of scripts."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.attributes: set[str] = set()
        self.said: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        if self.elements[-1:] not in (["script"], ["style"]):
            self.said.append(data)


def test_without_scripts_the_tables_say_it_all(analysed: Analysis) -> None:
    reader = _Text()
    page = analysed.to_html()
    reader.feed(page)
    said = " ".join(reader.said)
    for row in analysed.report.families:
        assert row.id in said
        assert row.dim in said
        assert f"{row.macs_per_slot:,}" in said
    assert all(row.reason in said for row in analysed.report.frozen)
    assert "layer1.1" in said
    assert page.index('id="tables"') < page.index('id="data"')


def test_a_page_fetches_nothing(analysed: Analysis) -> None:
    page = analysed.to_html()
    reader = _Text()
    reader.feed(page)
    assert {"link", "img", "iframe", "object", "base"}.isdisjoint(reader.elements)
    assert {"src", "href", "srcset", "action"}.isdisjoint(reader.attributes)
    assert "default-src 'none'" in page
    assert "sourceMappingURL" not in page
    for licence in ("Mike Bostock", "Chris Pettitt"):
        assert licence in page


def test_names_of_a_hostile_model_stay_text() -> None:
    analysis = ozgraph.analyze(hostile())
    page = analysis.to_html()
    harmless = _Text()
    harmless.feed(ozgraph.analyze(residual()).to_html())
    reader = _Text()
    reader.feed(page)
    assert set(reader.elements) == set(harmless.elements)
    assert reader.attributes == harmless.attributes
    assert "\x1b" not in page
    assert "\u202e" not in page
    names = [value[0] for value in data_of(page)["values"]]  # type: ignore[attr-defined]
    assert any(HOSTILE[0] in name for name in names), "the data keep names as they are"
    assert len(page) < 2_000_000


def test_embedded_data_cannot_end_their_element() -> None:
    nasty = ["</script>", "<!--", "\u2028", "]]>", "&amp;", math.nan]
    text = embedded(nasty)
    assert not set(text) & set("<>&\u2028")
    assert json.loads(text) == [*nasty[:-1], None]


def test_the_page_has_the_numbers_of_the_json(analysed: Analysis) -> None:
    data, report = data_of(analysed.to_html()), as_json(analysed.report)
    for key in ("model", "parameters", "macs", "prunable_parameters", "unknown_operators"):
        assert data[key] == report[key]
    for shown, row in zip(data["families"], report["families"], strict=True):  # type: ignore[call-overload]
        same = ("id", "dim", "size", "free", "exactness", "active", "parameters_per_slot", "macs_per_slot", "inactive")
        assert {key: shown[key] for key in same} == {key: row[key] for key in same}
        assert len(shown["members"]) == len(row["members"])


def test_a_pruned_model_is_shown_beside_its_original(analysed: Analysis, tmp_path: Path) -> None:
    small = tmp_path / "small.onnx"
    done = ozgraph.prune(residual(), small, target=ozgraph.Target(macs=0.5)).report
    data = data_of(analysed.to_html(pruned=small))
    pruned = data["pruned"]
    assert isinstance(pruned, dict)
    assert (pruned["parameters"], pruned["macs"]) == (done.parameters_after, done.macs_after)
    kept = {row.id: row.kept for row in done.widths}
    assert pruned["widths"] == {row.id: kept.get(row.id, row.size) for row in analysed.report.families}


def test_a_pruned_model_is_measured_at_the_sizes_of_its_original(tmp_path: Path) -> None:
    def tall() -> onnx.ModelProto:
        net = Net("tall")
        stream = net.op("Relu", net.conv(net.input("x", (1, 3, "height", 8)), 3, 48, 3))
        return net.build(net.conv(stream, 48, 4, 1))

    small, shapes = tmp_path / "small.onnx", {"x": (1, 3, 37, 8)}
    done = ozgraph.prune(tall(), small, target=ozgraph.Target(macs=0.5), shapes=shapes).report
    pruned = data_of(ozgraph.analyze(tall(), shapes=shapes).to_html(pruned=small))["pruned"]
    assert isinstance(pruned, dict)
    assert pruned["macs"] == done.macs_after


def test_another_model_is_no_pruned_form(analysed: Analysis) -> None:
    net = Net("other")
    other = net.build(net.linear(net.input("x", (2, 4)), 4, 3))
    with pytest.raises(UsageError, match="no weight in common"):
        analysed.to_html(pruned=other)


def test_the_command_writes_what_it_is_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = tmp_path / "model.onnx"
    onnx.save(residual(), model)
    files = {
        flag: str(tmp_path / name)
        for flag, name in (("--html", "a.html"), ("--dot", "a.dot"), ("--annotate", "b.onnx"))
    }
    assert cli.run(["analyze", str(model), *(word for pair in files.items() for word in pair)]) == 0
    assert "written to" in capsys.readouterr().out
    assert all(Path(path).stat().st_size > 500 for path in files.values())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.dot", "a.html", "b.onnx", "model.onnx"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--html", "model.onnx"], "would overwrite the input"),
        (["--dot", "model.onnx"], "would overwrite the input"),
        (["--annotate", "model.onnx"], "would overwrite the input"),
        (["--html", "nowhere/report.html"], "does not exist"),
        (["--html", "."], "is a folder"),
        (["--pruned", "model.onnx"], "give --html"),
    ],
)
def test_what_cannot_be_written_is_said_in_one_line(
    options: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    onnx.save(residual(), "model.onnx")
    before = Path("model.onnx").read_bytes()
    assert cli.run(["analyze", "model.onnx", *options]) == 2
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1
    assert Path("model.onnx").read_bytes() == before


def test_analysis_imports_neither_torch_nor_the_page(tmp_path: Path) -> None:
    onnx.save(residual(), tmp_path / "model.onnx")
    script = (
        "import sys, ozgraph.cli; status = ozgraph.cli.run(['analyze', 'model.onnx', *sys.argv[1:]]); "
        "print(status, 'torch' in sys.modules, 'ozgraph.passes.picture' in sys.modules)"
    )
    for options, last in (([], "0 False False"), (["--html", "report.html"], "0 False True")):
        done = subprocess.run(
            [sys.executable, "-c", script, *options], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        assert done.stdout.splitlines()[-1] == last


def test_an_annotated_model_computes_the_same_and_says_what_its_families_are(
    analysed: Analysis, tmp_path: Path
) -> None:
    path = tmp_path / "annotated.onnx"
    analysed.annotate(path)
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    notes = {entry.key: entry.value for entry in model.metadata_props}
    for row in analysed.report.families:
        assert notes[f"ozgraph.{row.id}"].startswith(f"{row.dim}: {row.size} slots, {row.exactness}")
    stem = next(node for node in model.graph.node if node.op_type == "Conv")
    said = {entry.key: entry.value for entry in stem.metadata_props}
    assert "(producer)" in said["ozgraph.families"]
    assert any(":f0" in value for key, value in said.items() if key.startswith("ozgraph.dims."))
    weights = {entry.key for tensor in model.graph.initializer for entry in tensor.metadata_props}
    assert "ozgraph.axis0" in weights
    origin = analysed.state.graph.origin.model
    read = [origin, *origin.graph, *(value.const_value for value in origin.graph.initializers.values())]
    assert not any(key.startswith("ozgraph.") for thing in read for key in thing.metadata_props)
    feed = {"x": np.random.default_rng(0).standard_normal((1, 3, 8, 8)).astype(np.float32)}
    first, second = (
        onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"]).run(None, feed)[0]
        for content in (residual().SerializeToString(), model.SerializeToString())
    )
    assert np.array_equal(first, second)


def test_graphviz_text_has_every_edge_and_no_name_ends_its_string(analysed: Analysis) -> None:
    text = analysed.to_dot()
    assert text.count(" -> ") == sum(len(op.outputs) for op in analysed.state.graph.ops) + 1 + 2
    assert "48:f0" in text
    for line in ozgraph.analyze(hostile()).to_dot().splitlines():
        assert "\x1b" not in line
        # Outside of strings there are only words of the language.
        outside = re.sub(r'"(?:[^"\\]|\\.)*"', "", line)
        assert '"' not in outside
        assert "onerror" not in outside


def test_notebooks_show_graphs_groups_and_results(analysed: Analysis) -> None:
    pruned = ozgraph.prune(residual(), target=ozgraph.Target(macs=0.3))
    groups = groups_of(analysed.state)
    shown = [analysed, analysed.report, analysed.state.graph, groups, pruned, pruned.report]
    for thing in shown:
        text = thing._repr_html_()  # type: ignore[attr-defined]
        ElementTree.fromstring(f"<div>{text}</div>")
        assert len(text) < 50_000
    assert f"{analysed.report.parameters:,}" in analysed._repr_html_()


def test_notebooks_show_hostile_names_as_text() -> None:
    analysis = ozgraph.analyze(hostile())
    groups: Groups = groups_of(analysis.state)
    for text in (analysis._repr_html_(), analysis.state.graph._repr_html_(), groups._repr_html_()):
        reader = _Text()
        reader.feed(text)
        assert {"img", "svg", "script"}.isdisjoint(reader.elements)
        assert "\x1b" not in text
        assert len(text) < 100_000


def test_hostile_names_leave_the_terminal_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = tmp_path / "hostile.onnx"
    onnx.save(hostile(), model)
    for command in (
        ["analyze", str(model), "--all"],
        ["analyze", str(model), "--json"],
        ["analyze", str(model), "--exclude", HOSTILE[4] + "*"],
        ["analyze", str(model), "--print-after", "group"],
        ["analyze", str(model), "--shape", "q=1"],
        ["analyze", str(model), "--allow-io", "q"],
        ["analyze", str(model), "--include", HOSTILE[4][:3]],
        ["analyze", str(model), "--include", HOSTILE[4], "--exclude", "\x1b[31m\u202e", "--print-config"],
        ["eliminate", str(model), "-o", str(tmp_path / "same.onnx"), "--all"],
        ["verify", str(model), str(model)],
        ["bench", str(model), str(model), "--rounds", "1"],
        ["prune", str(model), "-o", str(tmp_path / "small.onnx"), "--target-macs", "0.3", "--exclude", "n*", "--all"],
    ):
        assert cli.run(command) in (0, 2), command
        said = "".join(capsys.readouterr())
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f]", said), command
        if "--json" not in command and "--print-after" not in command:
            assert max(map(len, said.splitlines())) < 4100
            assert "\u202e" not in said


def test_a_curve_shows_what_there_is() -> None:
    rows = [
        {
            "step": step,
            "loss": 1 / (1 + step),
            "reached_share": step / 20,
            "redundant_norm": 10.0**-step,
            "cycle": step // 4,
        }
        for step in range(10)
    ]
    picture = ElementTree.fromstring(curve(rows, "a < b"))
    text = " ".join(picture.itertext())
    for word in ("a < b", "loss", "reached", "redundant", "cycle 1", "step"):
        assert word in text
    assert "important" not in text
    assert ElementTree.fromstring(curve([])) is not None
    holes = curve([{"step": 0, "loss": math.nan}, {"step": 5, "loss": 2.0}, {"step": 6}])
    assert "nan" not in holes

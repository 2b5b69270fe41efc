"""The tables: every figure comes from the lines, none is written by hand."""

from __future__ import annotations

import html as escaping
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import lines
from lines import Key, Line

_NONE = "-"
ROUTES = {"fx": "torch.export, verified in float64", "onnx": "ONNX, verified by onnxruntime"}
INTRO = """# The zoo

What ozgraph does with models of several libraries, with no list of exceptions and no word about any model. A run goes
on where the last one stopped, and the tables count **what has been measured so far**: beginnings of each library's
names, in an order that is fixed. Weights are random and perturbed, so that no layer's initial zeros hide another; batch
norms start where least of what a network returns is rounding (`benchmarks/zoo/perturb.py`). Of every model a random
half of all free slots goes, and what is left is verified against the original with exactly those at zero. This page is
made from `benchmarks/results/zoo.jsonl`:

    python benchmarks/zoo run torchvision timm huggingface diffusers small elsewhere
    python benchmarks/zoo run torchvision timm huggingface diffusers small --peer torch-pruning
    python benchmarks/zoo run torchvision timm huggingface diffusers small elsewhere --peer onnxsim
    python benchmarks/zoo report --markdown docs/zoo.md --html docs/zoo.html --limits docs/limits.md

*Captured* models are those that torch.export or the ONNX exporter follows, whole or up to the first operator whose
result has a size that depends on data; a model counts as pruned where **every** route that captured it removed slots,
all that were chosen, and verified. *Prunable* is the share of parameters that is gone when every family is cut to one
slot. Times are CPU seconds on one thread.
"""


def markdown(found: dict[Key, Line]) -> str:
    """The page for people who read the repository."""
    ours = [line for line in found.values() if line["tool"] == "ozgraph"]
    parts = [INTRO]
    parts.append("## By library\n\n" + table(_library_head(), list(_library_rows(ours))) + _modules(ours))
    if kinds := list(_kind_rows(ours)):
        parts.append("## By kind\n\n" + _KIND_TEXT + table(_KIND_HEAD, kinds))
    peers = [line for line in found.values() if line["tool"] == "torch-pruning"]
    if peers:
        parts.append("## Beside Torch-Pruning\n\n" + _peer_text() + table(_PEER_HEAD, list(_peer_rows(found, peers))))
        parts.append(
            "Share of the parameters that is gone when every family is cut to one slot, and when Torch-Pruning cuts "
            "every group that it finds to one channel:\n\n" + table(_SHARE_HEAD, list(_share_rows(found, peers)))
        )
    simplified = [line for line in found.values() if line["tool"] == "onnxsim"]
    if simplified:
        parts.append(
            "## Beside onnxsim\n\n" + _ONNXSIM_TEXT + table(_ONNXSIM_HEAD, list(_onnxsim_rows(found, simplified)))
        )
    parts.append(
        "## Lowest shares, and why\n\n" + table(("library", "model", "prunable", "held back by"), list(_lowest(ours)))
    )
    failing = list(_failing(ours))
    parts.append(
        "## What does not prune\n\n" + (table(("library", "model", "route", "what happened"), failing) or "Nothing.\n")
    )
    missed = list(_missed(ours))
    if missed:
        parts.append(
            "## What no route captures\n\nPyTorch's own words.\n\n" + table(("library", "model", "torch says"), missed)
        )
    unbuilt = Counter(line["source"] for line in ours if "unbuildable" in line)
    if unbuilt:
        counts = ", ".join(f"{number} of {library}" for library, number in unbuilt.items())
        parts.append(
            "## What was not built\n\nNames that the library itself cannot build or run here (a config that does not "
            f"shrink, a missing dependency, weights from the network): {counts}. Their lines say why.\n"
        )
    return "\n".join(parts)


_ALL = "all"


def _library_head() -> tuple[str, ...]:
    return (
        "library", "models built", "captured", "pruned and verified", "of the captured", "on one route at least", "fx",
        "onnx",
        "median prunable", "analysis + rewrite, median s", "worst s",
    )  # fmt: skip


def _library_rows(ours: Sequence[Line]) -> Iterable[tuple[str, ...]]:
    for library in (*dict.fromkeys(line["source"] for line in ours), _ALL):
        built = [line for line in ours if library in (line["source"], _ALL)]
        built = [line for line in built if "unbuildable" not in line]
        captured = [line for line in built if lines.captured(line)]
        good = [line for line in captured if lines.succeeded(line)]
        times = [seconds for line in captured for seconds in _times(line)]
        yield (
            library, str(len(built)), str(len(captured)), str(len(good)), _share(len(good), len(captured)),
            _of(sum("ok" in lines.outcomes(line).values() for line in captured), len(captured)),
            _by_route(captured, "fx"), _by_route(captured, "onnx"), _percent(_median(map(prunable, captured))),
            _number(_median(times)), _number(max(times, default=None)),
        )  # fmt: skip


def _modules(ours: Sequence[Line]) -> str:
    """How timm's modules fare, of which every full run takes the smallest model."""
    modules: dict[str, list[bool]] = {}
    for line in ours:
        if line["source"] == "timm" and "kind" in line and lines.captured(line):
            modules.setdefault(line["kind"], []).append(lines.succeeded(line))
    if not modules:
        return ""
    whole, some = (sum(judge(found) for found in modules.values()) for judge in (all, any))
    return (
        f"\nOf timm's modules ({len(modules)}, the smallest model of each and a sample of others), {whole} have every "
        f"measured model pruned and verified on every route, {some} at least one. `--all` measures the rest.\n"
    )


_KIND_TEXT = (
    "Told from the graph: models with attention (a softmax that weighs a product), then those with convolutions, then "
    "the rest; models whose lines are older than that are not counted. The share counts families whose rescaling is "
    "written out, such as norms.\n\n"
)
_KIND_HEAD = ("kind", "models", "median prunable", "at least 95%", "at least 99%")


def _kind_rows(ours: Sequence[Line]) -> Iterable[tuple[str, ...]]:
    shares: dict[str, list[float]] = {}
    for line in ours:
        kinds = {row["layers"] for row in line.get("routes", {}).values() if "layers" in row}
        share = prunable(line)
        if kinds and share is not None:
            shares.setdefault(min(kinds), []).append(share)  # attention sorts first: one exporter may hide it
    for kind, found in sorted(shares.items()):
        total = len(found)
        yield (
            kind, str(total), _percent(_median(found)),
            _of(sum(share >= 0.95 for share in found), total), _of(sum(share >= 0.99 for share in found), total),
        )  # fmt: skip


def _by_route(captured: Sequence[Line], route: str) -> str:
    ended = [lines.outcomes(line).get(route) for line in captured]
    ended = [outcome for outcome in ended if outcome is not None]
    return f"{sum(outcome == 'ok' for outcome in ended)} / {len(ended)}" if ended else _NONE


def _times(line: Line) -> Iterable[float]:
    """Analysis and rewrite of each route."""
    seconds = line.get("seconds", {})
    for route in ROUTES:
        if f"{route} rewrite" in seconds:
            yield seconds[f"{route} analyze"] + seconds[f"{route} rewrite"]


def prunable(line: Line) -> float | None:
    """The larger share of the two routes: exporters differ in what they write, a user takes either."""
    shares = [
        row["prunable"] / row["parameters"]
        for row in line.get("routes", {}).values()
        if row.get("parameters") and "prunable" in row
    ]
    return max(shares, default=None)


def _peer_text() -> str:
    return (
        "Torch-Pruning 1.6.1 as a plain user calls it: example inputs, half of the channels, only the output layers "
        "ignored; models whose whole it cannot trace are tried up to their heads as well. *Runs*: results have the "
        "shapes that they had. *Equal*: the same results as the original with exactly the removed channels at zero, in "
        "float64, within 1e-5 of the spread (1e-3 where a module holds to float32 inside). Over the models that both "
        "were given.\n\n"
    )


_PEER_HEAD = (
    "library", "models", "ozgraph runs", "ozgraph equal", "theirs runs", "theirs equal", "theirs over the limits",
    "ozgraph s, median", "theirs s, median",
)  # fmt: skip


def _peer_rows(found: dict[Key, Line], peers: Sequence[Line]) -> Iterable[tuple[str, ...]]:
    for library in (*dict.fromkeys(line["source"] for line in peers), _ALL):
        pairs = [
            (mine, line)
            for line in peers
            if library in (line["source"], _ALL)
            and (mine := found.get(("ozgraph", line["source"], line["model"]))) is not None
            and "unbuildable" not in mine
        ]
        total = len(pairs)
        good = sum(lines.succeeded(mine) for mine, _ in pairs)
        spent = [
            sum(theirs.get("seconds", {}).get(f"peer {stage}", 0.0) for stage in ("build", "prune"))
            for _, theirs in pairs
        ]
        yield (
            library, str(total), _of(good, total), _of(good, total),
            _of(sum(theirs.get("outcome") == "runs" for _, theirs in pairs), total),
            _of(sum(bool(theirs.get("equal")) and theirs.get("outcome") == "runs" for _, theirs in pairs), total),
            str(sum("killed" in theirs for _, theirs in pairs)),
            _number(_median(seconds for mine, _ in pairs for seconds in _times(mine))),
            _number(_median(each for each in spent if each)),
        )  # fmt: skip


_SHARE_HEAD = (
    "library", "both prune", "ozgraph, median", "theirs, median", "ours at least theirs",
    "where theirs is equal", "where it is less",
)  # fmt: skip


def _share_rows(found: dict[Key, Line], peers: Sequence[Line]) -> Iterable[tuple[str, ...]]:
    """Prunable shares where both prune: theirs is of what runs, right or not."""
    for library in dict.fromkeys(line["source"] for line in peers):
        pairs = [
            (share, line["prunable"] / max(line["parameters"], 1), line)
            for line in peers
            if line["source"] == library
            and "prunable" in line
            and (mine := found.get(("ozgraph", library, line["model"]))) is not None
            and lines.succeeded(mine)
            and (share := prunable(mine)) is not None
        ]
        less = sorted(
            (mine - theirs, str(line["model"]), bool(line.get("equal")))
            for mine, theirs, line in pairs
            if mine < theirs - 5e-4
        )
        right = sum(bool(line.get("equal")) for _, _, line in pairs)
        yield (
            library, str(len(pairs)), _percent(_median(mine for mine, _, _ in pairs)),
            _percent(_median(theirs for _, theirs, _ in pairs)), _of(len(pairs) - len(less), len(pairs)),
            _of(right - sum(equal for _, _, equal in less), right),
            ", ".join(f"{name} ({by:+.1%}{'' if equal else ', theirs not equal'})" for by, name, equal in less[:8]),
        )  # fmt: skip


_ONNXSIM_TEXT = (
    "`apply_structured_pruning` of onnxsim, ratio one half, on the exported files. It does not say which channels it "
    "took: they are found by the numbers of what it left, which do not tell everywhere. *Equal*: the same results as "
    "the original with exactly these at zero, by the measure of `ozgraph verify`; theirs that remove nothing count as "
    "neither.\n\n"
)
_ONNXSIM_HEAD = (
    "library", "files", "ozgraph runs", "ozgraph equal", "theirs runs", "theirs equal", "not told", "both prune",
    "ozgraph prunable, median", "theirs, median", "ours at least theirs", "where it is less",
)  # fmt: skip


def _onnxsim_rows(found: dict[Key, Line], rows: Sequence[Line]) -> Iterable[tuple[str, ...]]:
    """Files alone: a model that no exporter writes is nobody's."""
    for library in dict.fromkeys(line["source"] for line in rows):
        pairs = [
            (mine["routes"]["onnx"], line)
            for line in rows
            if line["source"] == library
            and "onnx" in lines.outcomes(mine := found.get(("ozgraph", library, line["model"]), {}))
        ]
        total = len(pairs)
        good = sum(mine["outcome"] == "ok" for mine, _ in pairs)
        both = [
            (mine["prunable"] / mine["parameters"], line["prunable"] / line["parameters"], line["model"])
            for mine, line in pairs
            if mine["outcome"] == "ok" and "prunable" in line
        ]
        less = sorted((mine - theirs, name) for mine, theirs, name in both if mine < theirs - 5e-4)
        yield (
            library, str(total), _of(good, total), _of(good, total),
            _of(sum(line.get("outcome") == "runs" for _, line in pairs), total),
            _of(sum(bool(line.get("equal")) for _, line in pairs), total),
            str(sum("not compared" in line for _, line in pairs)), str(len(both)),
            _percent(_median(mine for mine, _, _ in both)), _percent(_median(theirs for _, theirs, _ in both)),
            _of(len(both) - len(less), len(both)), ", ".join(f"{name} ({by:+.1%})" for by, name in less[:8]),
        )  # fmt: skip


def _lowest(ours: Sequence[Line]) -> Iterable[tuple[str, ...]]:
    shares = [(share, line) for line in ours if (share := prunable(line)) is not None]
    for share, line in sorted(shares, key=lambda pair: pair[0])[:10]:
        route = max(
            line["routes"].values(), key=lambda row: row.get("prunable", -1) / max(row.get("parameters") or 1, 1)
        )
        held = [f"{reason} ({count:,})" for reason, _, count, _ in route["frozen"] if count][:3]
        yield line["source"], line["model"], _percent(share), "; ".join(held)


def _failing(ours: Sequence[Line]) -> Iterable[tuple[str, ...]]:
    for line in ours:
        if "killed" in line:
            yield line["source"], line["model"], line["stage"], line["killed"]
        for route, row in line.get("routes", {}).items():
            if row["outcome"] in ("ok", "not captured"):
                continue
            said = row.get("said") or "; ".join(str(each[0]) for each in row.get("given back", ()))
            if row["outcome"] == "nothing to remove" and row.get("frozen"):
                said = "; ".join(f"{reason} ({count:,})" for reason, _, count, _ in row["frozen"][:2])
            yield line["source"], line["model"], route, f"{row['outcome']}: {said}"[:300]


def _missed(ours: Sequence[Line]) -> Iterable[tuple[str, ...]]:
    for line in ours:
        if "unbuildable" not in line and not lines.captured(line):
            said = next((row.get("error", "") for row in line.get("routes", {}).values()), "")
            yield line["source"], line["model"], said[:240]


def html(found: dict[Key, Line]) -> str:
    """One page: every model, sortable by every column, with what holds it back."""
    head = (
        "library", "model", "kind", "parameters", "fx", "onnx", "prunable fx", "prunable onnx", "rescaled families",
        "unknown operators", "error onnx", "analysis + rewrite s", "Torch-Pruning", "equal", "held back by",
    )  # fmt: skip
    rows = [
        _html_row(found, line)
        for key, line in sorted(found.items())
        if key[0] == "ozgraph" and "unbuildable" not in line
    ]
    cells = "\n".join(
        "<tr>"
        + "".join(f"<td data-key='{escaping.escape(str(key))}'>{escaping.escape(text)}</td>" for text, key in row)
        + "</tr>"
        for row in rows
    )
    titles = "".join(f"<th tabindex=0>{escaping.escape(title)}</th>" for title in head)
    return _PAGE.replace("{{titles}}", titles).replace("{{rows}}", cells).replace("{{count}}", str(len(rows)))


def _html_row(found: dict[Key, Line], line: Line) -> list[tuple[str, Any]]:
    routes, theirs = line.get("routes", {}), found.get(("torch-pruning", line["source"], line["model"]), {})
    cells: list[tuple[str, Any]] = [(str(line[key]), line[key]) for key in ("source", "model", "kind") if key in line]
    size = line.get("parameters") or max((row.get("parameters", 0) for row in routes.values()), default=0)
    cells.append((f"{size:,}", size))
    cells += [
        (str(outcome := line.get("killed") or routes.get(route, {}).get("outcome", _NONE)), outcome) for route in ROUTES
    ]
    for route in ROUTES:
        row = routes.get(route, {})
        share = row["prunable"] / row["parameters"] if row.get("parameters") else None
        cells.append((_percent(share), -1 if share is None else share))
    rescaled = max((row.get("rescaled", 0) for row in routes.values()), default=0)
    cells.append((str(rescaled), rescaled))
    unknown = sorted({name for row in routes.values() for name in row.get("unknown", {})})
    cells.append((", ".join(unknown), len(unknown)))
    error = routes.get("onnx", {}).get("error")
    number = error if isinstance(error, float) else None
    cells.append((_NONE if number is None else f"{number:.1e}", -1 if number is None else number))
    spent = max(_times(line), default=None)
    cells.append((_number(spent), -1 if spent is None else spent))
    outcome = theirs.get("killed") or theirs.get("outcome") or _NONE
    cells.append((f"{outcome} {theirs.get('error', '')}".strip()[:120], outcome))
    cells.append((str(theirs.get("equal", _NONE)), str(theirs.get("equal", _NONE))))
    held = [
        f"{reason} ({count:,})" for row in routes.values() for reason, _, count, _ in row.get("frozen", ()) if count
    ]
    cells.append(("; ".join(dict.fromkeys(held))[:400], len(held)))
    return cells


_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>ozgraph: the zoo</title>
<style>
body { font: 14px/1.5 system-ui, sans-serif; margin: 2rem; color: #1b1f24; }
table { border-collapse: collapse; width: 100%; }
th, td { border-bottom: 1px solid #d8dee4; padding: .3rem .6rem; text-align: left; vertical-align: top; }
th { position: sticky; top: 0; background: #f6f8fa; cursor: pointer; white-space: nowrap; }
th[aria-sort=ascending]::after { content: " ▲"; } th[aria-sort=descending]::after { content: " ▼"; }
@media (prefers-color-scheme: dark) { body { background: #0d1117; color: #e6edf3; } th { background: #161b22; } }
</style>
<h1>The zoo</h1>
<p>{{count}} models. Click a heading to sort. <input placeholder="filter" aria-label="filter"></p>
<table><thead><tr>{{titles}}</tr></thead><tbody>
{{rows}}
</tbody></table>
<script>
const body = document.querySelector("tbody"), heads = [...document.querySelectorAll("th")];
heads.forEach((head, column) => {
  const sort = () => {
    const down = head.getAttribute("aria-sort") === "ascending";
    heads.forEach(other => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const key = row => row.cells[column].dataset.key;
    const rows = [...body.rows].sort((a, b) => {
      const [x, y] = [key(a), key(b)], [m, n] = [Number(x), Number(y)];
      const order = isNaN(m) || isNaN(n) ? x.localeCompare(y) : m - n;
      return down ? -order : order;
    });
    body.append(...rows);
  };
  head.addEventListener("click", sort);
  head.addEventListener("keydown", event => event.key === "Enter" && sort());
});
document.querySelector("input").addEventListener("input", event => {
  const wanted = event.target.value.toLowerCase();
  for (const row of body.rows) row.hidden = !row.textContent.toLowerCase().includes(wanted);
});
</script></html>
"""


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown; empty where there are no rows."""
    if not rows:
        return ""
    clean: Callable[[str], str] = lambda text: text.replace("|", "\\|").replace("\n", " ")  # noqa: E731
    written = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    written += ["| " + " | ".join(clean(cell) for cell in row) + " |" for row in rows]
    return "\n".join(written) + "\n"


def _median(numbers: Iterable[float | None]) -> float | None:
    known = [number for number in numbers if number is not None]
    return statistics.median(known) if known else None


def _percent(share: float | None) -> str:
    return _NONE if share is None else f"{share:.1%}"


def _share(part: int, total: int) -> str:
    return f"{part / total:.1%}" if total else _NONE


def _of(part: int, total: int) -> str:
    return f"{part} / {total} ({_share(part, total)})"


def _number(seconds: float | None) -> str:
    return _NONE if seconds is None else f"{seconds:.2f}"

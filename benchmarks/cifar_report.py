"""``docs/results.md`` from the lines of ``cifar10.py``: every figure on the page is one of theirs."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from cifar_rows import METHODS, TABLES, Row, Table

Line = dict[str, Any]

HEAD = """\
# Results on CIFAR-10

This page is written by `python benchmarks/cifar10.py --report docs/results.md` from `benchmarks/results/cifar10.jsonl`,
one line for each finished run; the rows are declared in `benchmarks/cifar_rows.py`.

* Accuracy is that of the last epoch on all test images, which are read once, after training: nothing is chosen by
  looking at them. Over several seeds it is the mean, with every seed's figure beside it.
* Rows of a table share images, batches, epochs, optimizer and schedule, unless the table says otherwise. `thin` is the
  same network with all layers narrower by one factor, from random weights, with the MACs that the pruned row keeps.
* MACs and parameters are those of the network that is left, counted by PyTorch's own counter.
* Minutes are what training took on a machine that may have had other work to do.

A run is saved every few minutes and goes on where it was when its command is given again. `--minutes 9` ends it in
time, with status 3 while something is left to do, so that long rows fit into short slots:

    until python benchmarks/cifar10.py --row NAME --data FOLDER --checkpoint FOLDER --minutes 9
    do [ $? = 3 ] || break; done

`--jobs 4` keeps four runs going at a time, each in a process of its own; on a GPU they can share it by NVIDIA's MPS.

`FOLDER` of `--data` holds CIFAR-10 as `examples/cifar_data.py` says; `--cache FILE` spares decoding it again.
`--pretrained` names a safetensors file with the weights to start from. How much faster the pruned files are is measured
by `python benchmarks/latency.py --profile`.
"""


def page(lines: Iterable[Line]) -> str:
    """The page, from lines in any order."""
    found = list(lines)
    return "\n".join([HEAD, *(_table(table, found) for table in TABLES)])


def _table(table: Table, lines: Sequence[Line]) -> str:
    header = ["row", "method", "rate", "MACs kept", "parameters kept", "accuracy, %", "seeds", "minutes a run"]
    text = [f"## {table.title}", "", table.about, "", _cells(header), _cells(["---"] * len(header))]
    measured = {row.name: _of(row, lines) for row in table.rows}
    text += [_cells(_figures(row, measured[row.name])) for row in table.rows]
    notes = [note for row in table.rows for say in (_cut, _verdict) if (note := say(row, measured[row.name]))]
    waiting = [row for row in table.rows if {line["seed"] for line in measured[row.name]} < set(row.seeds)]
    if notes:
        text += ["", "\n\n".join(notes)]
    for names, seeds in _together(waiting, measured):
        text += ["", f"Not measured yet, or not with all seeds: {', '.join(f'`{name}`' for name in names)}.", ""]
        text += ["    python benchmarks/cifar10.py \\", f"        --row {' '.join(names)} \\"]
        pretrained = " --pretrained FILE" if any(row.pretrained for row in table.rows) else ""
        text += [f"        --seed {seeds} --device {table.device} --data FOLDER{pretrained} --checkpoint FOLDER"]
    where = sorted({_where(line) for row in table.rows for line in measured[row.name]})
    if where:
        text += ["", f"Measured on {'; '.join(where)}."]
    return "\n".join([*text, ""])


def _of(row: Row, lines: Sequence[Line]) -> list[Line]:
    return sorted((line for line in lines if line["row"] == row.name), key=lambda line: int(line["seed"]))


def _figures(row: Row, lines: Sequence[Line]) -> list[str]:
    method = ", ".join([METHODS[row.method], *_said(row.options)])
    first = [f"`{row.name}`", method, f"{row.rate:g}"]
    if not lines:
        return [*first, "", "", "not measured", "", ""]
    kept = {
        kind: f"{statistics.fmean(line[kind] / line[f'{kind}_whole'] for line in lines):.1%}"
        for kind in ("macs", "parameters")
    }
    accuracies = [float(line["accuracy"]) for line in lines]
    accuracy = f"**{statistics.fmean(accuracies):.2f}**"
    if len(accuracies) > 1:
        accuracy += f" ({', '.join(f'{each:.2f}' for each in accuracies)})"
    minutes = statistics.fmean(line["seconds"] for line in lines) / 60
    return [*first, *kept.values(), accuracy, ", ".join(str(line["seed"]) for line in lines), f"{minutes:.0f}"]


def _said(options: Mapping[str, Any]) -> Iterator[str]:
    """What a method's options are, in words."""
    if "end" in options:
        yield f"between {options['start']:.0%} and {options['end']:.0%} of the run"
    if "weights" in options:
        yield "scored by " + " and ".join(f"{name} x {weight:g}" for name, weight in options["weights"].items())
    if options.get("per") == "family":
        yield "scores per family"
    if options.get("average"):
        yield f"averaged over the {options['score_from']} steps before each period"


def _cut(row: Row, lines: Sequence[Line]) -> str:
    """When the groups to go were final, of the runs that say so."""
    said = [line for line in lines if "final_at" in line]
    if not said:
        return ""
    when = ", ".join(f"{line['final_at'] / line['steps']:.0%}" for line in said)
    seeds = f"seed{'s' if len(said) > 1 else ''} {', '.join(str(line['seed']) for line in said)}"
    return f"`{row.name}`: groups were final after {when} of the run ({seeds})."


def _verdict(row: Row, lines: Sequence[Line]) -> str:
    if row.aim is None or not lines:
        return ""
    mean = statistics.fmean(float(line["accuracy"]) for line in lines)
    said = "passed" if mean > row.aim else "missed"
    seeds = f"{len(lines)} of {len(row.seeds)} seeds"
    return f"`{row.name}`: the aim, a mean above {row.aim:g} %, is {said} with {seeds}."


def _together(rows: Sequence[Row], measured: dict[str, list[Line]]) -> list[tuple[list[str], str]]:
    """Rows that lack the same seeds, for one command each."""
    lacking: dict[str, list[str]] = {}
    for row in rows:
        done = {line["seed"] for line in measured[row.name]}
        lacking.setdefault(" ".join(str(seed) for seed in row.seeds if seed not in done), []).append(row.name)
    return [(names, seeds) for seeds, names in lacking.items()]


def _where(line: Line) -> str:
    threads = f", {line['threads']} thread{'s' if line['threads'] > 1 else ''}" if "CPU" in line["device"] else ""
    return f"{line['device']}{threads}, torch {line['torch']}"


def _cells(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"

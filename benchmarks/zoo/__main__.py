"""Prune anything: every model of a list of libraries, with no list of exceptions, one JSON line a model.

    python benchmarks/zoo run torchvision timm huggingface diffusers small elsewhere [--peer PEER] [--only GLOB]
    python benchmarks/zoo report --markdown docs/zoo.md --html docs/zoo.html --limits docs/limits.md

Every model is built with random, perturbed weights in a process of its own, with a limit of CPU time and of memory;
captured by torch.export and by the ONNX exporter; analyzed; a random half of all free slots is removed; what is left
is verified against the original with exactly those at zero, in float64 and by onnxruntime. A run goes on where the last
one stopped; ``--again failed`` repeats what did not succeed. Needs torch, torchvision, timm, transformers, diffusers,
onnxscript, scipy; the peers need torch-pruning 1.6.1 and onnxsim.
"""

from __future__ import annotations

import argparse
import fnmatch
import sys
from pathlib import Path

import limits_page
import lines
import report
import runner
from sources import SOURCES

RESULTS = Path(__file__).parent.parent / "results" / "zoo.jsonl"


def main() -> None:
    parser = argparse.ArgumentParser(prog="zoo", description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="measure models and append their lines")
    run.add_argument("sources", nargs="+", choices=SOURCES, metavar="source", help=", ".join(SOURCES))
    run.add_argument("--peer", choices=("torch-pruning", "onnxsim"), help="measure a peer in ozgraph's place")
    run.add_argument("--only", default=["*"], nargs="+", metavar="GLOB", help="models with such a name")
    run.add_argument("--first", type=int, help="that many names of each source; any beginning is a fair sample")
    run.add_argument("--all", action="store_true", help="the rest of timm's names, too")
    run.add_argument("--again", choices=("failed", "all"), help="repeat models that have a line already")
    run.add_argument("--routes", default=("fx", "onnx"), nargs="+", choices=("fx", "onnx"), help="default: both")
    run.add_argument("--seconds", type=int, default=300, help="CPU seconds a model may take (default: %(default)s)")
    run.add_argument("--memory", type=float, default=10.0, help="GiB a model may map (default: %(default)s)")
    run.add_argument("--jobs", type=int, default=1, help="models at a time (default: %(default)s)")
    show = commands.add_parser("report", help="tables from the lines")
    show.add_argument("--markdown", type=Path, help="write them here")
    show.add_argument("--html", type=Path, help="write a page with sortable columns here")
    show.add_argument("--limits", type=Path, help="make the table in this page anew")
    for command in (run, show):
        command.add_argument("--results", type=Path, default=RESULTS, help="the lines (default: %(default)s)")
    options = parser.parse_args()
    if options.command == "run":
        chosen = runner.Limits(options.seconds, int(options.memory * 2**30), options.jobs, tuple(options.routes))
        tool = options.peer or "ozgraph"
        known = lines.read(options.results)

        def wanted(key: lines.Key) -> bool:
            if not any(fnmatch.fnmatchcase(key[2], glob) for glob in options.only):
                return False
            if key not in known or options.again == "all" or not lines.measured(known[key], options.routes):
                return True
            return options.again == "failed" and lines.failed(known[key])

        for name in options.sources:
            runner.run(tool, name, options.results, chosen, wanted, options.first, options.all)
        return
    found = lines.read(options.results)
    if not found:
        sys.exit(f"zoo: {options.results} has no lines; run 'python benchmarks/zoo run torchvision' first")
    lines.settle(options.results)
    text = report.markdown(found)
    if options.markdown:
        options.markdown.write_text(text)
    if options.html:
        options.html.write_text(report.html(found))
    if options.limits:
        options.limits.write_text(limits_page.filled(options.limits.read_text(), found))
    if not (options.markdown or options.html or options.limits):
        print(text)


if __name__ == "__main__":
    main()

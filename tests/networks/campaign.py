"""Networks of torchvision, timm and Hugging Face: one answer from both frontends, one function from every way out.

From the ``tests`` folder: ``python -m networks.campaign``, or with names for some of them. With ``--log`` a run that
was stopped goes on where it was; ``--table`` prints a log for people.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fuzz.numbered import run
from models.zoo import REWRITTEN, ZOO

NAMES = sorted(ZOO)

_NUMBERS = f"{'module':<9}{'in place':<17}{'file':<9}{'unpruned':<9}"
_HEAD = f"{'network':<30}{'groups':>7}{'free':>7}{'gone':>7}  {_NUMBERS}"


def networks(seed: int, first: int, last: int) -> dict[str, Any]:
    """The networks with these numbers in alphabetical order."""
    import torch

    from networks.agree import EXACT, backends, frontends

    torch.set_num_threads(1)
    counts: Counter[str] = Counter()
    rows, failures, worst = [], [], 0.0
    for name in NAMES[first:last]:
        row: dict[str, Any] = {"network": name}
        try:
            found = frontends(ZOO[name]())
            row["groups"] = found.groups
            rewritten = REWRITTEN.get(name)
            if not found.difference:
                counts["frontends agree"] += 1
            elif rewritten in found.operators:
                counts[f"frontends differ: the exporter writes {rewritten}"] += 1
                row["rewritten"] = rewritten
            else:
                failures.append({"network": name, "problem": found.difference})
            out = backends(ZOO[name]())
            row |= out.as_json()
            worst = max(worst, out.module, out.shrunk or 0.0)
            counts[f"modules within {EXACT:g}"] += not out.failures
            counts["shrunk in place" if out.shrunk is not None else "not shrunk in place"] += 1
            failures += [{"network": name, "problem": problem} for problem in out.failures]
        except Exception as error:  # of whatever kind: it is what the campaign looks for
            failures.append({"network": name, "problem": f"{type(error).__name__}: {error}"})
        rows.append(row)
    return {"counts": dict(counts), "failures": failures, "networks": rows, "worst": worst}


def table(log: Path) -> str:
    """The networks of a log, a line each."""
    lines = [_HEAD]
    known = [json.loads(line) for line in log.read_text().splitlines()]
    for line in sorted(known, key=lambda line: line.get("first", len(NAMES))):
        for row in line.get("networks", ()):
            if "module" not in row:
                continue
            place = "its Python holds sizes"
            if row["shrunk"] is not None:
                part = "" if row["shrunk_by"] == row["removed"] else f"of {row['shrunk_by']}"
                place = f"{row['shrunk']:<9.1e}{part}"
            lines.append(
                f"{row['network']:<30}{row['groups']:>7}{row['free']:>7}{row['removed']:>7}  {row['module']:<9.1e}"
                f"{place:<17} {row['onnx']:<9.1e}{row['gap']:.1e}"
            )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m networks.campaign", description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="networks; all of them by default")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--log", type=Path, help="a file of JSON lines to go on from")
    parser.add_argument("--table", action="store_true", help="print the log, run nothing")
    options = parser.parse_args(arguments)
    if options.table:
        print(table(options.log))
        return 0
    if options.names:
        lines = [networks(0, NAMES.index(name), NAMES.index(name) + 1) for name in options.names]
        print("\n".join(json.dumps(line) for line in lines))
        return 1 if any(line["failures"] for line in lines) else 0
    return 1 if run(networks, len(NAMES), 0, options.log, options.processes, size=1).failures else 0


if __name__ == "__main__":
    raise SystemExit(main())

"""What onnxsim's ``apply_structured_pruning`` removes from a file, in a process of its own.

Of two files: the model as it is, and the same with half of every family's groups at zero, which ``ozgraph eliminate``
gets as well. It is asked for half of the channels in both. Reported are CPU seconds (without imports; those of
``eliminate`` include reading, verification and writing), parameters, and for the zeroed file how far the result is from
it, as the largest difference over the largest output.

    python onnxsim_pruning.py model.onnx smaller.onnx     # the child process; needs onnx and onnxsim, nothing else
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SHARE = 0.5


def child(source: str, output: str) -> None:
    """Prune a file and print what that took; or print why it cannot be done."""
    try:
        import onnx
        from onnxsim import __version__, apply_structured_pruning
    except ImportError as missing:
        print(json.dumps({"missing": str(missing)}))
        return
    model = onnx.load(source)
    start = time.process_time()
    try:
        smaller = apply_structured_pruning(model, sparsity=SHARE)
    except Exception as error:
        print(json.dumps({"missing": f"{type(error).__name__}: {error}"}))
        return
    seconds = time.process_time() - start
    onnx.save(smaller, output)
    print(json.dumps({"version": str(__version__), "seconds": seconds}))


def removals(path: Path, python: str) -> dict[str, Any]:
    """Both files through onnxsim, and the zeroed one through ``eliminate``.

    Args:
        python: the interpreter that has onnxsim.
    """
    import ozgraph

    found: dict[str, Any] = {"parameters": ozgraph.analyze(path).report.parameters}
    with tempfile.TemporaryDirectory(prefix="ozgraph-onnxsim-") as name:
        folder = Path(name)
        zeroed = half_zeroed(path, folder / "zeroed.onnx")
        for key, source in (("as_it_is", path), ("half_zeroed", zeroed)):
            made = folder / f"{key}.smaller.onnx"
            found[key] = _pruned(source, made, python)
            if made.exists():
                try:
                    found[key]["parameters"] = ozgraph.analyze(made).report.parameters
                except ozgraph.OzgraphError as error:
                    found[key]["invalid"] = str(error).partition(": ")[2]
        if "parameters" in found["half_zeroed"]:
            found["half_zeroed"]["error"] = _error(zeroed, folder / "half_zeroed.smaller.onnx")
        start = time.process_time()
        report = ozgraph.eliminate(zeroed, folder / "eliminated.onnx").report
        found["eliminate"] = {
            "seconds": time.process_time() - start,
            "parameters": report.parameters_after,
            "error": _error(zeroed, folder / "eliminated.onnx"),
        }
    return found


def half_zeroed(path: Path, output: Path) -> Path:
    """A copy of a model with the lower half of the groups of every active family at zero."""
    import ozgraph
    from ozgraph.backends.files import write
    from ozgraph.backends.onnx import zeroed
    from ozgraph.passes.prove_dead import zeroing
    from ozgraph.passes.select import Select
    from ozgraph.passes.state import Removal

    state = ozgraph.analyze(path).state
    state.chosen = Removal(state.dims.total)
    for family, mask in Select(round_to=1).rank(state).blocks:
        if state.chosen.count(family.atom) < SHARE * family.atom.size:
            state.chosen.add(family.atom, mask)
    write(zeroed(state.graph, zeroing(state)), output, verify=None)
    return output


def _pruned(source: Path, output: Path, python: str) -> dict[str, Any]:
    command = [python, __file__, str(source), str(output)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        outcome = json.loads(done.stdout.strip().splitlines()[-1])
    except (IndexError, ValueError):
        outcome = {"missing": (done.stderr.strip().splitlines() or ["it ended without a word"])[-1]}
    assert isinstance(outcome, dict)
    return outcome


def _error(first: Path, second: Path) -> float | None:
    """The largest difference of two files' outputs over the largest output; None where the second does not run."""
    import numpy as np

    from ozgraph.errors import OzgraphError
    from ozgraph.frontends.onnx import load, sample_shapes
    from ozgraph.numerics.inputs import make_inputs
    from ozgraph.numerics.sessions import open_session

    graph = load(first)
    feeds = make_inputs(graph, sample_shapes(graph, 0), 0)
    try:
        wanted, found = (list(open_session(path).run(feeds).values()) for path in (first, second))
    except OzgraphError:
        return None
    return max(float(np.abs(a - b).max() / max(np.abs(a).max(), 1e-30)) for a, b in zip(wanted, found, strict=True))


def lines(found: dict[str, Any]) -> Iterator[str]:
    """As people read it."""
    before = found["parameters"]
    texts = {"as_it_is": "onnxsim", "half_zeroed": "onnxsim, half zeroed", "eliminate": "eliminate, half zeroed"}
    for key, text in texts.items():
        row = found[key]
        if "missing" in row:
            if key == "as_it_is" or "missing" not in found["as_it_is"]:
                yield f"  {text}: not run ({row['missing']})"
            continue
        if "invalid" in row:
            yield f"  {text}: {row['seconds'] * 1e3:.0f} CPU ms, and what it writes is no valid model: {row['invalid']}"
            continue
        error = f", off by {row['error']:.1e}" if row.get("error") is not None else ", does not run" * ("error" in row)
        share = 1 - row["parameters"] / before
        counts = f"{before / 1e6:.2f} M -> {row['parameters'] / 1e6:.2f} M parameters (-{share:.1%})"
        yield f"  {text}: {counts}, {row['seconds'] * 1e3:.0f} CPU ms{error}"


if __name__ == "__main__":
    child(*sys.argv[1:3])

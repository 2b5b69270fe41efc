"""The main job from end to end on a small trained model that ships with the package: ``ozgraph demo``."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path

import numpy as np

from ozgraph import api
from ozgraph.errors import UsageError
from ozgraph.graph import Array
from ozgraph.numerics.sessions import open_session
from ozgraph.results import AnalysisReport, BenchReport, PruneReport

Progress = Callable[[str, int | None, int | None], None]

TARGET = 0.5
"""Fraction of the MACs that goes."""

BATCH = 64
"""Images at a time when the models are timed: enough for the arithmetic to outweigh the calls."""


@dataclass(frozen=True, slots=True)
class DemoReport:
    """What the demo found.

    Attributes:
        images: test images that both accuracies count.
        accuracy_before, accuracy_after: shares of the images with the right answer.
        kept: folder that holds the models and the data; None when they are gone.
    """

    analyze: AnalysisReport
    prune: PruneReport
    bench: BenchReport
    images: int
    accuracy_before: float
    accuracy_after: float
    kept: str | None = None


def run(keep: Path | None = None, *, progress: Progress | None = None) -> DemoReport:
    """Analyze, prune half of the MACs, verify, time, and count right answers before and after.

    Args:
        keep: folder for the models and the data; made where it does not exist.
        progress: told what is going on.

    Raises:
        UsageError: ``keep`` is not a folder that can be written to.
    """
    with ExitStack() as stack:
        folder = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="ozgraph-demo-")) if keep is None else keep
        )
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for name in ("digits.onnx", "digits.npz"):
                (folder / name).write_bytes((resources.files(__name__) / name).read_bytes())
        except OSError as error:
            raise UsageError(f"{folder}: {error.strerror}; give a folder that can be written to") from error
        model, small = folder / "digits.onnx", folder / "digits-small.onnx"
        with np.load(folder / "digits.npz", allow_pickle=False) as data:
            images = data["images"][:, None].astype(np.float32) / 16
            labels = data["labels"]
        analyzed = api.analyze(model, progress=progress).report
        pruned = api.prune(model, small, target=api.Target(macs=TARGET), progress=progress).report
        timed = api.bench(model, small, shapes={"image": (BATCH, *images.shape[1:])}, progress=progress)
        before, after = (accuracy(path, images, labels) for path in (model, small))
        if keep is None:
            # The folder is about to go: its name would only send people looking.
            pruned = replace(pruned, output=small.name)
            timed = replace(timed, first=model.name, second=small.name)
        return DemoReport(
            analyze=analyzed,
            prune=pruned,
            bench=timed,
            images=len(labels),
            accuracy_before=before,
            accuracy_after=after,
            kept=None if keep is None else str(keep),
        )


def accuracy(model: Path, images: Array, labels: Array) -> float:
    """Share of images [n, 1, 8, 8] whose largest logit is at their label [n]."""
    logits = open_session(model).run({"image": images})["logits"]
    return float((np.asarray(logits).argmax(axis=1) == labels).mean())

"""ONNX that PyTorch did not write: the files of the tests, as the exporters of other libraries wrote them."""

from __future__ import annotations

from pathlib import Path

from sources import Made, Source

FOLDER = Path(__file__).parents[3] / "tests" / "models" / "made_elsewhere" / "networks"


def _names() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.onnx"))


def _make(name: str) -> Made:
    return Made(path=str(FOLDER / f"{name}.onnx"))


SOURCE = Source("elsewhere", _names, _names, _make, lambda name: name.partition("_")[0])

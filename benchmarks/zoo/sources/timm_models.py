"""The smallest model of every module of timm, then a fixed random sample of other names, then the rest."""

from __future__ import annotations

import json
import os
import random
import tempfile
from pathlib import Path
from typing import Any

import torch

from sources import Made, Source, UnbuildableError, first_that_runs, images

SAMPLE = 150
"""Further names, after the smallest of every module."""


def _prepare() -> Any:
    import compiled_operators

    compiled_operators.define()
    import timm

    return timm


def _size(name: str) -> int:
    """Parameters of a model, made without memory for them."""
    timm = _prepare()
    try:
        with torch.device("meta"):
            return sum(parameter.numel() for parameter in timm.create_model(name, pretrained=False).parameters())
    except Exception:
        return 1 << 60


def _order(name: str) -> tuple[int, str]:
    """Names that say small come first."""
    marks = ("test_", "femto", "atto", "pico", "nano", "050", "tiny", "_xxs", "xxt", "mini", "micro", "_xs", "_s", "18")
    return next((number for number, mark in enumerate(marks) if mark in name), len(marks)), name


def _sizes() -> dict[str, int]:
    """Parameters of every model, counted once for a version of timm: it takes minutes."""
    timm = _prepare()
    kept = Path(tempfile.gettempdir()) / f"ozgraph-zoo-timm-{timm.__version__}.json"
    if not kept.exists():
        with tempfile.NamedTemporaryFile("w", dir=kept.parent, delete=False) as file:
            json.dump({name: _size(name) for name in timm.list_models()}, file)
        os.replace(file.name, kept)
    sizes: dict[str, int] = json.loads(kept.read_text())
    return sizes


def _parts() -> tuple[list[str], list[str]]:
    """The smallest of every module, by their sizes and by what their names say; all others, shuffled.

    Others are told by names alone, so that the sample is the same whatever the sizes are.
    """
    timm = _prepare()
    sizes = _sizes()
    smallest, said = [], []
    for module in timm.list_modules():
        names = sorted(timm.list_models(module=module), key=_order)
        if names:
            smallest.append(min(names, key=sizes.__getitem__))
            said.append(min(names[:4], key=sizes.__getitem__))
    others = sorted(set(timm.list_models()) - set(said))
    random.Random(0).shuffle(others)
    return sorted({*smallest, *said}, key=lambda name: (sizes[name], name)), others


def _names() -> list[str]:
    smallest, others = _parts()
    return list(dict.fromkeys([*smallest, *others[:SAMPLE]]))


def _rest() -> list[str]:
    return _parts()[1][SAMPLE:]


def _kind(name: str) -> str:
    return str(_prepare().models.model_entrypoint(name).__module__.rpartition(".")[2])


def _make(name: str) -> Made:
    timm = _prepare()
    problems: list[str] = []
    for side in (64, 96, 128, 192, None):
        for option in ("img_size", None):
            if option is None and side is not None and _fixed(name):
                continue
            try:
                module = timm.create_model(name, pretrained=False, **({option: side} if option and side else {})).eval()
                found = side or module.default_cfg["input_size"][-1]
                return first_that_runs(module, images(found, channels=module.default_cfg["input_size"][0]))
            except Exception as error:
                problems.append(f"{type(error).__name__}: {error}".partition("\n")[0])
    raise UnbuildableError("; ".join(dict.fromkeys(problems))[:400])


def _fixed(name: str) -> bool:
    """Whether the architecture takes one image size alone, as its own config says."""
    return bool(
        _prepare().get_pretrained_cfg(name, allow_unregistered=True)
        and _prepare().get_pretrained_cfg(name).fixed_input_size
    )


SOURCE = Source("timm", _prepare, _names, _make, _kind, _rest)

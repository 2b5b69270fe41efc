"""The smallest model of every module of timm, then a fixed random sample of other names."""

from __future__ import annotations

import random
from typing import Any

import torch

from sources import Made, Source, UnbuildableError, first_that_runs, images

SAMPLE = 150
LARGEST = 120_000_000
"""Parameters that a sampled model may have."""


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
    """Names that say small come first, so that few models of a module need to be made."""
    marks = ("test_", "femto", "atto", "pico", "nano", "050", "tiny", "_xxs", "xxt", "mini", "micro", "_xs", "_s", "18")
    return next((number for number, mark in enumerate(marks) if mark in name), len(marks)), name


def _names() -> list[str]:
    timm = _prepare()
    chosen = []
    for module in timm.list_modules():
        names = sorted(timm.list_models(module=module), key=_order)
        if names:
            chosen.append(min(names[:4], key=_size))
    chosen = sorted(dict.fromkeys(chosen), key=_size)
    others = sorted(set(timm.list_models()) - set(chosen))
    random.Random(0).shuffle(others)
    return [*chosen, *others[:SAMPLE]]


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


SOURCE = Source("timm", _prepare, _names, _make, _kind)

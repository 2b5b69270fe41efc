"""All of ``torchvision.models.list_models()``, float weights."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from itertools import zip_longest
from typing import Any

import compiled_operators

from sources import Made, Source, first_that_runs, images, pictures

SMALLER = {"image_size": 64, "spatial_size": (64, 64), "temporal_size": 8, "min_size": 96, "max_size": 128}
"""Options of builders that say how large images are; given to every builder that takes them."""


def _prepare() -> Any:
    compiled_operators.define()
    import torchvision

    compiled_operators.admit()
    return torchvision


def _names() -> list[str]:
    """All of them; the smallest of every module first, then the next of every module, and so on."""
    models = _prepare().models
    by_module: dict[str, list[str]] = {}
    for name in sorted(models.list_models(), key=_size):
        by_module.setdefault(models.get_model_builder(name).__module__, []).append(name)
    return [name for row in zip_longest(*by_module.values()) for name in row if name is not None]


def _size(name: str) -> int:
    """Parameters, as torchvision's own weights say."""
    return min((weights.meta["num_params"] for weights in _prepare().models.get_model_weights(name)), default=0)


def _kind(name: str) -> str:
    """The folder of torchvision that it comes from."""
    module = _prepare().models.get_model_builder(name).__module__.split(".")
    return (
        module[2]
        if module[2] in ("detection", "segmentation", "video", "optical_flow", "quantization")
        else "classification"
    )


def _make(name: str) -> Made:
    models, kind = _prepare().models, _kind(name)
    builder = models.get_model_builder(name)
    if "weights_backbone" in inspect.signature(builder).parameters:
        options: dict[str, Any] = {"weights": None, "weights_backbone": None}
    else:
        options = {"weights": None}
    for smaller in (SMALLER, {"image_size": 64}, {"min_size": 96, "max_size": 128}, {}):
        try:
            module = builder(**options, **{key: size for key, size in smaller.items() if _takes(builder, key, kind)})
            made = first_that_runs(module.eval(), _inputs(kind))
        except Exception as error:
            problem = error
            continue
        return made
    raise problem


def _takes(builder: Any, option: str, kind: str) -> bool:
    """Whether a builder may take an option: builders pass on what they do not name."""
    if option in ("min_size", "max_size"):
        return kind == "detection"
    if option in ("spatial_size", "temporal_size"):
        return kind == "video"
    return kind == "classification"


def _inputs(kind: str) -> Iterator[tuple[tuple[Any, ...], dict[str, Any]]]:
    import torch

    if kind == "detection":
        yield ([torch.rand(3, 96, 96, generator=torch.Generator().manual_seed(0))],), {}
    elif kind == "video":
        for frames, side in ((8, 64), (16, 64), (16, 224)):
            yield (pictures(1, 3, frames, side, side),), {}
    elif kind == "optical_flow":
        (first,), _ = next(images(128))
        (second,), _ = next(images(128))
        yield (first, second.flip(-1)), {"num_flow_updates": 2}
    else:
        yield from images(64, 96, 128, 224)


SOURCE = Source("torchvision", _prepare, _names, _make, _kind)

"""Where models come from: one module a library, each a :class:`Source` of names and of modules with inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

SOURCES = {
    "torchvision": "sources.torchvision_models:SOURCE",
    "timm": "sources.timm_models:SOURCE",
    "huggingface": "sources.hugging_face:SOURCE",
    "diffusers": "sources.diffusers_models:SOURCE",
    "small": "sources.small_nets:SOURCE",
    "elsewhere": "sources.elsewhere:SOURCE",
}


class UnbuildableError(Exception):
    """The library itself cannot build or run a model here; says why."""


@dataclass(frozen=True)
class Made:
    """A module in eval mode and example inputs that it accepts, or an ONNX file."""

    module: Any = None
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    path: str | None = None


@dataclass(frozen=True)
class Source:
    """One library.

    Attributes:
        prepare: imports what its models need, once, before processes are forked.
        names: all names that a full run takes.
        make: builds one, with random weights.
        kind: what kind of model a name is, for the report.
        rest: further names, beyond a full run.
    """

    name: str
    prepare: Callable[[], object]
    names: Callable[[], Iterable[str]]
    make: Callable[[str], Made]
    kind: Callable[[str], str]
    rest: Callable[[], Iterable[str]] = tuple


def source(name: str) -> Source:
    """The source of that name."""
    module, _, attribute = SOURCES[name].partition(":")
    found = getattr(import_module(module), attribute)
    assert isinstance(found, Source)
    return found


def runs(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Exception | None:
    """What a module raises on these inputs; None where it runs."""
    import torch

    try:
        with torch.no_grad():
            module(*args, **kwargs)
    except Exception as error:
        return error
    return None


def first_that_runs(module: Any, candidates: Iterable[tuple[tuple[Any, ...], dict[str, Any]]]) -> Made:
    """The first inputs that a module accepts.

    Raises:
        UnbuildableError: it accepts none; with what it said to the first.
    """
    said: list[str] = []
    for args, kwargs in candidates:
        error = runs(module, args, kwargs)
        if error is None:
            return Made(module, args, kwargs)
        said.append(f"{type(error).__name__}: {error}".partition("\n")[0])
    raise UnbuildableError(f"accepts none of {len(said)} inputs; the first: {said[0] if said else 'none'}")


def pictures(*shape: int, seed: int = 0) -> Any:
    """A tensor of random numbers, as smooth in parts as pictures are: statistics over noise would not be theirs."""
    import numpy as np
    import torch

    from ozgraph.numerics.inputs import at_all_scales

    return torch.from_numpy(at_all_scales(shape, np.random.default_rng(seed))).float()


def images(
    *sides: int, channels: int = 3, lead: tuple[int, ...] = (1,)
) -> Iterator[tuple[tuple[Any, ...], dict[str, Any]]]:
    """Random images of several sizes."""
    for side in sides:
        yield (pictures(*lead, channels, side, side, seed=side),), {}

"""Modules with a config, such as those of Hugging Face: integers that are sizes of families change with them.

There is no list of models. Numbers of the config that are sizes of families, or multiples of them, are tried; they are
right where a module that is made from the new config has the shapes of the shrunken one, and where what
``save_pretrained`` writes comes back through ``from_pretrained`` as the same function.

Importing this module imports torch.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from ozgraph.frontends.torch_quiet import quiet
from ozgraph.numerics.torch_compare import Reference
from ozgraph.numerics.torch_runs import Inputs

_METHODS = ("save_pretrained", "from_pretrained")


def follow(module: nn.Module, sizes: Iterable[tuple[int, int]], inputs: Inputs) -> str | None:
    """Put the config of a shrunken module right; what to warn of where that cannot be done.

    Args:
        sizes: of families, before and after.
        inputs: the example that both are run on.
    """
    config = getattr(module, "config", None)
    if config is None or not all(callable(getattr(module, name, None)) for name in _METHODS):
        return None
    found = _numbers(module, config, sizes)
    name = type(module).__name__
    told = (
        f"the config of {name} does not describe the shrunken module; save its state_dict, not a pretrained folder "
        "(prune with uniform=True to keep layers alike)"
    )
    if found is None:
        return told
    attributes = _apply(module, config, found)
    try:
        with tempfile.TemporaryDirectory(prefix="ozgraph-config-") as folder, quiet():
            module.save_pretrained(folder)  # type: ignore[operator]
            again = type(module).from_pretrained(folder)  # type: ignore[attr-defined]
        again = again.to(next(module.parameters()).dtype)
        report = Reference(module, inputs, {}).compare(again)
    except Exception as error:  # whatever a module of anybody's does with the numbers
        report = None
        told = f"{told}: {type(error).__name__}"
    if report is not None and report.equal:
        return None
    for holder, key, value in attributes:
        setattr(holder, key, value)
    return told


def _numbers(module: nn.Module, config: Any, sizes: Iterable[tuple[int, int]]) -> dict[str, int] | None:
    """New integers of the config with which a new module has the shapes of this one; None where there are none."""
    shapes = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    integers = {key: value for key, value in vars(config).items() if type(value) is int and value > 1}
    tried: dict[str, list[tuple[bool, int]]] = {}
    for before, after in sorted(set(sizes), reverse=True):
        for key, value in integers.items():
            if value % before == 0:
                tried.setdefault(key, []).append((value != before, value // before * after))
    found: dict[str, int] = {}
    wrong = _mismatches(module, config, found, shapes)
    while wrong:
        # Sizes themselves come before their multiples, which several numbers may be.
        options = [
            (multiple, count, number, key, value)
            for number, (key, values) in enumerate(tried.items())
            for multiple, value in values
            if (count := _mismatches(module, config, {**found, key: value}, shapes)) < wrong
        ]
        if not options:
            return None
        _, wrong, _, key, value = min(options)
        found[key] = value
    return found


def _mismatches(
    module: nn.Module, config: Any, numbers: Mapping[str, int], shapes: Mapping[str, tuple[int, ...]]
) -> int:
    """How many tensors of a module made from a config have other shapes."""
    try:
        twin = _made(module, config, numbers)
    except Exception:  # numbers that do not go together
        return len(shapes) + 1
    theirs = {name: tuple(tensor.shape) for name, tensor in twin.state_dict().items()}
    return sum(theirs.get(name) != shape for name, shape in shapes.items())


def _made(module: nn.Module, config: Any, numbers: Mapping[str, int]) -> nn.Module:
    changed = copy.deepcopy(config)
    for key, value in numbers.items():
        setattr(changed, key, value)
    with torch.device("meta"), quiet():
        return type(module)(changed)


def _apply(module: nn.Module, config: Any, numbers: Mapping[str, int]) -> list[tuple[Any, str, Any]]:
    """Set the numbers in the config, and in parts of the module what a new module has there; what was there before."""
    twin = dict(_made(module, config, numbers).named_modules())
    before: list[tuple[Any, str, Any]] = []

    def put(holder: Any, key: str, value: Any) -> None:
        before.append((holder, key, getattr(holder, key)))
        setattr(holder, key, value)

    for key, value in numbers.items():
        put(config, key, value)
    for path, part in module.named_modules():
        for key, value in vars(twin[path]).items() if path in twin else ():
            own = vars(part).get(key)
            if type(value) is int and type(own) is int and own != value:
                put(part, key, value)
    return before

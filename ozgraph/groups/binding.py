"""Which tensors of a module are those of the groups, whatever it was wrapped in since they were found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ozgraph.errors import UsageError

_LAYERS = frozenset({"_orig_mod", "_checkpoint_wrapped_module", "base_layer"})
"""Parts of a name that a wrapper puts inside: torch.compile, activation checkpointing, adapters of peft."""
_COPY, _REPLACED = "modules_to_save", "original_module"
"""peft trains a copy of such a module, ``modules_to_save.NAME``, and keeps the one that it stands for."""


def _plain(name: str) -> str:
    parts = name.split(".")
    return ".".join(
        part
        for before, part in zip(["", *parts], parts, strict=False)
        if part not in {*_LAYERS, _COPY} and before != _COPY
    )


def named_tensors(module: Any) -> dict[str, Any]:
    """Parameters and buffers by the names that they have without what wrappers put between."""
    everything = dict(module.named_parameters(remove_duplicate=False)) | dict(
        module.named_buffers(remove_duplicate=False)
    )
    return {_plain(name): tensor for name, tensor in everything.items() if _REPLACED not in name.split(".")}


def holder(module: Any, shapes: Mapping[str, tuple[int, ...]]) -> Any:
    """The module itself, or the one inside it, whose tensors have these names (and shapes, if more than one has).

    ``DistributedDataParallel``, an averaged model, a trainer's module and a PeftModel hold the model as an attribute.

    Raises:
        UsageError: none has them all, or more than one has.
    """
    wanted = sorted(shapes)
    there = named_tensors(module)
    lacking = [name for name in wanted if name not in there]
    if not lacking:
        return module
    ends = [name[: -len(lacking[0])] for name in there if name.endswith(f".{lacking[0]}")]
    found = [prefix for prefix in ends if all(prefix + name in there for name in wanted)]
    if not found:
        raise UsageError(
            f"these groups are of another model: {lacking[0]!r} is not in the module; find its own with "
            "ozgraph.find_groups(module, args)"
        )
    if len(found) > 1:
        found = [
            prefix for prefix in found if all(tuple(there[prefix + n].shape) == shapes[n] for n in wanted)
        ] or found
    if len(found) > 1:
        raise UsageError(
            f"the module holds {len(found)} models that fit these groups ({', '.join(p[:-1] for p in found[:4])}); "
            "bind them to the one that is trained"
        )
    return next(part for name, part in module.named_modules() if f"{_plain(name)}." == found[0])

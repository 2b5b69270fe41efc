"""What went wrong in a capture: the line of the module's own Python, and the kind of problem."""

from __future__ import annotations

import dataclasses
import linecache
import os
import re
import traceback
from typing import Any

import torch

_TORCH = os.path.dirname(torch.__file__) + os.sep
_OURS = os.path.dirname(os.path.dirname(__file__)) + os.sep
_STANDARD = os.path.dirname(os.__file__) + os.sep
_LAYERS = os.path.join("torch", "nn", "modules") + os.sep
_DATA_DEPENDENT = ("GuardOnDataDependentSymNode", "DataDependentOutputException", "DynamicOutputShapeException")
_LENGTH = 200


def at_fault(error: BaseException) -> str | None:
    """The innermost line of the model's Python in an error's traceback: ``file:line: code``; None where there is none.

    A line of torch's own layers stands in where no other code is involved.
    """
    theirs: traceback.FrameSummary | None = None
    layer: traceback.FrameSummary | None = None
    current: BaseException | None = error
    while current is not None:
        for frame in traceback.extract_tb(current.__traceback__):
            if _is_theirs(frame.filename):
                theirs = frame
            elif _LAYERS in frame.filename and frame.name == "forward":
                layer = frame
        current = current.__cause__ or current.__context__
    found = theirs or layer
    if found is None:
        return None
    code = (found.line or linecache.getline(found.filename, found.lineno or 0)).strip()
    return f"{found.filename}:{found.lineno}: {code}"


def _is_theirs(filename: str) -> bool:
    if filename.startswith(("<", _TORCH, _OURS)):
        return False
    return not filename.startswith(_STANDARD) or "site-packages" in filename


def first_line(error: BaseException) -> str:
    """An error's own words, on one line and not too long."""
    text = " ".join(str(error).strip().split("\n\n")[0].split()) or type(error).__name__
    return (text if len(text) <= _LENGTH else text[: _LENGTH - 3] + "...").rstrip(".;: ")


def unknown_output(error: BaseException) -> str | None:
    """The class of an output that torch.export does not know; None where that is not the trouble."""
    found = re.search(r"Found <class '([^']+)'> in output", str(error))
    return None if found is None else found[1].rpartition(".")[2]


def is_data_dependent(error: BaseException) -> bool:
    """Whether torch stopped because it would need the elements of a tensor."""
    current: BaseException | None = error
    while current is not None:
        if type(current).__name__ in _DATA_DEPENDENT or "data-dependent" in str(current)[:200].lower():
            return True
        current = current.__cause__ or current.__context__
    return False


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, on the processor or on a device."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def dry_run(module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What a module gives, without elements: it runs on shapes and types, and writes to nothing of the caller's."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        named = (*module.named_parameters(), *module.named_buffers())
        state: dict[str, torch.Tensor] = {name: mode.from_tensor(tensor) for name, tensor in named}
        return torch.func.functional_call(module, state, args, kwargs)


def within_bounds(dynamic_shapes: Any, error: BaseException) -> Any:
    """Dynamic shapes in the bounds that torch.export asks for; None where bounds are not what it is about.

    Kernels take only so much (batch norms of CUDA 65535 samples), and a size without an upper bound is refused there.
    """
    from torch.export.dynamic_shapes import refine_dynamic_shapes_from_suggested_fixes

    _, _, fixes = str(error).partition("Suggested fixes:\n")
    lines = [line.strip() for line in fixes.strip().split("\n\n")[0].splitlines()]
    if not lines or not all(re.fullmatch(r"\w+ = Dim\('\w+'(, m(in|ax)=\d+)+\)", line) for line in lines):
        return None
    try:
        return refine_dynamic_shapes_from_suggested_fixes("Suggested fixes:\n" + "\n".join(lines), dynamic_shapes)
    except Exception:  # sizes said in another way, such as by Dim.AUTO
        return None


def unregistered_dataclasses(
    module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[type[Any], ...]:
    """Dataclasses among a module's inputs and results that torch cannot take apart yet."""
    from torch.utils import _pytree as pytree

    try:
        results = dry_run(module, args, kwargs)
    except Exception:
        results = None
    found: dict[type[Any], None] = {}
    queue: list[Any] = pytree.tree_leaves((args, kwargs, results))
    for leaf in queue:
        if dataclasses.is_dataclass(leaf) and not isinstance(leaf, type) and type(leaf) not in found:
            found[type(leaf)] = None
            queue.extend(pytree.tree_leaves([getattr(leaf, field.name) for field in dataclasses.fields(leaf)]))
    return tuple(found)

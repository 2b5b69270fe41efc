"""Leave a module and the process as they were: modes, attributes, hooks, warnings, logs."""

from __future__ import annotations

import io
import logging
import operator
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any

import torch


@contextmanager
def left_alone(module: torch.nn.Module, *, training: bool) -> Iterator[None]:
    """Put a module into a mode for a while, without gradients; every attribute is as before afterwards.

    The fused kernels that inference takes in place of attention layers, and compiled forwards, are off meanwhile.
    """
    before = [(part, dict(part.__dict__), contents(part)) for part in module.modules()]
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        for part, _, _ in before:
            part.training = training
            if part.__dict__.get("_compiled_call_impl") is not None:
                part.__dict__["_compiled_call_impl"] = None
        with torch.no_grad():
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for part, attributes, containers in before:
            part.__dict__.clear()
            part.__dict__.update(attributes)
            for held, content in containers:
                if _same(held, content):
                    continue  # what refuses to be written to was not written to
                if isinstance(held, list):
                    held[:] = content
                else:
                    held.clear()
                    held.update(content)


def _same(held: Any, content: Any) -> bool:
    """Whether a list or dict holds the very objects that it held, in the same order."""
    if isinstance(held, list):
        return len(held) == len(content) and all(map(operator.is_, held, content))
    return list(held) == list(content) and all(held[key] is content[key] for key in content)


def contents(part: torch.nn.Module) -> list[tuple[Any, Any]]:
    """Lists and dicts that a module holds (parameters, hooks, caches), each with a copy of what is in it."""
    found: list[tuple[Any, Any]] = []
    for held in part.__dict__.values():
        if type(held) is list:
            found.append((held, list(held)))
        elif isinstance(held, dict):
            found.append((held, dict(held)))
    return found


@contextmanager
def quiet() -> Iterator[None]:
    """No warnings, logs and printed graphs of torch's: what goes wrong is said in one line."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)

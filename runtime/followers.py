"""Wrappers around the module that is trained, and copies of it, when the module itself becomes another or smaller."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel


def chain(module: nn.Module) -> Iterator[nn.Module]:
    """A module and what it wraps, from the outside in: data-parallel and compiled wrappers, averages."""
    while True:
        yield module
        inner = module._orig_mod if is_compiled(module) else getattr(module, "module", None)
        if not isinstance(inner, nn.Module):
            return
        module = inner


def inner_of(module: nn.Module) -> nn.Module:
    """What is inside of all wrappers."""
    *_, found = chain(module)
    return found


def is_compiled(module: nn.Module) -> bool:
    """Whether it is what ``torch.compile`` makes of a module."""
    return type(module).__name__ == "OptimizedModule"


def put_inside(whole: nn.Module, inner: nn.Module, undo: ExitStack) -> None:
    """Let a wrapper wrap another module, until ``undo`` unwinds."""
    *outer, old = chain(whole)
    if old is not inner:
        undo.callback(setattr, outer[-1], "module", old)
        outer[-1].module = inner


def wake(whole: nn.Module) -> None:
    """Let wrappers notice that what they wrap has changed."""
    for part in chain(whole):
        if isinstance(part, DistributedDataParallel):
            _reduce_anew(part)
        elif is_compiled(part):
            # Guards would find the new sizes, but a code object is recompiled only so often.
            torch.compiler.reset()


def _reduce_anew(parallel: Any) -> None:
    """Gradient buckets for the parameters as they are, on every rank alike, or an error on all of them."""
    distributed: Any = torch.distributed
    parallel._module_parameters = [
        parameter for name, parameter in parallel.module.named_parameters() if name not in parallel.parameters_to_ignore
    ]
    parameters, sparse = parallel._build_params_for_reducer()
    distributed._verify_params_across_processes(parallel.process_group, parameters, None)
    names = parallel._build_debug_param_to_name_mapping(parameters)
    parallel._ddp_init_helper(parameters, sparse, names, parallel.static_graph)
    for hook, state in parallel._comm_hooks:
        distributed._register_comm_hook(parallel.reducer, state, hook)

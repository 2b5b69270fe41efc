"""PyTorch in: an ``nn.Module`` and example inputs become a :class:`~ozgraph.graph.Graph`.

Importing this module imports torch; import it where a module is about to be captured.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch.utils import _pytree as pytree

from ozgraph.collector import collector_paused
from ozgraph.errors import ModelError, OzgraphError, UsageError
from ozgraph.frontends.torch_faults import (
    at_fault,
    dry_run,
    first_line,
    is_data_dependent,
    is_out_of_memory,
    unknown_output,
    unregistered_dataclasses,
    within_bounds,
)
from ozgraph.frontends.torch_graph import build
from ozgraph.frontends.torch_origin import TorchOrigin
from ozgraph.frontends.torch_quiet import left_alone, quiet
from ozgraph.graph import Graph


@collector_paused()
def capture(
    module: torch.nn.Module,
    args: tuple[Any, ...] | list[Any] | Mapping[str, Any] | torch.Tensor,
    kwargs: Mapping[str, Any] | None = None,
    *,
    dynamic_shapes: Any = None,
) -> Graph:
    """Read a PyTorch module for analysis; the module is left exactly as it was.

    The graph is that of the module in eval mode, whatever mode the module is in, without gradients; what training mode
    changes, the backend finds. Data-parallel and compiled modules are unwrapped; weights then have the names that they
    have inside.

    Args:
        module: any module, on any device; on the meta device no weight is needed.
        args, kwargs: example inputs; a single tensor stands for a tuple of one, and a mapping in the place of ``args``,
            as tokenizers return it, for ``kwargs``.
        dynamic_shapes: which axes of the inputs vary, as ``torch.export.export`` takes it.

    Returns:
        A graph whose operators are of the domain ``aten``, whose weights have the module's own names, and whose
        ``origin`` is a :class:`~ozgraph.frontends.torch_origin.TorchOrigin`.

    Raises:
        UsageError: the module is none that can be captured (a scripted one), or the inputs do not fit it.
        ModelError: neither torch.export nor torch.fx can follow the module's Python.
    """
    inner = unwrapped(module)
    arguments, keywords = inputs_of(args, kwargs)
    program = exported(inner, arguments, keywords, dynamic_shapes, training=False)
    origin = TorchOrigin(program, inner, arguments, keywords, dynamic_shapes=dynamic_shapes)
    return build(origin, type(inner).__name__)


def inputs_of(args: Any, kwargs: Mapping[str, Any] | None) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Example inputs by position and by name, from the forms in which people have them.

    Raises:
        UsageError: a numpy array, or inputs by name twice.
    """
    if isinstance(args, Mapping):
        if kwargs:
            raise UsageError("inputs by name are given twice: in the place of args, and as kwargs")
        args, kwargs = (), args
    arguments = tuple(args) if isinstance(args, (tuple, list)) else (args,)
    keywords = {str(name): value for name, value in (kwargs or {}).items()}
    if any(isinstance(value, np.ndarray) for value in (*arguments, *keywords.values())):
        raise UsageError("example inputs are tensors, not numpy arrays: use torch.from_numpy(array)")
    return arguments, keywords


def unwrapped(module: torch.nn.Module) -> torch.nn.Module:
    """The module inside data-parallel and compiled wrappers.

    Raises:
        UsageError: it is no module, or one without Python.
    """
    if not isinstance(module, torch.nn.Module):
        what = module.__name__ if isinstance(module, type) else type(module).__name__
        raise UsageError(f"cannot capture {what}: it is no torch.nn.Module; give an instance of one")
    while True:
        if isinstance(module, (torch.nn.DataParallel, torch.nn.parallel.DistributedDataParallel)):
            module = module.module
        elif type(module).__name__ == "OptimizedModule" and isinstance(module._orig_mod, torch.nn.Module):
            module = module._orig_mod
        else:
            break
    if isinstance(module, (torch.jit.ScriptModule, torch.jit.ScriptFunction)):
        raise UsageError(
            "cannot capture a scripted or traced module: its Python is gone; give the module that it was made from"
        )
    if type(module).__name__ == "FullyShardedDataParallel" or any(
        hasattr(p, "device_mesh") for p in module.parameters()
    ):
        raise UsageError("cannot capture a sharded module; capture it before it is wrapped")
    return module


def exported(
    module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], dynamic_shapes: Any, *, training: bool
) -> torch.export.ExportedProgram:
    """The program of a module in one mode: by torch.export, else by torch.fx and then torch.export.

    Raises:
        UsageError: the inputs do not fit.
        ModelError: neither can follow it.
    """
    name = type(module).__name__
    with left_alone(module, training=training), quiet():
        try:
            return _export(module, args, kwargs, dynamic_shapes)
        except OzgraphError:
            raise
        except Exception as error:
            problem = error
        if isinstance(problem, TypeError) and not is_data_dependent(problem) and at_fault(problem) is None:
            raise UsageError(f"{name}.forward does not take these inputs: {first_line(problem)}") from None
        try:
            return _export(_traced(module), args, kwargs, dynamic_shapes)
        except Exception:  # what torch.export said is the better explanation
            pass
        where = at_fault(problem)
        place = f" at {where}" if where else ""
        if is_data_dependent(problem):
            raise ModelError(
                f"cannot capture {name}: what it does{place} depends on the data ({first_line(problem)}); "
                "use torch.where or torch.cond there, or capture the part of the module that does not branch"
            ) from problem
        returned = unknown_output(problem)
        if returned is not None:
            raise ModelError(
                f"cannot capture {name}: it returns a {returned}, which torch.export does not know; have it return "
                "tensors alone (models of transformers: set config.use_cache to False)"
            ) from problem
        if _runs(module, args, kwargs):
            raise ModelError(
                f"cannot capture {name}: torch.export does not follow it{place} ({first_line(problem)}); "
                "rewrite that line with tensor operations, or capture the part of the module around it"
            ) from problem
        raise UsageError(
            f"{name} does not run on these inputs: {first_line(problem)}{place}; give inputs that it accepts"
        ) from problem


def _export(
    module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], dynamic_shapes: Any
) -> torch.export.ExportedProgram:
    try:
        return torch.export.export(module, args, kwargs, dynamic_shapes=dynamic_shapes, strict=False)
    except Exception as error:
        found = unregistered_dataclasses(module, args, kwargs)
        narrower = within_bounds(dynamic_shapes, error)
        if not found and narrower is None:
            raise
    for kind in found:
        torch.export.register_dataclass(kind)
    shapes = dynamic_shapes if narrower is None else narrower
    return torch.export.export(module, args, kwargs, dynamic_shapes=shapes, strict=False)


def _traced(module: torch.nn.Module) -> torch.nn.Module:
    """The module as torch.fx follows it, which reads buffers as it goes; what it writes to them goes to copies."""
    for part in module.modules():
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = buffer.clone()  # the caller's come back with all other attributes
    return torch.fx.symbolic_trace(module)


def _runs(module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether the inputs are such that the module itself takes them."""
    try:
        dry_run(module, args, kwargs)
    except Exception as error:
        return is_data_dependent(error) or _runs_on_elements(module, args, kwargs)
    return True


def _runs_on_elements(module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """The same asked of a whole run, on copies of all that it could write to but its parameters."""
    copies = {name: buffer.clone() for name, buffer in module.named_buffers()}
    given = pytree.tree_map(lambda leaf: leaf.clone() if isinstance(leaf, torch.Tensor) else leaf, (args, kwargs))
    try:
        torch.func.functional_call(module, copies, *given)
    except Exception as error:
        return is_out_of_memory(error)  # which says nothing about the inputs
    return True

"""PyTorch in: an ``nn.Module`` and example inputs become a :class:`~ozgraph.graph.Graph`.

Importing this module imports torch; import it where a module is about to be captured.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from ozgraph.collector import collector_paused
from ozgraph.frontends.torch_graph import build
from ozgraph.frontends.torch_origin import TorchOrigin
from ozgraph.graph import Graph


@collector_paused()
def capture(
    module: torch.nn.Module,
    args: tuple[Any, ...] | torch.Tensor,
    kwargs: Mapping[str, Any] | None = None,
    *,
    dynamic_shapes: Any = None,
) -> Graph:
    """Read a PyTorch module for analysis; the module is left exactly as it was.

    Args:
        module: any module, on any device; on the meta device no weight is needed.
        args, kwargs: example inputs; a single tensor stands for a tuple of one.
        dynamic_shapes: as ``torch.export.export`` takes them.

    Returns:
        A graph whose operators are of the domain ``aten`` and whose weights have the module's own names. It is the
        graph of the module in eval mode, whatever mode the module is in.

    Raises:
        UsageError: the module cannot be captured as it is given (a scripted module), or the inputs do not fit.
        ModelError: neither torch.export nor torch.fx can follow the module's Python.
    """
    inner = module
    arguments = (args,) if isinstance(args, torch.Tensor) else tuple(args)
    keywords = dict(kwargs or {})
    with _in_eval_mode(inner):
        program = _exported(inner, arguments, keywords, dynamic_shapes)
    origin = TorchOrigin(program, inner, arguments, keywords, dynamic_shapes=dynamic_shapes)
    return build(origin, type(inner).__name__)


@contextmanager
def _in_eval_mode(module: torch.nn.Module) -> Iterator[None]:
    """Eval mode for a while, without gradients and without the fused kernels that inference takes."""
    modes = [(part, part.training) for part in module.modules()]
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        for part, _ in modes:
            part.training = False
        with torch.no_grad():
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for part, mode in modes:
            part.training = mode


def _exported(
    module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], dynamic_shapes: Any
) -> torch.export.ExportedProgram:
    return torch.export.export(module, args, kwargs, dynamic_shapes=dynamic_shapes, strict=False)

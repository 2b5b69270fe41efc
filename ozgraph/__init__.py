"""A structured-pruning compiler: find what a model can lose, remove it, prove that nothing else changed.

>>> import ozgraph
>>> result = ozgraph.prune("model.onnx", "small.onnx", target=ozgraph.Target(macs=0.5))  # doctest: +SKIP
>>> result.report.macs_after  # doctest: +SKIP
2053416960

Everything named here is imported on first use, so that ``import ozgraph`` costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ozgraph.api import analyze, bench, eliminate, find_groups, load, prune, verify
    from ozgraph.compactor import Compactor
    from ozgraph.errors import OzgraphError
    from ozgraph.exporting import export
    from ozgraph.frontends.torch import capture
    from ozgraph.graph import Graph
    from ozgraph.inplace import shrink_
    from ozgraph.target import Target

__version__ = "0.1.0"

__all__ = [
    "Compactor",
    "Graph",
    "OzgraphError",
    "Target",
    "__version__",
    "analyze",
    "bench",
    "capture",
    "eliminate",
    "export",
    "find_groups",
    "load",
    "prune",
    "shrink_",
    "verify",
]

_HOMES = {
    "Compactor": "ozgraph.compactor",
    "Graph": "ozgraph.graph",
    "OzgraphError": "ozgraph.errors",
    "Target": "ozgraph.target",
    "analyze": "ozgraph.api",
    "bench": "ozgraph.api",
    "capture": "ozgraph.frontends.torch",
    "eliminate": "ozgraph.api",
    "export": "ozgraph.exporting",
    "find_groups": "ozgraph.api",
    "load": "ozgraph.api",
    "prune": "ozgraph.api",
    "shrink_": "ozgraph.inplace",
    "verify": "ozgraph.api",
}


_FOR_TORCH = {"Compactor", "capture", "export", "find_groups", "shrink_"}


def __getattr__(name: str) -> Any:
    """Import a public name on first use (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name in _FOR_TORCH and not _torch_is_there():
        raise ImportError(f"ozgraph.{name} needs torch: pip install 'ozgraph[torch]'")
    return getattr(import_module(_HOMES[name]), name)


def _torch_is_there() -> bool:
    from importlib.util import find_spec

    try:
        return find_spec("torch") is not None
    except ImportError:
        return False


def __dir__() -> list[str]:
    """Public names, whether imported yet or not."""
    return sorted(__all__)

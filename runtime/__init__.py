"""Training on zero-invariant groups: everything that needs torch lives here.

The runtime decides *what* becomes zero; the compiler removes whatever it can prove dead. The runtime knows groups, as
strided patterns over parameters, and never the graph they came from. Install it with ``pip install "ozgraph[torch]"``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ozgraph.runtime.cric import HESSOCRIC
    from ozgraph.runtime.half_space import DHSPG, HSPG
    from ozgraph.runtime.hesso import HESSO
    from ozgraph.runtime.lhspg import LHSPG
    from ozgraph.runtime.one_cycle import OneCycle
    from ozgraph.runtime.progress import ProgressLine
    from ozgraph.runtime.saliency import HESSO_MIX, Measure, Mix
    from ozgraph.runtime.schedule import Schedule
    from ozgraph.target import Target

__all__ = [
    "DHSPG",
    "HESSO",
    "HESSOCRIC",
    "HESSO_MIX",
    "HSPG",
    "LHSPG",
    "Measure",
    "Mix",
    "OneCycle",
    "ProgressLine",
    "Schedule",
    "Target",
]

_HOMES = {
    "DHSPG": "ozgraph.runtime.half_space",
    "HESSOCRIC": "ozgraph.runtime.cric",
    "HSPG": "ozgraph.runtime.half_space",
    "HESSO": "ozgraph.runtime.hesso",
    "HESSO_MIX": "ozgraph.runtime.saliency",
    "LHSPG": "ozgraph.runtime.lhspg",
    "Measure": "ozgraph.runtime.saliency",
    "Mix": "ozgraph.runtime.saliency",
    "OneCycle": "ozgraph.runtime.one_cycle",
    "ProgressLine": "ozgraph.runtime.progress",
    "Schedule": "ozgraph.runtime.schedule",
    "Target": "ozgraph.target",
}


def __getattr__(name: str) -> Any:
    """Import a public name on first use (PEP 562), so that ``import ozgraph.runtime`` does not need torch."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(_HOMES[name]), name)
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise ImportError(f"ozgraph.runtime.{name} needs torch: pip install 'ozgraph[torch]'") from None


def __dir__() -> list[str]:
    """Public names, whether imported yet or not."""
    return sorted(__all__)

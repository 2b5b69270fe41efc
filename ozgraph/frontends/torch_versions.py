"""What releases of torch call by other names, in one place.

Importing this module imports torch.
"""

from __future__ import annotations

import inspect

import torch

_HAS_GUARDS = "check_guards" in inspect.signature(torch.export.ExportedProgram.module).parameters


def unguarded(program: torch.export.ExportedProgram) -> torch.fx.GraphModule:
    """The program as a module that takes inputs of other sizes than its own, as far as its operators do.

    Releases without the argument never check them.
    """
    return program.module(check_guards=False) if _HAS_GUARDS else program.module()

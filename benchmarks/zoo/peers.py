"""Other tools on the same models, as a plain user would call them, judged by the same two measures.

*Runs*: the pruned model runs and returns the shapes that it did. *Equal*: it returns what the original returns with
exactly the removed channels at zero.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from peer_onnxsim import onnxsim
from peer_torch_pruning import torch_pruning
from sources import Made

PEERS: dict[str, Callable[[Made, Any], dict[str, Any]]] = {
    "torch-pruning": torch_pruning,
    "onnxsim": onnxsim,
}

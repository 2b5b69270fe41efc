"""How a file compares with the module that it was written from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn


def run(path: Path, *inputs: Tensor) -> Any:
    """The first output of a file."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    return session.run(None, {name: x.numpy() for name, x in zip(names, inputs, strict=True)})[0]


def difference(path: Path, module: nn.Module, *inputs: Tensor) -> float:
    """Largest difference of a file from a module on inputs, over the largest magnitude."""
    module.eval()
    with torch.no_grad():
        wanted = module(*inputs).numpy()
    return float(np.abs(run(path, *inputs) - wanted).max() / np.abs(wanted).max())

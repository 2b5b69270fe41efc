"""From a trained module to a small ONNX file, and how it compares."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn

import ozgraph
from ozgraph.api import PruneResult


def write_small(module: nn.Module, example: tuple[Tensor, ...], output: Path) -> PruneResult:
    """Export as it is, zeroing nothing, and remove what is dead; the batch may vary."""
    names = list(inspect.signature(module.forward).parameters)
    whole = output.with_suffix(".whole.onnx")
    module.eval()
    batch = torch.export.Dim("batch")
    torch.onnx.export(
        module,
        example,
        whole,
        input_names=names,
        dynamic_shapes=tuple({0: batch} for _ in example),
        dynamo=True,
        optimize=False,
        verbose=False,
    )
    return ozgraph.eliminate(whole, output)


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

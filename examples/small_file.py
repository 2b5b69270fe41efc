"""How the examples end: the trained module as a small ONNX file, verified."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn

import ozgraph


def write(module: nn.Module, example: Tensor, output: Path, held_out: Tensor, *, batch_varies: bool = True) -> None:
    """Write ``module`` without its dead groups and compare the file with the module on inputs that it has not seen.

    Nothing is zeroed here: what goes was exactly zero when training ended. ``ozgraph.export`` runs the small file
    beside the whole one and beside the module, and writes nothing where they differ.

    Args:
        example: a batch, to export with.
        held_out: another batch, of the same size where the batch does not vary.
        batch_varies: whether the file takes any number of samples.
    """
    module = module.cpu().float().eval().to(memory_format=torch.contiguous_format)
    shapes = ({0: torch.export.Dim("batch")},) if batch_varies else None
    report = ozgraph.export(module, example, output, dynamic_shapes=shapes)
    session = onnxruntime.InferenceSession(output, providers=["CPUExecutionProvider"])
    found = session.run(None, {session.get_inputs()[0].name: held_out.numpy()})[0]
    with torch.no_grad():
        wanted = module(held_out).numpy()
    difference = float(np.abs(found - wanted).max() / np.abs(wanted).max())
    print(
        f"{output}: {report.parameters_after:,} of {report.parameters_before:,} parameters, {report.macs_after:,} of "
        f"{report.macs_before:,} MACs; differs from the trained module by {difference:.1e} on held-out inputs"
    )
    if difference > 1e-4:
        raise SystemExit(f"{output} does not equal the trained module")

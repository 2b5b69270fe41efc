"""A tiny Llama made from a config, and sequences for it to learn; needs transformers."""

from __future__ import annotations

import unittest
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import ozgraph
from models.zoo import torchvision_library
from ozgraph.groups import Groups
from training.finished import run

# transformers imports it, where it is installed, and some builds lack operators that the import asks for.
with suppress(unittest.SkipTest):
    torchvision_library()

transformers = pytest.importorskip("transformers")
torch.set_num_threads(1)

VOCABULARY, LENGTH = 24, 12
INCLUDE = ["*.k_proj.weight", "*.gate_proj.weight"]
"""Heads and the width of the MLPs."""


def llama(seed: int = 0) -> Any:
    """Two layers, two key heads of two query heads each; every weight away from its start."""
    torch.manual_seed(seed)
    config = transformers.AutoConfig.for_model(
        "llama",
        vocab_size=VOCABULARY,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=4,
        intermediate_size=24,
        max_position_embeddings=32,
        use_cache=False,
    )
    module = transformers.AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return module


def sequences(count: int, seed: int = 0) -> list[dict[str, Tensor]]:
    """Runs that count upwards from a random start: what comes next can be learnt."""
    generator = torch.Generator().manual_seed(seed)
    starts = torch.randint(VOCABULARY, (count, 1), generator=generator)
    found = (starts + torch.arange(LENGTH)) % VOCABULARY
    return [{"input_ids": row, "labels": row} for row in found]


def batch(number: int, size: int = 4) -> dict[str, Tensor]:
    """A batch that depends on its number alone."""
    rows = sequences(size, 100 + number)
    return {key: torch.stack([row[key] for row in rows]) for key in rows[0]}


def example() -> dict[str, Tensor]:
    return {"input_ids": batch(0)["input_ids"]}


def groups_of(module: nn.Module) -> Groups:
    return ozgraph.find_groups(module, (), example())


def exactly_zero(pruner: Any, module: nn.Module) -> None:
    """The target is met, and every element of every group that is gone is 0.0 in the plain module."""
    assert pruner.finished and pruner.gone.any() and not pruner.gone.all()
    tensors = dict(module.named_parameters(remove_duplicate=False)) | dict(module.named_buffers())
    for family, span in pruner.layout.spans():
        gone = np.flatnonzero(pruner.gone[span])
        for occurrence in family.zeroed:
            there = torch.from_numpy(np.isin(occurrence.slots(), gone))
            assert tensors[occurrence.tensor].detach().movedim(occurrence.axis, 0)[there].abs().sum() == 0.0


def verified(pruner: Any, module: nn.Module, path: Path) -> None:
    """The file lacks what is gone, and computes what the module computes on inputs it has not seen."""
    module.eval()
    report = ozgraph.export(module, (), path, kwargs=example())
    gone = pruner.groups.parameters - pruner.selection.left(pruner.gone)[0]
    assert report.parameters_before - report.parameters_after >= gone > 0
    assert report.removed_slots >= pruner.gone.sum()
    unseen = batch(99)["input_ids"]
    with torch.no_grad():
        wanted = module(input_ids=unseen).logits.numpy()
    assert np.abs(run(path, unseen) - wanted).max() <= 1e-5 * np.abs(wanted).max()

"""CIFAR-10 from a folder: as torchvision keeps it, or as archives of WebP images; or made up, for a dry run."""

from __future__ import annotations

import io
import os
import pickle
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

Split = tuple[Tensor, Tensor]
"""uint8 images [n, 3, 32, 32] and int64 labels [n]."""


def load(folder: Path | None, cache: Path | None = None) -> tuple[Split, Split]:
    """Training and test images.

    Args:
        folder: one that holds torchvision's ``cifar-10-batches-py``, or archives ``train-*.npz`` and ``test.npz`` with
            ``webp`` (the images' lossless WebP bytes one after the other), ``offsets`` (n + 1) and ``labels``; decoding
            those needs Pillow. None for made-up images.
        cache: file that keeps the decoded images (180 MB), so that the next run need not decode them.
    """
    if folder is None:
        return made(2048, seed=0), made(512, seed=1)
    if cache is None:
        return _decoded(folder)
    if not cache.exists():
        (images, labels), (test_images, test_labels) = _decoded(folder)
        # Written under another name first: several runs may begin at once.
        partial = cache.with_suffix(f".{os.getpid()}.npz")
        np.savez(partial, images=images, labels=labels, test_images=test_images, test_labels=test_labels)
        partial.replace(cache)
    with np.load(cache) as data:
        kept = {name: torch.from_numpy(data[name]) for name in data.files}
    return (kept["images"], kept["labels"]), (kept["test_images"], kept["test_labels"])


def _decoded(folder: Path) -> tuple[Split, Split]:
    batches = folder / "cifar-10-batches-py"
    if batches.is_dir():
        return _pickled(sorted(batches.glob("data_batch_*"))), _pickled([batches / "test_batch"])
    archives = sorted(folder.glob("train-*.npz"))
    if archives and (folder / "test.npz").exists():
        return _webp(archives), _webp([folder / "test.npz"])
    raise SystemExit(f"{folder}: neither cifar-10-batches-py nor train-*.npz and test.npz is there; see --help")


def made(number: int, seed: int) -> Split:
    """Ten kinds of stripes under noise."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(10, (number,), generator=generator)
    rows, columns = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    stripes = torch.stack([torch.sin((k % 5 + 1) * 0.2 * (rows if k < 5 else columns)) for k in range(10)])
    images = 128 + 60 * stripes[labels][:, None] + 40 * torch.randn(number, 3, 32, 32, generator=generator)
    return images.clamp(0, 255).to(torch.uint8), labels


def _pickled(files: list[Path]) -> Split:
    images, labels = [], []
    for file in files:
        with file.open("rb") as opened:
            data = pickle.load(opened, encoding="latin1")
        images.append(np.asarray(data["data"], dtype=np.uint8).reshape(-1, 3, 32, 32))
        labels.append(np.asarray(data["labels"], dtype=np.int64))
    return torch.from_numpy(np.concatenate(images)), torch.from_numpy(np.concatenate(labels))


def _webp(archives: list[Path]) -> Split:
    from PIL import Image

    images, labels = [], []
    for archive in archives:
        data = np.load(archive)
        coded, offsets = data["webp"].tobytes(), data["offsets"]
        for start, end in pairwise(offsets):
            images.append(np.asarray(Image.open(io.BytesIO(coded[start:end])).convert("RGB")))
        labels.append(data["labels"].astype(np.int64))
    stacked = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()
    return stacked, torch.from_numpy(np.concatenate(labels))


def augmented(images: Tensor, generator: torch.Generator) -> Tensor:
    """Shifted by up to four pixels and mirrored at random, on the device: [n, 3, 32, 32]."""
    number, device = len(images), images.device
    padded = torch.nn.functional.pad(images, (4, 4, 4, 4))
    shift = torch.randint(9, (2, number, 1), generator=generator, device=device)
    rows, columns = (shift[axis] + torch.arange(32, device=device) for axis in (0, 1))
    mirrored = torch.rand(number, 1, generator=generator, device=device) < 0.5
    columns = torch.where(mirrored, columns.flip(1), columns)
    which = torch.arange(number, device=device)[:, None, None]
    # Indices in front of and behind the channels put the channels last.
    return padded[which, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def normalised(images: Tensor) -> Tensor:
    """Float images of zero mean and unit deviation, channels last in memory."""
    mean = torch.tensor([0.485, 0.456, 0.406], device=images.device).view(3, 1, 1)
    deviation = torch.tensor([0.229, 0.224, 0.225], device=images.device).view(3, 1, 1)
    return ((images.float() / 255 - mean) / deviation).contiguous(memory_format=torch.channels_last)

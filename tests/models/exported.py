"""Small torch networks as torch's exporter (dynamo) writes them; each comes in four forms.

``EXPORTED["resnet"]`` is static and optimised; ``resnet_raw`` is exported with ``optimize=False``; ``resnet_dynamic``
and ``resnet_dynamic_raw`` have a batch (and, for decoders, a sequence) that varies. A few more have their own opset.
Exports take seconds, so files are kept (:mod:`models.cache`). Without torch, only kept files can be had: a builder
raises ``unittest.SkipTest``, which pytest reports as skipped.
"""

from __future__ import annotations

import contextlib
import io
import logging
import unittest
import warnings
from functools import partial
from importlib import metadata
from pathlib import Path

import onnx

from models.building import Builder
from models.cache import cache_folder

NETS = (
    "resnet", "resnext", "mobilenet_v3", "shufflenet_v2", "densenet", "vit", "swin", "convnext", "gqa_decoder", "gpt2",
    "recurrent", "unet",
)  # fmt: skip

RECIPE = 1
"""Part of the kept files' names; raise it when a network here changes."""


def exported(name: str, *, optimize: bool = True, dynamic: bool = False, opset: int | None = None) -> onnx.ModelProto:
    """The network ``name`` of :mod:`models.torch_nets` as an ONNX model.

    Raises:
        unittest.SkipTest: torch or onnxscript is not installed and no kept file is there.
    """
    try:
        version = "-".join(metadata.version(package) for package in ("torch", "onnxscript"))
    except metadata.PackageNotFoundError as error:
        raise unittest.SkipTest(f"torch export of {name}: {error.name} is not installed") from error
    form = f"{name}{'-dynamic' if dynamic else ''}{'' if optimize else '-raw'}{f'-opset{opset}' if opset else ''}"
    path = cache_folder("exported") / f"{form}-{version}-{RECIPE}.onnx"
    if not path.exists():
        _export(name, path, optimize=optimize, dynamic=dynamic, opset=opset)
    return onnx.load(path)


def _export(name: str, path: Path, *, optimize: bool, dynamic: bool, opset: int | None) -> None:
    import torch

    from models import torch_nets

    module, inputs, axes = torch_nets.sample(name)
    shapes = {key: {axis: torch.export.Dim(size) for axis, size in sizes.items()} for key, sizes in axes.items()}
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), torch.no_grad(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                module,
                tuple(inputs.values()),
                dynamo=True,
                optimize=optimize,
                opset_version=opset,
                verbose=False,
                input_names=list(inputs),
                output_names=["logits"],
                dynamic_shapes=tuple(shapes[key] for key in inputs) if dynamic else None,
            )
    finally:
        logging.disable(logging.NOTSET)
    assert program is not None
    partial_path = path.with_suffix(".partial")
    onnx.save(program.model_proto, partial_path)
    partial_path.replace(path)


EXPORTED: dict[str, Builder] = {}
for _name in NETS:
    EXPORTED[_name] = partial(exported, _name)
    EXPORTED[f"{_name}_raw"] = partial(exported, _name, optimize=False)
    EXPORTED[f"{_name}_dynamic"] = partial(exported, _name, dynamic=True)
    EXPORTED[f"{_name}_dynamic_raw"] = partial(exported, _name, dynamic=True, optimize=False)
EXPORTED["vit_opset23"] = partial(exported, "vit", opset=23)
EXPORTED["gqa_decoder_opset23"] = partial(exported, "gqa_decoder", dynamic=True, opset=23)
EXPORTED["unet_opset21"] = partial(exported, "unet", opset=21)

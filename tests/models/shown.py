"""Models that the page is tried on: ResNet-50, Swin-T, a tiny Llama, ten thousand operators, and names from hell.

Exports take seconds, so files are kept (:mod:`models.cache`).
"""

from __future__ import annotations

import importlib.util
import logging
import unittest
import warnings
from functools import partial
from importlib import metadata
from pathlib import Path

import onnx

from models.building import Net
from models.cache import cache_folder

NETWORKS = ("resnet50", "swin_t", "llama", "large")

HOSTILE = (
    "</script><img src=x onerror='window.harmed=1'>",
    '"><svg onload="window.harmed=2">',
    "<!--<script>window.harmed=3",
    "${window.harmed=4}`\\'",
    "\x1b[31mred\x1b]0;title\x07 \x9b2J\u202egnp.exe\u2028",
    "n" * 10_000,
)


def shown(name: str) -> Path:
    """The file of one of :data:`NETWORKS`.

    Raises:
        unittest.SkipTest: what it is made with is not installed, or this is no checkout.
    """
    if name == "large":
        path = cache_folder("shown") / "large.onnx"
        if not path.exists():
            path.write_bytes(_large())
        return path
    try:
        version = "-".join(metadata.version(package) for package in ("torch", "onnxscript"))
    except metadata.PackageNotFoundError as error:
        raise unittest.SkipTest(f"torch export of {name}: {error.name} is not installed") from error
    path = cache_folder("shown") / version / f"{name}.onnx"
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        _export(name, path)
    return path


def _large() -> bytes:
    source = Path(__file__).resolve().parents[2] / "benchmarks" / "scaling.py"
    spec = importlib.util.spec_from_file_location("scaling", source)
    if not source.exists() or spec is None or spec.loader is None:
        raise unittest.SkipTest("the synthetic network is in a checkout only")
    scaling = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(scaling)
    content: bytes = scaling.deep(10_000)
    return content


def _export(name: str, path: Path) -> None:
    import torch

    from models.zoo import ZOO, vision

    makers = {"resnet50": partial(vision, "resnet50"), "swin_t": partial(vision, "swin_t"), "llama": ZOO["llama"]}
    module, args, kwargs = makers[name]()
    temporary = path.with_suffix(".partial")
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                module, args, temporary, kwargs=kwargs or None, dynamo=True, verbose=False, external_data=False
            )
    finally:
        logging.disable(logging.NOTSET)
    temporary.rename(path)


def hostile() -> onnx.ModelProto:
    """Convolutions whose nodes, tensors and weights are called what no one should."""
    net = Net("hostile")
    stream = net.input("x", (1, 3, 8, 8))
    for number in range(len(HOSTILE)):
        stream = net.op("Relu", net.conv(stream, 3 if not number else 8, 8, 3))
    model = net.build(stream)
    renamed: dict[str, str] = {}
    for number, tensor in enumerate(model.graph.initializer):
        renamed[tensor.name] = f"{HOSTILE[number % len(HOSTILE)]}.{number}.weight"
        tensor.name = renamed[tensor.name]
    for number, node in enumerate(model.graph.node):
        node.name = f"{HOSTILE[number % len(HOSTILE)]}/{number}/{node.op_type}"
        for place, output in enumerate(node.output):
            if output not in {value.name for value in model.graph.output}:
                renamed[output] = node.output[place] = f"{number}{HOSTILE[number % len(HOSTILE)]}"
        for place, operand in enumerate(node.input):
            node.input[place] = renamed.get(operand, operand)
    del model.graph.value_info[:]
    model.graph.name = HOSTILE[0]
    return model

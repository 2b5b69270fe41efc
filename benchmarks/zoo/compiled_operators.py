"""torchvision's compiled operators in plain torch, where a build lacks them: enough to import, trace and run."""

from __future__ import annotations

from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "roi_align(Tensor input, Tensor rois, float spatial_scale, SymInt pooled_height, SymInt pooled_width, "
    "int sampling_ratio, bool aligned) -> Tensor",
    "deform_conv2d(Tensor input, Tensor weight, Tensor offset, Tensor mask, Tensor bias, SymInt stride_h, "
    "SymInt stride_w, SymInt pad_h, SymInt pad_w, SymInt dil_h, SymInt dil_w, SymInt groups, SymInt offset_groups, "
    "bool use_mask) -> Tensor",
    "ps_roi_align(Tensor input, Tensor rois, float spatial_scale, SymInt pooled_height, SymInt pooled_width, "
    "int sampling_ratio) -> (Tensor, Tensor)",
    "ps_roi_pool(Tensor input, Tensor rois, float spatial_scale, SymInt pooled_height, SymInt pooled_width) "
    "-> (Tensor, Tensor)",
    "roi_pool(Tensor input, Tensor rois, float spatial_scale, SymInt pooled_height, SymInt pooled_width) "
    "-> (Tensor, Tensor)",
)

_LIBRARY = torch.library.Library("torchvision", "FRAGMENT")
_DEFINED: set[str] = set()


def define() -> None:
    """Define what is absent, before torchvision is imported for the first time: it registers fake kernels for them."""
    if _DEFINED:
        return
    _load()
    for schema in SCHEMAS:
        name = schema.partition("(")[0]
        _DEFINED.add(name)
        try:
            _LIBRARY.define(schema)
        except RuntimeError:  # a build with compiled operators has it
            continue
        if name in ("nms", "qnms"):
            _LIBRARY.impl(name, _nms, "CPU")
        elif name == "roi_align":
            _LIBRARY.impl(name, _roi_align, "CompositeImplicitAutograd")


def _load() -> None:
    """Load torchvision's own operators where they are there and fit: a name may be defined only once."""
    found = find_spec("torchvision")
    for place in found.submodule_search_locations or () if found is not None else ():
        for library in Path(place).glob("_C*.so"):
            with suppress(OSError):
                torch.ops.load_library(library)


def admit() -> None:
    """Tell torchvision, now imported, that the operators are there."""
    import torchvision.extension

    torchvision.extension._has_ops = lambda: True


def _nms(dets: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Greedy non-maximum suppression."""
    from torchvision.ops import box_iou

    order = scores.argsort(descending=True, stable=True)
    overlaps = box_iou(dets, dets)
    kept: list[int] = []
    gone = torch.zeros(len(dets), dtype=torch.bool)
    for index in order.tolist():
        if not gone[index]:
            kept.append(index)
            gone |= overlaps[index] > iou_threshold
    return torch.tensor(kept, dtype=torch.int64)


def _roi_align(*arguments: Any) -> Tensor:
    from torchvision.ops.roi_align import _roi_align as plain

    return plain(*arguments)

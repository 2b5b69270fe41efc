"""Weights that train through low-rank factors beside them (LoRA, arXiv 2106.09685), as peft adds them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ozgraph.errors import UsageError
from ozgraph.runtime.shards import is_sharded, local


class LowRank:
    """W + s B A: a frozen weight and the product that is added to it, of every active adapter of its layer.

    A slot along the axis that W makes is a slot of B, and one along the axis that W reads is a slot of A: where both W
    and the factor are zero there, so is the sum, whatever the other factor is.
    """

    def __init__(self, name: str, layer: Any, base: Tensor) -> None:
        self.name, self._layer, self._base = name, layer, base
        # The axis that the weight makes: the first, but in embeddings and in the linear layers of GPT-2.
        self._making = 1 if getattr(layer, "fan_in_fan_out", False) or _is_embedding(layer) else 0
        self._names = [adapter for adapter in layer.active_adapters if adapter in _factors(layer)]
        if getattr(layer, "merged", False):
            raise UsageError(f"{name!r} has its adapter merged; unmerge it before it is trained")
        for adapter in self._names:
            if adapter in getattr(layer, "lora_variant", {}) or getattr(layer, "lora_bias", {}).get(adapter):
                raise UsageError(
                    f"{name!r} has an adapter that is more than B A beside the weight (DoRA, a bias of its own, ...); "
                    "train with a plain LoRA, or leave the families of that weight out with exclude"
                )

    @property
    def factors(self) -> list[Tensor]:
        """All A and B."""
        return [factor for adapter in self._names for factor in _factors(self._layer)[adapter]]

    def along(self, axis: int) -> Iterator[tuple[str, Tensor, int]]:
        """(name, factor, its axis) for an axis of the weight.

        Raises:
            UsageError: the factors have no such axis.
        """
        kind, end = ("lora_embedding", "") if _is_embedding(self._layer) else ("lora", ".weight")
        for adapter in self._names:
            first, second = _factors(self._layer)[adapter]
            factor, its_axis, letter = (second, 0, "B") if axis == self._making else (first, 1, "A")
            if factor.dim() <= its_axis or axis > 1 or factor.shape[its_axis] != self._base.shape[axis]:
                raise UsageError(
                    f"the adapter of {self.name!r} has no axis for axis {axis} of the weight; leave the families of "
                    "that weight out with exclude"
                )
            yield f"{self.name}.{kind}_{letter}.{adapter}{end}", factor, its_axis

    @torch.no_grad()
    def delta(self) -> Tensor:
        """S B A, shaped as the weight; of a sharded weight the part that lies here."""
        return self._summed([(adapter, *_factors(self._layer)[adapter]) for adapter in self._names])

    @torch.no_grad()
    def gradient(self) -> Tensor | None:
        """S (dB A + B dA) for the gradients of the factors, where they have any."""
        products = []
        for adapter in self._names:
            first, second = _factors(self._layer)[adapter]
            if second.grad is not None:
                products.append((adapter, first, second.grad))
            if first.grad is not None:
                products.append((adapter, first.grad, second))
        return self._summed(products) if products else None

    def _summed(self, products: list[tuple[str, Tensor, Tensor]]) -> Tensor:
        total: Any = None
        for adapter, first, second in products:
            product = second.flatten(1) @ first.flatten(1) * self._layer.scaling[adapter]
            total = product if total is None else total + product
        total = (total.T if self._making else total).reshape(self._base.shape)
        if is_sharded(self._base) and is_sharded(total):
            total = total.redistribute(placements=self._base.placements)  # type: ignore[attr-defined]
        return local(total)

    @torch.no_grad()
    def merge_(self) -> None:
        """Move the product into the weight: W becomes W + s B A, and B zero, so that the sum stays what it was."""
        base = local(self._base)
        base.add_(self.delta().to(base.dtype))
        for adapter in self._names:
            local(_factors(self._layer)[adapter][1]).zero_()


def low_ranks(module: Any) -> dict[int, tuple[str, Any]]:
    """Layers with adapters by the id of the weight beside them, with their names."""
    found = {}
    for name, layer in module.named_modules():
        if hasattr(layer, "get_base_layer") and _factors(layer).keys() & set(layer.active_adapters):
            weight = getattr(layer.get_base_layer(), "weight", None)
            if isinstance(weight, Tensor):
                found[id(weight)] = (name, layer)
    return found


def _is_embedding(layer: Any) -> bool:
    return bool(len(getattr(layer, "lora_embedding_A", ())))


def _factors(layer: Any) -> dict[str, tuple[Tensor, Tensor]]:
    """Adapter -> (A, B)."""
    if _is_embedding(layer):
        firsts, seconds = layer.lora_embedding_A, layer.lora_embedding_B
        return {name: (firsts[name], seconds[name]) for name in firsts}
    firsts, seconds = getattr(layer, "lora_A", {}), getattr(layer, "lora_B", {})
    return {name: (firsts[name].weight, seconds[name].weight) for name in firsts}

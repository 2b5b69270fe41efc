"""Run one elementwise ATen operator on constants, through torch itself, which is imported only then."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ozgraph.graph import Array

_BITS = {1: np.uint8, 2: np.uint16}


class Evaluator:
    """An operator application without its tensors.

    Args:
        type_: name and overload, such as ``add.Tensor``.
        dtypes: of the operands; None where one is left out or is a number.
        scalars: which operands have no axes; they do not promote types as others do.
        result: type of the first result.
    """

    def __init__(
        self,
        type_: str,
        attributes: Mapping[str, Any],
        dtypes: Sequence[np.dtype[Any] | None],
        scalars: Sequence[bool],
        result: np.dtype[Any] | None,
    ) -> None:
        import torch

        name, _, overload = type_.partition(".")
        self._call = getattr(getattr(torch.ops.aten, name), overload or "default")
        self._attributes = attributes
        self._dtypes, self._scalars, self._result = dtypes, scalars, result

    def run(self, _: None, feeds: Mapping[str, Array]) -> list[Array]:
        """Results on 1-D operands ``x0``, ``x1``, ...: the interface of onnx's reference evaluator."""
        import torch

        arguments: dict[str, Any] = {}
        position = 0
        for argument in self._call._schema.arguments:
            given = self._attributes.get(argument.name)
            if "Tensor" in str(argument.type):
                array = feeds.get(f"x{position}")
                if array is not None:
                    given = _tensor(array[0] if self._scalars[position] else array)
                position += 1
            elif isinstance(given, str) and "ScalarType" in str(argument.real_type):
                given = getattr(torch, given)
            if given is not None:
                arguments[argument.name] = given
        with torch.no_grad():
            made = self._call(**arguments)
        results = made if isinstance(made, (tuple, list)) else (made,)
        return [_array(item, self._result) for item in results]


def _tensor(array: Any) -> Any:
    import torch

    held: Array = np.asarray(array)
    if held.dtype.name in ("bfloat16", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz"):
        bits = torch.from_numpy(held.copy().view(_BITS[held.dtype.itemsize]))
        return bits.view(getattr(torch, held.dtype.name))
    return torch.from_numpy(held.copy())


def _array(made: Any, dtype: np.dtype[Any] | None) -> Array:
    # An in-place operator keeps the type of what it writes to, whatever its twin out of place promotes to.
    import torch

    if made.is_complex():
        raise TypeError("states are real numbers")
    if dtype is not None and made.is_floating_point() and hasattr(torch, dtype.name):
        made = made.to(getattr(torch, dtype.name))
    found: Array = made.double().numpy() if made.dtype is not torch.bool else made.numpy()
    return found

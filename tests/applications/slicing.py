"""What an operator itself says of an axis, without ozgraph: whether it treats the slots there one by one.

Some slots of an axis, and of every axis of the same size, are set to zero, and cut out. Where both give the same
results but for those slots, in shape and in number, removing slots there is safe whatever a rule says; refusing it
needs a reason.
"""

from __future__ import annotations

import numpy as np

from applications.application import Application
from applications.operands import Operand
from models.building import Array

CLOSE = 1e-5


def slices(application: Application, position: int, axis: int) -> bool:
    """Whether cutting slots out of an axis gives what zeros there give, less the slots."""
    operand = application.operands[position]
    assert operand is not None
    size = operand.shape[axis]
    rng = np.random.default_rng([position, axis])
    for _ in range(2):
        kept = np.sort(rng.permutation(size)[: (size + 1) // 2])
        zeroed = [_zeroed(given, array, size, kept) for given, array in _operands(application)]
        cut = [
            _taken(array, size, kept) if isinstance(given, Operand) else array
            for given, array in _operands(application)
        ]
        try:
            wanted, found = application.alone(zeroed), application.alone(cut)
        except Exception:  # sizes that do not fit: the operator is told of this axis
            return False
        if not all(_same(a, b, size, kept) for a, b in zip(wanted, found, strict=True)):
            return False
    return True


def _operands(application: Application) -> list[tuple[object, Array | None]]:
    return list(zip(application.operands, application.arrays(), strict=True))


def _taken(array: Array | None, size: int, kept: Array) -> Array | None:
    for axis in range(0 if array is None else array.ndim):
        if array is not None and array.shape[axis] == size:
            array = np.take(array, kept, axis=axis)
    return array


def _zeroed(given: object, array: Array | None, size: int, kept: Array) -> Array | None:
    if array is None or not isinstance(given, Operand):
        return array
    array = array.copy()
    gone = np.setdiff1d(np.arange(size), kept)
    for axis in range(array.ndim):
        if array.shape[axis] == size:
            np.moveaxis(array, axis, 0)[gone] = given.zero
    return array


def _same(wanted: Array | None, found: Array | None, size: int, kept: Array) -> bool:
    if wanted is None or found is None:
        return True
    wanted = _taken(wanted, size, kept)
    assert wanted is not None
    if wanted.shape != found.shape or not np.isfinite(wanted).all():
        return False
    scale = np.abs(wanted).max(initial=0.0)
    return bool(np.allclose(found, wanted, rtol=0, atol=CLOSE * float(scale) + 1e-12))

"""Runs models in onnxruntime, or in onnx's reference evaluator where onnxruntime cannot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from applications.operands import Operand
from models.building import Array
from models.feeding import session
from ozgraph.numerics.reference_operators import REPAIRED

if TYPE_CHECKING:
    from applications.application import Application

RUNTIME, REFERENCE = "onnxruntime", "onnx's reference evaluator"

onnxruntime.set_default_logger_severity(4)


class Runner:
    """A model that is loaded, in one engine."""

    def __init__(self, model: onnx.ModelProto, engine: str, *, optimize: bool = False) -> None:
        if engine == RUNTIME:
            native = session(model, optimize=optimize)
            self._run: Any = lambda feeds: native.run(None, feeds)
        else:
            evaluator = ReferenceEvaluator(model, new_ops=REPAIRED)
            self._run = lambda feeds: evaluator.run(None, feeds)

    def __call__(self, feeds: Mapping[str, Array]) -> list[Array]:
        """All outputs."""
        with np.errstate(all="ignore"):
            return [np.asarray(array) for array in self._run(dict(feeds))]


class Alone:
    """An operator by itself: what carries slots is an input, what it is told stands in the model.

    Attributes:
        engine: what can run it.
        results: of a run on the operands of the application; None for those that are left out.
    """

    def __init__(self, application: Application) -> None:
        self._application = application
        self._runners: dict[tuple[tuple[int, ...] | None, ...], Runner] = {}
        refusals = []
        for engine in (RUNTIME, REFERENCE):
            self.engine = engine
            try:
                self.results = self(application.arrays())
                return
            except Exception as error:  # either engine has errors of its own
                refusals.append(f"{engine}: {error}")
        raise AssertionError(f"{application.name} runs nowhere; {'; '.join(refusals)}")

    def __call__(self, arrays: Sequence[Array | None]) -> list[Array | None]:
        """All results for these operands, which may have other sizes."""
        application = self._application
        shapes = tuple(None if array is None else array.shape for array in arrays)
        if shapes not in self._runners:
            self._runners[shapes] = Runner(_alone(application, arrays), self.engine)
        found = iter(
            self._runners[shapes](
                {
                    f"x{k}": array
                    for k, array in enumerate(arrays)
                    if array is not None and isinstance(application.operands[k], Operand)
                }
            )
        )
        return [None if k in application.unused else next(found) for k in range(application.results)]


def _alone(application: Application, arrays: Sequence[Array | None]) -> onnx.ModelProto:
    inputs, constants, names = [], [], []
    for position, (operand, array) in enumerate(zip(application.operands, arrays, strict=True)):
        names.append("" if array is None else f"x{position}")
        if array is None:
            continue
        if isinstance(operand, Operand):
            kind = helper.np_dtype_to_tensor_dtype(array.dtype)
            inputs.append(helper.make_tensor_value_info(names[-1], kind, array.shape))
        else:
            constants.append(numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), names[-1]))
    results = ["" if k in application.unused else f"y{k}" for k in range(application.results)]
    outputs = [onnx.ValueInfoProto(name=name) for name in results if name]
    graph = helper.make_graph([application.node(names, results)], "alone", inputs, outputs, constants)
    return helper.make_model(graph, opset_imports=application.imports(), ir_version=ir_version(application.opset))


def ir_version(opset: int) -> int:
    """The file version that goes with an opset, as far as ozgraph reads them."""
    return min(max(int(helper.find_min_ir_version_for([helper.make_opsetid("", opset)])), 8), 13)

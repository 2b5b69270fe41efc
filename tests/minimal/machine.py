"""One operator at a time in onnxruntime."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import onnx
from onnx import helper, numpy_helper

from models.building import Array
from models.feeding import session


class UnsupportedError(Exception):
    """The search does not follow such a model."""


class Machine:
    """A model's operators, each with a session of its own, so that any shapes may go in.

    Attributes:
        nodes: in topological order, constants taken out.
        constants: initializers and constants by name.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        if any(entry.domain not in ("", "ai.onnx") for entry in model.opset_import):
            raise UnsupportedError("operators of another domain")
        self._imports = list(model.opset_import)
        self.outputs = [info.name for info in model.graph.output]
        self.constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
        self.nodes: list[onnx.NodeProto] = []
        for node in model.graph.node:
            if node.op_type != "Constant":
                self.nodes.append(node)
            elif node.attribute[0].name == "value":
                self.constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
            else:
                raise UnsupportedError("a constant without a tensor")
            if any(attribute.HasField("g") for attribute in node.attribute):
                raise UnsupportedError("operators with bodies")
        self._sessions: dict[tuple[bytes, tuple[tuple[str, int], ...]], object] = {}

    @cached_property
    def last_use(self) -> dict[str, int]:
        """Tensor -> the number of the last operator that reads it."""
        return {name: number for number, node in enumerate(self.nodes) for name in node.input}

    def run(self, node: onnx.NodeProto, operands: Sequence[Array | None]) -> list[Array] | None:
        """The operator's results; None where it does not take such operands."""
        present = [(f"x{place}", array) for place, array in enumerate(operands) if array is not None]
        key = (node.SerializeToString(), tuple((name, array.dtype.num) for name, array in present))
        native = self._sessions.get(key)
        if native is None:
            native = self._sessions[key] = self._opened(node, present)
        if isinstance(native, Exception):
            return None
        try:
            return [np.asarray(found) for found in native.run(None, dict(present))]  # type: ignore[attr-defined]
        except Exception:  # onnxruntime's exceptions share no public base class
            return None

    def _opened(self, node: onnx.NodeProto, present: Sequence[tuple[str, Array]]) -> object:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        names = {name for name, _ in present}
        del copy.input[:], copy.output[:]
        copy.input.extend(name if name in names else "" for name in (f"x{n}" for n in range(len(node.input))))
        copy.output.extend(f"y{n}" if name else "" for n, name in enumerate(node.output))
        inputs = [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), None)
            for name, array in present
        ]
        outputs = [helper.make_empty_tensor_value_info(name) for name in copy.output if name]
        graph = helper.make_graph([copy], "one", inputs, outputs)
        model = helper.make_model(graph, opset_imports=self._imports)
        model.ir_version = helper.find_min_ir_version_for(self._imports)
        try:
            return session(model, optimize=False)
        except Exception as error:  # as above
            return error

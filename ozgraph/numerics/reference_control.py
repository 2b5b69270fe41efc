"""Loop and Scan for onnx's reference evaluator, as the specification has them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from onnx.reference.op_run import OpRun

from ozgraph.graph import Array

_SCAN_WITHOUT_BATCH = 9


class _WithBody(OpRun):
    """What the evaluator sets on an operator with a body."""

    op_domain = ""
    body: Any
    _run_body: Any

    def need_context(self) -> bool:
        """Bodies read names from outside."""
        return True


class Loop(_WithBody):
    """A body that runs while it may, with its results stacked along a new first axis."""

    def _run(self, trips: Array | None, go: Array | None, *initial: Any, **others: Any) -> tuple[Any, ...]:
        context = others.get("context") or {}
        number, again, *names = self.body.input_names
        states = list(initial)
        stacks: list[list[Array]] = [[] for _ in range(len(self.body.output_names) - 1 - len(initial))]
        most = math.inf if trips is None else int(np.reshape(trips, -1)[0])
        goes_on = go is None or bool(np.reshape(go, -1)[0])
        run = 0
        while goes_on and run < most:
            received = {number: np.array(run, dtype=np.int64), again: np.array(True)}
            feeds = {**context, **received, **dict(zip(names, states, strict=True))}
            going, *results = self._run_body(
                feeds, attributes=others.get("attributes"), bindings=others.get("bindings")
            )
            goes_on = bool(np.reshape(going, -1)[0])
            states = results[: len(states)]
            for stack, result in zip(stacks, results[len(states) :], strict=True):
                stack.append(result)
            run += 1
        return (*states, *(np.stack(stack) for stack in stacks))


class Scan(_WithBody):
    """A body that runs along any axis of its sequences, in either direction."""

    num_scan_inputs: int
    scan_input_axes: list[int] | None
    scan_input_directions: list[int] | None
    scan_output_axes: list[int] | None
    scan_output_directions: list[int] | None

    def _run(self, *operands: Array, **others: Any) -> tuple[Array, ...]:
        if self.run_params["opsets"][""] < _SCAN_WITHOUT_BATCH:
            raise RuntimeError("Scan with a batch axis (opset 8) is not implemented")
        context, bindings = others.get("context") or {}, others.get("bindings")
        count = len(operands) - self.num_scan_inputs
        states, sequences = list(operands[:count]), operands[count:]
        names, made = self.body.input_names, len(self.body.output_names) - count
        slices = [
            self._turned(np.moveaxis(sequence, axis, 0), backwards)
            for sequence, axis, backwards in zip(
                sequences,
                self.scan_input_axes or [0] * len(sequences),
                self.scan_input_directions or [0] * len(sequences),
                strict=True,
            )
        ]
        stacks: list[list[Array]] = [[] for _ in range(made)]
        for parts in zip(*slices, strict=True):
            feeds = {**context, **dict(zip(names, (*states, *parts), strict=True))}
            results = self._run_body(feeds, bindings=bindings)
            states = list(results[:count])
            for stack, result in zip(stacks, results[count:], strict=True):
                stack.append(result)
        stacked = [
            np.moveaxis(self._turned(np.stack(stack), backwards), 0, axis)
            for stack, axis, backwards in zip(
                stacks, self.scan_output_axes or [0] * made, self.scan_output_directions or [0] * made, strict=True
            )
        ]
        return (*states, *stacked)

    @staticmethod
    def _turned(array: Array, backwards: int) -> Array:
        return array[::-1] if backwards else array

"""Recurrent layers."""

from __future__ import annotations

from applications.application import Table
from applications.operands import T, ints

TABLE = Table()
use = TABLE.use

_LENGTHS = ints(2, 1, 2, dtype="int32")

for _name, _gates in (("LSTM", 4), ("GRU", 3), ("RNN", 1)):
    _x, _size = T(2, 3, 4), {"hidden_size": 5}
    _results = 3 if _name == "LSTM" else 2

    def _weights(directions: int, gates: int = _gates) -> tuple[object, ...]:
        return (
            T(directions, gates * 5, 4, only="weight"),
            T(directions, gates * 5, 5, only="weight"),
            T(directions, 2 * gates * 5, only="weight"),
        )

    _one, _two = _weights(1), _weights(2)
    _states = (T(1, 3, 5), T(1, 3, 5)) if _name == "LSTM" else (T(1, 3, 5),)
    _both_states = (T(2, 3, 5), T(2, 3, 5)) if _name == "LSTM" else (T(2, 3, 5),)
    use(_name, _x, *_one, results=_results, **_size)
    use(_name, _x, *_one[:2], form="no bias", **_size)
    use(_name, _x, *_two, _LENGTHS, *_both_states, form="both directions", results=_results,
        direction="bidirectional", **_size)  # fmt: skip
    use(_name, _x, *_one, None, *_states, form="backwards", results=_results, direction="reverse", **_size)
    use(_name, _x, *_one, form="opset 7", opset=7, results=_results, **_size)
    _turned = tuple(T(3, 1, 5) for _ in _states)
    use(_name, T(3, 2, 4), *_one, None, *_turned, form="batch first", results=_results, layout=1, **_size)
use("LSTM", T(4, 4, 4), T(1, 16, 4, only="weight"), T(1, 16, 4, only="weight"), form="equal sizes", hidden_size=4)
use("LSTM", T(2, 3, 4), *_weights(1, 4), None, T(1, 3, 5), T(1, 3, 5), T(1, 15, only="weight"), form="peepholes",
    results=3, hidden_size=5)  # fmt: skip
use("GRU", T(2, 3, 4), *_weights(1, 3), form="linear before reset", results=2, hidden_size=5, linear_before_reset=1)
use("RNN", T(2, 3, 4), *_weights(1, 1), form="sigmoid", results=2, hidden_size=5, activations=["Sigmoid"])

"""Operators that work element by element."""

from __future__ import annotations

from onnx import TensorProto

from applications.application import Table
from applications.operands import T, booleans, flag, integers, number

TABLE = Table()
use = TABLE.use

for _name in [
    "Abs", "Asinh", "Atan", "Ceil", "Celu", "Cos", "Cosh", "Elu", "Erf", "Exp", "Floor", "HardSigmoid",
    "HardSwish", "Identity", "LeakyRelu", "Mish", "Neg", "Relu", "Round", "Selu", "Sigmoid", "Sign", "Sin",
    "Sinh", "Softplus", "Softsign", "Tanh", "ThresholdedRelu",
]:  # fmt: skip
    use(_name, T(3, 4, 5, through="Larger" if _name in ("Ceil", "Floor", "Round") else ""))
for _name in ["Acos", "Asin", "Atanh", "Tan"]:
    use(_name, T(3, 4, 5, through="Tanh"))
for _name in ["Log", "Sqrt", "Reciprocal"]:
    use(_name, T(3, 4, 5, through="Abs"), form="" if _name == "Sqrt" else "of zero")
for _name in ["Acosh", "Log", "Reciprocal"]:
    use(_name, T(3, 4, 5, through="AboveOne"))
for _name in ["Gelu", "Swish", "Shrink"]:
    use(_name, T(3, 4, 5), opset=24)
use("Gelu", T(3, 4, 5), form="tanh", approximate="tanh")
use("Swish", T(3, 4, 5), form="alpha", opset=24, alpha=0.5)
use("Shrink", T(3, 4, 5), form="bias", bias=0.4, lambd=0.1)
use("Elu", T(4), form="vector", alpha=0.7)
use("Relu", T(2, 3, 4, 5, 6), form="five axes")
use("Not", booleans(3, 4, 5))
use("BitwiseNot", integers(3, 4, 5))
use("IsNaN", T(3, 4, 5, through="Sqrt"))
use("IsInf", T(3, 4, 5, through="Overflow"))

use("Cast", T(3, 4, 5, through="Larger"), form="opset 13", opset=13, to=TensorProto.INT32)
use("Cast", T(3, 4, 5), form="opset 19", opset=19, to=TensorProto.DOUBLE)
use("Cast", booleans(3, 4, 5), form="opset 24", opset=24, to=TensorProto.FLOAT)
use("CastLike", T(3, 4, 5, through="Larger"), integers(6, 7), form="opset 15", opset=15, still="rest")
use("CastLike", T(3, 4, 5, through="Larger"), integers(6, 7), form="opset 19", opset=19, still="rest")
use("CastLike", T(3, 4, 5, through="Larger"), integers(6, 7), form="opset 24", opset=24, still="rest")
use("BitCast", T(3, 4, 5), opset=26, to=TensorProto.INT32)

use("Clip", T(3, 4, 5), form="opset 6", opset=10, min=-0.5, max=0.75)
use("Clip", T(3, 4, 5), number(-0.5), number(0.75))
use("Clip", T(3, 4, 5), number(0.25), form="never zero")
use("Clip", T(3, 4, 5), None, T(through="Abs"), form="computed bound")

use("Dropout", T(3, 4, 5), form="opset 7", opset=10, results=2)
use("Dropout", T(3, 4, 5), number(0.3), flag(False), results=2)
use("Dropout", T(3, 4, 5), number(0.3), flag(True), form="training", seed=7)

_SHAPES = {
    "same": ((3, 4, 5), (3, 4, 5)),
    "right": ((3, 4, 5), (4, 1)),
    "left": ((5,), (3, 4, 5)),
    "both": ((3, 1, 5), (4, 1)),
    "scalar": ((3, 4, 5), ()),
}
"""Operands that broadcast: not at all, from the right, from the left, both ways, and a single number."""

for _form, (_left, _right) in _SHAPES.items():
    for _name in ["Add", "Sub", "Mul"]:
        use(_name, T(*_left), T(*_right), form=_form)
    use("Div", T(*_left), T(*_right, through="AboveOne"), form=_form)
    use("Pow", T(*_left, through="AboveOne"), T(*_right), form=_form)
    use("Mod", T(*_left, through="Larger"), T(*_right, through="AboveOne"), form=_form, fmod=1)
    for _name in ["Greater", "GreaterOrEqual", "Less", "LessOrEqual"]:
        use(_name, T(*_left), T(*_right), form=_form)
    use("Equal", T(*_left, through="Round"), T(*_right, through="Round"), form=_form)
    for _name in ["And", "Or", "Xor"]:
        # One condition for all, standing in the file, may leave nothing to vary.
        _still = "weights first rest" if _form == "scalar" else ""
        use(_name, booleans(*_left), booleans(*_right), form=_form, still=_still)
    for _name in ["BitwiseAnd", "BitwiseOr", "BitwiseXor"]:
        use(_name, integers(*_left), integers(*_right), form=_form)
    use("BitShift", integers(*_left, dtype="uint8"), integers(*_right, dtype="uint8"), form=_form, direction="LEFT")
    if _form in ("same", "right", "scalar"):  # the slope broadcasts to the operand, not the other way round
        use("PRelu", T(*_left), T(*_right), form=_form)
    use("Where", booleans(*_left), T(*_right), T(3, 4, 5), form=_form)
use("Div", T(3, 4, 5), T(3, 4, 5, through="Abs"), form="by zero")
use("BitShift", integers(3, 4, dtype="uint8"), integers(3, 4, dtype="uint8"), direction="RIGHT")
use("Where", booleans(3, 4, 5), T(4, 1), T(), form="numbers")
for _name in ["Max", "Min", "Mean", "Sum"]:
    use(_name, T(3, 4, 5), T(3, 4, 5), T(3, 4, 5), form="same")
    use(_name, T(3, 4, 5), T(4, 1), T(5), form="broadcast")
    use(_name, T(3, 4, 5), form="one")
use("SwiGLU", T(3, 4, 5), T(3, 4, 5), opset=28)

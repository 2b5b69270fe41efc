"""For every rule and every axis of every operand: slots removed there are right, or refused with the reason.

The applications are in the package ``applications``; what becomes of each axis is written down in
``applications/axes.txt``. What can be expected without ozgraph comes from the operators themselves (``slicing``).
"""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from applications.application import DATA, Application
from applications.operands import Operand
from applications.schemas import Form, forms
from applications.slicing import slices
from applications.summary import said, written
from applications.tables import APPLICATIONS
from applications.verdicts import UNREAD, Analysed, analysed, axes_of
from ozgraph.errors import RuleError
from ozgraph.graph import Op
from ozgraph.rules.lattice import uniform, vanishing
from ozgraph.rules.rule import Rule, Spec, line
from ozgraph.rules.table import Override, registered

OPERATORS = sorted(name for name in registered() if name.rpartition(".")[0] in ("", "com.microsoft"))
"""ONNX's and onnxruntime's; what enters and leaves bodies is no operator, and PyTorch's are tested as modules."""

FORMS = [form for operator in OPERATORS for form in forms(operator)]

WRITTEN = written()

NOT_SAMPLED = {
    ("com.microsoft.GroupQueryAttention", "k_scale"): "onnxruntime quantises its cache on other devices only",
    ("com.microsoft.GroupQueryAttention", "v_scale"): "onnxruntime quantises its cache on other devices only",
    ("com.microsoft.GroupQueryAttention", "q_norm_weight"): "onnxruntime norms inside on other devices only",
    ("com.microsoft.GroupQueryAttention", "k_norm_weight"): "onnxruntime norms inside on other devices only",
    ("com.microsoft.MultiHeadAttention", "cache_indirection"): "onnxruntime has beams on other devices only",
}
"""Operands that no processor runs; that the rule refuses them, :mod:`test_rules_contrib` shows."""

SEEN_ALL_THE_SAME = {
    "finite": "zeros there are not finite, whatever the operator then makes of them",
    "the zero of a removed slot": "whether a zero is the largest or smallest depends on the others",
    "every slot": "that a maximum, a minimum or a product skips zeros depends on the others",
    "window": "a window of one position, or positions all taken together",
    "counts every slot": "the mask hides some of them, or a single slot has it all",
    "running sum": "zeros do not change the others' sums, but have a sum of their own",
    "looked up": "what is written or read there may lie elsewhere by chance",
    "still sees": "the model around the operator keeps its operand off zero",
    "time runs": "nothing happens at a step without input",
    "positions are counted": "the positions come as an operand",
    "loss is taken": "a sum of losses does not count them, though a mean does",
    "around its middle": "what lies in the middle may be the same by chance",
    "diagonal": "the notation of rules has no word for it",
    "moves batch axes": "nobody writes it",
    "cache": "its positions are read at run time",
    "layout": "queries, keys and values are packed",
}
"""Reasons, by some of their words, that hold although zeros there could be cut out as well, and why."""


def of_axes() -> list[object]:
    return [
        pytest.param(application, position, axis, id=f"{application.name}-operand{position}-axis{axis}")
        for application in APPLICATIONS.values()
        for position, axis in axes_of(application)
    ]


# Of module scope, so that both tests of an axis run one after the other, on the same models.
every_axis = pytest.mark.parametrize(("application", "position", "axis"), of_axes(), scope="module")


@every_axis
def test_slots_removed_there_are_right_or_refused_with_the_reason(
    application: Application, position: int, axis: int
) -> None:
    for mode in application.modes:
        model = analysed(application, mode)
        verdict = model.verdict(position, axis)
        if verdict.slots:
            assert verdict.removable or verdict.reasons, mode
            assert all(len(reason.split()) > 2 for reason in verdict.reasons), verdict.reasons
        model.check_axis(position, axis)
        assert model.varies, "agreement would prove nothing"


@every_axis
def test_what_becomes_of_it_is_written_down_and_no_loss(application: Application, position: int, axis: int) -> None:
    assert said(application, position, axis) == WRITTEN[application.name, position, axis], "see applications/summary.py"
    verdict = analysed(application, DATA).verdict(position, axis)
    if isinstance(application.operands[position], Operand) and verdict.slots and verdict.reasons:
        assert not any("says nothing" in reason for reason in verdict.reasons), "a reason should say what is there"
        held = any(words in reason for words in SEEN_ALL_THE_SAME for reason in verdict.reasons)
        assert held or not slices(application, position, axis), f"{verdict}, though the operator takes slot by slot"


def test_nothing_else_is_written_down() -> None:
    there = {(application.name, *place) for application in APPLICATIONS.values() for place in axes_of(application)}
    assert WRITTEN.keys() <= there


# -- the test itself -------------------------------------------------------------------------------------------------


def _without(made: Rule) -> Rule:
    return replace(made, rewrite=None)


def _check_all(models: list[Analysed]) -> None:
    for model in models:
        for position, axis in axes_of(model.application):
            model.check_axis(position, axis)


WRONG = {
    "Softmax": line("... -> ...", transfer=uniform),
    "CumSum": line("*a, -> *a", transfer=uniform),
    "GroupNormalization": line("n c *s, c, c -> n c *s", transfer=vanishing),
    "LRN": line("*a -> *a", transfer=vanishing),
    "Exp": line("... -> ...", transfer=uniform),
    "Reshape": _without(registered()["Reshape"]),
    "ReduceMean": _without(registered()["ReduceMean"]),
}
"""Rules that say too much, or forget to rewrite."""


@pytest.mark.parametrize("operator", WRONG)
def test_a_wrong_rule_is_found(operator: str) -> None:
    with Override(operator, WRONG[operator]):
        uses = [application for application in APPLICATIONS.values() if application.operator == operator]
        models = [Analysed(application, DATA) for application in uses]
    with pytest.raises(AssertionError):
        _check_all(models)


@pytest.mark.parametrize("operator", ["Relu", "Conv", "Gather", "LSTM", "com.microsoft.Attention"])
def test_a_rule_that_freezes_everything_is_found(operator: str) -> None:
    def refuse(op: Op) -> Spec:
        raise RuleError("nothing is known of it")

    with Override(operator, replace(registered()[operator], describe=refuse)):
        lost = [
            (application, position, axis)
            for application in APPLICATIONS.values()
            if application.operator == operator
            for model in [Analysed(application, DATA)]
            for position, axis in axes_of(application)
            if str(model.verdict(position, axis)) not in WRITTEN[application.name, position, axis]
        ]
    assert lost


# -- completeness ----------------------------------------------------------------------------------------------------


def test_every_rule_is_applied() -> None:
    assert {application.operator for application in APPLICATIONS.values()} == set(OPERATORS)


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_every_form_of_an_operator_is_applied(form: Form) -> None:
    assert any(one.operator == form.operator and one.opset in form for one in APPLICATIONS.values())


@pytest.mark.parametrize("operator", OPERATORS)
def test_every_operand_of_the_schema_is_given(operator: str) -> None:
    uses = [application for application in APPLICATIONS.values() if application.operator == operator]
    for form in forms(operator):
        for position, name in enumerate(form.operands):
            given = [one for one in uses if len(one.operands) > position and one.operands[position] is not None]
            assert given or (operator, name) in NOT_SAMPLED, f"{form}: {name}"
        if form.endless:
            assert any(len(one.operands) > len(form.operands) for one in uses), "several of the last operand"


def test_what_is_not_sampled_is_an_operand() -> None:
    for operator, name in NOT_SAMPLED:
        assert any(name in form.operands for form in forms(operator))


def test_slots_that_no_weight_makes_are_those_that_operators_leave_out() -> None:
    operators = {
        APPLICATIONS[name].operator for (name, _, _), text in WRITTEN.items() if UNREAD in re.findall(r"\w+", text)
    }
    assert operators == {"CastLike", "Gather", "Slice"}

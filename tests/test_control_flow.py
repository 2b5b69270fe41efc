"""Dims through the bodies of If, Loop and Scan: what goes is the zeroed original, what stays says why."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx_ir import serde

import ozgraph
from models.building import Net
from models.control import MODELS, B, Body, D, H, cell, loop_body, looped, positive, zeros
from models.feeding import feeds, run
from models.halving import graphs_of
from models.zeroing import Found, check_removal, pruned, reasons, refused, same_function
from ozgraph.errors import ModelError
from ozgraph.frontends.onnx import load
from ozgraph.numerics.reference_operators import REPAIRED

FAMILIES: dict[str, tuple[Found, ...]] = {
    "if_weights_in_branches": (("then.fc.weight", H, "exact"),),
    "if_captures": (("fc1.weight", H, "exact"),),
    "if_residual": (("embed.weight", H, "exact"), ("up.weight", 2 * H, "exact")),
    "if_nested": (("fc1.weight", H, "consumers"),),
    "loop_rnn": (("cell.x.weight", H, "exact"),),
    "loop_two_states": (("start.weight", H, "exact"),),
    "loop_stacked": (("zeros", H, "exact"), ("seen.weight", 8, "exact")),
    "loop_captures": (("embed.weight", H, "exact"), ("up", 2 * H, "exact")),
    "loop_with_branches": (("zeros", H, "exact"),),
    "scan_rnn": (("zeros", H, "exact"), ("embed.weight", 8, "exact")),
}


@pytest.mark.parametrize("name", MODELS)
def test_what_goes_through_a_body_is_the_zeroed_original(name: str) -> None:
    pruned(MODELS[name](), *FAMILIES[name])


def members(model: onnx.ModelProto) -> dict[str, set[str]]:
    families = ozgraph.analyze(model).families
    return {family.dim: {member.value.name for member in family.members} for family in families}


def test_the_units_of_a_loop_go_with_their_weights_in_the_body_and_with_both_branches() -> None:
    assert members(MODELS["loop_rnn"]()) == {"cell.x.weight": {"cell.x.weight", "cell.x.bias", "cell.h.weight"}}
    assert members(MODELS["if_weights_in_branches"]()) == {
        "then.fc.weight": {"then.fc.weight", "then.fc.bias", "else.fc.weight", "else.fc.bias"}
    }


def test_shapes_that_bodies_declare_follow() -> None:
    model = MODELS["scan_rnn"]()
    state = ozgraph.analyze(model).state
    small = check_removal(model, state, state.families)
    (body,) = graphs_of(small)[1:]
    sizes = [[size.dim_value for size in info.type.tensor_type.shape.dim] for info in (*body.input, *body.output)]
    assert sizes == [[B, 5], [B, 4], [B, 5], [B, 5]]


# -- induction -------------------------------------------------------------------------------------------------------

Between = Callable[[Body, str, str], str]


def carrying(between: Between, start: Callable[[Net], str] = lambda net: zeros(net, B, H)) -> onnx.ModelProto:
    """A Loop whose state passes through ``between`` (body, state, number of the run) before the next run."""
    net = Net("carrying")
    x = net.input("x", (B, D))
    body, go_on = loop_body(net)
    h = body.input("h", (B, H))
    step = between(body, cell(body, x, h), body.inputs[0].name)
    graph = body.graph((go_on, (), TensorProto.BOOL), (step, (B, H), TensorProto.FLOAT))
    (y,) = looped(net, net.integer(3), graph, start(net))
    return net.build(net.linear(y, H, 3, name="head"))


def test_a_state_is_zero_where_it_starts_at_zero_and_stays_there() -> None:
    pruned(carrying(lambda body, h, run: body.op("Relu", h)), ("zeros", H, "exact"))


def test_a_state_that_starts_elsewhere_is_zeroed_with_its_units() -> None:
    model = carrying(lambda body, h, run: h, lambda net: net.const(net.normal(B, H), "start"))
    pruned(model, ("start", H, "exact"))


def test_a_state_that_a_run_lifts_from_zero_needs_its_consumers() -> None:
    model = carrying(lambda body, h, run: body.op("Add", h, body.op("Cast", run, to=TensorProto.FLOAT)))
    pruned(model, ("zeros", H, "consumers"))


@pytest.mark.parametrize("length", [2, 8])
@pytest.mark.parametrize(("kind", "exactness"), [("Tanh", "exact"), ("Sigmoid", "consumers")])
def test_what_reaches_a_state_after_several_runs_counts(length: int, kind: str, exactness: str) -> None:
    """A delay line: every state is what the one before it was, one run earlier."""
    net = Net("delay")
    x = net.input("x", (B, D))
    body, go_on = loop_body(net)
    states = [body.input(f"h{index}", (B, H)) for index in range(length)]
    made = [body.op(kind, body.linear(x, D, H, name="fc")), *(body.op("Identity", state) for state in states[:-1])]
    graph = body.graph((go_on, (), TensorProto.BOOL), *((name, (B, H), TensorProto.FLOAT) for name in made))
    start = zeros(net, B, H)
    *_, last = looped(net, net.integer(length + 1), graph, *[start] * length, outputs=length)
    model = net.build(net.linear(last, H, 3, name="head"), shapes=[(B, 3)])
    pruned(model, ("zeros", H, exactness))


def test_dead_units_of_a_loop_are_eliminated_from_the_model_as_it_is() -> None:
    model = MODELS["loop_stacked"]()
    for graph in graphs_of(model):
        for tensor in graph.initializer:
            array = numpy_helper.to_array(tensor).copy()
            if tensor.name in ("cell.x.weight", "cell.x.bias", "cell.h.weight"):
                array[..., [1, 4]] = 0
                tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    result = ozgraph.eliminate(model)
    assert result.report.removed_slots == 2
    same_function(model, serde.serialize_model(result.model))


# -- what is counted -------------------------------------------------------------------------------------------------


def test_a_body_costs_as_often_as_it_runs_and_both_branches_count() -> None:
    assert ozgraph.analyze(MODELS["loop_stacked"]()).report.macs == B * (
        4 * (D * H + H * H + 8 * H) + 3 * H + 4 * 3 * 8
    )
    assert ozgraph.analyze(MODELS["scan_rnn"]()).report.macs == B * (5 * (D * 8 + 8 * H + H * H + 3 * H) + 3 * H)
    assert ozgraph.analyze(MODELS["if_residual"]()).report.macs == B * (D * H + 4 * H * H + 3 * H)


# -- what freezes ----------------------------------------------------------------------------------------------------


def test_branches_of_different_sizes_freeze_what_they_return() -> None:
    net = Net("branches_differ")
    x = net.input("x", (B, D))
    then, other = Body(net, "then"), Body(net, "else")
    first = then.floats((then.linear(x, D, H, name="wide"), (B, H)))
    second = other.floats((other.linear(x, D, H - 4, name="narrow"), (B, H - 4)))
    y = net.op("If", positive(net, x), then_branch=first, else_branch=second)
    model = net.build(net.op("ReduceSum", y), shapes=[(1, 1)])
    refused(model, "wide.weight", 0, "its branches return different shapes, or one not known")


def test_a_state_that_grows_freezes_and_the_other_goes_on() -> None:
    net = Net("growing")
    x = net.input("x", (B, D))
    body, go_on = loop_body(net)
    h, seen = body.input("h", (B, H)), body.input("seen", (B, "seen"))
    step = cell(body, x, h)
    longer = body.op("Concat", seen, body.linear(x, D, 2, name="next"), axis=1)
    graph = body.graph(
        (go_on, (), TensorProto.BOOL), (step, (B, H), TensorProto.FLOAT), (longer, (B, "longer"), TensorProto.FLOAT)
    )
    start = net.linear(x, D, 2, name="first")
    last, all_of_it = looped(net, net.integer(3), graph, zeros(net, B, H), start, outputs=2)
    sums = net.op("ReduceSum", all_of_it, net.ints(1), keepdims=1)
    model = net.build(net.op("Add", net.linear(last, H, 3, name="head"), sums), shapes=[(B, 3)])
    state = refused(model, "first.weight", 0, "what the body receives changes its shape from one run to the next")
    assert [(family.dim, family.exactness) for family in state.families] == [("zeros", "exact")]


def test_an_operator_in_a_body_that_is_not_known_freezes_what_it_touches() -> None:
    net = Net("unknown_inside")
    x = net.input("x", (B, D))
    h = net.op("Relu", net.linear(x, D, H, name="fc1"))
    then, other = Body(net, "then"), Body(net, "else")
    first = then.floats((then.op("Unique", h, axis=1, hint="unique"), (B, H)))
    second = other.floats((other.op("Neg", h), (B, H)))
    y = net.op("If", positive(net, x), then_branch=first, else_branch=second)
    state = ozgraph.analyze(net.build(net.linear(y, H, 3, name="head"), shapes=[(B, 3)])).state
    assert "how many elements it returns depends on the data" in reasons(state, "fc1.weight", 0)
    assert not state.families


@pytest.mark.parametrize("known", [True, False])
def test_where_only_a_run_tells_how_many_results_are_stacked_their_number_counts_as_one_that_varies(
    known: bool,
) -> None:
    """A loop that stops early, and one whose number of runs is not even bounded before it runs."""
    net = Net("until")
    x = net.input("x", (B, D))
    body, _ = loop_body(net)
    h = body.input("h", (B, H))
    step = cell(body, x, h)
    seen = body.op("Relu", body.linear(step, H, 8, name="seen"))
    graph = body.graph(
        (positive(body, step), (), TensorProto.BOOL), (step, (B, H), TensorProto.FLOAT),
        (seen, (B, 8), TensorProto.FLOAT),
    )  # fmt: skip
    data = net.op("Cast", net.op("Abs", net.op("ReduceMax", x, keepdims=0)), to=TensorProto.INT64)
    most = net.integer(4) if known else net.op("Add", data, net.integer(1))
    last, each = looped(net, most, graph, zeros(net, B, H), outputs=2)
    # The stacked runs, flattened with the batch, as many rows as there happen to be.
    rows = net.dense(net.reshape(each, -1, 8), 8, 3, name="right")
    parts = net.linear(last, H, 3, name="left"), net.mean(rows, 0, keepdims=0)
    model = net.build(net.op("Add", *parts), shapes=[(B, 3)])
    stacked = load(model).values["loop_out_1"]
    assert stacked.dynamic == (True, False, False)
    pruned(model, ("zeros", H, "exact"), ("seen.weight", 8, "exact"))


def test_a_number_of_results_is_never_taken_for_one_that_stays() -> None:
    """Their number scales what follows, so it must be read when the model runs."""
    net = Net("counted")
    x = net.input("x", (B, D))
    body, go_on = loop_body(net)
    h = body.input("h", (B, H))
    step = cell(body, x, h)
    graph = body.graph(
        (go_on, (), TensorProto.BOOL), (step, (B, H), TensorProto.FLOAT),
        (body.op("Identity", step), (B, H), TensorProto.FLOAT),
    )  # fmt: skip
    data = net.op("Cast", net.op("Abs", net.op("ReduceMax", x, keepdims=0)), to=TensorProto.INT64)
    last, each = looped(net, net.op("Add", data, net.integer(2)), graph, zeros(net, B, H), outputs=2)
    count = net.op("Cast", net.op("Gather", net.op("Shape", each), net.integer(0)), to=TensorProto.FLOAT)
    y = net.linear(net.op("Mul", last, count), H, 3, name="head")
    pruned(net.build(y, shapes=[(B, 3)]), ("zeros", H, "exact"))


def test_the_axis_that_a_scan_runs_along_freezes() -> None:
    net = Net("along")
    x = net.input("x", (D, B))
    wide = net.op("MatMul", net.weight(H, D, fan=D, hint="rows"), x)
    body = Body(net, "body")
    h, part = body.input("h", (B,)), body.input("part", (B,))
    step = body.op("Tanh", body.op("Add", h, part))
    graph = body.floats((step, (B,)))
    y = net.op("Scan", zeros(net, B), wide, body=graph, num_scan_inputs=1)
    model = net.build(net.linear(net.unsqueeze(y, 0), B, 3, name="head"))
    refused(model, "rows", 0, "the body runs once for each of its positions")


# -- the form of the file --------------------------------------------------------------------------------------------


def test_a_branch_that_is_always_taken_takes_the_place_of_its_if() -> None:
    """Decided by a constant, and by sizes that never change."""
    net = Net("settled")
    x = net.input("x", ("batch", D))
    h = net.op("Relu", net.linear(x, D, H, name="fc1"))
    width = net.op("Gather", net.op("Shape", h), net.integer(1), axis=0)
    for condition in (net.const(np.array(False), "never"), net.op("Equal", width, net.integer(3))):
        then, other = Body(net, "then"), Body(net, "else")
        first = then.floats((then.linear(h, H, 4, name="unused"), ("batch", 4)))
        second = other.floats((other.op("Relu", other.linear(h, H, H, name="used")), ("batch", H)))
        h = net.op("If", condition, then_branch=first, else_branch=second)
    model = net.build(net.linear(h, H, 3, name="head"), shapes=[("batch", 3)])
    graph = load(model)
    assert not any(op.operator.startswith("If") for op in graph.ops)
    assert not any("unused" in name for name in graph.values)
    pruned(model, *((name, H, "exact") for name in ("fc1.weight", "used.weight", "used_1.weight")))


def test_bodies_may_use_the_same_names() -> None:
    def branch(kind: str) -> onnx.GraphProto:
        nodes = [helper.make_node("MatMul", ["h", "w"], ["a"]), helper.make_node(kind, ["a"], ["b"])]
        out = helper.make_tensor_value_info("b", TensorProto.FLOAT, [B, H])
        weight = numpy_helper.from_array(np.random.default_rng(len(kind)).standard_normal((H, H)).astype("f"), "w")
        return helper.make_graph(nodes, kind, [], [out], [weight])

    net = Net("same_names")
    x = net.input("x", (B, D))
    net.nodes.append(helper.make_node("Relu", [net.linear(x, D, H, name="fc1")], ["h"]))
    y = net.op("If", positive(net, x), then_branch=branch("Relu"), else_branch=branch("Tanh"))
    model = net.build(net.linear(y, H, 3, name="head"))
    before = model.SerializeToString()
    result = ozgraph.prune(model, target=ozgraph.Target(groups=0.5))
    assert model.SerializeToString() == before
    assert {"w", "w_2"} <= {value.name for value in result.state.graph.constants}
    assert result.report.removed_slots == H
    small = serde.serialize_model(result.model)
    onnx.checker.check_model(small, full_check=True)


def nested(depth: int, kind: str) -> onnx.ModelProto:
    """Bodies inside bodies around one layer."""
    net = Net("nested")
    x = net.input("x", (B, D))
    h = net.op("Relu", net.linear(x, D, H, name="fc1"))
    condition = positive(net, x)
    runs, go = net.integer(1), net.const(np.array(True), "go")

    def inside(outer: Net, level: int, h: str) -> str:
        if not level:
            return outer.op("Tanh", h)
        if kind == "If":
            then, other = Body(outer, "then"), Body(outer, "else")
            graphs = [
                then.floats((inside(then, level - 1, h), (B, H))),
                other.floats((other.op("Neg", h), (B, H))),
            ]
            return outer.op("If", condition, then_branch=graphs[0], else_branch=graphs[1])
        body, go_on = loop_body(outer)
        received = body.input("h", (B, H))
        step = inside(body, level - 1, received)
        graph = body.graph((go_on, (), TensorProto.BOOL), (step, (B, H), TensorProto.FLOAT))
        return outer.op("Loop", runs, go, h, body=graph)

    return net.build(net.linear(inside(net, depth, h), H, 3, name="head"), shapes=[(B, 3)])


@pytest.mark.parametrize(("kind", "depth"), [("If", 10), ("Loop", 4)])
def test_bodies_inside_bodies_are_followed(kind: str, depth: int) -> None:
    pruned(nested(depth, kind), ("fc1.weight", H, "exact"))


@pytest.mark.parametrize(("kind", "depth"), [("If", 25), ("Loop", 12)])
def test_bodies_that_nest_too_deeply_freeze(kind: str, depth: int) -> None:
    refused(nested(depth, kind), "fc1.weight", 0, "its bodies do not fit together, or nest too deeply")


@pytest.mark.parametrize(
    "damage",
    [
        lambda loop: loop.attribute[0].g.ClearField("input"),
        lambda loop: loop.attribute[0].g.ClearField("output"),
        lambda loop: loop.attribute[0].g.output.add(name="go_on_out"),
        lambda loop: loop.attribute[0].g.ClearField("node"),
        lambda loop: loop.ClearField("attribute"),
        lambda loop: loop.input.pop(),
        lambda loop: loop.output.append("more"),
        lambda loop: loop.attribute[0].g.input[2].type.tensor_type.shape.dim.add(dim_value=7),
    ],
)
def test_a_damaged_body_freezes_or_is_refused_in_one_line(damage: Callable[[onnx.NodeProto], object]) -> None:
    model = carrying(lambda body, h, run: body.op("Relu", h))
    (loop,) = (node for node in model.graph.node if node.op_type == "Loop")
    damage(loop)
    error, families = "", []
    try:
        families = ozgraph.analyze(model).families
    except ModelError as refusal:
        error = str(refusal)
    assert (error and "\n" not in error) or not families


def test_an_exact_run_stacks_what_loops_and_scans_return() -> None:
    for name in ("loop_stacked", "scan_rnn"):
        model = MODELS[name]()
        inputs = feeds(model, 3)
        evaluator = ReferenceEvaluator(model, new_ops=REPAIRED)
        for wanted, found in zip(run(model, inputs), evaluator.run(None, inputs), strict=True):
            np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())


def test_an_exact_scan_runs_backwards_and_along_any_axis() -> None:
    net = Net("backwards")
    x = net.input("x", (B, 4, D))
    body = Body(net, "body")
    total, part = body.input("total", (B, D)), body.input("part", (B, D))
    step = body.op("Add", total, part)
    graph = body.floats((step, (B, D)), (body.op("Mul", step, step), (B, D)))
    y = net.ops(
        "Scan", zeros(net, B, D), x, outputs=2, body=graph, num_scan_inputs=1, scan_input_axes=[1],
        scan_input_directions=[1], scan_output_axes=[2], scan_output_directions=[1],
    )  # fmt: skip
    model = net.build(*y)
    inputs = feeds(model, 3)
    for wanted, found in zip(
        run(model, inputs), ReferenceEvaluator(model, new_ops=REPAIRED).run(None, inputs), strict=True
    ):
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)

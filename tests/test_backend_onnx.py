"""Writing ONNX: plans carried out, weights sliced lazily, files that appear whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import helper, numpy_helper, parser

from ozgraph.backends import files
from ozgraph.backends.onnx import apply, check, write, zeroed
from ozgraph.errors import UsageError, VerificationError
from ozgraph.frontends.onnx import load
from ozgraph.graph import Graph
from ozgraph.plan import NewOp, Plan

rng = np.random.default_rng(0)


def floats(*shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


def ints(*elements: int) -> np.ndarray:
    return np.array(elements, np.int64)


def parse(body: str, signature: str, opset: int = 17, **weights: np.ndarray) -> onnx.ModelProto:
    proto = parser.parse_model(f'<ir_version: 8, opset_import: ["" : {opset}]> g {signature} {{ {body} }}')
    for name, array in weights.items():
        proto.graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
    return proto


def run(model: onnx.ModelProto | ir.Model | str | Path, **feeds: np.ndarray) -> list[np.ndarray]:
    if isinstance(model, ir.Model):
        model = ir.to_proto(model)
    content = model.SerializeToString() if isinstance(model, onnx.ModelProto) else os.fspath(model)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return list(onnxruntime.InferenceSession(content, options).run(None, feeds))


@pytest.fixture
def mlp() -> onnx.ModelProto:
    proto = parse(
        "h = MatMul(x, w) b = Add(h, c) r = Relu(b) y = MatMul(r, v)",
        "(float[n,3] x) => (float[n,2] y)",
        w=floats(3, 6),
        c=floats(6),
        v=floats(6, 2),
    )
    proto.producer_name, proto.producer_version, proto.domain, proto.doc_string = "me", "7", "my.domain", "words"
    proto.model_version = 42
    helper.set_model_props(proto, {"key": "value"})
    proto.graph.doc_string = "graph words"
    proto.graph.node[2].doc_string = "node words"
    proto.graph.node[2].name = "act"
    return proto


def halved(graph: Graph) -> tuple[Plan, dict]:
    kept, gone = np.array([0, 2, 5]), np.array([1, 3, 4])
    values = graph.values
    occurrences = [(values["w"], 1), (values["c"], 0), (values["v"], 0)]
    shapes = {values[name]: (values[name].size // 6, 3) for name in ("h", "b", "r")}
    plan = Plan(keep=dict.fromkeys(occurrences, kept), shapes=shapes)
    return plan, dict.fromkeys(occurrences[:2], gone)


def test_a_pruned_network_computes_what_the_zeroed_original_does(mlp: onnx.ModelProto, tmp_path: Path) -> None:
    graph = load(mlp)
    plan, zeroing = halved(graph)
    x = floats(5, 3)
    write(apply(graph, plan), tmp_path / "small.onnx")
    expected = run(zeroed(graph, zeroing), x=x)[0]
    np.testing.assert_allclose(run(tmp_path / "small.onnx", x=x)[0], expected, rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(run(graph.origin.model, x=x)[0], run(mlp, x=x)[0])


def test_everything_that_is_not_pruned_survives(mlp: onnx.ModelProto, tmp_path: Path) -> None:
    annotation = mlp.graph.quantization_annotation.add(tensor_name="b")
    annotation.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value="c")
    graph = load(mlp)
    write(apply(graph, halved(graph)[0]), tmp_path / "small.onnx")
    small = onnx.load(tmp_path / "small.onnx")
    for name in ("producer_name", "producer_version", "domain", "doc_string", "model_version", "ir_version"):
        assert getattr(small, name) == getattr(mlp, name)
    assert [entry.value for entry in small.metadata_props] == ["value"]
    assert small.opset_import == mlp.opset_import
    assert small.graph.name == "g" and small.graph.doc_string == "graph words"
    assert small.graph.input == mlp.graph.input and small.graph.output == mlp.graph.output
    assert [node.name for node in small.graph.node][2] == "act" and small.graph.node[2].doc_string == "node words"
    assert small.graph.quantization_annotation == mlp.graph.quantization_annotation
    assert [tensor.name for tensor in small.graph.initializer] == ["w", "c", "v"]


def test_stale_shapes_of_intermediates_are_corrected_and_dynamic_names_kept(mlp: onnx.ModelProto) -> None:
    mlp.graph.value_info.append(helper.make_tensor_value_info("r", 1, ["n", 6]))
    mlp.graph.value_info.append(helper.make_tensor_value_info("h", 1, [None, 99]))
    graph = load(mlp)
    small = apply(graph, halved(graph)[0])
    shapes = {value.name: value.shape for node in small.graph for value in node.outputs}
    assert str(shapes["r"]) == "[n,3]" and shapes["h"] is not None and shapes["h"][1] == 3
    assert shapes["b"] is None


def test_nothing_is_read_until_the_file_is_written(tmp_path: Path) -> None:
    proto = parse("y = MatMul(x, w)", "(float[2,64] x) => (float[2,32] y)", w=floats(64, 32))
    onnx.save(proto, tmp_path / "m.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    graph = load(tmp_path / "m.onnx")
    plan = Plan(keep={(graph.values["w"], 1): np.arange(8)}, shapes={graph.values["y"]: (2, 8)})
    model = apply(graph, plan)
    original = graph.origin.model.graph.initializers["w"].const_value
    assert original.raw is None and model.graph.initializers["w"].const_value.shape == (64, 8)
    written = write(model, tmp_path / "out.onnx")
    assert sorted(os.listdir(tmp_path)) == ["m.onnx", "out.onnx", "out.onnx.data", "w.bin"]
    assert os.path.getsize(written + ".data") == 64 * 8 * 4
    x = floats(2, 64)
    np.testing.assert_allclose(run(written, x=x)[0], run(tmp_path / "m.onnx", x=x)[0][:, :8], rtol=1e-5, atol=1e-5)


def test_a_filled_weight_shrinks_by_its_shape_and_is_written_out_when_zeroed() -> None:
    proto = parse(
        "w = ConstantOfShape<value = float[1] {0.5}>(s) y = MatMul(x, w) t = ConstantOfShape(s) z = Add(t, w)",
        "(float[2,3] x) => (float[2,4] y, float[3,4] z)",
        s=ints(3, 4),
    )
    graph = load(proto)
    small = apply(graph, Plan(keep={(graph.values["w"], 1): ints(0, 3)}, shapes={graph.values["y"]: (2, 2)}))
    x = floats(2, 3)
    fills = {
        node.outputs[0].name: node.inputs[0].const_value.numpy().tolist()
        for node in small.graph
        if node.op_type == "ConstantOfShape"
    }
    assert fills == {"w": [3, 2], "t": [3, 4]}, "the shape operand was shared"
    model = zeroed(graph, {(graph.values["w"], 1): ints(1, 2)})
    result, filled = run(model, x=x)
    assert filled.tolist() == [[0.5, 0, 0, 0.5]] * 3
    np.testing.assert_allclose(result[:, 1:3], 0)


def test_zero_of_a_quantized_weight_is_its_zero_point() -> None:
    proto = parse(
        "w = DequantizeLinear<axis=1>(q, s, p) y = MatMul(x, w)",
        "(float[2,3] x) => (float[2,4] y)",
        q=np.arange(12, dtype=np.uint8).reshape(3, 4),
        s=np.full(4, 0.1, np.float32),
        p=np.array([7, 8, 9, 10], np.uint8),
    )
    graph = load(proto)
    result = run(zeroed(graph, {(graph.values["q"], 1): ints(0, 2)}), x=np.ones((2, 3), np.float32))[0]
    assert (result[:, [0, 2]] == 0).all() and (result[:, [1, 3]] != 0).all()


def test_attributes_and_shared_shape_constants_change_for_one_operator_alone() -> None:
    proto = parse(
        "a = Reshape(x, s) b = Reshape(z, s) y = Softmax<axis=1>(a)",
        "(float[2,6] x, float[2,6] z) => (float[2,2,3] y, float[2,2,3] b)",
        s=ints(2, 2, 3),
    )
    graph = load(proto)
    first, soft = graph.ops[0], next(op for op in graph.ops if op.type == "Softmax")
    plan = Plan()
    plan.rewrite(first).constants[1] = ints(2, 3, 2)
    plan.rewrite(soft).attributes["axis"] = np.int64(2)
    plan.shapes = {graph.values[name]: (2, 3, 2) for name in ("a", "y")}
    small = apply(graph, plan)
    a, b = run(small, x=floats(2, 6), z=floats(2, 6))
    assert a.shape == (2, 3, 2) and b.shape == (2, 2, 3)
    np.testing.assert_allclose(a.sum(2), 1, rtol=1e-5)
    plan.rewrite(soft).attributes["axis"] = None
    assert "axis" not in next(node for node in apply(graph, plan).graph if node.op_type == "Softmax").attributes


def test_an_operand_past_the_end_is_appended() -> None:
    proto = parse("y = Conv(x, w)", "(float[1,2,4,4] x) => (float[1,3,4,4] y)", w=floats(3, 2, 1, 1))
    graph = load(proto)
    plan = Plan()
    plan.rewrite(graph.ops[0]).constants[2] = np.ones(3, np.float32)
    x = floats(1, 2, 4, 4)
    np.testing.assert_allclose(run(apply(graph, plan), x=x)[0], run(proto, x=x)[0] + 1, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("sizes", "operators"), [((None, 2, 3), {"Reshape"}), ((None, None, 3), {"Shape", "Gather", "Concat", "Reshape"})]
)
def test_sizes_computed_at_run_time_are_replaced_in_part(sizes: tuple[int | None, ...], operators: set[str]) -> None:
    proto = parse(
        "n = Shape(x) a = Gather<axis=0>(n, i) s = Concat<axis=0>(a, k) h = Mul(x, w) y = Reshape(h, s)",
        "(float[n,8] x) => (float[n,2,4] y)",
        i=ints(0),
        k=ints(2, 4),
        w=floats(8),
    )
    graph = load(proto)
    plan = Plan(takes={(graph.ops[3], 0): ((1, ints(0, 1, 2, 4, 5, 6)),)})
    plan.keep[graph.values["w"], 0] = ints(0, 1, 2, 4, 5, 6)
    reshape = graph.ops[-1]
    plan.rewrite(reshape).sizes[1] = sizes
    plan.shapes[graph.values["y"]] = (graph.values["y"].shape[0], 2, 3)
    small = apply(graph, plan)
    assert operators <= {node.op_type for node in small.graph}
    assert ("Concat" in operators) == any(node.op_type == "Concat" for node in small.graph)
    for count in (2, 5):
        x = floats(count, 8)
        np.testing.assert_allclose(run(small, x=x)[0], run(proto, x=x)[0][:, :, :3])


def test_a_use_may_take_a_subset_of_what_it_shares() -> None:
    proto = parse("a = Mul(x, t) b = Add(x, t)", "(float[2,4] x) => (float[2,4] a, float[2,4] b)", t=floats(4))
    graph = load(proto)
    plan = Plan(takes={(graph.ops[0], 1): ((0, ints(1, 3)),), (graph.ops[0], 0): ((1, ints(1, 3)),)})
    plan.shapes[graph.values["a"]] = (2, 2)
    small = apply(graph, plan)
    x = floats(2, 4)
    a, b = run(small, x=x)
    np.testing.assert_array_equal(a, run(proto, x=x)[0][:, [1, 3]])
    assert b.shape == (2, 4) and sum(node.op_type == "Gather" for node in small.graph) == 2


def test_uses_that_take_the_same_share_it_and_parts_replace_what_nobody_reads_whole() -> None:
    proto = parse("a = Mul(x, t) b = Add(x, t)", "(float[2,4] x) => (float[2,4] a, float[2,4] b)", t=floats(4))
    graph = load(proto)
    mul, add = graph.ops
    plan = Plan()
    for op in (mul, add):
        plan.takes |= {(op, 0): ((1, ints(1, 3)),), (op, 1): ((0, ints(1, 3)),)}
        plan.shapes[graph.values["a" if op is mul else "b"]] = (2, 2)
    small = apply(graph, plan)
    x = floats(2, 4)
    for found, wanted in zip(run(small, x=x), run(proto, x=x), strict=True):
        np.testing.assert_array_equal(found, wanted[:, [1, 3]])
    assert [node.op_type for node in small.graph] == ["Gather", "Mul", "Add"]
    assert "t" not in small.graph.initializers


def test_a_replacement_keeps_the_names_of_the_results(tmp_path: Path) -> None:
    proto = parse(
        "m = ReduceMean<axes=[1], keepdims=1>(x) y = Relu(m) q = Neg(m)",
        "(float[n,4] x) => (float[n,1] m, float[n,1] y, float[n,1] q)",
    )
    graph = load(proto)
    ops = (
        NewOp("ReduceSum", ("x", ints(1)), ("y",), {"keepdims": 1}),
        NewOp("Mul", ("y", np.array(0.25, np.float32)), ("m",)),
    )
    model = apply(graph, Plan(replacements={graph.ops[0]: ops}))
    path = write(model, tmp_path / "o.onnx")
    x = floats(3, 4)
    for ours, theirs in zip(run(path, x=x), run(proto, x=x), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-6)
    written = onnx.load(path)
    assert [value.name for value in written.graph.output] == ["m", "y", "q"]
    assert [node.op_type for node in written.graph.node] == ["ReduceSum", "Mul", "Relu", "Neg"]


def test_the_output_is_never_the_input_a_folder_or_a_place_without_permission(tmp_path: Path) -> None:
    proto = parse("y = MatMul(x, w)", "(float[2,64] x) => (float[2,32] y)", w=floats(64, 32))
    source = tmp_path / "m.onnx"
    onnx.save(proto, source, save_as_external_data=True, location="m.onnx.data", size_threshold=0)
    graph = load(source)
    model, before = apply(graph, Plan()), source.read_bytes()
    link = tmp_path / "link.onnx"
    link.symlink_to(source)
    os.link(source, tmp_path / "hard.onnx")
    for target in (source, link, tmp_path / "hard.onnx", tmp_path / "x" / ".." / "m.onnx", tmp_path / "m.onnx.data"):
        with pytest.raises(UsageError, match=r"input|exist"):
            write(model, target, forbid=graph.origin.files)
    for target in (tmp_path, f"{tmp_path}/", tmp_path / "none" / "o.onnx", "/proc/o.onnx", "/dev/null"):
        with pytest.raises(UsageError):
            write(model, target)
    assert source.read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == ["hard.onnx", "link.onnx", "m.onnx", "m.onnx.data"]


@pytest.mark.parametrize("external", [False, True])
@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt, VerificationError])
def test_a_failure_leaves_the_old_files_and_nothing_else(
    mlp: onnx.ModelProto, tmp_path: Path, failure: type[BaseException], external: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "o.onnx"
    graph = load(mlp)
    write(apply(graph, Plan()), target, external=external)
    before = {name: (tmp_path / name).read_bytes() for name in os.listdir(tmp_path)}

    def stop(_: str) -> None:
        raise failure("stop")

    with pytest.raises(failure):
        write(apply(graph, halved(graph)[0]), target, external=external, verify=stop)
    assert {name: (tmp_path / name).read_bytes() for name in os.listdir(tmp_path)} == before
    replace = os.replace

    def interrupted(source: str, destination: str) -> None:
        if destination == str(target):
            raise failure("stop")
        replace(source, destination)

    monkeypatch.setattr(files.os, "replace", interrupted)
    with pytest.raises(failure):
        write(apply(graph, halved(graph)[0]), target, external=external)
    assert {name: (tmp_path / name).read_bytes() for name in os.listdir(tmp_path)} == before


def test_an_invalid_result_gets_no_name(mlp: onnx.ModelProto, tmp_path: Path) -> None:
    graph = load(mlp)
    plan, _ = halved(graph)
    del plan.keep[graph.values["v"], 0]
    with pytest.raises(VerificationError, match="not valid ONNX"):
        write(apply(graph, plan), tmp_path / "o.onnx")
    assert not os.listdir(tmp_path)
    (tmp_path / "bad.onnx").write_bytes(b"no")
    with pytest.raises(VerificationError):
        check(tmp_path / "bad.onnx")


def test_external_data_is_written_beside_the_model_with_progress(mlp: onnx.ModelProto, tmp_path: Path) -> None:
    mlp.graph.initializer[0].CopyFrom(numpy_helper.from_array(floats(3, 600), "w"))
    mlp.graph.initializer[1].CopyFrom(numpy_helper.from_array(floats(600), "c"))
    mlp.graph.initializer[2].CopyFrom(numpy_helper.from_array(floats(600, 2), "v"))
    graph = load(mlp)
    x = np.ones((1, 3), np.float32)
    seen: list[tuple[int, int]] = []
    for external in (True, False):
        seen.clear()
        path = write(
            apply(graph, Plan()),
            tmp_path / f"{external}.onnx",
            external=external,
            progress=lambda done, total: seen.append((done, total)),
        )
        assert seen[-1] == (14400, 14400) and len(seen) == 3
        np.testing.assert_array_equal(run(path, x=x), run(mlp, x=x))
    assert sorted(os.listdir(tmp_path)) == ["False.onnx", "True.onnx", "True.onnx.data"]
    assert os.path.getsize(tmp_path / "True.onnx") < 2000
    assert load(tmp_path / "True.onnx").origin.external


def test_the_original_graph_is_untouched_by_apply_and_zeroed(mlp: onnx.ModelProto) -> None:
    graph = load(mlp)
    before = ir.to_proto(graph.origin.model).SerializeToString()
    plan, zeroing = halved(graph)
    ir.to_proto(apply(graph, plan))
    ir.to_proto(zeroed(graph, zeroing))
    assert ir.to_proto(graph.origin.model).SerializeToString() == before

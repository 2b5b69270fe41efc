"""Loading ONNX: what the graph says about shapes, constants, sizes that vary, and what stays untouched."""

from __future__ import annotations

import mmap
import subprocess
import sys
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper, parser

from ozgraph.backends.files import write
from ozgraph.errors import ModelError
from ozgraph.frontends.onnx import FillConstant, OnnxOrigin, load, sample_shapes
from ozgraph.graph import Graph


def parse(body: str, signature: str, opset: int = 17, **weights: np.ndarray) -> onnx.ModelProto:
    proto = parser.parse_model(f'<ir_version: 8, opset_import: ["" : {opset}]> g {signature} {{ {body} }}')
    for name, array in weights.items():
        proto.graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
    return proto


def elements(graph: Graph, name: str) -> tuple[list[int], list[bool]]:
    known = graph.values[name].integers
    assert known is not None, name
    return known.elements.reshape(-1).tolist(), known.dynamic.reshape(-1).tolist()


@pytest.fixture
def heads() -> onnx.ModelProto:
    """Attention's reshape as torch exports it: Concat of pieces of Shape."""
    return parse(
        """
        h = MatMul(x, w)
        s = Shape(h)
        b0 = Gather<axis=0>(s, zero)
        t0 = Gather<axis=0>(s, one)
        d0 = Gather<axis=0>(s, two)
        d = Div(d0, four)
        b = Unsqueeze(b0, zero1)
        t = Unsqueeze(t0, zero1)
        dd = Unsqueeze(d, zero1)
        target = Concat<axis=0>(b, t, minus, dd)
        r = Reshape(h, target)
        y = Transpose<perm=[0,2,1,3]>(r)
        """,
        "(float[batch, seq, 12] x) => (float[batch, 4, seq, 6] y)",
        w=np.ones((12, 24), np.float32),
        zero=np.array(0, np.int64),
        one=np.array(1, np.int64),
        two=np.array(2, np.int64),
        four=np.array(4, np.int64),
        zero1=np.array([0], np.int64),
        minus=np.array([-1], np.int64),
    )


def test_a_static_model_knows_every_shape_and_nothing_varies() -> None:
    proto = parse(
        "c = Conv<pads=[1,1,1,1]>(x, w) r = Relu(c) f = Flatten(r) y = Gemm<transB=1>(f, v)",
        "(float[2,3,8,8] x) => (float[2,5] y)",
        w=np.ones((4, 3, 3, 3), np.float32),
        v=np.ones((5, 256), np.float32),
    )
    graph = load(proto)
    assert [op.type for op in graph.ops] == ["Conv", "Relu", "Flatten", "Gemm"]
    assert graph.values["c"].shape == (2, 4, 8, 8)
    assert graph.values["f"].shape == (2, 256)
    assert not any(flag for value in graph.values.values() for flag in value.dynamic)
    assert graph.ops[0].attributes["pads"] == [1, 1, 1, 1]
    assert graph.ops[0].version == 17 and graph.ops[0].operator == "Conv"
    assert graph.values["w"].uses == [(graph.ops[0], 1)]
    assert graph.values["r"].producer is graph.ops[1]
    assert len(graph.origin.samples) == 1 and sample_shapes(graph, 5) == {"x": (2, 3, 8, 8)}


def test_dynamic_axes_are_told_from_sizes_that_only_pass_through_shape_arithmetic(heads: onnx.ModelProto) -> None:
    graph = load(heads)
    batch, length, _ = sample_shapes(graph, 0)["x"]
    assert graph.values["r"].shape == (batch, length, 4, 6)
    assert graph.values["r"].dynamic == (True, True, False, False)
    assert graph.values["y"].dynamic == (True, False, True, False)
    assert elements(graph, "target") == ([batch, length, -1, 6], [True, True, False, False])
    assert elements(graph, "d") == ([6], [False])


def test_sample_variants_change_every_dynamic_size(heads: onnx.ModelProto) -> None:
    graph = load(heads)
    first, second = sample_shapes(graph, 0)["x"], sample_shapes(graph, 1)["x"]
    assert first[0] != second[0] and first[1] != second[1] and first[2] == second[2] == 12
    static = {12, 24, 4, 6}
    assert not static & {*first[:2], *second[:2]}


def test_given_shapes_bind_the_analysis(heads: onnx.ModelProto) -> None:
    graph = load(heads, shapes={"x": (1, 5, 12)})
    assert graph.values["r"].shape == (1, 5, 4, 6)
    assert graph.values["r"].dynamic == (True, True, False, False)


def test_axes_of_one_name_share_a_size() -> None:
    proto = parse("y = Add(a, b)", "(float[n, k] a, float[n, k] b) => (float[n, k] y)")
    graph = load(proto)
    assert graph.values["a"].shape == graph.values["b"].shape


def test_sizes_that_must_be_equal_without_sharing_a_name_are_found() -> None:
    graph = load(parse("y = Add(a, b)", "(float[2, p] a, float[2, q] b) => (float[2, r] y)"))
    assert graph.values["a"].shape == graph.values["b"].shape


def test_images_get_sizes_that_survive_strides() -> None:
    body = " ".join(f"c{i + 1} = MaxPool<kernel_shape=[2,2], strides=[2,2]>(c{i})" for i in range(6))
    graph = load(parse(body.replace("c0", "x").replace("c6", "y"), "(float[n,3,h,w] x) => (float[n,3,a,b] y)"))
    assert graph.values["y"].shape is not None and min(graph.values["y"].shape) >= 1


def test_a_size_that_agrees_by_accident_still_counts_as_dynamic() -> None:
    proto = parse(
        "s = Shape(x) n = Gather<axis=0>(s, i) q = Div(n, big) m = Max(q, one) u = Unsqueeze(m, z) y = Expand(w, u)",
        "(float[n, 3] x) => (float[k] y)",
        i=np.array(0, np.int64),
        one=np.array(1, np.int64),
        big=np.array(1000, np.int64),
        z=np.array([0], np.int64),
        w=np.ones(1, np.float32),
    )
    graph = load(proto)
    assert graph.values["y"].shape == (1,)
    assert graph.values["y"].dynamic == (True,)


def test_slicing_a_table_leaves_its_width_static() -> None:
    proto = parse(
        "s = Shape(x) n = Gather<axis=0>(s, one) t = Slice(w, zero, n, zero) y = Add(x, t)",
        "(float[b, t, 6] x) => (float[b, t, 6] y)",
        one=np.array([1], np.int64),
        zero=np.array([0], np.int64),
        w=np.ones((64, 6), np.float32),
    )
    assert load(proto).values["t"].dynamic == (True, False)


def test_an_input_without_a_shape_can_be_given_one() -> None:
    proto = parse("y = Relu(x)", "(float[2, 3] x) => (float[2, 3] y)")
    for info in (proto.graph.input[0], proto.graph.output[0]):
        info.type.tensor_type.ClearField("shape")
    assert load(proto).values["y"].shape is None
    graph = load(proto, shapes={"x": (5, 3)})
    assert graph.values["y"].shape == (5, 3) and graph.values["y"].dynamic == (True, True)


def test_a_model_that_fits_no_guess_asks_for_shapes() -> None:
    proto = parse("y = Reshape(x, s)", "(float[n] x) => (float[123457, m] y)", s=np.array([123457, -1], np.int64))
    with pytest.raises(ModelError, match="--shape x="):
        load(proto)
    assert load(proto, shapes={"x": (123457 * 2,)}).values["y"].shape == (123457, 2)


def test_constant_nodes_and_initializers_among_the_inputs_are_constants() -> None:
    proto = parse(
        "k = Constant<value_floats=[1.0, 2.0, 3.0]>() a = Mul(x, k) y = Add(a, w)",
        "(float[2,3] x, float[3] w) => (float[2,3] y)",
        w=np.ones(3, np.float32),
    )
    proto.ir_version = 3
    proto.graph.ClearField("value_info")
    graph = load(proto)
    assert [value.name for value in graph.inputs] == ["x"]
    assert {value.name for value in graph.constants} == {"k", "w"}
    assert graph.values["k"].constant is not None
    assert graph.values["k"].constant.numpy().tolist() == [1, 2, 3]


def test_a_filled_weight_is_a_constant_without_an_operator_and_takes_no_memory() -> None:
    proto = parse(
        "w = ConstantOfShape<value = float[1] {0.5}>(s) y = MatMul(x, w)",
        "(float[2,100000] x) => (float[2,10000] y)",
        s=np.array([100_000, 10_000], np.int64),
    )
    graph = load(proto)
    weight = graph.values["w"]
    assert [op.type for op in graph.ops] == ["MatMul"]
    assert isinstance(weight.constant, FillConstant) and weight.producer is None
    assert weight.shape == (100_000, 10_000) and weight.constant.nbytes == 4_000_000_000
    assert weight.constant.numpy()[7, 7] == 0.5


def test_weights_behind_identity_transpose_and_cast_stay_operators() -> None:
    proto = parse(
        "a = Identity(w) b = Transpose<perm=[1,0]>(a) c = Cast<to=1>(b) y = MatMul(x, c)",
        "(float[2,3] x) => (float[2,4] y)",
        w=np.ones((4, 3), np.float64),
    )
    graph = load(proto)
    assert [op.type for op in graph.ops] == ["Identity", "Transpose", "Cast", "MatMul"]
    assert graph.values["c"].shape == (3, 4) and graph.values["c"].dtype == np.float32


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, ml_dtypes.bfloat16])
def test_every_float_type_loads(dtype: type) -> None:
    code = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", code, [2, 3])],
        [helper.make_tensor_value_info("y", code, [2, 4])],
        [numpy_helper.from_array(np.ones((3, 4), dtype), "w")],
    )
    loaded = load(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))
    weight = loaded.values["w"]
    assert weight.dtype == np.dtype(dtype) and weight.is_float
    assert weight.constant is not None and weight.constant.numpy().dtype == np.dtype(dtype)


def test_functions_are_inlined_and_unsorted_nodes_sorted() -> None:
    proto = parse("y = Relu(a)", "(float[2,3] x) => (float[2,3] y)")
    proto.graph.node.append(helper.make_node("Twice", ["x"], ["a"], domain="local"))
    body = [helper.make_node("Add", ["p", "p"], ["q"], "sum")]
    proto.functions.append(helper.make_function("local", "Twice", ["p"], ["q"], body, [helper.make_opsetid("", 17)]))
    proto.opset_import.append(helper.make_opsetid("local", 1))
    assert [op.type for op in load(proto).ops] == ["Add", "Relu"]


def test_unused_nodes_and_weights_are_dropped_but_not_what_annotations_name() -> None:
    proto = parse(
        "y = Relu(x) z = Sigmoid(x)",
        "(float[2] x) => (float[2] y)",
        dead=np.ones(2, np.float32),
        scale=np.ones(1, np.float32),
    )
    annotation = proto.graph.quantization_annotation.add(tensor_name="y")
    annotation.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value="scale")
    graph = load(proto)
    assert [op.type for op in graph.ops] == ["Relu"]
    assert "dead" not in graph.values and "scale" in graph.values


def test_branches_stand_in_line_and_what_they_read_from_outside_is_a_use() -> None:
    proto = parse(
        """
        h = MatMul(x, w)
        y = If (c) <
          then_branch = g1 () => (float[2,4] a) { a = Add(h, b) },
          else_branch = g2 () => (float[2,4] e) { e = Relu(h) }
        >
        """,
        "(float[2,3] x, bool c) => (float[2,4] y)",
        w=np.ones((3, 4), np.float32),
        b=np.ones(4, np.float32),
    )
    graph = load(proto)
    assert [op.operator for op in graph.ops] == ["MatMul", "Add", "Relu", "If.result"]
    product, add, _, result = graph.ops
    assert graph.values["b"].uses == [(add, 1)]
    assert [value.name for value in result.inputs if value is not None] == ["c", "a", "e"]
    assert result.attributes["then_branch"] == "<graph>"
    assert graph.values["y"].shape == graph.values["a"].shape == (2, 4)
    assert set(graph.op_graph.successors(product)) == set(graph.ops[1:3])


def test_what_a_closed_body_reads_from_outside_is_a_use() -> None:
    proto = parse(
        "h = MatMul(x, w) y = custom.Twice <body = g (float[2,4] i) => (float[2,4] a) { a = Add(i, h) }> (h)",
        "(float[2,3] x) => (float[2,4] y)",
        w=np.ones((3, 4), np.float32),
    )
    proto.opset_import.append(helper.make_opsetid("custom", 1))
    graph = load(proto)
    twice = graph.ops[1]
    assert [value.name for value in twice.captures] == ["h"]
    assert graph.values["h"].uses == [(twice, 0), (twice, -1)]


def test_an_unknown_operator_is_read_with_the_shape_that_the_file_declares() -> None:
    proto = parse("h = custom.Thing(x) y = Relu(h)", "(float[n,3] x) => (float[n,3] y)")
    proto.opset_import.append(helper.make_opsetid("custom", 1))
    proto.graph.value_info.append(helper.make_tensor_value_info("h", TensorProto.FLOAT, ["n", 3]))
    graph = load(proto)
    assert graph.ops[0].operator == "custom.Thing"
    assert graph.values["h"].shape == graph.values["x"].shape
    assert graph.values["y"].dynamic[0]


def test_optional_operands_that_are_left_out_are_none() -> None:
    proto = parse(
        'y = Resize<mode="nearest">(x, , scales)',
        "(float[1,2,4,4] x) => (float[1,2,8,8] y)",
        scales=np.array([1, 1, 2, 2], np.float32),
    )
    graph = load(proto)
    assert graph.ops[0].inputs[1] is None
    assert graph.values["y"].shape == (1, 2, 8, 8)


def test_a_callers_model_is_never_changed(heads: onnx.ModelProto) -> None:
    heads.graph.node.append(
        helper.make_node("Constant", [], ["k"], value=numpy_helper.from_array(np.ones(3, np.float32)))
    )
    heads.graph.node.append(helper.make_node("Neg", ["k"], ["unused"]))
    before = heads.SerializeToString()
    load(heads)
    assert heads.SerializeToString() == before
    model = ir.from_proto(heads)
    text = ir.to_proto(model).SerializeToString()
    load(model)
    assert ir.to_proto(model).SerializeToString() == text


def test_the_same_model_loads_from_path_bytes_protobuf_and_ir(heads: onnx.ModelProto, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(heads.SerializeToString())
    graphs = [load(path), load(str(path)), load(path.read_bytes()), load(heads), load(ir.from_proto(heads))]
    assert len({tuple(op.name for op in graph.ops) for graph in graphs}) == 1
    assert len({graph.values["y"].shape for graph in graphs}) == 1
    assert graphs[0].name == "m.onnx"


def test_external_data_is_mapped_only_when_read(tmp_path: Path) -> None:
    proto = parse("y = MatMul(x, w)", "(float[2,64] x) => (float[2,64] y)", w=np.ones((64, 64), np.float32))
    path = tmp_path / "m.onnx"
    onnx.save(proto, path, save_as_external_data=True, location="m.onnx.data", size_threshold=0)
    graph = load(path)
    origin = graph.origin
    assert isinstance(origin, OnnxOrigin) and origin.external
    assert origin.files == {str(path.resolve()), str((tmp_path / "m.onnx.data").resolve())}
    tensor = origin.model.graph.initializers["w"].const_value
    assert isinstance(tensor, ir.ExternalTensor) and tensor.raw is None, "nothing is mapped at load"
    weight = graph.values["w"].constant
    assert weight is not None and weight.nbytes == 64 * 64 * 4
    assert tensor.raw is None, "asking for sizes maps nothing"
    array = weight.numpy()
    assert mapped(array) is not None and not array.flags.owndata and not array.flags.writeable
    assert tensor.raw is None, "and its tensor keeps no map of the file"


def mapped(array: Any) -> mmap.mmap | None:
    """The memory map that an array looks at."""
    while array is not None and not isinstance(array, mmap.mmap):
        array = getattr(array, "base", None)
    return array


def test_a_weight_maps_its_own_part_of_a_file_and_not_the_whole_of_it(tmp_path: Path) -> None:
    """Of 300 weights in a gigabyte, maps of the whole file are 300 GB of addresses."""
    weights = {f"w{k}": np.full((64, 64), k, np.float32) for k in range(20)}
    chain = "\n".join(f"h{k} = MatMul({f'h{k - 1}' if k else 'x'}, w{k})" for k in range(20))
    proto = parse(f"{chain}\ny = Relu(h19)", "(float[2,64] x) => (float[2,64] y)", **weights)
    path = tmp_path / "m.onnx"
    onnx.save(proto, path, save_as_external_data=True, location="m.onnx.data", size_threshold=0)
    graph = load(path)
    for name, wanted in weights.items():
        weight = graph.values[name].constant
        assert weight is not None
        array = weight.numpy()
        np.testing.assert_array_equal(array, wanted)
        part = mapped(array)
        assert part is not None and len(part) <= wanted.nbytes + mmap.ALLOCATIONGRANULARITY
    written = tmp_path / "inline.onnx"
    origin = graph.origin
    assert isinstance(origin, OnnxOrigin)
    write(origin.model, written, external=False)
    for tensor in onnx.load(written).graph.initializer:
        np.testing.assert_array_equal(onnx.numpy_helper.to_array(tensor), weights[tensor.name])
    kept = [value.const_value for value in origin.model.graph.initializers.values()]
    assert all(isinstance(tensor, ir.ExternalTensor) and tensor.raw is None for tensor in kept), "writing maps none"


def test_external_data_that_changes_after_loading_is_refused_when_read(tmp_path: Path) -> None:
    proto = parse("y = MatMul(x, w)", "(float[2,64] x) => (float[2,64] y)", w=np.ones((64, 64), np.float32))
    path = tmp_path / "m.onnx"
    onnx.save(proto, path, save_as_external_data=True, location="m.onnx.data", size_threshold=0)
    weight = load(path).values["w"].constant
    assert weight is not None
    (tmp_path / "m.onnx.data").write_bytes(b"short")
    with pytest.raises(ModelError, match="needs 16,384 bytes"):
        weight.numpy()


def test_loading_never_imports_torch(tmp_path: Path) -> None:
    code = "import sys, ozgraph.frontends.onnx, ozgraph.backends.onnx; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=False).returncode == 0


def test_a_long_chain_loads_in_linear_time_without_recursion() -> None:
    count = 3000
    names = ["x", *(f"h{index}" for index in range(count - 1)), "y"]
    nodes = [helper.make_node("Relu", [names[index]], [names[index + 1]]) for index in range(count)]
    info = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 4]) for name in ("x", "y")]
    proto = helper.make_model(
        helper.make_graph(nodes, "g", info[:1], info[1:]), opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    )
    graph = load(proto)
    assert len(graph.ops) == count and graph.values["y"].dynamic == (True, False)

from __future__ import annotations

import subprocess
import sys

import numpy as np
import onnx
import pytest
from light import CHEAP, COSTLY, light
from networks import CLASSES, NETWORKS, Builder, branches, chain, images, residual, run, saved
from onnx import TensorProto, helper, numpy_helper

from planner.accuracy import Evaluator
from planner.batching import batchable
from planner.errors import InputError
from planner.graph import LayerGraph, from_folded, read


def graph_of(model: onnx.ModelProto, tmp_path, name: str = "small") -> LayerGraph:
    return read(saved(model, tmp_path, name))


@pytest.mark.parametrize("name", NETWORKS)
def test_folding_leaves_what_a_network_computes(name, tmp_path):
    source = NETWORKS[name]()
    graph = graph_of(source, tmp_path)
    x = images(source, 4)
    assert np.allclose(run(graph.model, x), run(source, x), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_node_belongs_to_exactly_one_layer(name, tmp_path):
    graph = graph_of(NETWORKS[name](), tmp_path)
    owned = [node for layer in graph.layers for node in layer.nodes]
    assert sorted(owned) == sorted(node.name for node in graph.model.graph.node)
    assert len(set(owned)) == len(owned)


@pytest.mark.parametrize("name", NETWORKS)
def test_layers_are_in_topological_order_and_edges_carry_their_tensors(name, tmp_path):
    graph = graph_of(NETWORKS[name](), tmp_path)
    place = {layer.name: index for index, layer in enumerate(graph.layers)}
    for edge in graph.edges:
        assert place[edge.source] < place[edge.target]
        assert edge.tensor in graph.layer(edge.source).outputs
        assert edge.tensor in graph.layer(edge.target).inputs
    read_inside = {tensor for layer in graph.layers for tensor in layer.inputs}
    made = {tensor for layer in graph.layers for tensor in layer.outputs}
    assert read_inside - made == {graph.input_name}
    assert made - read_inside == {graph.output_name}


@pytest.mark.parametrize("name", NETWORKS)
def test_every_tensor_of_the_folded_model_has_a_static_shape(name, tmp_path):
    graph = graph_of(NETWORKS[name](), tmp_path)
    proto = graph.model.graph
    annotated = {value.name for value in (*proto.value_info, *proto.output)}
    assert {out for node in proto.node for out in node.output} <= annotated
    assert all(dim > 0 for shape in graph.shapes.values() for dim in shape)
    onnx.checker.check_model(graph.model, full_check=True)


def test_a_layer_is_an_anchor_with_its_epilogue_named_after_the_source(tmp_path):
    graph = graph_of(chain(), tmp_path)
    assert [(layer.name, layer.op, layer.nodes[1:]) for layer in graph.layers] == [
        ("conv1", "Conv", ("relu1",)),
        ("conv2", "Conv", ("relu2",)),
        ("pool", "MaxPool", ()),
        ("conv3", "Conv", ("relu3", "flat")),
        ("dense1", "Gemm", ("relu4",)),
        ("dense2", "Gemm", ()),
    ]


def test_a_residual_sum_joins_the_last_of_the_layers_it_adds(tmp_path):
    graph = graph_of(residual(), tmp_path)
    assert graph.layer("shortcut").nodes == ("shortcut", "sum", "sum_relu")
    assert graph.layer("b").nodes == ("b",)
    assert "b:0" in graph.layer("shortcut").inputs or "b_norm:0" in graph.layer("shortcut").inputs


def test_unnamed_nodes_are_called_after_their_operator_and_place(tmp_path):
    graph = graph_of(branches(), tmp_path)
    assert graph.layer("stem").nodes == ("stem", "Relu_1")
    assert graph.layer("left").nodes == ("left", "Sigmoid_3", "Mul_4")


def test_batch_normalisation_that_has_no_producer_to_fold_into_is_a_layer_of_its_own(tmp_path):
    graph = graph_of(branches(), tmp_path)
    assert [layer.op for layer in graph.layers].count("BatchNormalization") == 1
    assert "BatchNormalization" not in [layer.op for layer in graph_of(chain(), tmp_path).layers]


def test_a_normalisation_of_a_tensor_read_twice_is_not_folded(tmp_path):
    b = Builder((1, 1, 4, 4))
    x = b.conv("image", "conv", (CLASSES, 1, 4, 4))
    y = b.add("Add", [x, b.norm(x, "norm", CLASSES)], name="add")
    source = b.model(b.add("Flatten", [y], name="flat"))
    graph = graph_of(source, tmp_path)
    assert "norm" in {node.name for node in graph.model.graph.node}
    x = images(source, 2)
    assert np.allclose(run(graph.model, x), run(source, x), rtol=1e-5, atol=1e-6)


def test_parameters_macs_and_live_bytes_are_counted_by_hand(tmp_path):
    graph = graph_of(residual(), tmp_path)
    a = graph.layer("a")
    assert a.macs == 16 * 4 * 4 * 8 * 3 * 3
    assert a.parameter_bytes == 4 * (16 * 8 * 9 + 16)
    # The stem's output (8x8x8) is read again by the shortcut, so it is alive beside what b reads and writes.
    assert graph.layer("b").activation_bytes == 4 * (8 * 8 * 8 + 2 * 16 * 4 * 4)
    assert graph.layer("depthwise").macs == 16 * 4 * 4 * 9
    assert graph.parameter_bytes == sum(
        4 * int(np.prod(item.dims)) for item in graph.model.graph.initializer if item.data_type == TensorProto.FLOAT
    )


def test_prints_as_a_table_with_every_layer_and_a_total(tmp_path):
    graph = graph_of(chain(), tmp_path)
    lines = str(graph).splitlines()
    assert [line.split()[0] for line in lines[2:]] == [*(layer.name for layer in graph.layers), "total"]
    assert f"{graph.parameter_bytes:,}" in lines[-1]


@pytest.mark.parametrize("name", CHEAP)
def test_reads_well_known_networks(name, tmp_path):
    check_light(name, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", COSTLY)
def test_reads_large_well_known_networks(name, tmp_path):
    check_light(name, tmp_path)


def check_light(name: str, tmp_path) -> None:
    source = light(name)
    if source.graph.node[-1].op_type == "Softmax":  # compare scores, not probabilities that saturate
        last = source.graph.node.pop()
        source.graph.output[0].name = last.input[0]
    graph = graph_of(source, tmp_path, name)
    constants = {item.name for item in source.graph.initializer}
    inputs = [item for item in source.graph.input if item.name not in constants]
    del source.graph.input[:]
    source.graph.input.extend(inputs)
    source.ir_version = 8
    x = images(graph.model, 1)
    expected = run(source, x)
    assert np.abs(run(graph.model, x) - expected).max() <= 1e-4 * np.abs(expected).max()
    assert batchable(graph.model, graph.shapes)
    pair = images(graph.model, 2)
    together = Evaluator(graph, pair, np.zeros(2, np.int64)).logits(graph.model)
    assert np.allclose(together, run(graph.model, pair), rtol=1e-3, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("name", NETWORKS)
def test_a_batch_gives_what_its_images_give_one_by_one(name, tmp_path):
    graph = graph_of(NETWORKS[name](), tmp_path)
    assert batchable(graph.model, graph.shapes)
    x = images(graph.model, 70)
    together = Evaluator(graph, x, np.zeros(len(x), np.int64)).logits(graph.model)
    alone = run(graph.model, x)
    if graph.layers[-1].op == "Softmax":
        alone = np.log(alone)
    assert np.allclose(together, alone, rtol=1e-4, atol=1e-5)


def test_a_network_that_mixes_the_images_of_a_batch_is_run_image_by_image(tmp_path):
    b = Builder((1, 2, 4, 4))
    x = b.add("Reshape", ["image", b.constant(np.array([2, 16]), "shape")], name="split")
    x = b.dense(x, "dense", CLASSES, 16)
    x = b.add("Reshape", [x, b.constant(np.array([1, 2 * CLASSES]), "shape2")], name="join")
    graph = graph_of(b.model(x), tmp_path)
    assert not batchable(graph.model, graph.shapes)
    x = images(graph.model, 3)
    logits = Evaluator(graph, x, np.zeros(3, np.int64)).logits(graph.model)
    assert np.allclose(logits, run(graph.model, x), rtol=1e-5, atol=1e-6)


def test_an_older_operator_set_is_converted(tmp_path):
    b = Builder((1, 1, 4, 4), opset=9)
    x = b.add("Relu", [b.conv("image", "conv", (CLASSES, 1, 4, 4))], name="relu")
    source = b.model(b.add("Flatten", [x], name="flat"))
    graph = graph_of(source, tmp_path)
    assert graph.model.opset_import[0].version == 21
    assert [layer.name for layer in graph.layers] == ["conv"]
    x = images(source, 2)
    assert np.allclose(run(graph.model, x), run(source, x))


def test_shapes_computed_from_static_shapes_become_constants(tmp_path):
    b = Builder(("n", 2, 4, 4))
    x = b.conv("image", "conv", (3, 2, 3, 3))
    shape = b.add("Shape", [x], name="shape")
    first = b.add("Gather", [shape, b.constant(np.array(0), "zero")], name="gather")
    first = b.add("Unsqueeze", [first, b.constant(np.array([0]), "axis")], name="unsqueeze")
    target = b.add("Concat", [first, b.constant(np.array([-1]), "rest")], name="target", axis=0)
    x = b.add("Reshape", [x, target], name="flat")
    graph = graph_of(b.model(b.dense(x, "fc", CLASSES, 12)), tmp_path)
    assert [node.op_type for node in graph.model.graph.node] == ["Conv", "Reshape", "Gemm"]


def test_an_open_size_other_than_the_batch_must_be_given(tmp_path):
    b = Builder(("n", 1, "height", 4))
    x = b.add("GlobalAveragePool", [b.conv("image", "conv", (CLASSES, 1, 3, 3))], name="pool")
    path = saved(b.model(b.add("Flatten", [x], name="flat")), tmp_path)
    with pytest.raises(InputError, match=r"small\.onnx: input 'image': dimension 2 \(height\) has no size"):
        read(path)
    assert read(path, input_shape=(1, 1, 6, 4)).input_shape == (1, 1, 6, 4)
    with pytest.raises(InputError, match="dimension 3 is 4 in the file, but 5 was given"):
        read(path, input_shape=(1, 1, 6, 5))


def test_refuses_a_file_that_is_missing_or_is_no_onnx(tmp_path):
    with pytest.raises(InputError, match=r"none\.onnx: there is no such file"):
        read(tmp_path / "none.onnx")
    for name, content in {
        "text": b"hello, this is no network\n",
        "empty": b"",
        "noise": bytes(range(256)) * 9,
    }.items():
        path = tmp_path / f"{name}.onnx"
        path.write_bytes(content)
        with pytest.raises(InputError, match=rf"{name}\.onnx: not an ONNX model"):
            read(path)


@pytest.mark.parametrize("share", [0.001, 0.1, 0.5, 0.9, 0.999])
def test_refuses_a_truncated_file(share, tmp_path):
    path = saved(chain(), tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[: max(1, int(share * len(content)))])
    with pytest.raises(InputError, match=r"small\.onnx"):
        read(path)


def test_names_the_node_of_an_operator_that_cannot_be_run(tmp_path):
    b = Builder((1, 1, 4, 4))
    model = b.model(b.add("Fancy", ["image"], name="odd", domain="com.example"))
    with pytest.raises(InputError, match=r"node 'odd' is a Fancy of domain 'com\.example'"):
        graph_of(model, tmp_path)
    model = Builder((1, 1, 4, 4))
    with pytest.raises(InputError, match="node 'odd' is a Fancy: no such operator in version 17"):
        graph_of(model.model(model.add("Fancy", ["image"], name="odd")), tmp_path)
    b = Builder((1, 1, 4, 4))
    with pytest.raises(InputError, match="node 'odd' is a NonZero: not supported"):
        graph_of(b.model(b.add("NonZero", ["image"], name="odd")), tmp_path)


def test_refuses_control_flow(tmp_path):
    inner = helper.make_graph(
        [helper.make_node("Identity", ["image"], ["y"])],
        "branch",
        [],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    b = Builder((1, 1, 4, 4))
    b.constant(np.ones((), bool), "yes")
    model = b.model(b.add("If", ["yes"], name="fork", then_branch=inner, else_branch=inner))
    with pytest.raises(InputError, match="node 'fork' is a If: control flow"):
        graph_of(model, tmp_path)


def test_refuses_what_is_no_image_classifier(tmp_path):
    b = Builder((1, 16))
    with pytest.raises(InputError, match="expected a float image"):
        graph_of(b.model(b.dense("image", "fc", CLASSES, 16)), tmp_path)
    b = Builder((1, 1, 4, 4))
    x = b.conv("image", "conv", (CLASSES, 1, 4, 4))
    y = b.add("Relu", [x], name="relu")
    with pytest.raises(InputError, match="2 outputs"):
        graph_of(b.model(x, y), tmp_path)
    b = Builder((1, 1, 6, 6))
    with pytest.raises(InputError, match=r"expected class scores, \(1, classes\)"):
        graph_of(b.model(b.conv("image", "conv", (CLASSES, 1, 3, 3))), tmp_path)
    b = Builder((4, 1, 4, 4))
    with pytest.raises(InputError, match="fixed batch of 4"):
        graph_of(b.model(b.conv("image", "conv", (CLASSES, 1, 4, 4))), tmp_path)


def test_an_unknown_layer_is_answered_with_those_that_exist(tmp_path):
    with pytest.raises(InputError, match="has no layer 'conv9'; it has: conv1, conv2, pool"):
        graph_of(chain(), tmp_path).layer("conv9")


def test_importing_the_graph_loads_no_heavy_library():
    code = (
        "import sys, planner.graph, planner.rewrite, planner.accuracy; "
        "print([name for name in ('onnx', 'onnxruntime', 'tvm', 'pandas', 'ortools') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_what_is_read_back_from_bytes_counts_as_these_bytes():
    scale, zero = numpy_helper.from_array(np.float32(0.1), "scale"), numpy_helper.from_array(np.uint8(3), "zero")
    quantised = helper.make_graph(
        [
            helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["bytes"], name="round"),
            helper.make_node("DequantizeLinear", ["bytes", "scale", "zero"], ["real"], name="back"),
            helper.make_node("MaxPool", ["real"], ["pooled"], name="pool", kernel_shape=[4, 4]),
            helper.make_node("Flatten", ["pooled"], ["y"], name="flat"),
        ],
        "quantised",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 8, 4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 8])],
        [scale, zero],
    )
    model = helper.make_model(quantised, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    shapes = {"x": (1, 8, 4, 4), "bytes": (1, 8, 4, 4), "real": (1, 8, 4, 4), "pooled": (1, 8, 1, 1), "y": (1, 8)}
    found = from_folded(model, name="quantised", shapes=shapes, source_digest="", where="here")
    assert [layer.name for layer in found.layers] == ["round", "pool"]
    assert [layer.activation_bytes for layer in found.layers] == [4 * 128 + 128, 128 + 4 * 8]

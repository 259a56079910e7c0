from __future__ import annotations

import networks
import numpy as np
import pytest
from onnx import helper, numpy_helper

from planner.calibration import Calibration
from planner.errors import InputError
from planner.graph import read
from planner.linear import Linear, linear_of, moments, output_rows, sample, unfit
from planner.rewrite import apply, offers


def attention(tokens: int = 6, width: int = 16) -> tuple[networks.Builder, str]:
    """A block of attention with one head over the rows of a map, and the two products behind it."""
    b = networks.Builder((1, 1, tokens, width), seed=6)
    shape = b.constant(np.array([1, tokens, width]), "shape")
    x = b.add("Reshape", ["image", shape], name="tokens")
    parts = {}
    for part in ("query", "key", "value"):
        parts[part] = b.add("MatMul", [x, b.weights((width, width), f"{part}.w")], name=part)
    turned = b.add("Transpose", [parts["key"]], name="turned", perm=[0, 2, 1])
    scores = b.add("Softmax", [b.add("MatMul", [parts["query"], turned], name="scores")], name="shares", axis=-1)
    x = b.add("Add", [b.add("MatMul", [scores, parts["value"]], name="mixed"), x], name="skip")
    y = b.add("MatMul", [x, b.weights((width, 4 * width), "up.w")], name="up")
    y = b.add("Relu", [b.add("Add", [y, b.weights((4 * width,), "up.b")], name="up_bias")], name="up_relu")
    y = b.add("MatMul", [y, b.weights((4 * width, width), "down.w")], name="down")
    return b, b.add("ReduceMean", [b.add("Add", [y, x], name="skip2")], name="mean", axes=[1], keepdims=0)


@pytest.fixture
def graph(tmp_path):
    b, x = attention()
    return read(networks.saved(b.model(b.dense(x, "fc", networks.CLASSES, 16)), tmp_path))


@pytest.fixture
def calibration(graph) -> Calibration:
    return Calibration(graph, networks.images(graph.model, 64))


def test_rows_of_a_product_of_tokens_are_all_tokens_of_all_images(calibration: Calibration) -> None:
    view = calibration.views["up"]
    linear = view.linear
    assert linear.transposed
    assert (linear.outputs, linear.depth) == (64, 16)
    inputs = calibration.exact("skip:0")
    positions = sample(linear, view.output_shape, len(inputs))
    assert len(positions) == 64 * 6
    rows = output_rows(linear, inputs, positions, view.output_shape)
    np.testing.assert_allclose(rows[0], inputs.reshape(-1, 16) @ calibration.arrays["up.w"], atol=1e-4)
    found = moments(linear, inputs, output_shape=view.output_shape)
    assert (found.rows, found.images) == (64 * 6, 64)


def test_products_of_two_activations_have_no_weights(graph) -> None:
    found = offers(graph)
    assert found["scores"]["lowrank"].reason == "the weights of MatMul are no constant"
    assert found["mixed"]["int8w"].reason == "the weights of MatMul are no constant"
    assert "classifier" in found["fc"]["lowrank"].reason


@pytest.mark.parametrize("choice", ["lowrank@0.75", "lowrank@0.25", "int8w", "fp16w", "lowrank@0.5+int8w"])
def test_products_of_tokens_are_approximated_and_keep_their_means(choice: str, graph, calibration: Calibration) -> None:
    for name in ("query", "value", "up", "down"):
        model = apply(graph, {name: choice}, calibration, refit=False).model
        before, after = (networks.run(item, calibration.images) for item in (graph.model, model))
        assert np.isfinite(after).all()
        assert not np.array_equal(before, after)
        if name == "down":  # what is behind it is linear: its mean is that of the logits
            np.testing.assert_allclose(after.mean(axis=0), before.mean(axis=0), atol=2e-4)


def test_products_of_tokens_behind_an_approximation_are_refitted(graph, calibration: Calibration) -> None:
    new = apply(graph, {"query": "lowrank@0.5", "value": "lowrank@0.5"}, calibration)
    plain = apply(graph, {"query": "lowrank@0.5", "value": "lowrank@0.5"}, calibration, refit=False)
    arrays = {item.name: numpy_helper.to_array(item) for item in new.model.graph.initializer}
    assert not np.array_equal(arrays["up.w"], calibration.arrays["up.w"])
    assert np.array_equal(arrays["key.w"], calibration.arrays["key.w"])
    unseen = networks.images(graph.model, 64, seed=3)
    exact, fitted, unfitted = (networks.run(item, unseen) for item in (graph.model, new.model, plain.model))
    assert np.square(fitted - exact).mean() < 0.9 * np.square(unfitted - exact).mean()


def refused(node, arrays, message: str) -> None:
    assert message in unfit(node, arrays)
    assert linear_of(node, arrays) is None


def test_what_has_no_weights_that_can_be_changed_says_why() -> None:
    weight = np.ones((3, 4), np.float32)
    gemm = helper.make_node("Gemm", ["x", "w", "b"], ["y"], transB=1)
    refused(helper.make_node("Relu", ["x"], ["y"]), {}, "Relu has no weights")
    refused(gemm, {"w": weight}, "the weights of Gemm are no constant")
    refused(gemm, {"w": weight, "b": np.ones(4, np.float32)}, "Gemm does more than multiply")
    refused(gemm, {"w": weight.astype(np.float64), "b": np.ones(3)}, "float64 of 2 dimensions; expected float32 of 2")
    refused(helper.make_node("MatMul", ["w", "v"], ["y"]), {"w": weight, "v": weight.T}, "a constant from the left")
    refused(helper.make_node("Conv", ["x", "w"], ["y"]), {"w": np.ones((3, 4, 5), np.float32)}, "3 dimensions")
    assert not unfit(gemm, {"w": weight, "b": np.ones(3, np.float32)})


def test_weights_that_two_layers_share_are_changed_for_one_of_them_alone(tmp_path) -> None:
    b = networks.Builder((1, 16, 8, 8))
    x = b.add("Relu", [b.conv("image", "stem", (16, 16, 3, 3), pads=[1, 1, 1, 1])], name="stem_relu")
    x = b.add("Relu", [b.conv(x, "one", (16, 16, 3, 3), pads=[1, 1, 1, 1])], name="one_relu")
    x = b.add("Conv", [x, "one.w"], name="two", kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    x = b.add("GlobalAveragePool", [b.add("Relu", [x], name="two_relu")], name="pool")
    model = b.model(b.dense(b.add("Flatten", [x], name="flat"), "fc", networks.CLASSES, 16))
    graph = read(networks.saved(model, tmp_path))
    rewritten = apply(graph, {"one": "sample@0.67"}, networks.images(model, 32), refit=False)
    weights = {node.name: node.input[1] for node in rewritten.model.graph.node if node.op_type == "Conv"}
    arrays = {item.name: numpy_helper.to_array(item) for item in rewritten.model.graph.initializer}
    before = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
    assert np.array_equal(arrays[weights["two"]], before["one.w"])
    assert arrays[weights["one.sampled"]].shape != before["one.w"].shape


def test_a_constant_that_another_node_reads_is_not_changed() -> None:
    node = helper.make_node("Gemm", ["x", "w", "b"], ["y"], transB=1, name="one")
    arrays = {"w": np.ones((3, 4), np.float32), "b": np.ones(3, np.float32)}
    assert not unfit(node, arrays, {"w": ["one"], "b": ["one"]})
    assert unfit(node, arrays, {"w": ["one"], "b": ["one", "two"]}) == "its constant 'b' is read by two too"


def test_weights_held_transposed_are_a_matrix() -> None:
    with pytest.raises(InputError, match=r"expected \[output\]\[input\]"):
        Linear(weight=np.ones((2, 2, 3, 3), np.float32), bias=None, transposed=True)

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import NETWORKS, Builder, chain, images, residual, run, saved
from onnx import TensorProto, numpy_helper

from planner.approximations.base import Offer, exact
from planner.approximations.int8w import quantise
from planner.approximations.lowrank import factorise, rank_of
from planner.calibration import Calibration
from planner.choices import modules
from planner.errors import InputError
from planner.graph import read
from planner.linear import Linear, input_rows, linear_of, moments, output_rows, sample
from planner.masks.costs import is_masked
from planner.registry import discover
from planner.rewrite import applicable, apply, offers

IMAGES = 48


def graph_of(model, tmp_path):
    return read(saved(model, tmp_path))


def inner(model, *tensors):
    """Return a copy of a model whose output is one of its inner tensors."""
    copy = type(model)()
    copy.CopyFrom(model)
    copy.graph.output[0].name = tensors[0]
    copy.graph.output[0].type.tensor_type.ClearField("shape")
    return copy


def arrays(model):
    return {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}


@pytest.mark.parametrize("name", discover("planner.approximations"))
def test_an_approximation_names_its_choices_after_its_file(name):
    module = modules()[name]
    assert module.KIND in {"structure", "storage", "arithmetic", "schedule", "mask"}
    assert module.CHOICES
    assert all(choice.partition("@")[0] == name for choice in module.CHOICES)


@pytest.mark.parametrize("network", NETWORKS)
def test_an_approximation_offers_choices_or_says_why_not(network, tmp_path):
    graph = graph_of(NETWORKS[network](), tmp_path)
    for layer, by_name in offers(graph).items():
        for name, offer in by_name.items():
            assert bool(offer.choices) != bool(offer.reason), (layer, name)
            assert set(offer.choices) <= set(modules()[name].CHOICES)


def test_an_offer_is_of_choices_or_of_a_reason():
    with pytest.raises(InputError, match="expected one of the two"):
        Offer()
    with pytest.raises(InputError, match="expected one of the two"):
        Offer(choices=("int8w",), reason="because")


def test_low_rank_spares_the_first_convolution_the_classifier_and_groups(tmp_path):
    found = offers(graph_of(residual(), tmp_path))
    assert "first convolution" in found["stem"]["lowrank"].reason
    assert "classifier" in found["fc"]["lowrank"].reason
    assert "16 groups" in found["depthwise"]["lowrank"].reason
    assert found["a"]["lowrank"].choices == ("lowrank@0.75", "lowrank@0.5", "lowrank@0.35", "lowrank@0.25")
    assert "no weights" in found["pool"]["lowrank"].reason


@given(
    outputs=st.integers(1, 300),
    depth=st.integers(1, 3000),
    share=st.sampled_from([0.5, 0.25, 0.1]),
)
def test_a_rank_keeps_its_share_of_the_work_and_the_next_one_does_not(outputs, depth, share):
    rank = rank_of(outputs, depth, share)
    assert rank * (outputs + depth) <= share * outputs * depth < (rank + 1) * (outputs + depth) * (1 + 1e-12)


def correlated(rng, rows, depth):
    return (rng.normal(size=(rows, depth)) @ rng.normal(size=(depth, depth)) / depth).astype(np.float32) + 0.3


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), outputs=st.integers(2, 12), depth=st.integers(2, 20))
def test_full_rank_equals_the_exact_layer(seed, outputs, depth):
    rng = np.random.default_rng(seed)
    linear = Linear(
        weight=rng.normal(size=(outputs, depth)).astype(np.float32),
        bias=rng.normal(size=outputs).astype(np.float32),
    )
    x = correlated(rng, 50, depth)
    expand, reduce, bias = factorise(linear, moments(linear, x), outputs)
    assert np.allclose(x @ (expand @ reduce).T + bias, x @ linear.weight.T + linear.bias, rtol=1e-4, atol=1e-4)


def test_a_rank_beyond_the_outputs_is_refused():
    linear = Linear(weight=np.ones((3, 5), np.float32), bias=None)
    with pytest.raises(InputError, match="rank 4 of a layer of 3 outputs"):
        factorise(linear, moments(linear, np.ones((4, 5), np.float32)), 4)


def test_low_rank_keeps_the_outputs_better_than_a_plain_decomposition_does():
    rng = np.random.default_rng(3)
    linear = Linear(weight=rng.normal(size=(24, 4, 3, 3)).astype(np.float32), bias=None, pads=(1, 1, 1, 1))
    x = images(chain(), 64)[:, :1] * rng.normal(size=(1, 4, 1, 1)).astype(np.float32)
    x = x + 0.1 * rng.normal(size=x.shape).astype(np.float32)
    shape = (1, 24, *x.shape[2:])
    expand, reduce, bias = factorise(linear, moments(linear, x, output_shape=shape), 4)
    left, values, right = np.linalg.svd(linear.matrix, full_matrices=False)
    rows = np.concatenate(list(input_rows(linear, x, sample(linear, shape, len(x)), shape)), axis=1)[0, :, :-1]
    target = rows @ linear.matrix.T
    ours = np.square(rows @ (expand @ reduce).T + bias - target).mean()
    plain = np.square(rows @ (left[:, :4] * values[:4] @ right[:4]).T - target).mean()
    assert ours < 0.5 * plain
    assert np.allclose((rows @ (expand @ reduce).T + bias).mean(axis=0), target.mean(axis=0), atol=1e-3)


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 1000),
    power=st.integers(-20, 10),
    shape=st.sampled_from([(3, 7), (4, 2, 3, 3), (1, 1)]),
)
def test_no_int8_weight_is_off_by_more_than_half_a_step(seed, power, shape):
    weight = (np.random.default_rng(seed).normal(size=shape) * 2.0**power).astype(np.float32)
    whole, scale = quantise(weight)
    error = np.abs(whole * scale.reshape(-1, *[1] * (weight.ndim - 1)).astype(np.float64) - weight)
    assert whole.dtype == np.int8
    assert (error.reshape(len(scale), -1).max(axis=1) <= 0.5 * scale * (1 + 1e-4)).all()


def test_int8_of_weights_that_are_all_nought_is_nought():
    whole, scale = quantise(np.zeros((2, 3), np.float32))
    assert not whole.any()
    assert np.isfinite(scale).all()


def test_int8_weights_lie_in_the_network_as_int8_with_a_scale_an_output_channel(tmp_path):
    graph = graph_of(chain(), tmp_path)
    rewritten = apply(graph, {"conv2": "int8w"}, images(graph.model, IMAGES), refit=False)
    constants = {item.name: item for item in rewritten.model.graph.initializer}
    (node,) = [item for item in rewritten.model.graph.node if item.op_type == "DequantizeLinear"]
    assert constants[node.input[0]].data_type == TensorProto.INT8
    assert list(constants[node.input[0]].dims) == [16, 12, 3, 3]
    assert list(constants[node.input[1]].dims) == [16]
    assert [(item.name, item.i) for item in node.attribute] == [("axis", 0)]
    assert rewritten.nodes["conv2"] == (node.name, "conv2", "relu2")
    assert rewritten.parameter_bytes["conv2"] == 16 * 12 * 9 + 4 * 16 + 4 * 16
    assert "conv2.w" not in constants


def test_int8_weights_leave_the_mean_of_each_output_channel(tmp_path):
    graph = graph_of(chain(), tmp_path)
    x = images(graph.model, IMAGES)
    calibration = Calibration(graph, x)
    model = apply(graph, {"conv2": "int8w"}, calibration, refit=False).model
    now, before = (run(inner(item, "conv2:0"), x).reshape(IMAGES, 16, -1) for item in (model, graph.model))
    assert np.abs(now - before).max() > 0
    assert np.allclose(now.mean(axis=(0, 2)), before.mean(axis=(0, 2)), atol=1e-5)


@pytest.mark.parametrize("network", NETWORKS)
def test_every_choice_of_every_layer_keeps_shapes_and_runs(network, tmp_path):
    graph = graph_of(NETWORKS[network](), tmp_path)
    calibration = Calibration(graph, images(graph.model, IMAGES))
    x = images(graph.model, 2, seed=11)
    before = run(graph.model, x)
    for layer, choices in applicable(graph).items():
        for choice in [name for name in choices[1:] if not is_masked(name)]:  # no layer can take a mask alone
            rewritten = apply(graph, {layer: choice}, calibration)
            shapes = {
                value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
                for value in (*rewritten.model.graph.value_info, *rewritten.model.graph.output)
            }
            for tensor in graph.layer(layer).outputs:
                assert tuple(shapes[tensor]) == graph.shapes[tensor]
            now = run(rewritten.model, x)
            assert now.shape == before.shape
            assert np.isfinite(now).all()
            assert not np.array_equal(now, before), (layer, choice)


def test_a_composition_is_its_parts_one_after_the_other(tmp_path):
    graph = graph_of(chain(), tmp_path)
    calibration = Calibration(graph, images(graph.model, IMAGES))
    single = apply(graph, {"conv2": "lowrank@0.5"}, calibration, refit=False)
    both = apply(graph, {"conv2": "lowrank@0.5+int8w"}, calibration, refit=False)
    whole, scale = quantise(arrays(single.model)["conv2.reduce.weight"])
    assert np.array_equal(arrays(both.model)["conv2.reduce.weight.int8"], whole)
    assert np.array_equal(arrays(both.model)["conv2.reduce.weight.scale"], scale)
    kinds = [node.op_type for node in both.model.graph.node if node.name in both.nodes["conv2"]]
    assert [kind for kind in kinds if kind != "DequantizeLinear"] == ["Conv", "Conv", "Relu"]
    assert kinds.count("DequantizeLinear") == 2
    assert both.parameter_bytes["conv2"] < 0.4 * single.parameter_bytes["conv2"]


def test_low_rank_leaves_at_most_its_share_of_the_work(tmp_path):
    graph = graph_of(chain(), tmp_path)
    calibration = Calibration(graph, images(graph.model, IMAGES))
    for layer in ("conv2", "conv3", "dense1"):
        linear = calibration.views[layer].linear
        for share in (0.5, 0.25):
            constants = arrays(apply(graph, {layer: f"lowrank@{share}"}, calibration, refit=False).model)
            thin = constants[f"{layer}.reduce.weight"].size + constants[f"{layer}.expand.weight"].size
            assert 0.5 * share * linear.weight.size < thin <= share * linear.weight.size


LAYERS = {
    "plain": {"pads": [1, 1, 1, 1]},
    "strided": {"strides": [2, 3], "pads": [0, 1, 2, 0]},
    "dilated": {"dilations": [2, 1]},
    "grouped": {"group": 2, "pads": [1, 0, 1, 0]},
}


@pytest.mark.parametrize("kind", LAYERS)
def test_rows_of_inputs_times_weights_are_what_the_convolution_computes(kind, tmp_path):
    b = Builder((1, 4, 9, 11))
    values = LAYERS[kind]
    x = b.conv("image", "conv", (6, 4 // values.get("group", 1), 3, 3), **values)
    x = b.add("GlobalAveragePool", [x], name="pool")
    graph = graph_of(b.model(b.add("Flatten", [x], name="flat")), tmp_path)
    x = images(graph.model, 3)
    node = graph.model.graph.node[0]
    linear = linear_of(node, arrays(graph.model))
    shape = graph.shapes["conv:0"]
    rows = output_rows(linear, x, sample(linear, shape, 3), shape)
    expected = run(inner(graph.model, "conv:0"), x).reshape(3, linear.groups, -1, shape[2] * shape[3])
    assert np.allclose(rows, expected.transpose(1, 0, 3, 2).reshape(rows.shape), atol=1e-5)
    assert exact(node, linear).nodes[0].SerializeToString() == node.SerializeToString()


def test_moments_are_means_over_all_rows_where_there_are_few():
    rng = np.random.default_rng(5)
    linear = Linear(weight=rng.normal(size=(2, 3)).astype(np.float32), bias=None)
    x = rng.normal(size=(40, 3)).astype(np.float32)
    found = moments(linear, x, targets=(x @ linear.weight.T)[None])
    assert np.allclose(found.covariance[0], np.cov(x.T, bias=True), atol=1e-5)
    assert np.allclose(found.mean[0], x.mean(axis=0), atol=1e-6)
    assert np.allclose(found.cross[0, :, :3], linear.weight @ found.gram[0, :3, :3], atol=1e-5)


def test_the_sample_of_positions_is_the_same_each_time_and_bounded():
    linear = Linear(weight=np.zeros((8, 64, 3, 3), np.float32), bias=None)
    first, again = (sample(linear, (1, 8, 32, 32), 512) for _ in range(2))
    assert np.array_equal(first, again)
    assert len(first) == len(set(first.tolist())) == 30_000
    assert first.max() < 512 * 32 * 32
    assert (np.bincount(first // 1024, minlength=512) > 0).all()

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import Builder, chain, images, residual, saved

from planner.activations.grids import Grid, rounded_weights, spanning, whole_weights
from planner.activations.ranges import METHODS, Histogram, grid_of
from planner.activations.tensor_grids import divergence, roots
from planner.calibration import Calibration
from planner.errors import InputError
from planner.graph import read


def tailed(seed=0, count=60_000):
    """Return values of a long tail, half of them nought as behind a Relu."""
    return np.maximum(np.random.default_rng(seed).standard_t(3, count), 0).astype(np.float32)


def error(values, grid):
    return float(np.square(grid.rounded(values) - values, dtype=np.float64).mean())


@settings(max_examples=60, deadline=None)
@given(
    least=st.floats(-100, 100, width=32), greatest=st.floats(-100, 100, width=32), levels=st.sampled_from([128, 256])
)
def test_a_grid_reaches_from_one_number_to_the_other_and_holds_nought(least, greatest, levels):
    least, greatest = min(least, greatest), max(least, greatest)
    grid = spanning(least, greatest, levels)
    assert grid.rounded(np.zeros(1, np.float32)) == 0
    assert grid.least <= min(least, 0) + 0.5001 * grid.scale
    assert grid.greatest >= max(greatest, 0) - 0.5001 * grid.scale
    assert (grid.greatest - grid.least) <= (max(greatest, 0) - min(least, 0)) * 1.001 + 1e-30


def test_what_is_no_grid_is_refused():
    with pytest.raises(InputError, match="zero 300 and 256 levels"):
        Grid(scale=1.0, zero=300, levels=256)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 1000), shape=st.sampled_from([(3, 40), (4, 5, 3, 3), (2, 1)]), power=st.integers(-10, 10))
def test_no_scale_of_weights_is_worse_than_that_of_the_greatest_weight(seed, shape, power):
    weight = (np.random.default_rng(seed).standard_t(2, shape) * 2.0**power).astype(np.float32)
    most = np.abs(weight.reshape(len(weight), -1)).max(axis=1).reshape(-1, *[1] * (weight.ndim - 1))
    plain = np.rint(weight / (most / 127)) * (most / 127)
    whole, scale = whole_weights(weight)
    assert whole.dtype == np.int8
    assert whole.min() >= -127
    assert scale.shape == (len(weight),)
    axes = tuple(range(1, weight.ndim))
    ours = np.square(rounded_weights(weight) - weight, dtype=np.float64).sum(axis=axes)
    assert (ours <= np.square(plain - weight, dtype=np.float64).sum(axis=axes) * (1 + 1e-3)).all()


def test_weights_that_are_all_nought_stay_so():
    whole, scale = whole_weights(np.zeros((2, 3), np.float32))
    assert not whole.any()
    assert (scale > 0).all()


@pytest.mark.parametrize("levels", [128, 256])
def test_the_least_squared_error_is_less_than_that_of_any_other_method(levels):
    values = tailed()
    histogram = Histogram.of(values)
    errors = {method: error(values, grid_of(histogram, levels, method)) for method in METHODS}
    assert errors["mse"] < errors["minmax"]
    assert all(errors["mse"] <= 1.02 * found for found in errors.values()), errors


def test_a_percentile_cuts_off_its_share():
    values = tailed()
    for method, share in (("percentile@99.9", 1e-3), ("percentile@99.99", 1e-4)):
        beyond = np.mean(values > grid_of(Histogram.of(values), 256, method).greatest)
        assert share / 4 < beyond < 2 * share


def test_divergence_ends_a_grid_before_values_that_are_rare():
    histogram = Histogram.of(np.append(tailed()[tailed() < 5], np.float32(500.0)))
    assert grid_of(histogram, 256, "kl").greatest < 100
    assert grid_of(histogram, 256, "minmax").greatest == pytest.approx(500, rel=1e-3)


@pytest.mark.parametrize("method", METHODS)
def test_values_that_do_not_differ_have_a_grid_too(method):
    for value in (0.0, 3.0, -2.0):
        values = np.full(100, value, np.float32)
        grid = grid_of(Histogram.of(values), 256, method)
        assert np.allclose(grid.rounded(values), values, atol=1e-2)


@pytest.mark.parametrize("values", [np.zeros(0, np.float32), np.array([1.0, np.nan], np.float32)])
def test_values_that_cannot_be_counted_are_refused(values):
    with pytest.raises(InputError, match="expected some, and all of them finite"):
        Histogram.of(values)


def test_an_unknown_method_is_refused_with_those_there_are(tmp_path):
    graph = read(saved(chain(), tmp_path))
    with pytest.raises(InputError, match="unknown calibration method 'median'; there are: best, minmax"):
        Calibration(graph, images(graph.model, 4), method="median")


def test_validation_images_of_another_shape_are_refused(tmp_path):
    graph = read(saved(chain(), tmp_path))
    x = images(graph.model, 4)
    with pytest.raises(InputError, match=r"model 'small': validation images are float32 of shape \(4, .*, 5\)"):
        Calibration(graph, x, validation=x[..., :5])


def test_the_method_is_that_of_the_nearest_logits_or_the_least_error_without_images_to_ask(tmp_path):
    graph = read(saved(chain(), tmp_path))
    x = images(graph.model, 48)
    judged = Calibration(graph, x, validation=images(graph.model, 64, seed=3))
    found = {method: judged.grids.judge("int8", method) for method in METHODS}
    assert found[judged.grids.chosen("int8")] == min(found.values())
    assert max(found.values()) > 1.5 * min(found.values()) > 0
    assert Calibration(graph, x).grids.chosen("int8") == "mse"
    assert Calibration(graph, x, method="minmax").grids.chosen("int8") == "minmax"
    with pytest.raises(InputError, match="no validation images"):
        Calibration(graph, x).grids.judge("int8", "mse")


def test_fewer_bits_take_logits_farther_away(tmp_path):
    graph = read(saved(residual(), tmp_path))
    calibration = Calibration(graph, images(graph.model, 48), validation=images(graph.model, 64, seed=3))
    assert calibration.grids.judge("uint7", "mse") > 1.5 * calibration.grids.judge("int8", "mse")


def test_a_layer_that_only_picks_values_shares_the_grid_of_what_it_reads(tmp_path):
    b = Builder((1, 3, 12, 12))
    x = b.add("Relu", [b.conv("image", "conv", (16, 3, 3, 3))], name="relu")
    x = b.add("MaxPool", [x], name="pool", kernel_shape=[2, 2], strides=[2, 2])
    y = b.add("Relu", [b.conv(x, "behind", (16, 16, 3, 3))], name="relu2")
    y = b.add("AveragePool", [y], name="mean", kernel_shape=[3, 3])
    graph = read(saved(b.model(b.dense(b.add("Flatten", [y], name="flat"), "fc", 5, 16)), tmp_path))
    tensors = {layer.name: layer.outputs[0] for layer in graph.layers}
    found = roots(graph)
    assert found[tensors["pool"]] == tensors["conv"]
    assert found[tensors["mean"]] == tensors["mean"]
    calibration = Calibration(graph, images(graph.model, 16))
    assert calibration.grid(tensors["pool"], "int8") == calibration.grid(tensors["conv"], "int8")
    assert calibration.grid(tensors["mean"], "int8") != calibration.grid(tensors["behind"], "int8")


def test_divergence_is_nought_of_the_same_answers_and_grows_with_the_distance():
    logits = np.random.default_rng(0).normal(size=(20, 5)).astype(np.float32)
    noise = np.random.default_rng(1).normal(size=(20, 5)).astype(np.float32)
    assert divergence(logits + 3, logits) == pytest.approx(0, abs=1e-9)
    assert 0 < divergence(logits + 0.1 * noise, logits) < divergence(logits + 0.5 * noise, logits)

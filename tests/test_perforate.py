from __future__ import annotations

import networks
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from planner.approximations import perforate
from planner.calibration import Calibration
from planner.graph import read
from planner.rewrite import apply, offers

STEPS = {"rows": (2, 1), "cols": (1, 2), "both": (2, 2), "thirds": (3, 1)}


def graph_of(height: int, width: int, folder, inputs: int = 4, **values):
    b = networks.Builder((1, inputs, height, width))
    x = b.conv("image", "conv", (6, inputs // values.get("group", 1), 3, 3), **values)
    x = b.add("GlobalAveragePool", [b.add("Relu", [x], name="relu")], name="pool")
    return read(networks.saved(b.model(b.add("Flatten", [x], name="flat")), folder))


def inner(model: onnx.ModelProto, tensor: str) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    copy.graph.output[0].name = tensor
    copy.graph.output[0].type.tensor_type.ClearField("shape")
    return copy


def with_weights_of(exact: onnx.ModelProto, other: onnx.ModelProto) -> onnx.ModelProto:
    """The exact network's operators with the weights that another network has under the same names."""
    copy = onnx.ModelProto()
    copy.CopyFrom(exact)
    found = {item.name: item for item in other.graph.initializer}
    for index, item in enumerate(copy.graph.initializer):
        copy.graph.initializer[index].CopyFrom(found.get(item.name, item))
    return copy


def expected(full: np.ndarray, step: int, phase: int, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Interpolate a map along an axis from every so-manieth row, and say which rows that is certain of."""
    length = full.shape[axis]
    computed = np.arange(phase, length, step)
    moved = np.moveaxis(full, axis, 0).astype(np.float64)
    columns = moved[computed].reshape(len(computed), -1).T
    made = np.stack([np.interp(np.arange(length), computed, column) for column in columns])
    made = made.T.reshape(length, *moved.shape[1:])
    return np.moveaxis(made, 0, axis), np.arange(phase, length)


@pytest.mark.parametrize("kind", [kind for kind in networks.CONVOLUTIONS if kind != "depthwise"])
@pytest.mark.parametrize("choice", perforate.CHOICES)
def test_the_grid_is_computed_and_the_rest_interpolated(kind: str, choice: str, tmp_path) -> None:
    values = networks.CONVOLUTIONS[kind]
    graph = graph_of(14, 17, tmp_path, inputs=8, **values)
    images = networks.images(graph.model, 24)
    model = apply(graph, {"conv": choice}, images).model
    onnx.checker.check_model(model, full_check=True)
    shape = graph.shapes["conv:0"]
    now = networks.run(inner(model, "conv:0"), images).reshape(24, *shape[1:])
    full = networks.run(inner(with_weights_of(graph.model, model), "conv:0"), images).reshape(24, *shape[1:])
    name = choice.partition("@")[2]
    phase = int(name[-1]) if name[-1].isdigit() else 0
    places = [np.arange(length) for length in shape[2:]]
    for axis, step in zip((2, 3), STEPS[name.rstrip("012")], strict=True):
        if step > 1:
            full, places[axis - 2] = expected(full, step, phase, axis)
    inside = np.ix_(range(24), range(shape[1]), *places)
    np.testing.assert_allclose(now[inside], full[inside], atol=1e-4)


@pytest.mark.parametrize("height", [4, 5, 6, 7, 8, 28, 29])
@pytest.mark.parametrize("choice", ["perforate@rows", "perforate@thirds", "perforate@rows1", "perforate@thirds2"])
def test_heights_of_any_kind_are_kept(height: int, choice: str, tmp_path) -> None:
    graph = graph_of(height, 5, tmp_path, pads=[1, 1, 1, 1])
    images = networks.images(graph.model, 6)
    model = apply(graph, {"conv": choice}, images).model
    assert networks.run(inner(model, "conv:0"), images).shape == (6, 6 * height * 5)


def test_filters_are_fitted_to_the_map_that_is_interpolated(tmp_path) -> None:
    graph = graph_of(16, 16, tmp_path, pads=[1, 1, 1, 1])
    images = networks.images(graph.model, 64)
    model = apply(graph, {"conv": "perforate@both"}, Calibration(graph, images)).model
    copy = with_weights_of(model, graph.model)
    exact, fitted, plain = (
        networks.run(inner(item, "relu:0"), networks.images(graph.model, 64, seed=8))
        for item in (graph.model, model, copy)
    )
    assert np.square(fitted - exact).mean() < 0.9 * np.square(plain - exact).mean()


def test_only_the_grid_costs_products(tmp_path) -> None:
    graph = graph_of(16, 16, tmp_path, pads=[1, 1, 1, 1])
    for choice, rows, columns in (
        ("rows", 8, 16),
        ("cols", 16, 8),
        ("both", 8, 8),
        ("thirds", 6, 16),
        ("rows1", 9, 16),
    ):
        model = apply(graph, {"conv": f"perforate@{choice}"}, networks.images(graph.model, 4)).model
        shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in model.graph.value_info}
        assert shapes["conv.grid"] == [1, 6, rows, columns]


def test_layers_that_gain_nothing_are_refused_with_the_reason(tmp_path) -> None:
    found = offers(read(networks.saved(networks.chain(height=6), tmp_path)))
    assert found["conv2"]["perforate"].choices == perforate.CHOICES
    assert "at least 4 are needed" in found["conv3"]["perforate"].reason or found["conv3"]["perforate"].choices
    assert "no 2-D convolution" in found["dense1"]["perforate"].reason
    assert "27 products" in found["conv1"]["perforate"].reason
    small = offers(graph_of(3, 3, tmp_path, pads=[1, 1, 1, 1]))["conv"]["perforate"]
    assert small.reason == "its output has 3 rows and 3 columns; at least 4 are needed"
    thin = offers(graph_of(3, 9, tmp_path, pads=[1, 1, 1, 1]))["conv"]["perforate"]
    assert thin.choices == ("perforate@cols", "perforate@cols1")


def test_weights_stored_under_a_perforation_are_the_fitted_ones(tmp_path) -> None:
    graph = graph_of(12, 12, tmp_path, pads=[1, 1, 1, 1])
    images = networks.images(graph.model, 16)
    single = apply(graph, {"conv": "perforate@rows"}, images).model
    both = apply(graph, {"conv": "perforate@rows+int8w"}, images).model
    constants = {item.name: numpy_helper.to_array(item) for item in both.graph.initializer}
    weight = next(numpy_helper.to_array(item) for item in single.graph.initializer if item.name == "conv.w")
    scale = constants["conv.w.scale"].reshape(-1, 1, 1, 1)
    assert np.abs(constants["conv.w.int8"] * scale - weight).max() <= 0.51 * scale.max()

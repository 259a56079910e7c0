from __future__ import annotations

import networks
import numpy as np
import pytest
from onnx import numpy_helper

from planner.approximations import sample
from planner.calibration import Calibration
from planner.graph import read
from planner.rewrite import apply, offers


def graph_of(folder, size: int = 3, weight: np.ndarray | None = None, **values):
    b = networks.Builder((1, 2, 13, 12))
    x = b.add("Relu", [b.conv("image", "stem", (8, 2, 3, 3), pads=[1, 1, 1, 1])], name="stem_relu")
    x = b.conv(x, "conv", (8, 8 // values.get("group", 1), size, size), **values)
    x = b.add("GlobalAveragePool", [b.add("Relu", [x], name="relu")], name="pool")
    model = b.model(b.add("Flatten", [x], name="flat"))
    for index, item in enumerate(model.graph.initializer):
        if weight is not None and item.name == "conv.w":
            model.graph.initializer[index].CopyFrom(numpy_helper.from_array(weight, "conv.w"))
    return read(networks.saved(model, folder))


def node_of(model):
    (node,) = [item for item in model.graph.node if item.name == "conv.sampled"]
    return {item.name: list(item.ints) for item in node.attribute if item.ints}


@pytest.mark.parametrize("kind", networks.CONVOLUTIONS)
@pytest.mark.parametrize("share", [0.67, 0.5, 0.34])
def test_what_is_kept_is_no_more_than_the_share_and_the_output_keeps_its_size(
    kind: str, share: float, tmp_path
) -> None:
    graph = graph_of(tmp_path, **networks.CONVOLUTIONS[kind])
    images = networks.images(graph.model, 12)
    if f"sample@{share}" not in offers(graph)["conv"]["sample"].choices:
        pytest.skip("another share keeps as many elements")
    model = apply(graph, {"conv": f"sample@{share}"}, images).model
    height, width = node_of(model)["kernel_shape"]
    assert 0 < height * width <= share * 9
    shapes = {v.name: tuple(d.dim_value for d in v.type.tensor_type.shape.dim) for v in model.graph.value_info}
    assert shapes["conv:0"] == graph.shapes["conv:0"]
    assert np.isfinite(networks.run(model, images)).all()


@pytest.mark.parametrize("rows", [(0, 1), (1, 2), (0, 2)])
def test_filters_that_have_no_more_than_what_is_kept_lose_nothing(rows: tuple[int, int], tmp_path) -> None:
    weight = np.zeros((8, 8, 3, 3), np.float32)
    weight[:, :, rows] = np.random.default_rng(3).normal(size=(8, 8, 2, 3)) / 5
    graph = graph_of(tmp_path, weight=weight, pads=[1, 1, 1, 1])
    images = networks.images(graph.model, 32)
    model = apply(graph, {"conv": "sample@0.67"}, images, refit=False).model
    assert node_of(model)["kernel_shape"] == [2, 3]
    assert node_of(model)["dilations"] == [rows[1] - rows[0], 1]
    np.testing.assert_allclose(networks.run(model, images), networks.run(graph.model, images), atol=2e-3)


def test_fitted_weights_do_better_than_those_that_were_there(tmp_path) -> None:
    graph = graph_of(tmp_path, pads=[1, 1, 1, 1])
    calibration = Calibration(graph, networks.images(graph.model, 64))
    fitted = apply(graph, {"conv": "sample@0.67"}, calibration, refit=False).model
    kept = node_of(fitted)
    plain = type(fitted)()
    plain.CopyFrom(fitted)
    (height, width), (down, across), pads = kept["kernel_shape"], kept["dilations"], kept["pads"]
    first = (1 - pads[0], 1 - pads[1])
    full = calibration.views["conv"].linear.weight
    part = full[:, :, first[0] :: down, first[1] :: across][:, :, :height, :width]
    for index, item in enumerate(plain.graph.initializer):
        if item.name == "conv.w":
            plain.graph.initializer[index].CopyFrom(numpy_helper.from_array(np.ascontiguousarray(part), "conv.w"))
    unseen = networks.images(graph.model, 64, seed=9)
    exact, ours, theirs = (networks.run(item, unseen) for item in (graph.model, fitted, plain))
    assert np.square(ours - exact).mean() < 0.25 * np.square(theirs - exact).mean()


def test_depthwise_filters_are_kept_without_gaps(tmp_path) -> None:
    view = Calibration(
        graph_of(tmp_path, **networks.CONVOLUTIONS["depthwise"]), np.zeros((1, 2, 13, 12), np.float32)
    ).views["conv"]
    assert all(rows.distance == columns.distance == 1 for rows, columns in sample.keeps(view, 0.67))


def test_layers_without_a_smaller_part_are_refused_with_the_reason(tmp_path) -> None:
    found = offers(graph_of(tmp_path, size=1))
    assert "a single element" in found["conv"]["sample"].reason
    assert "first convolution" in found["stem"]["sample"].reason
    assert "no filters of rows and columns" in found["pool"]["sample"].reason

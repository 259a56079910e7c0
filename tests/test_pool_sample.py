from __future__ import annotations

import networks
import numpy as np
import pytest

from planner.approximations import pool_sample
from planner.graph import read
from planner.rewrite import apply, offers

POOLS = {
    "average": ("AveragePool", {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}),
    "uneven": ("AveragePool", {"kernel_shape": [5, 3], "strides": [2, 1], "pads": [2, 0, 1, 1]}),
    "counting": ("AveragePool", {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1}),
    "global": ("GlobalAveragePool", {}),
    "mean": ("ReduceMean", {"axes": [2, 3], "keepdims": 1}),
    "flat mean": ("ReduceMean", {"axes": [-2, -1], "keepdims": 0}),
}


def graph_of(op: str, folder, **values):
    b = networks.Builder((1, 2, 11, 10))
    x = b.add("Relu", [b.conv("image", "stem", (6, 2, 3, 3), pads=[1, 1, 1, 1])], name="stem_relu")
    x = b.add(op, [x], name="pool", **values)
    x = b.add("Flatten", [x], name="flat")
    size = 6 * networks.run(b.model(x), np.zeros((1, 2, 11, 10), np.float32)).size // 6
    return read(networks.saved(b.model(b.dense(x, "fc", networks.CLASSES, size)), folder))


@pytest.mark.parametrize("choice", pool_sample.CHOICES)
@pytest.mark.parametrize("kind", POOLS)
def test_the_mean_of_every_channel_stays_as_it_was(kind: str, choice: str, tmp_path) -> None:
    op, values = POOLS[kind]
    graph = graph_of(op, tmp_path, **values)
    images = networks.images(graph.model, 64)
    model = apply(graph, {"pool": choice}, images, refit=False).model
    copies = []
    for item in (model, graph.model):
        copy = type(item)()
        copy.CopyFrom(item)
        copy.graph.output[0].name = "pool:0"
        copy.graph.output[0].type.tensor_type.ClearField("shape")
        copies.append(networks.run(copy, images).reshape(64, 6, -1))
    now, before = copies
    assert now.shape == before.shape
    np.testing.assert_allclose(now.mean(axis=(0, 2)), before.mean(axis=(0, 2)), atol=1e-5)
    assert 0 < np.square(now - before).mean() < np.square(before - before.mean(axis=(0, 2), keepdims=True)).mean()


@pytest.mark.parametrize(("choice", "places"), [("pool_sample@0.5", 60), ("pool_sample@0.25", 30)])
def test_a_part_of_the_window_is_read(choice: str, places: int, tmp_path) -> None:
    graph = graph_of("GlobalAveragePool", tmp_path)
    model = apply(graph, {"pool": choice}, networks.images(graph.model, 4)).model
    (node,) = [item for item in model.graph.node if item.op_type == "AveragePool"]
    attributes = {item.name: list(item.ints) for item in node.attribute}
    assert np.prod(attributes["kernel_shape"]) == places
    assert attributes["dilations"] == [2, 2 if places == 30 else 1]


def test_what_is_no_mean_is_refused_with_the_reason(tmp_path) -> None:
    for op, values, reason in (
        ("MaxPool", {"kernel_shape": [3, 3]}, "too small, and by how much depends on the image"),
        ("AveragePool", {"kernel_shape": [2, 2]}, "2x2 places; leaving some out pays from 9 on"),
        ("ReduceMean", {"axes": [1], "keepdims": 1}, "no mean over rows and columns"),
        ("LpPool", {"kernel_shape": [3, 3]}, "LpPool is no mean over a window"),
    ):
        assert reason in offers(graph_of(op, tmp_path, **values))["pool"]["pool_sample"].reason
    assert "Gemm is no mean" in offers(graph_of("GlobalAveragePool", tmp_path))["fc"]["pool_sample"].reason


def test_a_channel_that_is_always_the_same_stays_the_same(tmp_path) -> None:
    graph = graph_of("GlobalAveragePool", tmp_path)
    images = np.zeros((8, 2, 11, 10), np.float32)
    model = apply(graph, {"pool": "pool_sample@0.25"}, images, refit=False).model
    np.testing.assert_allclose(networks.run(model, images), networks.run(graph.model, images), atol=1e-4)

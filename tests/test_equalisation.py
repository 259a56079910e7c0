from __future__ import annotations

import numpy as np
import pytest
from networks import NETWORKS, Builder, chain, images, residual, run, saved

from planner.activations.equalisation import classes, equalised
from planner.calibration import Calibration
from planner.graph import read
from planner.rewrite import apply


def uneven_depthwise():
    """Depthwise and pointwise convolutions whose channels differ by up to 2^8, as batch normalisation leaves them."""
    b = Builder((1, 3, 12, 12), seed=4)
    x = b.add("Relu", [b.conv("image", "stem", (16, 3, 3, 3), pads=[1, 1, 1, 1])], name="r0")
    x = b.add("Relu", [b.conv(x, "depthwise", (16, 1, 3, 3), pads=[1, 1, 1, 1], group=16)], name="r1")
    x = b.add("Relu", [b.conv(x, "pointwise", (16, 16, 1, 1))], name="r2")
    x = b.add("GlobalAveragePool", [x], name="pool")
    model = b.model(b.dense(b.add("Flatten", [x], name="flat"), "fc", 5, 16))
    weights = {item.name: item for item in model.graph.initializer}
    rng = np.random.default_rng(9)
    for producer, consumer in (("stem", "depthwise"), ("depthwise", "pointwise"), ("pointwise", "fc")):
        factors = 2.0 ** rng.uniform(-4, 4, 16)
        for name, scale in ((f"{producer}.w", factors), (f"{producer}.b", factors), (f"{consumer}.w", 1 / factors)):
            array = np.frombuffer(weights[name].raw_data, np.float32).reshape(weights[name].dims)
            axis = 1 if name == f"{consumer}.w" and consumer != "depthwise" else 0
            shape = [1] * array.ndim
            shape[axis] = -1
            weights[name].raw_data = (array * scale.reshape(shape)).astype(np.float32).tobytes()
    return model


def equal_parts(graph, count=32):
    calibration = Calibration(graph, images(graph.model, count))
    return calibration, equalised(graph, calibration.views, calibration.arrays, calibration.exact)


@pytest.mark.parametrize("network", [*NETWORKS, "uneven"])
def test_an_equalised_network_computes_the_same_to_the_last_bit(network, tmp_path):
    model = uneven_depthwise() if network == "uneven" else NETWORKS[network]()
    graph = read(saved(model, tmp_path))
    calibration, arrays = equal_parts(graph)
    twin = Calibration(graph, calibration.images, arrays=arrays)
    changed = [name for name in arrays if not np.array_equal(arrays[name], calibration.arrays[name])]
    assert changed
    for name in changed:
        ratio = np.abs(
            arrays[name][calibration.arrays[name] != 0] / calibration.arrays[name][calibration.arrays[name] != 0]
        )
        assert np.array_equal(np.log2(ratio), np.rint(np.log2(ratio)))
    output = graph.output_name
    assert np.array_equal(twin.exact(output), calibration.exact(output))


def test_sums_of_layers_and_what_follows_other_operators_are_left_alone(tmp_path):
    graph = read(saved(residual(), tmp_path))
    found = classes(graph, Calibration(graph, images(graph.model, 2)).views)
    assert [(group.producer, group.consumers) for group in found] == [
        ("stem", ("a", "shortcut")),
        ("a", ("b",)),
        ("depthwise", ("fc",)),
    ]
    graph = read(saved(NETWORKS["branches"](), tmp_path))
    assert [group.producer for group in classes(graph, Calibration(graph, images(graph.model, 2)).views)] == ["stem"]


def test_channels_that_were_flattened_keep_a_factor_for_all_their_places(tmp_path):
    graph = read(saved(chain(), tmp_path))
    found = {group.producer: group for group in classes(graph, Calibration(graph, images(graph.model, 2)).views)}
    assert found["conv3"].consumers == ("dense1",)
    assert found["conv3"].channels == 20 < graph.shapes[graph.layer("conv3").outputs[0]][1]


def test_weights_that_two_layers_share_are_left_alone(tmp_path):
    b = Builder((1, 4, 8, 8))
    x = b.add("Relu", [b.conv("image", "one", (4, 4, 3, 3), bias=False)], name="r1")
    x = b.add("Conv", [x, "one.w"], name="two", kernel_shape=[3, 3])
    x = b.add("GlobalAveragePool", [x], name="pool")
    graph = read(saved(b.model(b.dense(b.add("Flatten", [x], name="flat"), "fc", 5, 4)), tmp_path))
    (second,) = [node for node in graph.model.graph.node if node.name == "two"]
    second.input[1] = "one.w"  # reading gives each its own
    assert not classes(graph, Calibration(graph, images(graph.model, 2)).views)


def test_uneven_depthwise_channels_gain_by_it_and_are_equalised_on_validation_images(tmp_path):
    graph = read(saved(uneven_depthwise(), tmp_path))
    x, check = images(graph.model, 64), images(graph.model, 64, seed=5)
    plain = Calibration(graph, x, validation=check, method="mse", equalise=False)
    chosen = Calibration(graph, x, validation=check, method="mse")
    everywhere = dict.fromkeys((layer.name for layer in graph.layers), "int8")
    errors = {}
    exact = run(graph.model, check)
    for name, calibration in (("plain", plain), ("chosen", chosen)):
        rewritten = apply(graph, everywhere, calibration)
        errors[name] = float(np.square(run(rewritten.model, check) - exact).mean())
        assert rewritten.activations == ("mse, equalised" if name == "chosen" else "mse")
    assert errors["chosen"] < 0.3 * errors["plain"]


def test_a_network_of_float32_is_never_equalised(tmp_path):
    graph = read(saved(uneven_depthwise(), tmp_path))
    rewritten = apply(graph, {"stem": "int8w"}, Calibration(graph, images(graph.model, 8), equalise=True), refit=False)
    before = {item.name: item for item in graph.model.graph.initializer}
    after = {item.name: item for item in rewritten.model.graph.initializer}
    assert rewritten.activations == ""
    assert after["pointwise.w"].raw_data == before["pointwise.w"].raw_data

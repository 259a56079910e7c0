"""Every change of structure, everywhere at once in one network: valid ONNX, and an artefact that computes it."""

from __future__ import annotations

import networks
import numpy as np
import onnx
import pytest

from planner.artefact import Artefact
from planner.batching import batchable
from planner.calibration import Calibration
from planner.choices import modules
from planner.compiler import compile_networks, host_target
from planner.graph import read
from planner.rewrite import apply, offers
from planner.segments import Entry

CHOICES = [choice for item in modules().values() if item.KIND == "structure" for choice in item.CHOICES]
BUILT = [
    *("lowrank@0.5", "spatial@0.5", "sample@0.67", "sample@0.34", "pool_sample@0.25"),
    *("perforate@rows", "perforate@both1", "perforate@thirds"),
]


def network() -> onnx.ModelProto:
    """Convolutions of every kind: plain, with a stride, depthwise, in groups; a sum, two means and a product."""
    b = networks.Builder((1, 3, 17, 18), seed=8)
    x = b.add("Relu", [b.conv("image", "stem", (16, 3, 3, 3), pads=[1, 1, 1, 1])], name="stem_relu")
    y = b.add("Relu", [b.conv(x, "wide", (48, 16, 3, 3), pads=[1, 1, 1, 1], strides=[2, 2])], name="wide_relu")
    z = b.conv(y, "same", (48, 48, 3, 3), pads=[1, 1, 1, 1])
    x = b.add("Relu", [b.add("Add", [z, y], name="sum")], name="sum_relu")
    x = b.add("AveragePool", [x], name="mean", kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[1, 1])
    x = b.add("Clip", [x, b.constant(np.float32(0), "low"), b.constant(np.float32(6), "high")], name="clipped")
    x = b.add("Relu", [b.conv(x, "depthwise", (48, 1, 5, 5), pads=[2, 2, 2, 2], group=48)], name="depthwise_relu")
    x = b.add("Relu", [b.conv(x, "grouped", (48, 24, 3, 3), pads=[1, 1, 1, 1], group=2)], name="grouped_relu")
    x = b.add("Relu", [b.conv(x, "pointwise", (64, 48, 1, 1))], name="pointwise_relu")
    x = b.add("Flatten", [b.add("GlobalAveragePool", [x], name="pool")], name="flat")
    x = b.add("Relu", [b.dense(x, "hidden", 64, 64)], name="hidden_relu")
    return b.model(b.dense(x, "fc", networks.CLASSES, 64))


@pytest.fixture(scope="module")
def calibration(tmp_path_factory: pytest.TempPathFactory) -> Calibration:
    graph = read(networks.saved(network(), tmp_path_factory.mktemp("structure")))
    return Calibration(graph, networks.images(graph.model, 24))


def everywhere(calibration: Calibration, choice: str) -> dict[str, str]:
    module = choice.partition("@")[0]
    found = offers(calibration.graph)
    return {layer: choice for layer, by_name in found.items() if choice in by_name[module].choices}


@pytest.mark.parametrize("choice", CHOICES)
def test_a_changed_structure_is_valid_and_runs_on_batches(choice: str, calibration: Calibration) -> None:
    graph, chosen = calibration.graph, everywhere(calibration, choice)
    assert chosen
    model = apply(graph, chosen, calibration).model
    onnx.checker.check_model(model, full_check=True)
    shapes = {
        value.name: tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
        for value in (*model.graph.input, *model.graph.value_info, *model.graph.output)
    }
    shapes |= {item.name: tuple(item.dims) for item in model.graph.initializer}
    assert batchable(model, shapes)
    for layer in graph.layers:
        assert all(shapes[tensor] == graph.shapes[tensor] for tensor in layer.outputs)
    now, before = (networks.run(item, calibration.images[:4]) for item in (model, graph.model))
    assert np.isfinite(now).all()
    assert not np.array_equal(now, before)


@pytest.mark.parametrize("choice", BUILT)
def test_what_is_built_computes_the_changed_structure(choice: str, calibration: Calibration) -> None:
    rewritten = apply(calibration.graph, everywhere(calibration, choice), calibration)
    entry = Entry(name="net", model=rewritten.model, nodes=rewritten.nodes)
    built = Artefact(compile_networks([entry], host_target()).executable)
    images = networks.images(calibration.graph.model, 3, seed=2)
    np.testing.assert_allclose(built.run("net", images), networks.run(rewritten.model, images), rtol=1e-4, atol=1e-4)


def test_a_structure_reaches_every_kind_of_layer_that_can_bear_it(calibration: Calibration) -> None:
    convolutions = {"wide", "same", "depthwise", "grouped"}
    assert set(everywhere(calibration, "lowrank@0.5")) == {"wide", "same", "pointwise", "hidden"}
    assert set(everywhere(calibration, "spatial@0.5")) == {"wide", "same"}
    assert set(everywhere(calibration, "sample@0.67")) == convolutions
    assert set(everywhere(calibration, "perforate@rows")) == {"wide", "same", "grouped", "pointwise"}
    assert set(everywhere(calibration, "pool_sample@0.25")) == {"mean", "pool"}


@pytest.mark.parametrize("choice", ["lowrank", "spatial"])
def test_a_rank_that_nothing_is_lost_by_gives_the_exact_network(
    choice: str, calibration: Calibration, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = modules()[choice]
    full = 48 if choice == "lowrank" else 144
    monkeypatch.setattr(module, "rank_of", lambda *_: full)
    model = apply(calibration.graph, {"same": f"{choice}@0.5"}, calibration, refit=False).model
    images = networks.images(calibration.graph.model, 8, seed=5)
    np.testing.assert_allclose(networks.run(model, images), networks.run(calibration.graph.model, images), atol=1e-5)

from __future__ import annotations

from itertools import pairwise

import numpy as np
import onnx
import pytest
from networks import CLASSES, NETWORKS, Builder, chain, images, residual, run, saved
from onnx import numpy_helper

from planner.accuracy import Evaluator
from planner.approximations.prune import kept, removals, without
from planner.artefact import Artefact
from planner.batching import batchable
from planner.calibration import Calibration
from planner.choices import parsed
from planner.compiler import compile_networks, host_target
from planner.draft import attributes
from planner.errors import InputError
from planner.graph import read
from planner.linear import Linear, moments
from planner.masks.choices import everywhere, with_masks
from planner.masks.classes import masks_of
from planner.masks.pruned import Pruned, pruned
from planner.rewrite import apply
from planner.segments import Entry

IMAGES = 96


@pytest.fixture(params=NETWORKS)
def graph(request, tmp_path):
    return read(saved(NETWORKS[request.param](), tmp_path))


@pytest.fixture
def small(tmp_path):
    return read(saved(chain(), tmp_path))


def calibration_of(graph, count=IMAGES):
    return Calibration(graph, images(graph.model, count))


def named(graph, name):
    return next(item for item in masks_of(graph).classes if item.name == name)


def arrays(model):
    return {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}


def doubled(seed=0):
    """A chain whose second half of each map's channels is a linear function of the first: half is enough."""
    b = Builder((1, 2, 8, 8), seed=seed)
    x = b.conv("image", "first", (12, 2, 3, 3), pads=[1, 1, 1, 1])
    first = numpy_helper.to_array(b.constants[0]).copy()
    first[6:] = np.einsum("ab,bcde->acde", b.rng.normal(size=(6, 6)).astype(np.float32), first[:6])
    b.constants[0].CopyFrom(numpy_helper.from_array(first, "first.w"))
    x = b.add("AveragePool", [x], name="pool", kernel_shape=[2, 2], strides=[2, 2])
    x = b.conv(x, "second", (8, 12, 3, 3), pads=[1, 1, 1, 1])
    x = b.add("Flatten", [b.add("GlobalAveragePool", [x], name="mean")], name="flat")
    return b.model(b.dense(x, "fc", CLASSES, 8))


def test_channels_that_others_replace_go_without_a_trace(tmp_path):
    graph = read(saved(doubled(), tmp_path))
    x = images(graph.model, 256)
    for refit in (False, True):
        model = apply(graph, with_masks(graph, {"first": "0.5"}), x, refit=refit).model
        unseen = images(graph.model, 16, seed=5)
        before, after = run(graph.model, unseen), run(model, unseen)
        assert np.abs(after - before).max() < 0.02 * np.abs(before).max()


def test_channels_that_are_always_the_same_go_and_nothing_changes(graph, tmp_path):
    model, rng = graph.model, np.random.default_rng(6)
    constants = {item.name: item for item in model.graph.initializer}
    nodes = {node.name: node for node in model.graph.node}
    still = {}
    for found in masks_of(graph).prunable:
        halves = zip(found.families, found.counts("0.5"), strict=True)
        gone = [rng.choice(family, len(family) - count, replace=False) for family, count in halves]
        still[found.name] = np.sort(np.concatenate(gone))
        for layer in found.producers:
            rows = np.isin(found.places[nodes[layer].output[0]], still[found.name])
            for name in nodes[layer].input[1:]:
                array = numpy_helper.to_array(constants[name]).copy()
                array[rows] = 0
                constants[name].CopyFrom(numpy_helper.from_array(array, name))
    graph = read(saved(model, tmp_path, "still"))
    calibration = calibration_of(graph, 256)
    for found in masks_of(graph).prunable:
        left = np.setdiff1d(np.arange(found.channels), still[found.name])
        assert np.array_equal(kept(calibration, found, "0.5"), left)
    x = images(graph.model, 8, seed=12)
    for refit in (False, True):
        model = apply(graph, everywhere(graph, "0.5"), calibration, refit=refit).model
        assert np.allclose(run(model, x), run(graph.model, x), atol=2e-3)


def test_all_channels_kept_are_the_exact_network_to_the_bit(graph):
    calibration = calibration_of(graph, 8)
    whole = {layer.name: "exact:1>1" for layer in graph.layers}
    x = images(graph.model, 4)
    assert np.array_equal(run(apply(graph, whole, calibration).model, x), run(graph.model, x))


def test_weights_without_inputs_that_say_nothing_are_the_others():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 10)).astype(np.float32)
    weight = rng.normal(size=(4, 10)).astype(np.float32)
    weight[:, 7:] = 0
    linear = Linear(weight=weight, bias=rng.normal(size=4).astype(np.float32))
    fewer = without(linear, moments(linear, x), np.arange(7))
    assert np.allclose(fewer.weight, weight[:, :7], atol=1e-6)
    assert np.allclose(fewer.bias, linear.bias, atol=1e-6)


def test_weights_of_fewer_inputs_are_those_of_least_squares():
    rng = np.random.default_rng(1)
    x = (rng.normal(size=(4000, 6)) @ rng.normal(size=(6, 9)) + 0.1 * rng.normal(size=(4000, 9)) + 1).astype(np.float32)
    linear = Linear(weight=rng.normal(size=(5, 9)).astype(np.float32), bias=rng.normal(size=5).astype(np.float32))
    columns = np.array([0, 1, 3, 4, 6, 8])
    fewer = without(linear, moments(linear, x), columns)
    wanted = x @ linear.weight.T + linear.bias
    best = np.linalg.lstsq(np.concatenate([x[:, columns], np.ones((4000, 1))], axis=1), wanted, rcond=None)[0]

    def error(weight, bias):
        return np.square(x[:, columns] @ weight + bias - wanted).mean()

    assert error(fewer.weight.T, fewer.bias) < 1.1 * error(best[:-1], best[-1])
    assert error(linear.weight[:, columns].T, linear.bias) > 2 * error(best[:-1], best[-1])


def test_the_first_channel_to_go_is_the_one_that_least_squares_misses_least(small):
    calibration = calibration_of(small)
    found = named(small, "conv2")
    linear, view = calibration.views["conv3"].linear, calibration.views["conv3"]
    known = calibration.moments("conv3")
    assert view.output_shape[1] == 20
    full = np.concatenate([linear.matrix, linear.bias[:, None]], axis=1).astype(np.float64)

    def error(gone):
        columns = np.delete(np.arange(144), np.arange(9 * gone, 9 * gone + 9))
        fewer = without(linear, known, columns)
        new = np.zeros_like(full)
        new[:, columns], new[:, -1] = fewer.matrix, fewer.bias
        change = new - full
        return ((change @ known.gram[0]) * change).sum()

    assert removals(calibration, found)[0] == np.argmin([error(channel) for channel in range(16)])


def test_fewer_channels_are_always_among_more_and_the_same_each_time(graph):
    first, again = calibration_of(graph), calibration_of(graph)
    for found in masks_of(graph).prunable:
        sets = [set(kept(first, found, share).tolist()) for share in ("0.25", "0.5", "0.75")]
        assert all(fewer <= more for fewer, more in pairwise(sets))
        assert [len(channels) for channels in sets] == [found.count(share) for share in ("0.25", "0.5", "0.75")]
        assert np.array_equal(removals(first, found), removals(again, found))
        assert sorted(removals(first, found)) == list(range(found.channels))
        assert removals(first, found) is removals(first, found)


def test_families_lose_the_same_share(tmp_path):
    graph = read(saved(NETWORKS["branches"](), tmp_path))
    left = kept(calibration_of(graph), named(graph, "left"), "0.5")
    assert (left < 6).sum() == 3
    assert (left >= 6).sum() == 2


def test_the_surgeon_misses_less_than_the_norm_does_and_less_than_chance(tmp_path):
    graph = read(saved(residual(), tmp_path))
    calibration = calibration_of(graph, 256)
    found = named(graph, "a")
    linear, known = calibration.views["b"].linear, calibration.moments("b")

    def error(channels):
        columns = (np.asarray(channels)[:, None] * 9 + np.arange(9)).ravel()
        fewer = without(linear, known, columns)
        change = -np.concatenate([linear.matrix, linear.bias[:, None]], axis=1).astype(np.float64)
        change[:, columns] += fewer.matrix
        change[:, -1] += fewer.bias
        return ((change @ known.gram[0]) * change).sum()

    surgeon, norm = (error(kept(calibration, found, "0.5", way)) for way in ("surgeon", "norm"))
    rng = np.random.default_rng(0)
    chance = [error(np.sort(rng.choice(16, 8, replace=False))) for _ in range(20)]
    assert surgeon < norm
    assert surgeon < np.quantile(chance, 0.1)


@pytest.mark.parametrize("share", ["0.75", "0.5"])
@pytest.mark.parametrize("base", ["exact", "int8", "lowrank@0.5", "int8w"])
def test_networks_with_masks_are_valid_and_run_one_image_or_many(graph, base, share):
    rewritten = apply(graph, everywhere(graph, share, base), calibration_of(graph, 32))
    onnx.checker.check_model(rewritten.model, full_check=True)
    x = images(graph.model, 3, seed=3)
    single = run(rewritten.model, x)
    assert np.isfinite(single).all()
    shapes = {
        value.name: tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
        for value in (*rewritten.model.graph.value_info, *rewritten.model.graph.input, *rewritten.model.graph.output)
    }
    shapes |= {item.name: tuple(item.dims) for item in rewritten.model.graph.initializer}
    assert batchable(rewritten.model, shapes) == batchable(graph.model, graph.shapes)
    for found in masks_of(graph).prunable:
        tensor = found.tensors[0]
        if tensor in shapes:
            assert shapes[tensor][1] == sum(np.isin(found.places[tensor], kept_first(found, share)))


def kept_first(found, share):
    counts = zip(found.families, found.counts(share), strict=True)
    return np.concatenate([family[:count] for family, count in counts])


def test_a_depthwise_layer_loses_its_filters_and_stays_depthwise(tmp_path):
    graph = read(saved(residual(), tmp_path))
    rewritten = apply(graph, everywhere(graph, "0.5"), calibration_of(graph))
    node = next(item for item in rewritten.model.graph.node if item.name == "depthwise")
    assert attributes(node)["group"] == 8
    assert arrays(rewritten.model)[node.input[1]].shape == (8, 1, 3, 3)
    assert rewritten.parameter_bytes["depthwise"] == 4 * (8 * 9 + 8)


def test_every_layer_of_a_chain_is_as_small_as_its_masks_say(small):
    rewritten = apply(small, everywhere(small, "0.5"), calibration_of(small))
    sizes = {
        "conv1": 6 * 27 + 6,
        "conv2": 8 * 54 + 8,
        "conv3": 10 * 72 + 10,
        "dense1": 12 * 200 + 12,
        "dense2": 5 * 12 + 5,
    }
    assert {layer: rewritten.parameter_bytes[layer] for layer in sizes} == {
        name: 4 * size for name, size in sizes.items()
    }
    assert rewritten.choices["conv2"] == "exact:0.5>0.5"
    assert list(graph_nodes(rewritten.model)) == list(graph_nodes(small.model))


def graph_nodes(model):
    return (node.name for node in model.graph.node)


def test_constants_of_each_channel_go_with_it(tmp_path):
    b = Builder((1, 2, 8, 8))
    x = b.conv("image", "stem", (12, 2, 3, 3), pads=[1, 1, 1, 1])
    x = b.add("PRelu", [x, b.weights((12, 1, 1), "slope")], name="slopes")
    x = b.norm(b.add("MaxPool", [x], name="pool", kernel_shape=[2, 2], strides=[2, 2]), "norm", 12)
    x = b.add("Reshape", [x, b.constant(np.array([1, 12, 16]), "rows")], name="row")
    x = b.add("Reshape", [x, b.constant(np.array([1, -1]), "flat.shape")], name="flat")
    graph = read(saved(b.model(b.dense(x, "fc", CLASSES, 192)), tmp_path))
    model = apply(graph, everywhere(graph, "0.75"), calibration_of(graph)).model
    found = arrays(model)
    assert sorted(array.shape for name, array in found.items() if "slope" in name) == [(9, 1, 1)]
    assert [found[name].tolist() for name in found if "rows" in name] == [[1, 9, 16]]
    assert {array.shape for name, array in found.items() if name.startswith("norm")} == {(9,)}
    assert run(model, images(graph.model, 2)).shape == (2, CLASSES)


def test_channels_that_stay_are_those_of_the_exact_network(small):
    calibration = calibration_of(small)
    fewer = pruned(calibration, parsed(small, with_masks(small, {"conv1": "0.5"})))
    channels = fewer.channels["conv1"]
    assert np.array_equal(fewer.exact("relu1:0"), calibration.exact("relu1:0")[:, channels])
    assert fewer.exact("relu2:0") is calibration.exact("relu2:0")
    assert fewer.views["conv2"].input_shape[1] == 6
    assert np.allclose(fewer.targets("conv1"), calibration.targets("conv1")[:, :, channels])
    assert fewer.moments("conv2").gram.shape == (1, 55, 55)
    assert fewer.grid("relu1:0", "int8") == calibration.grid("relu1:0", "int8")
    assert isinstance(fewer, Pruned)
    assert pruned(calibration, parsed(small, {})) is calibration


def test_refit_of_what_reads_fewer_channels_brings_outputs_nearer(graph):
    calibration = calibration_of(graph, 512)
    evaluator = Evaluator(graph, images(graph.model, 64, seed=99), np.zeros(64, np.int64))
    chosen = everywhere(graph, "0.25")
    error = {
        refit: np.square(
            evaluator.logits(apply(graph, chosen, calibration, refit=refit).model) - evaluator.exact()
        ).mean()
        for refit in (False, True)
    }
    assert error[True] < error[False]


def test_masks_that_do_not_meet_are_refused_with_class_and_layers(small):
    with pytest.raises(InputError, match=r"layers of class 'conv1' must keep the same share .* conv1 0\.5, conv2 1"):
        apply(small, {"conv1": "exact:1>0.5"}, images(small.model, 2))
    with pytest.raises(InputError, match="class 'image' keeps its channels: it is what the network is given"):
        apply(small, {"conv1": "exact:0.5>1"}, images(small.model, 2))


def test_an_approximation_is_offered_what_is_left_of_a_layer(tmp_path):
    b = Builder((1, 2, 6, 6))
    x = b.conv(b.conv("image", "one", (2, 2, 3, 3)), "two", (2, 2, 1, 1))
    x = b.add("Flatten", [b.add("GlobalAveragePool", [x], name="mean")], name="flat")
    graph = read(saved(b.model(b.dense(x, "fc", CLASSES, 2)), tmp_path))
    chosen = with_masks(graph, {"one": "0.5", "two": "0.5"}, {"two": "lowrank@0.5"})
    with pytest.raises(InputError, match=r"layer 'two', choice 'lowrank@0\.5:0\.5>0\.5': lowrank@0\.5 does not apply"):
        apply(graph, chosen, images(graph.model, 4))


@pytest.mark.parametrize("network", NETWORKS)
def test_mixed_plans_with_masks_give_in_the_artefact_what_they_promise(network, tmp_path):
    graph = read(saved(NETWORKS[network](), tmp_path))
    calibration = calibration_of(graph, 16)
    rng = np.random.default_rng(4)
    shares = {item.name: str(rng.choice(["1", "0.75", "0.5"])) for item in masks_of(graph).prunable}
    rewritten = apply(graph, with_masks(graph, shares), calibration)
    entry = Entry(name="mine", model=rewritten.model, nodes=rewritten.nodes)
    artefact = Artefact(compile_networks([entry], host_target(1)).executable)
    x = images(graph.model, 3, seed=8)
    assert np.allclose(artefact.run("mine", x), run(rewritten.model, x), atol=1e-4)

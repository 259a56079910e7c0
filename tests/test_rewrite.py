from __future__ import annotations

import numpy as np
import pytest
from networks import CLASSES, NETWORKS, Builder, chain, images, residual, run, saved
from onnx import numpy_helper

from planner.accuracy import Evaluator, compare, losses
from planner.calibration import Calibration
from planner.dataset import Dataset, Split
from planner.errors import InputError
from planner.graph import read
from planner.linear import Linear, moments
from planner.measuring.bench import measure_losses
from planner.refit import ridge, solve
from planner.rewrite import EXACT, applicable, apply

IMAGES = 64


@pytest.fixture(params=NETWORKS)
def graph(request, tmp_path):
    return read(saved(NETWORKS[request.param](), tmp_path))


@pytest.fixture
def small(tmp_path):
    return read(saved(chain(), tmp_path))


def arrays(model):
    return {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}


def test_all_exact_is_the_exact_network_to_the_bit(graph):
    x = images(graph.model, 5)
    rewritten = apply(graph, {layer.name: EXACT for layer in graph.layers}, x)
    assert np.array_equal(run(rewritten.model, x), run(graph.model, x))
    assert rewritten.nodes == {layer.name: layer.nodes for layer in graph.layers}
    assert rewritten.parameter_bytes == {layer.name: layer.parameter_bytes for layer in graph.layers}
    assert rewritten.model.SerializeToString() == apply(graph, {}, x).model.SerializeToString()


def test_exact_is_the_first_choice_of_every_layer(graph):
    choices = applicable(graph)
    assert list(choices) == [layer.name for layer in graph.layers]
    assert all(names[0] == EXACT and len(set(names)) == len(names) for names in choices.values())


def test_layers_without_weights_have_no_weights_to_approximate(small):
    unmasked = {choice.partition(":")[0] for choice in applicable(small)["pool"]}
    assert unmasked <= {EXACT, "int8", "pool_sample"}
    assert applicable(small, ["int8w", "lowrank"])["pool"] == (EXACT,)


def test_names_of_approximations_or_of_choices_select(small):
    assert applicable(small, "int8w")["conv2"] == (EXACT, "int8w")
    assert applicable(small, ["lowrank@0.25"])["conv2"] == (EXACT, "lowrank@0.25")
    shares = [f"lowrank@{share}" for share in (0.75, 0.5, 0.35, 0.25)]
    composed = [f"{name}+int8w" for name in shares]
    assert applicable(small, ["lowrank", "int8w"])["dense1"] == (EXACT, "int8w", *shares, *composed)
    assert applicable(small, ["perforate@rows+int8w"])["conv2"] == (EXACT, "perforate@rows+int8w")
    assert set(applicable(small, ["exact"]).values()) == {(EXACT,)}


def test_an_unknown_approximation_is_answered_with_those_that_exist(small):
    for name in ("magic", "lowrank@0.3", "int8w+lowrank@0.5"):
        with pytest.raises(InputError, match=r"; there are: .*fp16w, int4w, int8, int8w, .*lowrank@0.5.*'\+'"):
            applicable(small, [name])


def test_a_choice_that_cannot_be_made_is_refused_with_the_reason(small):
    x = images(small.model, 2)
    for layer, choice, message in (
        ("conv9", "int8w", "has no layer 'conv9'"),
        ("conv2", "magic", "unknown approximation 'magic'; there are: exact, .*fp16w, int4w, .*int8w"),
        (
            "conv1",
            "lowrank@0.5",
            "layer 'conv1', choice 'lowrank@0.5': lowrank@0.5 does not apply: it is the first",
        ),
        ("pool", "int8w", "MaxPool has no weights"),
        ("conv2", "int8w+perforate@rows", "in this order"),
        ("conv2", "lowrank@0.5+perforate@rows", "in this order"),
    ):
        with pytest.raises(InputError, match=message):
            apply(small, {layer: choice}, x)


def test_calibration_images_of_another_size_are_refused(small):
    with pytest.raises(InputError, match=r"float32 \(n, 3x10x8\)"):
        apply(small, {"conv2": "int8w"}, np.zeros((4, 3, 8, 8), np.float32))
    with pytest.raises(InputError, match="no calibration images"):
        Calibration(small, np.zeros((0, 3, 10, 8), np.float32))


def test_every_node_of_a_rewritten_network_belongs_to_one_layer(graph):
    calibration = Calibration(graph, images(graph.model, IMAGES))
    choices = {layer: names[-1] for layer, names in applicable(graph).items()}
    rewritten = apply(graph, choices, calibration)
    owned = [name for names in rewritten.nodes.values() for name in names]
    assert sorted(owned) == sorted(node.name for node in rewritten.model.graph.node)
    assert len(owned) == len(set(owned))
    assert rewritten.choices == choices
    constants = arrays(rewritten.model)
    rounding = [node for node in rewritten.model.graph.node if node.op_type in {"QuantizeLinear", "DequantizeLinear"}]
    settings = {name for node in rounding if node.input[0] not in constants for name in node.input[1:]}
    sizes = {n: array.nbytes for n, array in constants.items() if array.dtype.kind in "fi" and n not in settings}
    whole = [name for name in sizes if "shape" not in name and "scales" not in name and name not in {"q", "rest"}]
    assert sum(rewritten.parameter_bytes.values()) == sum(sizes[name] for name in whole)


def test_rewriting_is_deterministic(graph):
    x = images(graph.model, IMAGES)
    choices = {layer: names[-1] for layer, names in applicable(graph).items()}
    first, again = (apply(graph, choices, x).model.SerializeToString() for _ in range(2))
    assert first == again


def test_without_refit_only_the_layer_itself_changes(small):
    rewritten = apply(small, {"conv2": "perforate@rows"}, images(small.model, IMAGES), refit=False)
    before, after = arrays(small.model), arrays(rewritten.model)
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    assert changed == {"conv2.w", "conv2.b"}
    assert not rewritten.refit


def test_refit_leaves_what_neither_reads_nor_is_added_to_a_change_and_keeps_the_structure(tmp_path):
    graph = read(saved(residual(), tmp_path))
    rewritten = apply(graph, {"a": "perforate@rows"}, images(graph.model, IMAGES))
    before, after = arrays(graph.model), arrays(rewritten.model)
    weight = {node.name: node.input[1] for node in graph.model.graph.node if node.op_type in {"Conv", "Gemm"}}
    same = {name: np.array_equal(before[weight[name]], after[weight[name]]) for name in weight}
    assert same == {"stem": True, "a": False, "b": False, "shortcut": False, "depthwise": False, "fc": False}
    for layer in graph.layers:
        if layer.name != "a":
            assert rewritten.nodes[layer.name] == layer.nodes
            assert rewritten.parameter_bytes[layer.name] == layer.parameter_bytes


@pytest.mark.parametrize("choice", ["lowrank@0.5", "perforate@rows"])
def test_refit_brings_held_out_outputs_nearer_to_the_exact_ones(choice, graph):
    layer = next(name for name, names in applicable(graph).items() if choice in names)
    calibration = Calibration(graph, images(graph.model, 256))
    unseen = images(graph.model, 64, seed=99)
    evaluator = Evaluator(graph, unseen, np.zeros(len(unseen), np.int64))
    error = {
        refit: np.square(
            evaluator.logits(apply(graph, {layer: choice}, calibration, refit=refit).model) - evaluator.exact()
        ).mean()
        for refit in (False, True)
    }
    assert error[True] < 0.9 * error[False]


def test_a_refit_of_unchanged_inputs_returns_the_weights():
    rng = np.random.default_rng(0)
    linear = Linear(weight=rng.normal(size=(4, 6)).astype(np.float32), bias=rng.normal(size=4).astype(np.float32))
    x = rng.normal(size=(200, 6)).astype(np.float32)
    y = x @ linear.weight.T + linear.bias
    new = solve(linear, moments(linear, x, targets=y[None]))
    assert np.allclose(new.weight, linear.weight, atol=1e-5)
    assert np.allclose(new.bias, linear.bias, atol=1e-5)


def test_a_refit_undoes_a_linear_disturbance_of_the_inputs():
    rng = np.random.default_rng(1)
    linear = Linear(weight=rng.normal(size=(4, 6)).astype(np.float32), bias=np.zeros(4, np.float32))
    x = rng.normal(size=(20_000, 6)).astype(np.float32)
    y = x @ linear.weight.T
    present = 0.5 * x + 0.25
    found = moments(linear, present, targets=y[None])
    new = solve(linear, found)
    assert np.square(present @ new.weight.T + new.bias - y).mean() < 1e-3 * np.square(y).mean()
    assert ridge(6, found) < ridge(6, moments(linear, present[:50]))


def test_a_refit_does_not_invent_a_bias_and_needs_targets():
    linear = Linear(weight=np.ones((2, 3), np.float32), bias=None)
    x = np.random.default_rng(2).normal(size=(30, 3)).astype(np.float32)
    assert solve(linear, moments(linear, x, targets=(x @ linear.weight.T)[None])).bias is None
    with pytest.raises(ValueError, match="targets"):
        solve(linear, moments(linear, x))


def test_inputs_that_are_always_nought_do_not_upset_a_refit():
    linear = Linear(weight=np.ones((2, 3), np.float32), bias=np.zeros(2, np.float32))
    x = np.zeros((10, 3), np.float32)
    new = solve(linear, moments(linear, x, targets=np.ones((1, 10, 2), np.float32)))
    assert np.isfinite(new.weight).all()
    assert np.allclose(new.bias, 1.0)


def test_a_network_that_mixes_the_images_of_a_batch_is_rewritten_image_by_image(tmp_path):
    b = Builder((1, 4, 6, 6))
    x = b.add("Relu", [b.conv("image", "conv", (4, 4, 3, 3))], name="relu")
    x = b.add("Reshape", [x, b.constant(np.array([2, 32]), "shape")], name="split")
    x = b.add("Reshape", [x, b.constant(np.array([1, 64]), "shape2")], name="join")
    graph = read(saved(b.model(b.dense(x, "fc", CLASSES, 64)), tmp_path))
    calibration = Calibration(graph, images(graph.model, 20))
    assert calibration.batch == 1
    rewritten = apply(graph, {"conv": "perforate@rows", "fc": "int8w"}, calibration)
    x = images(graph.model, 3, seed=5)
    logits = Evaluator(graph, x, np.zeros(3, np.int64)).logits(rewritten.model)
    assert np.allclose(logits, run(rewritten.model, x), atol=1e-5)


def test_cross_entropy_is_that_of_the_softmax():
    rng = np.random.default_rng(4)
    logits = rng.normal(scale=50, size=(20, 7)).astype(np.float32)
    labels = rng.integers(0, 7, 20)
    scores = logits.astype(np.longdouble)
    expected = [np.log(np.exp(row - row[label]).sum()) for row, label in zip(scores, labels, strict=True)]
    assert np.allclose(losses(logits, labels), np.asarray(expected, np.float64), rtol=1e-9)


def test_errors_are_those_of_paired_differences():
    rng = np.random.default_rng(6)
    reference = rng.normal(size=(500, 4)).astype(np.float32)
    labels = rng.integers(0, 4, 500)
    other = reference + rng.normal(scale=0.1, size=(500, 4)).astype(np.float32)
    found = compare(other, reference, labels)
    difference = losses(other, labels) - losses(reference, labels)
    assert found.loss_raw == pytest.approx(difference.mean())
    assert found.loss_std == pytest.approx(difference.std(ddof=1) / np.sqrt(500))
    right = (other.argmax(1) == labels).mean() - (reference.argmax(1) == labels).mean()
    assert found.top1_change == pytest.approx(100 * right)
    assert compare(reference, reference, labels).loss_std == 0


def test_labels_that_the_network_does_not_know_are_refused(small):
    x = images(small.model, 3)
    with pytest.raises(InputError, match="labels are 0 to 5; model 'small' has classes 0 to 4"):
        Evaluator(small, x, np.array([0, 5, 1]))
    with pytest.raises(InputError, match=r"labels of shape \(2,\)"):
        Evaluator(small, x, np.array([0, 1]))


def test_measures_what_each_choice_loses_on_validation_images(small):
    labelled = {}
    for seed, part in enumerate(("calibration", "validation", "test")):
        x = images(small.model, IMAGES, seed=seed)
        labelled[part] = Split(images=x, labels=run(small.model, x).argmax(1).astype(np.int64))
    dataset = Dataset(name="made", **labelled, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), classes=CLASSES)
    choices = {"conv2": (EXACT, "lowrank@0.25", "int8w"), "pool": (EXACT,)}
    seen = []
    found = measure_losses(small, dataset, choices, progress=lambda *step: seen.append(step))
    assert found == {(layer, choice): finding.cost for layer, choice, finding in seen}
    assert list(found) == [(layer, name) for layer, names in choices.items() for name in names]
    assert found["conv2", EXACT].loss_raw == found["conv2", EXACT].loss_std == 0
    assert found["conv2", EXACT].parameter_bytes == small.layer("conv2").parameter_bytes
    assert found["conv2", "lowrank@0.25"].loss_raw > found["conv2", "int8w"].loss_raw
    assert found["conv2", "lowrank@0.25"].top1_change <= 0
    calibration = Calibration(small, dataset.inputs("calibration"))
    rewritten = apply(small, {"conv2": "lowrank@0.25"}, calibration)
    x = dataset.inputs("validation")
    again = compare(run(rewritten.model, x), run(small.model, x), dataset.validation.labels)
    assert found["conv2", "lowrank@0.25"].loss_raw == pytest.approx(again.loss_raw, abs=1e-5)
    assert found["conv2", "lowrank@0.25"].parameter_bytes == rewritten.parameter_bytes["conv2"]

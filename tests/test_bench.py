from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import networks
import numpy as np
import pytest
import samples
from networks import NETWORKS, saved
from onnx import numpy_helper

import planner
from planner import calibration as calibrating
from planner.accuracy import Evaluator
from planner.calibration import Calibration
from planner.dataset import Dataset, Split
from planner.errors import InputError
from planner.judging import Judge
from planner.masks.choices import alone
from planner.masks.costs import pairs_to_measure
from planner.measuring import bench as benches
from planner.measuring import losses as measuring
from planner.measuring.bench import Bench, Subject
from planner.measuring.losses import choice_losses, pool
from planner.measuring.store import Store
from planner.rewrite import applicable, apply

ASKED = ["int8w", "lowrank@0.5", "int8", "prune@0.5"]


def far(scores, labels):
    return -scores[np.arange(len(labels)), np.maximum(labels, 0)]


def dataset(shape, count=48, classes=networks.CLASSES, labelled=True):
    parts = {}
    for seed, part in enumerate(("calibration", "validation", "test")):
        random = np.random.default_rng(seed)
        labels = random.integers(0, classes, count) if labelled else None
        parts[part] = Split(images=random.random((count, *shape), np.float32), labels=labels)
    return Dataset(name="made", **parts, mean=(0.0,) * shape[0], std=(1.0,) * shape[0], classes=classes)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    return planner.load(saved(networks.chain(), folder, "chain"), data=samples.archive(folder))


def measured(model, store=None, asked=ASKED, **more):
    with Store(store) as kept:
        return choice_losses(model, applicable(model.graph, asked), kept, refit=True, tell=lambda *_: None, **more)


@pytest.mark.parametrize("name", NETWORKS)
def test_what_lies_behind_a_change_gives_what_the_whole_network_gives(name, tmp_path):
    model = planner.load(saved(NETWORKS[name](), tmp_path), data=None)
    graph = model.graph
    data = dataset(graph.input_shape[1:], classes=graph.classes)
    bench = Bench(Subject(graph=graph, data=data, refit=True, judge=Judge()))
    calibration = Calibration.of(graph, data)
    judge = Evaluator(graph, data.inputs("validation"), data.validation.labels)
    np.testing.assert_array_equal(bench.exact, judge.exact())
    for layer, choice in reversed(pairs_to_measure(graph, applicable(graph, ASKED))[::2]):
        whole = judge.logits(apply(graph, alone(graph, layer, choice), calibration).model)
        found = bench.measure(layer, choice)
        change = whole - judge.exact()
        np.testing.assert_allclose(found.change, change - change.mean(1, keepdims=True), atol=5e-3)
        assert found.cost.images == len(data.validation)


def test_activations_that_are_too_much_for_memory_change_nothing(model, monkeypatch):
    pairs = pairs_to_measure(model.graph, applicable(model.graph, ASKED))[::3]
    tensor = model.graph.layers[0].outputs[0]
    found, kept = [], []
    for limit in (benches.KEPT_BYTES, 50_000):
        for module in (calibrating, benches):
            monkeypatch.setattr(module, "KEPT_BYTES", limit)
        calibration = Calibration.of(model.graph, model.data())
        bench = Bench(Subject(graph=model.graph, data=model.data(), refit=True, judge=Judge()), calibration)
        found.append([bench.measure(*pair).cost for pair in pairs])
        kept.append(calibration.exact(tensor))
    assert found[0] == found[1]
    assert [isinstance(array, np.memmap) for array in kept] == [False, True]


def test_every_executor_finds_what_this_process_finds(model):
    few = ["int8w", "lowrank@0.5"]
    here = measured(model, asked=few)
    with ThreadPoolExecutor(3) as threads:
        beside = measured(model, asked=few, executor=threads)
    with pool(2) as processes:
        elsewhere = measured(model, asked=few, executor=processes)
    for other in (beside, elsewhere):
        assert list(other.costs) == list(here.costs)
        for pair, cost in here.costs.items():
            assert other.costs[pair].loss_raw == pytest.approx(cost.loss_raw, abs=1e-6)
            np.testing.assert_allclose(other.changes[pair], here.changes[pair], atol=1e-3)
    assert other.interactions().sizes == pytest.approx(here.interactions().sizes, rel=1e-3, abs=1e-6)


def test_one_job_is_this_process():
    with pool(1) as executor:
        assert executor is None


def test_a_failure_on_an_executor_is_not_hidden(model, monkeypatch):
    def fails(self, layer, choice):
        raise ValueError(f"{layer} cannot be measured")

    monkeypatch.setattr(Bench, "measure", fails)
    with ThreadPoolExecutor(1) as threads, pytest.raises(ValueError, match="cannot be measured"):
        measured(model, executor=threads)


def test_what_another_run_is_measuring_is_left_to_it_and_taken_from_it(model, tmp_path, monkeypatch):
    monkeypatch.setattr(measuring, "_PAUSE_S", 0.01)
    path, calls, single = tmp_path / "s.store", [], Bench.measure

    def counted(self, layer, choice):
        calls.append((layer, choice))
        return single(self, layer, choice)

    monkeypatch.setattr(Bench, "measure", counted)
    found = {}

    def run(number):
        found[number] = measured(model, path)

    runs = [threading.Thread(target=run, args=(number,)) for number in range(2)]
    for one in runs:
        one.start()
    for one in runs:
        one.join()
    assert sorted(calls) == sorted(found[0].costs)
    assert found[0].costs == found[1].costs


def test_a_hopeless_choice_is_stopped_and_marked(tmp_path):
    network = networks.chain()
    last = network.graph.node[-1].input[1]
    weights = next(item for item in network.graph.initializer if item.name == last)
    weights.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weights) * np.float32(300), last))
    graph = planner.load(saved(network, tmp_path)).graph
    data = dataset(graph.input_shape[1:], count=600, labelled=False)
    bench = Bench(Subject(graph=graph, data=data, refit=False, judge=Judge()))
    stopped = bench.measure("conv2", "lowrank@0.25")
    assert stopped.cost.stopped
    assert stopped.cost.images == len(stopped.change) == 192
    assert stopped.cost.loss_raw - 4 * stopped.cost.loss_std > benches.HOPELESS_NATS
    own = Bench(Subject(graph=graph, data=data, refit=False, judge=Judge(metric=far)))
    assert not own.measure("conv2", "lowrank@0.25").cost.stopped  # its unit has no bar
    mild = bench.measure("conv1", "exact")
    assert (mild.cost.stopped, mild.cost.images, mild.cost.loss_raw) == (False, 600, 0.0)


def test_losses_of_other_metrics_and_data_are_not_mixed_up_in_a_store(model, tmp_path):
    path = tmp_path / "s.store"
    usual, own = measured(model, path), measured(model, path, metric=far)
    assert (usual.loss, own.loss) == ("cross-entropy", "far")
    assert any(usual.costs[pair].loss_raw != own.costs[pair].loss_raw for pair in usual.costs)
    assert measured(model, path, metric=far).costs == own.costs
    assert set(own.interactions().sizes) == {0.0}


def test_a_metric_that_cannot_travel_is_refused_by_name(model):
    with (
        pool(2) as processes,
        pytest.raises(InputError, match=r"lambda.*expected a metric that is a function of a mod"),
    ):
        measured(model, metric=lambda scores, labels: scores[:, 0], executor=processes)


def test_data_without_labels_are_judged_by_divergence(tmp_path):
    path = tmp_path / "images.npz"
    random = np.random.default_rng(0)
    shape = samples.SHAPE
    parts = {
        f"{part}_images": random.random((40, *shape), np.float32) for part in ("calibration", "validation", "test")
    }
    np.savez(path, **parts)
    model = planner.load(saved(networks.chain(), tmp_path), data=path)
    assert "without labels" in str(model.data())
    table = planner.measure([model], device="simulated", rounds=2, approximations=["lowrank@0.5", "int8w"])
    (noted,) = table.provenance["models"].values()
    assert noted["loss"] == "divergence"
    costs = [choice for layer in table.models[0].layers for choice in layer.choices]
    assert min(choice.loss for choice in costs) >= 0
    assert max(choice.loss for choice in costs) > 0
    assert planner.plan(table, planner.Budget(memory_mib=1)).predicted[0].top1_change <= 0


def test_labels_of_some_parts_only_are_refused(tmp_path):
    path = tmp_path / "images.npz"
    parts = {f"{part}_images": np.zeros((4, 1, 4, 4), np.float32) for part in ("calibration", "validation", "test")}
    np.savez(path, **parts, validation_labels=np.zeros(4, np.int64))
    with pytest.raises(InputError, match="calibration_labels, test_labels missing"):
        planner.dataset.read(path)

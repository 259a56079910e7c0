from __future__ import annotations

import numpy as np
import pytest
import samples
from networks import CLASSES, NETWORKS, Builder, images, saved

import planner
from costmodels import ChoiceCost, EdgeCosts, Format, LayerCosts, ModelCosts, TableError
from planner.accuracy import LossCost
from planner.artefact import Artefact
from planner.calibration import Calibration
from planner.choices import applicable, parsed
from planner.compiler import compile_networks, host_target
from planner.devices import open_device
from planner.graph import read
from planner.masks.classes import masks_of
from planner.masks.costs import (
    is_joined,
    is_masked,
    loss_of,
    mask_builds,
    pairs_to_measure,
    random_plan,
    read_format,
)
from planner.measuring.builds import Builds
from planner.measuring.store import Store
from planner.model import Model
from planner.rewrite import apply
from planner.segments import Entry

MASKED = ["prune", "int8"]


@pytest.fixture(params=NETWORKS)
def graph(request, tmp_path):
    return read(saved(NETWORKS[request.param](), tmp_path))


def loss(value: float) -> LossCost:
    return LossCost(loss_raw=value, loss_std=0.3, top1_change=-value, top1_change_std=0.4, parameter_bytes=8)


def test_nothing_is_built_for_masks_where_there_are_none(graph):
    assert mask_builds(graph, applicable(graph, ["int8"])) == []


def test_every_layer_takes_each_of_its_masks_in_at_most_eight_networks_a_choice(graph):
    choices = applicable(graph, ["prune", "int8w"])
    builds = mask_builds(graph, choices)
    taken = {pair for build in builds for pair in build.items()}
    assert {(layer, name) for layer, names in choices.items() for name in names if is_masked(name)} <= taken
    assert len(builds) <= 2 * 8


def test_networks_of_one_share_are_fewer(graph):
    assert 0 < len(mask_builds(graph, applicable(graph, ["prune@0.5"]))) <= 3


def test_layers_of_a_class_agree_in_builds_and_in_random_plans(graph):
    choices = applicable(graph, MASKED)
    random = np.random.default_rng(0)
    masks = masks_of(graph)
    plans = [*mask_builds(graph, choices), *(random_plan(graph, choices, random) for _ in range(20))]
    shares = [masks.shares(parsed(graph, plan)) for plan in plans]
    assert all(name in choices[layer] for plan in plans for layer, name in plan.items())
    assert {share for found in shares for share in found.values()} == {"0.75", "0.5"}


def test_random_plans_without_masks_are_of_everything_there_is(graph):
    choices = applicable(graph, ["int8"])
    random = np.random.default_rng(0)
    seen = {pair for _ in range(60) for pair in random_plan(graph, choices, random).items()}
    assert seen == {(layer, name) for layer, names in choices.items() for name in names}


def test_a_class_is_measured_once_and_booked_on_the_layer_that_makes_it_first(tmp_path):
    graph = read(saved(NETWORKS["residual"](), tmp_path))
    pairs = pairs_to_measure(graph, applicable(graph, ["prune", "int8w"]))
    assert [pair for pair in pairs if "prune" in pair[1]] == [
        (layer, f"prune@{share}") for layer in ("stem", "a", "b") for share in ("0.75", "0.5")
    ]
    assert ("b", "int8w") in pairs
    assert not any(is_masked(name) or name == "exact" for _, name in pairs)


def test_the_loss_of_a_masked_choice_is_its_own_and_that_of_the_class_it_writes():
    losses = {("b", "int8"): loss(0.1), ("b", "prune@0.5"): loss(0.2), ("shortcut", "int8"): loss(0.4)}
    both = loss_of("b", "int8:0.75>0.5", losses)
    assert both is not None
    assert (both.loss_raw, both.top1_change) == pytest.approx((0.3, -0.3))
    assert (both.loss_std, both.top1_change_std) == pytest.approx((0.3 * 2**0.5, 0.4 * 2**0.5))
    assert loss_of("b", "int8:0.5>1", losses) == losses["b", "int8"]
    assert loss_of("b", "exact:1>0.5", losses) == losses["b", "prune@0.5"]
    assert loss_of("shortcut", "int8:1>0.5", losses) == losses["shortcut", "int8"]
    assert loss_of("b", "exact:0.5>1", losses) is None


def test_what_is_only_added_has_the_channels_that_are_written(tmp_path):
    graph = read(saved(NETWORKS["residual"](), tmp_path))
    assert is_joined(graph, "b", "shortcut")
    assert not is_joined(graph, "stem", "shortcut")
    assert read_format(graph, "shortcut", "exact:0.5>0.75", joins=True).mask == "0.75"
    assert read_format(graph, "shortcut", "exact:0.5>0.75", joins=False).mask == "0.5"


def masked(name: str, reads: str, writes: str) -> ChoiceCost:
    return ChoiceCost(
        name=name,
        latency_ns=1,
        weight_bytes=0,
        loss=0.0,
        in_format=Format(mask=reads),
        out_format=Format(mask=writes),
    )


def test_an_edge_that_joins_meets_what_its_target_writes():
    layers = (
        LayerCosts(name="a", choices=(masked("half", "", "0.5"),)),
        LayerCosts(name="b", choices=(masked("half", "", "0.5"),)),
    )
    ModelCosts(name="m", layers=layers, edges=(EdgeCosts(source="a", target="b", joins=True),))
    with pytest.raises(TableError, match="no two formats of the edge can meet"):
        ModelCosts(name="m", layers=layers, edges=(EdgeCosts(source="a", target="b"),))
    with pytest.raises(TableError, match="joins is 1; expected true or false"):
        EdgeCosts(source="a", target="b", joins=1)  # type: ignore[arg-type]


@pytest.mark.parametrize("network", ["residual", "branches"])
def test_a_plan_of_a_table_with_masks_agrees_in_every_class_and_survives_writing(network, tmp_path):
    path = saved(NETWORKS[network](), tmp_path)
    model = planner.load(path, data=samples.archive(tmp_path, shape=read(path).input_shape[1:]))
    table = planner.measure([model], device="simulated", rounds=2, approximations=["prune"])
    again = tmp_path / "table.json"
    table.write(again)
    assert planner.CostTable.read(again) == table
    costs = table.models[0]
    assert network == "branches" or any(edge.joins for edge in costs.edges)
    least = sum(min(choice.weight_bytes for choice in layer.choices) for layer in costs.layers)
    arena = max(min(choice.activation_bytes for choice in layer.choices) for layer in costs.layers)
    for budget in (1.2, 1.5, 2.0):
        plan = planner.plan(table, planner.Budget(memory_mib=budget * (least + arena) / 2**20))
        chosen = plan.choices[costs.name]
        shares = masks_of(model.graph).shares(parsed(model.graph, chosen))
        rewritten = apply(model.graph, chosen, Calibration(model.graph, images(model.graph.model, 16)), refit=False)
        for layer, size in rewritten.parameter_bytes.items():
            assert size in {0, costs.layer(layer).choice(chosen[layer]).weight_bytes}
        assert budget > 1.2 or "0.5" in shares.values()


def test_weight_bytes_of_mixed_plans_are_those_of_the_artefact_to_the_byte(tmp_path):
    b = Builder((1, 2, 6, 6))
    x = b.conv("image", "stem", (24, 2, 3, 3))
    y = b.conv(b.add("Relu", [b.conv(x, "a", (20, 24, 1, 1))], name="relu"), "b", (24, 20, 1, 1))
    x = b.add("Flatten", [b.add("GlobalAveragePool", [b.add("Add", [x, y], name="sum")], name="mean")], name="flat")
    model = Model(graph=read(saved(b.model(b.dense(x, "fc", CLASSES, 24)), tmp_path)))
    calibration = Calibration(model.graph, images(model.graph.model, 16))
    choices = applicable(model.graph, ["prune@0.5"])
    builds = Builds(model, choices, calibration, open_device("tvm", threads=1), Store(None))
    builds.compile(lambda *_: None)
    random = np.random.default_rng(3)
    for _ in range(2):
        plan = random_plan(model.graph, choices, random)
        rewritten = apply(model.graph, plan, calibration)
        entry = Entry(name="mixed", model=rewritten.model, nodes=rewritten.nodes)
        artefact = Artefact(compile_networks([entry], host_target(1)).executable)
        promised = sum(builds.weight_bytes(*place) for place in plan.items())
        assert artefact.trace("mixed", images(model.graph.model, 1)).weight_bytes == promised

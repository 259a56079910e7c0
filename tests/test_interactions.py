from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import planner
from costmodels import Alone, ChoiceCost, CostTable, Interactions, LayerCosts, ModelCosts, TableError, interactions
from planner.accuracy import compare
from planner.judging import cross_entropy, log_softmax
from planner.plan import Plan, check
from planner.predicting import entries_of, predicted

IMAGES, CLASSES = 400, 6


def single(change, loss=0.0, top1=0.0):
    return Alone(loss=loss, loss_std=0.01, top1=top1, top1_std=0.1, change=change)


def made(seed=0, count=4, size=0.3):
    random = np.random.default_rng(seed)
    exact = random.normal(0, 2, (IMAGES, CLASSES))
    changes = [random.normal(0, size, exact.shape) for _ in range(count)]
    return exact, {(f"l{n}", "x"): single(change) for n, change in enumerate(changes)}


def q(exact, one, other):
    p = np.exp(log_softmax(exact))
    each = (p * one * other).sum(1) - (p * one).sum(1) * (p * other).sum(1)
    return each.mean()


@given(st.integers(0, 1000))
def test_every_pair_is_what_the_definition_gives(seed):
    exact, alone = made(seed)
    found = interactions(alone, exact)
    for row, one in enumerate(alone.values()):
        for column, other in enumerate(alone.values()):
            value = found.sizes[row] * found.correlations[row, column] * found.sizes[column]
            assert value == pytest.approx(q(exact, one.change, other.change), abs=2e-5)


def test_a_shift_of_all_classes_interacts_with_nothing():
    exact, alone = made()
    shift = single(np.full((IMAGES, CLASSES), 3.0) * np.arange(IMAGES)[:, None])
    found = interactions({**alone, ("s", "x"): shift}, exact)
    assert found.sizes[-1] == pytest.approx(0, abs=1e-2)
    assert found.together([("s", "x"), ("l0", "x")]).added == pytest.approx(0, abs=1e-3)


def test_the_corrected_loss_is_nearer_to_that_of_all_changes_together_than_the_sum():
    random = np.random.default_rng(3)
    exact = random.normal(0, 2, (4000, CLASSES)).astype(np.float32)
    labels = (np.exp(log_softmax(exact)).cumsum(1) > random.random((4000, 1))).argmax(1)
    shared = random.normal(0, 0.4, exact.shape)
    changes = [(shared + random.normal(0, 0.2, exact.shape)).astype(np.float32) for _ in range(4)]
    costs = [compare(exact + change, exact, labels) for change in changes]
    found = interactions(
        {
            (f"l{n}", "x"): Alone(
                loss=cost.loss_raw, loss_std=cost.loss_std, top1=cost.top1_expected, top1_std=0.1, change=change
            )
            for n, (cost, change) in enumerate(zip(costs, changes, strict=True))
        },
        exact,
    )
    joint = float((cross_entropy(exact + sum(changes), labels) - cross_entropy(exact, labels)).mean())
    together = found.together(found.entries)
    assert joint > 2 * sum(cost.loss_raw for cost in costs)
    assert abs(together.loss - joint) < 0.3 * abs(together.loss - together.added - joint)
    assert found.slope < 0


def test_errors_of_like_changes_add_up_and_those_of_unlike_ones_do_not():
    exact, alone = made(count=1)
    change = next(iter(alone.values())).change
    like = interactions({("a", "x"): single(change), ("b", "x"): single(change)}, exact)
    assert like.together(like.entries).loss_std == pytest.approx(0.02)
    opposite = interactions({("a", "x"): single(change), ("b", "x"): single(-change)}, exact)
    assert opposite.together(opposite.entries).loss_std == pytest.approx(0.01 * np.sqrt(2))
    assert opposite.together(opposite.entries).added < 0


def test_a_change_known_on_the_first_images_only_is_compared_on_those():
    exact, alone = made(count=2)
    (one, two) = alone.values()
    short = dataclasses.replace(two, change=two.change[:150])
    found = interactions({("a", "x"): one, ("b", "x"): short}, exact)
    value = found.together(found.entries).added
    assert value == pytest.approx(q(exact[:150], one.change[:150], two.change[:150]), abs=2e-3)


def table(**more):
    exact, alone = made(count=2)
    alone = {("conv1", "lowrank@0.5"): alone["l0", "x"], ("conv1", "prune@0.5"): alone["l1", "x"]}
    found = interactions(
        {entry: dataclasses.replace(item, loss=0.02, top1=-0.5) for entry, item in alone.items()}, exact
    )
    choices = ("exact", "lowrank@0.5", "lowrank@0.5:1>0.5")
    layer = LayerCosts(
        name="conv1",
        choices=tuple(
            ChoiceCost(name=n, latency_ns=9 - i, weight_bytes=8, loss=0.02 * i) for i, n in enumerate(choices)
        ),
    )
    return CostTable(models=(ModelCosts(name="m", layers=(layer,), interactions=dataclasses.replace(found, **more)),))


def test_a_choice_with_masks_is_what_it_is_without_and_the_class_it_makes():
    assert entries_of("conv1", "exact") == (("conv1", "exact"),)
    assert entries_of("conv1", "lowrank@0.5:0.5>1") == (("conv1", "lowrank@0.5"),)
    (both,) = predicted(table(), {"m": {"conv1": "lowrank@0.5:1>0.5"}})
    assert both.loss == pytest.approx(0.04 + both.added)
    assert both.top1_change == pytest.approx(-1)
    (nothing,) = predicted(table(), {"m": {"conv1": "exact"}})
    assert (nothing.loss, nothing.top1_change, nothing.top1_std) == (0, 0, 0)


def test_a_table_keeps_its_interactions_and_a_plan_its_prediction(tmp_path):
    costs = table()
    costs.write(tmp_path / "t.json")
    assert CostTable.read(tmp_path / "t.json") == costs
    plan = planner.plan(costs, planner.Budget(latency_ms=8e-6), workers=1)
    assert plan.predicted == predicted(costs, plan.choices)
    assert "top-1 -0.50 +- 0.10 points" in str(plan)
    plan.write(tmp_path / "p.json")
    assert Plan.read(tmp_path / "p.json") == plan
    assert check(plan, costs) == ()
    wrong = dataclasses.replace(plan, predicted=(dataclasses.replace(plan.predicted[0], loss=0.0),))
    assert any("predicted" in fault for fault in check(wrong, costs))


def test_a_table_without_interactions_predicts_nothing():
    bare = CostTable(models=tuple(dataclasses.replace(model, interactions=None) for model in table().models))
    assert predicted(bare, {"m": {"conv1": "exact"}}) == ()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"packed": "!"}, "base64"),
        ({"packed": ""}, "0 bytes of correlations of 2 choices; expected 2"),
        ({"loss": (0.1,)}, "expected as many"),
        ({"sizes": (0.1, float("nan"))}, "not finite"),
        ({"top1_std": (0.1, -1.0)}, "negative"),
        ({"version": 9}, "version 9; expected 1"),
    ],
)
def test_interactions_that_do_not_hang_together_are_refused(change, said):
    with pytest.raises(TableError, match=said):
        table(**change)


def test_interactions_in_a_file_that_lack_a_part_are_refused_with_their_model(tmp_path):
    path = tmp_path / "t.json"
    table().write(path)
    found = json.loads(path.read_text())
    del found["models"][0]["interactions"]["sizes"]
    path.write_text(json.dumps(found))
    with pytest.raises(TableError, match=r"m.*sizes is missing"):
        CostTable.read(path)


def test_a_hundred_choices_take_few_bytes():
    exact, alone = made(count=100)
    found = interactions(alone, exact)
    assert isinstance(found, Interactions)
    assert len(found.packed) < 14_000

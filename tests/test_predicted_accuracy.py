from __future__ import annotations

import json

import networks
import predicted_accuracy as benchmark
import pytest
import samples

import planner
from planner.choices import applicable
from planner.masks.costs import is_masked
from planner.measuring.losses import choice_losses
from planner.measuring.store import Store


def row(model, predicted, measured, number=0):
    ways = dict.fromkeys(benchmark.TOP1, predicted)
    return {
        "model": model,
        "number": number,
        "images": 1000,
        "top1_change": measured,
        "top1_change_std": 0.1,
        "loss": -measured / 40,
        "loss_std": 0.002,
        "predicted": {
            "top1": ways,
            "top1_std": 0.1,
            "loss": dict.fromkeys(benchmark.LOSS, -predicted / 40),
            "loss_std": 0.002,
        },
    }


def test_plans_that_lose_more_than_is_asked_are_counted_apart():
    found = [row("a", -1.0, -1.2), row("a", -2.0, -1.9), row("b", -3.0, -3.5)]
    sums = benchmark.summary(found)
    assert list(sums) == ["a", "all"]
    assert sums["a"]["plans"] == 2
    assert sums["a"]["top1 expected"]["median"] == pytest.approx(0.15)
    assert sums["a"]["top1 expected"]["bias"] == pytest.approx(0.05)
    assert sums["a"]["within_two"] == 1.0


def test_the_page_has_a_picture_of_all_plans(tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps(row("a", -0.2 * n, -0.25 * n, n)) + "\n" for n in range(6)))
    benchmark.main(["--rows", str(rows), "--page", str(tmp_path / "page.md")])
    text = (tmp_path / "page.md").read_text()
    assert "6 random plans, measured on 1,000 test images; 0 of them" in text
    assert "| a | 6 | 0.12, 0.24 |" in text
    assert "(page.svg)" in text
    assert "measured change of top-1" in (tmp_path / "page.svg").read_text()


def test_plans_are_the_same_for_a_seed_and_can_be_built(tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark, "PATIENCE", 12)
    model = planner.load(networks.saved(networks.residual(), tmp_path), data=samples.archive(tmp_path, (2, 8, 8)))
    choices = applicable(model.graph, ["lowrank@0.5", "prune@0.5"])
    with Store(None) as store:
        losses = choice_losses(model, choices, store, refit=False, tell=lambda *_: None)
    oracle = benchmark.Oracle(losses=losses, interactions=losses.interactions(), likely=benchmark._likely(losses))
    first, again = (list(benchmark.drawn(model, choices, oracle, count=4, seed=1)) for _ in range(2))
    assert first == again
    assert first != list(benchmark.drawn(model, choices, oracle, count=4, seed=2))
    for plan in first:
        assert all(name in choices[layer] for layer, name in plan.items())
        assert list(plan) == [layer.name for layer in model.graph.layers]
        planner.rewrite.apply(model.graph, plan, model.data().inputs("calibration"))
        told = oracle.all(plan)
        assert told["top1"]["expected"] == pytest.approx(oracle.expected(plan))
        assert set(told["top1"]) == set(benchmark.TOP1)
        assert set(told["loss"]) == set(benchmark.LOSS)
    assert any(is_masked(name) for plan in first for name in plan.values())

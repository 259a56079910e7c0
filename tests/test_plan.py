from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest
from drawn_tables import best_value, budgets, tables
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from problems import choice, small_table, two_layers

import solvers
from costmodels import (
    CostTable,
    LayerCosts,
    ModelCosts,
)
from planner.budget import Budget
from planner.errors import InfeasibleError, InputError, LimitError
from planner.figures import figures
from planner.plan import Plan, check
from planner.planning import plan

OFTEN = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


def loss_of(plan: Plan, model: str) -> float:
    return sum(layer.loss for layer in plan.layers if layer.model == model)


@OFTEN
@given(table=tables(), budget=budgets, objective=st.sampled_from(["loss", "latency", "memory"]))
@pytest.mark.parametrize("solver", ["cpsat", "highs", "exhaustive"])
def test_plans_are_the_best_of_all_combinations(solver: str, table: CostTable, budget: Budget, objective: str) -> None:
    try:
        best = best_value(table, budget, objective)
        found = plan(table, budget, solver, objective=objective, workers=1, explains=False)  # type: ignore[arg-type]
    except InfeasibleError:
        assert best is None
        return
    except InputError as error:
        assert "tied layers cannot" in str(error)  # noqa: PT017
        return
    value = {"loss": found.loss, "latency": sum(found.latency_ns.values()) / 1e6, "memory": found.memory_mib}[objective]
    assert value == pytest.approx(float(best), rel=1e-12)
    assert found.status == "optimal" or (solver == "highs" and found.gap < 1e-4)
    assert check(found, table) == ()


@OFTEN
@given(table=tables(), budget=budgets, quantile=st.sampled_from([0.9, 0.99]))
def test_a_quantile_is_kept_by_the_best_plan_there_is(table: CostTable, budget: Budget, quantile: float) -> None:
    budget = replace(budget, latency_quantile=quantile)
    try:
        best = best_value(table, budget, "loss")
        found = plan(table, budget, workers=1, explains=False)
    except InfeasibleError:
        assert best is None
        return
    except InputError as error:
        assert "tied layers cannot" in str(error)  # noqa: PT017
        return
    assert check(found, table) == ()
    assert found.status == "optimal"
    assert found.loss == pytest.approx(float(best), rel=1e-12)
    assert found.bound <= float(best) * (1 + 1e-12)


@given(table=tables(), budget=budgets, objective=st.sampled_from(["latency", "memory"]))
@OFTEN
def test_other_objectives_are_bounded_under_a_quantile(table: CostTable, budget: Budget, objective: str) -> None:
    budget = replace(budget, latency_quantile=0.9)
    try:
        best = best_value(table, budget, objective)
        found = plan(table, budget, objective=objective, workers=1, explains=False)  # type: ignore[arg-type]
    except InfeasibleError:
        assert best is None
        return
    except InputError as error:
        assert "tied layers cannot" in str(error)  # noqa: PT017
        return
    assert check(found, table) == ()
    value = sum(found.latency_ns.values()) / 1e6 if objective == "latency" else found.memory_mib
    assert found.bound <= float(best) * (1 + 1e-12) <= value * (1 + 1e-9)
    if len(table.models) == 1 or objective == "memory":
        assert found.status == "optimal"
        assert value == pytest.approx(float(best), rel=1e-12)


@OFTEN
@given(table=tables(), budget=budgets)
def test_greedy_keeps_every_bound_and_is_never_better(table: CostTable, budget: Budget) -> None:
    try:
        best = best_value(table, budget, "loss")
        found = plan(table, budget, "greedy")
    except LimitError:
        return
    except InputError as error:
        assert "tied layers cannot" in str(error)  # noqa: PT017
        return
    assert check(found, table) == ()
    assert found.bound <= float(best) <= found.loss + 1e-12


def test_takes_the_cheapest_loss_within_a_deadline() -> None:
    found = plan(small_table(), Budget(latency_ms="0.0024"))
    assert found.choices == {"m": {"conv1": "lowrank@0.5", "conv2": "exact"}}
    assert (found.loss, found.bound, found.gap, found.status) == (0.01, 0.01, 0.0, "optimal")
    assert found.latency_ms == {"m": 0.0024}
    assert found.memory_bytes == 500 + 2000 + 800


def test_a_bound_that_is_just_met_is_kept_and_one_below_is_not() -> None:
    assert plan(small_table(), Budget(latency_ms="0.0014")).loss == 0.04
    with pytest.raises(InfeasibleError):
        plan(small_table(), Budget(latency_ms="0.001399"))


def test_the_arena_is_shared_or_separate() -> None:
    table = CostTable(models=(two_layers("a"), two_layers("b")))
    assert plan(table, Budget()).memory_bytes == 6000 + 900
    assert plan(table, Budget(arena="separate")).memory_bytes == 6000 + 1800
    tight = Budget(memory_mib=Decimal(6900) / 2**20)
    assert plan(table, tight).loss == 0
    assert plan(table, replace(tight, arena="separate")).loss > 0


def test_models_are_bound_one_by_one() -> None:
    table = CostTable(models=(two_layers("a"), two_layers("b")))
    found = plan(table, Budget(latency_ms={"a": "0.0014", "b": "0.003"}))
    assert set(found.choices["a"].values()) == {"lowrank@0.5", "int8"}
    assert set(found.choices["b"].values()) == {"exact"}
    assert found.latency_ns == {"a": 1400, "b": 3000}


def test_the_model_that_loses_most_loses_as_little_as_it_can() -> None:
    table = CostTable(models=(two_layers("a"), two_layers("b")))
    # One of the eight layers' savings of 2000 bytes, or two small ones: .03 lost at once, or .01 by each.
    tight = Budget(memory_mib=Decimal(6900 - 1000) / 2**20)
    together = plan(table, tight)
    fair = plan(table, tight, objective="worst")
    assert sorted(loss_of(fair, model) for model in "ab") == [0.01, 0.01]
    assert together.loss == pytest.approx(0.02)
    tighter = Budget(memory_mib=Decimal(6900 - 2000) / 2**20)
    assert plan(table, tighter).loss == pytest.approx(0.04)
    fair = plan(table, tighter, objective="worst")
    assert (max(loss_of(fair, model) for model in "ab"), fair.status, fair.bound) == (0.03, "optimal", 0.03)
    assert check(fair, table) == ()


@OFTEN
@given(table=tables(), budget=budgets)
def test_the_worst_loss_is_the_least_of_all_combinations(table: CostTable, budget: Budget) -> None:
    try:
        best = best_value(table, budget, "worst")
        found = plan(table, budget, objective="worst", workers=1, explains=False)
    except InfeasibleError:
        assert best is None
        return
    except InputError as error:
        assert "tied layers cannot" in str(error) or "of its own" in str(error)  # noqa: PT017
        return
    assert found.bound == pytest.approx(float(best), rel=1e-12)
    assert figures(table, found.choices, budget).losses.keys() == found.latency_ns.keys()
    assert max(figures(table, found.choices, budget).losses.values()) == best
    assert check(found, table) == ()


def test_overhead_scale_and_fixed_bytes_count() -> None:
    found = plan(small_table(overhead_ns=100, scale=1.5, fixed_bytes=7), Budget())
    assert found.latency_ns == {"m": 100 + 1500 + 3000}
    assert found.weight_bytes == {"m": 3007}


def test_among_the_fastest_plans_takes_the_one_of_least_loss() -> None:
    layer = LayerCosts(name="a", choices=(choice("bad", 5, 1, 0.9), choice("good", 5, 1, 0.1), choice("slow", 9, 1)))
    table = CostTable(models=(ModelCosts(name="m", layers=(layer,)),))
    for solver in ("cpsat", "highs", "exhaustive", "greedy"):
        assert plan(table, Budget(), solver, objective="latency").choices == {"m": {"a": "good"}}


def test_finds_the_fastest_plan_above_an_accuracy_bar() -> None:
    found = plan(small_table(), Budget(loss=0.03), objective="latency")
    assert found.choices == {"m": {"conv1": "exact", "conv2": "int8"}}
    assert found.bound == pytest.approx(0.002)


def test_says_which_bounds_conflict_and_the_least_relaxation() -> None:
    with pytest.raises(InfeasibleError) as refused:
        plan(small_table(), Budget(latency_ms="0.0024", memory_mib=Decimal(2000) / 2**20, loss="0.02"))
    why = refused.value.explanation
    assert why is not None
    assert why.minimal
    # 2000 bytes need both layers approximated (loss 0.04), whatever the latency.
    assert set(why.conflict) == {"memory", "loss"}
    by_name = {relaxation.name: relaxation for relaxation in why.relaxations}
    assert by_name["loss"].given_others == 0.04
    assert by_name["memory"].given_others == pytest.approx(3300 / 2**20)
    assert by_name["latency of m"].given_others is None
    assert by_name["latency of m"].alone == 0.0014
    assert why.least_memory_mib == pytest.approx(1800 / 2**20)
    # conv2 alone approximated: 2400 bytes (1.2 times what is allowed) and a loss of 0.03 (1.5 times).
    assert why.uniform == pytest.approx(1.5, rel=2e-4)
    assert "no plan keeps these bounds together: loss, memory" in str(refused.value)


def test_the_relaxations_are_enough() -> None:
    budget = Budget(latency_ms="0.002", memory_mib=Decimal(2000) / 2**20, loss="0.02")
    with pytest.raises(InfeasibleError) as refused:
        plan(small_table(), budget)
    why = refused.value.explanation
    grown = {
        "latency_ms": Decimal("0.002") * Decimal(why.uniform),
        "memory_mib": Decimal(2000) / 2**20 * Decimal(why.uniform),
        "loss": Decimal("0.02") * Decimal(why.uniform),
    }
    assert plan(small_table(), Budget(**{k: v * Decimal("1.000001") for k, v in grown.items()})).status == "optimal"
    with pytest.raises(InfeasibleError):
        plan(small_table(), Budget(**{k: v * Decimal("0.999") for k, v in grown.items()}))


def test_without_a_limit_left_says_limit_and_not_infeasible() -> None:
    with pytest.raises(LimitError, match="greedy found no plan and cannot tell"):
        plan(small_table(), Budget(latency_ms="0.0001"), "greedy")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"solver": "magic"}, r"unknown solver .magic.; there are: .*cpsat"),
        ({"time_limit_s": 0}, "time limit is 0"),
        ({"time_limit_s": float("nan")}, "time limit is nan"),
        ({"seed": -1}, "seed is -1"),
        ({"workers": 0}, "workers is 0"),
        ({"objective": "joy"}, "'joy'.*expected 'loss'"),
        ({"budget": Budget(latency_ms={"x": 1})}, "'x'.*there are: m"),
    ],
)
def test_bad_arguments_are_refused_with_what_exists(change: dict[str, object], expected: str) -> None:
    arguments = {"table": small_table(), "budget": Budget()} | change
    with pytest.raises(InputError, match=expected):
        plan(**arguments)  # type: ignore[arg-type]


def test_exhaustive_refuses_what_is_too_large() -> None:
    layers = tuple(LayerCosts(name=f"l{i}", choices=(choice("a"), choice("b", 500, loss=0.1))) for i in range(40))
    table = CostTable(models=(ModelCosts(name="m", layers=layers),))
    with pytest.raises(InputError, match="exhaustive"):
        plan(table, Budget(), "exhaustive")


def test_a_plan_reads_back_identical(tmp_path: Path) -> None:
    found = plan(small_table(), Budget(latency_ms={"m": "0.0024"}, memory_mib=0.1))
    found.write(tmp_path / "plan.json")
    assert Plan.read(tmp_path / "plan.json") == found
    keys = json.loads((tmp_path / "plan.json").read_text())
    assert {"choices", "loss", "bound", "gap", "status", "latency_ms", "memory_mib", "budget"} <= keys.keys()
    assert "lowrank@0.5" in str(found)


@pytest.mark.parametrize(
    "change",
    [
        lambda p: p["layers"][0].update(choice="exact"),
        lambda p: p.update(memory_mib=0.1),
        lambda p: p.pop("loss"),
        lambda p: p.update(status="best"),
        lambda p: p.update(kind="x"),
        lambda p: p.update(budget={"latency_ms": -1}),
    ],
)
def test_a_plan_that_does_not_hang_together_is_not_read(tmp_path: Path, change: object) -> None:
    path = tmp_path / "plan.json"
    plan(small_table(), Budget(latency_ms="0.0024")).write(path)
    content = json.loads(path.read_text())
    change(content)  # type: ignore[operator]
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"plan\.json"):
        Plan.read(path)


def test_the_check_finds_what_was_changed() -> None:
    table = small_table()
    found = plan(table, Budget(latency_ms="0.0024"))
    assert check(found, table) == ()
    assert "loss is 0.5" in check(replace(found, loss=0.5), table)[0]
    assert any("above the bound" in line for line in check(replace(found, budget=Budget(latency_ms="0.002")), table))
    assert any("bound" in line for line in check(replace(found, bound=0.02), table))
    assert any("made from the table" in line for line in check(found, small_table(overhead_ns=1)))


def test_every_installed_solver_plans(tmp_path: Path) -> None:
    for name in solvers.available():
        capabilities = solvers.get(name).capabilities
        found = plan(small_table(), Budget(latency_ms="0.0024"), name, workers=1, time_limit_s=2)
        assert found.loss == 0.01 if capabilities.exact else found.loss >= 0.01


def test_what_is_expected_stands_beside_what_is_promised_with_a_reserve(tmp_path: Path) -> None:
    table = small_table(overhead_ns=100, scale=1.5, reserve=1.04)
    found = plan(table, Budget())
    model = table.models[0]
    picked = [layer.choice(found.choices[model.name][layer.name]) for layer in model.layers]
    expected = 100 + 1.5 * sum(choice.latency_ns for choice in picked)
    assert found.expected_ns == {model.name: round(expected)}
    assert expected < found.latency_ns[model.name] <= 1.05 * expected
    assert "ms expected" in str(found)
    found.write(tmp_path / "plan.json")
    assert Plan.read(tmp_path / "plan.json") == found
    assert not check(found, table)
    wrong = replace(found, expected_ns={model.name: 1})
    assert any("expected_ns" in text for text in check(wrong, table))

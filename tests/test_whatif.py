from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest
from problems import small_table, two_layers

from costmodels import CostTable
from planner.budget import Budget
from planner.compare import compare_solvers, generate, relative_budget
from planner.errors import InfeasibleError, InputError
from planner.planning import plan
from planner.whatif import diff, price, sweep

LATENCIES = ["0.001", "0.0014", "0.002", "0.0024", "0.003"]


def test_a_sweep_keeps_points_without_a_plan_with_the_reason() -> None:
    frontier = sweep(small_table(), Budget(), latency_ms=LATENCIES)
    assert [point.status for point in frontier.points] == ["infeasible", *["optimal"] * 4]
    assert "latency <= 0.001 ms" in frontier.points[0].reason
    assert [found.loss for found in frontier.plans] == [0.04, 0.03, 0.01, 0.0]


def test_a_sweep_crosses_both_bounds() -> None:
    memory = [Decimal(n) / 2**20 for n in (2400, 4000)]
    frontier = sweep(small_table(), Budget(), latency_ms=["0.002", "0.003"], memory_mib=memory)
    assert [point.plan.loss for point in frontier.points if point.plan] == [0.03, 0.03, 0.03, 0.0]
    frame = frontier.to_frame()
    assert list(frame["allowed_ms"]) == [0.002, 0.003, 0.002, 0.003]
    assert list(frame["loss"]) == [0.03, 0.03, 0.03, 0.0]
    assert list(frame["latency_ms[m]"]) == [0.002, 0.002, 0.002, 0.003]


def test_a_sweep_takes_maps_and_leaves_what_it_does_not_sweep() -> None:
    table = CostTable(models=(two_layers("a"), two_layers("b")))
    maps = [{"a": "0.0014", "b": "0.003"}, {"a": "0.003", "b": "0.003"}]
    frontier = sweep(table, Budget(memory_mib=1), latency_ms=maps)
    assert [found.loss for found in frontier.plans] == [0.04, 0.0]
    assert all(found.budget.memory_mib == 1 for found in frontier.plans)
    assert list(frontier.to_frame()["allowed_ms[a]"]) == [0.0014, 0.003]


def test_more_is_never_worse() -> None:
    table = generate(3, models=1, layers=12, choices=5)
    exact = float(relative_budget(table, 1.0, 1.0).latency_ms["model0"])
    losses = [p.loss for p in sweep(table, Budget(), latency_ms=[exact * s / 20 for s in range(8, 21)]).plans]
    assert len(losses) > 5
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] == 0.0


def test_a_sweep_over_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="no bounds to sweep"):
        sweep(small_table(), Budget(), latency_ms=[])


def test_the_plot_shows_plans_and_what_has_none() -> None:
    pytest.importorskip("matplotlib").use("Agg")
    axes = sweep(small_table(), Budget(), latency_ms=LATENCIES).plot()
    drawn = [line.get_xydata().tolist() for line in axes.lines]
    assert drawn[0] == [[0.0014, 0.04], [0.002, 0.03], [0.0024, 0.01], [0.003, 0.0]]
    assert drawn[1] == [[0.001, 0.0]]
    assert axes.get_xlabel() == "latency allowed (ms)"


def test_says_what_the_next_millisecond_and_mib_buy() -> None:
    budget = Budget(latency_ms="0.002", memory_mib=1)
    latency, memory = price(small_table(), budget, step=0.2)
    assert (latency.loss, latency.loss_more, latency.loss_less) == (0.03, 0.01, 0.04)
    assert latency.step == pytest.approx(0.0004)
    assert latency.saves_per_unit == pytest.approx(0.02 / 0.0004)
    assert memory.saves_per_unit == 0
    assert "near this budget" in str(latency)


def test_a_price_knows_the_steps_on_either_side() -> None:
    latency, memory = price(small_table(), Budget(latency_ms="0.0021", memory_mib=1), step=0.2)
    # conv2 approximated takes 2000 ns; conv1 approximated 2400 and loses less.
    assert (latency.same_from, latency.next_at, latency.next_loss) == (0.002, 0.0024, 0.01)
    # Mixed plans do better: from 1400 ns, both approximated, to 2400 ns 0.03 of loss buys 1000 ns.
    assert latency.marginal == pytest.approx(0.03 / 0.001)
    assert (latency.marginal_from, latency.marginal_to) == (pytest.approx(0.0014), pytest.approx(0.0024))
    assert memory.next_at is None
    assert (memory.marginal, memory.marginal_to) == (0.0, None)
    assert "the next lower one, 0.01, from 0.0024 ms on" in str(latency)
    assert "near this budget: the same loss from 0.002 ms on" in str(latency)


def test_heuristics_price_without_steps() -> None:
    (latency,) = price(small_table(), Budget(latency_ms="0.0021"), solver="greedy")
    assert (latency.same_from, latency.next_at, latency.marginal) == (None, None, None)
    assert "between steps" not in str(latency)


def test_a_price_without_a_plan_explains() -> None:
    with pytest.raises(InfeasibleError, match="latency of m"):
        price(small_table(), Budget(latency_ms="0.001"))
    with pytest.raises(InputError, match="neither"):
        price(small_table(), Budget())


def test_two_plans_differ_in_the_layers_that_change() -> None:
    loose, tight = (plan(small_table(), Budget(latency_ms=ms)) for ms in ("0.003", "0.0024"))
    difference = diff(loose, tight)
    assert difference.changed == (("m", "conv1", "exact", "lowrank@0.5"),)
    assert difference.loss == 0.01
    assert difference.latency_ms == {"m": pytest.approx(-0.0006)}
    assert diff(loose, loose).changed == ()
    assert "m/conv1: exact -> lowrank@0.5" in str(difference)


def test_solvers_are_compared_on_the_same_instances(tmp_path: Path) -> None:
    tables = {"small": small_table(), "none": small_table()}
    budgets = {"small": Budget(latency_ms="0.0024"), "none": Budget(latency_ms="0.0001")}
    comparison = compare_solvers(tables, budgets, ["cpsat", "greedy"], workers=1)
    got = {(run.solver, run.instance): (run.status, run.loss, run.checked) for run in comparison.runs}
    assert got["cpsat", "small"] == ("optimal", 0.01, True)
    assert got["greedy", "small"][1:] == (0.01, True)
    assert got["cpsat", "none"] == ("infeasible", None, None)
    assert got["greedy", "none"] == ("limit", None, None)
    comparison.write(tmp_path / "c.csv")
    assert (tmp_path / "c.csv").read_text().startswith("solver,instance,status,loss,bound,gap,seconds,checked")


def test_what_a_solver_refuses_is_said_and_not_hidden() -> None:
    table = generate(0, models=1, layers=40, choices=5)
    run = compare_solvers([table], Budget(), ["exhaustive"]).runs[0]
    assert run.status == "refused"
    assert "at most" in run.note


def test_exact_solvers_agree_on_generated_tables() -> None:
    tables = [generate(seed, models=2, layers=10, choices=6) for seed in range(3)]
    budgets = [relative_budget(table, 0.75, 0.75) for table in tables]
    frame = compare_solvers(tables, budgets, ["cpsat", "highs", "greedy"], workers=1).to_frame()
    for _, rows in frame.groupby("instance"):
        loss = rows.set_index("solver")["loss"]
        assert loss["highs"] == pytest.approx(loss["cpsat"], rel=1e-5)
        assert loss["greedy"] >= loss["cpsat"]
    assert frame["checked"].all()


def test_the_same_seed_generates_the_same_table() -> None:
    assert generate(5, 2, 4, 3) == generate(5, 2, 4, 3)
    assert generate(5, 2, 4, 3).digest != generate(6, 2, 4, 3).digest


def test_comparisons_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(InputError, match="unknown solver"):
        compare_solvers([small_table()], Budget(), ["magic"])
    with pytest.raises(InputError, match="2 budgets for 1 tables"):
        compare_solvers([small_table()], [Budget(), Budget()])
    with pytest.raises(InputError, match="1 or more"):
        generate(0, models=0)

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from problems import oracle, small_problems

import solvers
from solvers import Peak, Problem, Row, Status
from solvers.check import values
from solvers.instances.generate import generate
from solvers.reduction import reduce
from solvers.simplify import Verdict, cheapest, plain

AUTO = solvers.get("auto")
OFTEN = settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))


@OFTEN
@given(problem=small_problems())
def test_it_finds_the_optimum_or_proves_that_there_is_none(problem: Problem) -> None:
    best = oracle(problem)
    solution = AUTO.solve(problem, time_limit_s=20, workers=1)
    if best is None:
        assert solution.status is Status.INFEASIBLE
    else:
        assert (solution.status, solution.objective, solution.bound) == (Status.OPTIMAL, best, best)


@OFTEN
@given(problem=small_problems())
def test_a_first_look_changes_no_answer(problem: Problem) -> None:
    problem = reduce(problem).problem
    if problem is None:
        return
    seen = plain(problem)
    best = oracle(problem)
    if seen.verdict is Verdict.IMPOSSIBLE:
        assert best is None
    else:
        assert oracle(seen.problem) == best
    if seen.verdict is Verdict.FREE:
        assert values(problem, cheapest(problem))[problem.objective] == best


def test_a_capacity_that_nothing_keeps_is_named() -> None:
    rows = (
        Row(name="loss", options=[0], costs=[1]),
        Row(name="memory", options=[0, 1], costs=[5, 4], constant=3, capacity=6),
    )
    solution = AUTO.solve(Problem(start=[0, 2], rows=rows))
    assert solution.status is Status.INFEASIBLE
    assert solution.note == "memory alone cannot be kept"


def test_where_nothing_binds_the_cheapest_options_are_best() -> None:
    peak = Peak(name="arena", options=[0, 1, 2], costs=[4, 9, 2])
    rows = (
        Row(name="loss", options=[0, 1, 2, 3], costs=[3, 2, 0, 5]),
        Row(name="memory", options=[0, 1, 2, 3], costs=[1, 1, 1, 1], peaks=(0,), capacity=11),
    )
    solution = AUTO.solve(Problem(start=[0, 2, 4], rows=rows, peaks=(peak,)))
    assert (solution.choices, solution.objective, solution.bound) == ((1, 0), 2, 2)
    assert solution.bound_solver == "bounds alone"


@pytest.mark.parametrize(("pairs", "peaks"), [(False, False), (True, False), (True, True)])
def test_it_agrees_with_an_exact_solver_on_networks(*, pairs: bool, peaks: bool) -> None:
    for seed, topology in enumerate(("chain", "skips", "branches")):
        problem = generate(seed, layers=12, options=6, topology=topology, pairs=pairs, peaks=peaks)
        found = AUTO.solve(problem, time_limit_s=20)
        assert found.status is Status.OPTIMAL
        assert found.objective == solvers.get("cpsat").solve(problem, time_limit_s=20).objective
        assert "choice by " in found.note
        assert found.bound_solver


def test_many_dense_capacities_are_listed_in_depth() -> None:
    rng = np.random.default_rng(0)
    groups, places, rows = 12, 6, 7
    options = np.arange(groups * places)
    lost = Row(name="value lost", options=options, costs=rng.integers(0, 100, len(options)))
    use = rng.integers(1, 10, (rows, len(options)))
    resources = [Row(name=f"resource {i}", options=options, costs=use[i], capacity=62) for i in range(rows)]
    problem = Problem(start=np.arange(0, len(options) + 1, places), rows=(lost, *resources))
    found = AUTO.solve(problem, time_limit_s=20)
    assert (found.status, found.bound_solver) == (Status.OPTIMAL, "core")
    assert found.objective == solvers.get("cpsat").solve(problem, time_limit_s=20).objective


def test_large_problems_stay_with_prices() -> None:
    problem = generate(0, models=60, layers=100, options=8)
    found = AUTO.solve(problem, time_limit_s=20, gap=1e-3)
    assert found.note == "choice by lagrangian, bound by lagrangian"
    assert found.gap <= 1e-3


def test_a_hint_is_never_made_worse() -> None:
    problem = generate(3, models=3, layers=30, options=8, pairs=True, peaks=True)
    first = AUTO.solve(problem, time_limit_s=20, gap=0.05)
    again = AUTO.solve(problem, time_limit_s=0.05, hint=first.choices)
    assert again.objective <= first.objective


def test_who_watches_sees_both_ends_close_in() -> None:
    heard: list[tuple[float, int | None, int | None]] = []
    problem = generate(5, models=2, layers=15, options=6, pairs=True)
    solution = AUTO.solve(problem, time_limit_s=20, watch=lambda *news: heard.append(news))
    assert heard[-1][1:] == (solution.objective, solution.bound)
    for (before, best, bound), (after, better, higher) in itertools.pairwise(heard):
        assert before <= after
        assert best is None or better <= best
        assert bound is None or higher >= bound


@pytest.mark.parametrize("seed", range(3))
def test_it_stops_at_the_gap_asked_for(seed: int) -> None:
    problem = generate(seed, models=2, layers=20, options=6, pairs=True, peaks=True)
    solution = AUTO.solve(problem, time_limit_s=20, gap=0.1)
    assert solution.gap <= 0.1


def test_without_time_it_claims_nothing() -> None:
    problem = generate(0, models=4, layers=50, options=8, pairs=True, peaks=True)
    solution = AUTO.solve(problem, time_limit_s=0.01)
    assert solution.status in (Status.LIMIT, Status.FEASIBLE)
    assert np.isfinite(solution.seconds)
    assert solution.seconds < 5

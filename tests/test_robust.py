from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from problems import oracle, small_problems

from solvers import Limits, Problem, Row, Solution, Status, cpsat, exhaustive, greedy, robust
from solvers.check import verify
from solvers.instances.generate import generate
from solvers.spread import Spread

OFTEN = settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
LIMITS = Limits(time_s=20.0, workers=1)


@st.composite
def spread_problems(draw: st.DrawFn, largest: int = 30) -> Problem:
    """Draw small problems in which some rows, perhaps the objective, have a spread."""
    problem = draw(small_problems(largest=largest))
    problem = replace(problem, ties=(), forbidden=(), then=())
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    z = draw(st.sampled_from([Fraction(0), Fraction(1, 3), Fraction(1), Fraction(233, 100)]))
    rows = []
    for row in problem.rows:
        options = np.flatnonzero(rng.random(problem.options) < 0.7)
        variances = rng.integers(0, largest * largest, len(options))
        spread = Spread(options=options, variances=variances, z=z) if rng.random() < 0.7 else None
        rows.append(replace(row, spread=spread))
    return replace(problem, rows=tuple(rows))


def linear_only(problem: Problem, limits: Limits, hint: object = None) -> Solution:
    """Try everything, for problems without spreads only."""
    assert all(row.spread is None for row in problem.rows)
    return exhaustive.solve(problem, limits)


@OFTEN
@given(problem=spread_problems())
def test_an_exact_solver_stays_exact(problem: Problem) -> None:
    best = oracle(problem)
    solution = robust.solve(problem, linear_only, LIMITS)
    verify(problem, solution)
    if best is None:
        assert solution.status is Status.INFEASIBLE
    else:
        assert solution.status is Status.OPTIMAL
        assert solution.objective == best


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(problem=spread_problems(largest=10**8))
def test_it_is_exact_where_variances_are_large(problem: Problem) -> None:
    best = oracle(problem)
    solution = robust.solve(problem, linear_only, LIMITS)
    verify(problem, solution)
    assert solution.objective == best
    assert solution.status is (Status.INFEASIBLE if best is None else Status.OPTIMAL)


@OFTEN
@given(problem=spread_problems())
def test_a_heuristic_keeps_the_rows_and_claims_nothing_that_is_wrong(problem: Problem) -> None:
    best = oracle(problem)
    solution = robust.solve(problem, greedy.solve, LIMITS)
    verify(problem, solution)
    if best is None:
        assert solution.choices is None
    else:
        assert solution.status is not Status.INFEASIBLE
        assert solution.bound is None or solution.bound <= best


def uncertain(seed: int, layers: int, share: float) -> Problem:
    """Make an instance whose latency spreads by 3 to 15 % in every layer; ``share`` more than the mean is allowed."""
    problem = generate(seed, layers=layers)
    latency = problem.rows[1]
    deviation = latency.costs * np.random.default_rng(seed).uniform(0.03, 0.15, len(latency.costs))
    spread = Spread(options=latency.options, variances=np.round(deviation**2).astype(np.int64), z=Fraction(233, 100))
    row = replace(latency, spread=spread, capacity=int(latency.capacity * (1 + share)))
    return replace(problem, rows=(problem.rows[0], row, problem.rows[2]))


@pytest.mark.parametrize("seed", [0, 1])
def test_a_model_of_forty_layers_is_proven(seed: int) -> None:
    problem = uncertain(seed, 40, 0.05)
    solution = robust.solve(problem, cpsat.solve, Limits(time_s=30, workers=1))
    verify(problem, solution)
    assert solution.status is Status.OPTIMAL
    median = replace(problem, rows=tuple(replace(row, spread=None) for row in problem.rows))
    assert cpsat.solve(median, LIMITS).objective < solution.objective


def test_what_is_reported_on_the_way_only_gets_better() -> None:
    seen: list[tuple[int | None, int | None]] = []

    def watch(seconds: float, objective: int | None, bound: int | None) -> None:
        seen.append((objective, bound))

    solution = robust.solve(uncertain(2, 20, 0.0), cpsat.solve, replace(LIMITS, watch=watch))
    objectives = [objective for objective, _ in seen if objective is not None]
    bounds = [bound for _, bound in seen if bound is not None]
    assert objectives == sorted(objectives, reverse=True)
    assert bounds == sorted(bounds)
    assert (objectives[-1], bounds[-1]) == (solution.objective, solution.bound)


def test_a_choice_to_start_from_is_kept_where_the_solver_finds_none() -> None:
    def helpless(problem: Problem, limits: Limits, hint: object = None) -> Solution:
        return Solution(status=Status.LIMIT)

    problem = Problem(
        start=[0, 2],
        rows=(
            Row(name="loss", options=[1], costs=[7]),
            Row(
                name="time",
                options=[0, 1],
                costs=[9, 4],
                capacity=6,
                spread=Spread(options=[0, 1], variances=[1, 4], z=Fraction(1)),
            ),
        ),
    )
    solution = robust.solve(problem, helpless, LIMITS, hint=(1,))
    assert (solution.status, solution.objective, solution.bound) == (Status.FEASIBLE, 7, 0)
    assert robust.solve(problem, helpless, LIMITS, hint=(0,)).status is Status.LIMIT


def test_many_rows_that_spread_come_close_in_little_time() -> None:
    problem = generate(1, models=4, layers=12)
    rows = list(problem.rows)
    for index in range(1, 5):
        deviation = rows[index].costs * 0.1
        spread = Spread(options=rows[index].options, variances=np.round(deviation**2).astype(np.int64), z=Fraction(2))
        rows[index] = replace(rows[index], spread=spread, capacity=int(rows[index].capacity * 1.05))
    problem = replace(problem, rows=tuple(rows))
    solution = robust.solve(problem, cpsat.solve, Limits(time_s=20, workers=1))
    verify(problem, solution)
    assert solution.gap <= 0.01

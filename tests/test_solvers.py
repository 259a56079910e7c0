from __future__ import annotations

import itertools

import pytest
from hypothesis import HealthCheck, given, settings
from problems import small_problems

import solvers
from solvers import Problem, Status
from solvers.check import broken, floor, values

EXACT = [name for name in solvers.available() if solvers.get(name).capabilities.exact]
HEURISTIC = [name for name in solvers.available() if not solvers.get(name).capabilities.exact]
OFTEN = settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))


def oracle(problem: Problem) -> int | None:
    """Return the optimum by trying all combinations with the checker alone."""
    sizes = [range(int(b - a)) for a, b in zip(problem.start[:-1], problem.start[1:], strict=True)]
    return min(
        (values(problem, c)[problem.objective] for c in itertools.product(*sizes) if not broken(problem, c)),
        default=None,
    )


@OFTEN
@given(problem=small_problems())
@pytest.mark.parametrize("name", EXACT)
def test_every_exact_solver_agrees_with_trying_everything(name: str, problem: Problem) -> None:
    best = oracle(problem)
    solution = solvers.get(name).solve(problem, time_limit_s=20, workers=1)
    if best is None:
        assert solution.status is Status.INFEASIBLE
    else:
        assert solution.status is Status.OPTIMAL
        assert solution.objective == solution.bound == best


@OFTEN
@given(problem=small_problems())
@pytest.mark.parametrize("name", HEURISTIC)
def test_heuristics_keep_the_capacities_and_are_never_better(name: str, problem: Problem) -> None:
    best = oracle(problem)
    solution = solvers.get(name).solve(problem, time_limit_s=20)
    if best is None:
        assert solution.status is Status.LIMIT
    if solution.choices is not None:
        assert not broken(problem, solution.choices)
        assert solution.objective >= best >= solution.bound


@OFTEN
@given(problem=small_problems())
def test_the_simple_bound_never_lies_above_the_optimum(problem: Problem) -> None:
    best = oracle(problem)
    assert best is None or floor(problem) <= best


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(problem=small_problems(largest=10**9))
def test_bounds_hold_where_figures_are_large(problem: Problem) -> None:
    best = oracle(problem)
    for name in EXACT:
        solution = solvers.get(name).solve(problem, time_limit_s=20, workers=1)
        if best is None:
            assert solution.status is Status.INFEASIBLE
            continue
        assert solution.status in (Status.OPTIMAL, Status.FEASIBLE)
        assert solution.bound <= best <= solution.objective
        assert solution.objective - solution.bound <= 1e-5 * best

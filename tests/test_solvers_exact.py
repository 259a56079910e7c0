"""Every exact solver beside trying everything, on small problems with every feature.

``BLINKPLAN_DEEP=1`` looks at 2,000 problems a solver and property, other ones in each run.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st
from problems import oracle, oracle_values, small_problems

import solvers
from solvers import Problem, RefusedError, Solution, Status
from solvers.check import broken, floor, values

DEEP = os.environ.get("BLINKPLAN_DEEP") == "1"
EXACT = [name for name in solvers.available() if solvers.get(name).capabilities.exact]
FLOATS = ("cbc", "highs", "scip", "scipy")
"""Exact solvers in floating point; between lines in place of a spread, some cannot prove the last unit."""
UNPROVEN = ("anneal", "greedy", "nsga2")
"""Solvers that know no bound but the simplest; these have tests of their own."""


def often(examples: int) -> settings:
    """Look at so many examples, and at 2,000 in a deep run."""
    return settings(
        max_examples=2000 if DEEP else examples,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
    )


def taken(name: str, **more: object) -> st.SearchStrategy[Problem]:
    """Draw problems that have all that a solver says it takes."""
    able = solvers.get(name).capabilities
    return small_problems(pairs=able.pairs, peaks=able.peaks, **more)


def answered(name: str, problem: Problem, **more: object) -> Solution:
    """Solve, on one thread; a problem that a solver refuses is no example of what it answers.

    Exact solvers get time to prove their answer; the claims of others hold whenever they end.
    """
    seconds = 20 if name in EXACT else 1
    try:
        return solvers.get(name).solve(problem, time_limit_s=seconds, workers=1, **more)
    except RefusedError:
        reject()


def claims_hold(problem: Problem, solution: Solution) -> None:
    """Assert that what an answer claims is true, whether it is the best or not."""
    best = oracle(problem)
    if best is None:
        assert solution.status in {Status.INFEASIBLE, Status.LIMIT}
        return
    assert solution.status is not Status.INFEASIBLE
    assert solution.bound is None or solution.bound <= best
    if solution.choices is not None:
        assert not broken(problem, solution.choices)
        assert solution.objective >= best
    if solution.status is Status.OPTIMAL:
        assert reached(problem, solution.choices) == oracle_values(problem)


def proven(name: str, problem: Problem, solution: Solution) -> None:
    """Assert that an exact solver proved what there is to prove."""
    if oracle(problem) is None:
        assert solution.status is Status.INFEASIBLE
    elif name in FLOATS and any(row.spread is not None for row in problem.rows):
        assert solution.status in {Status.OPTIMAL, Status.FEASIBLE}
    else:
        assert solution.status is Status.OPTIMAL


def reached(problem: Problem, choices: Sequence[int]) -> tuple[int, ...]:
    """Return what the objective and the rows minimised after it come to."""
    came = values(problem, choices)
    return tuple(came[row] for row in (problem.objective, *problem.then))


@pytest.mark.parametrize("name", EXACT)
@given(data=st.data())
@often(40)
def test_every_exact_solver_agrees_with_trying_everything(name: str, data: st.DataObject) -> None:
    problem = data.draw(taken(name))
    solution = answered(name, problem)
    claims_hold(problem, solution)
    proven(name, problem, solution)


@pytest.mark.parametrize("name", EXACT)
@given(data=st.data())
@often(20)
def test_what_exact_solvers_claim_holds_where_figures_are_large(name: str, data: st.DataObject) -> None:
    problem = data.draw(taken(name, largest=10**9))
    solution = answered(name, problem)
    claims_hold(problem, solution)
    best = oracle(problem)
    if best is None:
        assert solution.status is Status.INFEASIBLE
    else:
        assert solution.choices is not None
        assert solution.objective - solution.bound <= 1e-5 * best


@pytest.mark.parametrize("name", [name for name in EXACT if solvers.get(name).capabilities.hints])
@given(data=st.data())
@often(20)
def test_hints_of_any_kind_change_no_optimum(name: str, data: st.DataObject) -> None:
    problem = data.draw(taken(name))
    sizes = (problem.start[1:] - problem.start[:-1]).tolist()
    hint = tuple(data.draw(st.integers(0, size - 1)) for size in sizes)
    solution = answered(name, problem, hint=hint)
    claims_hold(problem, solution)
    proven(name, problem, solution)


@pytest.mark.parametrize("name", [name for name in solvers.available() if name not in {*UNPROVEN, "exhaustive"}])
@given(data=st.data())
@often(8)
def test_where_more_is_to_be_searched_bounds_and_proofs_hold_too(name: str, data: st.DataObject) -> None:
    """Here ``exhaustive`` tries all choices, which agrees with the checker where there are few."""
    problem = data.draw(taken(name, groups=(6, 9), then=False, largest=data.draw(st.sampled_from([30, 1000, 10**8]))))
    best = solvers.get("exhaustive").solve(problem)
    solution = answered(name, problem)
    if best.choices is None:
        assert solution.status in {Status.INFEASIBLE, Status.LIMIT}
        return
    assert solution.status is not Status.INFEASIBLE
    assert solution.bound is None or solution.bound <= best.objective
    if solution.choices is not None:
        assert solution.objective >= best.objective
    if name in EXACT:
        assert solution.choices is not None
    if solution.status is Status.OPTIMAL:
        assert solution.objective == best.objective


@given(problem=small_problems())
@often(100)
def test_the_simple_bound_never_lies_above_the_optimum(problem: Problem) -> None:
    best = oracle(problem)
    assert best is None or floor(problem) <= best

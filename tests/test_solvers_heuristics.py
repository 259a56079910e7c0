"""Solvers that promise no proof: what they claim holds all the same, on small problems with every feature."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from problems import small_problems
from test_solvers_exact import answered, claims_hold, often, taken

import solvers
from solvers import Pair, Problem, Row, Solution, Status
from solvers.instances.generate import generate

HEURISTIC = [name for name in solvers.available() if not solvers.get(name).capabilities.exact]
WORK = {"anneal": 300, "nsga2": 300}
"""Limits of work for those that would otherwise look for better answers until the time ends."""
RANDOM = [name for name in WORK if name in HEURISTIC]


@pytest.mark.parametrize("name", HEURISTIC)
@given(data=st.data())
@often(40)
def test_heuristics_keep_the_capacities_and_are_never_better(name: str, data: st.DataObject) -> None:
    problem = data.draw(taken(name))
    claims_hold(problem, answered(name, problem, work=WORK.get(name)))


@pytest.mark.parametrize("name", HEURISTIC)
@given(data=st.data())
@often(15)
def test_what_heuristics_claim_holds_where_figures_are_large(name: str, data: st.DataObject) -> None:
    problem = data.draw(taken(name, largest=10**9))
    claims_hold(problem, answered(name, problem, work=WORK.get(name)))


@pytest.mark.parametrize("name", ["greedy", *RANDOM])
@given(data=st.data())
@often(15)
def test_a_hint_that_keeps_everything_is_never_made_worse(name: str, data: st.DataObject) -> None:
    problem = data.draw(small_problems(then=False))
    best = solvers.get("exhaustive").solve(problem)
    if best.choices is not None:
        solution = answered(name, problem, work=WORK.get(name), hint=best.choices)
        assert solution.objective == best.objective


@pytest.mark.parametrize("name", RANDOM)
def test_a_limit_of_work_gives_the_same_answer_each_time_and_the_seed_another(name: str) -> None:
    problem = generate(3, layers=40)

    def run(seed: int) -> tuple[int, ...] | None:
        return solvers.get(name).solve(problem, seed=seed, work=2000, time_limit_s=100).choices

    assert run(0) == run(0)
    assert len({run(seed) for seed in range(3)}) > 1


@pytest.mark.parametrize("name", RANDOM)
def test_more_work_finds_better_answers(name: str) -> None:
    problem = generate(1, layers=40)
    told: list[int | None] = []

    def objective(work: int, **more: object) -> int:
        solution = solvers.get(name).solve(problem, work=work, time_limit_s=100, **more)
        assert solution.objective is not None
        return solution.objective

    quick = objective(500)
    long = objective(10_000, watch=lambda _, best, bound: told.append(best))
    assert long < quick
    assert told == sorted(told, reverse=True)
    assert told[-1] == long


@pytest.mark.parametrize("name", ["greedy", *RANDOM])
def test_large_problems_get_an_answer_that_keeps_everything(name: str) -> None:
    problem = generate(0, models=4, layers=60, topology="skips", pairs=True, peaks=True)
    solution = solvers.get(name).solve(problem, time_limit_s=20, work=5_000)
    assert solution.status is Status.FEASIBLE
    assert solution.bound <= solution.objective


@pytest.mark.parametrize("name", ["greedy", *RANDOM])
def test_a_limit_of_no_time_is_kept(name: str) -> None:
    problem = generate(0, models=10, layers=200)
    solution = solvers.get(name).solve(problem, time_limit_s=0.01)
    assert solution.status in {Status.FEASIBLE, Status.LIMIT}
    assert solution.seconds < 5


@pytest.mark.parametrize("name", ["greedy", *RANDOM])
def test_where_nothing_keeps_the_capacities_nothing_is_claimed(name: str) -> None:
    def answer(problem: Problem) -> Solution:
        return solvers.get(name).solve(problem, work=1000)

    row = Row(name="time", options=[0, 1, 2, 3], costs=[9, 8, 9, 8], capacity=15)
    assert answer(Problem(start=[0, 2, 4], rows=(row,))).status is Status.LIMIT
    apart = Pair(source=0, target=1, source_format=[0, 0], target_format=[0, 0], allowed=[[False]])
    free = Row(name="time", options=[0], costs=[9])
    assert answer(Problem(start=[0, 2, 4], rows=(free,), pairs=(apart,))).status is Status.LIMIT


def test_ten_thousand_layers_of_a_hundred_models_take_greedy_seconds() -> None:
    problem = generate(0, models=100, layers=100)
    solution = solvers.get("greedy").solve(problem, time_limit_s=60)
    assert solution.status is Status.FEASIBLE
    assert solution.seconds < 20

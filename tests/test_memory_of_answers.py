from __future__ import annotations

from dataclasses import replace

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from problems import small_problems

import solvers
from solvers import Problem, Solution
from solvers.check import verify
from solvers.instances.generate import generate
from solvers.questions.memory import remembering

EXACT = solvers.get("exhaustive")


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(problem=small_problems(), shares=st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_what_is_remembered_changes_no_answer(problem: Problem, shares: list[float]) -> None:
    solver = remembering(EXACT)
    hint = None
    for share in shares:
        capacities = [None if row.capacity is None else int(row.capacity * (0.5 + share)) for row in problem.rows]
        at = problem.with_capacities(capacities)
        found, alone = solver.solve(at, hint=hint), EXACT.solve(at)
        verify(at, found)
        assert (found.status, found.objective) == (alone.status, alone.objective)
        hint = found.choices or hint


def test_nothing_is_asked_twice_and_problems_are_told_apart() -> None:
    asked: list[Problem] = []

    def counted(problem: Problem, limits: object, hint: object) -> Solution:
        asked.append(problem)
        return solvers.cpsat.solve(problem, limits, hint)

    solver = remembering(replace(solvers.get("cpsat"), answer=counted))
    problems = [generate(seed, layers=8, options=4, pairs=True) for seed in (0, 1)]
    first = [solver.solve(problem).objective for problem in problems]
    assert len(asked) == 2
    assert [solver.solve(problem).objective for problem in problems] == first
    assert len(asked) == 2
    assert first[0] != first[1]


def test_a_heuristic_stays_what_it_is() -> None:
    assert remembering(solvers.get("greedy")) == solvers.get("greedy")


def test_a_gap_that_is_asked_for_is_left_to_the_solver() -> None:
    problem = generate(0, layers=8, options=4, pairs=True)
    solver = remembering(solvers.get("cpsat"))
    assert solver.solve(problem, gap=0.5).gap <= 0.5
    assert solver.solve(problem).gap == 0.0

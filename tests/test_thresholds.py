from __future__ import annotations

from hypothesis import given, settings
from problems import oracle, small_problems

import solvers
from solvers import Limits, Peak, Problem, Row, Status, thresholds
from solvers.check import broken


@settings(max_examples=200, deadline=None)
@given(problem=small_problems(pairs=False, ties=False, forbidden=False, spreads=False, then=False, steps=False))
def test_a_solver_without_peaks_answers_for_problems_that_have_them(problem: Problem) -> None:
    assert thresholds.applies(problem)
    best = oracle(problem)

    def answer(easier: Problem, limits: Limits, hint: object) -> solvers.Solution:
        assert not easier.peaks
        return solvers.get("exhaustive").answer(easier, limits, None)

    found = thresholds.solve(problem, answer, Limits(time_s=20))
    if best is None:
        assert found.status is Status.INFEASIBLE
        return
    assert (found.status, found.objective, found.bound) == (Status.OPTIMAL, best, best)
    assert not broken(problem, found.choices)


def peaked() -> Problem:
    rows = (
        Row(name="loss", options=[0, 1, 2, 3], costs=[0, 5, 0, 7]),
        Row(name="memory", options=[0, 1, 2, 3], costs=[4, 1, 4, 1], capacity=12, peaks=(0,)),
    )
    arena = Peak(name="arena", options=[0, 1, 2, 3], costs=[9, 2, 6, 2])
    return Problem(start=[0, 2, 4], rows=rows, peaks=(arena,))


def test_a_heuristic_keeps_what_peaks_allow_and_proves_nothing() -> None:
    def answer(easier: Problem, limits: Limits, hint: object) -> solvers.Solution:
        # The last option of every group always keeps this problem.
        choices = tuple(int(b - a) - 1 for a, b in zip(easier.start[:-1], easier.start[1:], strict=True))
        value = solvers.check.values(easier, choices)[easier.objective]
        return solvers.Solution(status=Status.FEASIBLE, choices=choices, objective=value)

    found = thresholds.solve(peaked(), answer, Limits(time_s=5))
    assert (found.status, found.objective, found.bound) == (Status.FEASIBLE, 12, 0)


def test_no_time_is_no_proof() -> None:
    def answer(easier: Problem, limits: Limits, hint: object) -> solvers.Solution:
        return solvers.Solution(status=Status.LIMIT)

    assert thresholds.solve(peaked(), answer, Limits(time_s=5)).status is Status.LIMIT

from __future__ import annotations

import time

import numpy as np
import pytest

import solvers
from solvers import cpsat
from solvers.check import broken, values
from solvers.instances.generate import generate
from solvers.neighbourhood import Search
from solvers.solver import Limits


@pytest.mark.parametrize("workers", [1, 2])
def test_it_comes_from_any_start_to_the_optimum_of_a_small_problem(workers: int) -> None:
    problem = generate(1, models=3, layers=4, options=4, pairs=True, peaks=True)
    start = solvers.get("greedy").solve(problem)
    best = solvers.get("cpsat").solve(problem, time_limit_s=20)
    search = Search(problem, start.choices, (cpsat.solve,), 0)
    begin = time.perf_counter()
    ended = search.run(Limits(workers=workers), lambda: 10 - (time.perf_counter() - begin), 1.0, lambda _: None)
    assert ended
    assert search.objective == best.objective


def test_every_choice_it_reports_keeps_all_and_is_better_than_the_last() -> None:
    problem = generate(2, models=4, layers=20, options=6, topology="skips", pairs=True, peaks=True)
    start = solvers.get("greedy").solve(problem)
    found: list[int] = [start.objective]

    def better(choices: list[int]) -> None:
        assert not broken(problem, choices)
        found.append(values(problem, choices)[problem.objective])

    begin = time.perf_counter()
    doubt = np.random.default_rng(0).random(problem.options)
    search = Search(problem, start.choices, (cpsat.solve,), 0, doubt)
    search.run(Limits(workers=2), lambda: 2 - (time.perf_counter() - begin), 0.5, better)
    assert len(found) > 1
    assert found == sorted(set(found), reverse=True)
    assert search.objective == found[-1]

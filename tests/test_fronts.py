from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from problems import small_problems

import solvers
from solvers import Problem, Row, Solution, Status
from solvers.check import broken, values, verify
from solvers.instances.generate import generate
from solvers.questions import fronts
from solvers.questions.fronts import front, sweep

OFTEN = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
EXACT = solvers.get("exhaustive")


def every(problem: Problem) -> list[tuple[int, ...]]:
    """Return what each row costs, for all choices that keep everything."""
    sizes = np.diff(problem.start).tolist()
    everything = itertools.product(*(range(size) for size in sizes))
    return [values(problem, c) for c in everything if not broken(problem, c)]


def unbeaten(points: set[tuple[int, ...]]) -> list[tuple[int, ...]]:
    return sorted(
        p for p in points if not any(q != p and all(a <= b for a, b in zip(q, p, strict=True)) for q in points)
    )


def with_rows(problem: Problem, count: int, seed: int) -> Problem:
    """Add rows to a problem that has fewer, so that a front of so many can be asked for."""
    rng = np.random.default_rng(seed)
    more = [
        Row(name=f"more{i}", options=range(problem.options), costs=rng.integers(0, 6, problem.options))
        for i in range(count - len(problem.rows))
    ]
    return replace(problem, rows=(*problem.rows, *more))


@OFTEN
@given(problem=small_problems(), count=st.sampled_from([2, 3]), seed=st.integers(0, 1000))
def test_a_front_holds_all_that_is_not_beaten_and_nothing_else(problem: Problem, count: int, seed: int) -> None:
    problem = with_rows(problem, count, seed)
    rows = tuple(np.random.default_rng(seed).permutation(len(problem.rows))[:count].tolist())
    found = front(problem, rows, EXACT, time_limit_s=60)
    assert found.complete
    expected = unbeaten({tuple(taken[row] for row in rows) for taken in every(problem)})
    assert [point.values for point in found.points] == expected
    for point in found.points:
        assert not broken(problem, point.choices)
        assert tuple(values(problem, point.choices)[row] for row in rows) == point.values


@OFTEN
@given(
    problem=small_problems(), shares=st.lists(st.tuples(st.floats(0, 1.2), st.floats(0, 1.2)), min_size=1, max_size=9)
)
def test_a_sweep_gives_what_solving_each_point_gives(problem: Problem, shares: list[tuple[float, float]]) -> None:
    problem = with_rows(problem, 3, 0)
    most = problem.most()
    wanted = [{1: int(a * most[1] * 0.5), 2: None if b > 1 else int(b * most[2] * 0.5)} for a, b in shares]
    answers = sweep(problem, wanted, EXACT)
    for changes, answer in zip(wanted, answers, strict=True):
        at = problem.with_capacities([changes.get(row, entry.capacity) for row, entry in enumerate(problem.rows)])
        verify(at, answer)
        alone = EXACT.solve(at)
        assert (answer.status, answer.objective) == (alone.status, alone.objective)
        if answer.choices is not None:
            taken = values(at, answer.choices)
            assert [taken[row] for row in at.then] == [values(at, alone.choices)[row] for row in at.then]


def test_few_capacities_need_to_be_asked_for_where_many_change_nothing() -> None:
    asked = []

    def counted(problem: Problem, limits: object, hint: object) -> Solution:
        asked.append(problem)
        return EXACT.answer(problem, limits, hint)

    rows = (
        Row(name="loss", options=[1, 3, 5], costs=[5, 7, 9]),
        Row(name="time", options=[0, 2, 4], costs=[100, 200, 400], capacity=700),
    )
    problem = Problem(start=[0, 2, 4, 6], rows=rows)
    answers = sweep(problem, [{1: capacity} for capacity in range(701)], replace(EXACT, answer=counted))
    assert len({answer.objective for answer in answers}) == 7
    assert len(asked) < 30


@pytest.mark.parametrize("name", ["cpsat", "highs"])
def test_other_solvers_give_the_same_front(name: str) -> None:
    problem = generate(3, layers=5, options=4)
    expected = [point.values for point in front(problem, (0, 1), EXACT).points]
    assert [point.values for point in front(problem, (0, 1), solvers.get(name)).points] == expected
    assert len(expected) > 5


def test_a_front_that_is_cut_says_so_and_holds_only_what_is_not_beaten() -> None:
    problem = generate(3, layers=5, options=4)
    whole = {point.values for point in front(problem, (0, 1, 2), EXACT).points}
    cut = front(problem, (0, 1, 2), EXACT, most=4)
    assert not cut.complete
    assert len(cut.points) == 4
    assert {point.values for point in cut.points} <= whole
    assert front(problem, (0, 1), EXACT, time_limit_s=1e-9) == fronts.Front(points=(), complete=False)


def test_rows_that_make_no_front_are_refused() -> None:
    for rows in ((0,), (0, 0), (0, 1, 2, 2)):
        with pytest.raises(ValueError, match="two or three different"):
            front(generate(0, layers=3), rows, EXACT)


def test_no_front_is_there_where_nothing_keeps_the_capacities() -> None:
    found = front(generate(0, layers=4, options=3, latency=-0.5), (0, 1), EXACT)
    assert (found.points, found.complete) == ((), True)


def test_what_is_not_settled_in_time_is_not_called_so() -> None:
    answers = sweep(generate(0, layers=20), [{1: 1000}, {}], solvers.get("cpsat"), time_limit_s=1e-9)
    assert [answer.status for answer in answers] == [Status.LIMIT, Status.LIMIT]

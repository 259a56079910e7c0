from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from problems import oracle

from solvers import Problem, Row, Status, core
from solvers.check import broken, values, verify
from solvers.labels import descent
from solvers.labels.enumerate import listing
from solvers.labels.part import part_of
from solvers.labels.prices import prices
from solvers.labels.reduced import reduced
from solvers.solver import Limits, RefusedError

OFTEN = settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))


@st.composite
def separable(draw: st.DrawFn, *, rows: int = 4, largest: int = 1000, groups: int = 6) -> Problem:
    """Draw problems without pairs and peaks: some infeasible, some with figures of very unlike sizes."""
    sizes = draw(st.lists(st.integers(1, 4), min_size=1, max_size=groups))
    start = np.concatenate([[0], np.cumsum(sizes)])
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    found = []
    for index in range(1 + draw(st.integers(0, rows))):
        kind = rng.random()
        most = int(largest ** rng.random()) if kind < 0.8 else 1
        costs = rng.integers(0, most + 1, start[-1])
        constant = int(rng.integers(0, most + 1))
        at_least = sum(int(part.min()) for part in np.split(costs, start[1:-1]))
        at_most = sum(int(part.max()) for part in np.split(costs, start[1:-1]))
        capacity = constant + at_least + int((at_most - at_least) * (rng.random() * 1.2 - 0.1))
        found.append(
            Row(
                name=f"row{index}",
                options=np.arange(start[-1]),
                costs=costs,
                constant=constant,
                capacity=capacity if index or rng.random() < 0.2 else None,
            )
        )
    return Problem(start=start, rows=tuple(found))


def knapsacks(seed: int, groups: int, places: int, rows: int) -> Problem:
    """Make a problem whose options cost the less the more they take, with capacities halfway."""
    rng = np.random.default_rng(seed)
    options = groups * places
    use = rng.lognormal(8, 1, (rows, options))
    loss = 1e6 / (use.mean(axis=0) + 50) * rng.lognormal(0, 0.5, options)
    sums = use.astype(np.int64)
    found = [Row(name="loss", options=np.arange(options), costs=(loss * 1000).astype(np.int64))]
    for index in range(rows):
        table = sums[index].reshape(groups, places)
        capacity = int(0.6 * table.min(axis=1).sum() + 0.4 * table.max(axis=1).sum())
        found.append(Row(name=f"use{index}", options=np.arange(options), costs=sums[index], capacity=capacity))
    return Problem(start=np.arange(0, options + 1, places), rows=tuple(found))


@OFTEN
@given(problem=st.one_of(separable(), separable(largest=10**15), separable(largest=3, groups=7)))
def test_what_is_listed_is_the_optimum_of_everything(problem: Problem) -> None:
    best = oracle(problem)
    solution = core.solve(problem, Limits(time_s=20))
    verify(problem, solution)
    if best is None:
        assert solution.status is Status.INFEASIBLE
    else:
        assert (solution.status, solution.objective, solution.bound) == (Status.OPTIMAL, best, best)


@OFTEN
@given(problem=st.one_of(separable(), separable(largest=10**15), separable(largest=3, groups=7)))
def test_what_is_gone_through_in_depth_is_the_optimum_too(problem: Problem) -> None:
    best = oracle(problem)
    with pytest.MonkeyPatch.context() as patch:
        for module, names in (
            (core, ("_FIRST", "_MORE", "_MORE_BELOW", "_BRANCHED")),
            (descent, ("_CHUNK", "_SEVERAL", "_MANY", "_PRICES")),
        ):
            for name in names:
                patch.setattr(module, name, 2)
        solution = core.solve(problem, Limits(time_s=20))
    verify(problem, solution)
    if best is None:
        assert solution.status is Status.INFEASIBLE
    else:
        assert (solution.status, solution.objective, solution.bound) == (Status.OPTIMAL, best, best)


@OFTEN
@given(problem=st.one_of(separable(), separable(largest=10**15)), seed=st.integers(0, 2**32 - 1))
def test_any_prices_prove_a_bound_and_no_choice_beats_its_reduced_costs(problem: Problem, seed: int) -> None:
    part = part_of(problem)
    rng = np.random.default_rng(seed)
    exact = reduced(part, prices(part) * rng.choice([0.0, 0.5, 1.0, 1.0, 3.0], len(part.room)))
    for _ in range(30):
        places = (rng.random(problem.groups) * np.diff(problem.start)).astype(np.int64)
        if broken(problem, places.tolist()):
            continue
        cost = values(problem, places.tolist())[problem.objective]
        assert exact.bound(part.spent) <= cost
        assert int(exact.costs[np.arange(problem.groups), places].sum()) <= exact.allowance(cost, part.spent)


@pytest.mark.parametrize("rows", [1, 2, 3, 5])
def test_problems_of_many_groups_are_proven(rows: int) -> None:
    problem = knapsacks(rows, 60 if rows < 4 else 25, 6, rows)
    solution = core.solve(problem, Limits(time_s=60))
    verify(problem, solution)
    assert solution.status is Status.OPTIMAL
    others = [row.capacity for row in problem.rows[1:]]
    again = core.solve(problem.with_capacities([solution.objective, *others]), Limits(time_s=60))
    assert again.objective == solution.objective
    none = core.solve(problem.with_capacities([solution.objective - 1, *others]), Limits(time_s=60))
    assert none.status is Status.INFEASIBLE


def test_a_list_cut_short_says_how_far_it_went() -> None:
    problem = knapsacks(0, 30, 6, 2)
    part = part_of(problem)
    exact = reduced(part, prices(part))
    best = core.solve(problem, Limits(time_s=60)).objective
    found = listing(part, [(exact, exact.allowance(2 * best, part.spent))], 5)
    assert found.allowance < exact.allowance(best, part.spent)
    assert found.cost is None or found.cost >= best


def test_a_hint_that_is_the_best_comes_back() -> None:
    problem = knapsacks(1, 20, 5, 2)
    first = core.solve(problem, Limits(time_s=60))
    again = core.solve(problem, Limits(time_s=60), first.choices)
    assert (again.status, again.objective) == (Status.OPTIMAL, first.objective)


def test_without_time_there_is_a_bound_and_no_claim() -> None:
    problem = knapsacks(2, 100, 8, 5)
    solution = core.solve(problem, Limits(time_s=1e-9))
    assert solution.status in (Status.LIMIT, Status.FEASIBLE)
    assert solution.bound is not None


def test_who_watches_hears_of_both_ends_closing_in() -> None:
    heard: list[tuple[int | None, int | None]] = []
    problem = knapsacks(3, 60, 8, 3)
    solution = core.solve(problem, Limits(time_s=60, watch=lambda _, best, bound: heard.append((best, bound))))
    assert heard[-1] == (solution.objective, solution.bound)
    for (best, bound), (later_best, later_bound) in itertools.pairwise(heard):
        assert later_bound >= bound
        assert best is None or later_best <= best


def test_a_limit_of_work_gives_the_same_answer_twice() -> None:
    problem = knapsacks(4, 100, 8, 4)
    first, second = (core.solve(problem, Limits(time_s=60, work=30_000)) for _ in range(2))
    assert (first.objective, first.bound, first.choices) == (second.objective, second.bound, second.choices)


def test_the_gap_asked_for_is_enough() -> None:
    problem = knapsacks(5, 100, 8, 3)
    solution = core.solve(problem, Limits(time_s=60, gap=0.2))
    assert solution.status is Status.OPTIMAL or 0 < solution.gap <= 0.2


def test_too_many_figures_are_refused() -> None:
    options = 21_000_000
    start = np.concatenate([[0, options], [options + 1]])
    row = Row(name="loss", options=[0], costs=[1])
    with pytest.raises(RefusedError, match="figures"):
        core.solve(Problem(start=start, rows=(row,)), Limits())

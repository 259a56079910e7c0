from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from problems import small_problems

import solvers
from solvers import Problem, Row
from solvers.check import broken, values
from solvers.instances.generate import generate
from solvers.questions.prices import prices
from solvers.questions.relaxed import Relaxed

OFTEN = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
EXACT = solvers.get("exhaustive")


def every(problem: Problem) -> list[tuple[int, ...]]:
    """Return what each row costs, for all choices that keep everything."""
    sizes = np.diff(problem.start).tolist()
    everything = itertools.product(*(range(size) for size in sizes))
    return [values(problem, c) for c in everything if not broken(problem, c)]


@OFTEN
@given(problem=small_problems())
def test_steps_are_those_of_the_staircase(problem: Problem) -> None:
    objective = problem.objective
    inside = every(problem)
    assume(inside)
    optimum = min(taken[objective] for taken in inside)
    found = prices(problem, EXACT)
    assert [price.row for price in found] == [row for row in problem.bound_rows if row != objective]
    for price in found:
        capacities = [entry.capacity for entry in problem.rows]
        capacities[price.row] = None
        free = every(problem.with_capacities(capacities))

        def least(capacity: int, free: list[tuple[int, ...]] = free, row: int = price.row) -> int | None:
            return min((taken[objective] for taken in free if taken[row] <= capacity), default=None)

        assert price.settled
        assert price.optimum == optimum == least(price.capacity)
        assert price.least == min(taken[price.row] for taken in free)
        assert price.holds_from == min(taken[price.row] for taken in free if taken[objective] <= optimum)
        assert price.holds_from <= price.capacity
        assert price.worsened == least(price.holds_from - 1)
        better = [taken[price.row] for taken in free if taken[objective] < optimum]
        assert price.improves_at == min(better, default=None)
        if price.improves_at is not None:
            assert price.improves_at > price.capacity
            assert price.improved == least(price.improves_at)


@pytest.mark.parametrize("pairs", [False, True])
def test_a_price_holds_over_its_stretch_and_not_beyond(pairs: bool) -> None:
    problem = generate(2, layers=30, pairs=pairs, peaks=pairs)
    capacity = problem.rows[1].capacity
    relaxed = Relaxed(problem, 1)
    found = relaxed.stretch(float(capacity), capacity * 0.8)
    assert found.low <= capacity <= found.high
    assert found.price > 0
    here = relaxed.at(capacity)
    for inside in np.linspace(found.low, found.high, 7):
        assert relaxed.at(inside).value == pytest.approx(here.at(inside), rel=1e-7)
    reach = found.high - found.low
    for outside in (found.low - reach / 2, found.high + reach / 2):
        assert relaxed.at(outside).value > here.at(outside) * (1 + 1e-7)


def test_a_front_of_relaxations_is_what_each_of_them_is_by_itself() -> None:
    problem = generate(5, layers=40)
    capacity = problem.rows[2].capacity
    capacities = [capacity * share for share in (1.3, 0.9, 1.0, 1.1, 0.1)]
    found = Relaxed(problem, 2).front(capacities)
    assert found[4] is None
    for at, line in zip(capacities[:4], found, strict=False):
        alone = Relaxed(problem, 2).at(at)
        assert (line.capacity, line.value) == (at, pytest.approx(alone.value, rel=1e-9))
    lower = solvers.get("glop").solve(problem).bound
    assert lower == np.ceil(found[2].value - 1e-3)
    assert solvers.get("cpsat").solve(problem).objective >= lower


def test_a_bound_that_does_not_bind_is_worth_nothing() -> None:
    problem = generate(2, layers=20)
    free = problem.with_capacities([None, problem.most()[1], problem.rows[2].capacity])
    (price,) = prices(free, solvers.get("cpsat"), rows=[1])
    assert (price.relaxed.price, price.relaxed.high, price.improves_at, price.improved) == (0.0, None, None, None)
    assert price.holds_from < price.capacity
    assert price.worsened > price.optimum


def test_no_prices_are_there_without_a_proven_answer() -> None:
    assert prices(generate(0, layers=4, options=3, latency=-0.5), EXACT) == ()
    assert prices(generate(0, layers=30), solvers.get("cpsat"), time_limit_s=1e-9) == ()


def test_rows_without_a_capacity_are_refused() -> None:
    problem = generate(0, layers=3)
    for row in (0, len(problem.rows)):
        wider = replace(problem, rows=(*problem.rows, Row(name="energy", options=[], costs=[])))
        with pytest.raises(ValueError, match="no capacity to put a price on"):
            prices(wider, EXACT, rows=[row])

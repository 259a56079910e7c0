from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from problems import small_problems

from solvers import Pair, Peak, Problem, Row, Status, get
from solvers.dual.bound import exact_bound
from solvers.instances.generate import generate
from solvers.proof import proof


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(problem=small_problems(), seed=st.integers(0, 2**32 - 1), told=st.booleans())
def test_nothing_is_proven_that_is_not_so(problem: Problem, seed: int, told: bool) -> None:
    rng = np.random.default_rng(seed)
    prices = (rng.exponential(size=len(problem.rows)) * 10.0 ** rng.integers(-3, 6)).tolist()
    best = get("exhaustive").solve(problem)
    known = proof(problem, prices, best.choices if told else None)
    if best.status is not Status.INFEASIBLE:
        assert known.bound is not None
        assert known.bound <= best.objective


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(problem=small_problems(largest=10**15, spreads=False), seed=st.integers(0, 2**32 - 1))
def test_nothing_is_proven_that_is_not_so_where_figures_are_large(problem: Problem, seed: int) -> None:
    rng = np.random.default_rng(seed)
    prices = (rng.exponential(size=len(problem.rows)) * 10.0 ** rng.integers(-30, 30)).tolist()
    best = get("exhaustive").solve(problem)
    known = proof(problem, prices)
    if best.status is not Status.INFEASIBLE:
        assert known.bound is not None
        assert known.bound <= best.objective


def test_costs_of_meetings_count() -> None:
    pair = Pair(
        source=0,
        target=1,
        source_format=[0, 1],
        target_format=[0, 1],
        allowed=np.ones((2, 2), np.bool_),
        costs=((0, np.array([[3, 9], [9, 4]])),),
    )
    problem = Problem(start=[0, 2, 4], rows=(Row(name="loss", options=[1], costs=[1]),), pairs=(pair,))
    assert exact_bound(problem, [0.0]) == 0
    # Alike in the first format costs 3; every other way costs more.
    assert proof(problem, [0.0]).bound == 3


def test_formats_that_can_meet_nowhere_prove_that_there_is_no_choice() -> None:
    pair = Pair(source=0, target=1, source_format=[0], target_format=[0], allowed=[[False]])
    problem = Problem(start=[0, 1, 2], rows=(Row(name="loss", options=[0], costs=[1]),), pairs=(pair,))
    assert proof(problem, [0.0]).bound is None


def test_peaks_are_proven_by_a_mean_of_their_steps() -> None:
    # Each group can take 10 in its step and lose nothing, or lose 6; the arena may be 4.
    groups = 6
    peak = Peak(name="arena", options=np.arange(0, 2 * groups, 2), costs=[10] * groups)
    rows = (
        Row(name="loss", options=np.arange(1, 2 * groups, 2), costs=[6] * groups),
        Row(name="memory", options=[], costs=[], peaks=(0,), capacity=4),
    )
    problem = Problem(start=2 * np.arange(groups + 1), rows=rows, peaks=(peak,))
    price = 6 * groups / 10
    assert exact_bound(problem, [0.0, price]) < 0
    # The price is best spent on all steps alike: each then costs 6 either way, less what the capacity is worth.
    assert proof(problem, [0.0, price]).bound >= 0.9 * (6 * groups - 4 * price)


def test_prices_of_the_whole_dual_prove_most_of_instances_with_everything() -> None:
    problem = generate(0, models=2, layers=30, topology="skips", pairs=True, peaks=True)
    solution = get("lagrangian").solve(problem, time_limit_s=5)
    known = proof(problem, solution.prices, solution.choices)
    assert solution.objective is not None
    assert known.bound <= solution.objective
    assert known.bound >= 0.95 * solution.bound
    assert exact_bound(problem, solution.prices) < known.bound


def test_groups_without_an_option_left_prove_that_there_is_no_choice() -> None:
    row = Row(name="loss", options=[1, 3], costs=[5, 7])
    problem = Problem(start=[0, 2, 4], rows=(row,))
    assert proof(replace(problem, forbidden=[0, 1]), None).bound is None
    assert proof(problem, None).bound == 0
    assert proof(replace(problem, forbidden=[0]), None).bound == 5


def test_prices_that_are_none_are_refused() -> None:
    problem = Problem(start=[0, 1], rows=(Row(name="loss", options=[0], costs=[5]),))
    for prices in ([1.0, 2.0], [float("nan")], [-1.0]):
        with pytest.raises(ValueError, match="price"):
            proof(problem, prices)

from __future__ import annotations

import itertools
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from problems import small_problems

import solvers
from solvers import Limits, Problem, Row, Solution, Status
from solvers.check import broken, values
from solvers.instances.generate import generate
from solvers.questions.listing import listed
from solvers.questions.near import near
from solvers.reduction import reduce

OFTEN = settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
EXACT = solvers.get("exhaustive")


def every(problem: Problem) -> dict[tuple[int, ...], int]:
    """Return what each choice that keeps everything costs."""
    sizes = np.diff(problem.start).tolist()
    everything = itertools.product(*(range(size) for size in sizes))
    return {c: values(problem, c)[problem.objective] for c in everything if not broken(problem, c)}


@OFTEN
@given(problem=small_problems(), within=st.integers(0, 12), most=st.sampled_from([1, 3, 10, 10**6]))
def test_what_is_near_is_all_there_is_or_the_best_of_it(problem: Problem, within: int, most: int) -> None:
    found = near(problem, EXACT, within=within, most=most, time_limit_s=60)
    costs = every(problem)
    if not costs:
        assert (found.choices, found.complete) == ((), True)
        return
    least = min(costs.values())
    expected = sorted(cost for cost in costs.values() if cost <= least + within)
    assert list(found.objectives) == expected[:most]
    assert len(set(found.choices)) == len(found.choices)
    assert [costs[choices] for choices in found.choices] == list(found.objectives)
    assert found.complete == (len(expected) <= most)
    assert found.ranked
    assert found.limit == least + within


@OFTEN
@given(problem=small_problems(), seed=st.integers(0, 1000), few=st.sampled_from([1, 4, 20]))
def test_a_list_that_is_cut_is_complete_as_far_as_it_says(problem: Problem, seed: int, few: int) -> None:
    reduced = reduce(replace(problem, then=())).problem
    costs = {} if reduced is None else every(reduced)
    if reduced is None or not costs:
        return
    rng = np.random.default_rng(seed)
    limit = min(costs.values()) + int(rng.integers(0, 40))
    prices = rng.choice([0.0, 0.1, 1.0, 3.0], len(reduced.rows)).tolist()
    found, reach = listed(reduced, prices, limit, few)
    assert reach <= limit
    assert len(set(found)) == len(found)
    assert set(found) == {choices for choices, cost in costs.items() if cost <= reach}


@OFTEN
@given(problem=small_problems(), within=st.integers(0, 12), most=st.sampled_from([1, 3, 40]))
def test_the_solver_finds_the_rest_where_nothing_can_be_listed(problem: Problem, within: int, most: int) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("solvers.questions.near.listed", lambda problem, prices, limit: ([], -1))
        found = near(problem, EXACT, within=within, most=most, time_limit_s=60)
    costs = every(problem)
    least = min(costs.values(), default=0)
    expected = sorted(cost for cost in costs.values() if cost <= least + within)
    assert list(found.objectives) == expected[:most]
    assert found.complete == (len(expected) <= most)
    assert found.ranked


def test_equals_are_all_shown() -> None:
    rows = (
        Row(name="loss", options=[1, 3, 5, 7], costs=[5, 5, 5, 6]),
        Row(name="time", options=[0, 2, 4, 6], costs=[4, 4, 4, 4], capacity=12),
    )
    problem = Problem(start=[0, 2, 4, 6, 8], rows=rows)
    ties = near(problem, solvers.get("cpsat"))
    assert (sorted(ties.choices), ties.complete) == ([(0, 0, 1, 0), (0, 1, 0, 0), (1, 0, 0, 0)], True)
    assert near(problem, solvers.get("cpsat"), share=Fraction(1, 5)).objectives == (5, 5, 5, 6)
    cut = near(problem, solvers.get("cpsat"), most=2)
    assert (len(cut.choices), cut.complete, cut.ranked) == (2, False, True)


@pytest.mark.parametrize(("layers", "pairs"), [(60, False), (20, True)])
def test_plans_near_the_best_of_a_generated_model(layers: int, pairs: bool) -> None:
    problem = generate(4, layers=layers, pairs=pairs, peaks=pairs)
    found = near(problem, solvers.get("cpsat"), share=0.01, most=10, time_limit_s=60)
    assert len(found.choices) > 1
    assert found.ranked
    assert list(found.objectives) == sorted(found.objectives)
    for choices, objective in zip(found.choices, found.objectives, strict=True):
        assert values(problem, choices)[0] == objective <= found.limit
        assert not broken(problem, choices)


def test_an_answer_that_was_not_the_best_makes_no_wrong_claim() -> None:
    problem = generate(4, layers=6, options=3)
    worst = max(every(problem).items(), key=lambda item: item[1])

    def poor(problem: Problem, limits: Limits, hint: object) -> Solution:
        return Solution(status=Status.FEASIBLE, choices=worst[0], objective=worst[1])

    found = near(problem, replace(EXACT, answer=poor), most=10**6)
    least = min(every(problem).values())
    assert (found.objectives, found.complete) == ((least,) * len(found.choices), True)


def test_without_time_nothing_is_claimed() -> None:
    found = near(generate(0, layers=30), solvers.get("cpsat"), time_limit_s=1e-9)
    assert (found.choices, found.complete, found.ranked) == ((), False, False)


def test_numbers_that_make_no_sense_are_refused() -> None:
    for wrong in ({"within": -1}, {"share": -0.1}, {"most": 0}):
        with pytest.raises(ValueError, match="expected 0, 0 and 1 or more"):
            near(generate(0, layers=3), EXACT, **wrong)

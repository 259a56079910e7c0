from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import oracle, small_problems

import solvers
from solvers import Pair, Peak, Problem, Row, Status
from solvers.check import broken, values
from solvers.reduction import reduce


def tied(**more: object) -> Problem:
    """Make three groups of three options, the first and the last tied, with a peak, and a pair within the tie."""
    rows = (
        Row(name="loss", options=range(9), costs=[0, 3, 9, 0, 2, 5, 0, 4, 1]),
        Row(name="time", options=range(9), costs=[9, 5, 1, 8, 4, 2, 9, 3, 1], capacity=17, peaks=(0,)),
    )
    peak = Peak(name="arena", options=[0, 4, 6, 7], costs=[1, 2, 3, 4])
    pair = Pair(
        source=0,
        target=2,
        source_format=[0, 0, 1],
        target_format=[0, 1, 1],
        allowed=[[True, True], [True, False]],
        costs=((1, [[1, 2], [3, 4]]),),
    )
    return Problem(start=[0, 3, 6, 9], rows=rows, peaks=(peak,), pairs=(pair,), ties=([0, 2],), **more)


def test_what_is_reduced_costs_what_it_cost() -> None:
    problem = tied(forbidden=[4])
    reduction = reduce(problem)
    assert reduction.problem is not None
    assert reduction.problem.groups == 2
    assert np.diff(reduction.problem.start).tolist() == [2, 2]  # the third place may not meet itself
    for choices in itertools.product(range(2), range(2)):
        original = reduction.restore(choices)
        assert values(problem, original) == values(reduction.problem, choices)
        assert bool(broken(problem, original)) == bool(broken(reduction.problem, choices))
        assert reduction.project(original) == choices


def test_choices_that_are_gone_have_no_place_in_what_is_left() -> None:
    reduction = reduce(tied(forbidden=[4]))
    assert reduction.project((0, 1, 0)) is None
    assert reduction.project((0, 0, 1)) is None


def test_a_group_without_options_leaves_nothing() -> None:
    assert reduce(tied(forbidden=[0, 7])).problem is None
    assert solvers.get("cpsat").solve(tied(forbidden=[0, 7])).status is Status.INFEASIBLE


@settings(max_examples=150, deadline=None)
@given(problem=small_problems(), data=st.data())
def test_ties_and_forbidden_options_mean_what_the_checker_says(problem: Problem, data: st.DataObject) -> None:
    sizes = np.diff(problem.start).tolist()
    alike = [g for g in range(problem.groups) if sizes[g] == sizes[0]]
    forbidden = data.draw(st.lists(st.integers(0, problem.options - 1), max_size=3, unique=True).map(sorted))
    ties = (alike,) if len(alike) > 1 else ()
    more = {name: getattr(problem, name) for name in ("start", "rows", "objective", "then", "peaks", "pairs")}
    harder = Problem(**more, ties=ties, forbidden=forbidden)
    reduced = reduce(harder).problem
    assert (None if reduced is None else oracle(reduced)) == oracle(harder)


def test_one_row_is_minimised_after_the_other() -> None:
    rows = (
        Row(name="worst", options=[], costs=[], peaks=(0,)),
        Row(name="loss", options=[0, 1, 2, 3], costs=[4, 1, 4, 2]),
        Row(name="time", options=[0, 1, 2, 3], costs=[1, 3, 1, 5], capacity=6),
    )
    worst = Peak(name="worst", options=[0, 1, 2, 3], costs=[4, 1, 4, 2], steps=[0, 0, 1, 1])
    problem = Problem(start=[0, 2, 4], rows=rows, peaks=(worst,), then=(1,))
    for name in ("cpsat", "exhaustive"):
        solution = solvers.get(name).solve(problem)
        assert (solution.status, solution.choices, solution.objective) == (Status.OPTIMAL, (1, 0), 4)

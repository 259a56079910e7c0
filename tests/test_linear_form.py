from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from problems import oracle, small_problems

from solvers import Pair, Peak, Problem, Row
from solvers.arrays import LARGEST
from solvers.check import broken, values
from solvers.floating import float_form
from solvers.linear import linear_form

OFTEN = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
PLAIN = {"ties": False, "forbidden": False, "spreads": False}


def every(problem: Problem) -> list[tuple[int, ...]]:
    """List all combinations of a small problem."""
    return list(itertools.product(*(range(size) for size in np.diff(problem.start).tolist())))


@OFTEN
@given(problem=small_problems(**PLAIN))
def test_a_choice_keeps_the_form_exactly_where_it_keeps_the_problem(problem: Problem) -> None:
    form = linear_form(problem)
    for choices in every(problem):
        came = form.matrix @ form.columns(choices)
        kept = bool((came <= form.upper).all()) and bool((came == form.upper)[form.equal].all())
        assert kept == (not broken(problem, choices))


@OFTEN
@given(problem=small_problems(**PLAIN))
def test_the_objective_of_the_form_is_that_of_the_problem(problem: Problem) -> None:
    form = linear_form(problem)
    for choices in every(problem):
        if not broken(problem, choices):
            came = form.offset + int(form.objective @ form.columns(choices))
            assert came == values(problem, choices)[problem.objective] >= form.floor()


@OFTEN
@given(problem=small_problems(**PLAIN))
def test_columns_of_a_choice_stay_within_their_bounds_and_lead_back_to_it(problem: Problem) -> None:
    form = linear_form(problem)
    for choices in every(problem):
        columns = form.columns(choices)
        assert bool((form.least <= columns).all())
        assert bool((columns <= form.most).all())
        assert form.choices(columns.astype(np.float64)) == choices


@OFTEN
@given(problem=small_problems(**PLAIN))
def test_nothing_is_called_impossible_that_has_a_choice(problem: Problem) -> None:
    assert oracle(problem) is None or not linear_form(problem).impossible()


@OFTEN
@given(problem=small_problems(**PLAIN, largest=2**55))
def test_in_floats_every_choice_that_keeps_the_problem_keeps_the_form_and_costs_no_more(problem: Problem) -> None:
    scaled = float_form(linear_form(problem))
    entries = [
        {int(column): exactly(cost) for column, cost in zip(row.indices, row.data, strict=True)}
        for row in (scaled.matrix[[index], :] for index in range(scaled.matrix.shape[0]))
    ]
    for choices in every(problem)[:20]:
        if broken(problem, choices):
            continue
        columns = [
            Fraction(value, 2**exponent)
            for value, exponent in zip(
                scaled.exact.columns(choices).tolist(), scaled.column_exponent.tolist(), strict=True
            )
        ]
        for terms, lower, upper in zip(entries, scaled.lower, scaled.upper, strict=True):
            came = sum(cost * columns[column] for column, cost in terms.items())
            assert lower == -np.inf or exactly(lower) <= came
            assert came <= exactly(upper)
        cost = sum(exactly(a) * b for a, b in zip(scaled.objective, columns, strict=True))
        assert scaled.exact.offset + cost * 2**scaled.objective_exponent <= values(problem, choices)[problem.objective]


def exactly(figure: float) -> Fraction:
    """Return a float as the fraction that it is."""
    return Fraction(float(figure))


def test_figures_below_two_to_the_fifty_third_are_not_rounded_by_scaling() -> None:
    costs = [2**53, 2**53 - 1, 3]
    scaled = float_form(linear_form(Problem(start=[0, 3], rows=(Row(name="r", options=[0, 1, 2], costs=costs),))))
    assert [exactly(cost) * 2**scaled.objective_exponent for cost in scaled.objective] == costs
    assert float(scaled.objective.max()) <= 2**18


def test_a_pair_that_costs_and_forbids_nothing_has_no_columns() -> None:
    free = Pair(source=0, target=1, source_format=[0, 1], target_format=[0, 1], allowed=np.ones((2, 2)))
    rows = (Row(name="loss", options=[0, 3], costs=[1, 1]),)
    assert linear_form(Problem(start=[0, 2, 4], rows=rows, pairs=(free,))).matrix.shape == (2, 4)


def test_formats_that_no_option_has_get_no_cells() -> None:
    pair = Pair(
        source=0,
        target=1,
        source_format=[0, 2],
        target_format=[1, 1],
        allowed=np.ones((4, 3)),
        costs=((0, np.ones((4, 3))),),
    )
    form = linear_form(Problem(start=[0, 2, 4], rows=(Row(name="loss", options=[], costs=[]),), pairs=(pair,)))
    assert np.flatnonzero(form.cell >= 0).tolist() == [1, 7]
    assert form.matrix.shape == (2 + 2 + 1, 4 + 2)


def test_a_pair_that_forbids_every_meeting_is_impossible() -> None:
    pair = Pair(source=0, target=1, source_format=[0, 0], target_format=[0, 0], allowed=[[False]])
    form = linear_form(Problem(start=[0, 2, 4], rows=(Row(name="loss", options=[], costs=[]),), pairs=(pair,)))
    assert form.impossible()


def test_steps_that_cannot_be_the_worst_need_no_constraint() -> None:
    peak = Peak(name="arena", options=[0, 1, 2, 0, 2], costs=[5, 6, 1, 2, 2], steps=[0, 0, 0, 1, 1])
    row = Row(name="memory", options=[], costs=[], peaks=(0,))
    form = linear_form(Problem(start=[0, 2, 3], rows=(row,), peaks=(peak,)))
    assert form.matrix.toarray()[2:].tolist() == [[5, 6, 1, -1]]
    assert (form.least[-1], form.most[-1]) == (6, 7)


@pytest.mark.parametrize("capacity", [-1, 10**30, LARGEST])
def test_capacities_of_any_size_are_stated(capacity: int) -> None:
    row = Row(name="time", options=[0], costs=[2**61], constant=2**60, capacity=capacity)
    form = linear_form(Problem(start=[0, 1], rows=(row,)))
    assert form.impossible() == (capacity < 2**61 + 2**60)


def test_what_has_to_be_reduced_first_is_refused() -> None:
    with pytest.raises(ValueError, match="reduce the problem first"):
        linear_form(Problem(start=[0, 2], rows=(Row(name="loss", options=[0], costs=[1]),), forbidden=[0]))


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(problem=small_problems(**PLAIN), data=st.data())
def test_a_bound_is_never_rounded_above_what_was_reported(problem: Problem, data: st.DataObject) -> None:
    scaled = float_form(linear_form(problem))
    reported = data.draw(st.floats(0, 1e6))
    bound = scaled.bound(reported, tolerance=1e-9, relative=1e-12)
    floor = scaled.exact.floor()
    assert bound == floor or bound <= np.ceil(reported * 2.0**scaled.objective_exponent) + scaled.exact.offset
    assert scaled.bound(-np.inf, tolerance=1e-9, relative=1e-12) == floor

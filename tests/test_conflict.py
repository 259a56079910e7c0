from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from problems import small_problems

import solvers
from solvers import Pair, Problem, Row, Status
from solvers.check import broken, values
from solvers.questions.asking import some_pairs
from solvers.questions.conflict import conflict
from solvers.questions.forcing import only
from solvers.questions.subset import least_subset
from solvers.reduction import reduce

OFTEN = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
EXACT = solvers.get("exhaustive")


def feasible(problem: Problem) -> list[tuple[int, ...]]:
    sizes = np.diff(problem.start).tolist()
    return [c for c in itertools.product(*(range(size) for size in sizes)) if not broken(problem, c)]


def allowing(problem: Problem, rows: tuple[int, ...]) -> Problem:
    return problem.with_capacities([row.capacity if i in rows else None for i, row in enumerate(problem.rows)])


@OFTEN
@given(problem=small_problems())
def test_what_conflicts_is_minimal_and_so_are_the_groups_that_force_it(problem: Problem) -> None:
    assume(not feasible(problem))
    found = conflict(problem, EXACT, time_limit_s=60)
    assert found.minimal
    assert not feasible(allowing(problem, found.rows))
    for row in found.rows:
        assert feasible(allowing(problem, tuple(other for other in found.rows if other != row)))
    reduction = reduce(problem)
    if reduction.problem is None:
        return
    assert found.groups_minimal
    groups = set(reduction.group[list(found.groups)].tolist())
    bounded = allowing(reduction.problem, found.rows)
    assert not feasible(only(bounded, sorted(groups)))
    for group in groups:
        assert feasible(only(bounded, sorted(groups - {group})))


@OFTEN
@given(problem=small_problems())
def test_says_what_each_bound_would_have_to_be(problem: Problem) -> None:
    assume(not feasible(problem))
    found = conflict(problem, EXACT, time_limit_s=60)
    free = [values(problem, c) for c in feasible(allowing(problem, ()))]
    for need in found.needs:
        others = tuple(row for row in problem.bound_rows if row != need.row)
        given_others = [values(problem, c)[need.row] for c in feasible(allowing(problem, others))]
        assert need.settled
        assert need.given_others == min(given_others, default=None)
        assert need.alone == min((taken[need.row] for taken in free), default=None)
    if found.uniform is not None:
        raised = [None if row.capacity is None else int(row.capacity * found.uniform) for row in problem.rows]
        assert feasible(problem.with_capacities(raised))
        lower = [None if row.capacity is None else int(row.capacity * found.uniform * 0.999) for row in problem.rows]
        assert not feasible(problem.with_capacities(lower))


def one_row(least: list[int], capacity: int) -> Problem:
    """Make a problem of groups of two options, of which the second costs one more, with one row."""
    costs = [cost + more for cost in least for more in (0, 1)]
    row = Row(name="time", options=range(len(costs)), costs=costs, capacity=capacity)
    return Problem(start=range(0, len(costs) + 1, 2), rows=(Row(name="loss", options=[], costs=[]), row))


def test_the_fewest_groups_are_named_where_one_row_is_too_tight() -> None:
    found = conflict(one_row([1, 9, 2, 8, 3], 15), solvers.get("cpsat"))
    assert (found.rows, found.groups, found.minimal, found.groups_minimal) == ((1,), (1, 3), True, True)
    assert conflict(one_row([1, 9, 2, 8, 3], 17), solvers.get("cpsat")).groups == (1, 3, 4)


def test_groups_that_force_two_rows_are_found_among_many() -> None:
    # Two groups must be either slow or large; sixty others need next to nothing.
    time = [9, 1, 9, 1, *[0, 1] * 60]
    size = [1, 9, 1, 9, *[0, 1] * 60]
    rows = (
        Row(name="loss", options=[], costs=[]),
        Row(name="time", options=range(124), costs=time, capacity=9),
        Row(name="size", options=range(124), costs=size, capacity=9),
    )
    found = conflict(Problem(start=range(0, 125, 2), rows=rows), solvers.get("cpsat"))
    assert (found.rows, found.groups, found.groups_minimal) == ((1, 2), (0, 1), True)


def test_formats_that_exclude_each_other_are_no_matter_of_bounds() -> None:
    pairs = [
        Pair(
            source=u, target=u + 1, source_format=[0, 1], target_format=[0, 1], allowed=[[True, False], [False, u != 1]]
        )
        for u in range(3)
    ]
    rows = (Row(name="loss", options=[], costs=[]), Row(name="time", options=[0], costs=[1], capacity=5))
    problem = Problem(start=[0, 2, 4, 6, 8], rows=rows, pairs=pairs, forbidden=[6])
    found = conflict(problem, EXACT)
    assert (found.rows, found.minimal, found.uniform) == ((), True, None)
    # Formats 1 cannot meet between groups 1 and 2; group 3 has no other, which group 2 must then take too.
    assert found.groups == (1, 2, 3)


def test_a_group_whose_options_are_all_forbidden_is_named() -> None:
    rows = (Row(name="loss", options=[], costs=[]),)
    assert conflict(Problem(start=[0, 2, 4], rows=rows, forbidden=[2, 3]), EXACT).groups == (1,)
    tied = Problem(start=[0, 2, 4, 6], rows=rows, ties=([0, 2],), forbidden=[0, 5])
    assert conflict(tied, EXACT).groups == (0, 2)


def test_where_there_is_no_conflict_none_is_explained() -> None:
    with pytest.raises(ValueError, match="a choice keeps all capacities"):
        conflict(one_row([1, 9, 2, 8, 3], 30), EXACT)


def test_what_time_leaves_open_is_not_called_proven() -> None:
    def not_known(kept: object) -> Status:
        return Status.LIMIT if len(kept) < 3 else Status.INFEASIBLE

    assert not least_subset([0, 1, 2], not_known).minimal
    assert least_subset([0, 1, 2], not_known).items == (0, 1, 2)


@OFTEN
@given(problem=small_problems())
def test_some_pairs_are_those_pairs(problem: Problem) -> None:
    left = np.random.default_rng(len(problem.pairs)).random(len(problem.pairs)) < 0.5
    fewer = some_pairs(problem.pairs, left)
    kept = [pair for pair, stays in zip(problem.pairs, left.tolist(), strict=True) if stays]
    expected, found = replace(problem, pairs=kept), replace(problem, pairs=fewer)
    for choices in itertools.islice(itertools.product(*(range(n) for n in np.diff(problem.start).tolist())), 20):
        assert values(expected, choices) == values(found, choices)
        assert broken(expected, choices) == broken(found, choices)

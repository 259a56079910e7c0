from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from problems import oracle, small_problems

from solvers import Pair, Peak, Problem, Row
from solvers.check import values
from solvers.dual.bound import exact_bound
from solvers.fixing import Shrunk, beyond, dominated, too_dear
from solvers.reduction import reduce

OFTEN = settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))


def plain(problem: Problem) -> Problem | None:
    """Return the problem as solvers see it, for one objective."""
    reduced = reduce(problem).problem
    return None if reduced is None else replace(reduced, then=())


@OFTEN
@given(problem=small_problems())
def test_what_is_dominated_is_not_missed(problem: Problem) -> None:
    problem = plain(problem)
    if problem is None:
        return
    shrunk = Shrunk.of(problem).without(dominated(problem))
    assert shrunk.problem is not None
    assert oracle(shrunk.problem) == oracle(problem)
    assert not len(dominated(shrunk.problem))


@OFTEN
@given(problem=small_problems(), seed=st.integers(0, 2**32 - 1))
def test_what_prices_rule_out_is_in_no_choice_within_the_limit(problem: Problem, seed: int) -> None:
    problem = plain(problem)
    best = None if problem is None else oracle(problem)
    if best is None:
        return
    rng = np.random.default_rng(seed)
    prices = rng.random(len(problem.rows)) * rng.choice([0.0, 0.3, 1.0, 30.0], len(problem.rows))
    shrunk = Shrunk.of(problem).without(too_dear(problem, prices, best))
    assert shrunk.problem is not None
    assert oracle(shrunk.problem) == best
    below = too_dear(problem, prices, exact_bound(problem, prices) - 1)
    assert len(below) == problem.options


def of_four(**more: object) -> Problem:
    """Make a problem of one group of four options: the last two cost no less than the second in both rows."""
    rows = (
        Row(name="loss", options=[0, 1, 2, 3], costs=[1, 5, 6, 5]),
        Row(name="time", options=[0, 1, 2, 3], costs=[9, 4, 4, 4], capacity=20),
    )
    return Problem(**({"start": [0, 4], "rows": rows} | more))


def test_of_options_that_are_alike_the_first_stays() -> None:
    assert dominated(of_four()).tolist() == [2, 3]
    assert dominated(of_four(rows=of_four().rows[:1])).tolist() == [1, 2, 3]


def test_options_that_write_other_formats_or_need_another_arena_are_not_compared() -> None:
    pair = Pair(source=0, target=1, source_format=[0, 0, 1, 0], target_format=[0], allowed=[[True], [True]])
    met = replace(of_four(), start=[0, 4, 5], pairs=(pair,))
    assert dominated(met).tolist() == [3]
    arena = Peak(name="arena", options=[1, 2, 3], costs=[7, 8, 6])
    assert dominated(of_four(peaks=(arena,))).tolist() == [2, 3]
    loss, time = of_four().rows
    assert dominated(of_four(peaks=(arena,), rows=(loss, replace(time, peaks=(0,))))).tolist() == [1, 2]


def test_an_option_dearer_than_the_limit_by_one_goes_and_one_at_the_limit_stays() -> None:
    problem = of_four()
    assert too_dear(problem, [0.0, 0.0], 5).tolist() == [2]
    assert too_dear(problem, [0.0, 0.0], 0).tolist() == [0, 1, 2, 3]
    assert beyond(np.array([4, 5, 6]), 5).tolist() == [2]


def test_choices_find_their_way_there_and_back() -> None:
    problem = replace(of_four(), start=[0, 2, 4])
    shrunk = Shrunk.of(problem).without([0]).without([1])
    assert (shrunk.problem.options, shrunk.restore((0, 0))) == (2, (1, 1))
    assert shrunk.project((1, 1)) == (0, 0)
    assert shrunk.project((0, 1)) is None
    assert values(shrunk.problem, (0, 0)) == values(problem, (1, 1))
    assert shrunk.without([0]).problem is None

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from problems import oracle, small_problems

from solvers import Problem, Row, Status
from solvers.check import broken, values
from solvers.dual import chains, trellis
from solvers.dual.oracle import Oracle
from solvers.dual.sweep import NEVER
from solvers.problem import LARGEST
from solvers.solver import Capabilities, Solver

OFTEN = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
PLAIN = {"ties": False, "forbidden": False, "spreads": False, "then": False}
CHAINS = Solver(name="chains", capabilities=Capabilities(exact=False, hints=True), answer=chains.solve)


def everything(problem: Problem) -> list[np.ndarray]:
    """List all choices that no forbidden meeting rules out."""
    sizes = [range(size) for size in np.diff(problem.start).tolist()]
    every = [np.array(places) for places in itertools.product(*sizes)]
    return [places for places in every if problem.pairs.allowed[problem.pairs.cells(places)].all()]


def weighted(problem: Problem, found: Oracle, places: np.ndarray, row: np.ndarray, step: np.ndarray) -> int:
    """Sum up rows, without constants and peaks, and steps by their weights, with the checker alone."""
    bare = Problem(
        start=problem.start,
        rows=tuple(Row(name=r.name, options=r.options, costs=r.costs) for r in problem.rows),
        pairs=problem.pairs,
    )
    loads = found.steps.loads(problem.start[:-1] + places, problem.options)
    return int((np.array(values(bare, places)) * row).sum() + (loads * step).sum())


@OFTEN
@given(problem=small_problems(**PLAIN))
def test_least_paths_are_the_least_of_all_choices(problem: Problem) -> None:
    found = Oracle(problem)
    rng = np.random.default_rng(problem.options)
    row, step = rng.integers(0, 9, len(problem.rows)), rng.integers(0, 4, found.steps.count)
    all_values = [weighted(problem, found, places, row, step) for places in everything(problem)]
    for kind in (np.int64, np.float64, object):
        answer = found.least(found.costs(row.astype(kind), step.astype(kind)))
        if not all_values:
            assert (answer.value >= NEVER).any()
            continue
        assert answer.value.sum() == min(all_values)
        assert weighted(problem, found, answer.chosen - problem.start[:-1], row, step) == min(all_values)


@OFTEN
@given(problem=small_problems(**PLAIN))
def test_least_paths_through_each_option_are_the_least_of_choices_that_take_it(problem: Problem) -> None:
    found = Oracle(problem)
    rng = np.random.default_rng(problem.options)
    row, step = rng.integers(0, 9, len(problem.rows)), rng.integers(0, 4, found.steps.count)
    least = np.full(problem.options, NEVER)
    for places in everything(problem):
        chosen = problem.start[:-1] + places
        least[chosen] = np.minimum(least[chosen], weighted(problem, found, places, row, step))
    through, alone = found.margins(found.costs(row, step))
    others = alone.sum() - alone[found.blocks.of_group[problem.group]]
    possible = least < NEVER
    assert (through[possible] + others[possible] == least[possible]).all()
    assert (through[~possible] >= NEVER).all() or not possible.any()


@OFTEN
@given(problem=small_problems(**PLAIN))
def test_paths_that_leave_out_pairs_are_never_dearer(problem: Problem) -> None:
    exact, found = Oracle(problem), None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trellis, "_MOST_NODES", 1)
        found = Oracle(problem)
    row, step = np.arange(1, 1 + len(problem.rows)), np.ones(exact.steps.count, np.int64)
    loose, tight = (entry.value(entry.costs(row, step)) for entry in (found, exact))
    assert (loose <= tight).all()


@OFTEN
@given(problem=small_problems(spreads=False, then=False))
def test_choices_keep_everything_and_bounds_hold(problem: Problem) -> None:
    best = oracle(problem)
    solution = CHAINS.solve(problem, time_limit_s=5)
    if best is None:
        assert solution.status in (Status.INFEASIBLE, Status.LIMIT)
        return
    assert solution.status is not Status.INFEASIBLE
    assert solution.bound is None or solution.bound <= best
    assert solution.objective is None or solution.objective >= best


@OFTEN
@given(problem=small_problems(**PLAIN, largest=10**12))
def test_bounds_hold_where_figures_are_large(problem: Problem) -> None:
    best = oracle(problem)
    solution = CHAINS.solve(problem, time_limit_s=5)
    if best is None:
        assert solution.status in (Status.INFEASIBLE, Status.LIMIT)
        return
    assert solution.status is not Status.INFEASIBLE
    assert solution.bound is not None
    assert solution.bound <= best


@OFTEN
@given(problem=small_problems(**PLAIN))
def test_no_option_is_said_to_cost_more_than_it_does(problem: Problem) -> None:
    rng = np.random.default_rng(problem.options)
    prices = [float(price) for price in rng.random(len(problem.rows)) * 3]
    beyond = chains.min_marginals(problem, prices)
    for places in everything(problem):
        if not broken(problem, places):
            assert (beyond[problem.start[:-1] + places] <= values(problem, places)[problem.objective]).all()
            assert (beyond < LARGEST).any()

from __future__ import annotations

import itertools
import time

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from problems import oracle, small_problems

from solvers import Pair, Peak, Problem, Row, Status
from solvers.check import broken, values
from solvers.dual import chains, trellis
from solvers.dual.columns import Columns, Prices
from solvers.dual.mixing import pick
from solvers.dual.oracle import Oracle
from solvers.dual.settling import _kept_rows, settle
from solvers.dual.sweep import NEVER
from solvers.dual.whole import whole
from solvers.instances.generate import generate
from solvers.problem import LARGEST
from solvers.solver import Capabilities, Solver

OFTEN = settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
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


@OFTEN
@given(problem=small_problems(**PLAIN))
def test_labels_find_what_is_least_while_each_block_keeps_its_row(problem: Problem) -> None:
    columns = Columns(Oracle(problem))
    oracle_, blocks = columns.oracle, columns.oracle.blocks
    choices = everything(problem)
    if not choices:
        return
    rng = np.random.default_rng(problem.options)
    prices = Prices(
        objective=1.0,
        row=np.where(np.isfinite(columns.room.row), rng.random(len(problem.rows)), 0.0),
        step=np.zeros(oracle_.steps.count),
    )
    exact = whole(oracle_, prices)
    kept = _kept_rows(columns, exact)
    *_, settled = settle(columns, exact, (10_000,), lambda: np.inf)
    weight = exact.weights(problem.objective)
    weight[kept[kept >= 0]] -= exact.row[kept[kept >= 0]]
    least = np.full(blocks.count, NEVER)
    for places in choices:
        chosen = problem.start[:-1] + places
        cost = oracle_.total(oracle_.costs(weight, exact.step), chosen)
        for block, row in enumerate(kept.tolist()):
            own = oracle_.total(oracle_.costs(np.eye(len(weight), dtype=np.int64)[row], 0 * exact.step), chosen)[block]
            if row < 0 or own <= columns.room.row[row]:
                least[block] = min(least[block], cost[block])
    assert (settled.bound <= least).all()
    assert (settled.bound == least).all() or (least >= NEVER).any()


@OFTEN
@given(problem=small_problems(**PLAIN))
def test_fewer_labels_only_lower_the_bound(problem: Problem) -> None:
    oracle_ = Oracle(problem)
    if not everything(problem):
        return
    row = np.array([0.0 if entry.capacity is None else 0.5 for entry in problem.rows])
    exact = whole(oracle_, Prices(objective=1.0, row=row, step=np.zeros(oracle_.steps.count)))
    least, most = (list(settle(Columns(oracle_), exact, turns, lambda: np.inf)) for turns in ((1,), (1, 2, 9999)))
    assert (least[-1].bound <= most[-1].bound).all()
    for before, after in itertools.pairwise(most):
        assert (before.bound <= after.bound).all()


@pytest.mark.parametrize("seed", range(5))
def test_one_column_is_picked_for_each_block_as_well_as_can_be(seed: int) -> None:
    rng = np.random.default_rng(seed)
    cost, use = rng.integers(0, 50, (6, 5)).astype(float), rng.integers(0, 50, (6, 5)).astype(float)
    cost[rng.random(cost.shape) < 0.2] = np.inf
    blocks = np.arange(5)
    every = [np.array(places) for places in itertools.product(range(6), repeat=5)]
    for capacity in (30.0, 60.0, 100.0, 200.0):
        fits = [float(cost[places, blocks].sum()) for places in every if use[places, blocks].sum() <= capacity]
        best = min(fits, default=np.inf)
        picked = pick(cost, use, capacity)
        if not np.isfinite(best):
            assert picked is None or not np.isfinite(cost[picked, blocks].sum())
        else:
            assert picked is not None
            assert use[picked, blocks].sum() <= capacity
            assert cost[picked, blocks].sum() == best


@pytest.mark.parametrize("topology", ["chain", "skips", "branches"])
def test_models_with_formats_and_an_arena_are_planned_nearly_at_their_best(topology: str) -> None:
    problem = generate(3, models=5, layers=(12, 20), topology=topology, pairs=True, peaks=True)
    seen: list[tuple[float, int | None, int | None]] = []
    solution = CHAINS.solve(problem, time_limit_s=20, watch=lambda *entry: seen.append(entry))
    assert solution.gap is not None
    assert solution.gap < 0.01
    assert solution.prices is not None
    bounds = [bound for _, _, bound in seen if bound is not None]
    objectives = [objective for _, objective, _ in seen if objective is not None]
    assert bounds == sorted(bounds)
    assert objectives == sorted(objectives, reverse=True)
    beyond = chains.min_marginals(problem, solution.prices, 1.0, solution.choices)
    chosen = problem.start[:-1] + np.array(solution.choices)
    assert (beyond[chosen] <= solution.objective).all()
    # Most other options are ruled out.
    assert (beyond > solution.objective).sum() > problem.options / 2


def test_many_models_with_formats_are_proven_closely() -> None:
    problem = generate(1, models=120, layers=(15, 25), pairs=True)
    solution = CHAINS.solve(problem, time_limit_s=20)
    assert solution.gap is not None
    assert solution.gap < 0.002


def test_a_gap_that_is_enough_ends_the_search() -> None:
    problem = generate(2, models=10, layers=30, pairs=True, peaks=True)
    long, short = (CHAINS.solve(problem, time_limit_s=20, gap=gap) for gap in (0.0, 0.05))
    assert short.gap is not None
    assert short.gap <= 0.05
    assert short.bound <= long.bound
    assert short.objective >= long.objective


def test_a_time_limit_is_kept_nearly() -> None:
    problem = generate(1, models=40, layers=60, pairs=True, peaks=True, topology="skips")
    begin = time.perf_counter()
    solution = CHAINS.solve(problem, time_limit_s=0.5)
    assert time.perf_counter() - begin < 8
    assert solution.status in (Status.FEASIBLE, Status.LIMIT)


def test_capacities_below_what_any_choice_needs_are_proven_to_be_in_conflict() -> None:
    problem = generate(1, models=3, layers=10, pairs=True, peaks=True)
    for row in problem.bound_rows:
        capacities = [entry.capacity for entry in problem.rows]
        capacities[row] = capacities[row] // 10
        assert CHAINS.solve(problem.with_capacities(capacities), time_limit_s=5).status is Status.INFEASIBLE


def test_an_arena_alone_is_no_less_than_its_highest_step() -> None:
    rows = (
        Row(name="loss", options=[1, 3], costs=[5, 7]),
        Row(name="memory", options=[], costs=[], peaks=(0,), capacity=9),
    )
    arena = Peak(name="arena", options=[0, 1, 2, 3], costs=[6, 1, 5, 2], steps=[0, 0, 0, 0])
    solution = CHAINS.solve(Problem(start=[0, 2, 4], rows=rows, peaks=(arena,)))
    assert (solution.choices, solution.objective) == ((1, 0), 5)


def chain_of_formats(groups: int, loss: list[int], time_ns: list[int], capacity: int) -> Problem:
    """Make a chain of groups with the same two options each, of which unlike ones may not meet."""
    apart = [[True, False], [False, True]]
    pairs = [
        Pair(source=g, target=g + 1, source_format=[0, 1], target_format=[0, 1], allowed=apart)
        for g in range(groups - 1)
    ]
    rows = (
        Row(name="loss", options=range(2 * groups), costs=loss * groups),
        Row(name="time", options=range(2 * groups), costs=time_ns * groups, capacity=capacity),
    )
    return Problem(start=range(0, 2 * groups + 1, 2), rows=rows, pairs=pairs)


@pytest.mark.parametrize(
    ("loss", "time_ns", "capacity", "best"),
    [
        ([0, 0], [5, 5], 30, 0),
        ([0, 0], [5, 5], 29, None),
        ([7, 7], [5, 4], 24, 42),
        ([0, 10**12], [3_600_000_000_000, 1], 6, 6 * 10**12),
        ([0, 10**12], [3_600_000_000_000, 1], 5, None),
        ([0, 1], [100_000_000_000, 1], 600_000_000_000, 0),
        ([0, 1], [100_000_000_000, 1], 599_999_999_999, 6),
    ],
)
def test_adversarial_numbers_are_planned_exactly(
    loss: list[int], time_ns: list[int], capacity: int, best: int | None
) -> None:
    solution = CHAINS.solve(chain_of_formats(6, loss, time_ns, capacity), time_limit_s=5)
    if best is None:
        assert solution.status is Status.INFEASIBLE
    else:
        assert (solution.status, solution.objective) == (Status.OPTIMAL, best)


def test_models_that_share_several_rows_are_planned() -> None:
    problem = generate(1, models=6, layers=15, pairs=True, peaks=True)
    energy = np.random.default_rng(0).integers(1, 1000, problem.options)
    least, mean = (int(reduce(energy.reshape(-1, 8), axis=1).sum()) for reduce in (np.min, np.mean))
    row = Row(name="energy", options=range(problem.options), costs=energy, capacity=least + (mean - least) // 2)
    more = Problem(start=problem.start, rows=(*problem.rows, row), peaks=problem.peaks, pairs=problem.pairs)
    solution = CHAINS.solve(more, time_limit_s=20)
    assert solution.gap is not None
    assert solution.gap < 0.03

"""The Lagrangian solver on problems without pairs and peaks, step by step and as a whole."""

from __future__ import annotations

import dataclasses
import itertools
from time import perf_counter

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from problems import small_problems

import solvers
from solvers import Problem, Row, Status, lagrangian
from solvers.check import broken, values
from solvers.dual.bound import exact_bound, reduced_costs
from solvers.dual.core import Blocks, relax, search
from solvers.dual.intersect import meet, picked
from solvers.dual.layout import layout
from solvers.dual.multipliers import multipliers
from solvers.instances.generate import generate
from solvers.reduction import reduce
from solvers.solver import Limits

OFTEN = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))


def plain(problem: Problem) -> Problem:
    """Leave out what the parts tested here do not know."""
    rows = tuple(
        Row(name=r.name, options=r.options, costs=r.costs, constant=r.constant, capacity=r.capacity)
        for r in problem.rows
    )
    return Problem(start=problem.start, rows=rows, objective=problem.objective)


def oracle(problem: Problem) -> int | None:
    """Return the optimum by trying all combinations with the checker alone."""
    sizes = [range(int(size)) for size in np.diff(problem.start)]
    return min(
        (values(problem, c)[problem.objective] for c in itertools.product(*sizes) if not broken(problem, c)),
        default=None,
    )


@OFTEN
@given(problem=small_problems())
def test_without_trying_everything_answers_are_never_wrong(problem: Problem) -> None:
    problem = plain(problem)
    best = oracle(problem)
    progress = lagrangian.priced(problem, Limits(time_s=20, workers=1), None, perf_counter())
    answer = progress.solution()
    if best is None:
        assert answer.status in (Status.INFEASIBLE, Status.LIMIT)
        return
    assert answer.status is not Status.INFEASIBLE
    assert answer.bound <= best
    if answer.choices is not None:
        assert not broken(problem, answer.choices)
        assert best <= answer.objective == values(problem, answer.choices)[problem.objective]


@OFTEN
@given(problem=small_problems())
def test_small_problems_are_answered_feasible_or_proven_not(problem: Problem) -> None:
    problem = plain(problem)
    best = oracle(problem)
    answer = solvers.get("lagrangian").solve(problem, time_limit_s=20, workers=1)
    if best is None:
        assert answer.status is Status.INFEASIBLE
    else:
        assert answer.bound <= best <= answer.objective


@OFTEN
@given(problem=small_problems(), seed=st.integers(0, 2**32 - 1), size=st.sampled_from([0.0, 1e-9, 1.0, 1e3, 1e12]))
def test_any_prices_prove_a_bound(problem: Problem, seed: int, size: float) -> None:
    best = oracle(problem)
    assume(best is not None)
    prices = np.random.default_rng(seed).random(len(problem.rows)) * size
    assert exact_bound(problem, prices) <= best


@OFTEN
@given(problem=small_problems(), seed=st.integers(0, 2**32 - 1))
def test_reduced_costs_say_what_taking_an_option_adds_to_the_bound(problem: Problem, seed: int) -> None:
    problem = plain(problem)
    prices = np.random.default_rng(seed).random(len(problem.rows))
    reduced = reduced_costs(problem, prices)
    option = seed % problem.options
    group = int(np.searchsorted(problem.start, option, side="right")) - 1
    others = [o for o in range(problem.start[group], problem.start[group + 1]) if o != option]
    fixed = reduce(dataclasses.replace(problem, forbidden=others)).problem
    assert exact_bound(fixed, prices) == pytest.approx(exact_bound(problem, prices) + reduced[option], abs=1.001)


def test_a_bound_is_exact_where_floating_point_is_not() -> None:
    huge = 2**61 - 1
    rows = (
        Row(name="loss", options=[0, 1], costs=[huge + 1, huge]),
        Row(name="time", options=[1], costs=[1], capacity=0),
    )
    problem = Problem(start=[0, 2], rows=rows)
    assert exact_bound(problem, [0.0, 0.0]) == huge
    assert exact_bound(problem, [0.0, 1.0]) == huge + 1
    assert exact_bound(problem, [0.0, 2.0**70]) == huge + 1


@pytest.mark.parametrize("prices", [[0.0], [0.0, -1.0], [0.0, float("inf")], [0.0, float("nan")]])
def test_prices_that_prove_nothing_are_refused(prices: list[float]) -> None:
    rows = (Row(name="loss", options=[0], costs=[1]), Row(name="time", options=[1], costs=[1], capacity=0))
    with pytest.raises(ValueError, match="price"):
        exact_bound(Problem(start=[0, 2], rows=rows), prices)


@OFTEN
@given(
    seed=st.integers(0, 2**32 - 1),
    width=st.sampled_from([1, 2, 5, 1000]),
    depth=st.sampled_from([1, 16]),
    largest=st.sampled_from([4, 30, 10**9]),
)
def test_a_search_of_blocks_is_exact_where_no_label_is_dropped(seed: int, width: int, depth: int, largest: int) -> None:
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 5, rng.integers(1, 4))
    first = np.concatenate([[0], np.cumsum(sizes)])
    costs, times = (rng.integers(0, largest, (rng.integers(1, 5), first[-1])) for _ in range(2))
    times = np.resize(times, costs.shape)
    least, most = (np.add.reduceat(end, first[:-1]) for end in (times.min(axis=0), times.max(axis=0)))
    room = least + ((most - least) * rng.random(len(sizes))).astype(np.int64)
    sides = meet(costs.astype(float), times.astype(float), room.astype(float), first)
    assert (np.add.reduceat(picked(times, sides.kept), first[:-1]) <= room).all()
    # Prices off their best make the search longer, never wrong.
    prices = np.floor(sides.prices * 2.0**16 * rng.choice([0.0, 0.7, 1.0, 1.5])).astype(np.int64)
    blocks = Blocks(costs=costs << 16, times=times, room=room, first=first, prices=prices)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("solvers.dual.core._DEPTH", depth)
        found = search(blocks, sides.kept, width=width, kept=3)
    relaxed = relax(blocks, sides.kept)
    for block, (begin, end) in enumerate(itertools.pairwise(first.tolist())):
        best = min(
            sum(costs[k, g] for g, k in enumerate(c, begin))
            for c in itertools.product(range(len(costs)), repeat=end - begin)
            if sum(times[k, g] for g, k in enumerate(c, begin)) <= room[block]
        )
        assert relaxed.lower[block] <= best << 16 <= relaxed.value[block]
        assert found.lower[block] <= best << 16 <= found.value[block]
        assert width < 1000 or found.lower[block] == found.value[block] == best << 16
    taken = np.array([np.add.reduceat(picked(times, other), first[:-1]) for other in found.others])
    assert (taken <= room).all()


def test_multipliers_equal_the_linear_relaxation() -> None:
    from scipy.optimize import linprog

    problem = generate(5, models=3, layers=20)
    coupled = layout(problem)
    rows = np.zeros((len(problem.rows), problem.options))
    for index, row in enumerate(problem.rows):
        rows[index, row.options] = row.costs
    one = np.repeat(np.eye(problem.groups), np.diff(problem.start), axis=1)
    bound = [row.capacity for row in problem.rows[1:]]
    relaxation = linprog(rows[0], rows[1:], bound, one, np.ones(problem.groups)).fun
    dual = multipliers(problem)
    assert len(coupled.bands) == 2
    assert dual.value == pytest.approx(relaxation, rel=1e-5)
    assert exact_bound(problem, dual.prices) == pytest.approx(relaxation, rel=1e-5)


def test_rows_that_share_no_group_form_one_band() -> None:
    laid = layout(generate(1, models=7, layers=(2, 5)))
    assert [len(band.rows) for band in laid.bands] == [7, 1]
    assert laid.blocks == 7


@pytest.mark.parametrize(("models", "gap"), [(1, 8e-3), (10, 3e-4), (40, 5e-5)])
def test_the_gap_of_realistic_problems_is_small(models: int, gap: float) -> None:
    problem = generate(3, models=models, layers=100)
    answer = solvers.get("lagrangian").solve(problem, time_limit_s=60, workers=1)
    assert answer.gap <= gap
    assert answer.bound >= exact_bound(problem, answer.prices)


def test_a_memory_too_small_for_all_deadlines_together_is_proven_to_be() -> None:
    problem = generate(2, models=5, layers=30)
    memory = problem.row("memory")
    least = sum(
        int(problem.rows[memory].costs[problem.start[g] : problem.start[g + 1]].min()) for g in range(problem.groups)
    )
    capacities = [row.capacity for row in problem.rows]
    capacities[memory] = least + 1
    for index in range(1, 6):
        capacities[index] = problem.rows[index].capacity // 2
    answer = solvers.get("lagrangian").solve(problem.with_capacities(capacities), workers=1)
    assert answer.status is Status.INFEASIBLE


def test_one_below_the_least_memory_is_proven_infeasible_and_the_least_is_kept() -> None:
    problem = generate(4, models=1, layers=12)
    memory = problem.row("memory")
    free = problem.with_capacities([None if i in (0, memory) else r.capacity for i, r in enumerate(problem.rows)])
    least = solvers.get("cpsat").solve(free.with_capacities([r.capacity for r in free.rows], memory), workers=1)
    assert least.status is Status.OPTIMAL
    for capacity, wanted in ((least.objective, True), (least.objective - 1, False)):
        capacities = [capacity if i == memory else row.capacity for i, row in enumerate(problem.rows)]
        answer = solvers.get("lagrangian").solve(problem.with_capacities(capacities), workers=1)
        assert (answer.status is not Status.INFEASIBLE) == wanted
        assert (answer.choices is not None) == wanted


def test_it_stops_at_the_gap_it_is_asked_for_and_tells_who_watches() -> None:
    told: list[tuple[int | None, int | None]] = []
    limits = Limits(gap=0.05, watch=lambda seconds, objective, bound: told.append((objective, bound)))
    answer = lagrangian.solve(generate(3, models=10, layers=50), limits)
    assert 0 < answer.gap <= 0.05
    assert told[-1] == (answer.objective, answer.bound)


def test_a_hint_that_keeps_everything_is_never_undercut() -> None:
    problem = generate(6, models=1, layers=30)
    best = solvers.get("cpsat").solve(problem, workers=1)
    answer = solvers.get("lagrangian").solve(problem, hint=best.choices, workers=1)
    assert answer.objective == best.objective


@pytest.mark.parametrize("dense", [2, 5])
def test_several_rows_over_all_groups_are_priced_together(dense: int) -> None:
    rng = np.random.default_rng(dense)
    options = range(400)
    rows = [Row(name="loss", options=options, costs=rng.integers(1, 1000, 400))]
    for index in range(dense):
        costs = rng.integers(1, 1000, 400)
        rows.append(Row(name=f"row {index}", options=options, costs=costs, capacity=int(costs.sum() // 8 * 0.8)))
    problem = Problem(start=range(0, 401, 8), rows=tuple(rows))
    answer = solvers.get("lagrangian").solve(problem, workers=1)
    best = solvers.get("cpsat").solve(problem, workers=1, time_limit_s=1)
    assert answer.bound <= best.objective
    assert best.bound <= answer.objective
    assert answer.gap < 0.2


def test_costs_beyond_what_sums_of_blocks_can_hold_still_give_a_bound() -> None:
    problem = generate(1, models=1, layers=10)
    rows = tuple(
        Row(name=row.name, options=row.options, costs=row.costs * 2**25, capacity=row.capacity and row.capacity * 2**25)
        for row in problem.rows
    )
    answer = solvers.get("lagrangian").solve(Problem(start=problem.start, rows=rows), workers=1)
    smaller = solvers.get("cpsat").solve(problem, workers=1)
    assert answer.bound <= smaller.objective * 2**25 <= answer.objective
    assert answer.gap < 0.02


def two_rows_a_model(models: int, layers: int) -> Problem:
    """Give every model a memory of its own, beside its deadline and the memory that all share."""
    problem = generate(7, models=models, layers=layers)
    memory = problem.rows[problem.row("memory")]
    own = []
    for first in range(0, problem.options, 8 * layers):
        costs = memory.costs[first : first + 8 * layers]
        each = costs.reshape(layers, 8)
        own.append(
            Row(
                name=f"memory {len(own)}",
                options=memory.options[first : first + 8 * layers],
                costs=costs,
                capacity=int(each.min(axis=1).sum() + each[:, 0].sum()) // 2,
            )
        )
    return Problem(start=problem.start, rows=(*problem.rows, *own))


@pytest.mark.parametrize(("models", "layers"), [(4, 25), (60, 40)])
def test_several_rows_of_each_model_are_priced_together(models: int, layers: int) -> None:
    problem = two_rows_a_model(models, layers)
    assert [len(band.rows) for band in layout(problem).bands] == [models, models, 1]
    answer = solvers.get("lagrangian").solve(problem, workers=1)
    assert answer.gap < 0.02
    assert answer.bound >= exact_bound(problem, answer.prices)


def test_smoothing_comes_close_to_the_linear_relaxation(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = two_rows_a_model(5, 30)
    exact = multipliers(problem).value
    monkeypatch.setattr("solvers.dual.multipliers._FEW_TERMS", 0)
    assert exact * (1 - 1e-3) <= multipliers(problem).value <= exact * (1 + 1e-9)


@pytest.mark.parametrize("share", [0.9, 0.99])
def test_several_rows_that_cannot_be_kept_together_are_proven_not_to_be(share: float) -> None:
    problem = two_rows_a_model(4, 25)
    # What each row takes least is below its capacity, but a mixture of two rows is not.
    time, own = problem.rows[1], problem.rows[problem.row("memory 0")]
    mixture = (time.costs * 1000 // time.capacity + own.costs * 1000 // own.capacity).reshape(-1, 8)
    most = int(mixture.min(axis=1).sum()) / 2000
    capacities = [row.capacity for row in problem.rows]
    for row in (1, problem.row("memory 0")):
        capacities[row] = int(problem.rows[row].capacity * most * share)
    tight = problem.with_capacities(capacities)
    assert lagrangian.priced(tight, Limits(time_s=20), None, perf_counter()).infeasible
    assert solvers.get("lagrangian").solve(tight, workers=1).status is Status.INFEASIBLE


@OFTEN
@given(seed=st.integers(0, 2**32 - 1))
def test_a_block_with_a_ration_is_searched_for_the_best_choice_within_both_rows(seed: int) -> None:
    rng = np.random.default_rng(seed)
    costs, times, uses = (rng.integers(0, 30, (3, rng.integers(2, 6))) for _ in range(3))
    uses = np.resize(uses, costs.shape)
    times = np.resize(times, costs.shape)
    room, ration = (np.array([int(of.min(axis=0).sum() + of.max(axis=0).sum()) // 2]) for of in (times, uses))
    within = [
        sum(costs[k, g] for g, k in enumerate(c))
        for c in itertools.product(range(3), repeat=costs.shape[1])
        if sum(times[k, g] for g, k in enumerate(c)) <= room[0]
        and sum(uses[k, g] for g, k in enumerate(c)) <= ration[0]
    ]
    assume(within)
    price = int(rng.integers(0, 3 << 10))
    blocks = Blocks(
        costs=(costs << 10) + price * uses,
        times=times,
        room=room,
        first=np.array([0, costs.shape[1]]),
        prices=rng.integers(0, 3 << 10, 1),
        uses=uses,
        ration=ration,
        price=price,
    )
    upper = times.argmin(axis=0).astype(np.int16)
    found = search(blocks, upper, width=1000, kept=1000, more=np.array([1 << 30]))
    kept = [o for o in found.others if picked(uses, o).sum() <= ration[0] and picked(times, o).sum() <= room[0]]
    assert min(int(picked(costs, o).sum()) for o in kept) == min(within)


def test_a_capacity_of_the_objective_is_kept_or_proven_impossible() -> None:
    problem = generate(3, models=3, layers=10)
    free = solvers.get("lagrangian").solve(problem, workers=1)
    others = [row.capacity for row in problem.rows[1:]]
    kept = solvers.get("lagrangian").solve(problem.with_capacities([free.objective, *others]), workers=1)
    assert kept.objective == free.objective
    broken_by_all = problem.with_capacities([free.bound - 1, *others])
    assert solvers.get("lagrangian").solve(broken_by_all, workers=1).status is Status.INFEASIBLE


def test_a_block_of_many_groups_is_searched_in_part_and_bounded_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("solvers.dual.core._DEPTH", 1)
    problem = generate(1, models=1, layers=1000)
    answer = solvers.get("lagrangian").solve(problem, workers=1)
    assert answer.gap < 2e-3
    assert answer.bound >= exact_bound(problem, answer.prices)


def test_the_number_of_threads_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("solvers.dual.partial._GROUPS_AT_ONCE", 100)
    problem = generate(8, models=12, layers=30)
    one, two = (solvers.get("lagrangian").solve(problem, workers=workers) for workers in (1, 2))
    assert (one.choices, one.bound, one.prices) == (two.choices, two.bound, two.prices)

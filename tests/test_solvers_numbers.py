"""Numbers that break solvers: of unlike sizes, at the edge of a capacity, equal, nothing, and nearly too large."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from fractions import Fraction

import numpy as np
import pytest
from problems import oracle
from test_solvers_exact import claims_hold
from test_solvers_heuristics import WORK

import solvers
from solvers import Pair, Peak, Problem, RefusedError, Row, Solution, Status
from solvers.check import values
from solvers.spread import Spread

INTEGERS = ("auto", "core", "cpsat", "exhaustive")
"""Solvers that count in integers: these prove what they find, whatever the numbers."""
FLOATS = ("cbc", "highs", "scip", "scipy")
"""Exact solvers in floating point: these may refuse a number, or leave something unproven, and claim nothing wrong."""
EXACT = [name for name in (*INTEGERS, *FLOATS) if name in solvers.available()]
HOUR, BYTES = 3_600 * 10**9, 100 * 10**9
"""The greatest time in nanoseconds, and the greatest size."""


def row(name: str, costs: Sequence[int], capacity: int | None = None, **more: object) -> Row:
    """Make a row that names all options."""
    return Row(name=name, options=range(len(costs)), costs=costs, capacity=capacity, **more)


def layers(sizes: Sequence[int], *rows: Row, **more: object) -> Problem:
    """Make a problem of groups of these sizes."""
    return Problem(start=np.concatenate([[0], np.cumsum(sizes)]), rows=rows, **more)


def spanning(seed: int) -> Problem:
    """Make layers whose times span 1 ns to an hour and whose sizes span a byte to 100 GB."""
    rng = np.random.default_rng(seed)
    count = 15
    times = np.exp(rng.uniform(0, np.log(HOUR), count)).astype(np.int64)
    sizes = np.exp(rng.uniform(0, np.log(BYTES), count)).astype(np.int64)
    losses = np.exp(rng.uniform(0, np.log(10**12), count)).astype(np.int64)
    times[[0, 7]], sizes[[3, 11]] = (1, HOUR), (1, BYTES)
    losses[rng.random(count) < 0.2] = 0
    free = layers([3] * 5, row("loss", losses), row("time", times), row("bytes", sizes))
    somewhere = values(free, rng.integers(0, 3, 5).tolist())
    return free.with_capacities([None, somewhere[1], somewhere[2]])


def tight(problem: Problem, below: int) -> Problem:
    """Bound every row but the first by what the best choice for the first comes to, less so much of the first."""
    best = solvers.get("exhaustive").solve(problem)
    assert best.choices is not None
    came = values(problem, best.choices)
    return problem.with_capacities([came[0] - below, *came[1:]])


def answer(name: str, problem: Problem) -> Solution | None:
    """Solve; None where the solver refuses the numbers."""
    able = solvers.get(name).capabilities
    try:
        solution = solvers.get(name).solve(problem, time_limit_s=20, workers=1, work=WORK.get(name))
    except RefusedError:
        assert name not in INTEGERS or not (able.pairs and able.peaks)
        return None
    claims_hold(problem, solution)
    return solution


CASES: dict[str, Callable[[], Problem]] = {
    "all costs equal": lambda: layers(
        [3] * 5, row("loss", [7] * 15), row("time", [9] * 15, 45), row("b", [5] * 15, 25)
    ),
    "all costs equal, a unit too little": lambda: layers([3] * 5, row("loss", [7] * 15), row("time", [9] * 15, 44)),
    "no loss at all": lambda: layers([3] * 4, row("loss", [0] * 12), row("time", [5, 3, 9] * 4, 20)),
    "no costs at all": lambda: layers([2, 3], row("loss", [0] * 5, 0), row("time", [0] * 5, 0)),
    "an objective without terms": lambda: layers(
        [2, 2], Row(name="loss", options=[], costs=[], constant=3), row("time", [4, 1, 4, 1], 5)
    ),
    "one choice a layer": lambda: layers([1] * 6, row("loss", [1, 2, 3, 4, 5, 6]), row("time", [HOUR] * 6, 6 * HOUR)),
    "one choice a layer, a unit too little": lambda: layers(
        [1] * 6, row("l", [1] * 6), row("t", [HOUR] * 6, 6 * HOUR - 1)
    ),
    "a capacity of nothing": lambda: layers(
        [2] * 3, row("loss", [0, 5, 0, 6, 0, 7]), row("time", [1, 0, 4, 0, HOUR, 0], 0)
    ),
    "a capacity of nothing that one byte breaks": lambda: layers(
        [2, 1], row("loss", [0, 5, 0]), row("b", [9, 0, 1], 0)
    ),
    "a capacity below nothing": lambda: layers([2, 2], row("loss", [0, 5, 0, 6]), row("time", [1, 0, 1, 0], -1)),
    "a capacity below the constant": lambda: layers(
        [2, 2], row("loss", [0, 5, 0, 6]), row("time", [1, 0, 1, 0], HOUR - 1, constant=HOUR)
    ),
    "a capacity at the constant": lambda: layers(
        [2, 2], row("loss", [0, 5, 0, 6]), row("time", [1, 0, 1, 0], HOUR, constant=HOUR)
    ),
    "a capacity beyond 64 bits": lambda: layers([2, 2], row("l", [9, 5, 8, 6]), row("t", [HOUR, 1, HOUR, 1], 10**30)),
    "a capacity far below 64 bits": lambda: layers(
        [2, 2], row("l", [9, 5, 8, 6]), row("t", [HOUR, 1, HOUR, 1], -(10**30))
    ),
    "an objective bounded at its best": lambda: tight(spanning(3), 0),
    "an objective bounded a unit below its best": lambda: tight(spanning(3), 1),
    "all forbidden but one": lambda: layers(
        [3, 3], row("loss", [1, 2, 3, 4, 5, 6]), row("time", [9, 5, 1, 9, 5, 1], 6), forbidden=[0, 1, 3, 5]
    ),
    "all forbidden but one, which is too large": lambda: layers(
        [3, 3], row("loss", [1, 2, 3, 4, 5, 6]), row("time", [9, 5, 1, 9, 5, 1], 5), forbidden=[0, 1, 3, 5]
    ),
    "all forbidden": lambda: layers([2, 2], row("loss", [1, 2, 3, 4]), forbidden=[2, 3]),
    "a unit among a hundred gigabytes": lambda: layers(
        [2] * 6, row("loss", [0, 1] * 6), row("bytes", [BYTES + 1, BYTES] * 6, 6 * BYTES + 2)
    ),
    "an hour beside nanoseconds": lambda: layers(
        [2] * 5, row("loss", [0, 3] * 5), row("time", [HOUR, HOUR - 1, 3, 1, 3, 1, 3, 1, 3, 1], HOUR + 8)
    ),
    "losses that differ by one in a trillion": lambda: layers(
        [2] * 5, row("loss", [10**12 + 1, 10**12] * 5), row("time", [0, 1] * 5, 3)
    ),
    "sums near 2^62": lambda: layers(
        [2, 2], row("loss", [2**60, 2**59, 2**60 - 1, 2**59 + 1]), row("time", [2**60, 2**60 - 1] * 2, 2**61 - 1)
    ),
    "sums near 2^62, a unit too little": lambda: layers(
        [2, 2], row("loss", [0, 2**60, 0, 2**60]), row("time", [2**60, 2**60 - 1] * 2, 2**61 - 3)
    ),
    "a cost of 2^61 that must be paid": lambda: layers(
        [1, 2], row("loss", [2**61, 2**60, 2**60 - 1]), row("t", [1, 1, 1], 2)
    ),
    "a cost of 2^61 that must not": lambda: layers(
        [2, 2], row("loss", [0, 1, 0, 1]), row("t", [2**61, 1, 2**60, 1], 2**60)
    ),
    "a peak among gigabytes": lambda: layers(
        [2, 2, 2],
        row("loss", [0, 3, 0, 2, 0, 1]),
        row("bytes", [BYTES, 1] * 3, 2 * BYTES + 2, peaks=(0,)),
        peaks=(Peak(name="arena", options=range(6), costs=[BYTES + 1, 1, BYTES, 1, BYTES, 1]),),
    ),
    "steps whose sums meet the capacity exactly": lambda: layers(
        [2, 2, 2],
        row("loss", [0, 3, 0, 2, 0, 1]),
        Row(name="bytes", options=[], costs=[], peaks=(0,), capacity=BYTES + 7),
        peaks=(
            Peak(name="arena", options=[0, 1, 2, 3, 2, 4], costs=[BYTES, 7, 7, 0, BYTES, 8], steps=[0, 0, 0, 0, 1, 1]),
        ),
    ),
    "steps of unlike sizes within the objective": lambda: layers(
        [4, 1],
        row("bytes", [357795196709, 571529830729, 321869391075, 594300030199, 0], peaks=(0,)),
        peaks=(
            Peak(
                name="arena",
                options=[2, 0, 2, 3, 4],
                costs=[670624414693, 615385111481, 383677554261, 997209935789, 685541984480],
                steps=[0, 1, 1, 1, 1],
            ),
        ),
    ),
    "meetings of an hour": lambda: layers(
        [2, 2],
        row("loss", [0, 1, 0, 1]),
        row("time", [1] * 4, HOUR + 2),
        pairs=(
            Pair(
                source=0,
                target=1,
                source_format=[0, 1],
                target_format=[0, 1],
                allowed=[[True, True], [True, False]],
                costs=((1, [[HOUR + 1, HOUR], [2 * HOUR, 0]]),),
            ),
        ),
    ),
    "a deviation that meets the capacity exactly": lambda: layers(
        [2, 2],
        row("loss", [0, 5, 0, 6]),
        row("time", [HOUR, 1] * 2, 2 * HOUR + 10, spread=Spread(options=[0, 2], variances=[9, 16], z=Fraction(2))),
    ),
    "a deviation that breaks it by the root of one": lambda: layers(
        [2, 2],
        row("loss", [0, 5, 0, 6]),
        row("time", [HOUR, 1] * 2, 2 * HOUR + 10, spread=Spread(options=[0, 2], variances=[9, 17], z=Fraction(2))),
    ),
}
"""Problems, each with what is hard about it."""


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", solvers.available())
def test_numbers_of_any_kind_lead_no_solver_to_a_wrong_claim(name: str, case: str) -> None:
    problem = CASES[case]()
    solution = answer(name, problem)
    if solution is not None and name in INTEGERS:
        best = oracle(problem)
        assert solution.status is (Status.INFEASIBLE if best is None else Status.OPTIMAL)
        assert solution.objective == best


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("seed", range(40 if os.environ.get("BLINKPLAN_DEEP") == "1" else 4))
def test_a_nanosecond_beside_an_hour_and_a_byte_beside_gigabytes_are_counted(name: str, seed: int) -> None:
    problem = spanning(seed)
    solution = answer(name, problem)
    assert solution is not None
    assert solution.choices is not None
    best = oracle(problem)
    assert best is not None
    if name in INTEGERS:
        assert solution.status is Status.OPTIMAL
    at_best, below = tight(problem, 0), tight(problem, 1)
    for bounded in (at_best, below):
        found = answer(name, bounded)
        if name in INTEGERS:
            assert found is not None
            assert found.status is (Status.OPTIMAL if bounded is at_best else Status.INFEASIBLE)


@pytest.mark.parametrize("name", EXACT)
def test_a_bound_at_exactly_the_least_is_kept_and_a_unit_below_has_no_plan(name: str) -> None:
    problem = spanning(1)
    for which in range(3):
        free = problem.with_capacities([None] * 3, objective=which)
        least = oracle(free)
        assert least is not None
        for capacity, expected in ((least, Status.OPTIMAL), (least - 1, Status.INFEASIBLE)):
            capacities = [capacity if index == which else None for index in range(3)]
            found = answer(name, problem.with_capacities(capacities))
            assert found is not None
            if name in INTEGERS:
                assert found.status is expected

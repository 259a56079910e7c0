from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import small_problems
from test_solvers_exact import often

from solvers import Peak, Problem, Row
from solvers.check import values
from solvers.moves import Tables, Walk, evaluate
from solvers.moves.many import roots
from solvers.moves.scores import Scores
from solvers.moves.starts import cheapest, least_pressing
from solvers.spread import Spread

reduced = small_problems(ties=False, forbidden=False, then=False)
seeds = st.integers(0, 2**32 - 1)


def exactly(problem: Problem, places: list[int]) -> dict[int, int]:
    """Return what the checker says of the rows that matter, and how many forbidden meetings there are."""
    came = values(problem, places)
    found = {i: came[i] for i, row in enumerate(problem.rows) if row.capacity is not None or i == problem.objective}
    closed = ~problem.pairs.allowed[problem.pairs.cells(np.array(places))] if len(problem.pairs) else np.zeros(0)
    return found | {len(problem.rows): int(closed.sum())}


@given(problem=reduced, seed=seeds)
@often(60)
def test_a_walk_always_knows_what_every_row_comes_to(problem: Problem, seed: int) -> None:
    rng = np.random.default_rng(seed)
    sizes = np.diff(problem.start)
    walk = Walk(Tables.of(problem), rng.integers(0, sizes).tolist())
    for _ in range(8):
        assert {row: walk.rows[row] for row in exactly(problem, walk.places)} == exactly(problem, walk.places)
        group = int(rng.integers(problem.groups))
        walk.make(walk.look(group, int(rng.integers(sizes[group]))))


@given(problem=reduced, seed=seeds)
@often(60)
def test_all_moves_weighed_at_once_weigh_what_each_does_by_itself(problem: Problem, seed: int) -> None:
    rng = np.random.default_rng(seed)
    tables = Tables.of(problem)
    walk = Walk(tables, rng.integers(0, np.diff(problem.start)).tolist())
    weights = Scores(tables).weigh(walk)
    for option, group in enumerate(tables.of_option.tolist()):
        move = walk.look(group, option - int(problem.start[group]))
        assert weights.dearer[option] == move.dearer
        assert abs(weights.relief[option] + move.excess) <= 1e-9 * (1 + abs(move.excess))


@given(problem=reduced, seed=seeds)
@often(60)
def test_many_choices_come_to_what_each_comes_to(problem: Problem, seed: int) -> None:
    places = np.random.default_rng(seed).integers(0, np.diff(problem.start)[:, None], (problem.groups, 5))
    found = evaluate(Tables.of(problem), places)
    for column in range(places.shape[1]):
        for row, value in exactly(problem, places[:, column].tolist()).items():
            assert found[row, column] == value


@given(variances=st.lists(st.integers(0, 2**62), min_size=1, max_size=20), z=st.fractions(0, 5, max_denominator=1000))
@settings(max_examples=100)
def test_roots_are_exact_for_variances_of_any_size(variances: list[int], z: object) -> None:
    spread = Spread(options=[0], variances=[1], z=z)
    squares = variances + [int(variance**0.5) ** 2 for variance in variances]
    assert roots(spread, np.array(squares, np.int64)).tolist() == [spread.value(variance) for variance in squares]


def test_a_walk_finds_the_next_highest_step_where_the_highest_falls() -> None:
    peak = Peak(name="peak", options=[0, 1, 2, 4], costs=[9, 1, 7, 7])
    row = Row(name="row", options=[], costs=[], peaks=(0,), capacity=5)
    problem = Problem(start=[0, 2, 4, 6], rows=(row,), peaks=(peak,))
    walk = Walk(Tables.of(problem), [0, 0, 0])
    came = [walk.objective]
    for group in range(3):
        walk.make(walk.look(group, 1))
        came.append(walk.objective)
    assert came == [9, 7, 7, 1]
    assert walk.keeps()


def test_starts_are_cheap_or_press_little() -> None:
    rows = (
        Row(name="loss", options=[1, 3], costs=[5, 7]),
        Row(name="time", options=[0, 1, 2, 3], costs=[9, 1, 9, 2], capacity=10),
    )
    tables = Tables.of(Problem(start=[0, 2, 4], rows=rows))
    assert cheapest(tables).tolist() == [0, 0]
    assert least_pressing(tables).tolist() == [1, 1]

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from solvers import Status, get
from solvers.check import values
from solvers.instances.generate import generate
from solvers.instances.mmkp import KnapsackError, read, written

TWO_GROUPS = """
 2 2 2
 5.5 9
 1
 7.25 1 9
 3 0 0
 2
 10 4.5 0
 12 5.5 0
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "two.txt"


def test_values_and_weights_are_read_exactly(path: Path) -> None:
    path.write_text(TWO_GROUPS)
    knapsack = read(path)
    assert knapsack.digits == 2
    assert values(knapsack.problem, [0, 1])[0] == 0
    assert knapsack.value(0) == Decimal("19.25")
    assert [row.capacity for row in knapsack.problem.rows] == [None, 55, 9]
    assert values(knapsack.problem, [0, 0])[1:] == (55, 9)


def test_the_greatest_value_within_the_capacities_is_found(path: Path) -> None:
    path.write_text(TWO_GROUPS)
    knapsack = read(path)
    solution = get("exhaustive").solve(knapsack.problem)
    # 7.25 + 12 takes 6.5 of the first resource; 7.25 + 10 takes 5.5 of it.
    assert solution.status is Status.OPTIMAL
    assert solution.choices == (0, 0)
    assert knapsack.value(solution.objective) == Decimal("17.25")


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10**6), layers=st.integers(1, 8), options=st.integers(1, 5), digits=st.integers(0, 3))
def test_what_is_written_is_read_again(seed, layers, options, digits, tmp_path_factory) -> None:
    problem = generate(seed, layers=layers, options=options)
    path = tmp_path_factory.mktemp("mmkp") / "made"
    path.write_text(written(problem, best=10**12, digits=digits))
    again = read(path)
    choices = [options - 1] * layers
    objective, *used = values(problem, choices)
    lost = values(again.problem, choices)
    assert again.value(lost[0]) == Decimal(10**12 - objective).scaleb(-digits)
    # A resource whose numbers all end in zeros keeps them: only what stands behind a point is scaled.
    assert list(lost[1:]) == used
    assert [row.capacity for row in again.problem.rows[1:]] == [row.capacity for row in problem.rows[1:]]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (" 2 2 2\n", " 2 2\n", "line 2: got 2 numbers; expected the numbers of groups, items and resources"),
        (" 2 2 2\n", " 2 0 2\n", "line 2: got 2, 0, 2; expected the numbers of groups"),
        (" 5.5 9\n", " 5.5\n", "line 3: got 1 numbers; expected 2 capacities"),
        (" 2\n 10", " 3\n 10", "line 7: expected group 2, got 3"),
        ("7.25 1 9", "7.25 1", "line 5: got 2 numbers; expected item 1 of group 1: a value and 2 weights"),
        ("7.25 1 9", "7.25 -1 9", "line 5: item 1 of group 1 has the weight -1"),
        ("7.25 1 9", "7.25 one 9", "line 5: 'one' is no number"),
        ("7.25 1 9", "7.25 nan 9", "line 5: 'nan' is not finite"),
        ("7.25 1 9", "7.25 1e400 9", "line 5: '1e400' is out of range"),
        ("7.25 1 9", "7.25 1e18 9e-18", "too large"),
        (" 12 5.5 0\n", "", "line 8: the file ends; expected item 2 of group 2"),
        (" 12 5.5 0\n", " 12 5.5 0\n 3\n", "line 10: got '3' behind the last"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(path: Path, old: str, new: str, said: str) -> None:
    assert old in TWO_GROUPS
    text = TWO_GROUPS.replace(old, new, 1)
    if "too large" in said:
        text = text.replace(" 1e18 9e-18", " 1 9e-18").replace("5.5 9", "5.5 9e9")
    path.write_text(text)
    with pytest.raises(KnapsackError) as caught:
        read(path)
    assert said in str(caught.value)
    assert "two.txt" in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(KnapsackError, match="nothing: No such file"):
        read(tmp_path / "nothing")


def test_what_the_format_cannot_say_is_refused() -> None:
    with pytest.raises(KnapsackError, match="a peak or a spread"):
        written(generate(0, peaks=True))
    with pytest.raises(KnapsackError, match="pairs"):
        written(generate(0, pairs=True))
